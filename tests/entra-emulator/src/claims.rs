//! Claims of tokens: pure functions of the tenant, the client, the resource and the subject.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    configuration::{App, GroupMembershipClaims, MemberType, OptionalClaim, Tenant, TokenVersion, User},
    keys::{Object, Unverified, hashed, object},
    resource::{Requested, Resource},
};

/// Lifetime of ID tokens in seconds, and default lifetime of access tokens.
const LIFETIME: i64 = 3599;
/// Maximum number of groups in a JWT. Beyond it, a reference to Graph replaces the claim.
const GROUP_LIMIT: usize = 200;

/// Common input of all tokens.
pub(crate) struct Issuance<'a> {
    pub(crate) authority: &'a str,
    pub(crate) tenant: &'a Tenant,
    pub(crate) client: &'a App,
    /// True if the client authenticated with an assertion. The emulator accepts no secrets.
    pub(crate) authenticated: bool,
    /// Seconds since 1970.
    pub(crate) now: i64,
    pub(crate) issue: u64,
}

/// Parts of a `claims` parameter that the emulator supports.
#[derive(Clone, Default)]
pub(crate) struct ClaimsRequest {
    /// `xms_cc`: capabilities of the client, such as `cp1`.
    capabilities: Vec<String>,
    /// Requirements for the user. A sign-in at the emulator meets them.
    pub(crate) session: Session,
}

/// Requirements that a user met at the sign-in. They apply to every token that results from it.
#[derive(Clone, Default)]
pub(crate) struct Session {
    /// `acrs`: authentication contexts.
    contexts: Vec<String>,
    /// `capolids`: Conditional Access policies.
    policies: Vec<String>,
}

/// Separator of the issue number and the policies in `aio`.
const AIO_SEPARATOR: char = '~';

impl Session {
    /// Returns the session of a user token, as far as the token shows it.
    pub(crate) fn of(token: &Unverified) -> Self {
        let contexts = token.claims.get("acrs").and_then(Value::as_array);
        let contexts = contexts.into_iter().flatten().filter_map(Value::as_str).map(ToOwned::to_owned);
        let aio = token.claim("aio").unwrap_or_default();
        Self {
            contexts: contexts.collect(),
            policies: aio.split(AIO_SEPARATOR).skip(1).map(ToOwned::to_owned).collect(),
        }
    }

    pub(crate) fn meets(&self, asked: &Self) -> bool {
        asked.contexts.iter().all(|context| self.contexts.contains(context))
            && asked.policies.iter().all(|policy| self.policies.contains(policy))
    }

    pub(crate) fn meets_policy(&self, policy: &str) -> bool {
        self.policies.iter().any(|met| met == policy)
    }

    pub(crate) fn extend(&mut self, other: &Self) {
        add(&mut self.contexts, &other.contexts);
        add(&mut self.policies, &other.policies);
    }
}

fn add(to: &mut Vec<String>, more: &[String]) {
    for one in more {
        if !to.contains(one) {
            to.push(one.clone());
        }
    }
}

/// Issue number in one of the emulator's own tokens. It is 0, older than any, in a token of a test.
pub(crate) fn issue_of(token: &Unverified) -> u64 {
    let aio = token.claim("aio").and_then(|aio| aio.split(AIO_SEPARATOR).next());
    aio.and_then(|issue| u64::from_str_radix(issue, 16).ok()).unwrap_or_default()
}

impl ClaimsRequest {
    /// Parses the parameter; `None` if it is not a JSON object.
    pub(crate) fn parse(parameter: Option<&str>) -> Option<Self> {
        let Some(parameter) = parameter else {
            return Some(Self::default());
        };
        let request: Object = serde_json::from_str(parameter).ok()?;
        let values = |claim: &str| -> Vec<String> {
            let asked = request.get("access_token").and_then(|token| token.get(claim));
            let one = asked.and_then(|claim| claim.get("value"));
            let many = asked.and_then(|claim| claim.get("values")).and_then(Value::as_array);
            let all = one.into_iter().chain(many.into_iter().flatten());
            all.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
        };
        let session = Session { contexts: values("acrs"), policies: values("capolids") };
        Some(Self { capabilities: values("xms_cc"), session })
    }

    /// Adds another request. Claims of the authorization request also apply to the token request.
    pub(crate) fn extend(&mut self, other: &Self) {
        add(&mut self.capabilities, &other.capabilities);
        self.session.extend(&other.session);
    }
}

