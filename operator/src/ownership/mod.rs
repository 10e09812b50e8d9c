//! Ownership: which server holds a host, a path on it, a client id or an audience, across servers and namespaces.
//!
//! [`claim`] decides by one claim, [`claim_order`] who claims first where there is none, both pure. [`claim_cache`] keeps what the
//! watch shows of all claims, [`claim_writer`] writes them, [`sweep`] frees what nobody holds any longer.

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

/// Shares of a host that a server holds, as far as its children depend on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// The server is the first of its host, so the metadata at the host's root (RFC 9728 §3.1) is its own.
    pub(crate) root: bool,
    /// The earlier server whose listener serves this host at the same Gateway: a Gateway takes one listener a host.
    pub(crate) listener_of: Option<Owner>,
}

/// A value that somebody else holds.
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

    /// The next step. It says nothing of the holder, which may be another team's.
    pub(crate) fn message(self) -> String {
        let (taken, remedy, free_at) = match self {
            Self::Host { free_at } => ("spec.exposure.host is taken", "name another host", free_at),
            Self::Path { free_at } => (
                "spec.exposure.path, or one above or below it, is taken on this host",
                "name another path or another host",
                free_at,
            ),
            Self::ClientId { free_at } => (
                "spec.entra.clientId, or one of spec.entra.audiences, is taken, so each of two servers would accept the other's tokens",
                "name another app registration, or, for servers of one namespace, set spec.entra.sharedClientId to true in both",
                free_at,
            ),
        };
        let wait = free_at.map(|at| format!(", or wait: it becomes free at {at:.0} unless its holder comes back"));
        format!("{taken}; only the policy is applied, and nothing is exposed: {remedy}{}", wait.unwrap_or_default())
    }
}

/// The outcome of a server's demands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It holds every value that it names.
    Held(Held),
    /// Somebody else holds one of them.
    Lost(Lost),
    /// Nobody else is known to hold one of them, and not all are claimed yet.
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

/// Finds a server by namespace and name.
pub(crate) type Named<'a> = &'a (dyn Fn(&str, &str) -> Option<Arc<WatchedServer>> + Sync);

/// The standing of a server by the claims as they are known. Each look-up is by name.
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

/// The answers to all demands of a server.
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

/// The shares of a server that holds everything that it names. `host` is the claim on its host, if it names one.
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

/// Namespace and name of the Gateway to which a server brings a listener of its own.
fn own_listener(server: &McpServer) -> Option<(Option<&str>, &str)> {
    let exposure = server.spec.exposure.as_ref()?;
    let own = exposure.tls.terminated_by_gateway.is_none();
    let parent = exposure.gateway.as_ref().filter(|_| own)?.parent_refs.first()?;
    Some((parent.namespace.as_deref().or(server.metadata.namespace.as_deref()), &parent.name))
}

#[cfg(test)]
mod tests;
