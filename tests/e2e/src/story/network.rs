//! Enforcement of NetworkPolicies by the node's network. The Gateway's namespace can reach a server, and a namespace
//! without a policy cannot. A server can reach only the ports that its spec implies, and its backend's destinations.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use mcp_entra_crds::ConditionType;
use serde_json::{Value, json};
use testbed::chart::BACKEND;
use testbed::edge;

use super::backends;
use super::containers::PROGRAM;
use super::process::Process;
use super::world::World;
use crate::report::Evidence;

/// The server of this step.
const NAME: &str = "isolated";
/// A namespace that no policy names.
const STRANGERS: &str = "strangers";
/// Name of the pod in each of the two other namespaces. It listens on no port.
const GUEST: &str = "guest";
/// The server's ports for clients and for the operator.
const PORTS: [u16; 2] = [8080, 8081];
/// A port that the spec implies, and the next port, which it does not imply.
const OUT: [u16; 2] = [443, 444];
/// Address outside the cluster that the backend may reach (RFC 5737), and the address of a cloud's metadata service.
const OUTSIDE: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(169, 254, 169, 254)];
/// Port that `backend.egress` allows there, and the next port, which it does not allow.
const DATABASE: [u16; 2] = [5432, 5433];
/// Time without an answer after which a packet counts as dropped. The kernel sends it again after one second.
const SILENCE: Duration = Duration::from_secs(3);

pub(super) async fn is_enforced(world: &World) -> anyhow::Result<Evidence> {
    let (_, program) = BACKEND;
    let ([database, metadata], [allowed, next]) = (OUTSIDE, DATABASE);
    let egress = json!([{"cidr": format!("{database}/32"), "ports": [allowed]}]);
    let backend = json!({"transport": "Stdio", "command": [program], "egress": egress});
    backends::deploy(world, NAME, backend, &["add"]).await?;
    let guests = [STRANGERS, edge::NAMESPACE];
    world.apply(&guests.map(guest).concat()).await?;
    for namespace in guests {
        let ready = ["wait", "--namespace", namespace, "--for=condition=Ready", "--timeout=60s", "pod", GUEST];
        world.stack.kubectl(&ready, None).await?;
    }
    let server = End::of(&world.pods_of(NAME).await?.into_iter().next().context("the server has a pod")?, PROGRAM)?;
    let pods = |namespace| Api::<Pod>::namespaced(world.kube.clone(), namespace);
    let stranger = End::of(&pods(STRANGERS).get(GUEST).await?, "pause")?;
    let gateway = End::of(&pods(edge::NAMESPACE).get(GUEST).await?, "pause")?;
    stranger.answers_at(&OUTSIDE).await?;

    let ([clients, admin], [implied, other]) = (PORTS, OUT);
    for (from, to, port, reached) in [
        (&gateway, server.address, clients, true),
        (&gateway, server.address, admin, false),
        (&stranger, server.address, clients, false),
        (&stranger, server.address, admin, false),
        (&server, stranger.address, implied, true),
        (&server, stranger.address, other, false),
        (&server, stranger.address, allowed, false),
        (&server, database.into(), allowed, true),
        (&server, database.into(), next, false),
        (&server, metadata.into(), implied, false),
        // No policy selects these two pods.
        (&stranger, gateway.address, other, true),
        (&gateway, database.into(), next, true),
        (&gateway, metadata.into(), implied, true),
    ] {
        let what = format!("{} reaches port {port} of {to}: {reached}", from.name);
        let ask = || from.process.reaches(SocketAddr::new(to, port), SILENCE);
        world.eventually(&what, ask, |answer| *answer == reached).await?;
    }
    // The operator still reads the server's admin port.
    world.condition_of(NAME, ConditionType::Ready, "True").await?;
    world.stack.kubectl(&["delete", "namespace", STRANGERS, edge::NAMESPACE, "--wait=false"], None).await?;
    backends::delete(world, NAME).await?;
    Ok(vec![
        format!("port {clients} answers a pod of namespace {}, and not one of namespace {STRANGERS}", edge::NAMESPACE),
        format!(
            "port {admin} answers neither; the server itself reaches port {implied} of a pod, and not port {other}"
        ),
        format!("of {database} it reaches port {allowed}, as backend.egress allows, and not port {next}"),
        format!("{metadata} answers a pod without a policy at port {implied}, and not the server"),
    ])
}

/// Returns the manifests of a namespace and its pod.
fn guest(namespace: &str) -> String {
    let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    let pod: Value = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": GUEST, "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 0, "automountServiceAccountToken": false,
            "containers": [{"name": GUEST, "image": "localhost/pause:1"}],
        },
    });
    format!("---\n{space}\n---\n{pod}\n")
}

/// One end of a connection: a pod, and a process in the pod's network.
struct End {
    name: String,
    address: IpAddr,
    process: Process,
}

impl End {
    fn of(pod: &Pod, program: &str) -> anyhow::Result<Self> {
        let name = pod.metadata.namespace.clone().unwrap_or_default();
        let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).context("a pod's address")?;
        Ok(Self { name: format!("a pod of {name}"), address: address.parse()?, process: Process::of(pod, program)? })
    }

    /// Lets the pod answer at addresses outside the cluster, as long as it exists.
    async fn answers_at(&self, addresses: &[Ipv4Addr]) -> anyhow::Result<()> {
        let route = ip(&["-o", "route", "get", &self.address.to_string()])?;
        let mut words = route.split_whitespace().skip_while(|word| *word != "dev");
        let link = words.nth(1).with_context(|| format!("no link to the pod: {route}"))?;
        for address in addresses.iter().map(ToString::to_string) {
            ip(&["route", "add", &address, "dev", link])?;
            self.process.in_network(move || ip(&["address", "add", &address, "dev", "lo"])).await?;
        }
        Ok(())
    }
}

/// Runs `ip` in the network of this thread.
fn ip(arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("/usr/sbin/ip").args(arguments).output()?;
    let (told, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "ip {}: {error}", arguments.join(" "));
    Ok(told.into_owned())
}
