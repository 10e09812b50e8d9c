//! Log of requests to the emulator, and the faults that tests inject.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Maximum number of stored requests, sent messages and created events, of each.
const CAPACITY: usize = 4096;

/// Which of the two hosts was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Host {
    /// The authority: metadata, keys, sign-in, tokens.
    Authority,
    /// Microsoft Graph.
    Graph,
}

/// One request and what became of it. No token, code or credential is kept.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LoggedRequest {
    /// Rises by one with every request to this emulator.
    pub sequence: u64,
    /// Which host.
    pub host: Host,
    /// The HTTP method.
    pub method: String,
    /// The path, without its query.
    pub path: String,
    /// The HTTP status of the answer; 0 where there was none: a connection cut by [`FaultKind::Disconnect`] or
    /// [`FaultKind::LoseAnswer`], or a client that gave up before.
    pub status: u16,
    /// The tenant, where the path names one that exists; at Graph, the token's `tid`.
    pub tenant: Option<Uuid>,
    /// `grant_type` of a request to the token endpoint.
    pub grant_type: Option<String>,
    /// The client: `client_id`, or at Graph the token's `appid`.
    pub client: Option<String>,
    /// The user's object id, where one is known.
    pub user: Option<Uuid>,
    /// The client assertion as it was presented, once it could be read.
    pub federated: Option<FederatedIdentity>,
    /// True if the request had a `client_secret` or HTTP Basic credentials.
    pub client_secret_present: bool,
    /// `scope` of a token request; at Graph, the token's scopes or roles.
    pub scopes: Vec<String>,
    /// `claims` of a token request, as it was sent.
    pub claims: Option<String>,
    /// The AADSTS code, where the authority refused.
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

/// The latest of many, oldest first.
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
    /// Those on their way, which are never many.
    open: Vec<(Host, Option<Uuid>)>,
}

impl RequestLog {
    /// A request came.
    pub(crate) fn open(&mut self, seen: &mut Seen) {
        let of = (seen.host, seen.tenant);
        self.open.push(of);
        seen.concurrent = self.open.iter().filter(|open| **open == of).count();
    }

    /// The number of those that are not over.
    pub(crate) fn on_their_way(&self, host: Host, tenant: Uuid) -> usize {
        self.open.iter().filter(|open| **open == (host, Some(tenant))).count()
    }

    /// It is over.
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

/// Answers some requests otherwise than the emulator would.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Which requests.
    #[serde(default)]
    pub matcher: Matcher,
    /// Number of requests that the fault applies to.
    pub times: u32,
    /// Effect on these requests.
    pub kind: FaultKind,
}

/// Which requests a fault is for: those that fit everything that is given.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Matcher {
    /// Which host.
    pub host: Option<Host>,
    /// The tenant: give it where tests share an emulator.
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
    /// Answers with this, and nothing else happens.
    Status {
        /// The HTTP status.
        status: u16,
        /// Headers, e.g. `Retry-After`.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// The body, as it is.
        #[serde(default)]
        body: String,
    },
    /// Waits, then answers as usual.
    Delay {
        /// Duration.
        milliseconds: u64,
    },
    /// Closes the connection instead of answering, under whatever else is on its way on it.
    Disconnect,
    /// Does what is asked, and closes the connection instead of answering, as [`Self::Disconnect`].
    LoseAnswer,
    /// Answers as usual, but for the second half of the body: the connection ends before the announced length.
    Truncate,
    /// Answers, as Graph may, with a page that has no entries and yet a next one: that which was asked for.
    EmptyPage,
    /// Answers as the authority does when it refuses.
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

/// The fault for this request, if there is one; it is used up by one.
pub(crate) fn take_fault(faults: &mut Vec<Fault>, seen: &Seen) -> Option<FaultKind> {
    let fault = faults.iter_mut().find(|fault| fault.times > 0 && fault.matcher.fits(seen))?;
    fault.times -= 1;
    let kind = fault.kind.clone();
    faults.retain(|fault| fault.times > 0);
    Some(kind)
}
