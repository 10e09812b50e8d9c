//! A tenant with an API, its clients and two users, and another tenant that acts as the issuer of external tokens.

use std::sync::{LazyLock, mpsc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use entra_emulator::{
    App, AppRole, Configuration, Control, EntraEmulator, FederatedCredential, Group, GroupMembershipClaims,
    LoggedRequest, MemberType, Message, OptionalClaim, RoleAssignment, TOKEN_EXCHANGE_AUDIENCE, Tenant, User,
    sign_in::{self, Authority, SignIn, Tokens},
};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use uuid::Uuid;

pub(crate) const REDIRECT_URI: &str = "http://localhost/callback";
pub(crate) const SUBJECT: &str = "system:serviceaccount:productivity:graph";
pub(crate) const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
pub(crate) const ON_BEHALF_OF: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// On a separate runtime, because each test's runtime ends with the test.
pub(crate) static EMULATOR: LazyLock<EntraEmulator> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let started = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await;
            sender.send(started.unwrap()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
});

pub(crate) struct World {
    pub(crate) tenant: Uuid,
    /// Issuer tenant, which represents a cluster: its keys sign external tokens.
    pub(crate) cluster: Uuid,
    /// Confidential client that exposes `mcp.access` and may read Graph for its users.
    pub(crate) api: Uuid,
    /// Public client.
    pub(crate) desktop: Uuid,
    /// Confidential client with an application role of the API.
    pub(crate) daemon: Uuid,
    /// User with the role Mcp.Reader.
    pub(crate) alice: Uuid,
    pub(crate) bob: Uuid,
    pub(crate) sales: Uuid,
    pub(crate) http: Client,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    /// Creates a world and changes its main tenant before adding it.
    pub(crate) fn with(change: impl FnOnce(&mut Tenant)) -> Self {
        let id = Uuid::new_v4;
        let world = Self {
            tenant: id(),
            cluster: id(),
            api: id(),
            desktop: id(),
            daemon: id(),
            alice: id(),
            bob: id(),
            sales: id(),
            http: sign_in::http_client(EMULATOR.ca_pem()).unwrap(),
        };
        let mut tenant = world.directory();
        change(&mut tenant);
        let control = EMULATOR.control();
        control.add_tenant(tenant).unwrap();
        let cluster =
            Tenant { id: world.cluster, domains: vec![format!("{}.test", world.cluster)], ..Tenant::default() };
        control.add_tenant(cluster).unwrap();
        world
    }

    fn directory(&self) -> Tenant {
        let assigned = |principal, role: &str| RoleAssignment { principal, role: Some(role.to_owned()) };
        let app_role = |value: &str, member| AppRole { value: value.to_owned(), allowed_member_types: vec![member] };
        let api = App {
            client_id: self.api,
            display_name: "MCP server".to_owned(),
            identifier_uris: vec![format!("api://{}", self.api)],
            scopes: vec!["mcp.access".to_owned(), "mcp.admin".to_owned()],
            app_roles: vec![
                app_role("Mcp.Reader", MemberType::User),
                app_role("Mcp.Writer", MemberType::User),
                app_role("Mcp.Job", MemberType::Application),
            ],
            role_assignments: vec![
                assigned(self.alice, "Mcp.Reader"),
                assigned(self.sales, "Mcp.Writer"),
                assigned(self.daemon, "Mcp.Job"),
            ],
            optional_claims: vec![OptionalClaim::Idtyp, OptionalClaim::XmsCc],
            group_membership_claims: GroupMembershipClaims::SecurityGroup,
            federated_credentials: vec![self.credential()],
            granted_graph_scopes: vec!["User.Read".to_owned(), "Mail.Read".to_owned()],
            granted_graph_roles: vec!["User.Read.All".to_owned()],
            ..App::default()
        };
        let desktop = App {
            client_id: self.desktop,
            display_name: "VS <Code>".to_owned(),
            public_client: true,
            redirect_uris: vec![REDIRECT_URI.to_owned()],
            ..App::default()
        };
        let daemon = App { client_id: self.daemon, federated_credentials: vec![self.credential()], ..App::default() };
        let user = |oid, name: &str, messages| User {
            oid,
            user_principal_name: format!("{name}@contoso.com"),
            display_name: name.to_owned(),
            mail: Some(format!("{name}@contoso.com")),
            messages,
            ..User::default()
        };
        let message = |minute: u32| Message {
            subject: format!("Message {minute}"),
            from: "carol@contoso.com".to_owned(),
            received_date_time: format!("2026-03-01T09:{minute:02}:00Z"),
            ..Message::default()
        };
        Tenant {
            id: self.tenant,
            domains: vec![format!("{}.test", self.tenant)],
            apps: vec![api, desktop, daemon],
            users: vec![user(self.alice, "alice", (0..25).map(message).collect()), user(self.bob, "bob", Vec::new())],
            groups: vec![
                Group { id: self.sales, display_name: "Sales".to_owned(), members: vec![self.bob], ..Group::default() },
                Group {
                    id: Uuid::new_v4(),
                    display_name: "Everybody".to_owned(),
                    members: vec![self.sales],
                    ..Group::default()
                },
            ],
        }
    }

    pub(crate) fn credential(&self) -> FederatedCredential {
        FederatedCredential {
            name: "cluster".to_owned(),
            issuer: self.issuer(),
            subject: SUBJECT.to_owned(),
            audience: TOKEN_EXCHANGE_AUDIENCE.to_owned(),
        }
    }

