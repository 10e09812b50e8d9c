//! Replicas of a server behind one edge. The test selects the replica of each request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_entra_policy::{AuthorizationServerConfiguration, KeyEpoch, KeyEpochs, Rate, SessionStore};
use mcp_entra_server::serve::Running;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::RwLock;

use super::site::{OAuthSetup, OAuthSite};
use crate::harness::{PATIENCE, replace};
use crate::valkey::Valkey;

/// Largest body of a request, in bytes.
const LONGEST_BODY: usize = 1024 * 1024;

/// Running servers with the same files and one edge.
pub(crate) struct Replicas {
    /// Edge, and the settings of clients. Its own server is in no rotation: no client's request reaches it.
    pub(crate) site: OAuthSite,
    running: Mutex<Vec<Option<Running>>>,
    rotation: Arc<Rotation>,
}

/// The load balancer between the edge and the replicas.
struct Rotation {
    /// Addresses of the replicas that accept requests. Each is held during a request.
    replicas: Vec<RwLock<Option<SocketAddr>>>,
    /// Replica that gets every request. If absent, they take turns.
    chosen: Mutex<Option<usize>>,
    turn: AtomicUsize,
    http: Client,
}

impl Replicas {
    /// Three replicas that share this store.
    pub(crate) async fn new(valkey: &Valkey) -> Self {
        Self::start(with_valkey(valkey).await, 3).await
    }

    /// This number of replicas with this setup.
    pub(crate) async fn start(setup: OAuthSetup, count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let site = setup.start_behind(listener.local_addr().unwrap()).await;
        // A connection for each request: one that a stopped replica had closed would fail the next.
        let http = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).pool_max_idle_per_host(0);
        let rotation = Arc::new(Rotation {
            replicas: Vec::from_iter((0..count).map(|_| RwLock::default())),
            chosen: Mutex::default(),
            turn: AtomicUsize::default(),
            http: http.timeout(PATIENCE).build().unwrap(),
        });
        let router = Router::new().fallback(forward).with_state(Arc::clone(&rotation));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let running = Mutex::new(Vec::from_iter((0..count).map(|_| None)));
        let replicas = Self { site, running, rotation };
        for replica in 0..count {
            replicas.launch(replica).await;
        }
        replicas
    }

    /// Sends every request to this replica from now on.
    pub(crate) fn lead_to(&self, replica: usize) {
        *self.rotation.chosen.lock().unwrap() = Some(replica);
    }

    /// Sends requests to the running replicas in turn from now on.
    pub(crate) fn balance(&self) {
        *self.rotation.chosen.lock().unwrap() = None;
    }

    /// Starts a replica with the current files.
    pub(crate) async fn launch(&self, replica: usize) {
        let running = self.site.site.another().await;
        *self.rotation.replicas[replica].write().await = Some(running.address());
        self.running.lock().unwrap()[replica] = Some(running);
    }

    /// Stops a replica after it has answered its open requests. It gets no new ones.
    pub(crate) async fn stop(&self, replica: usize) {
        *self.rotation.replicas[replica].write().await = None;
        let running = self.running.lock().unwrap()[replica].take().unwrap();
        running.shutdown().await;
    }

    /// Restarts one replica after another.
    pub(crate) async fn roll(&self) {
        for replica in 0..self.count() {
            self.stop(replica).await;
            self.launch(replica).await;
        }
    }

    /// Restarts every replica after all have stopped.
    pub(crate) async fn restart(&self) {
        for replica in 0..self.count() {
            self.stop(replica).await;
        }
        for replica in 0..self.count() {
            self.launch(replica).await;
        }
    }

    /// Sets the configuration of replicas that start from now on.
    pub(crate) fn configure(&self, change: impl FnOnce(&mut AuthorizationServerConfiguration)) {
        let setup = &self.site.site.setup;
        let mut configuration = setup.configuration.clone();
        change(configuration.authorization_server.as_mut().unwrap());
        replace(&setup.file("config.yaml"), serde_yaml::to_string(&configuration).unwrap().as_bytes());
    }

    /// Returns the status of a request with this access token that needs nothing from Graph.
    pub(crate) async fn ping(&self, token: &str) -> u16 {
        self.site.site.rpc(token, "ping", json!({})).await.status().as_u16()
    }

    /// Returns the answer to a call that reads the user from Graph.
    pub(crate) async fn call(&self, token: &str) -> reqwest::Response {
        self.site.site.call(token, "get_user_details", json!({})).await
    }

    fn count(&self) -> usize {
        self.running.lock().unwrap().len()
    }
}

/// Keys for [`Replicas::configure`]: the epoch of registrations, and each epoch with its time.
pub(crate) fn keys(registration: u32, epochs: &[(u32, i64)]) -> KeyEpochs {
    let epochs = epochs.iter().map(|&(number, used_from)| KeyEpoch { number, used_from }).collect();
    KeyEpochs { registration, epochs, after_compromise: None }
}

/// The header (0) or the claims (1) of an access token.
pub(crate) fn part_of_token(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// A store that replicas share. It does not wait for the disk, which may be busy for longer than the limit of a
/// command.
pub(crate) async fn shared_store() -> Valkey {
    Valkey::start_with(&["--appendfsync", "no"]).await
}

/// A server with its sessions in this store.
pub(crate) async fn with_valkey(valkey: &Valkey) -> OAuthSetup {
    let mut setup = OAuthSetup::new().await;
    setup.server().session_store = SessionStore::Valkey(valkey.configuration());
    // These tests call continuously.
    setup.setup.configuration.rate_limit.per_user = Rate { requests: 100_000, per_seconds: 60 };
    let folder = setup.setup.tenant.path();
    let ca = folder.join("store-ca.pem");
    std::fs::write(&ca, &valkey.ca).unwrap();
    setup.setup.oauth.store_ca = Some(ca);
    setup.setup.oauth.store_password = Some(valkey.password_file());
    setup
}

impl Rotation {
    /// Returns the replicas in the order of attempts.
    fn candidates(&self) -> Vec<&RwLock<Option<SocketAddr>>> {
        if let Some(chosen) = *self.chosen.lock().unwrap() {
            return vec![&self.replicas[chosen]];
        }
        let mut all = Vec::from_iter(&self.replicas);
        all.rotate_left(self.turn.fetch_add(1, Ordering::Relaxed) % self.replicas.len());
        all
    }
}

/// Forwards a request to a replica that accepts it.
async fn forward(State(rotation): State<Arc<Rotation>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, LONGEST_BODY).await.unwrap();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        parts.headers.remove(name);
    }
    for replica in rotation.candidates() {
        let held = replica.read().await;
        let Some(address) = *held else { continue };
        let url = format!("http://{address}{}", parts.uri);
        let request = rotation.http.request(parts.method.clone(), url).headers(parts.headers.clone());
        return passed_back(request.body(body).send().await.unwrap()).await;
    }
    (StatusCode::BAD_GATEWAY, "no replica runs").into_response()
}

async fn passed_back(answer: reqwest::Response) -> Response {
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH] {
        headers.remove(name);
    }
    (status, headers, Body::from(answer.bytes().await.unwrap())).into_response()
}
