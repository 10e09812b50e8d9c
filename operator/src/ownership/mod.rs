//! Ownership of hosts, paths, client ids and audiences across servers and namespaces.
//!
//! [`claim`] decides with one claim, [`claim_order`] decides which server claims first; both are pure. [`claim_cache`]
//! caches all claims, [`claim_writer`] writes them, [`sweep`] releases unused ones.

pub(crate) mod claim;
pub(crate) mod claim_cache;
mod claim_order;
mod claim_writer;
pub(crate) mod from_manifests;
pub(crate) mod sweep;

use std::{sync::Arc, time::Duration};

use k8s_openapi::jiff::Timestamp;
use mcp_entra_crds::McpServer;

use claim::{Answer, Claim, ClaimKind, Demand, answer, demands};
use claim_cache::Claims;
pub(crate) use claim_order::Contender;
pub(crate) use claim_writer::{Ledger, acquire};

use crate::{conditions::condition::Reason, objects::owner::Owner, watch::stores::WatchedServer};

/// Shares of a host that affect a server's children.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// True if the server is the first on its host, so that it serves the metadata at the host's root (RFC 9728 §3.1).
    pub(crate) root: bool,
    /// The earlier server whose listener serves this host at the same Gateway. A Gateway accepts one listener per host.
    pub(crate) listener_of: Option<Owner>,
}

/// A value that another server holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Host { free_at: Option<Timestamp> },
    Path { free_at: Option<Timestamp> },
    ClientId { free_at: Option<Timestamp> },
}

impl Lost {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Host { .. } => Reason::HostTaken,
            Self::Path { .. } => Reason::PathTaken,
            Self::ClientId { .. } => Reason::ClientIdTaken,
        }
    }

    /// Returns the message with the next step. It does not mention the holder, which may belong to another team.
    pub(crate) fn message(self) -> String {
        let (taken, remedy, free_at) = match self {
            Self::Host { free_at } => ("another server holds spec.exposure.host", "set another host", free_at),
            Self::Path { free_at } => (
                "another server holds spec.exposure.path, or a path above or below it, on this host",
                "set another path or another host",
                free_at,
            ),
            Self::ClientId { free_at } => (
                "another server holds spec.entra.clientId or one of spec.entra.audiences, so each of the two would accept the other's tokens",
                "set another app registration, or, for servers of one namespace, set spec.entra.sharedClientId to true in both",
                free_at,
            ),
        };
        let wait =
            free_at.map(|at| format!(", or wait: it becomes free at {at:.0} unless the other server comes back"));
        format!("{taken}; only the policy is applied, and nothing is exposed: {remedy}{}", wait.unwrap_or_default())
    }
}

/// The result of a server's demands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The server holds every value that it names.
    Held(Held),
    /// Another server holds one of the values.
    Lost(Lost),
    /// No other server is known to hold a value, and not all values are claimed yet.
    #[default]
    Open,
}

impl Standing {
    pub(crate) fn lost(&self) -> Option<Lost> {
        match self {
            Self::Lost(lost) => Some(*lost),
            _ => None,
        }
    }

    pub(crate) fn held(&self) -> Option<&Held> {
        match self {
            Self::Held(held) => Some(held),
            _ => None,
        }
    }
}

/// Returns a server by namespace and name.
pub(crate) type Named<'a> = &'a (dyn Fn(&str, &str) -> Option<Arc<WatchedServer>> + Sync);

/// Returns the standing of a server from the cached claims. Each look-up is by name.
pub(crate) fn standing(claims: &Claims, named: Named<'_>, server: &McpServer, grace: Duration) -> Standing {
    match look(claims, &demands(server), grace) {
        Look::Lost(lost) => Standing::Lost(lost),
        Look::Open => Standing::Open,
        Look::Held => {
            let host = demands(server).into_iter().find(|demand| demand.claimed.kind == ClaimKind::Host);
            let found = host.and_then(|host| claims.get(&host.claimed));
            let claim = found.as_ref().and_then(|found| found.claim.as_ref());
            Standing::Held(held(claims, named, server, claim, grace))
        }
    }
}

/// The combined answer to all demands of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Held,
    Lost(Lost),
    Open,
}

fn look(claims: &Claims, demands: &[Demand], grace: Duration) -> Look {
    let mut look = Look::Held;
    for demand in demands {
        match claims.get(&demand.claimed) {
            Some(found) if found.claim.is_none() => look = Look::Open,
            found => match answer(found.as_ref().and_then(|found| found.claim.as_ref()), demand, grace) {
                Answer::Lost(lost) => return Look::Lost(lost),
                Answer::Write(_) => look = Look::Open,
                Answer::Held => {}
            },
        }
    }
    look
}

/// Returns the shares of a server that holds all its values. `host` is the claim on its host, if it names one.
fn held(claims: &Claims, named: Named<'_>, server: &McpServer, host: Option<&Claim>, grace: Duration) -> Held {
    let Some(claim) = host else { return Held { root: true, listener_of: None } };
    let name = server.metadata.name.as_deref().unwrap_or_default();
    let present = claim.holders.iter().filter(|holder| holder.vacant_since.is_none());
    let mut earlier = present.take_while(|holder| holder.server != name).peekable();
    let root = earlier.peek().is_none();
    if own_listener(server).is_none() {
        return Held { root, listener_of: None };
    }
    let listener_of = earlier.find_map(|holder| {
        let other = named(&claim.namespace, &holder.server)?;
        let other = other.0.as_ref().ok()?;
        let serves = own_listener(server) == own_listener(other) && look(claims, &demands(other), grace) == Look::Held;
        serves.then(|| Owner::of(other).ok()).flatten()
    });
    Held { root, listener_of }
}

/// Returns namespace and name of the Gateway for which a server has its own listener.
fn own_listener(server: &McpServer) -> Option<(Option<&str>, &str)> {
    let exposure = server.spec.exposure.as_ref()?;
    let own = exposure.tls.terminated_by_gateway.is_none();
    let parent = exposure.gateway.as_ref().filter(|_| own)?.parent_refs.first()?;
    Some((parent.namespace.as_deref().or(server.metadata.namespace.as_deref()), &parent.name))
}

#[cfg(test)]
mod tests;
