//! Decision about a server's key epochs. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcp_entra_policy::{KeyEpoch, KeyEpochs};
use serde::{Deserialize, Serialize};

use crate::{
    objects::names::ROTATE_KEYS,
    policy::revocation::{compromised_keys, request},
};

/// Seconds between the creation of a rotated epoch and its first use. By then every pod has mounted its key, and
/// accepts signatures of other pods.
pub(crate) const LEAD_SECONDS: i64 = 15 * 60;

/// The requests in annotations. Each new value is a new request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Requests {
    /// The value of the annotation [`ROTATE_KEYS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rotation: Option<String>,
    /// The value of the annotation that reports a compromise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) compromise: Option<String>,
}

impl Requests {
    /// Reads the requests from an McpServer's annotations.
    pub(crate) fn of(server: &ObjectMeta) -> Self {
        Self { rotation: request(server, ROTATE_KEYS), compromise: compromised_keys(server) }
    }
}

/// The reason for a new epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// The server had no epoch.
    First,
    /// An annotation requested new keys.
    Rotation,
    /// An annotation reported that the earlier keys are compromised.
    Compromise,
}

/// A key epoch, as its ConfigMap describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Epoch {
    pub(crate) number: u32,
    /// The time of its first use for signing and sealing, in seconds since 1970.
    pub(crate) used_from: i64,
    pub(crate) cause: Cause,
    /// The requests that it and all earlier epochs fulfil.
    #[serde(default)]
    pub(crate) answers: Requests,
}

/// The decision about epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Decision {
    /// The epoch to create, which is also the last of `kept`.
    pub(crate) made: Option<Epoch>,
    /// The epochs that pods use, the newest last; never empty.
    pub(crate) kept: Vec<Epoch>,
    /// Numbers of epochs that pods no longer need.
    pub(crate) pruned: Vec<u32>,
}

/// Returns the decision for a server without an epoch.
impl Default for Decision {
    fn default() -> Self {
        decide(&Requests::default(), Vec::new(), 0, 0)
    }
}

impl Decision {
    /// Returns the epochs for the server's configuration.
    pub(crate) fn configured(&self) -> KeyEpochs {
        KeyEpochs {
            registration: self.kept.get(registration(&self.kept)).map(|epoch| epoch.number).unwrap_or_default(),
            epochs: self
                .kept
                .iter()
                .map(|Epoch { number, used_from, .. }| KeyEpoch { number: *number, used_from: *used_from })
                .collect(),
            after_compromise: self.kept.last().and_then(|newest| newest.answers.compromise.clone()),
        }
    }
}

/// Decides from the requests and the existing epochs. `taken` is the highest number whose name any object has. `now` is
/// in seconds since 1970.
///
/// A compromise ends all earlier epochs at once. A rotation keeps the epoch before it, and waits while that one is not
/// used yet. So there are at most four epochs: the one of the registrations, the one in use, the next one, and, if
/// there is no next one, the one before.
pub(crate) fn decide(requests: &Requests, mut seen: Vec<Epoch>, taken: u32, now: i64) -> Decision {
    seen.sort_by_key(|epoch| epoch.number);
    let made = made(requests, seen.last(), now).map(|(cause, used_from, answers)| {
        let last = seen.last().map_or(0, |epoch| epoch.number).max(taken);
        Epoch { number: last.saturating_add(1), used_from, cause, answers }
    });
    seen.extend(made.clone());
    let registration = registration(&seen);
    let in_use = seen.iter().rposition(|epoch| epoch.used_from <= now).unwrap_or(0);
    let first_used = if in_use + 1 == seen.len() { in_use.saturating_sub(1) } else { in_use };
    let ends = |at: usize| at < first_used && at != registration;
    let is_compromised = |at: usize| at < registration;
    let (mut kept, mut pruned) = (Vec::new(), Vec::new());
    for (at, epoch) in seen.into_iter().enumerate() {
        match ends(at) || is_compromised(at) {
            true => pruned.push(epoch.number),
            false => kept.push(epoch),
        }
    }
    Decision { made, kept, pruned }
}

