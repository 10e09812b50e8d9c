//! Log of requests to the emulator, and the faults that tests inject.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Maximum number of stored requests, sent messages and created events, of each.
const CAPACITY: usize = 4096;

/// Host of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Host {
    /// The authority: metadata, keys, sign-in, tokens.
    Authority,
    /// Microsoft Graph.
    Graph,
}

/// One request with its result. It contains no token, code or credential.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedRequest {
    /// Sequence number of the request in this emulator.
    pub sequence: u64,
    /// Host of the request.
    pub host: Host,
    /// The HTTP method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// HTTP status of the answer. It is 0 without an answer: [`FaultKind::Disconnect`] or [`FaultKind::LoseAnswer`] cut
    /// the connection, or the client disconnected before.
    pub status: u16,
    /// Tenant, if the path names an existing one; at Graph, the token's `tid`.
    pub tenant: Option<Uuid>,
    /// `grant_type` of a request to the token endpoint.
    pub grant_type: Option<String>,
    /// The client: `client_id`, or at Graph the token's `appid`.
    pub client: Option<String>,
    /// Object id of the user, if known.
    pub user: Option<Uuid>,
    /// Client assertion of the request, if it was readable.
    pub federated: Option<FederatedIdentity>,
    /// True if the request had a `client_secret` or HTTP Basic credentials.
    pub client_secret_present: bool,
    /// `scope` of a token request; at Graph, the token's scopes or roles.
    pub scopes: Vec<String>,
    /// `claims` of a token request, as sent.
    pub claims: Option<String>,
    /// AADSTS code, if the authority refused.
    pub aadsts: Option<u32>,
    /// Number of concurrent requests of the same tenant to the same host at arrival, including this one.
    pub concurrent: usize,
}

/// Subject of an external token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FederatedIdentity {
    /// `iss`
    pub issuer: String,
    /// `sub`
    pub subject: String,
    /// `aud`
    pub audience: String,
}

/// Facts about a request that a handler adds to its answer, for the log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Learnt {
    pub(crate) user: Option<Uuid>,
    pub(crate) federated: Option<FederatedIdentity>,
}

/// Facts about a request that the middleware reads before any handler runs.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) host: Host,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) tenant: Option<Uuid>,
    pub(crate) grant_type: Option<String>,
    pub(crate) client: Option<String>,
    pub(crate) user: Option<Uuid>,
    pub(crate) client_secret_present: bool,
    pub(crate) scopes: Vec<String>,
    pub(crate) claims: Option<String>,
    pub(crate) concurrent: usize,
}

/// The latest entries, oldest first.
pub(crate) struct Latest<T>(VecDeque<T>);

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: Clone> Latest<T> {
    pub(crate) fn push(&mut self, entry: T) {
        if self.0.len() == CAPACITY {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    pub(crate) fn list(&self) -> Vec<T> {
        self.0.iter().cloned().collect()
    }
}

/// The latest requests.
#[derive(Default)]
pub(crate) struct RequestLog {
    requests: Latest<LoggedRequest>,
    count: u64,
    /// Open requests, which are always few.
    open: Vec<(Host, Option<Uuid>)>,
}

impl RequestLog {
    /// Records the arrival of a request.
    pub(crate) fn open(&mut self, seen: &mut Seen) {
        let of = (seen.host, seen.tenant);
        self.open.push(of);
        seen.concurrent = self.open.iter().filter(|open| **open == of).count();
    }

    /// Returns the number of open requests.
    pub(crate) fn on_their_way(&self, host: Host, tenant: Uuid) -> usize {
        self.open.iter().filter(|open| **open == (host, Some(tenant))).count()
    }

    /// Records the end of a request.
    pub(crate) fn close(&mut self, seen: Seen, learnt: Learnt, status: u16, aadsts: Option<u32>) {
        if let Some(place) = self.open.iter().position(|open| *open == (seen.host, seen.tenant)) {
            self.open.swap_remove(place);
        }
        self.count += 1;
        self.requests.push(LoggedRequest {
            sequence: self.count,
            host: seen.host,
            method: seen.method,
            path: seen.path,
            status,
            tenant: seen.tenant,
            grant_type: seen.grant_type,
            client: seen.client,
            user: learnt.user.or(seen.user),
            federated: learnt.federated,
            client_secret_present: seen.client_secret_present,
            scopes: seen.scopes,
            claims: seen.claims,
            aadsts,
            concurrent: seen.concurrent,
        });
    }

    pub(crate) fn list(&self) -> Vec<LoggedRequest> {
        self.requests.list()
    }
}

/// Fault: a special answer to some requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Requests that the fault applies to.
    #[serde(default)]
    pub matcher: Matcher,
    /// Number of requests that the fault applies to.
    pub times: u32,
    /// Effect on these requests.
    pub kind: FaultKind,
}

/// Selection of a fault's requests: those that match every given field.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Matcher {
    /// Host of the requests.
    pub host: Option<Host>,
    /// Tenant of the requests. Tests that share an emulator must set it.
    pub tenant: Option<Uuid>,
    /// A part of the path, e.g. `/oauth2/v2.0/token` or `/me/messages`.
    pub path: Option<String>,
    /// `grant_type`, exactly.
    pub grant_type: Option<String>,
}

impl Matcher {
    fn fits(&self, seen: &Seen) -> bool {
        self.host.is_none_or(|host| host == seen.host)
            && self.tenant.is_none_or(|tenant| Some(tenant) == seen.tenant)
            && self.path.as_ref().is_none_or(|part| seen.path.contains(part))
            && (self.grant_type.is_none() || self.grant_type == seen.grant_type)
    }
}

/// Effect of a fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum FaultKind {
    /// Returns this answer, without any effect.
    Status {
        /// The HTTP status.
        status: u16,
        /// Headers, e.g. `Retry-After`.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The exact body.
        #[serde(default)]
        body: String,
    },
    /// Waits, then answers as usual.
    Delay {
        /// Duration.
        milliseconds: u64,
    },
    /// Closes the connection instead of answering. Other requests on the connection end, too.
    Disconnect,
    /// Handles the request, and closes the connection instead of answering, as [`Self::Disconnect`].
    LoseAnswer,
    /// Answers as usual, but sends only the first half of the body. The connection ends before the announced length.
    Truncate,
    /// Answers, as Graph may, with a page without entries and a link to the requested page as the next one.
    EmptyPage,
    /// Answers with a refusal of the authority.
    Aadsts {
        /// The number.
        code: u32,
        /// The HTTP status, 400 if absent.
        #[serde(default = "bad_request")]
        status: u16,
        /// `error`, e.g. `interaction_required`.
        error: String,
        /// The text after `AADSTSn: `.
        message: String,
        /// `suberror`, e.g. `basic_action`.
        #[serde(default)]
        suberror: Option<String>,
        /// `claims`: JSON, as a string.
        #[serde(default)]
        claims: Option<String>,
    },
}

fn bad_request() -> u16 {
    400
}

/// Returns the fault for this request, if there is one. It is used up by one.
pub(crate) fn take_fault(faults: &mut Vec<Fault>, seen: &Seen) -> Option<FaultKind> {
    let fault = faults.iter_mut().find(|fault| fault.times > 0 && fault.matcher.fits(seen))?;
    fault.times -= 1;
    let kind = fault.kind.clone();
    faults.retain(|fault| fault.times > 0);
    Some(kind)
}
