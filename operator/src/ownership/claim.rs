//! Claims of a namespace and its servers on a host, or on a client id or audience. Pure.
//!
//! Each claimed value is one ConfigMap in the operator's namespace, named by a hash of the value. It is only created,
//! or replaced at the version that was read, so the API server decides between simultaneous claimants.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use mcp_entra_crds::McpServer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Lost;

/// Kinds of values that can be claimed. Client ids and audiences are one kind, because a token can be for either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) enum ClaimKind {
    Host,
    Audience,
}

impl ClaimKind {
    /// Returns the value of the label that selects claims of the kind.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Audience => "audience",
        }
    }
}

/// A normalised value that servers name. Two spellings of one value are one claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ClaimedValue {
    pub(crate) kind: ClaimKind,
    /// The host, or the tenant and the audience.
    pub(crate) value: String,
}

impl ClaimedValue {
    pub(super) fn host(host: &str) -> Self {
        Self { kind: ClaimKind::Host, value: host.to_ascii_lowercase() }
    }

    /// Returns the claimed value of a client id or audience in a tenant. Entra accepts `<client id>` and `api://<client
    /// id>` as the same audience, and ignores case.
    fn audience(tenant_id: &str, audience: &str) -> Self {
        Self { kind: ClaimKind::Audience, value: format!("{tenant_id}/{}", normalised(audience)) }
    }

    /// Returns the name of the claim's ConfigMap.
    pub(crate) fn object_name(&self) -> String {
        let kind = self.kind.label();
        let mut digits = hex::encode(Sha256::digest(format!("{kind}\0{}", self.value)));
        digits.truncate(40);
        format!("claim-{kind}-{digits}")
    }
}

/// Normalises the spelling of an audience.
fn normalised(audience: &str) -> String {
    let lower = audience.to_lowercase();
    let bare = lower.trim_end_matches('/');
    bare.strip_prefix("api://").unwrap_or(bare).to_owned()
}

/// A claim on one value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Claim {
    pub(crate) claimed: ClaimedValue,
    /// The namespace that holds the value.
    pub(crate) namespace: String,
    /// The servers of that namespace that hold it, in the order of their claims.
    pub(crate) holders: Vec<Holder>,
}

/// A server that holds a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Holder {
    /// The name of the McpServer. A server that is created again with this name holds the value again.
    pub(crate) server: String,
    /// The path on a host; absent for an audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// True if the server shares an audience with others, which must allow it, too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) shared: bool,
    /// The time when the server was first seen to be deleted or to name another value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vacant_since: Option<Timestamp>,
}

/// A value that a server needs to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) claimed: ClaimedValue,
    namespace: String,
    server: String,
    path: Option<String>,
    shared: bool,
}

impl Demand {
    /// Returns true if a server's status reports that it holds the value.
    pub(super) fn is_reported_by(&self, server: &McpServer) -> bool {
        let Some(held) = server.status.as_ref().and_then(|status| status.ownership.as_ref()) else { return false };
        let tenant_id = &server.spec.entra.tenant_id;
        match self.claimed.kind {
            ClaimKind::Host => held.host.as_ref().is_some_and(|host| ClaimedValue::host(host) == self.claimed),
            ClaimKind::Audience => {
                held.audiences.iter().any(|audience| ClaimedValue::audience(tenant_id, audience) == self.claimed)
            }
        }
    }
}

/// Returns the values that a server names, its host first.
pub(crate) fn demands(server: &McpServer) -> Vec<Demand> {
    let (namespace, name, entra) = (server.namespace().unwrap_or_default(), server.name_any(), &server.spec.entra);
    let demand = |claimed: ClaimedValue, path: Option<&String>| Demand {
        claimed,
        namespace: namespace.clone(),
        server: name.clone(),
        path: path.cloned(),
        shared: path.is_none() && entra.shared_client_id,
    };
    let exposure = server.spec.exposure.as_ref();
    let host = exposure.map(|exposure| demand(ClaimedValue::host(&exposure.host), Some(&exposure.path)));
    let mut audiences: Vec<ClaimedValue> = std::iter::once(&entra.client_id)
        .chain(&entra.audiences)
        .map(|audience| ClaimedValue::audience(&entra.tenant_id, audience))
        .collect();
    audiences.sort();
    audiences.dedup();
    host.into_iter().chain(audiences.into_iter().map(|claimed| demand(claimed, None))).collect()
}

