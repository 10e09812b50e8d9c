//! What a pass leaves to the next, so that a quiet pass reads and writes nothing. All of it may be lost at any time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use mcp_entra_crds::McpServerStatus;

use crate::owner::ChildKind;

/// What the last pass over one McpServer left.
#[derive(Debug, Default)]
pub(crate) struct ServerMemory {
    /// Children that were found as built, and the version at which they were.
    pub(crate) settled: HashMap<ChildKind, Settled>,
    /// The trust bundle that was read last.
    pub(crate) trust_bundle: Option<ReadTrustBundle>,
    /// The status that was written last, until the watch has seen it.
    pub(crate) written: Option<WrittenStatus>,
    /// Since when some ready pod has not reported the compiled policy.
    pub(crate) lagging_since: Option<Instant>,
    /// When a pod was nudged last, by uid.
    pub(crate) nudged: HashMap<String, Instant>,
}

/// A child that was found as built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) uid: String,
    /// See [`crate::resolve::Seen::version`].
    pub(crate) version: String,
    /// Hash of the child as built.
    pub(crate) hash: String,
}

/// A trust bundle that was read.
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

/// The memories of all McpServers, by uid.
#[derive(Debug, Default)]
pub(crate) struct Memories(Mutex<HashMap<String, ServerMemory>>);

impl Memories {
    /// Takes a server's memory out. kube runs one pass at a time over an object, so nobody else misses it.
    pub(crate) fn take(&self, uid: &str) -> ServerMemory {
        self.lock().remove(uid).unwrap_or_default()
    }

    /// Puts a server's memory back.
    pub(crate) fn put(&self, uid: &str, memory: ServerMemory) {
        self.lock().insert(uid.to_owned(), memory);
    }

    /// Forgets servers that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| exists(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ServerMemory>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which mappings each server's policy ConfigMap holds, by the server's uid: what the mapping controller reports.
#[derive(Debug, Default)]
pub(crate) struct ProgrammedPolicies(Mutex<HashMap<String, ProgrammedPolicy>>);

/// Which mappings one server's policy ConfigMap holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgrammedPolicy {
    /// Generation by uid of the mappings that it holds.
    pub(crate) held: BTreeMap<String, i64>,
    /// Generation by uid of the mappings that did not fit.
    pub(crate) left_out: BTreeMap<String, i64>,
}

impl ProgrammedPolicies {
    /// Notes what a server's policy ConfigMap holds now.
    pub(crate) fn put(&self, uid: &str, programmed: ProgrammedPolicy) {
        self.lock().insert(uid.to_owned(), programmed);
    }

    /// What a server's policy ConfigMap holds, once it is known.
    pub(crate) fn get(&self, uid: &str) -> Option<ProgrammedPolicy> {
        self.lock().get(uid).cloned()
    }

    /// Forgets servers that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.lock().retain(|uid, _| exists(uid));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, ProgrammedPolicy>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
