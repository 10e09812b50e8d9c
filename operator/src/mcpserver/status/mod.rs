//! Status: what is so, as conditions (pure), and the one write that says it.

pub(crate) mod available;
pub(crate) mod debounce;
pub(crate) mod exposed;
pub(crate) mod federation_and_authorization;
pub(crate) mod programmed;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use k8s_openapi::jiff::Timestamp;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
};
use mcp_entra_crds::{ConditionType, Exposure, FederatedCredential, McpServer, McpServerStatus, Ownership};

use crate::{
    MANAGER,
    conditions::{
        condition::{Reason, Verdict, conditions, with_ready},
        unwritten::Unwritten,
    },
    fleet,
    mcpserver::{
        apply::{Conflict, status_patch},
        memory::{ServerMemory, WrittenStatus},
        pods::{PolledPod, report},
        status::{
            available::{Rollout, availability},
            exposed::Leading,
            federation_and_authorization::{authorization, federation},
            programmed::{accepted, conflicted, not_served, programmed},
        },
        validate::{Refusal, exposure::leads, public_url},
    },
    objects::{
        child::ChildKind,
        edition::Mounted,
        owner::Owner,
        views::{ChildView, PodView},
    },
    ownership::Standing,
    policy::compile::Compiled,
    runtime::errors::Error,
    watch::stores::OwnChildren,
};

/// How long a ready pod may fail to report the compiled policy before the conditions say so.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// What a pass has found out about one McpServer.
pub(crate) struct Facts<'a> {
    pub(crate) server: &'a McpServer,
    pub(crate) owner: &'a Owner,
    /// Whether the spec is accepted; absent where that could not be found out.
    pub(crate) validation: Option<Result<(), &'a Refusal>>,
    /// Hash of the configuration that the pods should have, if the spec is accepted.
    pub(crate) configuration: Option<String>,
    pub(crate) conflict: Option<&'a Conflict>,
    /// Its standing among the servers that name the same host or client id.
    pub(crate) standing: &'a Standing,
    pub(crate) error: Option<&'a Error>,
    pub(crate) policy: &'a Compiled,
    /// Whether the Deployment has been applied, but not been seen again since.
    pub(crate) deployment_is_stale: bool,
    /// Kinds that the spec asks for and this cluster lacks.
    pub(crate) missing: &'a BTreeSet<ChildKind>,
    /// Why the pods as built are not rolled out yet.
    pub(crate) upgrade: Option<&'a fleet::Held>,
    pub(crate) mounted: Mounted,
    pub(crate) children: &'a OwnChildren,
    /// Gateways and listeners that the spec names and that do not exist, in words.
    pub(crate) absent: &'a [String],
    /// The children of the earlier server of this host whose listener this one shares, if it shares one.
    pub(crate) carrying: &'a OwnChildren,
    pub(crate) pods: &'a [&'a PodView],
    pub(crate) polled: &'a [PolledPod],
    /// For how long some ready pod has not reported the compiled policy.
    pub(crate) lagging: Option<Duration>,
    /// For how long some ready pod has not ended its first probe, or could not be asked.
    pub(crate) probing: Option<Duration>,
}

/// Whether a ready pod has yet to say whether its credential works.
pub(crate) fn is_probing(polled: &PolledPod) -> bool {
    polled.pod.is_ready() && !polled.report.as_ref().is_ok_and(|report| report.works.is_some())
}

impl<'a> Facts<'a> {
    pub(crate) fn child(&self, kind: ChildKind) -> Option<&'a ChildView> {
        self.children.get(&kind).map(|child| &**child)
    }

    /// What leads clients to the server: where it shares an older server's listener, that one's.
    fn leading(&self, exposure: &'a Exposure, now: Timestamp) -> Leading<'a> {
        let listener_of = self.standing.held().and_then(|held| held.listener_of.as_ref());
        let carrying = if listener_of.is_some() { self.carrying } else { self.children };
        let carried = |kind| carrying.get(&kind).map(|child| &**child);
        Leading {
            namespace: &self.owner.namespace,
            exposure,
            absent: self.absent,
            ingress: self.child(ChildKind::Ingress),
            route: self.child(ChildKind::HttpRoute),
            listener_set: carried(ChildKind::ListenerSet),
            listener_set_name: &listener_of.unwrap_or(self.owner).name,
            certificate: carried(ChildKind::Certificate),
            now,
        }
    }

    /// Says whether the spec could be applied, if it were decided who holds what it names.
    pub(crate) fn is_undecided(&self) -> bool {
        *self.standing == Standing::Open
            && !self.server.spec.suspend
            && self.error.is_none()
            && self.validation.is_some_and(|validation| validation.is_ok())
    }

    pub(crate) fn ready_pods(&self) -> impl Iterator<Item = &PolledPod> {
        self.polled.iter().filter(|polled| polled.pod.is_ready())
    }

    /// Ready pods that were started with the configuration that there should be.
    pub(crate) fn current_pods(&self) -> Vec<&PolledPod> {
        let is_current = |polled: &&PolledPod| {
            self.configuration.is_none() || polled.pod.configuration_hash.as_deref() == self.configuration.as_deref()
        };
        self.ready_pods().filter(is_current).collect()
    }
}

