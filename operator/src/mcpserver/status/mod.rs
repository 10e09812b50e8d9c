//! Status of an McpServer: its conditions (pure), and the write.

pub(crate) mod accepted_and_programmed;
pub(crate) mod available;
pub(crate) mod backend;
pub(crate) mod debounce;
pub(crate) mod exposed;
pub(crate) mod facts;
pub(crate) mod federation_and_authorization;
pub(crate) mod observed_children;
mod session_store;
pub(crate) mod write;

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use mcp_entra_crds::{
    ConditionType, Exposure, FederatedCredential, McpServer, McpServerSpec, McpServerStatus, Ownership,
};

use crate::{
    conditions::condition::{Reason, Verdict, conditions, with_ready},
    mcpserver::{
        pod_status::report,
        status::{
            accepted_and_programmed::{accepted, conflicted, not_served, programmed},
            available::{PodFacts, availability},
            backend::{granted, isolated, ready, summary},
            exposed::Leading,
            facts::Facts,
            federation_and_authorization::{authorization, federation},
            session_store::session_store,
        },
        validate::{callback, exposure::leads, public_url, refusal::Refusal},
    },
    objects::{child::ChildKind, owner::Owner, views::ChildView},
    ownership::Standing,
};

/// Builds the status from the facts.
pub(crate) fn status(facts: &Facts<'_>, previous: &McpServerStatus, now: Timestamp) -> McpServerStatus {
    let spec = &facts.server.spec;
    let mut verdicts = vec![
        (ConditionType::Accepted, accepted(facts, &previous.conditions)),
        (ConditionType::Programmed, programmed(facts)),
        (ConditionType::Available, availability(pod_facts(facts))),
        (ConditionType::FederationReady, federation(facts, &previous.conditions)),
        (ConditionType::AuthorizationReady, authorization(facts, &previous.conditions)),
    ];
    if let Some(authorization_server) = &spec.authorization_server {
        let store = session_store(&authorization_server.session_store, &facts.current_pods());
        verdicts.push((ConditionType::SessionStoreReady, store));
    }
    if spec.backend.is_some() {
        verdicts.push((ConditionType::BackendReady, ready(facts)));
        verdicts.push((ConditionType::BackendIsolated, isolated(facts)));
    }
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
        redirect_uri: redirect_uri(facts),
        replicas: deployment.map_or(0, |status| status.replicas),
        ready_replicas: deployment.map_or(0, |status| status.ready_replicas),
        selector: Some(selector(facts.owner)),
        federation: Some(credential(facts, previous)),
        policy: Some(granted(facts, previous)),
        backend: summary(facts, previous),
        ownership: ownership(facts, previous),
        conditions: conditions(&previous.conditions, verdicts, generation, now),
    }
}

/// Returns the redirect URI that the app registration needs. It is known before the server is exposed. A refused spec,
/// or one whose host another server holds, has none.
fn redirect_uri(facts: &Facts<'_>) -> Option<String> {
    let McpServerSpec { authorization_server, exposure, .. } = &facts.server.spec;
    let is_usable = facts.outcome.refusal().is_none() && facts.outcome.standing.lost().is_none();
    authorization_server.as_ref().filter(|_| is_usable)?;
    callback(exposure.as_ref())
}

/// Returns true if the exposure's address routes clients to the server, now or soon.
fn is_led_to(facts: &Facts<'_>, exposure: &Exposure) -> bool {
    let is_refused = facts.outcome.refusal().is_some_and(Refusal::hides);
    match facts.outcome.standing {
        _ if is_refused => false,
        Standing::Held(_) => true,
        Standing::Lost(_) => false,
        // An operator that allows no host refuses to start if a server has an address. A spec that was not validated
        // gives none.
        Standing::Open => facts.outcome.validated.is_some() && leads(&facts.observed.own, exposure),
    }
}

/// Returns the values that a server holds, as it names them. While they are undecided, the previous ones stay.
fn ownership(facts: &Facts<'_>, previous: &McpServerStatus) -> Option<Ownership> {
    match facts.outcome.standing {
        Standing::Held(_) => Some(values_of(facts.server)),
        Standing::Open => previous.ownership.clone(),
        Standing::Lost(_) => None,
    }
}

/// Returns the values that a spec names.
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

