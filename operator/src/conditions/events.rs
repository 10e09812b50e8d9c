//! Events about conditions: an object becomes ready or unready, a condition becomes bad or good again. Changes that are
//! expected in normal operation cause no event. A failure to publish an event changes nothing else.

use std::time::Duration;

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder},
};
use mcp_entra_crds::ConditionType;

use crate::{
    MANAGER,
    conditions::condition::{is_awaited, is_good},
};

/// The maximum length of a note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes the changes between two statuses.
pub(crate) async fn publish(client: &Client, about: &ObjectReference, before: &[Condition], after: &[Condition]) {
    for event in changes(before, after) {
        // A recorder merges events that differ only in their note. A new recorder does not.
        publish_one(&Recorder::new(client.clone(), MANAGER.into()), &event, about).await;
    }
}

/// Publishes a warning that does not come from a condition.
pub(crate) async fn warn(client: &Client, about: &ObjectReference, reason: &str, action: &str, note: &str) {
    let (reason, action, note) = (reason.to_owned(), action.to_owned(), Some(bounded(note)));
    let event = Event { type_: EventType::Warning, reason, note, action, secondary: None };
    publish_one(&Recorder::new(client.clone(), MANAGER.into()), &event, about).await;
}

/// Publishes one event.
pub(crate) async fn publish_one(recorder: &Recorder, event: &Event, about: &ObjectReference) {
    let reason = &event.reason;
    match tokio::time::timeout(TIMEOUT, recorder.publish(event, about)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, reason, "cannot publish an event"),
        Err(_) => tracing::warn!(reason, "cannot publish an event in time"),
    }
}

fn changes(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    let told = |condition: &Condition| (condition.status.clone(), condition.reason.clone(), condition.message.clone());
    let is_bad = |condition: &Condition| !is_good(condition) && !is_awaited(condition);
    let is_new = |new: &&Condition| {
        let old = before.iter().find(|old| old.type_ == new.type_);
        if new.type_ == ConditionType::Ready.as_str() {
            // Ready copies another condition's message: report its transitions, not each new message.
            old.map_or("Unknown", |old| &old.status) != new.status
        } else if is_good(new) {
            old.is_some_and(is_bad)
        } else if is_awaited(new) {
            old.is_some_and(is_good)
        } else {
            old.is_none_or(|old| told(old) != told(new))
        }
    };
    after.iter().filter(is_new).map(event).collect()
}

fn event(condition: &Condition) -> Event {
    Event {
        type_: if is_good(condition) || is_awaited(condition) { EventType::Normal } else { EventType::Warning },
        reason: condition.reason.clone(),
        note: Some(bounded(&condition.message)),
        action: format!("{}Changed", condition.type_),
        secondary: None,
    }
}

/// Cuts a message to the maximum length of an event's note.
pub(crate) fn bounded(message: &str) -> String {
    let end =
        message.char_indices().map(|(start, char)| start + char.len_utf8()).take_while(|end| *end <= LONGEST_NOTE);
    message.get(..end.last().unwrap_or(0)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};

    use super::*;

    fn mk_condition(type_: ConditionType, status: &str, reason: &str, message: &str) -> Condition {
        Condition {
            type_: type_.to_string(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: None,
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        }
    }

    fn types(before: &[Condition], after: &Condition) -> Vec<EventType> {
        changes(before, std::slice::from_ref(after)).iter().map(|event| event.type_).collect()
    }

    #[test]
    fn a_transition_is_one_event_and_a_changed_message_is_another() {
        let mk = |status: &str, reason: &str, message: &str| {
            mk_condition(ConditionType::FederationReady, status, reason, message)
        };
        let unknown = mk("Unknown", "Progressing", "wait");
        let failing = mk("False", "ExchangeFailed", "AADSTS70025");
        let other = mk("False", "ExchangeFailed", "AADSTS700213");
        let well = mk("True", "ExchangeWorks", "1 of 1");
        assert_eq!(types(&[], &unknown), [], "nothing is known yet");
        assert_eq!(types(std::slice::from_ref(&unknown), &failing), [EventType::Warning]);
        assert_eq!(types(std::slice::from_ref(&failing), &failing), []);
        assert_eq!(types(std::slice::from_ref(&failing), &other), [EventType::Warning]);
        assert_eq!(types(&[other], &well), [EventType::Normal]);
        assert_eq!(types(&[well], &mk("True", "ExchangeWorks", "2 of 2")), [], "as good as before");
    }

    #[test]
    fn a_pending_condition_is_an_event_only_after_a_good_one_and_never_a_warning() {
        let mk = |status: &str, reason: &str| mk_condition(ConditionType::CertificateReady, status, reason, "m");
        let good = mk("True", "CertificateValid");
        for awaited in [mk("Unknown", "Progressing"), mk("False", "Progressing"), mk("False", "CertificatePending")] {
            assert_eq!(types(&[], &awaited), []);
            assert_eq!(types(&[mk("Unknown", "Progressing")], &awaited), []);
            assert_eq!(types(std::slice::from_ref(&good), &awaited), [EventType::Normal]);
            assert_eq!(types(&[awaited], &good), [], "Ready reports it");
        }
        assert_eq!(types(&[], &good), []);
        assert_eq!(types(&[mk("False", "CertificateFailed")], &good), [EventType::Normal]);
    }

    #[test]
    fn ready_is_an_event_when_its_status_changes_and_not_when_its_reason_changes() {
        let mk = |status: &str, reason: &str| mk_condition(ConditionType::Ready, status, reason, "m");
        assert_eq!(types(&[mk("Unknown", "Progressing")], &mk("False", "Progressing")), [EventType::Normal]);
        assert_eq!(types(&[mk("False", "Progressing")], &mk("False", "CrashLooping")), []);
        assert_eq!(types(&[mk("False", "CrashLooping")], &mk("True", "Ready")), [EventType::Normal]);
        assert_eq!(types(&[mk("True", "Ready")], &mk("False", "CrashLooping")), [EventType::Warning]);
    }

    #[test]
    fn a_conflict_is_a_warning() {
        let conflict = mk_condition(ConditionType::Conflicted, "True", "NotOwned", "taken");
        let events = changes(&[], &[conflict]);
        assert_eq!((events[0].type_, events[0].reason.as_str()), (EventType::Warning, "NotOwned"));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let bounded = bounded(&"ü".repeat(1000));
        assert_eq!(bounded.len(), 1024);
    }
}
