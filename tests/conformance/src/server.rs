//! Server under test: the product's own stages, behind an emulated Entra, with the fixtures as its offer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::header;
use entra_emulator::issuer::Issuer;
use entra_emulator::{
    App, AppRole, Configuration, EntraEmulator, FederatedCredential, MemberType, RoleAssignment, Tenant, User,
};
use mcp_entra_policy::{
    AuditConfiguration, CallerKind, CompiledPolicy, EntraConfiguration, Grant, GraphAccess, GraphConfiguration,
    GroupsSource, MappingReference, Pattern, Primitives, ProbeConfiguration, Rate, RateLimitConfiguration,
    Requirements, ServerConfiguration, ServerReference, Subject, TokenVersion,
};
use mcp_entra_server::entra::FederatedToken;
use mcp_entra_server::oauth::start::Files;
use mcp_entra_server::serve::{self, Running};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::fixtures::Fixtures;
use crate::proxy;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const SUBJECT: &str = "system:serviceaccount:productivity:graph";
const SCOPE: &str = "mcp.access";
const ROLE: &str = "Mcp.Reader";
const ALICE: &str = "alice@contoso.com";
/// Timeout of the server's start, and of one of our requests.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running server, which ends with the process.
pub(crate) struct Server {
    /// URL for the suite: the proxy's.
    pub(crate) url: String,
    host: String,
    running: Running,
    _emulator: EntraEmulator,
    _issuer: Issuer,
    _folder: TempDir,
}

/// Client IDs, and the tenant's id.
struct Ids {
    tenant: Uuid,
    server: Uuid,
    client: Uuid,
}

impl Server {
    /// Starts the parts, and waits until the server is ready.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let host = listener.local_addr()?.to_string();
        let url = format!("http://{host}/mcp");
        let emulator = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await?;
        let issuer = Issuer::start().await?;
        emulator.control().trust_ca_pem(&issuer.ca_pem)?;
        let ids = register(&emulator, &issuer)?;
        let folder = tempfile::tempdir()?;
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("token"), issuer.token(SUBJECT, AUDIENCE)?)?;
        std::fs::write(file("ca.pem"), emulator.ca_pem())?;
        std::fs::write(file("config.yaml"), serde_yaml::to_string(&configuration(&emulator, &ids, &host))?)?;
        std::fs::write(file("policy.json"), serde_json::to_string(&policy())?)?;
        let options = serve::Options {
            config: file("config.yaml"),
            policy: file("policy.json"),
            trust_bundle: Some(file("ca.pem")),
            oauth: Files::default(),
            listen: ([127, 0, 0, 1], 0).into(),
            backend_socket: None,
            admin_listen: ([127, 0, 0, 1], 0).into(),
            drain: Duration::ZERO,
        };
        let token = FederatedToken::at(file("token"));
        let audit = Box::new(std::io::sink());
        let offer = |_, _: &_, _| Arc::new(Fixtures::new()) as _;
        let running = serve::start_offering(options, token, audit, offer).await?;
        ready(running.admin_address()).await?;
        proxy::spawn(listener, running.address(), &bearer_token(&emulator, &ids)?)?;
        Ok(Self { url, host, running, _emulator: emulator, _issuer: issuer, _folder: folder })
    }

    /// Checks that only the proxy's token gives access: a request without the proxy is refused, and the same request
    /// through it is answered.
    pub(crate) async fn is_authenticated(&self) -> anyhow::Result<()> {
        let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
        let past = format!("http://{}/mcp", self.running.address());
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
        let ask = async |url: &str| {
            let request = http.post(url).header(header::HOST, &self.host).body(body.clone());
            request.header(header::CONTENT_TYPE, "application/json").send().await
        };
        let refused = ask(&past).await?;
        ensure!(refused.status() == 401, "a request without a token is answered with {}", refused.status());
        ensure!(refused.headers().contains_key(header::WWW_AUTHENTICATE), "the 401 has no challenge");
        let answered = ask(&self.url).await?;
        ensure!(answered.status() == 200, "a request through the proxy is answered with {}", answered.status());
        let list: Value = answered.json().await?;
        ensure!(list.pointer("/result/tools/0").is_some(), "the user is granted nothing: {list}");
        Ok(())
    }
}

