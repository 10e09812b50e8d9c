//! Events: each transition of a server's Ready and Conflicted conditions, once. An event that cannot be published
//! changes nothing else.

use std::time::Duration;

use k8s_openapi::{api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder},
};
use mcp_entra_crds::ConditionType;

use crate::{MANAGER, conditions::Reason};

/// The longest note that the API server takes, in characters of one byte.
const LONGEST_NOTE: usize = 1024;
const TIMEOUT: Duration = Duration::from_secs(5);

/// Publishes what changed between two statuses.
pub(crate) async fn publish(client: &Client, about: &ObjectReference, before: &[Condition], after: &[Condition]) {
    for event in changes(before, after) {
        // A recorder joins events that differ in their note alone into the first of them; a new one does not.
        let recorder = Recorder::new(client.clone(), MANAGER.into());
        let reason = event.reason.clone();
        match tokio::time::timeout(TIMEOUT, recorder.publish(&event, about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason, "an event cannot be published"),
            Err(_) => tracing::warn!(reason, "an event could not be published in time"),
        }
    }
}

fn changes(before: &[Condition], after: &[Condition]) -> Vec<Event> {
    [ConditionType::Conflicted, ConditionType::Ready]
        .into_iter()
        .filter_map(|type_| {
            let find = |conditions: &[Condition]| {
                conditions.iter().find(|condition| condition.type_ == type_.as_str()).cloned()
            };
            let new = find(after)?;
            let told =
                |condition: &Condition| (condition.status.clone(), condition.reason.clone(), condition.message.clone());
            (find(before).as_ref().map(told) != Some(told(&new))).then(|| event(type_, &new))
        })
        .collect()
}

fn event(type_: ConditionType, condition: &Condition) -> Event {
    let good = (condition.status == "True") == (type_ == ConditionType::Ready);
    let on_its_way = condition.status == "Unknown" || condition.reason == Reason::Progressing.to_string();
    Event {
        type_: if good || on_its_way { EventType::Normal } else { EventType::Warning },
        reason: condition.reason.clone(),
        note: Some(bounded(&condition.message)),
        action: format!("{type_}Changed"),
        secondary: None,
    }
}

fn bounded(message: &str) -> String {
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

    #[test]
    fn a_transition_is_told_once_and_a_changed_message_anew() {
        let waiting = mk_condition(ConditionType::Ready, "False", "Progressing", "0 of 1");
        let failing = mk_condition(ConditionType::Ready, "False", "ExchangeFailed", "AADSTS70025");
        let other = mk_condition(ConditionType::Ready, "False", "ExchangeFailed", "AADSTS700213");
        let well = mk_condition(ConditionType::Ready, "True", "Ready", "ready");
        let types = |before: &[Condition], after: &Condition| {
            changes(before, std::slice::from_ref(after)).iter().map(|event| event.type_).collect::<Vec<_>>()
        };
        assert_eq!(types(&[], &waiting), [EventType::Normal]);
        assert_eq!(types(std::slice::from_ref(&waiting), &failing), [EventType::Warning]);
        assert_eq!(types(std::slice::from_ref(&failing), &failing), []);
        assert_eq!(types(std::slice::from_ref(&failing), &other), [EventType::Warning]);
        assert_eq!(types(&[other], &well), [EventType::Normal]);
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