impl Issuance<'_> {
    /// Lifetime of the client's access tokens, in seconds.
    pub(crate) fn lifetime(&self) -> i64 {
        self.client.access_token_lifetime_seconds.map_or(LIFETIME, i64::from)
    }

    /// Access token of a client that acts for the user.
    pub(crate) fn user_token(
        &self,
        requested: &Requested<'_>,
        scopes: &[String],
        user: &User,
        claims: &ClaimsRequest,
    ) -> Object {
        let mut token = self.base(requested);
        let scp = match requested.resource {
            Resource::Graph => [scopes, &requested.openid].concat(),
            Resource::App(_) => scopes.to_vec(),
        };
        token.extend(object(json!({
            "name": user.display_name,
            "oid": user.oid,
            "scp": scp.iter().filter(|scope| *scope != "offline_access").cloned().collect::<Vec<_>>().join(" "),
            "sub": pairwise(self.tenant.id, user.oid, &requested.resource.id()),
        })));
        match version(requested) {
            TokenVersion::V1 => token.extend(object(json!({
                "amr": ["pwd"],
                "given_name": user.given_name,
                "family_name": user.surname,
                "unique_name": user.user_principal_name,
                "upn": user.user_principal_name,
            }))),
            TokenVersion::V2 => token.extend(object(json!({
                "preferred_username": user.user_principal_name,
            }))),
        }
        if let Resource::App(app) = requested.resource {
            token.extend(roles_claim(user_roles(self.tenant, app, user)));
            token.extend(groups_claims(self.tenant, app, user));
        }
        token.extend(user.home_tenant.map(|home| ("idp".to_owned(), v1_issuer(home).into())));
        token.extend(optional(requested, OptionalClaim::Acct, "acct", json!(u8::from(user.home_tenant.is_some()))));
        token.extend(optional(requested, OptionalClaim::Idtyp, "idtyp", json!("user")));
        if !claims.capabilities.is_empty() {
            token.extend(optional(requested, OptionalClaim::XmsCc, "xms_cc", json!(claims.capabilities)));
        }
        if !claims.session.contexts.is_empty() {
            token.extend(optional(requested, OptionalClaim::Acrs, "acrs", json!(claims.session.contexts)));
        }
        for policy in &claims.session.policies {
            if let Some(Value::String(aio)) = token.get_mut("aio") {
                aio.push(AIO_SEPARATOR);
                aio.push_str(policy);
            }
        }
        // Entra leaves an unknown value out, without a null.
        token.retain(|_, value| !value.is_null());
        token
    }

    /// Access token of a client that acts as itself; issued even without any role.
    pub(crate) fn application_token(&self, requested: &Requested<'_>) -> Object {
        let oid = service_principal(self.tenant.id, self.client.client_id);
        let mut token = self.base(requested);
        token.extend(object(json!({"oid": oid, "sub": oid})));
        let roles = match requested.resource {
            Resource::Graph => self.client.granted_graph_roles.clone(),
            Resource::App(app) => roles_of(app, MemberType::Application, |id| id == self.client.client_id),
        };
        token.extend(roles_claim(roles));
        if version(requested) == TokenVersion::V1 {
            token.insert("idp".to_owned(), self.v1_issuer().into());
        }
        token.extend(optional(requested, OptionalClaim::Idtyp, "idtyp", json!("app")));
        token
    }

    /// ID token for the client itself. It has the client as audience, the same keys and the user's roles, but no `scp`.
    pub(crate) fn id_token(&self, user: &User, nonce: Option<&str>) -> Object {
        let mut token = object(json!({
            "aud": self.client.client_id,
            "iss": self.v2_issuer(),
            "iat": self.now,
            "nbf": self.now,
            "exp": self.now + LIFETIME,
            "name": user.display_name,
            "oid": user.oid,
            "preferred_username": user.user_principal_name,
            "rh": self.opaque("rh"),
            "sub": pairwise(self.tenant.id, user.oid, &self.client.client_id.to_string()),
            "tid": self.tenant.id,
            "uti": self.opaque("uti"),
            "ver": "2.0",
        }));
        token.extend(nonce.map(|nonce| ("nonce".to_owned(), nonce.into())));
        token.extend(roles_claim(user_roles(self.tenant, self.client, user)));
        token
    }

    fn base(&self, requested: &Requested<'_>) -> Object {
        let proof = if self.authenticated { "2" } else { "0" };
        let mut token = object(json!({
            // Only the emulator reads it: it contains the issue number and the requirements that the user met.
            "aio": format!("{:x}", self.issue),
            "iat": self.now,
            "nbf": self.now,
            "exp": self.now + self.lifetime(),
            "rh": self.opaque("rh"),
            "tid": self.tenant.id,
            "uti": self.opaque("uti"),
        }));
        token.extend(match version(requested) {
            TokenVersion::V1 => object(json!({
                "aud": requested.v1_audience(),
                "iss": self.v1_issuer(),
                "appid": self.client.client_id,
                "app_displayname": self.client.display_name,
                "appidacr": proof,
                "ver": "1.0",
            })),
            TokenVersion::V2 => object(json!({
                "aud": requested.resource.id(),
                "iss": self.v2_issuer(),
                "azp": self.client.client_id,
                "azpacr": proof,
                "ver": "2.0",
            })),
        });
        token
    }

    fn v1_issuer(&self) -> String {
        v1_issuer(self.tenant.id)
    }

    fn v2_issuer(&self) -> String {
        format!("{}/{}/v2.0", self.authority, self.tenant.id)
    }

    fn opaque(&self, purpose: &str) -> String {
        hashed(&format!("{purpose} {} {}", self.tenant.id, self.issue))
    }
}