/// Returns cause, time and answers of the missing epoch, if there is one.
fn made(requests: &Requests, newest: Option<&Epoch>, now: i64) -> Option<(Cause, i64, Requests)> {
    let Some(newest) = newest else { return Some((Cause::First, 0, requests.clone())) };
    let is_new = |asked: &Option<String>, answered: &Option<String>| asked.is_some() && asked != answered;
    // An answered value stays answered when the annotation is removed and added again.
    let answers = Requests {
        rotation: requests.rotation.clone().or_else(|| newest.answers.rotation.clone()),
        compromise: requests.compromise.clone().or_else(|| newest.answers.compromise.clone()),
    };
    if is_new(&requests.compromise, &newest.answers.compromise) {
        return Some((Cause::Compromise, now, answers));
    }
    let is_asked = is_new(&requests.rotation, &newest.answers.rotation) && newest.used_from <= now;
    is_asked.then(|| (Cause::Rotation, now.saturating_add(LEAD_SECONDS), answers))
}

/// Returns the index of the epoch that seals client registrations: the last one that is not a rotation.
fn registration(epochs: &[Epoch]) -> usize {
    epochs.iter().rposition(|epoch| epoch.cause != Cause::Rotation).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_000_000;

    fn asked(rotation: Option<&str>, compromise: Option<&str>) -> Requests {
        Requests { rotation: rotation.map(Into::into), compromise: compromise.map(Into::into) }
    }

    fn mk(number: u32, cause: Cause, used_from: i64, answers: Requests) -> Epoch {
        Epoch { number, used_from, cause, answers }
    }

    fn first() -> Epoch {
        mk(1, Cause::First, 0, asked(None, None))
    }

    fn rotated(number: u32, request: &str, used_from: i64) -> Epoch {
        mk(number, Cause::Rotation, used_from, asked(Some(request), None))
    }

    /// The number of the created epoch, the kept and pruned ones, and the one of the registrations.
    fn decided(requests: &Requests, seen: &[Epoch]) -> (Option<u32>, Vec<u32>, Vec<u32>, u32) {
        let decision = decide(requests, seen.to_vec(), 0, NOW);
        let configured = decision.configured();
        let kept: Vec<u32> = configured.epochs.iter().map(|epoch| epoch.number).collect();
        assert!(decision.made.as_ref().is_none_or(|made| decision.kept.last() == Some(made)));
        assert!(kept.len() <= 4 && kept.contains(&configured.registration), "{kept:?}");
        (decision.made.map(|made| made.number), kept, decision.pruned, configured.registration)
    }

    #[test]
    fn every_request_is_answered_once_and_every_crash_point_converges() {
        let (r, c) = (asked(Some("r"), None), asked(Some("r"), Some("c")));
        let none = asked(None, None);
        let (past, future) = (NOW - 1, NOW + LEAD_SECONDS);
        let compromised = |number| mk(number, Cause::Compromise, NOW, c.clone());
        for (case, requests, seen, expected) in [
            ("a new server", &none, vec![], (Some(1), vec![1], vec![], 1)),
            ("nothing asked", &none, vec![first()], (None, vec![1], vec![], 1)),
            ("asked before the first", &c, vec![], (Some(1), vec![1], vec![], 1)),
            ("a rotation", &r, vec![first()], (Some(2), vec![1, 2], vec![], 1)),
            ("it is made and not used yet", &r, vec![first(), rotated(2, "r", future)], (None, vec![1, 2], vec![], 1)),
            ("it is used", &r, vec![first(), rotated(2, "r", past)], (None, vec![1, 2], vec![], 1)),
            (
                "another one waits for the one before",
                &asked(Some("s"), None),
                vec![first(), rotated(2, "r", future)],
                (None, vec![1, 2], vec![], 1),
            ),
            (
                "another one keeps the one before",
                &asked(Some("s"), None),
                vec![first(), rotated(2, "q", past), rotated(3, "r", past)],
                (Some(4), vec![1, 3, 4], vec![2], 1),
            ),
            (
                "the one before still exists after a crash",
                &asked(Some("s"), None),
                vec![first(), rotated(2, "q", past), rotated(3, "r", past), rotated(4, "s", future)],
                (None, vec![1, 3, 4], vec![2], 1),
            ),
            (
                "once used, the one before stays",
                &asked(Some("s"), None),
                vec![first(), rotated(3, "r", past), rotated(4, "s", past)],
                (None, vec![1, 3, 4], vec![], 1),
            ),
            ("the annotation is gone", &none, vec![first(), rotated(2, "r", past)], (None, vec![1, 2], vec![], 1)),
            ("a compromise ends all", &c, vec![first(), rotated(2, "r", past)], (Some(3), vec![3], vec![1, 2], 3)),
            ("one that waits, too", &c, vec![first(), rotated(2, "r", future)], (Some(3), vec![3], vec![1, 2], 3)),
            (
                "after a crash the ended ones still exist",
                &c,
                vec![first(), rotated(2, "r", past), compromised(3)],
                (None, vec![3], vec![1, 2], 3),
            ),
            ("after a compromise", &c, vec![compromised(3)], (None, vec![3], vec![], 3)),
            (
                "a rotation after a compromise",
                &asked(Some("s"), Some("c")),
                vec![compromised(3)],
                (Some(4), vec![3, 4], vec![], 3),
            ),
            (
                "another compromise",
                &asked(Some("r"), Some("d")),
                vec![compromised(3), rotated(4, "r", past)],
                (Some(5), vec![5], vec![3, 4], 5),
            ),
            ("the registration's was deleted", &r, vec![rotated(2, "r", past)], (None, vec![2], vec![], 2)),
            ("out of order", &r, vec![rotated(2, "r", past), first()], (None, vec![1, 2], vec![], 1)),
        ] {
            assert_eq!(decided(requests, &seen), expected, "{case}");
        }
    }

    #[test]
    fn a_rotation_is_used_once_every_pod_can_have_it_and_the_first_and_a_compromise_at_once() {
        let used_from = |requests: &Requests, seen: Vec<Epoch>| decide(requests, seen, 0, NOW).made.unwrap().used_from;
        assert_eq!(used_from(&asked(None, None), vec![]), 0);
        assert_eq!(used_from(&asked(Some("r"), None), vec![first()]), NOW + LEAD_SECONDS);
        assert_eq!(used_from(&asked(Some("r"), Some("c")), vec![first()]), NOW);
    }

    #[test]
    fn a_request_that_was_answered_is_not_answered_again_when_the_annotation_comes_back() {
        let rotated = decide(&asked(Some("r"), None), vec![first()], 0, NOW).made.unwrap();
        let compromised = decide(&asked(None, Some("c")), vec![first(), rotated], 0, NOW).made.unwrap();
        assert_eq!(compromised.answers, asked(Some("r"), Some("c")));
        assert_eq!(decide(&asked(Some("r"), Some("c")), vec![compromised], 0, NOW).made, None);
    }

    #[test]
    fn a_name_of_a_foreign_object_is_skipped() {
        assert_eq!(decide(&asked(None, None), vec![], 7, NOW).made.unwrap().number, 8);
        assert_eq!(decide(&asked(Some("r"), None), vec![first()], 7, NOW).made.unwrap().number, 8);
    }

    #[test]
    fn the_decided_epochs_form_a_valid_configuration() {
        let decision = decide(&asked(Some("r"), None), vec![first()], 0, NOW);
        let epochs = decision.configured().epochs;
        assert!(epochs.is_sorted_by(|one, next| one.number < next.number && one.used_from <= next.used_from));
    }
}
