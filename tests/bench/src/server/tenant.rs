//! An emulated tenant with the server's registration, and its users' tokens.

use std::path::{Path, PathBuf};

use anyhow::Context;
use entra_emulator::issuer::Issuer;
use entra_emulator::{
    App, AppRole, Configuration, EntraEmulator, FederatedCredential, MemberType, RoleAssignment, Tenant, User,
};
use mcp_entra_policy::{
    AuditConfiguration, BUILT_IN_TOOLS, BackendConfiguration, CallerKind, CompiledPolicy, EntraConfiguration, Grant,
    GraphAccess, GraphConfiguration, GroupsSource, MappingReference, Pattern, Primitives, ProbeConfiguration, Rate,
    RateLimitConfiguration, Requirements, ServerConfiguration, ServerReference, Subject, TokenVersion,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::graph::StaticGraph;
use super::peers::PeerSetting;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const SUBJECT: &str = "system:serviceaccount:productivity:graph";
const SCOPE: &str = "mcp.access";
const ROLE: &str = "Mcp.Reader";
/// Permissions of all built-in tools.
const GRAPH_SCOPES: [&str; 4] = ["User.Read", "Mail.Read", "Mail.Send", "Calendars.ReadWrite"];
/// Number of groups in each token, which make it 2 KB long: 39 bytes of JSON each.
const GROUPS: usize = 15;
/// Number of users of the tenant. Each has the role.
pub(super) const USERS: usize = 1000;

/// The tenant, and the files of every server.
pub(super) struct BenchTenant {
    emulator: EntraEmulator,
    graph: StaticGraph,
    id: Uuid,
    server: Uuid,
    client: Uuid,
    folder: TempDir,
}

impl BenchTenant {
    /// Starts an emulator with the tenant.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let emulator = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await?;
        let (issuer, graph) = (Issuer::start().await?, StaticGraph::start().await?);
        emulator.control().trust_ca_pem(&issuer.ca_pem)?;
        let [id, server, client] = [(); 3].map(|()| Uuid::new_v4());
        let users = Vec::from_iter((0..USERS).map(|number| User {
            oid: Uuid::new_v4(),
            user_principal_name: user_name(number),
            ..User::default()
        }));
        let apps = vec![
            registration(server, client, &issuer, &users),
            App { client_id: client, public_client: true, ..App::default() },
            // On-behalf-of uses it as the resource, which scopes begin with.
            App {
                client_id: Uuid::new_v4(),
                identifier_uris: vec![graph.url.clone()],
                scopes: GRAPH_SCOPES.map(str::to_owned).to_vec(),
                pre_authorized_clients: vec![server],
                ..App::default()
            },
        ];
        emulator.control().add_tenant(Tenant { id, apps, users, ..Tenant::default() })?;
        let tenant = Self { emulator, graph, id, server, client, folder: tempfile::tempdir()? };
        tenant.write("token", &issuer.token(SUBJECT, AUDIENCE)?)?;
        tenant.write("ca.pem", &format!("{}{}", tenant.emulator.ca_pem(), tenant.graph.ca_pem))?;
        tenant.write("config.yaml", &serde_yaml::to_string(&tenant.configuration())?)?;
        let tools = BUILT_IN_TOOLS.iter().map(|tool| tool.name);
        tenant.write("policy.json", &serde_json::to_string(&policy(tools))?)?;
        Ok(tenant)
    }

    /// The path of a file: `token`, `ca.pem`, `config.yaml`, `policy.json`, or `peer.json`.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder of these files.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes `peer.json`, in which peers find the settings of the server under test.
    pub(super) fn tell_peers(&self, tools: Vec<Value>) -> anyhow::Result<()> {
        let authority = format!("{}/{}", self.emulator.authority(), self.id);
        let setting = PeerSetting {
            tools,
            graph: format!("{}/v1.0/me", self.graph.url),
            user_token: self.tokens(1)?.remove(0),
            issuer: format!("{authority}/v2.0"),
            jwks: format!("{authority}/discovery/v2.0/keys"),
            audience: self.server.to_string(),
            scope: SCOPE.to_owned(),
        };
        self.write("peer.json", &serde_json::to_string(&setting)?)
    }

    /// Writes `config.yaml` and `policy.json` of a server with a backend to a folder. Every user with the role may use
    /// the tool.
    pub(super) fn add_backend(&self, folder: &str, backend: BackendConfiguration, tool: &str) -> anyhow::Result<()> {
        std::fs::create_dir(self.file(folder))?;
        let mut configuration = self.configuration();
        (configuration.graph.tools, configuration.backend) = (vec![], Some(backend));
        self.write(&format!("{folder}/config.yaml"), &serde_yaml::to_string(&configuration)?)?;
        self.write(&format!("{folder}/policy.json"), &serde_json::to_string(&policy([tool]))?)
    }

    /// Returns tokens of this number of users, each of about 2 KB.
    pub(super) fn tokens(&self, users: usize) -> anyhow::Result<Vec<String>> {
        let scope = format!("api://{}/{SCOPE}", self.server);
        let control = self.emulator.control();
        let token = |number| {
            let mut claims = control.user_claims(self.id, self.client, &user_name(number), &scope)?;
            claims.insert("groups".to_owned(), (0..GROUPS).map(|_| Uuid::new_v4().to_string()).collect());
            control.sign(self.id, &json!({}), &json!(claims))
        };
        (0..users).map(token).collect()
    }

    fn write(&self, name: &str, content: &str) -> anyhow::Result<()> {
        std::fs::write(self.file(name), content).with_context(|| name.to_owned())
    }

    fn configuration(&self) -> ServerConfiguration {
        ServerConfiguration {
            server: ServerReference { namespace: "productivity".to_owned(), name: "graph".to_owned() },
            public_url: None,
            path: "/mcp".to_owned(),
            entra: EntraConfiguration {
                tenant_id: self.id.to_string(),
                client_id: self.server.to_string(),
                authority: self.emulator.authority().to_owned(),
                audiences: vec![],
                required_scopes: vec![SCOPE.to_owned()],
                allowed_clients: vec![],
                token_versions: TokenVersion::by_default(),
                groups: GroupsSource::InToken,
            },
            graph: GraphConfiguration {
                base_url: self.graph.url.clone(),
                scopes: GRAPH_SCOPES.map(str::to_owned).to_vec(),
                tools: BUILT_IN_TOOLS.iter().map(|tool| tool.name.to_owned()).collect(),
                access: GraphAccess::OnBehalfOf,
            },
            probe: ProbeConfiguration { interval_seconds: 3600 },
            rate_limit: RateLimitConfiguration { per_user: Rate { requests: 1_000_000_000, per_seconds: 1 } },
            audit: AuditConfiguration::default(),
            trusted_proxies: vec![],
            allowed_origins: vec![],
            authorization_server: None,
            backend: None,
        }
    }
}

