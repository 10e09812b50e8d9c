//! State of a running emulator: its tenants and their keys, unused codes and refresh tokens, browser sessions,
//! consents, log, faults and clock.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    calendar::CreatedEvent,
    claims::Session,
    configuration::{App, FederatedCredential, Tenant},
    consent::Consents,
    device::DeviceCode,
    errors::Aadsts,
    keys::SigningKey,
    log::{Fault, Host, Latest, RequestLog},
    mail::SentMessage,
    resource::Resource,
    session::BrowserSession,
    tls::Door,
};

/// Timeout for each of the two answers of a federated issuer.
const FEDERATION_TIME_OUT: Duration = Duration::from_secs(5);
const TENANT_LIMIT: usize = 10_000;
const GRANT_LIMIT: usize = 10_000;
const FAULT_LIMIT: usize = 1_000;
/// Maximum number of published keys, including replaced ones.
const KEY_LIMIT: usize = 6;

/// State shared by both hosts and every [`crate::Control`].
pub(crate) struct Shared {
    /// `https://localhost:PORT`
    pub(crate) authority: String,
    /// `https://localhost:PORT`
    pub(crate) graph: String,
    pub(crate) ca_pem: String,
    /// Key of Microsoft's tenant for personal accounts, published beside each tenant's own keys. A token that it signs
    /// for another tenant verifies, and is still invalid.
    pub(crate) consumers_key: Arc<SigningKey>,
    initial_keys: Vec<Arc<SigningKey>>,
    /// Key of every application with its own key. It is published in requests for that application's keys.
    applications_key: Arc<SigningKey>,
    clock_offset: AtomicI64,
    issued: AtomicU64,
    authority_door: Door,
    graph_door: Door,
    state: Mutex<State>,
}

/// Mutable state behind the only lock, which is never held across an await.
pub(crate) struct State {
    tenants: HashMap<Uuid, Arc<TenantState>>,
    pub(crate) codes: Bounded<Code>,
    pub(crate) device_codes: Bounded<DeviceCode>,
    pub(crate) refresh_tokens: Bounded<RefreshToken>,
    pub(crate) sessions: Bounded<BrowserSession>,
    pub(crate) consents: Consents,
    pub(crate) log: RequestLog,
    pub(crate) sent: Latest<SentMessage>,
    pub(crate) created: Latest<CreatedEvent>,
    faults: Vec<Fault>,
    trusted: Vec<reqwest::Certificate>,
    federation_client: reqwest::Client,
}

/// One tenant with its state beyond the configuration.
#[derive(Clone)]
pub(crate) struct TenantState {
    pub(crate) directory: Tenant,
    /// Published keys; the first one signs.
    pub(crate) keys: Vec<Arc<SigningKey>>,
    /// Key for the tokens of applications with their own key.
    pub(crate) applications_key: Arc<SigningKey>,
    revoked: HashMap<Uuid, Revocation>,
    /// Effective federated credentials by client, while changes do not propagate.
    held_credentials: Option<HashMap<Uuid, Vec<FederatedCredential>>>,
}

/// Revocation of a user's tokens.
#[derive(Clone, Copy)]
struct Revocation {
    /// Number of the last void token.
    issue: u64,
    /// Seconds since 1970.
    at: i64,
}

impl TenantState {
    /// Time at which the user's token of this number was voided, if it was.
    pub(crate) fn revoked_at(&self, user: Uuid, issue: u64) -> Option<i64> {
        self.revoked.get(&user).filter(|last| issue <= last.issue).map(|last| last.at)
    }

    /// Returns the effective federated credentials of an app of this tenant.
    pub(crate) fn credentials<'t>(&'t self, app: &'t App) -> &'t [FederatedCredential] {
        match &self.held_credentials {
            None => &app.federated_credentials,
            Some(held) => held.get(&app.client_id).map(Vec::as_slice).unwrap_or_default(),
        }
    }

    pub(crate) fn key(&self, kid: &str) -> Option<&Arc<SigningKey>> {
        self.keys.iter().chain([&self.applications_key]).find(|key| key.kid == kid)
    }

    pub(crate) fn signing_key(&self) -> anyhow::Result<&Arc<SigningKey>> {
        self.keys.first().context("a tenant has keys")
    }

    /// An access token for this resource, signed as the resource's tokens are.
    pub(crate) fn sign(&self, resource: Resource<'_>, claims: &Value) -> anyhow::Result<String> {
        match resource {
            Resource::Graph => self.signing_key()?.sign_for_graph(claims),
            Resource::App(app) => {
                let key = if app.own_signing_key { &self.applications_key } else { self.signing_key()? };
                key.sign(&key.header(), claims)
            }
        }
    }
}

