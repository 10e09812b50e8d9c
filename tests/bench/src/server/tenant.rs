//! An emulated tenant with the server's registration, and the tokens of two callers: one with a role, one without.

use anyhow::Context;
use entra_emulator::issuer::Issuer;
use entra_emulator::{
    App, AppRole, Configuration, EntraEmulator, FederatedCredential, MemberType, RoleAssignment, Tenant, User,
};
use mcp_entra_policy::{
    AuditConfiguration, CallerKind, CompiledPolicy, EntraConfiguration, Grant, GraphAccess, GraphConfiguration,
    GroupsSource, MappingReference, Pattern, Primitives, ProbeConfiguration, Rate, RateLimitConfiguration,
    Requirements, ServerConfiguration, ServerReference, Subject, TokenVersion,
};
use serde_json::json;
use tempfile::TempDir;
use uuid::Uuid;

const AUDIENCE: &str = "api://AzureADTokenExchange";
const SUBJECT: &str = "system:serviceaccount:productivity:graph";
const SCOPE: &str = "mcp.access";
const ROLE: &str = "Mcp.Reader";
const READER: &str = "alice@contoso.com";
const NOBODY: &str = "bob@contoso.com";

/// The tenant, and the files that every server is started with.
pub(super) struct BenchTenant {
    emulator: EntraEmulator,
    id: Uuid,
    server: Uuid,
    client: Uuid,
    folder: TempDir,
}

impl BenchTenant {
    /// Starts an emulator with the tenant.
    pub(super) async fn start() -> anyhow::Result<Self> {
        let emulator = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await?;
        let issuer = Issuer::start().await?;
        emulator.control().trust_ca_pem(&issuer.ca_pem)?;
        let [id, server, client] = [(); 3].map(|()| Uuid::new_v4());
        let user = |name: &str| User { oid: Uuid::new_v4(), user_principal_name: name.to_owned(), ..User::default() };
        let (reader, nobody) = (user(READER), user(NOBODY));
        let credential = FederatedCredential {
            name: "graph".to_owned(),
            issuer: issuer.url.clone(),
            subject: SUBJECT.to_owned(),
            audience: AUDIENCE.to_owned(),
        };
        let role = AppRole { value: ROLE.to_owned(), allowed_member_types: vec![MemberType::User] };
        let registration = App {
            client_id: server,
            identifier_uris: vec![format!("api://{server}")],
            scopes: vec![SCOPE.to_owned()],
            app_roles: vec![role],
            pre_authorized_clients: vec![client],
            federated_credentials: vec![credential],
            granted_graph_scopes: vec!["User.Read".to_owned(), "Mail.Read".to_owned()],
            role_assignments: vec![RoleAssignment { principal: reader.oid, role: Some(ROLE.to_owned()) }],
            ..App::default()
        };
        let public = App { client_id: client, public_client: true, ..App::default() };
        let users = vec![reader, nobody];
        emulator.control().add_tenant(Tenant { id, apps: vec![registration, public], users, ..Tenant::default() })?;
        let tenant = Self { emulator, id, server, client, folder: tempfile::tempdir()? };
        tenant.write("token", &issuer.token(SUBJECT, AUDIENCE)?)?;
        tenant.write("ca.pem", tenant.emulator.ca_pem())?;
        tenant.write("config.yaml", &serde_yaml::to_string(&tenant.configuration())?)?;
        tenant.write("policy.json", &serde_json::to_string(&policy())?)?;
        Ok(tenant)
    }

    /// The path of a file: `token`, `ca.pem`, `config.yaml` or `policy.json`.
    pub(super) fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// A token of the caller with the role.
    pub(super) fn reader(&self) -> anyhow::Result<String> {
        self.token(READER)
    }

    /// A token of the caller without one.
    pub(super) fn nobody(&self) -> anyhow::Result<String> {
        self.token(NOBODY)
    }

    fn token(&self, user: &str) -> anyhow::Result<String> {
        let scope = format!("api://{}/{SCOPE}", self.server);
        let control = self.emulator.control();
        let claims = control.user_claims(self.id, self.client, user, &scope)?;
        control.sign(self.id, &json!({}), &json!(claims))
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
                base_url: self.emulator.graph().to_owned(),
                scopes: vec!["User.Read".to_owned(), "Mail.Read".to_owned()],
                tools: vec!["get_user_details".to_owned(), "list_my_messages".to_owned()],
                access: GraphAccess::OnBehalfOf,
            },
            probe: ProbeConfiguration { interval_seconds: 3600 },
            rate_limit: RateLimitConfiguration { per_user: Rate { requests: 1_000_000_000, per_seconds: 1 } },
            audit: AuditConfiguration::default(),
            trusted_proxies: vec![],
            allowed_origins: vec![],
            authorization_server: None,
        }
    }
}

fn policy() -> CompiledPolicy {
    let grant = Grant {
        mapping: MappingReference { namespace: None, name: "readers".to_owned() },
        name: "all".to_owned(),
        registration: None,
        to: vec![Subject::AppRole { role: ROLE.to_owned(), callers: [CallerKind::User].into() }],
        require: Requirements::default(),
        graph: GraphAccess::OnBehalfOf,
        allow: Primitives { tools: vec![Pattern("*".to_owned())], ..Primitives::default() },
    };
    CompiledPolicy { denies: vec![], grants: vec![grant], ..CompiledPolicy::default() }
}