fn user_name(number: usize) -> String {
    format!("user{number}@contoso.com")
}

/// The registration of the server, in which all users have the role.
fn registration(server: Uuid, client: Uuid, issuer: &Issuer, users: &[User]) -> App {
    let credential = FederatedCredential {
        name: "graph".to_owned(),
        issuer: issuer.url.clone(),
        subject: SUBJECT.to_owned(),
        audience: AUDIENCE.to_owned(),
    };
    let assigned = |user: &User| RoleAssignment { principal: user.oid, role: Some(ROLE.to_owned()) };
    App {
        client_id: server,
        identifier_uris: vec![format!("api://{server}")],
        scopes: vec![SCOPE.to_owned()],
        app_roles: vec![AppRole { value: ROLE.to_owned(), allowed_member_types: vec![MemberType::User] }],
        pre_authorized_clients: vec![client],
        federated_credentials: vec![credential],
        role_assignments: users.iter().map(assigned).collect(),
        ..App::default()
    }
}

/// Grants these tools to the role. A trailing `*` never grants a tool that writes.
fn policy<'a>(tools: impl IntoIterator<Item = &'a str>) -> CompiledPolicy {
    let tools = tools.into_iter().map(|tool| Pattern(tool.to_owned())).collect();
    let grant = Grant {
        mapping: MappingReference { namespace: None, name: "readers".to_owned() },
        name: "all".to_owned(),
        registration: None,
        to: vec![Subject::AppRole { role: ROLE.to_owned(), callers: [CallerKind::User].into() }],
        require: Requirements::default(),
        graph: GraphAccess::OnBehalfOf,
        allow: Primitives { tools, ..Primitives::default() },
    };
    CompiledPolicy { denies: vec![], grants: vec![grant], ..CompiledPolicy::default() }
}
