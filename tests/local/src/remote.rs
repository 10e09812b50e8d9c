//! Server behind HTTPS whose URL MCP clients get, and the user who signs in to it.

use std::fs;
use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Context, ensure};
use entra_emulator::edge::Edge;
use entra_emulator::issuer::Issuer;
use entra_emulator::sign_in::{Browser, Page};
use entra_emulator::{App, AppRole, FederatedCredential, MemberType, RoleAssignment};
use mcp_entra_policy::{
    AuditConfiguration, AuthorizationServerConfiguration, BUILT_IN_TOOLS, BuiltInTool, ClientRegistration,
    EntraConfiguration, GraphAccess, GraphConfiguration, GroupsSource, KeyEpoch, KeyEpochs, ProbeConfiguration,
    RateLimitConfiguration, ServerConfiguration, ServerReference, SessionStore, TokenVersion,
};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use url::Url;
use uuid::Uuid;

use crate::world::{ALICE, PATIENCE, World};

/// Service account of the server, and audience of its tokens.
const SUBJECT: &str = "system:serviceaccount:productivity:graph";
const AUDIENCE: &str = "api://AzureADTokenExchange";
/// App role that the server grants its tools to.
const ROLE: &str = "Mcp.Reader";

/// Place where clients sign users in.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum SignIn {
    /// Nowhere: clients get a token. The server offers everything.
    Elsewhere,
    /// At the server's own authorization server.
    Here,
    /// At Entra, as this client.
    AtEntra,
}

/// A running server; it ends with this value.
pub(crate) struct Remote {
    /// URL that clients are given.
    pub(crate) url: String,
    /// HTTP client that trusts the server.
    pub(crate) http: Client,
    /// Browser of alice.
    browser: Browser,
    authority: String,
    /// App registration of the server.
    app: Uuid,
    _edge: Edge,
    _issuer: Issuer,
    _child: Child,
}

impl Remote {
    /// Starts a server for the world's tenant, and waits until it is ready.
    pub(crate) async fn start(world: &World<'_>, sign_in: SignIn) -> anyhow::Result<Self> {
        let (edge, issuer) = (Edge::start().await?, Issuer::start().await?);
        let url = format!("{}/mcp", edge.origin);
        let emulator = &world.lane.emulator;
        emulator.control().trust_ca_pem(&issuer.ca_pem)?;
        let app = register(world, &url, &issuer.url, &graph(sign_in))?;
        fs::write(world.file("token"), issuer.token(SUBJECT, AUDIENCE)?)?;
        fs::write(world.file("trusted.pem"), format!("{}{}", edge.ca_pem, emulator.ca_pem()))?;
        let configuration = serde_yaml::to_string(&configuration(world, app, &url, sign_in))?;
        fs::write(world.file("config.yaml"), configuration)?;
        set_policy(world, &json!({ "tools": ["*"], "prompts": ["*"], "resources": ["*"] }))?;
        fs::create_dir(world.file("keys"))?;
        fs::write(world.file("keys/1"), [1; 64])?;

        let (child, address) = spawn(world).await?;
        edge.lead_to(address);
        let http = Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(edge.ca_pem.as_bytes())?])
            .no_proxy()
            .timeout(PATIENCE)
            .build()?;
        let browser = Browser::trusting(&[emulator.ca_pem(), &edge.ca_pem])?;
        let authority = emulator.authority().to_owned();
        Ok(Self { url, http, browser, authority, app, _edge: edge, _issuer: issuer, _child: child })
    }

    /// Token of alice for the server, as Entra issues it to the world's client.
    pub(crate) fn token(&self, world: &World<'_>) -> anyhow::Result<String> {
        let control = world.lane.emulator.control();
        let scope = format!("api://{}/mcp.access", self.app);
        let claims = control.user_claims(world.tenant, world.client, ALICE, &scope)?;
        control.sign(world.tenant, &json!({}), &Value::Object(claims))
    }

    /// Follows alice's way from this address. She approves the client of this name, and signs in if Entra asks her. It
    /// ends at a page of the client.
    pub(crate) async fn approve(&self, url: &Url, client: &str) -> anyhow::Result<()> {
        let consent = self.browser.open(url.as_str()).await?.page()?;
        let text = consent.text()?;
        ensure!(consent.status == 200 && text.contains(client), "{client} is not named: {text}");
        let page = self.sign_in(consent.press("approve").await?.page()?).await?;
        ensure!(page.url.scheme() == "http" && page.status == 200, "{} ({}): {}", page.url, page.status, page.text()?);
        Ok(())
    }

    /// Follows alice's way from this address of Entra, which ends at a page of the client.
    pub(crate) async fn sign_in_at_entra(&self, url: &Url) -> anyhow::Result<()> {
        let page = self.sign_in(self.browser.open(url.as_str()).await?.page()?).await?;
        ensure!(page.url.scheme() == "http" && page.status == 200, "{} ({}): {}", page.url, page.status, page.text()?);
        Ok(())
    }

    /// Ends all sessions of alice on their page.
    pub(crate) async fn end_sessions(&self) -> anyhow::Result<()> {
        let page = self.browser.open(&format!("{}/sessions", self.url)).await?.page()?;
        let page = self.sign_in(page).await?;
        let after = page.press("true").await?.page()?;
        ensure!(after.status == 200 && after.forms()?.is_empty(), "sessions are left: {}", after.text()?);
        Ok(())
    }

    async fn sign_in(&self, page: Page) -> anyhow::Result<Page> {
        // Entra remembers the user who has signed in in this browser.
        if page.url.as_str().starts_with(&self.authority) { page.sign_in(ALICE).await?.page() } else { Ok(page) }
    }
}

