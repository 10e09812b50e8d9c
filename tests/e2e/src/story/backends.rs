//! Third-party MCP server behind Entra. Roles grant its tools, and its end fails only the open call. In its own
//! container it has no token, and runs as the user in the spec.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use mcp_entra_crds::ConditionType;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use testbed::chart::{BACKEND, BACKEND_IMAGE};
use testbed::edge;
use testbed::stack::AnyNode;
use tokio::time::timeout;

use super::containers::PROGRAM;
use super::process::Process;
use super::world::{READER, World, merge};
use super::{callers, federation};
use crate::report::Evidence;

/// User of the backend's container.
const USER: i64 = 1234;
/// Port of the backend that speaks HTTP, in a pod with its own network.
const PORT: u16 = 3001;
/// Tools that the role grants, in their order. The backend has more.
const GRANTED: [&str; 3] = ["add", "pid", "slow"];
/// Time limit for the answer to an open call after the backend was killed.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) async fn over_stdio(world: &World) -> anyhow::Result<Evidence> {
    let (_, program) = BACKEND;
    stands_behind_entra(world, "stdio", json!({"transport": "Stdio", "command": [program]})).await
}

pub(super) async fn over_http(world: &World) -> anyhow::Result<Evidence> {
    let port = match world.stack.node {
        AnyNode::Containers(_) => PORT,
        // All processes share the ports of the machine, so the port must be a free one.
        AnyNode::Processes(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port(),
    };
    // The program is the image's own entry point.
    let backend = json!({"transport": "StreamableHttp", "port": port, "args": ["--port", port.to_string()]});
    stands_behind_entra(world, "http", backend).await
}

/// Applies a server with this backend, uses it, checks its container, kills it, and deletes the server.
async fn stands_behind_entra(world: &World, name: &str, backend: Value) -> anyhow::Result<Evidence> {
    let start = Instant::now();
    deploy(world, name, backend, &GRANTED).await?;
    let mut evidence = vec![format!("server {name} was Ready {:.1?} after kubectl apply", start.elapsed())];
    let url = world.url_at(&format!("/{name}"));
    let alice = world.sign_in(&world.alice).await?.access_token;
    evidence.push(is_granted_by_role(world, &url, &alice).await?);
    let pod = world.pods_of(name).await?.into_iter().next().context("the server has a pod")?;
    if let AnyNode::Containers(_) = world.stack.node {
        world.condition_of(name, ConditionType::BackendIsolated, "True").await?;
        evidence.push(has_no_token(&pod)?);
    }
    evidence.extend(survives_a_kill(world, &url, &alice, &pod).await?);
    delete(world, name).await?;
    Ok(evidence)
}

/// Deletes the server with its mapping.
pub(super) async fn delete(world: &World, name: &str) -> anyhow::Result<()> {
    world.kubectl(&["delete", "mcpserver", name, "--wait=true", "--timeout=60s"]).await?;
    world.kubectl(&["delete", "mcprolemapping", name]).await.map(drop)
}

/// Applies a server with this backend at the path of its name, grants these tools to readers, and waits until it is
/// Ready. The default image is the scripted backend's.
pub(super) async fn deploy(world: &World, name: &str, backend: Value, tools: &[&str]) -> anyhow::Result<()> {
    apply(world, name, backend, tools).await?;
    federation::allow(world, name).await?;
    for condition in [ConditionType::BackendReady, ConditionType::Ready] {
        world.condition_of(name, condition, "True").await?;
    }
    Ok(())
}

async fn apply(world: &World, name: &str, backend: Value, tools: &[&str]) -> anyhow::Result<()> {
    let mut server = world.server_manifest()?;
    server.pointer_mut("/spec").and_then(Value::as_object_mut).context("a spec")?.remove("graph");
    let edge = json!({"matchLabels": {"kubernetes.io/metadata.name": edge::NAMESPACE}});
    let mut scripted = json!({"image": BACKEND_IMAGE, "runAsUser": USER});
    merge(&mut scripted, &backend);
    merge(
        &mut server,
        &json!({"metadata": {"name": name}, "spec": {
            "backend": scripted,
            "entra": {"sharedClientId": true},
            "exposure": {"path": format!("/{name}")},
            "networkPolicy": {"allowFrom": [{"namespaceSelector": edge}]},
            "replicas": 1,
        }}),
    );
    let mapping = json!({
        "apiVersion": "mcp-entra.dev/v1alpha1", "kind": "McpRoleMapping",
        "metadata": {"name": name, "namespace": world.namespace},
        "spec": {"servers": {"names": [name]}, "grants": [
            {"name": "readers", "to": [{"appRole": READER}], "allow": {"tools": tools}},
        ]},
    });
    federation::share(world).await?;
    world.apply(&format!("---\n{server}\n---\n{mapping}\n")).await.map(drop)
}

async fn is_granted_by_role(world: &World, url: &str, alice: &str) -> anyhow::Result<String> {
    let bob = world.sign_in(&world.bob).await?.access_token;
    let listed = callers::tools_at(world, url.to_owned(), alice).await?;
    ensure!(listed == GRANTED, "alice sees {listed:?}");
    let listed = callers::tools_at(world, url.to_owned(), &bob).await?;
    ensure!(listed.is_empty(), "bob sees {listed:?}");
    let params = json!({"name": "add", "arguments": {"a": 2, "b": 3}});
    let sum = callers::call_at(world, url, alice, &params).await?;
    ensure!(is_five(&sum), "alice's sum: {sum:?}");
    let refused = callers::call_at(world, url, &bob, &params).await?;
    ensure!(refused.status == 403, "bob is not refused: {refused:?}");
    let hidden = callers::call_at(world, url, alice, &json!({"name": "echo", "arguments": {}})).await?;
    ensure!(hidden.status == 403, "a tool without a grant: {hidden:?}");
    Ok(format!("alice sees {} and adds 2 and 3; bob sees no tool and gets 403", GRANTED.join(", ")))
}

fn is_five(answer: &callers::Answer) -> bool {
    answer.is_tool_result() && answer.body.pointer("/result/structuredContent/sum").and_then(Value::as_f64) == Some(5.0)
}

/// Searches for the companion's token in the backend's container, which runs as another user.
fn has_no_token(pod: &Pod) -> anyhow::Result<String> {
    let (_, program) = BACKEND;
    let (server, backend) = (Process::of(pod, PROGRAM)?, Process::of(pod, program)?);
    let token = server.variable("AZURE_FEDERATED_TOKEN_FILE")?;
    ensure!(server.token().is_ok(), "the companion itself has no token, so the search proves nothing");
    let folder = Path::new(&token).parent().context("a folder")?;
    let inside = backend.root().join(folder.strip_prefix("/")?);
    ensure!(!inside.exists(), "the backend's container has {}", folder.display());
    let mounts = backend.read("mounts")?;
    let secret = mounts.lines().find(|line| line.contains("/secrets/") || line.contains(&*folder.to_string_lossy()));
    ensure!(secret.is_none(), "the backend's container mounts {secret:?}");
    let environment = backend.read("environ")?;
    ensure!(!environment.contains("AZURE_"), "the backend has variables of Entra: {environment}");
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).context("a root")?;
    ensure!(root.split(' ').nth(3).is_some_and(|options| options.starts_with("ro")), "its root is writable: {root}");
    let user = USER.to_string();
    for (what, expected) in [
        ("Uid", [user.as_str(); 4].join("\t")),
        ("CapEff", "0000000000000000".to_owned()),
        ("NoNewPrivs", "1".to_owned()),
        ("Seccomp", "2".to_owned()),
    ] {
        let found = backend.status(what)?;
        ensure!(found == expected, "{what} of the backend's process is {found}, not {expected}");
    }
    Ok(format!("its process is user {USER}'s, without a capability, root read-only, and {token} is not there"))
}