/// The status that follows from the facts.
pub(crate) fn status(facts: &Facts<'_>, previous: &McpServerStatus, now: Timestamp) -> McpServerStatus {
    let spec = &facts.server.spec;
    let mut verdicts = vec![
        (ConditionType::Accepted, accepted(facts, &previous.conditions)),
        (ConditionType::Programmed, programmed(facts)),
        (ConditionType::Available, availability(rollout(facts))),
        (ConditionType::FederationReady, federation(facts, &previous.conditions)),
        (ConditionType::AuthorizationReady, authorization(facts, &previous.conditions)),
    ];
    if let Some(exposure) = &spec.exposure {
        let leading = facts.leading(exposure, now);
        verdicts.push((ConditionType::Exposed, exposed(facts, leading)));
        if exposure.tls.issuer_ref.is_some() {
            verdicts.push((ConditionType::CertificateReady, certificate(facts, leading)));
        }
    }
    if let Some((reason, message)) = conflicted(facts) {
        verdicts.push((ConditionType::Conflicted, Verdict::yes(reason, message)));
    }
    let verdicts = with_ready(verdicts, Verdict::yes(Reason::Ready, "the server is ready"));
    let generation = facts.server.metadata.generation;
    let deployment = facts.child(ChildKind::Deployment).map(ChildView::status);
    McpServerStatus {
        observed_generation: generation,
        version: version(facts, previous),
        url: public_url(spec.exposure.as_ref().filter(|exposure| is_led_to(facts, exposure))),
        replicas: deployment.map_or(0, |status| status.replicas),
        ready_replicas: deployment.map_or(0, |status| status.ready_replicas),
        selector: Some(selector(facts.owner)),
        federation: Some(credential(facts, previous)),
        policy: Some(facts.policy.summary.clone()),
        ownership: ownership(facts, previous),
        conditions: conditions(&previous.conditions, verdicts, generation, now),
    }
}

/// Says whether clients reach the server, or will, by the address of its exposure.
fn is_led_to(facts: &Facts<'_>, exposure: &Exposure) -> bool {
    let is_refused = facts.validation.is_some_and(|validation| validation.is_err_and(Refusal::hides));
    match facts.standing {
        _ if is_refused => false,
        Standing::Held(_) => true,
        Standing::Lost(_) => false,
        // An operator that allows no host does not start over servers that have an address: a spec that was not looked at
        // gives none.
        Standing::Open => facts.validation.is_some() && leads(facts.children, exposure),
    }
}

/// The values that a server holds, as it names them. While that is undecided, it holds what it held.
fn ownership(facts: &Facts<'_>, previous: &McpServerStatus) -> Option<Ownership> {
    match facts.standing {
        Standing::Held(_) => Some(values_of(facts.server)),
        Standing::Open => previous.ownership.clone(),
        Standing::Lost(_) => None,
    }
}

/// The values that a spec names.
fn values_of(server: &McpServer) -> Ownership {
    let exposure = server.spec.exposure.as_ref();
    let mut audiences = vec![server.spec.entra.client_id.clone()];
    audiences.extend(server.spec.entra.audiences.iter().cloned());
    Ownership {
        host: exposure.map(|exposure| exposure.host.clone()),
        path: exposure.map(|exposure| exposure.path.clone()),
        audiences,
    }
}

/// The version that every ready pod runs: while they differ, the oldest; while none can be asked, what was known.
fn version(facts: &Facts<'_>, previous: &McpServerStatus) -> Option<String> {
    let versions = facts.ready_pods().filter_map(|polled| polled.report.as_ref().ok()?.version.clone());
    let numbers =
        |version: &String| version.split(['.', '-']).map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    versions.min_by_key(numbers).or_else(|| previous.version.clone())
}

fn rollout<'a>(facts: &Facts<'a>) -> Rollout<'a> {
    Rollout {
        namespace: &facts.owner.namespace,
        wanted: wanted(facts),
        enough: match &facts.server.spec.autoscaling {
            Some(autoscaling) => autoscaling.min_replicas,
            // Nobody knows the fewest that others want, besides one.
            None if is_external(facts) => 1,
            None => i32::MAX,
        },
        deployment: facts.child(ChildKind::Deployment),
        autoscaler: facts.server.spec.autoscaling.as_ref().and_then(|_| facts.child(ChildKind::Autoscaler)),
        is_external: is_external(facts),
        is_stale: facts.deployment_is_stale,
        pods: facts.pods,
        polled: facts.polled,
    }
}

