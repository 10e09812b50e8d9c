//! Conversion of verdicts to `status.conditions`. Pure.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use mcp_entra_crds::ConditionType;

pub(crate) use crate::conditions::reasons::Reason;
use crate::objects::untrusted_text::bounded;

/// The maximum length of a message, in characters. The API server takes 32,768, and rejects the whole status if one
/// message is longer.
const LONGEST_MESSAGE: usize = 4096;

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    True,
    False,
    Unknown,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The status of a condition, its reason, and a message with the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// The generation that the verdict is about, if it can be an earlier one.
    generation: Option<i64>,
}

impl Verdict {
    fn new(state: State, reason: Reason, message: impl Into<String>) -> Self {
        Self { state, reason: reason.to_string(), message: message.into(), generation: None }
    }

    pub(crate) fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(State::True, reason, message)
    }

    pub(crate) fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(State::False, reason, message)
    }

    pub(crate) fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self::new(State::Unknown, reason, message)
    }

    /// Returns the verdict of the previous condition, if there is one.
    pub(crate) fn before(previous: &[Condition], type_: ConditionType) -> Option<Self> {
        let condition = previous.iter().find(|condition| condition.type_ == type_.as_str())?;
        let state = match condition.status.as_str() {
            "True" => State::True,
            "False" => State::False,
            _ => State::Unknown,
        };
        let (reason, message) = (condition.reason.clone(), condition.message.clone());
        Some(Self { state, reason, message, generation: None })
    }

    /// Returns the previous verdict with the generation that it was about.
    pub(crate) fn of_earlier_spec(previous: &[Condition], type_: ConditionType) -> Option<Self> {
        let condition = previous.iter().find(|condition| condition.type_ == type_.as_str())?;
        Some(Self { generation: condition.observed_generation, ..Self::before(previous, type_)? })
    }
}

/// Adds `Ready`. It copies the first false verdict, else the first unknown one, else it is `ready`. `Conflicted` does
/// not count: while it is true, `Programmed` is false for the same reason. An unknown `BackendIsolated` does not count
/// either: a port that nobody can reach looks like a port that nobody reaches now.
pub(crate) fn with_ready(mut verdicts: Vec<(ConditionType, Verdict)>, ready: Verdict) -> Vec<(ConditionType, Verdict)> {
    let first = |state: State| {
        verdicts
            .iter()
            .find(|(type_, verdict)| verdict.state == state && counts(*type_, state))
            .map(|(_, verdict)| verdict.clone())
    };
    let ready = first(State::False).or_else(|| first(State::Unknown)).unwrap_or(ready);
    verdicts.push((ConditionType::Ready, ready));
    verdicts
}

fn counts(type_: ConditionType, state: State) -> bool {
    match type_ {
        ConditionType::Conflicted => false,
        ConditionType::BackendIsolated => state != State::Unknown,
        _ => true,
    }
}

/// Returns true if the condition has its desired status.
pub(crate) fn is_good(condition: &Condition) -> bool {
    (condition.status == "True") == (condition.type_ != ConditionType::Conflicted.as_str())
}

/// Returns true if the condition normally becomes good without help.
pub(crate) fn is_awaited(condition: &Condition) -> bool {
    let reason = condition.reason.as_str();
    condition.status == "Unknown"
        || (condition.status == "False" && (reason == Reason::Progressing.to_string() || reason.ends_with("Pending")))
}

/// Builds the conditions to write. The transition time changes only with the status.
pub(crate) fn conditions(
    previous: &[Condition],
    verdicts: Vec<(ConditionType, Verdict)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    // Whole seconds, as built-in kinds store them.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    verdicts
        .into_iter()
        .map(|(type_, verdict)| {
            let unchanged = previous
                .iter()
                .find(|before| before.type_ == type_.as_str() && before.status == verdict.state.as_str());
            Condition {
                type_: type_.to_string(),
                status: verdict.state.as_str().to_owned(),
                reason: verdict.reason,
                message: bounded(&verdict.message, LONGEST_MESSAGE),
                observed_generation: verdict.generation.or(generation),
                last_transition_time: unchanged.map_or(Time(now), |before| before.last_transition_time.clone()),
            }
        })
        .collect()
}

/// Joins names for a message: the first ten, and the number of the others.
pub(crate) fn named(names: &[String]) -> String {
    let first = names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(10) {
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn verdicts(state: State) -> Vec<(ConditionType, Verdict)> {
        let verdict = Verdict { state, reason: "R".into(), message: "m".into(), generation: None };
        vec![(ConditionType::Available, verdict)]
    }

    #[test]
    fn the_transition_time_changes_only_with_the_status() {
        let first = conditions(&[], verdicts(State::True), Some(1), at(100));
        let mut changed = verdicts(State::True);
        changed[0].1.message = "other".into();
        let second = conditions(&first, changed, Some(2), at(200));
        assert_eq!(second[0].last_transition_time, Time(at(100)));
        assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("other", Some(2)));
        let third = conditions(&second, verdicts(State::Unknown), Some(2), at(300));
        assert_eq!(third[0].last_transition_time, Time(at(300)));
    }

    #[test]
    fn a_verdict_on_an_earlier_spec_keeps_its_generation() {
        let first = conditions(&[], verdicts(State::True), Some(1), at(100));
        let verdict = Verdict::of_earlier_spec(&first, ConditionType::Available).unwrap();
        let later = |verdicts| conditions(&first, verdicts, Some(2), at(200))[0].observed_generation;
        assert_eq!(later(vec![(ConditionType::Available, verdict)]), Some(1));
        assert_eq!(later(verdicts(State::True)), Some(2));
        assert_eq!(Verdict::of_earlier_spec(&[], ConditionType::Available), None);
    }

    #[test]
    fn a_message_has_a_bounded_length_and_no_control_characters() {
        let mut hostile = verdicts(State::False);
        hostile[0].1.message = crate::objects::untrusted_text::tests::hostile();
        let written = conditions(&[], hostile.clone(), Some(1), at(100));
        assert_eq!(written[0].message.chars().count(), LONGEST_MESSAGE);
        assert!(!written[0].message.contains(['\n', '\u{1b}', '\u{202e}']));
        let again = conditions(&written, hostile, Some(1), at(200));
        assert_eq!(again, written, "a message that was cut stays the same");
    }

    #[test]
    fn ready_has_the_message_of_the_first_failing_condition() {
        let ready = |list: &[(ConditionType, Verdict)]| {
            let verdicts = with_ready(list.to_vec(), Verdict::yes(Reason::Ready, ""));
            verdicts.into_iter().find(|(type_, _)| *type_ == ConditionType::Ready).unwrap().1
        };
        let good = (ConditionType::Accepted, Verdict::yes(Reason::Accepted, ""));
        let open = (ConditionType::FederationReady, Verdict::unknown(Reason::NoReadyPods, "u"));
        let bad = (ConditionType::AuthorizationReady, Verdict::no(Reason::PolicyLagging, "lags"));
        let worse = (ConditionType::Exposed, Verdict::no(Reason::AddressPending, "no address"));
        let conflict = (ConditionType::Conflicted, Verdict::yes(Reason::NotOwned, "taken"));
        assert_eq!(ready(&[good.clone(), conflict]).state, State::True);
        assert_eq!(ready(&[good.clone(), open.clone()]), open.1);
        assert_eq!(ready(&[good, open, bad.clone(), worse]), bad.1);
    }
}
