//! Pods of the stub node. They mount their server's policy and report it on their admin port. As with a kubelet, a pod
//! gets a changed ConfigMap when its own object changes, otherwise within 90 seconds.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::IntoResponse;
use mcp_entra_policy::{
    FederatedIdentity, FederationStatus, GraphStatus, KeysStatus, PolicyStatus, ServerStatus, revision,
};

/// Port of the pods that the operator polls.
const ADMIN_PORT: u16 = 8081;
/// Interval in which a kubelet checks the volumes of an unchanged pod: a minute, plus up to half of it.
const SYNC: Duration = Duration::from_secs(60);
const SPREAD_MILLISECONDS: u64 = 30_000;

/// Pods of the stub node, by address.
#[derive(Clone, Default)]
pub(super) struct Pods(Arc<Mutex<State>>);

/// Namespace and name.
pub(super) type ServerName = (String, String);

#[derive(Default)]
struct State {
    policies: HashMap<ServerName, Arc<str>>,
    pods: HashMap<Ipv4Addr, StubPod>,
    by_uid: HashMap<String, Ipv4Addr>,
    polls: u64,
    polled: HashSet<Ipv4Addr>,
}

struct StubPod {
    server: ServerName,
    /// Annotations of the pod when the kubelet last saw them.
    seen: String,
    enforced: Option<Arc<str>>,
    next_sync: Instant,
}

impl Pods {
    /// Records the state of a pod. Returns the address of a new one.
    pub(super) fn see(&self, uid: &str, server: ServerName, looks: String) -> Option<Ipv4Addr> {
        let mut state = self.lock();
        let policy = state.policies.get(&server).cloned();
        if let Some(address) = state.by_uid.get(uid).copied() {
            if let Some(pod) = state.pods.get_mut(&address).filter(|pod| pod.seen != looks) {
                pod.seen = looks;
                pod.sync(policy);
            }
            return None;
        }
        let address = address(state.pods.len());
        let mut pod = StubPod { server, seen: looks, enforced: None, next_sync: Instant::now() };
        pod.sync(policy);
        pod.next_sync += spread(address);
        state.pods.insert(address, pod);
        state.by_uid.insert(uid.to_owned(), address);
        Some(address)
    }

    /// Records a server's policy. Pods do not see it yet, except those that wait for their first.
    pub(super) fn publish(&self, server: ServerName, document: &str) {
        let mut state = self.lock();
        let document: Arc<str> = document.into();
        for pod in state.pods.values_mut().filter(|pod| pod.server == server && pod.enforced.is_none()) {
            pod.enforced = Some(Arc::clone(&document));
        }
        state.policies.insert(server, document);
    }

    /// Gives the policies of their servers to pods whose last check is long ago.
    pub(super) fn sync(&self) {
        let mut state = self.lock();
        let State { policies, pods, .. } = &mut *state;
        let now = Instant::now();
        for pod in pods.values_mut().filter(|pod| pod.next_sync <= now) {
            pod.sync(policies.get(&pod.server).cloned());
        }
    }

    /// Returns the number of pods that enforce a policy with this name.
    pub(super) fn enforcing(&self, name: &str) -> usize {
        let quoted = format!("\"{name}\"");
        let enforces = |pod: &&StubPod| pod.enforced.as_ref().is_some_and(|document| document.contains(&quoted));
        self.lock().pods.values().filter(enforces).count()
    }

    /// Returns the number of status requests to pods.
    pub(super) fn polls(&self) -> u64 {
        self.lock().polls
    }

    /// Returns the number of pods with requests since [`Pods::forget_polls`].
    pub(super) fn polled(&self) -> usize {
        self.lock().polled.len()
    }

    pub(super) fn forget_polls(&self) {
        self.lock().polled.clear();
    }

    /// Forward proxy to the pods' admin ports.
    pub(super) fn proxy(&self) -> Router {
        let pods = self.clone();
        Router::new().fallback(move |uri: Uri| {
            let answer = pods.answer(&uri);
            async move {
                answer.map_or_else(|| StatusCode::BAD_GATEWAY.into_response(), |said| axum::Json(said).into_response())
            }
        })
    }

    fn answer(&self, uri: &Uri) -> Option<ServerStatus> {
        let asked = uri.port_u16() == Some(ADMIN_PORT) && uri.path() == "/status";
        let address = uri.host().filter(|_| asked)?.parse::<Ipv4Addr>().ok()?;
        let mut state = self.lock();
        let enforced = state.pods.get(&address)?.enforced.clone();
        let (namespace, name) = state.pods.get(&address)?.server.clone();
        state.polls += 1;
        state.polled.insert(address);
        Some(ServerStatus {
            version: "0.1.0".to_owned(),
            policy: PolicyStatus { revision: enforced.map(|document| revision(document.as_bytes())), error: None },
            federation: FederationStatus {
                identity: Some(FederatedIdentity {
                    issuer: "https://issuer.example/".to_owned(),
                    subject: format!("system:serviceaccount:{namespace}:{name}"),
                    audience: "api://AzureADTokenExchange".to_owned(),
                }),
                works: Some(true),
                message: None,
                last_probe: Some("2026-11-25T09:00:00Z".to_owned()),
            },
            keys: KeysStatus { count: 3, age_seconds: Some(60), error: None },
            graph: GraphStatus::default(),
            session_store: None,
            backend: None,
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StubPod {
    fn sync(&mut self, policy: Option<Arc<str>>) {
        self.enforced = policy.or(self.enforced.take());
        self.next_sync = Instant::now() + SYNC;
    }
}

/// Addresses are assigned in order.
fn address(number: usize) -> Ipv4Addr {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 244, 0, 10)).saturating_add(number))
}

/// Pods are checked at different times.
fn spread(address: Ipv4Addr) -> Duration {
    Duration::from_millis(u64::from(u32::from(address)) * 7919 % SPREAD_MILLISECONDS)
}
