//! Notes on suspects between rounds, and their next due time. Pure: the clock is an argument.

use std::time::{Duration, Instant};

use super::events::EventReason;
use crate::{
    objects::child::ChildKind,
    watch::orphaned::{Evidence, Suspect},
};

/// Time without a controller in the cache before the API server is asked for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Notes on a suspect between rounds.
#[derive(Debug, Default)]
pub(super) struct Note {
    /// The first time when its controller was not in the cache.
    unseen_since: Option<Instant>,
    /// The last attempt to revoke it.
    pub(super) tried: Option<Instant>,
    /// The earliest time for another attempt after a failure.
    pub(super) retry_at: Option<Instant>,
    /// The last final result.
    pub(super) settled: Option<FinalResult>,
    /// The reason of the last event.
    pub(super) told: Option<EventReason>,
}

/// A result that holds until the object changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FinalResult {
    pub(super) version: Box<str>,
    /// True if the policy denies everything.
    pub(super) denied: bool,
}

impl Note {
    /// Records the present evidence, and returns true if an attempt to revoke is due.
    pub(super) fn is_due(&mut self, suspect: &Suspect, now: Instant) -> bool {
        let is_proven = match suspect.evidence {
            Evidence::NoController => {
                self.unseen_since = None;
                true
            }
            Evidence::Unseen { .. } => now.duration_since(*self.unseen_since.get_or_insert(now)) >= PATIENCE,
        };
        let is_settled = self.settled.as_ref().is_some_and(|settled| settled.version == suspect.object.version);
        // A route that is being deleted needs no further attempt.
        let is_leaving = suspect.kind != ChildKind::Policy && suspect.object.leaving;
        is_proven && !is_settled && !is_leaving && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Restarts the wait for a missing controller, because the API server still has it.
    pub(super) fn controller_lives(&mut self, now: Instant) {
        self.unseen_since = Some(now);
    }

    /// Returns true if the policy certainly belongs to an orphan.
    pub(super) fn is_certain(&self, suspect: &Suspect) -> bool {
        suspect.evidence == Evidence::NoController || self.settled.is_some()
    }

    /// Returns the version at which the policy denies everything, if it does.
    pub(super) fn denied(&self) -> Option<&str> {
        self.settled.as_ref().filter(|settled| settled.denied).map(|settled| &*settled.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::orphaned::tests::mk_suspect;

    #[test]
    fn an_unseen_controller_is_awaited_and_an_absent_one_is_not() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let unseen = mk_suspect(Evidence::Unseen { server: "graph".into(), uid: "gone".into() });
        let mut note = Note::default();
        assert!(!note.is_due(&unseen, start) && !note.is_due(&unseen, after(29)));
        assert!(note.is_due(&unseen, after(30)));
        note.controller_lives(after(30));
        assert!(!note.is_due(&unseen, after(59)) && note.is_due(&unseen, after(60)));
        assert!(Note::default().is_due(&mk_suspect(Evidence::NoController), start));
    }

    #[test]
    fn a_settled_orphan_waits_for_a_change_and_a_failure_for_its_pause() {
        let (start, suspect) = (Instant::now(), mk_suspect(Evidence::NoController));
        let settled = |version: &str| Some(FinalResult { version: version.into(), denied: true });
        assert!(!Note { settled: settled("7"), ..Note::default() }.is_due(&suspect, start));
        assert!(Note { settled: settled("6"), ..Note::default() }.is_due(&suspect, start));
        let mut failed = Note { retry_at: Some(start + Duration::from_secs(2)), ..Note::default() };
        assert!(!failed.is_due(&suspect, start) && failed.is_due(&suspect, start + Duration::from_secs(2)));
    }
}
