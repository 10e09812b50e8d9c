//! Conditions as controllers write them.

use jiff::Timestamp;
use serde_json::{Value, json};

/// What is wrong: a stable reason, and words for people.
pub(crate) type Problem = (&'static str, String);

/// Says True with `reason`, or False with what is wrong.
pub(crate) struct Verdict<'a> {
    pub(crate) kind: &'static str,
    pub(crate) holds: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: &'a str,
}

impl<'a> Verdict<'a> {
    pub(crate) fn new(kind: &'static str, problem: Option<&'a Problem>) -> Self {
        match problem {
            // The reason of what is well is the condition's own name.
            None => Self { kind, holds: true, reason: kind, message: "" },
            Some((reason, message)) => Self { kind, holds: false, reason: *reason, message },
        }
    }
}

/// Conditions for an object's generation; the time of one that says what it said stays.
pub(crate) fn conditions(generation: Option<i64>, before: Option<&Value>, verdicts: &[Verdict]) -> Value {
    let before = before.and_then(|status| status.get("conditions")).and_then(Value::as_array);
    let now = json!(Timestamp::now().round(jiff::Unit::Second).unwrap_or_default());
    let condition = |verdict: &Verdict| {
        let status = if verdict.holds { "True" } else { "False" };
        let same =
            before.into_iter().flatten().find(|known| known["type"] == verdict.kind && known["status"] == status);
        json!({
            "type": verdict.kind, "status": status, "reason": verdict.reason, "message": verdict.message,
            "observedGeneration": generation.unwrap_or_default(),
            "lastTransitionTime": same.map_or(&now, |same| &same["lastTransitionTime"]),
        })
    };
    verdicts.iter().map(condition).collect()
}