    pub(crate) fn issuer(&self) -> String {
        format!("{}/{}/v2.0", EMULATOR.authority(), self.cluster)
    }

    pub(crate) fn control(&self) -> Control {
        EMULATOR.control()
    }

    pub(crate) fn api_scope(&self, scope: &str) -> String {
        format!("api://{}/{scope}", self.api)
    }

    /// Claims of a valid external token.
    pub(crate) fn external_claims(&self) -> Value {
        let now = now();
        json!({
            "iss": self.issuer(), "sub": SUBJECT, "aud": [TOKEN_EXCHANGE_AUDIENCE],
            "iat": now, "nbf": now, "exp": now + 3600,
        })
    }

    /// A valid external token except for `changes` (`null` removes).
    pub(crate) fn external_token(&self, header: Value, changes: Value) -> String {
        let mut claims = self.external_claims();
        change(&mut claims, changes);
        self.control().sign(self.cluster, &header, &claims).unwrap()
    }

    pub(crate) fn right_assertion(&self) -> String {
        self.external_token(json!({}), json!({}))
    }

    pub(crate) fn token_endpoint(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", EMULATOR.authority(), self.tenant)
    }

    pub(crate) async fn post_token(&self, form: &[(&str, &str)]) -> Response {
        self.http.post(self.token_endpoint()).form(form).send().await.unwrap()
    }

    /// Returns the answer's status and body.
    pub(crate) async fn token(&self, form: &[(&str, &str)]) -> (u16, Value) {
        let response = self.post_token(form).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// Requests client_credentials as the daemon for the API, with this assertion.
    pub(crate) async fn app_only(&self, assertion: &str) -> (u16, Value) {
        self.token(&[
            ("grant_type", "client_credentials"),
            ("client_id", &self.daemon.to_string()),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", assertion),
            ("scope", &self.api_scope(".default")),
        ])
        .await
    }

    /// Requests on-behalf-of as the API.
    pub(crate) async fn on_behalf_of(&self, user_token: &str, scope: &str) -> (u16, Value) {
        self.on_behalf_of_with(user_token, scope, &[]).await
    }

    pub(crate) async fn on_behalf_of_with(&self, user_token: &str, scope: &str, more: &[(&str, &str)]) -> (u16, Value) {
        let (api, assertion) = (self.api.to_string(), self.right_assertion());
        let mut form = vec![
            ("grant_type", ON_BEHALF_OF),
            ("client_id", &api),
            ("client_assertion_type", JWT_BEARER),
            ("client_assertion", &assertion),
            ("requested_token_use", "on_behalf_of"),
            ("assertion", user_token),
            ("scope", scope),
        ];
        form.extend_from_slice(more);
        self.token(&form).await
    }

    pub(crate) async fn sign_in(&self, user: &str, scopes: &[&str]) -> Tokens {
        SignIn {
            authority: &self.authority(),
            tenant: self.tenant,
            client: self.desktop,
            redirect_uri: "http://localhost:5123/callback",
            user: &format!("{user}@contoso.com"),
            scopes,
            claims: None,
        }
        .tokens()
        .await
        .unwrap()
    }

    pub(crate) fn authority(&self) -> Authority {
        Authority::from(&*EMULATOR)
    }

    /// Token of alice or bob for the API, as the desktop client gets it.
    pub(crate) fn user_token(&self, user: &str) -> String {
        let scope = self.api_scope("mcp.access");
        let name = format!("{user}@contoso.com");
        self.control().mint_user_access_token(self.tenant, self.desktop, &name, &scope).unwrap()
    }

    /// Graph token of the API that acts for a user.
    pub(crate) fn graph_token(&self, user: &str, scope: &str) -> String {
        let name = format!("{user}@contoso.com");
        self.control().mint_user_access_token(self.tenant, self.api, &name, scope).unwrap()
    }

    /// Graph token of the API that acts as itself.
    pub(crate) async fn graph_application_token(&self) -> String {
        let (_, answer) = self
            .token(&[
                ("grant_type", "client_credentials"),
                ("client_id", &self.api.to_string()),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", &self.right_assertion()),
                ("scope", "https://graph.microsoft.com/.default"),
            ])
            .await;
        answer["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn graph(&self, path: &str, token: &str) -> (u16, Value) {
        let url =
            if path.starts_with("https://") { path.to_owned() } else { format!("{}/v1.0{path}", EMULATOR.graph()) };
        let response = self.http.get(url).bearer_auth(token).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// This world's part of the log.
    pub(crate) fn requests(&self) -> Vec<LoggedRequest> {
        let mut all = self.control().requests();
        all.retain(|request| request.tenant == Some(self.tenant));
        all
    }
}

pub(crate) fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Merges `changes` into an object; `null` removes.
pub(crate) fn change(object: &mut Value, changes: Value) {
    for (name, value) in changes.as_object().unwrap() {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            object[name] = value.clone();
        }
    }
}

/// A token's claims, unverified.
pub(crate) fn claims(token: &Value) -> Value {
    part(token.as_str().unwrap(), 1)
}

pub(crate) fn part(token: &str, index: usize) -> Value {
    let encoded = token.split('.').nth(index).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).unwrap()).unwrap()
}

/// Identification of a refusal: status, `error` and AADSTS number.
pub(crate) fn refusal((status, body): &(u16, Value)) -> (u16, &str, u64) {
    let code = body["error_codes"][0].as_u64().unwrap();
    let text = body["error_description"].as_str().unwrap();
    assert!(text.starts_with(&format!("AADSTS{code}: ")), "{text}");
    (*status, body["error"].as_str().unwrap(), code)
}
