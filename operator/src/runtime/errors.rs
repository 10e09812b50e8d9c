//! Errors of a pass, and the pauses before it is retried.

use std::time::Duration;

use crate::{
    objects::{
        drift::Drift,
        owner::NoIdentity,
        untrusted_text::{Quoted, bounded},
    },
    runtime::by_uid::ByUid,
};

/// Pause before the next look at an object that is about to change without an event of a watch.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// The reason why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server, or the connection to it, failed.
    #[error("{action}: {}", describe(source))]
    Kubernetes {
        /// The action that failed.
        action: String,
        source: Box<kube::Error>,
    },
    /// The object had a newer version at every attempt.
    #[error("{object} changed during each of {attempts} attempts to apply it; the operator retries")]
    Contended { object: String, attempts: u32 },
    /// The object is immutable. The next attempt writes an object of another name.
    #[error("{0} is immutable; its content is written under another name")]
    Immutable(String),
    /// No name is left to replace an immutable ConfigMap.
    #[error(
        "no name is left for a ConfigMap of the McpServer: every ConfigMap with one of its names is immutable or belongs to somebody else; delete those that are not needed: {0}"
    )]
    AllImmutable(String),
    /// The live object cannot be changed to the desired one, which the API server would accept as a new object.
    #[error(
        "{object} cannot be updated: {}; delete it, and the operator creates it again: {command}",
        describe(source)
    )]
    Unchangeable {
        object: String,
        /// The command that deletes the object.
        command: String,
        source: Box<kube::Error>,
    },
    /// The API server stores another object than was applied.
    #[error("{object} does not stay as applied: an admission webhook or policy of this cluster changes it: {drift}")]
    Overridden { object: String, drift: Drift },
    /// The operating system returns no random numbers.
    #[error("the operating system returns no random numbers, so no key can be made; the operator retries")]
    NoRandomness,
    /// A document could not be serialised.
    #[error("a document could not be serialised: {0}")]
    Json(#[from] serde_json::Error),
    /// The content of a claim's ConfigMap does not fit its name.
    #[error(
        "ConfigMap {0} in the operator's namespace holds no readable claim; delete it, and the servers that name its value claim it again"
    )]
    UnreadableClaim(String),
    /// The pass exceeded its deadline.
    #[error("the reconcile did not end within {} s; the API server is slow or unreachable", .0.as_secs())]
    Deadline(Duration),
    /// A watch has ended, because the program is ending.
    #[error("the watches have ended")]
    WatchesEnded,
    /// An object has no namespace, name or uid. The API server sends no such object.
    #[error(transparent)]
    NoIdentity(#[from] NoIdentity),
}

/// The class of an error, which decides when the pass is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The API server rejects the object itself. It is retried after a change, or after the longest pause.
    Terminal,
    /// The error may go away. The pass is retried with growing pauses.
    Transient,
}

impl Error {
    pub(crate) fn kubernetes(action: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let action = action.into();
        |source| Self::Kubernetes { action, source: Box::new(source) }
    }

    pub(crate) fn class(&self) -> Class {
        match self {
            Self::Kubernetes { source, .. } if matches!(code(source), Some(400 | 422)) => Class::Terminal,
            Self::Json(_) | Self::NoIdentity(_) | Self::AllImmutable(_) | Self::Unchangeable { .. } => Class::Terminal,
            _ => Class::Transient,
        }
    }
}

/// Returns the HTTP status of the API server's answer, if there was one.
pub(crate) fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// Returns the API server's message, without the structure that kube's Display adds. Webhooks and admission policies
/// can write parts of it.
pub(crate) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => Quoted::of(&status.message).to_string(),
        other => bounded(&other.to_string(), 600),
    }
}

/// Consecutive failures by uid. kube's controller has no back-off of its own.
pub(crate) type Failures = ByUid<u32>;

/// The longest pause between attempts, without the random part. With it, a failing server is retried at least once a
/// minute: its pods may wait for a nudge.
const LONGEST: Duration = Duration::from_secs(48);

impl Failures {
    /// Counts a failure, and returns the pause: 2, 4, 8, 16, 32, then 48 seconds. Each is up to a fifth longer at
    /// random, so that servers which failed together are not retried together.
    pub(crate) fn next_pause(&self, uid: &str, class: Class) -> Duration {
        let mut failures = self.lock();
        let count = failures.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        let pause = match class {
            Class::Terminal => LONGEST,
            Class::Transient => Duration::from_secs(1 << (*count).min(8)).min(LONGEST),
        };
        pause.mul_f64(1.0 + rand::random::<f64>() / 5.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(code: u16) -> Error {
        let status = kube::core::Status::failure("no", "Because").with_code(code);
        Error::kubernetes("applying")(kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn pauses_double_up_to_a_bound_and_start_anew_after_a_success() {
        let failures = Failures::default();
        let pauses: Vec<u64> =
            (0..12).map(|_| failures.next_pause("a", Class::Transient).as_secs_f64() as u64).collect();
        assert!((2..=2).contains(&pauses[0]) && (4..=4).contains(&pauses[1]) && (8..=9).contains(&pauses[2]));
        assert!((48..60).contains(&pauses[7]) && (48..60).contains(&pauses[11]));
        assert_eq!(failures.next_pause("b", Class::Transient).as_secs(), 2);
        failures.take("a");
        assert_eq!(failures.next_pause("a", Class::Transient).as_secs(), 2);
    }

    #[test]
    fn an_invalid_object_waits_for_a_change_and_other_errors_are_retried() {
        assert_eq!(answered(422).class(), Class::Terminal);
        for code in [403, 409, 429, 500, 503] {
            assert_eq!(answered(code).class(), Class::Transient, "{code}");
        }
        assert!(Failures::default().next_pause("a", Class::Terminal) >= LONGEST);
    }

    #[test]
    fn the_failures_of_objects_that_are_gone_are_forgotten() {
        let failures = Failures::default();
        failures.next_pause("gone", Class::Transient);
        failures.retain(|_| false);
        assert!(failures.lock().is_empty());
    }
}
