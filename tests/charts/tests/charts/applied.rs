//! Tests of applying the rendered objects twice with kubectl, as a GitOps controller or a person without Helm does.

use std::process::Stdio;

use serde_json::{Value, json};
use testbed::chart::OPERATOR;
use testbed::control_plane::ControlPlane;
use testbed::definitions;
use testbed::supervisor::Supervisor;
use tokio::io::AsyncWriteExt;

use crate::openapi::render;
use crate::values;

/// Returns the output lines of `kubectl apply` for these objects.
async fn apply(plane: &ControlPlane, objects: &str) -> Vec<String> {
    let mut command = tokio::process::Command::new(plane.kubectl());
    command.args(["apply", "-f", "-"]).env("KUBECONFIG", plane.kubeconfig()).kill_on_drop(true);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(objects.as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_apply_of_everything_that_the_chart_renders_changes_nothing() {
    let supervisor = Supervisor::start().unwrap();
    let plane = ControlPlane::start(&supervisor).await.unwrap();
    let others = tokio::task::spawn_blocking(definitions::prometheus_operator).await.unwrap().unwrap();
    definitions::define(&plane.client().unwrap(), &others).await.unwrap();
    let namespaces = [OPERATOR.0, "productivity", "sales"]
        .map(|name| format!("kind: Namespace\napiVersion: v1\nmetadata: {{name: {name}}}\n"));
    apply(&plane, &namespaces.join("---\n")).await;
    for values in [json!({}), values::everything(), values::namespaced()] {
        let objects = render(&values, "1.37.2").await;
        let is_hook = |object: &Value| object["metadata"]["annotations"]["helm.sh/hook"].is_string();
        let mut objects: Vec<&Value> = objects.iter().filter(|object| !is_hook(object)).collect();
        objects.sort_by_key(|object| object["kind"] != "CustomResourceDefinition");
        let text: String = objects.iter().map(|object| format!("---\n{object}\n")).collect();
        apply(&plane, &text).await;
        let again = apply(&plane, &text).await;
        assert_eq!(again.len(), objects.len());
        let changed: Vec<String> = again.into_iter().filter(|line| !line.ends_with(" unchanged")).collect();
        // kubectl always sends the selector of a budget, which is replaced as a whole, and reports a change. The API
        // server changes nothing.
        assert_eq!(changed, ["poddisruptionbudget.policy/mcp-entra-operator configured"]);
    }
}
