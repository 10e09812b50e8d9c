//! Condition SessionStoreReady: sessions of the authorization server can be stored, according to the pods. Pure.

use mcp_entra_crds::SessionStore;

use crate::{
    conditions::condition::{Reason, Verdict},
    mcpserver::{
        pod_status::{PolledPod, report::Report},
        status::federation_and_authorization::{no_ready_pods, unreachable},
    },
};

/// Returns the verdict for the store in the spec and the ready pods with its configuration.
pub(super) fn session_store(store: &SessionStore, pods: &[&PolledPod]) -> Verdict {
    if store.memory.is_some() {
        return Verdict::yes(
            Reason::SessionsInMemory,
            "sessions are kept in the memory of the one pod: its restart signs out all users; to keep sessions, set spec.authorizationServer.sessionStore.valkey",
        );
    }
    if pods.is_empty() {
        return no_ready_pods();
    }
    let works = |report: &Report| report.session_store.as_ref().and_then(|store| store.works);
    let reports = || pods.iter().filter_map(|polled| Some((polled.pod.name(), polled.report.as_ref().ok()?)));
    if let Some((name, report)) = reports().find(|(_, report)| works(report) == Some(false)) {
        let message = report.session_store.as_ref().and_then(|store| store.message.as_ref());
        let said = message.map(|message| format!(", with the message: {}", message.quoted())).unwrap_or_default();
        return Verdict::no(
            Reason::SessionStoreFailed,
            format!(
                "pod {name} cannot use the session store{said}; until it can, users cannot sign in: check the store, its ACL user and spec.authorizationServer.sessionStore.valkey"
            ),
        );
    }
    let (all, asked) = (pods.len(), reports().count());
    let working = reports().filter(|(_, report)| works(report) == Some(true)).count();
    match asked {
        0 => Verdict::unknown(Reason::StatusUnreachable, unreachable(pods.iter().copied()).unwrap_or_default()),
        _ if working < asked => Verdict::unknown(
            Reason::ProbePending,
            format!("{working} of {all} ready pods have reached the session store; wait a few seconds"),
        ),
        _ => Verdict::yes(
            Reason::SessionStoreWorks,
            format!("{working} of {all} ready pods reached the session store at their last probe"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{
        conditions::condition::State,
        mcpserver::status::tests::{mk_pod, mk_report},
        objects::untrusted_text::tests::{assert_harmless, hostile},
    };

    fn valkey() -> SessionStore {
        let valkey = json!({"url": "rediss://a.example", "passwordSecretRef": {"name": "a-session-store"}});
        serde_json::from_value(json!({"valkey": valkey})).unwrap()
    }

    /// A pod with this report about its store.
    fn mk(name: &str, store: Value) -> PolledPod {
        let mut report = mk_report("new", Some(true)).unwrap();
        report["sessionStore"] = store;
        mk_pod(name, true, Some(report))
    }

    fn said(pods: &[PolledPod]) -> (State, String) {
        let verdict = session_store(&valkey(), &pods.iter().collect::<Vec<_>>());
        (verdict.state, verdict.reason)
    }

    #[test]
    fn one_pod_of_many_is_enough_to_fail_and_not_enough_to_succeed() {
        let works = || mk("a", json!({"works": true}));
        for (case, pods, state, reason) in [
            ("no pod", vec![], State::Unknown, Reason::NoReadyPods),
            ("one works", vec![works()], State::True, Reason::SessionStoreWorks),
            ("one fails", vec![works(), mk("b", json!({"works": false}))], State::False, Reason::SessionStoreFailed),
            ("one has not probed", vec![works(), mk("b", json!({}))], State::Unknown, Reason::ProbePending),
            ("one does not report it", vec![works(), mk("b", Value::Null)], State::Unknown, Reason::ProbePending),
            ("one cannot be asked", vec![works(), mk_pod("b", true, None)], State::True, Reason::SessionStoreWorks),
            ("none can be asked", vec![mk_pod("b", true, None)], State::Unknown, Reason::StatusUnreachable),
        ] {
            assert_eq!(said(&pods), (state, reason.to_string()), "{case}");
        }
    }

    #[test]
    fn memory_is_ready_and_says_what_a_restart_costs() {
        let memory: SessionStore = serde_json::from_value(json!({"memory": {}})).unwrap();
        let verdict = session_store(&memory, &[]);
        assert_eq!((verdict.state, verdict.reason), (State::True, Reason::SessionsInMemory.to_string()));
        assert!(verdict.message.contains("its restart signs out all users"));
    }

    #[test]
    fn the_message_of_a_pod_about_its_store_is_sanitized() {
        let pod = mk("a", json!({"works": false, "message": hostile()}));
        assert_harmless(&session_store(&valkey(), &[&pod]).message);
    }
}