/// Data of an authorization code.
#[derive(Clone)]
pub(crate) struct Code {
    pub(crate) tenant: Uuid,
    pub(crate) client: Uuid,
    pub(crate) user: Uuid,
    pub(crate) redirect_uri: String,
    /// Requested scopes, possibly of several resources.
    pub(crate) scope: String,
    pub(crate) challenge: Option<Challenge>,
    pub(crate) nonce: Option<String>,
    pub(crate) claims: Option<String>,
    pub(crate) issue: u64,
    /// Seconds since 1970.
    pub(crate) expires: i64,
    pub(crate) redeemed: bool,
}

/// PKCE (RFC 7636 §4.2).
#[derive(Clone)]
pub(crate) enum Challenge {
    Sha256(String),
    Plain(String),
}

/// Data of a refresh token.
#[derive(Clone)]
pub(crate) struct RefreshToken {
    pub(crate) tenant: Uuid,
    pub(crate) client: Uuid,
    pub(crate) user: Uuid,
    pub(crate) scope: String,
    /// Requirements that the sign-in met.
    pub(crate) session: Session,
    pub(crate) issue: u64,
    /// Seconds since 1970.
    pub(crate) expires: i64,
}

impl Shared {
    pub(crate) fn new(authority: String, graph: String, ca_pem: String) -> anyhow::Result<Self> {
        let own = reqwest::Certificate::from_pem(ca_pem.as_bytes())?;
        let trusted = vec![own];
        Ok(Self {
            authority,
            graph,
            ca_pem,
            consumers_key: SigningKey::generate()?,
            initial_keys: (0..3).map(|_| SigningKey::generate()).collect::<Result<_, _>>()?,
            applications_key: SigningKey::generate()?,
            clock_offset: AtomicI64::new(0),
            issued: AtomicU64::new(0),
            authority_door: Door::default(),
            graph_door: Door::default(),
            state: Mutex::new(State {
                tenants: HashMap::new(),
                codes: Bounded::default(),
                device_codes: Bounded::default(),
                refresh_tokens: Bounded::default(),
                sessions: Bounded::default(),
                consents: Consents::default(),
                log: RequestLog::default(),
                sent: Latest::default(),
                created: Latest::default(),
                faults: Vec::new(),
                federation_client: federation_client(&trusted)?,
                trusted,
            }),
        })
    }