/// Adds the server's app registration to the world's tenant. Returns its client ID.
fn register(world: &World<'_>, url: &str, issuer: &str, graph: &GraphConfiguration) -> anyhow::Result<Uuid> {
    let client_id = Uuid::new_v4();
    let credential = FederatedCredential {
        name: "graph-server".to_owned(),
        issuer: issuer.to_owned(),
        subject: SUBJECT.to_owned(),
        audience: AUDIENCE.to_owned(),
    };
    world.lane.emulator.control().change_tenant(world.tenant, |tenant| {
        let alice = tenant.find_user(ALICE).map(|user| user.oid).unwrap_or_default();
        // Entra accepts any port there, and no other path.
        for client in &mut tenant.apps {
            client.redirect_uris.push("http://localhost/oauth/callback".to_owned());
        }
        tenant.apps.push(App {
            client_id,
            display_name: "graph server".to_owned(),
            // The URL is an identifier of the app, since clients that sign in at Entra use it as the resource (RFC
            // 8707).
            identifier_uris: vec![format!("api://{client_id}"), url.to_owned()],
            scopes: vec!["mcp.access".to_owned()],
            app_roles: vec![AppRole { value: ROLE.to_owned(), allowed_member_types: vec![MemberType::User] }],
            redirect_uris: vec![format!("{url}/callback")],
            pre_authorized_clients: vec![world.client],
            federated_credentials: vec![credential],
            granted_graph_scopes: graph.scopes.clone(),
            role_assignments: vec![RoleAssignment { principal: alice, role: Some(ROLE.to_owned()) }],
            ..App::default()
        });
        Ok(())
    })?;
    Ok(client_id)
}

fn configuration(world: &World<'_>, app: Uuid, url: &str, sign_in: SignIn) -> ServerConfiguration {
    let emulator = &world.lane.emulator;
    let own = AuthorizationServerConfiguration {
        session_store: SessionStore::Memory {},
        keys: KeyEpochs { registration: 1, epochs: vec![KeyEpoch { number: 1, used_from: 0 }], after_compromise: None },
        client_registration: ClientRegistration::Dynamic,
        clients: vec![],
        allowed_redirects: vec![],
        client_metadata_hosts: vec![],
        user_consent_scopes: vec![],
        serves_root: true,
    };
    ServerConfiguration {
        server: ServerReference { namespace: "productivity".to_owned(), name: "graph".to_owned() },
        public_url: Some(url.to_owned()),
        path: "/mcp".to_owned(),
        entra: EntraConfiguration {
            tenant_id: world.tenant.to_string(),
            client_id: app.to_string(),
            authority: emulator.authority().to_owned(),
            audiences: vec![],
            required_scopes: vec!["mcp.access".to_owned()],
            allowed_clients: vec![],
            token_versions: TokenVersion::by_default(),
            groups: GroupsSource::Resolve,
        },
        graph: GraphConfiguration { base_url: emulator.graph().to_owned(), ..graph(sign_in) },
        probe: ProbeConfiguration { interval_seconds: 1 },
        rate_limit: RateLimitConfiguration::default(),
        audit: AuditConfiguration::default(),
        trusted_proxies: vec![],
        allowed_origins: vec![],
        backend: None,
        authorization_server: (sign_in == SignIn::Here).then_some(own),
    }
}