/// Adds a tenant with the server's registration and alice, who has the role.
fn register(emulator: &EntraEmulator, issuer: &Issuer) -> anyhow::Result<Ids> {
    let [tenant, server, client] = [(); 3].map(|()| Uuid::new_v4());
    let alice = User { oid: Uuid::new_v4(), user_principal_name: ALICE.to_owned(), ..User::default() };
    let credential = FederatedCredential {
        name: "graph".to_owned(),
        issuer: issuer.url.clone(),
        subject: SUBJECT.to_owned(),
        audience: AUDIENCE.to_owned(),
    };
    let registration = App {
        client_id: server,
        identifier_uris: vec![format!("api://{server}")],
        scopes: vec![SCOPE.to_owned()],
        app_roles: vec![AppRole { value: ROLE.to_owned(), allowed_member_types: vec![MemberType::User] }],
        pre_authorized_clients: vec![client],
        federated_credentials: vec![credential],
        granted_graph_scopes: vec!["User.Read".to_owned()],
        role_assignments: vec![RoleAssignment { principal: alice.oid, role: Some(ROLE.to_owned()) }],
        ..App::default()
    };
    let public = App { client_id: client, public_client: true, ..App::default() };
    let apps = vec![registration, public];
    emulator.control().add_tenant(Tenant { id: tenant, apps, users: vec![alice], ..Tenant::default() })?;
    Ok(Ids { tenant, server, client })
}

fn bearer_token(emulator: &EntraEmulator, ids: &Ids) -> anyhow::Result<String> {
    let scope = format!("api://{}/{SCOPE}", ids.server);
    let claims = emulator.control().user_claims(ids.tenant, ids.client, ALICE, &scope)?;
    emulator.control().sign(ids.tenant, &json!({}), &json!(claims))
}

/// The proxy represents an edge that terminates TLS. The suite is a client without TLS, and so is its origin.
fn configuration(emulator: &EntraEmulator, ids: &Ids, host: &str) -> ServerConfiguration {
    ServerConfiguration {
        server: ServerReference { namespace: "productivity".to_owned(), name: "graph".to_owned() },
        public_url: Some(format!("https://{host}/mcp")),
        path: "/mcp".to_owned(),
        entra: EntraConfiguration {
            tenant_id: ids.tenant.to_string(),
            client_id: ids.server.to_string(),
            authority: emulator.authority().to_owned(),
            audiences: vec![],
            required_scopes: vec![SCOPE.to_owned()],
            allowed_clients: vec![],
            token_versions: TokenVersion::by_default(),
            groups: GroupsSource::InToken,
        },
        graph: GraphConfiguration {
            base_url: emulator.graph().to_owned(),
            scopes: vec!["User.Read".to_owned()],
            tools: vec![],
            access: GraphAccess::OnBehalfOf,
        },
        probe: ProbeConfiguration { interval_seconds: 3600 },
        rate_limit: RateLimitConfiguration { per_user: Rate { requests: 1_000_000, per_seconds: 1 } },
        audit: AuditConfiguration::default(),
        trusted_proxies: vec![],
        allowed_origins: vec![format!("http://{host}")],
        authorization_server: None,
        backend: None,
    }
}

/// Grants all fixtures to the role.
fn policy() -> CompiledPolicy {
    let everything = || vec![Pattern("*".to_owned())];
    let grant = Grant {
        mapping: MappingReference { namespace: None, name: "readers".to_owned() },
        name: "all".to_owned(),
        registration: None,
        to: vec![Subject::AppRole { role: ROLE.to_owned(), callers: [CallerKind::User].into() }],
        require: Requirements::default(),
        graph: GraphAccess::OnBehalfOf,
        allow: Primitives { tools: everything(), prompts: everything(), resources: everything() },
    };
    CompiledPolicy { denies: vec![], grants: vec![grant], ..CompiledPolicy::default() }
}

/// Waits until the server reports that it is ready.
async fn ready(admin: SocketAddr) -> anyhow::Result<()> {
    let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let asked = async {
        while !http.get(format!("http://{admin}/readyz")).send().await?.status().is_success() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, asked).await.context("the server is not ready")?
}
