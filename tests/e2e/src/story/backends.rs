//! Third-party MCP server behind Entra. Roles grant its tools, and its end fails only the open call. In its own
//! container it has no token, and runs as the user in the spec. The status names a port that it opens to others.

use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
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
use super::world::{READER, World, find, merge};
use super::{backend_pin, callers, federation, pods};
use crate::report::Evidence;

/// User of the backend's container.
const USER: i64 = 1234;
/// Port of the backend that speaks HTTP, in a pod with its own network.
const PORT: u16 = 3001;
/// Tools that the role grants, in their order. The backend has more.
const GRANTED: [&str; 5] = ["add", "announce", "listen_everywhere", "pid", "slow"];
/// Ports that the backend tries to open. As text they come before most others, of which a status names 16.
const OPENED: Range<u16> = 10_000..11_000;
/// Time limit for the answer to an open call after the backend was killed.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) async fn over_stdio(world: &World) -> anyhow::Result<Evidence> {
    let (_, program) = BACKEND;
    let name = "stdio";
    let mut evidence = stands_behind_entra(world, name, json!({"transport": "Stdio", "command": [program]})).await?;
    evidence.extend(backend_pin::is_kept(world, name, &GRANTED).await?);
    delete(world, name).await?;
    Ok(evidence)
}

pub(super) async fn over_http(world: &World) -> anyhow::Result<Evidence> {
    let port = match world.stack.node {
        AnyNode::Containers(_) => PORT,
        // All processes share the ports of the machine, so the port must be a free one.
        AnyNode::Processes(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port(),
    };
    // The program is the image's own entry point.
    let backend = json!({"transport": "StreamableHttp", "port": port, "args": ["--port", port.to_string()]});
    let name = "http";
    let evidence = stands_behind_entra(world, name, backend).await?;
    delete(world, name).await?;
    Ok(evidence)
}

/// Applies a server with this backend, uses it, checks its container and its ports, and kills it.
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
    evidence.push(opens_a_port(world, name, &alice).await?);
    evidence.extend(survives_a_kill(world, &url, &alice, &pod).await?);
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
            "rateLimit": pods::for_callers_without_pauses(),
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

/// Lets the backend listen on all addresses, which the status notices.
async fn opens_a_port(world: &World, name: &str, alice: &str) -> anyhow::Result<String> {
    let url = world.url_at(&format!("/{name}"));
    let call = async |tool: &str, arguments: Value| {
        callers::call_at(world, &url, alice, &json!({"name": tool, "arguments": arguments})).await
    };
    let mut ports = OPENED;
    let port = loop {
        let port = ports.next().context("the backend opens no port")?;
        if call("listen_everywhere", json!({"port": port})).await?.is_tool_result() {
            break port;
        }
    };
    // The companion looks again after each change of a list.
    call("announce", json!({"kind": "tools"})).await?;
    let isolated = || async { Ok(find(&world.server_named(name).await?, ConditionType::BackendIsolated).cloned()) };
    let opened = format!("0.0.0.0:{port}");
    let (isolated, _) = world
        .eventually("the status names the open port", isolated, |condition| {
            condition.as_ref().is_some_and(|condition| condition.message.contains(&opened))
        })
        .await?;
    let isolated = isolated.context("eventually only returns a success")?;
    let reason = match world.stack.node {
        AnyNode::Containers(_) => "BackendUnreached",
        // The operator reaches these pods through a proxy, which cannot try ports.
        AnyNode::Processes(_) => "IsolationUnknown",
    };
    ensure!((isolated.status.as_str(), isolated.reason.as_str()) == ("Unknown", reason), "{isolated:?}");
    Ok(format!("it listens on {opened}, and BackendIsolated is Unknown: {reason}"))
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
