//! Steps that need real containers: the confinement of a server, recovery from kills and hangs, evictions, a missing
//! image, and a renewed service account token.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, EvictParams};
use kube::{Resource, ResourceExt};
use mcp_entra_crds::ConditionType;
use nix::sys::signal::{Signal, kill};
use serde_json::json;

use super::process::Process;
use super::world::{SERVER, World, merge};
use super::{callers, federation};
use crate::report::Evidence;

/// Program of a server.
pub(super) const PROGRAM: &str = "mcp-entra-server";
/// User of a server's process.
const USER: &str = "65532";
/// Number of times that a mapping is applied and deleted to measure the delays.
const ROUNDS: usize = 20;
/// Server whose service account token has the shortest lifetime that Kubernetes allows.
const ROTATING: &str = "rotating";
/// Minimum lifetime of a service account token.
const SHORTEST: Duration = Duration::from_secs(600);

/// Returns the only pod of the world's server that is not terminating.
async fn the_pod(world: &World) -> anyhow::Result<Pod> {
    let one = || staying(world);
    let (mut pods, _) = world.eventually("the server has one pod", one, |pods| pods.len() == 1).await?;
    pods.pop().context("one pod")
}

async fn staying(world: &World) -> anyhow::Result<Vec<Pod>> {
    let mut pods = world.pods().await?;
    pods.retain(|pod| pod.meta().deletion_timestamp.is_none());
    Ok(pods)
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|container| container.restart_count).sum()
}

pub(super) async fn confined(world: &World) -> anyhow::Result<Evidence> {
    let pod = the_pod(world).await?;
    let process = Process::of(&pod, PROGRAM)?;
    for (what, expected) in [
        ("Uid", [USER; 4].join("\t")),
        ("Gid", [USER; 4].join("\t")),
        ("CapEff", "0000000000000000".to_owned()),
        ("CapBnd", "0000000000000000".to_owned()),
        ("NoNewPrivs", "1".to_owned()),
        // Filter of system calls.
        ("Seccomp", "2".to_owned()),
    ] {
        let found = process.status(what)?;
        ensure!(found == expected, "{what} of the server's process is {found}, not {expected}");
    }
    let mounts = process.read("mounts")?;
    let root = mounts.lines().find(|line| line.split(' ').nth(1) == Some("/")).context("a root")?;
    let read_only = root.split(' ').nth(3).is_some_and(|options| options.split(',').any(|option| option == "ro"));
    ensure!(read_only, "its root is writable: {root}");
    let there: Vec<String> = names(&process.root())?;
    ensure!(there.contains(&"mcp-entra-server".to_owned()), "its root has other files: {there:?}");
    ensure!(
        !there.iter().any(|name| ["bin", "usr", "lib"].contains(&name.as_str())),
        "there are more files: {there:?}"
    );

    let root = json!({"metadata": {"name": "root", "namespace": world.namespace}, "apiVersion": "v1", "kind": "Pod",
        "spec": {"containers": [{"name": "root", "image": "localhost/pause:1"}]}});
    let refused = world.stack.kubectl_refused(&["apply", "-f", "-"], &root.to_string()).await?;
    ensure!(refused.contains("violates PodSecurity \"restricted"), "a pod that runs as root: {refused}");
    Ok(vec![
        format!(
            "user {USER}, no capability, no new privileges, system calls filtered, root read-only: {}",
            there.join(" ")
        ),
        format!(
            "namespace {} enforces the restricted standard: a pod that could run as root is refused",
            world.namespace
        ),
    ])
}

fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// Measures the time from `kubectl apply` to the effect on callers, through a mounted ConfigMap.
pub(super) async fn enforcement(world: &World) -> anyhow::Result<Evidence> {
    let token = world.sign_in(&world.bob).await?.access_token;
    let pods = async || {
        let pods = staying(world).await?;
        anyhow::Ok(pods.iter().map(|pod| (pod.uid(), restarts(pod))).collect::<BTreeMap<_, _>>())
    };
    let before = pods().await?;
    let (mut granted, mut withdrawn) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let start = Instant::now();
        callers::apply_sales_mapping(world, &json!({})).await?;
        until_answered(world, &token, 200).await?;
        granted.push(start.elapsed());
        let start = Instant::now();
        world.kubectl(&["delete", "mcprolemapping", "sales"]).await?;
        until_answered(world, &token, 403).await?;
        withdrawn.push(start.elapsed());
    }
    ensure!(pods().await? == before, "a pod was replaced or restarted");
    Ok(vec![
        format!("from kubectl apply of a mapping to bob's first call, {}", distribution(granted)),
        format!("from kubectl delete of it to his first refusal, {}", distribution(withdrawn)),
    ])
}

/// A kubelet never reads an immutable ConfigMap again. The policy continues under another name, and in other pods.
pub(super) async fn frozen(world: &World) -> anyhow::Result<Evidence> {
    let token = world.sign_in(&world.bob).await?.access_token;
    callers::apply_sales_mapping(world, &json!({})).await?;
    until_answered(world, &token, 200).await?;
    let before = the_pod(world).await?;
    let immutable = r#"{"immutable":true}"#;
    let policy = format!("{SERVER}-policy");
    world.kubectl(&["patch", "configmap", &policy, "--type=merge", "-p", immutable]).await?;
    let start = Instant::now();
    world.kubectl(&["delete", "mcprolemapping", "sales"]).await?;
    until_answered(world, &token, 403).await?;
    let refused = start.elapsed();
    // The Gateway sends no traffic to a terminating pod, but clients that know its address may still call it.
    let gone = || async { Ok(world.pods().await?.iter().all(|pod| pod.uid() != before.uid())) };
    world.eventually("the pod with the frozen policy is gone", gone, |gone| *gone).await?;
    let gone = start.elapsed();
    let programmed = world.condition(ConditionType::Programmed, "True").await?;
    ensure!(
        programmed.message.contains(&format!("{policy}-2")),
        "the status does not report it: {}",
        programmed.message
    );
    world.condition(ConditionType::Ready, "True").await?;

    callers::apply_sales_mapping(world, &json!({})).await?;
    until_answered(world, &token, 200).await?;
    world.kubectl(&["delete", "mcprolemapping", "sales"]).await?;
    until_answered(world, &token, 403).await?;
    Ok(vec![
        format!(
            "from kubectl delete of the mapping to bob's refusal, {refused:.1?}; to the end of the old pod, {gone:.1?}"
        ),
        format!("{}; later mappings and deletions are enforced again", programmed.message),
    ])
}

async fn until_answered(world: &World, token: &str, status: u16) -> anyhow::Result<()> {
    let answer = || async { Ok(callers::call(world, token, "get_user_details").await?.status) };
    world.eventually(&format!("bob gets {status}"), answer, |answer| *answer == status).await.map(drop)
}

fn distribution(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: usize| times.get((times.len() * share / 100).min(times.len() - 1)).copied().unwrap_or_default();
    format!(
        "{} times: minimum {:.2?}, median {:.2?}, 90 % {:.2?}, maximum {:.2?}",
        times.len(),
        at(0),
        at(50),
        at(90),
        at(100)
    )
}

