//! The memory that a pass leaves to the next, so that a quiet pass reads and writes nothing. All of it may be lost at
//! any time.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use mcp_entra_crds::McpServerStatus;
use sha2::{Digest, Sha256};

use crate::{
    mcpserver::{immutable_config_maps::Frozen, keys::seen::KnownEpochs},
    objects::child::ChildKind,
    runtime::by_uid::ByUid,
};

/// The memory that the last pass over one McpServer left.
#[derive(Debug, Default)]
pub(crate) struct ServerMemory {
    /// Children that were found as built, and the version at which they were.
    pub(crate) settled: HashMap<ChildKind, Settled>,
    /// ConfigMaps that were found immutable.
    pub(crate) frozen: Frozen,
    /// Uids of the children that were deleted last.
    pub(crate) deleted: HashMap<ChildKind, String>,
    /// The trust bundle that was read last.
    pub(crate) trust_bundle: Option<ReadTrustBundle>,
    /// The CA certificates of the session store that were read last.
    pub(crate) store_ca: Option<ReadTrustBundle>,
    /// The key epochs whose ConfigMaps were read.
    pub(crate) epochs: KnownEpochs,
    /// The status that was written last, until the watch has shown it.
    pub(crate) written: Option<Box<WrittenStatus>>,
    /// The time of that write.
    pub(crate) told: Option<Instant>,
    /// True if a child's name was somebody else's object in the last pass.
    pub(crate) is_conflicted: bool,
    /// Not all that the server names is claimed, and nobody else is known to hold it.
    pub(crate) undecided: Since,
    /// Some ready pod does not report the compiled policy.
    pub(crate) lagging: Since,
    /// Some ready pod has not ended its first probe, or cannot be asked.
    pub(crate) probing: Since,
    /// The last nudge of each pod, by uid.
    pub(crate) nudged: HashMap<String, Nudged>,
}

/// Since when something has been so.
#[derive(Debug, Default)]
pub(crate) struct Since(Option<Instant>);

impl Since {
    /// Says if it was so when it was noted last.
    pub(crate) fn is_so(&self) -> bool {
        self.0.is_some()
    }

    /// Notes whether it is so now, and says for how long it has been.
    pub(crate) fn note(&mut self, is_so: bool, now: Instant) -> Option<Duration> {
        self.0 = is_so.then(|| self.0.unwrap_or(now));
        self.0.map(|since| now.duration_since(since))
    }
}

/// The last nudge of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nudged {
    /// Towards which policy.
    pub(crate) revision: String,
    pub(crate) at: Instant,
}

/// A child that was found as built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Hash of the object, its version, and the child as built; see [`Settled::hash`].
    pub(crate) hash: [u8; 16],
    pub(crate) generation: Option<i64>,
}

impl Settled {
    /// Hash of everything that must be the same for an object to be as built still: its uid and its version, of which
    /// [`crate::objects::observed_child::Seen`] tells, and the hash of the child as built.
    pub(crate) fn hash(uid: &str, version: &str, built: &str) -> [u8; 16] {
        let mut half = [0; 16];
        half.iter_mut().zip(Sha256::digest(format!("{uid} {version} {built}"))).for_each(|(half, byte)| *half = byte);
        half
    }
}

/// A ConfigMap with CA certificates that was read.
#[derive(Clone, Debug)]
pub(crate) struct ReadTrustBundle {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) key: String,
    pub(crate) certificates: Option<String>,
}

/// A status that was written.
#[derive(Clone, Debug)]
pub(crate) struct WrittenStatus {
    /// The version of the McpServer that the pass saw: while the watch still shows it, `status` is newer.
    pub(crate) based_on: Option<String>,
    pub(crate) status: McpServerStatus,
}

impl ServerMemory {
    /// Says if the status was written no longer ago than that.
    pub(crate) fn told_within(&self, moment: Duration) -> bool {
        self.told.is_some_and(|told| told.elapsed() < moment)
    }
}

/// The memories of all McpServers. A pass takes its own out and puts it back: kube runs one pass at a time over an
/// object, so nobody else misses it.
pub(crate) type Memories = ByUid<Box<ServerMemory>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_settled_is_not_if_the_object_its_version_or_what_is_built_is_another() {
        let settled = Settled::hash("uid", "7", "built");
        assert_eq!(settled, Settled::hash("uid", "7", "built"));
        for other in [("other", "7", "built"), ("uid", "8", "built"), ("uid", "7", "other")] {
            assert_ne!(settled, Settled::hash(other.0, other.1, other.2), "{other:?}");
        }
    }

    #[test]
    fn how_long_something_has_been_so_starts_anew_when_it_was_not() {
        let (mut since, start) = (Since::default(), Instant::now());
        let later = start + Duration::from_secs(5);
        assert_eq!(since.note(true, start), Some(Duration::ZERO));
        assert_eq!(since.note(true, later), Some(Duration::from_secs(5)));
        assert_eq!(since.note(false, later), None);
        assert_eq!(since.note(true, later), Some(Duration::ZERO));
    }
}
