//! The owner of stored tokens.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The owner of stored tokens: a client of a tenant at this Entra and Graph. No other owner can read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Entra's address.
    pub authority: String,
    /// Graph's address.
    pub graph_url: String,
    /// The tenant.
    pub tenant: String,
    /// The client id.
    pub client_id: String,
}

impl Owner {
    /// Returns all parts in one text, separated by line feeds, which no part contains.
    pub(super) fn text(&self) -> String {
        let Self { authority, graph_url, tenant, client_id } = self;
        format!("{authority}\n{graph_url}\n{tenant}\n{client_id}")
    }

    /// Returns the prefix of file names: a hash that is unique for each owner.
    pub(super) fn stem(&self) -> String {
        let mut stem = hex::encode(Sha256::digest(self.text()));
        stem.truncate(32);
        stem
    }

    /// Returns the name of the key. It begins with the tenant, for people who look at their keys.
    pub(super) fn key_name(&self) -> String {
        format!("{}/{}", self.tenant, self.stem())
    }
}
