//! Conclusion of a reconcile: the status from its outcome and the pods' answers, and the time of the next look. Pure.

use k8s_openapi::jiff::Timestamp;
use mcp_entra_crds::McpServerStatus;

use crate::mcpserver::{
    poll::Answers,
    status::{
        debounce,
        facts::{Facts, GRACE},
        status,
    },
};

/// The end of a reconcile.
#[derive(Debug, PartialEq)]
pub(crate) struct Conclusion {
    /// The status to write; none if it did not change, or if the change can wait.
    pub(crate) status: Option<McpServerStatus>,
    pub(crate) next: NextPass,
}

/// The time of the next reconcile, unless a watch triggers an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NextPass {
    /// A change without an event of a watch is expected.
    Soon,
    /// A name that a foreign object has may be free. That object may have no watched label.
    AfterConflict,
    /// The pods are due for a poll.
    AtPoll,
}

/// Concludes from the facts. `told_lately` is true if the last status was written a moment ago.
pub(crate) fn conclude(facts: &Facts<'_>, before: &McpServerStatus, told_lately: bool, now: Timestamp) -> Conclusion {
    let after = status(facts, before, now);
    let differs = *before != after;
    if differs && told_lately && facts.outcome.error().is_none() && debounce::may_wait(before, &after) {
        return Conclusion { status: None, next: NextPass::Soon };
    }
    let next =
        if facts.is_undecided() { NextPass::Soon } else { next(facts.outcome.conflict().is_some(), facts.answers) };
    Conclusion { status: differs.then_some(after), next }
}

/// Returns the time of the next reconcile from the pods' answers.
pub(crate) fn next(is_conflicted: bool, answers: &Answers) -> NextPass {
    let mut reports = answers.polled.iter().filter_map(|polled| polled.report.as_ref().ok());
    let probing = reports.clone().any(|report| report.works.is_none());
    // A pod that was silent for longer will not answer a second later.
    let arriving = answers.lagging.is_some_and(|lagging| lagging < GRACE || reports.next().is_some());
    match is_conflicted {
        _ if arriving || probing => NextPass::Soon,
        true => NextPass::AfterConflict,
        false => NextPass::AtPoll,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        mcpserver::{
            apply::{Conflict, Failure},
            outcome::Outcome,
            pod_status::PolledPod,
            status::tests::{mk_outcome, mk_pod, mk_report, with_facts},
        },
        ownership::Standing,
        runtime::errors::Error,
    };

    fn conclusion(outcome: &Outcome, answers: &Answers, before: &McpServerStatus, told_lately: bool) -> Conclusion {
        let conclude = |facts: &Facts<'_>| conclude(facts, before, told_lately, Timestamp::UNIX_EPOCH);
        with_facts(outcome, answers, |_| {}, conclude)
    }

    fn answers(polled: Vec<PolledPod>, lagging: Option<u64>) -> Answers {
        Answers { polled, lagging: lagging.map(Duration::from_secs), ..Answers::default() }
    }

    fn conflicted() -> Outcome {
        let conflict = Conflict { objects: Vec::new(), collected: false };
        Outcome { failure: Some(Failure::Conflict(conflict)), ..mk_outcome() }
    }

    #[test]
    fn the_next_reconcile_is_soon_during_a_change_and_otherwise_at_the_poll() {
        let works = || mk_pod("a", true, mk_report("new", Some(true)));
        let probing = || mk_pod("b", true, mk_report("new", None));
        let silent = || mk_pod("c", true, None);
        let undecided = Outcome { standing: Standing::Open, ..mk_outcome() };
        for (case, outcome, answers, expected) in [
            ("all is well", mk_outcome(), answers(vec![works()], None), NextPass::AtPoll),
            ("no pods", mk_outcome(), answers(vec![], None), NextPass::AtPoll),
            ("a first probe", mk_outcome(), answers(vec![works(), probing()], None), NextPass::Soon),
            ("a pod that lags and answers", mk_outcome(), answers(vec![works()], Some(60)), NextPass::Soon),
            ("a pod that just became silent", mk_outcome(), answers(vec![silent()], Some(1)), NextPass::Soon),
            ("a pod that has been silent for long", mk_outcome(), answers(vec![silent()], Some(60)), NextPass::AtPoll),
            ("a name that a foreign object has", conflicted(), answers(vec![works()], None), NextPass::AfterConflict),
            ("a conflict and a first probe", conflicted(), answers(vec![probing()], None), NextPass::Soon),
            ("an undecided host", undecided, answers(vec![works()], None), NextPass::Soon),
        ] {
            let nothing = McpServerStatus::default();
            assert_eq!(conclusion(&outcome, &answers, &nothing, false).next, expected, "{case}");
        }
    }

    #[test]
    fn a_changed_status_is_written_and_small_steps_of_a_start_are_debounced() {
        let answers = answers(vec![], None);
        let first = conclusion(&mk_outcome(), &answers, &McpServerStatus::default(), false);
        let status = first.status.unwrap();
        assert_eq!(conclusion(&mk_outcome(), &answers, &status, false).status, None, "it did not change");

        let mut earlier = status.clone();
        earlier.replicas = 1;
        let waits = conclusion(&mk_outcome(), &answers, &earlier, true);
        assert_eq!(waits, Conclusion { status: None, next: NextPass::Soon });
        assert_eq!(conclusion(&mk_outcome(), &answers, &earlier, false).status, Some(status));
        let failure = Some(Failure::Error(Error::Deadline(Duration::from_secs(60))));
        let failed = Outcome { failure, ..mk_outcome() };
        assert!(conclusion(&failed, &answers, &earlier, true).status.is_some(), "an error is reported at once");
    }
}
