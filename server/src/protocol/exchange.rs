//! The facts about a request that the way in tells the protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use mcp_entra_policy::GraphAccess;
use serde_json::Value;

use super::Revision;
use crate::authorize::Permissions;
use crate::offer::Offered;
use crate::token::Principal;

/// A request that has been let in. It travels with the message that was judged; nothing else does.
#[derive(Clone)]
pub struct Exchange {
    /// The caller.
    pub principal: Arc<Principal>,
    /// The caller's permissions, which lists show.
    pub permissions: Permissions,
    /// The snapshot of the offer that the request was decided by. Empty for a request that depends on none.
    pub offered: Arc<Offered>,
    /// The access to Microsoft Graph that the grant gives. Absent where no grant was looked for: then nothing is called.
    pub granted: Option<GraphAccess>,
    /// The revision that the request speaks.
    pub revision: Revision,
    /// Asks the client for input while a call runs. Absent over HTTP.
    pub asks: Option<Asks>,
}

/// Asks a client: requests by name as MCP defines them, and its results by the same names, null where there is none.
pub type Asks = Arc<dyn Fn(BTreeMap<String, Value>) -> BoxFuture<'static, BTreeMap<String, Value>> + Send + Sync>;
