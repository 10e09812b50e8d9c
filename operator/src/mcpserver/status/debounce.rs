//! Debounce of status writes: some changes are written at once, others wait a moment for further ones. A server starts
//! in many small steps, and each write triggers an event and a pass of every watcher. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use mcp_entra_crds::{ConditionType, McpServerStatus};

use crate::conditions::condition::{is_awaited, is_good};

/// The time after a write for which the next one may wait.
pub(crate) const MOMENT: Duration = Duration::from_secs(3);

/// Returns true if the change may wait: it is not bad news, and the server is still becoming Ready.
pub(crate) fn may_wait(before: &McpServerStatus, after: &McpServerStatus) -> bool {
    let find = |type_: &str| before.conditions.iter().find(|condition| condition.type_ == type_);
    let is_no_news = |new: &Condition| match find(&new.type_) {
        Some(old) if (&old.status, &old.reason) == (&new.status, &new.reason) => true,
        Some(old) if old.status == "True" => false,
        _ => is_good(new) || is_awaited(new),
    };
    let is_ready = |new: &Condition| new.type_ == ConditionType::Ready.as_str() && new.status == "True";
    after.conditions.iter().all(|new| is_no_news(new) && !is_ready(new))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    fn mk(conditions: &[(&str, &str, &str)]) -> McpServerStatus {
        let condition = |(type_, status, reason): &(&str, &str, &str)| Condition {
            type_: (*type_).into(),
            status: (*status).into(),
            reason: (*reason).into(),
            message: String::new(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        };
        McpServerStatus { conditions: conditions.iter().map(condition).collect(), ..McpServerStatus::default() }
    }

    #[test]
    fn small_steps_of_a_start_wait_and_ready_does_not() {
        let sight = mk(&[("Available", "Unknown", "Progressing"), ("Ready", "Unknown", "Progressing")]);
        let starting = mk(&[("Available", "False", "Progressing"), ("Ready", "False", "Progressing")]);
        let exposed = mk(&[
            ("Available", "True", "PodsReady"),
            ("Exposed", "False", "RoutePending"),
            ("Ready", "False", "RoutePending"),
        ]);
        let ready = mk(&[("Available", "True", "PodsReady"), ("Ready", "True", "Ready")]);
        assert!(may_wait(&sight, &starting));
        assert!(may_wait(&starting, &exposed));
        assert!(!may_wait(&exposed, &ready));
        assert!(!may_wait(&ready, &ready), "a change of a Ready server is written at once");
    }

    #[test]
    fn a_failing_condition_is_written_at_once() {
        let before = mk(&[("FederationReady", "True", "ExchangeWorks"), ("Available", "False", "Progressing")]);
        for bad in [
            [("FederationReady", "False", "ExchangeFailed"), ("Available", "False", "Progressing")],
            [("FederationReady", "Unknown", "NoReadyPods"), ("Available", "False", "Progressing")],
            [("FederationReady", "True", "ExchangeWorks"), ("Available", "False", "CrashLooping")],
            [("FederationReady", "True", "ExchangeWorks"), ("Conflicted", "True", "NotOwned")],
        ] {
            assert!(!may_wait(&before, &mk(&bad)), "{bad:?}");
        }
    }
}