/// The pods' labels as a query.
fn selector(owner: &Owner) -> String {
    owner.selector().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Returns true if neither the spec nor an autoscaler of the operator's says how many pods there are.
fn is_external(facts: &Facts<'_>) -> bool {
    facts.server.spec.replicas.is_none() && facts.server.spec.autoscaling.is_none()
}

/// The pods that there should be: with an autoscaler, as many as it has set last, or is about to. At 0 it leaves them.
/// Where others scale the Deployment, as many as they have set last.
fn wanted(facts: &Facts<'_>) -> i32 {
    let live = || facts.child(ChildKind::Deployment)?.replicas;
    match &facts.server.spec.autoscaling {
        Some(autoscaling) if live() != Some(0) => live().unwrap_or(1).max(autoscaling.min_replicas),
        Some(_) => 0,
        None => facts.server.spec.replicas.or_else(live).unwrap_or(1),
    }
}

/// What the credential in Entra must say. The issuer stays known while no pod can be asked.
fn credential(facts: &Facts<'_>, previous: &McpServerStatus) -> FederatedCredential {
    let Owner { namespace, name, .. } = facts.owner;
    let issuer = facts.polled.iter().find_map(|polled| polled.report.as_ref().ok()?.issuer.clone());
    let federation = facts.server.spec.entra.federation.as_ref();
    let existing = federation.and_then(|federation| federation.service_account_name.clone());
    let account = existing.unwrap_or_else(|| ChildKind::ServiceAccount.name(name));
    FederatedCredential {
        issuer: issuer.or_else(|| report::issuer(previous.federation.as_ref()?.issuer.clone()?)),
        subject: format!("system:serviceaccount:{namespace}:{account}"),
        audience: facts.server.spec.entra.cloud.federation_audience().to_owned(),
    }
}

/// Names for a message: the first ten, and how many more there are.
pub(crate) fn named(names: &[String]) -> String {
    let first = names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(10) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

/// Whether clients outside the cluster are led to the server.
fn exposed(facts: &Facts<'_>, leading: Leading<'_>) -> Verdict {
    if let Some(lost) = facts.standing.lost() {
        return Verdict::no(lost.reason(), lost.message());
    }
    let missing: BTreeSet<ChildKind> =
        facts.missing.iter().copied().filter(|kind| *kind != ChildKind::Certificate).collect();
    if missing.iter().any(|kind| ChildKind::EXPOSING.contains(kind)) {
        return Verdict::no(Reason::KindNotServed, not_served(&missing));
    }
    exposed::exposed(leading)
}

fn certificate(facts: &Facts<'_>, leading: Leading<'_>) -> Verdict {
    if facts.missing.contains(&ChildKind::Certificate) {
        return Verdict::no(Reason::KindNotServed, not_served(&BTreeSet::from([ChildKind::Certificate])));
    }
    exposed::certificate_ready(leading)
}

/// What is said before anything is known: the conditions that are always there.
pub(crate) fn at_first_sight(server: &McpServer, now: Timestamp) -> McpServerStatus {
    let verdicts = ConditionType::ALWAYS.iter().map(|type_| {
        (*type_, Verdict::unknown(Reason::Progressing, "the operator has begun to look at this; wait a few seconds"))
    });
    McpServerStatus {
        conditions: conditions(&[], verdicts.collect(), server.metadata.generation, now),
        ..McpServerStatus::default()
    }
}

/// The status as far as anyone knows: the one that was written last, if the watch has not shown it yet.
pub(crate) fn current(server: &McpServer, memory: &mut ServerMemory) -> McpServerStatus {
    memory.written.take_if(|written| written.based_on != server.metadata.resource_version);
    match &memory.written {
        Some(written) => written.status.clone(),
        None => server.status.clone().unwrap_or_default(),
    }
}

/// Writes the status, if it differs from what stands there. Says whether it did.
pub(crate) async fn write(
    client: &Client,
    unwritten: &Unwritten,
    server: &McpServer,
    owner: &Owner,
    memory: &mut ServerMemory,
    current: &McpServerStatus,
    status: McpServerStatus,
) -> Result<bool, Error> {
    if *current == status {
        return Ok(false);
    }
    let patch = status_patch("McpServer", &owner.name, &owner.uid, &status)?;
    let written = Api::<McpServer>::namespaced(client.clone(), &owner.namespace)
        .patch_status(&owner.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&patch))
        .await;
    if let Err(error) = &written {
        unwritten.tell(&server.object_ref(&()), error).await;
    }
    written.map_err(Error::kubernetes(format!("writing the status of McpServer {}", owner.name)))?;
    let based_on = server.metadata.resource_version.clone();
    memory.written = Some(Box::new(WrittenStatus { based_on, status }));
    memory.told = Some(Instant::now());
    Ok(true)
}

#[cfg(test)]
mod tests;
