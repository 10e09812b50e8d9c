//! Entra for one test: a separate tenant, with an emulator and a service account issuer that all tests share.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use entra_emulator::issuer::Issuer;
use entra_emulator::sign_in::Authority;
use entra_emulator::{
    App, AppRole, Configuration, Control, EntraEmulator, FederatedCredential, Group, GroupMembershipClaims, Host,
    LoggedRequest, MemberType, OptionalClaim, RoleAssignment, Tenant, User,
};
use mcp_entra_policy::{
    AuditConfiguration, EntraConfiguration, GraphAccess, GraphConfiguration, GroupsSource, ProbeConfiguration,
    RateLimitConfiguration, ServerConfiguration, ServerReference, TokenVersion,
};
use mcp_entra_server::http_client;
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

/// The audience of projected tokens that Entra accepts.
pub(crate) const AUDIENCE: &str = "api://AzureADTokenExchange";
/// Service account of the projected token of every test's server.
pub(crate) const SUBJECT: &str = "system:serviceaccount:productivity:graph";
/// Name of the federated credential for [`SUBJECT`] of a test's app registration.
pub(crate) const CREDENTIAL: &str = "graph-server";
/// Scope that a user token needs.
pub(crate) const SCOPE: &str = "mcp.access";
/// App role of alice, and of the daemon with permission.
pub(crate) const ROLE: &str = "Mcp.Reader";
/// Users: alice has [`ROLE`], bob has none and is in [`TestTenant::sales`].
pub(crate) const ALICE: &str = "alice@contoso.com";
/// See [`ALICE`].
pub(crate) const BOB: &str = "bob@contoso.com";

/// Shared by all tests of this binary.
struct Shared {
    emulator: EntraEmulator,
    issuer: Issuer,
    /// The runtime of the tests ends with the process; the emulator must not end with the runtime of the first test.
    _runtime: tokio::runtime::Runtime,
}

static SHARED: LazyLock<Shared> = LazyLock::new(|| {
    // A separate thread: the first caller is inside the runtime of a test, which must not be blocked.
    std::thread::spawn(|| {
        _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (emulator, issuer) = runtime.block_on(async {
            let listen = ([127, 0, 0, 1], 0).into();
            let emulator = EntraEmulator::start(Configuration::default(), listen).await.unwrap();
            let issuer = Issuer::start().await.unwrap();
            emulator.control().trust_ca_pem(&issuer.ca_pem).unwrap();
            (emulator, issuer)
        });
        Shared { emulator, issuer, _runtime: runtime }
    })
    .join()
    .unwrap()
});

/// A tenant with a server's app registration, a public client, two daemons, alice and bob.
pub(crate) struct TestTenant {
    /// The tenant's id.
    pub(crate) id: Uuid,
    /// The server's app registration.
    pub(crate) server: Uuid,
    /// A public client that users sign in to.
    pub(crate) client: Uuid,
    /// An application with the app role [`ROLE`].
    pub(crate) daemon: Uuid,
    /// An application without any role.
    pub(crate) daemon_without_role: Uuid,
    /// A group; bob is in it.
    pub(crate) sales: Uuid,
    directory: TempDir,
}

impl TestTenant {
    /// A new tenant, and a file with a projected token that its server's federated credential matches.
    pub(crate) fn new() -> Self {
        let [id, server, client, daemon, daemon_without_role, sales] = [(); 6].map(|()| Uuid::new_v4());
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let tenant = Self { id, server, client, daemon, daemon_without_role, sales, directory };
        let user = |name: &str, display_name: &str| User {
            oid: Uuid::new_v4(),
            user_principal_name: name.to_owned(),
            display_name: display_name.to_owned(),
            ..User::default()
        };
        let (alice, bob) = (user(ALICE, "Alice Adams"), user(BOB, "Bob Brown"));
        let assigned = |principal| RoleAssignment { principal, role: Some(ROLE.to_owned()) };
        let registration = App {
            client_id: server,
            display_name: "graph server".to_owned(),
            identifier_uris: vec![format!("api://{server}")],
            scopes: vec![SCOPE.to_owned(), "other.scope".to_owned()],
            app_roles: vec![AppRole {
                value: ROLE.to_owned(),
                allowed_member_types: vec![MemberType::User, MemberType::Application],
            }],
            pre_authorized_clients: vec![client],
            optional_claims: vec![OptionalClaim::Groups, OptionalClaim::XmsCc],
            group_membership_claims: GroupMembershipClaims::SecurityGroup,
            federated_credentials: vec![tenant.credential()],
            granted_graph_scopes: graph_scopes(),
            role_assignments: vec![assigned(alice.oid), assigned(daemon)],
            ..App::default()
        };
        let public = App {
            client_id: client,
            public_client: true,
            redirect_uris: vec!["http://localhost".to_owned()],
            ..App::default()
        };
        let daemons = [daemon, daemon_without_role].map(|client_id| App { client_id, ..App::default() });
        let group = Group { id: sales, display_name: "Sales".to_owned(), members: vec![bob.oid], ..Group::default() };
        control()
            .add_tenant(Tenant {
                id,
                apps: [registration, public].into_iter().chain(daemons).collect(),
                users: vec![alice, bob],
                groups: vec![group],
                ..Tenant::default()
            })
            .unwrap();
        tenant.project(SUBJECT, AUDIENCE);
        tenant
    }