/// Returns the version of the ready pods: the oldest if they differ, the previous one if none answers.
fn version(facts: &Facts<'_>, previous: &McpServerStatus) -> Option<String> {
    let versions = facts.answers.ready().filter_map(|polled| polled.report.as_ref().ok()?.version.clone());
    let numbers =
        |version: &String| version.split(['.', '-']).map(|part| part.parse().unwrap_or(0)).collect::<Vec<u64>>();
    versions.min_by_key(numbers).or_else(|| previous.version.clone())
}

fn pod_facts<'a>(facts: &Facts<'a>) -> PodFacts<'a> {
    PodFacts {
        namespace: &facts.owner.namespace,
        wanted: wanted(facts),
        enough: match &facts.server.spec.autoscaling {
            Some(autoscaling) => autoscaling.min_replicas,
            // The minimum that others want is unknown, so one pod is enough.
            None if is_external(facts) => 1,
            None => i32::MAX,
        },
        deployment: facts.child(ChildKind::Deployment),
        autoscaler: facts.server.spec.autoscaling.as_ref().and_then(|_| facts.child(ChildKind::Autoscaler)),
        is_external: is_external(facts),
        is_stale: facts.observed.deployment_is_stale,
        pods: &facts.answers.pods,
        polled: &facts.answers.polled,
    }
}

/// Returns the pods' labels as a selector.
fn selector(owner: &Owner) -> String {
    owner.selector().iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Returns true if neither the spec nor the operator's autoscaler sets the number of pods.
fn is_external(facts: &Facts<'_>) -> bool {
    facts.server.spec.replicas.is_none() && facts.server.spec.autoscaling.is_none()
}

/// Returns the desired number of pods. With an autoscaler it is the live number, at least the minimum; at 0 the
/// autoscaler does nothing. Without one it is the number in the spec, else the live number.
fn wanted(facts: &Facts<'_>) -> i32 {
    let live = || facts.child(ChildKind::Deployment)?.replicas;
    match &facts.server.spec.autoscaling {
        Some(autoscaling) if live() != Some(0) => live().unwrap_or(1).max(autoscaling.min_replicas),
        Some(_) => 0,
        None => facts.server.spec.replicas.or_else(live).unwrap_or(1),
    }
}

/// Returns the federated credential that Entra needs. The previous issuer stays while no pod can be asked.
fn credential(facts: &Facts<'_>, previous: &McpServerStatus) -> FederatedCredential {
    let Owner { namespace, name, .. } = facts.owner;
    let issuer = facts.answers.polled.iter().find_map(|polled| polled.report.as_ref().ok()?.issuer.clone());
    let federation = facts.server.spec.entra.federation.as_ref();
    let existing = federation.and_then(|federation| federation.service_account_name.clone());
    let account = existing.unwrap_or_else(|| ChildKind::ServiceAccount.name(name));
    FederatedCredential {
        issuer: issuer.or_else(|| report::issuer(previous.federation.as_ref()?.issuer.clone()?)),
        subject: format!("system:serviceaccount:{namespace}:{account}"),
        audience: facts.server.spec.entra.cloud.federation_audience().to_owned(),
    }
}

/// Returns the verdict that clients outside the cluster are routed to the server.
fn exposed(facts: &Facts<'_>, leading: Leading<'_>) -> Verdict {
    if let Some(lost) = facts.outcome.standing.lost() {
        return Verdict::no(lost.reason(), lost.message());
    }
    let missing: BTreeSet<ChildKind> =
        facts.outcome.missing.iter().copied().filter(|kind| *kind != ChildKind::Certificate).collect();
    if missing.iter().any(|kind| ChildKind::EXPOSING.contains(kind)) {
        return Verdict::no(Reason::KindNotServed, not_served(&missing));
    }
    exposed::exposed(leading)
}

fn certificate(facts: &Facts<'_>, leading: Leading<'_>) -> Verdict {
    if facts.outcome.missing.contains(&ChildKind::Certificate) {
        return Verdict::no(Reason::KindNotServed, not_served(&BTreeSet::from([ChildKind::Certificate])));
    }
    exposed::certificate_ready(leading)
}

/// Returns the first status: the conditions that are always present, all unknown.
pub(crate) fn at_first_sight(server: &McpServer, now: Timestamp) -> McpServerStatus {
    let verdicts = ConditionType::ALWAYS.iter().map(|type_| {
        (
            *type_,
            Verdict::unknown(Reason::Progressing, "the operator has started to reconcile this; wait a few seconds"),
        )
    });
    McpServerStatus {
        conditions: conditions(&[], verdicts.collect(), server.metadata.generation, now),
        ..McpServerStatus::default()
    }
}

#[cfg(test)]
pub(crate) mod tests;