pub(super) async fn killed(world: &World) -> anyhow::Result<Evidence> {
    let pod = the_pod(world).await?;
    let before = restarts(&pod);
    kill(Process::of(&pod, PROGRAM)?.pid()?, Signal::SIGKILL)?;
    let again = || async { Ok(world.pods().await?.iter().map(restarts).max().unwrap_or_default()) };
    let (_, restarted) = world.eventually("the kubelet restarts it", again, |count| *count > before).await?;
    world.condition(ConditionType::Ready, "True").await?;
    let token = world.sign_in(&world.alice).await?.access_token;
    let answer = callers::call(world, &token, "get_user_details").await?;
    ensure!(answer.is_tool_result(), "alice cannot call: {answer:?}");

    world.kubectl(&["delete", "pod", &pod.name_any(), "--wait=false"]).await?;
    let others = || staying(world);
    let is_another = |pods: &Vec<Pod>| pods.iter().any(|other| other.uid() != pod.uid() && is_ready(other));
    let (_, replaced) = world.eventually("another pod is ready", others, is_another).await?;
    world.condition(ConditionType::Ready, "True").await?;
    Ok(vec![
        format!("after a kill of its process, it ran again {restarted:.1?} later, in the same pod"),
        format!("after the deletion of its pod, another was ready {replaced:.1?} later"),
    ])
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Stops a process, so that it neither ends nor answers.
pub(super) async fn hanging(world: &World) -> anyhow::Result<Evidence> {
    let pod = the_pod(world).await?;
    let before = restarts(&pod);
    let start = Instant::now();
    kill(Process::of(&pod, PROGRAM)?.pid()?, Signal::SIGSTOP)?;
    let unavailable = world.condition(ConditionType::Available, "False").await?;
    let noticed = start.elapsed();
    let again = || async { Ok(world.pods().await?.iter().map(restarts).max().unwrap_or_default()) };
    world.eventually("its liveness probe restarts it", again, |count| *count > before).await?;
    world.condition(ConditionType::Ready, "True").await?;
    Ok(vec![
        format!("{noticed:.1?} after it stopped, it was out of service: {}", unavailable.message),
        format!("its liveness probe restarted it, and it was Ready {:.1?} after it stopped", start.elapsed()),
    ])
}

pub(super) async fn eviction(world: &World) -> anyhow::Result<Evidence> {
    scale(world, 2).await?;
    let budget = world.kubectl(&["get", "poddisruptionbudget", SERVER, "-o", "name"]).await?;
    ensure!(budget.contains(SERVER), "two pods have no PodDisruptionBudget");
    let pods = staying(world).await?;
    let [first, second] = pods.as_slice() else { bail!("two pods expected, not {}", pods.len()) };
    // The usual client would repeat the request, and never show the refusal.
    let mut impatient = world.stack.control_plane.config();
    impatient.default_retry = false;
    let api: Api<Pod> = Api::namespaced(impatient.try_into()?, &world.namespace);
    let evict = async |pod: &Pod| api.evict(&pod.name_any(), &EvictParams::default()).await.map(drop);
    // The budget counts ready pods a moment after the status does.
    let allowed = || async {
        let allowed = "-o=jsonpath={.status.disruptionsAllowed}";
        world.kubectl(&["get", "poddisruptionbudget", SERVER, allowed]).await
    };
    world.eventually("the budget allows one", allowed, |allowed| allowed == "1").await?;
    evict(first).await.context("the first eviction")?;
    let refused = match evict(second).await {
        Err(kube::Error::Api(status)) if status.code == 429 => status.message,
        other => bail!("the second eviction should be refused: {other:?}"),
    };
    let start = Instant::now();
    world.eventually("the budget allows an eviction again", allowed, |allowed| allowed == "1").await?;
    evict(second).await.context("the second eviction, once the budget allowed it")?;
    let room = start.elapsed();
    world.eventually("two pods are ready", || ready(world), |ready| *ready == 2).await?;
    scale(world, 1).await?;
    Ok(vec![
        format!("the first of two pods was evicted, the second refused: {refused}"),
        format!("{room:.1?} later the budget allowed it, and it was evicted, too"),
    ])
}

async fn ready(world: &World) -> anyhow::Result<i32> {
    Ok(world.server().await?.status.map(|status| status.ready_replicas).unwrap_or_default())
}

async fn scale(world: &World, replicas: i32) -> anyhow::Result<()> {
    let patch = json!({"spec": {"replicas": replicas}}).to_string();
    world.kubectl(&["patch", "mcpserver", SERVER, "--type=merge", "-p", &patch]).await?;
    world.eventually("as many pods are ready", || ready(world), |ready| *ready == replicas).await?;
    let pods = || async { Ok(world.pods().await?.len()) };
    world.eventually("no other pods are left", pods, |pods| i32::try_from(*pods) == Ok(replicas)).await?;
    world.condition(ConditionType::Ready, "True").await.map(drop)
}

pub(super) async fn missing_image(world: &World) -> anyhow::Result<Evidence> {
    let image = "localhost/mcp-entra-server:missing";
    let mut server = world.server_manifest()?;
    merge(
        &mut server,
        &json!({"metadata": {"name": "missing"}, "spec": {
            "image": image, "entra": {"sharedClientId": true}, "exposure": {"path": "/missing"},
        }}),
    );
    world.apply(&server.to_string()).await?;
    let told = || async { world.condition_of("missing", ConditionType::Available, "False").await };
    let names_it = |condition: &Condition| condition.message.contains(image);
    let (condition, _) = world.eventually("the image is named", told, names_it).await?;
    world.kubectl(&["delete", "mcpserver", "missing"]).await?;
    Ok(vec![format!("{}: {}", condition.reason, condition.message)])
}

/// Starts a server whose token has the shortest lifetime; [`rotated`] checks it later.
pub(super) async fn rotating(world: &World) -> anyhow::Result<Evidence> {
    let mut server = world.server_manifest()?;
    merge(
        &mut server,
        &json!({"metadata": {"name": ROTATING}, "spec": {
            "entra": {
                "sharedClientId": true,
                "federation": {"tokenExpirationSeconds": SHORTEST.as_secs()},
            },
            "exposure": {"path": "/rotating"},
        }}),
    );
    federation::share(world).await?;
    world.apply(&server.to_string()).await?;
    federation::allow(world, ROTATING).await?;
    world.condition_of(ROTATING, ConditionType::FederationReady, "True").await?;
    let token = Process::of(&pod_of(world, ROTATING).await?, PROGRAM)?.token()?;
    ensure!(token.expires - token.issued == 600, "its token lives {} s", token.expires - token.issued);
    Ok(vec![format!("server {ROTATING} has a token for {} s, and exchanges it", token.expires - token.issued)])
}

async fn pod_of(world: &World, server: &str) -> anyhow::Result<Pod> {
    let pods = world.pods_of(server).await?;
    pods.into_iter().next().with_context(|| format!("server {server} has no pod"))
}

pub(super) async fn rotated(world: &World) -> anyhow::Result<Evidence> {
    let pod = pod_of(world, ROTATING).await?;
    let created = pod.meta().creation_timestamp.clone().context("a creation time")?.0.as_second();
    let process = Process::of(&pod, PROGRAM)?;
    let first_expires = created + i64::try_from(SHORTEST.as_secs())?;
    // The kubelet renews the token after four fifths of its lifetime. The server continues past the expiry of the first
    // token.
    let deadline = Instant::now() + SHORTEST + Duration::from_secs(120);
    let subject = format!("system:serviceaccount:{}:{ROTATING}", world.namespace);
    let now = || jiff::Timestamp::now().as_second();
    let token = loop {
        let token = process.token()?;
        if now() > first_expires + 10 && token.issued > created + 60 {
            break token;
        }
        ensure!(Instant::now() < deadline, "the token was not renewed: {token:?}, the pod's {created}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    };
    let seen = world.stack.entra.control().requests().last().map_or(0, |request| request.sequence);
    let exchanged = || async {
        let requests = world.stack.entra.control().requests();
        Ok(requests.iter().any(|request| {
            request.sequence > seen
                && request.status == 200
                && request.federated.as_ref().is_some_and(|federated| federated.subject == subject)
        }))
    };
    world.eventually("Entra takes the renewed token", exchanged, |taken| *taken).await?;
    world.condition_of(ROTATING, ConditionType::FederationReady, "True").await?;
    ensure!(restarts(&pod_of(world, ROTATING).await?) == 0, "the pod was restarted");
    world.kubectl(&["delete", "mcpserver", ROTATING]).await?;
    Ok(vec![format!(
        "renewed by the kubelet {} s after the pod's creation, and exchanged after the first had expired; no restart",
        token.issued - created
    )])
}
