//! Memory from one pass to the next, so that a pass without changes reads and writes nothing. Losing it is always safe.

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

/// The memory of the last pass over one McpServer.
#[derive(Debug, Default)]
pub(crate) struct ServerMemory {
    /// Children that were found as built, with the version at that time.
    pub(crate) settled: HashMap<ChildKind, Settled>,
    /// ConfigMaps that were found immutable.
    pub(crate) frozen: Frozen,
    /// Uids of the last deleted children.
    pub(crate) deleted: HashMap<ChildKind, String>,
    /// The last read trust bundle.
    pub(crate) trust_bundle: Option<ReadTrustBundle>,
    /// The last read CA certificates of the session store.
    pub(crate) store_ca: Option<ReadTrustBundle>,
    /// The key epochs whose ConfigMaps were read.
    pub(crate) epochs: KnownEpochs,
    /// The last written status, until the watch shows it.
    pub(crate) written: Option<Box<WrittenStatus>>,
    /// The time of that write.
    pub(crate) told: Option<Instant>,
    /// True if a foreign object had a child's name in the last pass.
    pub(crate) is_conflicted: bool,
    /// The time since which a value of the server is neither claimed nor held by another server.
    pub(crate) undecided: Since,
    /// The time since which a ready pod does not report the compiled policy.
    pub(crate) lagging: Since,
    /// The time since which a ready pod has no finished probe, or does not answer.
    pub(crate) probing: Since,
    /// The last nudge of each pod, by uid.
    pub(crate) nudged: HashMap<String, Nudged>,
}

/// The time since which a fact is true.
#[derive(Debug, Default)]
pub(crate) struct Since(Option<Instant>);

impl Since {
    /// Returns true if the fact was true at the last note.
    pub(crate) fn is_so(&self) -> bool {
        self.0.is_some()
    }

    /// Notes if the fact is true now, and returns for how long it has been true.
    pub(crate) fn note(&mut self, is_so: bool, now: Instant) -> Option<Duration> {
        self.0 = is_so.then(|| self.0.unwrap_or(now));
        self.0.map(|since| now.duration_since(since))
    }
}

/// The last nudge of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Nudged {
    /// The revision of the policy that the pod should load.
    pub(crate) revision: String,
    pub(crate) at: Instant,
}

/// A child that was found as built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The hash of the object, its version, and the child as built; see [`Settled::hash`].
    pub(crate) hash: [u8; 16],
    pub(crate) generation: Option<i64>,
}

impl Settled {
    /// Returns the hash of everything that must stay the same for an object to stay as built: its uid and version (see
    /// [`crate::objects::observed_child::Seen`]), and the hash of the child as built.
    pub(crate) fn hash(uid: &str, version: &str, built: &str) -> [u8; 16] {
        let mut half = [0; 16];
        half.iter_mut().zip(Sha256::digest(format!("{uid} {version} {built}"))).for_each(|(half, byte)| *half = byte);
        half
    }
}

/// A ConfigMap with CA certificates, as it was read.
#[derive(Clone, Debug)]
pub(crate) struct ReadTrustBundle {
    pub(crate) uid: String,
    pub(crate) resource_version: String,
    pub(crate) key: String,
    pub(crate) certificates: Option<String>,
}

/// A written status.
#[derive(Clone, Debug)]
pub(crate) struct WrittenStatus {
    /// The version of the McpServer that the pass saw. `status` is newer while the watch still shows this version.
    pub(crate) based_on: Option<String>,
    pub(crate) status: McpServerStatus,
}

impl ServerMemory {
    /// Returns true if the status was written within the last `moment`.
    pub(crate) fn told_within(&self, moment: Duration) -> bool {
        self.told.is_some_and(|told| told.elapsed() < moment)
    }
}

/// The memories of all McpServers. A pass takes its own and puts it back. This is safe because kube runs one pass over
/// an object at a time.
pub(crate) type Memories = ByUid<Box<ServerMemory>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settled_object_is_unsettled_by_a_new_uid_version_or_build() {
        let settled = Settled::hash("uid", "7", "built");
        assert_eq!(settled, Settled::hash("uid", "7", "built"));
        for other in [("other", "7", "built"), ("uid", "8", "built"), ("uid", "7", "other")] {
            assert_ne!(settled, Settled::hash(other.0, other.1, other.2), "{other:?}");
        }
    }

    #[test]
    fn a_duration_restarts_after_an_interruption() {
        let (mut since, start) = (Since::default(), Instant::now());
        let later = start + Duration::from_secs(5);
        assert_eq!(since.note(true, start), Some(Duration::ZERO));
        assert_eq!(since.note(true, later), Some(Duration::from_secs(5)));
        assert_eq!(since.note(false, later), None);
        assert_eq!(since.note(true, later), Some(Duration::ZERO));
    }
}