/// Issuer of v1 tokens, on a host that the emulator does not serve and clients do not need.
pub(crate) fn v1_issuer(tenant: Uuid) -> String {
    format!("https://sts.windows.net/{tenant}/")
}

/// Claims that require a token issued now or later, after a revocation.
pub(crate) fn issued_after(seconds: i64) -> String {
    json!({"access_token": {"nbf": {"essential": true, "value": seconds.to_string()}}}).to_string()
}

/// The object id of an application's service principal.
pub(crate) fn service_principal(tenant: Uuid, client_id: Uuid) -> Uuid {
    derived(&format!("service principal {tenant} {client_id}"))
}

/// Id of the Conditional Access policy of an application.
pub(crate) fn policy_of(client: &App) -> Uuid {
    derived(&format!("conditional access {}", client.client_id))
}

fn derived(name: &str) -> Uuid {
    let digest = Sha256::digest(name);
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(byte, hashed)| *byte = hashed);
    uuid::Builder::from_random_bytes(bytes).into_uuid()
}

fn pairwise(tenant: Uuid, user: Uuid, resource: &str) -> String {
    hashed(&format!("{tenant} {user} {resource}"))
}

fn version(requested: &Requested<'_>) -> TokenVersion {
    match requested.resource {
        Resource::Graph => TokenVersion::V1,
        Resource::App(app) => app.requested_access_token_version,
    }
}

/// Graph's own tokens have all optional claims, other tokens have those that the app registered.
fn optional(requested: &Requested<'_>, claim: OptionalClaim, name: &str, value: Value) -> Option<(String, Value)> {
    let wanted = match requested.resource {
        Resource::Graph => true,
        Resource::App(app) => app.optional_claims.contains(&claim),
    };
    wanted.then(|| (name.to_owned(), value))
}

fn roles_claim(roles: Vec<String>) -> Option<(String, Value)> {
    (!roles.is_empty()).then(|| ("roles".to_owned(), roles.into()))
}

fn user_roles(tenant: &Tenant, app: &App, user: &User) -> Vec<String> {
    // Membership in a nested group gives no role.
    let is_user =
        |id| id == user.oid || tenant.groups.iter().any(|group| group.id == id && group.members.contains(&user.oid));
    roles_of(app, MemberType::User, is_user)
}

fn roles_of(app: &App, kind: MemberType, is_principal: impl Fn(Uuid) -> bool) -> Vec<String> {
    let assigned = |role: &str| {
        app.role_assignments
            .iter()
            .any(|assignment| is_principal(assignment.principal) && assignment.role.as_deref() == Some(role))
    };
    app.app_roles
        .iter()
        .filter(|role| role.allowed_member_types.contains(&kind) && assigned(&role.value))
        .map(|role| role.value.clone())
        .collect()
}

fn groups_claims(tenant: &Tenant, app: &App, user: &User) -> Object {
    let groups: Vec<Uuid> = match app.group_membership_claims {
        GroupMembershipClaims::None => return Object::new(),
        GroupMembershipClaims::SecurityGroup | GroupMembershipClaims::All => {
            tenant.transitive_groups(user.oid).iter().map(|group| group.id).collect()
        }
        GroupMembershipClaims::ApplicationGroup => {
            let assigned = |id| app.role_assignments.iter().any(|assignment| assignment.principal == id);
            let member = tenant.groups.iter().filter(|group| group.members.contains(&user.oid));
            member.map(|group| group.id).filter(|id| assigned(*id)).collect()
        }
    };
    if groups.is_empty() {
        return Object::new();
    }
    if groups.len() <= GROUP_LIMIT {
        return object(json!({"groups": groups}));
    }
    // Entra still names the host of the retired Azure AD Graph here. Clients should not follow it.
    let endpoint = format!("https://graph.windows.net/{}/users/{}/getMemberObjects", tenant.id, user.oid);
    object(json!({"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {"endpoint": endpoint}}}))
}
