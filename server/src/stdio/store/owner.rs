//! The owner of kept tokens.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Owner of kept tokens: a client of a tenant, at this Entra and for this Graph. They are read for no other.
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
    /// All of it in one text. A line feed separates, since no part has one.
    pub(super) fn text(&self) -> String {
        let Self { authority, graph_url, tenant, client_id } = self;
        format!("{authority}\n{graph_url}\n{tenant}\n{client_id}")
    }

    /// The beginning of the names of files: a hash, which each owner has, and no two the same.
    pub(super) fn stem(&self) -> String {
        let mut stem = hex::encode(Sha256::digest(self.text()));
        stem.truncate(32);
        stem
    }

    /// The name of the key. It begins with the tenant, for people who look at their keys.
    pub(super) fn key_name(&self) -> String {
        format!("{}/{}", self.tenant, self.stem())
    }
}
