//! Conditions as controllers write them.

use jiff::Timestamp;
use serde_json::{Value, json};

/// Problem: a stable reason, and a message for people.
pub(crate) type Problem = (&'static str, String);

/// Returns a condition that is True with `reason`, or False with the problem.
pub(crate) struct Verdict<'a> {
    pub(crate) kind: &'static str,
    pub(crate) holds: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: &'a str,
}

impl<'a> Verdict<'a> {
    pub(crate) fn new(kind: &'static str, problem: Option<&'a Problem>) -> Self {
        match problem {
            // Without a problem, the reason is the name of the condition.
            None => Self { kind, holds: true, reason: kind, message: "" },
            Some((reason, message)) => Self { kind, holds: false, reason: *reason, message },
        }
    }
}

/// Sets conditions for an object's generation. The transition time of an unchanged condition stays.
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