/// The decision of a claim on a demand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The server holds the value.
    Held,
    /// The server holds the value once this claim is written.
    Write(Claim),
    /// Another server holds it.
    Lost(Lost),
}

/// Decides a demand with the present claim, if there is one.
pub(crate) fn answer(claim: Option<&Claim>, demand: &Demand, grace: Duration) -> Answer {
    let own =
        Holder { server: demand.server.clone(), path: demand.path.clone(), shared: demand.shared, vacant_since: None };
    let Some(claim) = claim else {
        let (claimed, namespace) = (demand.claimed.clone(), demand.namespace.clone());
        return Answer::Write(Claim { claimed, namespace, holders: vec![own] });
    };
    if claim.namespace != demand.namespace {
        let free_at = free_at(claim.holders.iter(), grace);
        return Answer::Lost(match demand.claimed.kind {
            ClaimKind::Host => Lost::Host { free_at },
            ClaimKind::Audience => Lost::ClientId { free_at },
        });
    }
    let position = claim.holders.iter().position(|holder| holder.server == demand.server);
    let keeps_path = position.and_then(|at| claim.holders.get(at)).is_some_and(|holder| holder.path == own.path);
    // A later claimant displaces no other. A holder that changes its path is a later claimant of the new path.
    let before = position.filter(|_| keeps_path).unwrap_or(claim.holders.len());
    let rivals = || {
        let others = claim.holders.iter().take(before).filter(|holder| holder.server != own.server);
        others.filter(|holder| !are_compatible(holder, &own))
    };
    if rivals().next().is_some() {
        let free_at = free_at(rivals(), grace);
        return Answer::Lost(match demand.claimed.kind {
            ClaimKind::Host => Lost::Path { free_at },
            ClaimKind::Audience => Lost::ClientId { free_at },
        });
    }
    let mut written = claim.clone();
    match position.and_then(|at| written.holders.get_mut(at)) {
        Some(holder) if *holder == own => return Answer::Held,
        Some(holder) => *holder = own,
        None => written.holders.push(own),
    }
    Answer::Write(written)
}

/// Returns true if two servers of one namespace can hold a value together.
fn are_compatible(one: &Holder, other: &Holder) -> bool {
    match (&one.path, &other.path) {
        (Some(one), Some(other)) => !overlap(one, other),
        _ => one.shared && other.shared,
    }
}

/// Returns true if one path equals the other or lies below it, by whole elements, as an Ingress matches prefixes.
fn overlap(one: &str, other: &str) -> bool {
    one.split('/').zip(other.split('/')).all(|(one, other)| one == other)
}

/// Returns the time when a value becomes free if no holder comes back; none while a holder is present.
fn free_at<'a>(holders: impl Iterator<Item = &'a Holder>, grace: Duration) -> Option<Timestamp> {
    let grace = SignedDuration::try_from(grace).ok()?;
    let mut last = None;
    for holder in holders {
        last = last.max(Some(holder.vacant_since?.checked_add(grace).ok()?));
    }
    last
}

/// The presence of a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// The server exists and names the value.
    Present,
    /// The server is deleted or names another value, but a route or a pod still uses it.
    Leaving,
    /// Nothing of the server is left.
    Gone,
}

/// A claim after the release of holders that exceeded the grace period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Released {
    Unchanged,
    Changed(Claim),
    /// No server holds the value.
    Empty,
}

/// Records absent holders. Releases those that are absent for the grace period, and those beyond their namespace's
/// limit.
pub(crate) fn release(
    claim: &Claim,
    presence: impl Fn(&Holder) -> Presence,
    is_surplus: impl Fn(&Holder) -> bool,
    now: Timestamp,
    grace: Duration,
) -> Released {
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    let mut changed = claim.clone();
    changed.holders.retain_mut(|holder| {
        holder.vacant_since = match (presence(holder), holder.vacant_since) {
            (Presence::Present | Presence::Leaving, _) => None,
            (Presence::Gone, None) => Some(now),
            (Presence::Gone, since) => since,
        };
        // A clock that was set back must not keep a value forever.
        let is_kept = |since| now.duration_since(since).abs() < grace && !is_surplus(holder);
        holder.vacant_since.is_none_or(is_kept)
    });
    match changed {
        Claim { holders, .. } if holders.is_empty() => Released::Empty,
        changed if changed == *claim => Released::Unchanged,
        changed => Released::Changed(changed),
    }
}

#[cfg(test)]
mod tests;
