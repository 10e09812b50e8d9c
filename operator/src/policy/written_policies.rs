//! Content of the written policies: the mappings in each server's policy ConfigMap, and the names that its backend
//! offers. Each change is reported to the passes over mappings.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{Stream, stream};
use tokio::sync::Notify;

use crate::{objects::owner::Owner, policy::offered::Offered, runtime::by_uid::ByUid};

/// A server's namespace and name.
pub(crate) type ServerName = (String, String);

/// The mappings in each server's policy ConfigMap, and the names that its backend offers. The status of mappings
/// depends on them, but no watch shows them, so [`ProgrammedPolicies::changes`] reports each change.
#[derive(Debug, Default)]
pub(crate) struct ProgrammedPolicies {
    by_uid: ByUid<ProgrammedPolicy>,
    offered: ByUid<Arc<Offered>>,
    /// Servers whose policy changed since the last report. Its size is bounded by the number of servers.
    changed: Mutex<BTreeSet<ServerName>>,
    is_changed: Notify,
}

impl ProgrammedPolicies {
    /// Returns the content of a server's policy ConfigMap, once it is known.
    pub(crate) fn get(&self, uid: &str) -> Option<ProgrammedPolicy> {
        self.by_uid.lock().get(uid).cloned()
    }

    /// Stores the content of a server's policy ConfigMap.
    pub(crate) fn put(&self, owner: &Owner, policy: ProgrammedPolicy) {
        let before = self.by_uid.lock().insert(owner.uid.clone(), policy.clone());
        if before.is_none_or(|before| before != policy) {
            self.tell(owner);
        }
    }

    /// Returns the names that a server's backend offers, once they are known.
    pub(crate) fn offered(&self, uid: &str) -> Option<Arc<Offered>> {
        self.offered.lock().get(uid).cloned()
    }

    /// Stores the names that a server's backend offers.
    pub(crate) fn put_offered(&self, owner: &Owner, offered: Offered) {
        let is_known = self.offered(&owner.uid).is_some_and(|before| *before == offered);
        if !is_known {
            self.offered.put(&owner.uid, Arc::new(offered));
            self.tell(owner);
        }
    }

    fn tell(&self, owner: &Owner) {
        let changed = (owner.namespace.clone(), owner.name.clone());
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(changed);
        self.is_changed.notify_one();
    }

    /// Records that a pass could not write the policy. The ConfigMap keeps its content, which counts as empty if it is
    /// unknown.
    pub(crate) fn not_written(&self, uid: &str) {
        self.by_uid.lock().entry(uid.to_owned()).or_default();
    }

    /// Forgets servers that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(&str) -> bool) {
        self.by_uid.retain(&exists);
        self.offered.retain(exists);
    }

    /// Returns a stream of the servers whose policy changed. It is for one reader: each change is reported once.
    pub(crate) fn changes(self: Arc<Self>) -> impl Stream<Item = Vec<ServerName>> + Send {
        stream::unfold(self, |policies| async {
            loop {
                let changed = std::mem::take(&mut *policies.changed.lock().unwrap_or_else(PoisonError::into_inner));
                if !changed.is_empty() {
                    return Some((changed.into_iter().collect(), policies));
                }
                policies.is_changed.notified().await;
            }
        })
    }
}

/// Generations of mappings by uid, sorted. A slice takes less memory than a map for so few.
pub(crate) type Generations = Box<[(Box<str>, i64)]>;

/// The mappings in the policy ConfigMap of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgrammedPolicy {
    /// Generations by uid of the mappings in it.
    pub(crate) held: Generations,
    /// Generations by uid of the mappings that did not fit.
    pub(crate) left_out: Generations,
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;
    use crate::objects::fixtures::mk_owner;

    fn mk_owner_named(name: &str) -> Owner {
        Owner { name: name.into(), uid: name.into(), ..mk_owner() }
    }

    fn mk_policy(mapping: &str) -> ProgrammedPolicy {
        ProgrammedPolicy { held: [(mapping.into(), 1)].into(), left_out: [].into() }
    }

    #[test]
    fn a_failed_write_holds_no_mapping_and_keeps_an_earlier_policy() {
        let policies = ProgrammedPolicies::default();
        policies.not_written("a");
        assert_eq!(policies.get("a"), Some(ProgrammedPolicy::default()));
        policies.put(&mk_owner_named("b"), mk_policy("m"));
        policies.not_written("b");
        assert_eq!(policies.get("b"), Some(mk_policy("m")));
        policies.retain(|uid| uid == "b");
        assert_eq!(policies.get("a"), None);
    }

    #[tokio::test]
    async fn every_change_is_announced_once_even_without_a_listener() {
        let policies = Arc::<ProgrammedPolicies>::default();
        let (a, b) = (mk_owner_named("a"), mk_owner_named("b"));
        policies.put(&a, mk_policy("m"));
        policies.put(&b, ProgrammedPolicy::default());
        policies.put(&b, mk_policy("m"));
        let mut changes = Box::pin(policies.clone().changes());
        let told = changes.next().await.unwrap();
        assert_eq!(told.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);

        policies.put(&a, mk_policy("m"));
        assert_eq!(changes.next().now_or_never(), None, "nothing has changed");
        let offering = |tool: &str| Offered { tools: [tool.to_owned()].into(), ..Offered::default() };
        policies.put_offered(&b, offering("add"));
        assert_eq!(changes.next().await.unwrap(), [(b.namespace.clone(), "b".to_owned())]);
        policies.put_offered(&b, offering("add"));
        assert_eq!(changes.next().now_or_never(), None, "nothing has changed");
        assert!(policies.offered("b").unwrap().tools.contains("add"));
        // A mapping leaves the policy, and only this stream reports it.
        policies.put(&a, ProgrammedPolicy::default());
        let told = changes.next().await.unwrap();
        assert_eq!(told, [(a.namespace.clone(), "a".to_owned())]);
    }
}
