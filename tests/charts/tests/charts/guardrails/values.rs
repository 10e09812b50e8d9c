//! Tests of the guardrails' values, rendered without a cluster.

use serde_json::{Value, json};
use testbed::chart::{REGISTRY_VALUE, chart, rendered};
use testbed::helm::Helm;
use testbed::supervisor::Supervisor;

use crate::values;

async fn helm() -> Helm {
    Helm::offline(&Supervisor::start().unwrap()).await.unwrap()
}

async fn refused(values: &Value) -> String {
    let arguments = ["template", "mcp-entra", &chart(), "--set", REGISTRY_VALUE, "--set-json", &values.to_string()];
    helm().await.refused(&arguments).await.unwrap()
}

async fn render(values: &Value) -> Vec<Value> {
    rendered(&helm().await, &["--set-json", &values.to_string()]).await.unwrap()
}

fn bindings(objects: &[Value]) -> Vec<&Value> {
    objects.iter().filter(|object| object["kind"] == "ValidatingAdmissionPolicyBinding").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_guardrail_is_enabled_by_default() {
    let objects = render(&json!({})).await;
    assert!(!objects.is_empty() && bindings(&objects).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn guardrails_apply_only_in_the_watched_namespaces_of_their_release() {
    let objects = render(&values::namespaced()).await;
    for binding in bindings(&objects) {
        let selector = &binding["spec"]["matchResources"]["namespaceSelector"];
        if binding["spec"]["policyName"].as_str().unwrap().ends_with("-operator-bounds") {
            assert!(selector.is_null(), "{binding}");
        } else {
            assert_eq!(selector["matchLabels"]["guarded"], "true");
            let watched =
                json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["productivity", "sales"]});
            assert_eq!(selector["matchExpressions"], json!([watched]), "{binding}");
        }
    }
    let named = |objects: &[Value]| {
        objects.iter().any(|object| {
            object["kind"] == "ValidatingAdmissionPolicy"
                && object.to_string().contains("clustermcprolemappings/status")
        })
    };
    assert!(!named(&objects), "these are of no namespace");
    assert!(named(&render(&values::everything()).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guardrail_that_would_refuse_the_default_image_is_refused() {
    let digests = |actions: Value| json!({"guardrails": {"requireDigests": {"enabled": true, "actions": actions}}});
    assert!(refused(&digests(json!(["Deny"]))).await.contains("set image.server.digest"));
    assert_eq!(bindings(&render(&digests(json!(["Warn", "Audit"]))).await).len(), 2);
    let registries =
        |names: Value| json!({"guardrails": {"allowedRegistries": {"enabled": true, "registries": names}}});
    for names in [json!([]), json!(["localhos"]), json!(["localhost/other"])] {
        assert!(refused(&registries(names)).await.contains("add its registry to registries"));
    }
    assert_eq!(bindings(&render(&registries(json!(["localhost"]))).await).len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_has_the_actions_of_its_value_and_two_actions_are_refused() {
    let tls = |actions: Value| json!({"guardrails": {"requireTls": {"enabled": true, "actions": actions}}});
    for actions in [json!(["Deny"]), json!(["Warn", "Audit"]), json!(["Deny", "Audit"])] {
        assert_eq!(bindings(&render(&tls(actions.clone())).await)[0]["spec"]["validationActions"], actions);
    }
    for actions in [json!([]), json!(["Deny", "Warn"]), json!(["deny"])] {
        assert!(refused(&tls(actions)).await.contains("actions"));
    }
}
