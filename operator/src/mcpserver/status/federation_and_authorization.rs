//! Conditions FederationReady and AuthorizationReady: the pods' own reports about credential and policy. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mcp_entra_crds::ConditionType;

use crate::{
    conditions::condition::{Reason, Verdict, named},
    mcpserver::{
        pod_status::{PolledPod, report::Report},
        status::facts::{Facts, GRACE},
    },
    objects::{names::REVOKE_SESSIONS_BEFORE, owner::Owner},
    policy::revocation::revoke_sessions_before,
};

pub(super) fn no_ready_pods() -> Verdict {
    Verdict::unknown(
        Reason::NoReadyPods,
        "no pod with this configuration is ready; see the condition Available for the cause",
    )
}

/// Returns the reason why a ready pod cannot be asked, if there is such a pod.
pub(super) fn unreachable<'a>(pods: impl IntoIterator<Item = &'a PolledPod>) -> Option<String> {
    let (pod, error) = pods.into_iter().find_map(|polled| Some((&polled.pod, polled.report.as_ref().err()?)))?;
    let name = pod.name();
    Some(format!(
        "pod {name} is ready, but its status on port 8081 cannot be read: {error}; let NetworkPolicies and proxies admit mcp-entra-operator to that port"
    ))
}

pub(crate) fn federation(facts: &Facts<'_>, previous: &[Condition]) -> Verdict {
    let pods = facts.current_pods();
    let reports: Vec<_> = pods.iter().filter_map(|polled| polled.report.as_ref().ok()).collect();
    if pods.is_empty() {
        return no_ready_pods();
    }
    let named = pods.iter().filter_map(|polled| Some((polled.pod.name(), polled.report.as_ref().ok()?)));
    if let Some(failing) = named.clone().find(|(_, report)| report.works == Some(false)) {
        let (name, report) = failing;
        let said = match &report.federation_message {
            Some(message) => {
                format!("Entra refuses the service account token of pod {name}, with the message: {}", message.quoted())
            }
            None => format!("Entra refuses the service account token of pod {name}; run mcp-entra-server check in it"),
        };
        return Verdict::no(Reason::ExchangeFailed, said);
    }
    let (all, asked) = (pods.len(), reports.len());
    let working = reports.iter().filter(|report| report.works == Some(true)).count();
    let verdict = if asked == 0 {
        Verdict::unknown(Reason::StatusUnreachable, unreachable(pods.iter().copied()).unwrap_or_default())
    } else if working < asked {
        Verdict::unknown(
            Reason::ProbePending,
            format!("{working} of {all} ready pods have finished their first probe; wait a few seconds"),
        )
    } else {
        Verdict::yes(
            Reason::ExchangeWorks,
            format!(
                "Entra accepted the service account token of {working} of {all} ready pods at their last probe{}",
                without_consent(facts, &reports)
            ),
        )
    };
    if working < all {
        as_before_in_grace(facts.answers.probing, previous, ConditionType::FederationReady, verdict)
    } else {
        verdict
    }
}

/// Returns the text about Graph permissions that lack consent.
fn without_consent(facts: &Facts<'_>, reports: &[&Report]) -> String {
    let is_missing = |scope: &&String| reports.iter().any(|report| report.missing_permissions.contains(*scope));
    let scopes = facts.server.spec.graph.iter().flat_map(|graph| &graph.scopes);
    let missing: Vec<&str> = scopes.filter(is_missing).map(String::as_str).collect();
    match missing.as_slice() {
        [] => String::new(),
        missing => format!(
            "; tools that need {} fail: ask an administrator of tenant {} to consent to it, under API permissions of app registration {}",
            missing.join(", "),
            facts.server.spec.entra.tenant_id,
            facts.server.spec.entra.client_id
        ),
    }
}

pub(crate) fn authorization(facts: &Facts<'_>, previous: &[Condition]) -> Verdict {
    if facts.server.spec.authorization_server.is_some() && revoke_sessions_before(&facts.server.metadata).is_err() {
        let Owner { namespace, name, .. } = facts.owner;
        return Verdict::no(
            Reason::RevocationUnreadable,
            format!(
                "the annotation {REVOKE_SESSIONS_BEFORE} is not a time such as 2026-11-29T12:00:00Z, so it ends no session; correct it: kubectl -n {namespace} annotate --overwrite mcpserver {name} {REVOKE_SESSIONS_BEFORE}=$(date -u +%Y-%m-%dT%H:%M:%SZ)"
            ),
        );
    }
    let compiled = facts.compiled.revision();
    let mut ready = facts.answers.ready().peekable();
    if ready.peek().is_none() {
        return no_ready_pods();
    }
    let Some(behind) = ready.find(|polled| !polled.enforces(compiled)) else {
        if facts.compiled.left_out.is_empty() {
            return Verdict::yes(Reason::PolicyEnforced, "every ready pod enforces the compiled policy");
        }
        return Verdict::no(
            Reason::PolicyTooLarge,
            format!(
                "the policy would be larger than 900 KiB; these newest mappings are not in force: {}; merge or remove mappings",
                named(&facts.compiled.left_out)
            ),
        );
    };
    let name = behind.pod.name();
    let namespace = &facts.owner.namespace;
    let verdict = match &behind.report {
        Err(_) => Verdict::no(Reason::StatusUnreachable, unreachable([behind]).unwrap_or_default()),
        Ok(report) => match &report.policy_error {
            Some(error) => Verdict::no(
                Reason::PolicyUnreadable,
                format!(
                    "pod {name} enforces an older policy, because it cannot read the newest one: {}; if this lasts, see kubectl -n {namespace} logs {name}",
                    error.quoted()
                ),
            ),
            None => Verdict::no(
                Reason::PolicyLagging,
                format!(
                    "pod {name} still enforces an older policy, and is nudged until it reads the newest one; if this lasts, see kubectl -n {namespace} describe pod {name}"
                ),
            ),
        },
    };
    as_before_in_grace(facts.answers.lagging, previous, ConditionType::AuthorizationReady, verdict)
}

/// Returns the previous verdict while a change has not reached all pods and the grace period lasts.
fn as_before_in_grace(
    since: Option<Duration>,
    previous: &[Condition],
    type_: ConditionType,
    verdict: Verdict,
) -> Verdict {
    if since.is_none_or(|since| since >= GRACE) {
        return verdict;
    }
    let starting = || Verdict::unknown(Reason::Progressing, "the pods have not reported yet; wait a few seconds");
    Verdict::before(previous, type_).unwrap_or_else(starting)
}
