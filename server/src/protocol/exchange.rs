//! Facts about a request that the transport passes to the protocol.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use mcp_entra_policy::GraphAccess;
use serde_json::Value;

use super::Revision;
use crate::authorize::Permissions;
use crate::offer::Offered;
use crate::token::Principal;

/// An accepted request. It travels with the decided message, and nothing else does.
#[derive(Clone)]
pub struct Exchange {
    /// The caller.
    pub principal: Arc<Principal>,
    /// The caller's permissions, which determine lists.
    pub permissions: Permissions,
    /// The snapshot of the offer for the decision. Empty for a request that depends on none.
    pub offered: Arc<Offered>,
    /// The grant's access to Microsoft Graph. Absent if no grant was needed: then nothing is called.
    pub granted: Option<GraphAccess>,
    /// The revision of the request.
    pub revision: Revision,
    /// Sends requests to the client while a call runs. Absent over HTTP.
    pub asks: Option<Asks>,
}

/// Function that sends requests to a client by name, as MCP defines them. It returns the results by the same names,
/// null for a missing one.
pub type Asks = Arc<dyn Fn(BTreeMap<String, Value>) -> BoxFuture<'static, BTreeMap<String, Value>> + Send + Sync>;
