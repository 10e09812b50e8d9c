//! The groups of a user whose token does not list them. Graph is asked on the user's behalf, about the groups that the
//! policy names and no others.
//!
//! The claim's own pointer (`_claim_sources`) is never followed. It names a service that is gone, and a token is no source
//! of addresses to send tokens to.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::future::Cache;
use sha2::{Digest, Sha256};

use crate::entra::SignIn;
use crate::graph::{GraphClient, GraphError};
use crate::token::{Principal, User};
use mcp_entra_policy::{GraphAccess, Groups};

/// The delegated permission for `checkMemberGroups` about oneself.
const PERMISSIONS: &[&str] = &["User.Read"];
/// Time for which an answer is relied on. Like a groups claim it belongs to one token, and ends with it.
const RELIED_ON: Duration = Duration::from_secs(300);
/// Time for which Graph is not asked again after it could not answer.
const PAUSE: Duration = Duration::from_secs(10);
/// Time for which a decision waits for Graph.
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// Most answers kept at a time; the least used go first.
const KEPT: u64 = 10_000;

type Key = [u8; 32];
/// The groups that the user is in, as far as Graph shows them, or why they could not be learnt.
pub type Learnt = Result<Arc<Groups>, Arc<Unlearnt>>;

/// The reason why the groups of a user could not be learnt.
#[derive(Debug)]
pub struct Unlearnt {
    /// Text for the user, with the next step.
    pub why: String,
    /// The sign-in that would help, if one does.
    pub sign_in: Option<SignIn>,
    /// True if the store with the user's session does not answer: the same question may be answered soon.
    pub is_store_away: bool,
}

/// Learns in which of some groups users are.
pub struct GroupDirectory {
    graph: GraphClient,
    learnt: Cache<Key, Learnt>,
}

struct Lasting;

impl Expiry<Key, Learnt> for Lasting {
    fn expire_after_create(&self, _: &Key, learnt: &Learnt, _: Instant) -> Option<Duration> {
        Some(if learnt.is_ok() { RELIED_ON } else { PAUSE })
    }
}

impl GroupDirectory {
    /// The directory behind this Graph.
    pub fn new(graph: GraphClient) -> Self {
        Self { graph, learnt: Cache::builder().max_capacity(KEPT).expire_after(Lasting).build() }
    }

    /// Those of these groups (object ids in lower case) that the user is in. Callers that ask at the same time get one answer.
    pub async fn among(&self, principal: &Principal, ids: &BTreeSet<String>) -> Learnt {
        let Principal::User(user) = principal else {
            let why = "an application is in no group that can be seen".to_owned();
            return Err(Arc::new(Unlearnt { why, sign_in: None, is_store_away: false }));
        };
        // In a box: it is large, seldom needed, and would be a part of every request.
        self.learnt.get_with(key(user, ids), Box::pin(self.ask(principal, ids))).await
    }

    async fn ask(&self, principal: &Principal, ids: &BTreeSet<String>) -> Learnt {
        let asking = async {
            let graph = self.graph.for_caller(principal, GraphAccess::OnBehalfOf, None, PERMISSIONS)?;
            graph.groups_among(ids).await.map(Arc::new)
        };
        let late = || Err(GraphError::TooSlow { seconds: TIME_LIMIT.as_secs() });
        let learnt = tokio::time::timeout(TIME_LIMIT, asking).await.unwrap_or_else(|_| late());
        learnt.map_err(|error| {
            tracing::warn!(%error, correlation_id = error.correlation_id(), "groups of a user not learnt");
            let (sign_in, is_store_away) = (error.sign_in(), error.is_store_away());
            Arc::new(Unlearnt { sign_in, is_store_away, why: error.told() })
        })
    }
}

/// A key made of the whole token: the next token asks anew, as a groups claim would be read anew.
fn key(user: &User, ids: &BTreeSet<String>) -> Key {
    let mut hash = Sha256::new();
    hash.update(user.assertion.digest());
    for id in ids {
        hash.update([0]);
        hash.update(id);
    }
    hash.finalize().into()
}