    /// The federated credential that matches the projected token.
    pub(crate) fn credential(&self) -> FederatedCredential {
        FederatedCredential {
            name: CREDENTIAL.to_owned(),
            issuer: issuer().url.clone(),
            subject: SUBJECT.to_owned(),
            audience: AUDIENCE.to_owned(),
        }
    }

    /// Replaces the projected token in the file, as the kubelet does before its expiry.
    pub(crate) fn project(&self, subject: &str, audience: &str) {
        std::fs::write(self.token_file(), issuer().token(subject, audience).unwrap()).unwrap();
    }

    /// The file with the projected token.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.path().join("token")
    }

    /// A folder for this test's files.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A server's configuration for this tenant, with all built-in tools.
    pub(crate) fn configuration(&self) -> ServerConfiguration {
        ServerConfiguration {
            server: ServerReference { namespace: "productivity".to_owned(), name: "graph".to_owned() },
            public_url: Some("https://graph.mcp.contoso.com/mcp".to_owned()),
            path: "/mcp".to_owned(),
            entra: EntraConfiguration {
                tenant_id: self.id.to_string(),
                client_id: self.server.to_string(),
                authority: SHARED.emulator.authority().to_owned(),
                audiences: vec![],
                required_scopes: vec![SCOPE.to_owned()],
                allowed_clients: vec![],
                token_versions: TokenVersion::by_default(),
                groups: GroupsSource::Resolve,
            },
            graph: GraphConfiguration {
                base_url: SHARED.emulator.graph().to_owned(),
                scopes: graph_scopes(),
                tools: mcp_entra_policy::BUILT_IN_TOOLS.iter().map(|tool| tool.name.to_owned()).collect(),
                access: GraphAccess::OnBehalfOf,
            },
            probe: ProbeConfiguration { interval_seconds: 1 },
            rate_limit: RateLimitConfiguration::default(),
            audit: AuditConfiguration::default(),
            trusted_proxies: vec![],
            allowed_origins: vec![],
            authorization_server: None,
            backend: None,
        }
    }

    /// Claims of a valid user token.
    pub(crate) fn claims(&self, user: &str) -> Value {
        self.claims_with_scope(user, SCOPE)
    }

    /// The claims of a user token with this scope of the server.
    pub(crate) fn claims_with_scope(&self, user: &str, scope: &str) -> Value {
        let scope = format!("api://{}/{scope}", self.server);
        Value::Object(control().user_claims(self.id, self.client, user, &scope).unwrap())
    }

    /// The claims of an app-only token.
    pub(crate) fn application_claims(&self, daemon: Uuid) -> Value {
        let scope = format!("api://{}/.default", self.server);
        Value::Object(control().application_claims(self.id, daemon, &scope).unwrap())
    }

    /// Signs these claims as the tenant does, with its usual header and these changes.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        control().sign(self.id, header, claims).unwrap()
    }

    /// A valid user token.
    pub(crate) fn token(&self, user: &str) -> String {
        self.sign(&serde_json::json!({}), &self.claims(user))
    }

    /// Returns the requests to this tenant's token endpoint and its Graph so far.
    pub(crate) fn requests(&self) -> Vec<LoggedRequest> {
        control().requests().into_iter().filter(|request| request.tenant == Some(self.id)).collect()
    }

    /// The object id of this user.
    pub(crate) fn user_id(&self, name: &str) -> Uuid {
        let mut found = None;
        control()
            .change_tenant(self.id, |directory| {
                found = directory.find_user(name).map(|user| user.oid);
                Ok(())
            })
            .unwrap();
        found.unwrap()
    }

    /// Returns the number of requests to this tenant's token endpoint with this grant.
    pub(crate) fn grants(&self, grant_type: &str) -> usize {
        let is_it = |request: &&LoggedRequest| {
            request.host == Host::Authority && request.grant_type.as_deref() == Some(grant_type)
        };
        self.requests().iter().filter(is_it).count()
    }
}

/// The delegated permissions of Graph that the built-in tools need.
fn graph_scopes() -> Vec<String> {
    let scopes = mcp_entra_policy::BUILT_IN_TOOLS.iter().flat_map(|tool| tool.permissions.delegated);
    scopes.map(|scope| (*scope).to_owned()).collect()
}

/// The service account issuer.
pub(crate) fn issuer() -> &'static Issuer {
    &SHARED.issuer
}

/// The emulated authority.
pub(crate) fn authority() -> Authority {
    Authority::from(&SHARED.emulator)
}

/// The emulator's control.
pub(crate) fn control() -> Control {
    SHARED.emulator.control()
}

/// CA certificates for connections to Entra and Graph (PEM).
pub(crate) fn trust_bundle() -> &'static str {
    SHARED.emulator.ca_pem()
}

/// The server's own HTTP client, trusting the emulator.
pub(crate) fn http() -> reqwest::Client {
    http_client::build(Some(trust_bundle().as_bytes())).unwrap()
}