    /// No code panics while it holds the lock, and the state is valid after every statement.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn door(&self, host: Host) -> &Door {
        match host {
            Host::Authority => &self.authority_door,
            Host::Graph => &self.graph_door,
        }
    }

    /// Seconds since 1970, by the emulator's clock.
    pub(crate) fn now(&self) -> i64 {
        jiff::Timestamp::now().as_second() + self.clock_offset.load(Ordering::Relaxed)
    }

    pub(crate) fn advance_clock(&self, seconds: i64) {
        self.clock_offset.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Numbers every token, so that a revocation can separate earlier and later tokens within one second.
    pub(crate) fn next_issue(&self) -> u64 {
        self.issued.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn add_tenant(&self, directory: Tenant) -> anyhow::Result<()> {
        directory.validate().with_context(|| format!("tenant {}", directory.id))?;
        let mut state = self.lock();
        ensure!(!state.tenants.contains_key(&directory.id), "the tenant {} exists already", directory.id);
        ensure!(state.tenants.len() < TENANT_LIMIT, "no more than {TENANT_LIMIT} tenants");
        state.tenants.insert(
            directory.id,
            Arc::new(TenantState {
                directory,
                keys: self.initial_keys.clone(),
                applications_key: Arc::clone(&self.applications_key),
                revoked: HashMap::new(),
                held_credentials: None,
            }),
        );
        Ok(())
    }

    pub(crate) fn tenant(&self, id: Uuid) -> Option<Arc<TenantState>> {
        self.lock().tenants.get(&id).cloned()
    }

    /// Finds a tenant by id or by domain.
    pub(crate) fn find_tenant(&self, name: &str) -> Option<Arc<TenantState>> {
        if let Ok(id) = Uuid::parse_str(name) {
            return self.tenant(id);
        }
        let named = |tenant: &&Arc<TenantState>| {
            let domains = &tenant.directory.domains;
            domains.iter().any(|domain| domain.eq_ignore_ascii_case(name))
        };
        self.lock().tenants.values().find(named).cloned()
    }

    /// Tenant that a path names. `common` and `organizations` name none: every app here has a single tenant.
    pub(crate) fn concrete_tenant(&self, name: &str) -> Result<Arc<TenantState>, Aadsts> {
        self.find_tenant(name).ok_or_else(|| Aadsts::TenantUnknown(name.to_owned()))
    }

    /// Changes one tenant's directory, or nothing if `change` fails.
    pub(crate) fn change_tenant<T>(
        &self,
        id: Uuid,
        change: impl FnOnce(&mut Tenant) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut state = self.lock();
        let tenant = state.tenants.get_mut(&id).with_context(|| format!("no tenant {id}"))?;
        let mut changed = TenantState::clone(tenant);
        let result = change(&mut changed.directory)?;
        *tenant = Arc::new(changed);
        Ok(result)
    }

    pub(crate) fn revoke(&self, tenant: Uuid, user: Uuid) -> anyhow::Result<()> {
        let last = Revocation { issue: self.issued.load(Ordering::Relaxed), at: self.now() };
        let mut state = self.lock();
        let tenant = state.tenants.get_mut(&tenant).context("no such tenant")?;
        Arc::make_mut(tenant).revoked.insert(user, last);
        Ok(())
    }

    pub(crate) fn hold_propagation(&self, tenant: Uuid, hold: bool) -> anyhow::Result<()> {
        let mut state = self.lock();
        let tenant = Arc::make_mut(state.tenants.get_mut(&tenant).context("no such tenant")?);
        let apps = tenant.directory.apps.iter();
        tenant.held_credentials =
            hold.then(|| apps.map(|app| (app.client_id, app.federated_credentials.clone())).collect());
        Ok(())
    }

    pub(crate) fn roll_signing_key(&self, tenant: Uuid) -> anyhow::Result<()> {
        let key = SigningKey::generate()?;
        let mut state = self.lock();
        let tenant = state.tenants.get_mut(&tenant).context("no such tenant")?;
        let keys = &mut Arc::make_mut(tenant).keys;
        keys.insert(0, key);
        keys.truncate(KEY_LIMIT);
        Ok(())
    }

    pub(crate) fn withdraw_old_signing_keys(&self, tenant: Uuid) -> anyhow::Result<()> {
        let mut state = self.lock();
        let tenant = state.tenants.get_mut(&tenant).context("no such tenant")?;
        Arc::make_mut(tenant).keys.truncate(1);
        Ok(())
    }

    pub(crate) fn trust(&self, pem: &str) -> anyhow::Result<()> {
        let added =
            reqwest::Certificate::from_pem_bundle(pem.as_bytes()).context("not a PEM bundle of certificates")?;
        let mut state = self.lock();
        state.trusted.extend(added);
        state.federation_client = federation_client(&state.trusted)?;
        Ok(())
    }

    pub(crate) fn federation_client(&self) -> reqwest::Client {
        self.lock().federation_client.clone()
    }
}

impl State {
    pub(crate) fn add_fault(&mut self, fault: Fault) -> anyhow::Result<()> {
        ensure!(self.faults.len() < FAULT_LIMIT, "no more than {FAULT_LIMIT} faults at a time");
        self.faults.push(fault);
        Ok(())
    }

    pub(crate) fn faults(&mut self) -> &mut Vec<Fault> {
        &mut self.faults
    }
}

/// Trusts only the configured authorities, and only connects to the issuers of credentials.
fn federation_client(trusted: &[reqwest::Certificate]) -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder()
        .tls_certs_only(trusted.iter().cloned())
        .https_only(true)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(FEDERATION_TIME_OUT)
        .timeout(FEDERATION_TIME_OUT)
        .build()?)
}

/// A map with a maximum size, which forgets its oldest entries.
pub(crate) struct Bounded<V> {
    entries: HashMap<String, V>,
    order: VecDeque<String>,
}

impl<V> Default for Bounded<V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), order: VecDeque::new() }
    }
}

impl<V> Bounded<V> {
    pub(crate) fn insert(&mut self, key: String, value: V) {
        if self.order.len() == GRANT_LIMIT
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.entries.insert(key, value);
    }

    pub(crate) fn get(&self, key: &str) -> Option<&V> {
        self.entries.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub(crate) fn remove(&mut self, key: &str) {
        if self.entries.remove(key).is_some() {
            self.order.retain(|known| known != key);
        }
    }

    pub(crate) fn find_mut(&mut self, is_it: impl Fn(&V) -> bool) -> Option<&mut V> {
        self.entries.values_mut().find(|value| is_it(value))
    }
}
