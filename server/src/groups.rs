//! Group memberships of users whose tokens do not list them. The server asks Graph on the user's behalf, and only
//! about groups in the policy.
//!
//! The server never follows the claim's own pointer (`_claim_sources`). It names a retired service, and a token is
//! not a safe source of addresses to send tokens to.

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

/// The delegated permission that `checkMemberGroups` needs for the signed-in user.
const PERMISSIONS: &[&str] = &["User.Read"];
/// Lifetime of an answer. Like a groups claim, it belongs to one token.
const RELIED_ON: Duration = Duration::from_secs(300);
/// Pause after Graph could not answer. Graph is not asked again during it.
const PAUSE: Duration = Duration::from_secs(10);
/// Longest time that a decision waits for Graph.
const TIME_LIMIT: Duration = Duration::from_secs(15);
/// Most answers in the cache; the least used are evicted first.
const KEPT: u64 = 10_000;

type Key = [u8; 32];
/// The user's groups among those that were asked about, or the reason why they are unknown.
pub type Learnt = Result<Arc<Groups>, Arc<Unlearnt>>;

/// The reason why a user's groups are unknown.
#[derive(Debug)]
pub struct Unlearnt {
    /// Text for the user, with the next step.
    pub why: String,
    /// The sign-in that would help, if any.
    pub sign_in: Option<SignIn>,
    /// True if the session store does not answer. The same request may succeed soon.
    pub is_store_away: bool,
}

/// Finds out which groups users are in.
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
    /// Returns a directory that uses this Graph client.
    pub fn new(graph: GraphClient) -> Self {
        Self { graph, learnt: Cache::builder().max_capacity(KEPT).expire_after(Lasting).build() }
    }

    /// Returns those of these groups (object ids in lower case) that the user is in. Concurrent callers share one
    /// answer.
    pub async fn among(&self, principal: &Principal, ids: &BTreeSet<String>) -> Learnt {
        let Principal::User(user) = principal else {
            let why = "the groups of an application cannot be looked up".to_owned();
            return Err(Arc::new(Unlearnt { why, sign_in: None, is_store_away: false }));
        };
        // Boxed: the future is large and rarely needed, and would enlarge every request.
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
            tracing::warn!(%error, correlation_id = error.correlation_id(), "cannot look up the groups of a user");
            let (sign_in, is_store_away) = (error.sign_in(), error.is_store_away());
            Arc::new(Unlearnt { sign_in, is_store_away, why: error.told() })
        })
    }
}

/// Makes a key from the whole token. A new token asks again, like a new groups claim.
fn key(user: &User, ids: &BTreeSet<String>) -> Key {
    let mut hash = Sha256::new();
    hash.update(user.assertion.digest());
    for id in ids {
        hash.update([0]);
        hash.update(id);
    }
    hash.finalize().into()
}
