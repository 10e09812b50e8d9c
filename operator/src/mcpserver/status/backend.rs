//! Conditions BackendReady and BackendIsolated, and the summary of a backend, from the pods' reports. Pure.

use std::collections::BTreeSet;

use mcp_entra_crds::{BackendSummary, McpServerStatus, PolicySummary};
use mcp_entra_policy::{Operation, revision};

use crate::{
    conditions::condition::{Reason, Verdict, named},
    mcpserver::{
        build::ADMIN_PORT,
        pod_status::{PolledPod, reach::Reach, report::BackendReport},
        status::{
            facts::Facts,
            federation_and_authorization::{no_ready_pods, unreachable},
        },
    },
    objects::{names::BACKEND, owner::Owner},
    policy::offered::{Offered, is_granted},
};

/// The most names in a list of the summary.
const NAMES: usize = 32;

/// Returns the pods that answered, by name, with their reports about the backend.
fn reports<'a>(pods: &'a [&PolledPod]) -> impl Iterator<Item = (&'a str, Option<&'a BackendReport>)> {
    pods.iter().filter_map(|polled| Some((polled.pod.name(), polled.report.as_ref().ok()?.backend.as_ref())))
}

/// Returns the verdict that the backend of every ready pod answers.
pub(super) fn ready(facts: &Facts<'_>) -> Verdict {
    let pods = facts.current_pods();
    if pods.is_empty() {
        return no_ready_pods();
    }
    let works = |report: Option<&BackendReport>| report.and_then(|report| report.works);
    if let Some((name, report)) = reports(&pods).find(|(_, report)| works(*report) == Some(false)) {
        let message = report.and_then(|report| report.message.as_ref());
        let said = message.map(|message| format!(", with the message: {}", message.quoted())).unwrap_or_default();
        let Owner { namespace, .. } = facts.owner;
        return Verdict::no(
            Reason::BackendFailed,
            format!(
                "the backend in pod {name} does not answer{said}; correct spec.backend, or see kubectl logs -n {namespace} {name} -c {BACKEND}"
            ),
        );
    }
    let (all, asked) = (pods.len(), reports(&pods).count());
    let working = reports(&pods).filter(|(_, report)| works(*report) == Some(true)).count();
    match asked {
        0 => Verdict::unknown(Reason::StatusUnreachable, unreachable(pods.iter().copied()).unwrap_or_default()),
        _ if working < asked => Verdict::unknown(
            Reason::ProbePending,
            format!("the backends of {working} of {all} ready pods have answered; wait a few seconds"),
        ),
        _ => Verdict::yes(
            Reason::BackendWorks,
            format!("the backends of {working} of {all} ready pods answered at their last probe{}", hidden(&pods)),
        ),
    }
}

/// Returns the text about tools that are not offered because they differ from the pin.
fn hidden(pods: &[&PolledPod]) -> String {
    let hidden = reports(pods).filter_map(|(_, report)| report).flat_map(|report| &report.hidden);
    match Vec::from_iter(BTreeSet::from_iter(hidden.cloned())).as_slice() {
        [] => String::new(),
        hidden => format!(
            "; not offered, because they differ from spec.backend.pin: {}; review the changes, and pin the new tools with mcp-entra-operator pin",
            named(hidden)
        ),
    }
}

