//! Commands of the operator's program for a backend: `preview` lists its real tools, and `pin` prints their digests. A
//! pin in the spec keeps these tools, and hides one that differs from it. It replaces the pod, without a failed call.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use mcp_entra_crds::BackendSummary;
use serde::Deserialize;
use serde_json::json;
use testbed::chart::OPERATOR;
use testbed::command_line::CommandLine;
use testbed::programs::program;
use testbed::stack::AnyNode;

use super::callers;
use super::pods::{Load, roll_out};
use super::process::Process;
use super::world::{READER, World};
use crate::report::Evidence;

/// Tool that gets a wrong digest.
const CHANGED: &str = "pid";
/// Tool that callers use while the pod is replaced.
const USED: &str = "add";
/// Digest of no tool.
const WRONG: &str = "0000000000000000000000000000000000000000000000000000000000000000";
/// Time limit of a command. It asks a pod through the API server.
const LIMIT: Duration = Duration::from_secs(30);

/// Output of `pin`, which goes under `spec.backend`.
#[derive(Deserialize)]
struct Fragment {
    pin: BTreeMap<String, String>,
}

/// Lists and pins the tools of a server's backend. Readers are granted some of them, in their order.
pub(super) async fn is_kept(world: &World, name: &str, granted: &[&str]) -> anyhow::Result<Evidence> {
    let offered = usize::try_from(summary(world, name).await?.tools)?;
    ensure!(offered > granted.len(), "the backend has no tool without a grant");
    let listed = preview(world, name).await?;
    let allowed: Vec<_> = listed.tools.iter().filter(|(_, decision)| *decision == "allowed").collect();
    ensure!(listed.tools.len() == offered, "preview lists {:?}, but there are {offered} tools", listed.tools);
    ensure!(allowed.iter().map(|(name, _)| name).eq(granted), "preview allows {allowed:?}");
    ensure!(listed.notes.is_empty(), "{:?}", listed.notes);

    let printed = operator(world, &["pin", &format!("{}/{name}", world.namespace)]).await?;
    let Fragment { mut pin } = serde_yaml::from_str(&printed).with_context(|| printed.clone())?;
    ensure!(pin.keys().eq(listed.tools.keys()), "pin prints other tools than preview: {printed}");
    let digest = pin.insert(CHANGED.to_owned(), WRONG.to_owned()).context("a digest to change")?;
    ensure!(digest.len() == WRONG.len(), "not a digest: {digest}");
    let load = Load {
        server: name,
        url: world.url_at(&format!("/{name}")),
        call: json!({"name": USED, "arguments": {"a": 2, "b": 3}}),
    };
    let replaced = roll_out(world, &load, json!({"backend": {"pin": pin}})).await?;

    let hidden = || async { Ok(summary(world, name).await?.hidden) };
    world.eventually("the status names the hidden tool", hidden, |hidden| *hidden == [CHANGED]).await?;
    let kept: Vec<_> = granted.iter().filter(|name| **name != CHANGED).collect();
    let alice = world.sign_in(&world.alice).await?.access_token;
    let seen = callers::tools_at(world, load.url, &alice).await?;
    ensure!(seen.iter().eq(kept), "with a pin that differs for {CHANGED}, alice sees {seen:?}");
    let listed = preview(world, name).await?;
    ensure!(listed.tools.len() == offered - 1, "with the pin, preview lists {:?}", listed.tools);
    let hidden = format!("not offered, because they differ from spec.backend.pin: {CHANGED}");
    ensure!(listed.notes == [hidden.as_str()], "{:?}", listed.notes);
    Ok(vec![
        format!("preview lists all {offered} tools, and allows {} of them to {READER}", granted.len()),
        format!("pin prints their digests; with a wrong one of {CHANGED} it is hidden, and preview says so"),
        replaced,
    ])
}

/// Returns the backend in the status.
async fn summary(world: &World, name: &str) -> anyhow::Result<BackendSummary> {
    world.server_named(name).await?.status.and_then(|status| status.backend).context("a backend in the status")
}

/// Output of `preview`.
struct Preview {
    /// Decisions by tool.
    tools: BTreeMap<String, String>,
    notes: Vec<String>,
}

/// Runs `preview` for a reader.
async fn preview(world: &World, name: &str) -> anyhow::Result<Preview> {
    let printed =
        operator(world, &["preview", "--namespace", &world.namespace, "--server", name, "--role", READER]).await?;
    let notes = printed.lines().filter_map(|line| line.strip_prefix("note: ")).map(str::to_owned).collect();
    let rows = printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let tools = rows.skip(1).take_while(|row| !matches!(row[..], ["PROMPT" | "RESOURCE" | "note:", ..]));
    let tools = tools.filter_map(|row| match row[..] {
        [tool, decision, ..] => Some((tool.to_owned(), decision.to_owned())),
        _ => None,
    });
    Ok(Preview { tools: tools.collect(), notes })
}

/// Runs the operator's program as the cluster administrator, and returns its output.
async fn operator(world: &World, arguments: &[&str]) -> anyhow::Result<String> {
    let (namespace, name) = OPERATOR;
    let file = match world.stack.node {
        AnyNode::Processes(_) => tokio::task::spawn_blocking(move || program(name)).await??,
        AnyNode::Containers(_) => {
            let pods: Api<Pod> = Api::namespaced(world.kube.clone(), namespace);
            let own = ListParams::default().labels(&format!("app.kubernetes.io/name={name}"));
            let pod = pods.list(&own).await?.items.into_iter().next().context("the operator has a pod")?;
            // The program of the image, which is statically linked.
            Process::of(&pod, name)?.program()
        }
    };
    let mut command = tokio::process::Command::new(file);
    command.env("KUBECONFIG", world.stack.control_plane.kubeconfig());
    CommandLine::new(name, command, arguments, LIMIT).succeed(None).await
}