/// The tools, without the address of Graph.
fn graph(sign_in: SignIn) -> GraphConfiguration {
    let is_offered = |tool: &&BuiltInTool| sign_in == SignIn::Elsewhere || tool.name == "get_user_details";
    let tools: Vec<&BuiltInTool> = BUILT_IN_TOOLS.iter().filter(is_offered).collect();
    GraphConfiguration {
        base_url: String::new(),
        scopes: tools.iter().flat_map(|tool| tool.permissions.delegated).map(|&scope| scope.to_owned()).collect(),
        tools: tools.iter().map(|tool| tool.name.to_owned()).collect(),
        access: GraphAccess::OnBehalfOf,
    }
}

/// Sets the policy, which grants this to the role.
pub(crate) fn set_policy(world: &World<'_>, allowed: &Value) -> anyhow::Result<()> {
    let policy = json!({
        "grants": [{
            "mapping": { "namespace": "productivity", "name": "readers" },
            "name": "readers",
            "to": [{ "appRole": { "role": ROLE, "callers": ["User"] } }],
            "allow": allowed,
        }],
    });
    // In one step, as the kubelet does.
    fs::write(world.file("policy.new"), policy.to_string())?;
    Ok(fs::rename(world.file("policy.new"), world.file("policy.json"))?)
}

/// Starts the program and returns its address when it is ready. Audit lines are written to a file, logs to the world's
/// log.
async fn spawn(world: &World<'_>) -> anyhow::Result<(Child, SocketAddr)> {
    let mut command = Command::new(&world.lane.tools.server);
    command.args(["serve", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--drain-seconds=0"]);
    let authorities = world.lane.authorities();
    for (option, file) in [
        ("--config", world.file("config.yaml")),
        ("--policy", world.file("policy.json")),
        ("--trust-bundle", authorities),
        ("--oauth-keys", world.file("keys")),
    ] {
        command.arg(option).arg(file);
    }
    let mut child = command
        .env_clear()
        .env("AZURE_FEDERATED_TOKEN_FILE", world.file("token"))
        .env("RUST_LOG", "info")
        .stdin(Stdio::null())
        .stdout(fs::File::create(world.file("audit"))?)
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stderr.take().context("a pipe")?).lines();
    let mut log = tokio::fs::File::from_std(world.log()?);
    let addresses = async {
        while let Some(line) = lines.next_line().await? {
            log.write_all(format!("{line}\n").as_bytes()).await?;
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            let address = |member: &str| line.get(member).and_then(Value::as_str).and_then(|text| text.parse().ok());
            if let (Some(public), Some(admin)) = (address("address"), address("admin_address")) {
                return Ok((public, admin));
            }
        }
        anyhow::bail!("the server does not start")
    };
    let (public, admin): (SocketAddr, SocketAddr) = tokio::time::timeout(PATIENCE, addresses).await??;
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            if log.write_all(format!("{line}\n").as_bytes()).await.is_err() {
                return;
            }
        }
    });
    ready(admin).await?;
    Ok((child, public))
}

/// Waits until the server reports that it is ready.
async fn ready(admin: SocketAddr) -> anyhow::Result<()> {
    let http = Client::builder().no_proxy().timeout(PATIENCE).build()?;
    let asked = async {
        while !http.get(format!("http://{admin}/readyz")).send().await?.status().is_success() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, asked).await.context("the server is not ready")?
}