/// Returns the verdict that only the server reaches the other listeners in its pod.
pub(super) fn isolated(facts: &Facts<'_>) -> Verdict {
    let pods = facts.current_pods();
    if pods.is_empty() {
        return no_ready_pods();
    }
    let reach = |name: &str| facts.answers.reach.get(name).copied();
    let reached = pods.iter().find_map(|polled| match reach(polled.pod.name())? {
        Reach::Reached(port) => Some((polled.pod.name(), port)),
        Reach::Unreached | Reach::Unproven => None,
    });
    if let Some((name, port)) = reached {
        return Verdict::no(
            Reason::BackendReached,
            format!(
                "mcp-entra-operator reached port {port} of pod {name}, where the backend listens, so others may reach it without authentication: this cluster does not enforce spec.networkPolicy; let the backend listen only on 127.0.0.1, or install a network plugin that enforces NetworkPolicies"
            ),
        );
    }
    let mut asked = 0;
    for (name, report) in reports(&pods) {
        asked += 1;
        let Some(listens) = report.and_then(|report| report.listens.as_ref()) else {
            return Verdict::unknown(
                Reason::IsolationUnknown,
                format!("pod {name} does not report its listeners; wait a few seconds; if this lasts, see its log"),
            );
        };
        if listens.is_empty() {
            continue;
        }
        let listeners = named(&Vec::from_iter(listens.iter().map(ToString::to_string)));
        let loopback = "to isolate it with any network plugin, let the backend listen only on 127.0.0.1";
        return match reach(name) {
            Some(Reach::Unreached) => Verdict::unknown(
                Reason::BackendUnreached,
                format!(
                    "a process in pod {name} listens on addresses outside loopback ({listeners}); mcp-entra-operator cannot reach them, but reaches port {ADMIN_PORT}, as spec.networkPolicy demands; {loopback}"
                ),
            ),
            _ => Verdict::unknown(
                Reason::IsolationUnknown,
                format!(
                    "a process in pod {name} listens on addresses outside loopback ({listeners}), and mcp-entra-operator cannot try them, because it reaches pods through a proxy or not at all; {loopback}"
                ),
            ),
        };
    }
    match asked {
        0 => Verdict::unknown(Reason::StatusUnreachable, unreachable(pods.iter().copied()).unwrap_or_default()),
        _ => Verdict::yes(
            Reason::LoopbackOnly,
            format!("in {asked} of {} ready pods, only the server listens outside loopback", pods.len()),
        ),
    }
}

/// Returns the summary from a ready pod's report. Without one, the previous summary stays.
pub(super) fn summary(facts: &Facts<'_>, previous: &McpServerStatus) -> Option<BackendSummary> {
    facts.server.spec.backend.as_ref()?;
    let Some(report) = working(facts) else { return previous.backend.clone() };
    let writes = !is_pinned(facts);
    let offered = report.tools.keys().filter(|name| !report.hidden.contains(*name));
    let ungranted =
        offered.filter(|name| !is_granted(&facts.compiled.policy, Operation::Tool { name: name.as_str(), writes }));
    Some(BackendSummary {
        name: report.name.clone(),
        version: report.version.clone(),
        protocol: report.protocol.clone(),
        tools: count(report.tools.len()),
        prompts: count(report.prompts.len()),
        resources: count(report.resources.len()),
        digest: Some(digest(report)),
        hidden: report.hidden.iter().take(NAMES).cloned().collect(),
        ungranted: ungranted.take(NAMES).cloned().collect(),
    })
}

/// Returns the digest of all tools' names and digests.
fn digest(report: &BackendReport) -> String {
    let lines = report.tools.iter().map(|(name, digest)| format!("{name} {digest}\n"));
    revision(lines.collect::<String>().as_bytes())
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn is_pinned(facts: &Facts<'_>) -> bool {
    facts.server.spec.backend.as_ref().is_some_and(|backend| backend.pin.is_some())
}

/// Returns the report of the first ready pod whose backend works.
fn working<'a>(facts: &Facts<'a>) -> Option<&'a BackendReport> {
    let mut pods = facts.current_pods();
    pods.sort_by_key(|polled| polled.pod.name().to_owned());
    let reports = pods.into_iter().filter_map(|polled| polled.report.as_ref().ok()?.backend.as_ref());
    reports.into_iter().find(|report| report.works == Some(true))
}

/// Returns the names that the backend offers, once a ready pod has reported them.
pub(crate) fn offered(facts: &Facts<'_>) -> Option<Offered> {
    facts.server.spec.backend.as_ref()?;
    let report = working(facts)?;
    Some(Offered {
        tools: report.tools.keys().cloned().collect(),
        prompts: report.prompts.clone(),
        resources: report.resources.clone(),
        is_pinned: is_pinned(facts),
    })
}

