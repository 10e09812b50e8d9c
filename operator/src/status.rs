//! Status: what is so, as conditions (pure), and the one write that says it.

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
    apply::{Conflict, status_patch},
    availability::{Rollout, availability},
    child::ChildKind,
    conditions::{Reason, Verdict, conditions, with_ready},
    editions::Mounted,
    errors::Error,
    exposed::{self, Leading},
    exposure::leads,
    fleet,
    memory::{ServerMemory, WrittenStatus},
    owner::Owner,
    ownership::Standing,
    pods::PolledPod,
    policy::Compiled,
    programmed::{accepted, conflicted, not_served, programmed},
    report,
    reported::{authorization, federation},
    unwritten::Unwritten,
    validate::{Refusal, public_url},
    views::{ChildView, PodView},
    world::OwnChildren,
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
    fn leading(&self, exposure: &'a Exposure) -> Leading<'a> {
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
        let leading = facts.leading(exposure);
        verdicts.push((ConditionType::Exposed, exposed(facts, leading)));
        if exposure.tls.issuer_ref.is_some() {
            verdicts.push((ConditionType::CertificateReady, certificate(facts, leading, now)));
        }
    }
    if let Some((reason, message)) = conflicted(facts) {
        verdicts.push((ConditionType::Conflicted, Verdict::yes(reason, message)));
    }
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
        ownership: facts.standing.held().map(|_| ownership(facts.server)),
        conditions: conditions(&previous.conditions, with_ready(verdicts), generation, now),
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

/// The values that a server holds, as it names them.
fn ownership(server: &McpServer) -> Ownership {
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

fn certificate(facts: &Facts<'_>, leading: Leading<'_>, now: Timestamp) -> Verdict {
    if facts.missing.contains(&ChildKind::Certificate) {
        return Verdict::no(Reason::KindNotServed, not_served(&BTreeSet::from([ChildKind::Certificate])));
    }
    exposed::certificate_ready(leading, now)
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
mod tests {
    use std::sync::Arc;

    use mcp_entra_policy::ServerStatus;
    use serde_json::json;

    use super::*;
    use crate::{
        binding::Target,
        build::CONFIGURATION_HASH,
        conditions::State,
        ownership::Held,
        pods::PollError,
        policy::compile,
        validate::tests::{mk_owner, mk_server},
    };

    fn mk_pod(name: &str, ready: bool, report: Option<serde_json::Value>) -> PolledPod {
        let state = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": name, "annotations": {CONFIGURATION_HASH: "now"}},
            "status": {"conditions": [{"type": "Ready", "status": state}]}});
        let report = match report {
            Some(report) => Ok(serde_json::from_value::<ServerStatus>(report).unwrap().into()),
            None => Err(PollError::NoAddress),
        };
        PolledPod { pod: Arc::new(serde_json::from_value(pod).unwrap()), report }
    }

    fn mk_report(revision: &str, works: Option<bool>) -> Option<serde_json::Value> {
        Some(json!({
            "version": "1",
            "policy": {"revision": revision, "error": null},
            "federation": {"identity": null, "works": works, "message": "AADSTS1", "lastProbe": null},
            "keys": {"count": 1, "ageSeconds": 1, "error": null},
        }))
    }

    /// The conditions that follow from what the pods said, after lagging so many seconds.
    fn told(polled: &[PolledPod], lagging: Option<u64>, change: impl FnOnce(&mut Compiled)) -> McpServerStatus {
        let (server, owner) = (mk_server(), mk_owner());
        let mut compiled = compile(&Target::of(&mk_server(), None), []).unwrap();
        compiled.summary.revision = "new".into();
        change(&mut compiled);
        let facts = Facts {
            server: &server,
            owner: &owner,
            validation: Some(Ok(())),
            configuration: Some("now".into()),
            conflict: None,
            standing: &Standing::Held(Held { root: true, listener_of: None }),
            error: None,
            policy: &compiled,
            deployment_is_stale: false,
            missing: &BTreeSet::new(),
            upgrade: None,
            mounted: Mounted::default(),
            children: &OwnChildren::new(),
            absent: &[],
            carrying: &OwnChildren::new(),
            pods: &[],
            polled,
            lagging: lagging.map(Duration::from_secs),
            probing: lagging.map(Duration::from_secs),
        };
        status(&facts, &McpServerStatus::default(), Timestamp::UNIX_EPOCH)
    }

    fn assert_says(status: &McpServerStatus, type_: ConditionType, state: State, reason: Reason) {
        let verdict = Verdict::before(&status.conditions, type_).unwrap();
        assert_eq!(
            (verdict.state, verdict.reason.clone()),
            (state, reason.to_string()),
            "{type_}: {}",
            verdict.message
        );
    }

    #[test]
    fn pods_that_are_not_ready_are_not_asked_what_is_so() {
        let status = told(&[mk_pod("a", false, mk_report("new", Some(true)))], None, |_| {});
        assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::NoReadyPods);
        assert_says(&status, ConditionType::AuthorizationReady, State::Unknown, Reason::NoReadyPods);
    }

    #[test]
    fn one_pod_of_many_is_enough_to_fail_and_not_enough_to_succeed() {
        use ConditionType::{AuthorizationReady, FederationReady};
        let good = || mk_pod("a", true, mk_report("new", Some(true)));
        let status = told(&[good(), mk_pod("b", true, mk_report("new", Some(true)))], None, |_| {});
        assert_says(&status, FederationReady, State::True, Reason::ExchangeWorks);
        assert_says(&status, AuthorizationReady, State::True, Reason::PolicyEnforced);
        let status = told(&[good(), mk_pod("b", true, mk_report("old", Some(false)))], Some(11), |_| {});
        assert_says(&status, FederationReady, State::False, Reason::ExchangeFailed);
        assert_says(&status, AuthorizationReady, State::False, Reason::PolicyLagging);
    }

    #[test]
    fn a_permission_without_consent_is_named_where_the_spec_names_it_and_takes_no_readiness() {
        let mut report = mk_report("new", Some(true)).unwrap();
        let message = |report: &serde_json::Value| {
            let status = told(&[mk_pod("a", true, Some(report.clone()))], None, |_| {});
            assert_says(&status, ConditionType::FederationReady, State::True, Reason::ExchangeWorks);
            Verdict::before(&status.conditions, ConditionType::FederationReady).unwrap().message
        };
        assert!(!message(&report).contains("consent"));
        report["graph"] = json!({"missingPermissions": ["User.Read", "a pod's own words"]});
        let said = message(&report);
        assert!(said.contains("tools that need User.Read fail: an administrator"), "{said}");
        assert!(!said.contains("words"), "{said}");
        report["graph"] = json!({"missingPermissions": ["a pod's own words"]});
        assert!(!message(&report).contains("consent"));
    }

    #[test]
    fn a_ready_pod_that_cannot_be_asked_is_told_after_the_grace() {
        use ConditionType::{AuthorizationReady, FederationReady};
        let status = told(&[mk_pod("a", true, None)], Some(1), |_| {});
        assert_says(&status, AuthorizationReady, State::Unknown, Reason::Progressing);
        let status = told(&[mk_pod("a", true, None)], Some(11), |_| {});
        assert_says(&status, FederationReady, State::Unknown, Reason::StatusUnreachable);
        assert_says(&status, AuthorizationReady, State::False, Reason::StatusUnreachable);
    }

    #[test]
    fn before_the_first_probe_has_ended_nothing_is_known_of_the_federation() {
        let status = told(&[mk_pod("a", true, mk_report("new", None))], None, |_| {});
        assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::ProbePending);
    }

    #[test]
    fn a_policy_that_leaves_mappings_out_is_told_though_every_pod_enforces_it() {
        let pods = [mk_pod("a", true, mk_report("new", Some(true)))];
        let status = told(&pods, None, |compiled| compiled.left_out = vec!["newest".into()]);
        assert_says(&status, ConditionType::AuthorizationReady, State::False, Reason::PolicyTooLarge);
    }

    #[test]
    fn pods_of_an_older_configuration_do_not_vouch_for_the_newest() {
        let old = || {
            let mut polled = mk_pod("old", true, mk_report("new", Some(true)));
            Arc::get_mut(&mut polled.pod).unwrap().configuration_hash = None;
            polled
        };
        let status = told(&[old()], None, |_| {});
        assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::NoReadyPods);
        let status = told(&[old(), mk_pod("a", true, mk_report("new", None))], None, |_| {});
        assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::ProbePending);
        // It serves nevertheless, so its policy matters.
        let mut lagging = mk_pod("old", true, mk_report("old", Some(true)));
        Arc::get_mut(&mut lagging.pod).unwrap().configuration_hash = None;
        let status = told(&[lagging], Some(11), |_| {});
        assert_says(&status, ConditionType::AuthorizationReady, State::False, Reason::PolicyLagging);
    }

    #[test]
    fn one_pod_whose_first_probe_is_pending_keeps_federation_from_being_ready() {
        let pods = [mk_pod("a", true, mk_report("new", Some(true))), mk_pod("b", true, mk_report("new", None))];
        let status = told(&pods, Some(11), |_| {});
        assert_says(&status, ConditionType::FederationReady, State::Unknown, Reason::ProbePending);
        let pods = [mk_pod("a", true, mk_report("new", Some(true))), mk_pod("b", true, None)];
        let status = told(&pods, Some(11), |_| {});
        assert_says(&status, ConditionType::FederationReady, State::True, Reason::ExchangeWorks);
        let verdict = Verdict::before(&status.conditions, ConditionType::FederationReady).unwrap();
        assert!(verdict.message.contains("1 of 2 ready pods"), "{}", verdict.message);
    }

    #[test]
    fn the_version_is_the_oldest_that_a_ready_pod_runs() {
        let pod = |name: &str, ready: bool, version: &str| {
            let mut polled = mk_pod(name, ready, mk_report("new", Some(true)));
            polled.report.as_mut().unwrap().version = Some(version.into());
            polled
        };
        let version = |pods: &[PolledPod]| told(pods, None, |_| {}).version;
        assert_eq!(version(&[pod("a", true, "0.10.0"), pod("b", true, "0.9.1")]).as_deref(), Some("0.9.1"));
        assert_eq!(version(&[pod("a", true, "0.10.0"), pod("b", false, "0.9.1")]).as_deref(), Some("0.10.0"));
        assert_eq!(version(&[]), None);
    }

    #[test]
    fn whatever_a_pod_says_the_status_is_one_that_the_api_server_takes() {
        use crate::foreign::tests::{assert_harmless, hostile};
        let report = |works: bool| {
            json!({
                "version": "1",
                "policy": {"revision": "old", "error": "e"},
                "federation": {"identity": {"issuer": "https://i", "subject": "s", "audience": "a"},
                               "works": works, "message": "m", "lastProbe": "t"},
                "keys": {"count": 0, "ageSeconds": 1, "error": "e"},
            })
        };
        for pointer in [
            "/version",
            "/policy/revision",
            "/policy/error",
            "/federation/identity/issuer",
            "/federation/identity/subject",
            "/federation/identity/audience",
            "/federation/message",
            "/federation/lastProbe",
            "/keys/error",
        ] {
            for (works, ready) in [(true, true), (false, true), (false, false)] {
                let mut report = report(works);
                *report.pointer_mut(pointer).unwrap() = json!(hostile());
                let status = told(&[mk_pod("a", ready, Some(report))], Some(11), |_| {});
                let federation = status.federation.unwrap().issuer.unwrap_or_default();
                let texts = status.conditions.iter().map(|condition| &condition.message);
                texts.chain([&federation]).chain(&status.version).for_each(|text| assert_harmless(text));
            }
        }
    }

    #[test]
    fn long_lists_of_names_are_cut() {
        let names: Vec<String> = (0..12).map(|number| number.to_string()).collect();
        assert_eq!(named(&names), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more");
        assert_eq!(named(&["a".to_owned()]), "a");
    }
}