/// Kills the backend's process during an open call.
async fn survives_a_kill(world: &World, url: &str, alice: &str, pod: &Pod) -> anyhow::Result<Evidence> {
    // Others, and the companion itself, may have processes of their own.
    let id = callers::call_at(world, url, alice, &json!({"name": "pid", "arguments": {}})).await?;
    let id = id.body.pointer("/result/content/0/text").and_then(Value::as_str).context("the id of a process")?;
    let (_, program) = BACKEND;
    let process = match world.stack.node {
        AnyNode::Containers(_) => Process::numbered(pod, program, id)?.pid()?,
        AnyNode::Processes(_) => Pid::from_raw(id.parse()?),
    };
    let params = json!({
        "name": "slow", "arguments": {"signal": "never"}, "_meta": {"progressToken": "slow"},
    });
    let message = json!({"jsonrpc": "2.0", "id": 8, "method": "tools/call", "params": params});
    let mut open = callers::request(world, url, Some(alice), &message).send().await?;
    // Its first progress shows that the backend processes it.
    let mut begun = String::new();
    while !begun.contains("notifications/progress") {
        let chunk = timeout(ANSWER, open.chunk()).await.context("no progress")??;
        begun +=
            &String::from_utf8_lossy(&chunk.with_context(|| format!("it was answered without progress: {begun}"))?);
    }
    let killed = Instant::now();
    kill(process, Signal::SIGKILL)?;
    let rest = timeout(ANSWER, open.text()).await.context("the open call is not answered")??;
    let answered = killed.elapsed();
    let answer = callers::last_event(&rest).with_context(|| format!("no answer: {begun}{rest}"))?;
    let is_error = answer.pointer("/result/isError") == Some(&json!(true)) || answer.get("error").is_some();
    ensure!(is_error, "the open call of a killed backend was answered {answer}");

    let params = json!({"name": "add", "arguments": {"a": 2, "b": 3}});
    let next = || callers::call_at(world, url, alice, &params);
    world.eventually("the next call is answered", next, is_five).await?;
    Ok(vec![
        format!("its process killed, the open call failed {answered:.1?} later: {answer}"),
        format!("{:.1?} later the next was answered", killed.elapsed()),
    ])
}