/// Returns the policy in numbers. Grants for a backend are counted once a pod has reported its names.
pub(super) fn granted(facts: &Facts<'_>, previous: &McpServerStatus) -> PolicySummary {
    let summary = facts.compiled.summary.clone();
    if facts.server.spec.backend.is_none() {
        return summary;
    }
    let Some(offered) = offered(facts) else {
        let PolicySummary { tools, prompts, resources, .. } = previous.policy.clone().unwrap_or_default();
        return PolicySummary { tools, prompts, resources, ..summary };
    };
    let granted = offered.operations().filter(|operation| is_granted(&facts.compiled.policy, *operation));
    let granted = Vec::from_iter(granted);
    let of_kind = |kind: fn(&&Operation<'_>) -> bool| count(granted.iter().filter(kind).count());
    PolicySummary {
        tools: of_kind(|operation| matches!(operation, Operation::Tool { .. })),
        prompts: of_kind(|operation| matches!(operation, Operation::Prompt(_))),
        resources: of_kind(|operation| matches!(operation, Operation::Resource(_))),
        ..summary
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use mcp_entra_crds::ConditionType;
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        conditions::condition::State,
        mcpserver::{
            poll::Answers,
            status::{
                status,
                tests::{mk_backend_pod, mk_outcome_of, mk_pod, with_facts_of},
            },
        },
        objects::{
            fixtures::mk_backend_server,
            untrusted_text::tests::{assert_harmless, hostile},
        },
    };

    fn with<T>(answers: &Answers, use_of: impl FnOnce(&Facts<'_>) -> T) -> T {
        let server = mk_backend_server();
        with_facts_of(&server, &mk_outcome_of(&server), answers, |_| {}, use_of)
    }

    fn answers(polled: Vec<PolledPod>) -> Answers {
        Answers { polled, ..Answers::default() }
    }

    fn assert_is(verdict: &Verdict, state: State, reason: Reason, case: &str) {
        assert_eq!(
            (verdict.state, verdict.reason.as_str()),
            (state, reason.to_string().as_str()),
            "{case}: {verdict:?}"
        );
    }

    #[test]
    fn one_backend_of_many_is_enough_to_fail_and_not_enough_to_succeed() {
        let works = || mk_backend_pod("a", json!({"works": true}));
        let silent = || mk_pod("b", true, None);
        let mut silent = silent();
        std::sync::Arc::get_mut(&mut silent.pod).unwrap().configuration_hash = works().pod.configuration_hash.clone();
        for (case, pods, state, reason) in [
            ("no pod", vec![], State::Unknown, Reason::NoReadyPods),
            ("one works", vec![works()], State::True, Reason::BackendWorks),
            (
                "one fails",
                vec![works(), mk_backend_pod("b", json!({"works": false}))],
                State::False,
                Reason::BackendFailed,
            ),
            ("one has not probed", vec![works(), mk_backend_pod("b", json!({}))], State::Unknown, Reason::ProbePending),
            ("one says nothing", vec![works(), mk_backend_pod("b", Value::Null)], State::Unknown, Reason::ProbePending),
            ("one cannot be asked", vec![works(), silent], State::True, Reason::BackendWorks),
        ] {
            assert_is(&with(&answers(pods), ready), state, reason, case);
        }
    }

    #[test]
    fn a_failing_backend_is_reported_with_its_sanitized_message() {
        let failing = |message: &str| {
            with(&answers(vec![mk_backend_pod("a", json!({"works": false, "message": message}))]), ready).message
        };
        let said = failing("it ended with code 1");
        assert!(said.contains("pod a does not answer, with the message: “it ended with code 1”"), "{said}");
        assert!(said.ends_with("kubectl logs -n productivity a -c backend"), "{said}");
        assert_harmless(&failing(&hostile()));
    }

    #[test]
    fn tools_that_differ_from_the_pin_are_named() {
        let pod = mk_backend_pod("a", json!({"works": true, "tools": {"add": "0", "sub": "1"}, "hidden": ["sub"]}));
        let verdict = with(&answers(vec![pod]), ready);
        assert_is(&verdict, State::True, Reason::BackendWorks, "hidden");
        assert!(verdict.message.contains("differ from spec.backend.pin: sub;"), "{}", verdict.message);
    }

    #[test]
    fn a_backend_is_isolated_only_if_other_pods_cannot_reach_it() {
        let listening = |name: &str, listens: Value| mk_backend_pod(name, json!({"works": true, "listens": listens}));
        let loopback = || listening("a", json!([]));
        let open = || listening("b", json!(["0.0.0.0:3001"]));
        let blind = || listening("b", Value::Null);
        for (case, pods, reach, state, reason) in [
            ("loopback alone", vec![loopback()], None, State::True, Reason::LoopbackOnly),
            ("no pod", vec![], None, State::Unknown, Reason::NoReadyPods),
            ("it cannot see", vec![loopback(), blind()], None, State::Unknown, Reason::IsolationUnknown),
            ("reached", vec![loopback(), open()], Some(Reach::Reached(3001)), State::False, Reason::BackendReached),
            ("unreached", vec![loopback(), open()], Some(Reach::Unreached), State::Unknown, Reason::BackendUnreached),
            ("no control", vec![open()], Some(Reach::Unproven), State::Unknown, Reason::IsolationUnknown),
            ("not tried", vec![open()], None, State::Unknown, Reason::IsolationUnknown),
        ] {
            let mut answers = answers(pods);
            answers.reach.extend(reach.map(|reach| ("b".to_owned(), reach)));
            assert_is(&with(&answers, isolated), state, reason, case);
        }
    }

    #[test]
    fn only_refuted_isolation_keeps_a_server_from_being_ready() {
        let isolation = |reach: Reach| {
            let pod = mk_backend_pod("a", json!({"works": true, "listens": ["0.0.0.0:3001"]}));
            let mut answers = answers(vec![pod]);
            answers.reach.insert("a".to_owned(), reach);
            let verdicts = |facts: &Facts<'_>| vec![(ConditionType::BackendIsolated, isolated(facts))];
            let ready = Verdict::yes(Reason::Ready, "the server is ready");
            crate::conditions::condition::with_ready(with(&answers, verdicts), ready).pop().unwrap().1.state
        };
        assert_eq!(isolation(Reach::Unreached), State::True);
        assert_eq!(isolation(Reach::Reached(3001)), State::False);
    }

    #[test]
    fn the_summary_counts_the_offer_of_the_backend_and_names_tools_without_a_grant() {
        let report = json!({
            "works": true, "name": "time", "version": "1", "protocol": "2025-11-25",
            "tools": {"add": "0", "sub": "1", "gone": "2"}, "hidden": ["gone"], "prompts": ["p"], "resources": ["r://a", "r://b"],
        });
        let server = mk_backend_server();
        let answers = answers(vec![mk_backend_pod("a", report)]);
        let granting = |compiled: &mut crate::policy::compile::Compiled| {
            let grant = json!({"grants": [{
                "mapping": {"namespace": "n", "name": "m"}, "name": "g", "to": [], "allow": {"tools": ["add"]},
            }]});
            compiled.policy = serde_json::from_value(grant).unwrap();
        };
        let told = with_facts_of(&server, &mk_outcome_of(&server), &answers, granting, |facts| {
            status(facts, &McpServerStatus::default(), Timestamp::UNIX_EPOCH)
        });
        let summary = told.backend.clone().unwrap();
        assert_eq!((summary.tools, summary.prompts, summary.resources), (3, 1, 2));
        assert_eq!((summary.hidden, summary.ungranted), (vec!["gone".to_owned()], vec!["sub".to_owned()]));
        assert_eq!(summary.digest, Some(revision(b"add 0\ngone 2\nsub 1\n")));
        let policy = told.policy.clone().unwrap();
        assert_eq!((policy.tools, policy.prompts, policy.resources), (1, 0, 0));
        let later = with(&Answers::default(), |facts| status(facts, &told, Timestamp::UNIX_EPOCH));
        assert_eq!(later.backend, told.backend, "it stays while no pod can be asked");
    }
}
