//! Content of the emulator: tenants with their applications, users and groups, from a YAML file or a test.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The audience that Entra's public cloud recommends for federated credentials.
pub const TOKEN_EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// Maximum number of federated credentials of an application.
pub(crate) const FEDERATED_CREDENTIAL_LIMIT: usize = 20;

/// Initial content of an emulator. [`crate::Control`] can add more while it runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configuration {
    /// Host in the emulator's addresses and certificate. Clients have to resolve it.
    #[serde(default = "localhost")]
    pub host: String,
    /// The tenants.
    #[serde(default)]
    pub tenants: Vec<Tenant>,
    /// PEM files of the authorities trusted when a federated issuer's discovery document and keys are fetched.
    #[serde(default)]
    pub trusted_ca_files: Vec<PathBuf>,
}

impl Default for Configuration {
    fn default() -> Self {
        Self { host: localhost(), tenants: Vec::new(), trusted_ca_files: Vec::new() }
    }
}

fn localhost() -> String {
    "localhost".to_owned()
}

impl Configuration {
    /// Reads a YAML file.
    ///
    /// # Errors
    /// If the file cannot be read, or has an unknown field. The message names both.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the configuration {}", path.display()))?;
        serde_yaml::from_str(&text).with_context(|| format!("the configuration {} is not valid", path.display()))
    }
}

/// A separate directory: an issuer, applications, users and groups.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Tenant {
    /// The directory's id, `tid` in its tokens.
    pub id: Uuid,
    /// Other names of the tenant, such as `contoso.com`.
    #[serde(default)]
    pub domains: Vec<String>,
    /// App registrations.
    #[serde(default)]
    pub apps: Vec<App>,
    /// Users.
    #[serde(default)]
    pub users: Vec<User>,
    /// Groups of users and of groups.
    #[serde(default)]
    pub groups: Vec<Group>,
}

impl Tenant {
    /// The app registration with this client id.
    pub fn app(&self, client_id: Uuid) -> Option<&App> {
        self.apps.iter().find(|app| app.client_id == client_id)
    }

    /// The user with this object id.
    pub fn user(&self, oid: Uuid) -> Option<&User> {
        self.users.iter().find(|user| user.oid == oid)
    }

    /// The user with this principal name, or with this object id as text.
    pub fn find_user(&self, name_or_oid: &str) -> Option<&User> {
        self.users.iter().find(|user| {
            user.user_principal_name.eq_ignore_ascii_case(name_or_oid)
                || user.oid.to_string().eq_ignore_ascii_case(name_or_oid)
        })
    }

    /// Every group that contains this object, directly or through other groups.
    pub(crate) fn transitive_groups(&self, oid: Uuid) -> Vec<&Group> {
        let mut found: Vec<&Group> = Vec::new();
        let mut open = vec![oid];
        while let Some(member) = open.pop() {
            for group in &self.groups {
                if group.members.contains(&member) && !found.iter().any(|known| known.id == group.id) {
                    found.push(group);
                    open.push(group.id);
                }
            }
        }
        found
    }

    /// Returns whether the app accepts this user. Either it requires no assignment, or the user has one, or a group has
    /// one and the user is a direct member.
    pub(crate) fn admits(&self, app: &App, user: &User) -> bool {
        let is_member = |id| self.groups.iter().any(|group| group.id == id && group.members.contains(&user.oid));
        let assigned =
            |assignment: &RoleAssignment| assignment.principal == user.oid || is_member(assignment.principal);
        !app.assignment_required || app.role_assignments.iter().any(assigned)
    }

    /// Refuses an inconsistent tenant.
    pub(crate) fn validate(&self) -> anyhow::Result<()> {
        for app in &self.apps {
            let name = app.client_id;
            ensure!(
                app.federated_credentials.len() <= FEDERATED_CREDENTIAL_LIMIT,
                "app {name}: an application has at most {FEDERATED_CREDENTIAL_LIMIT} federated credentials"
            );
            ensure!(
                self.apps.iter().filter(|other| other.client_id == name).count() == 1,
                "app {name}: the clientId occurs twice"
            );
            for assignment in &app.role_assignments {
                if let Some(role) = &assignment.role {
                    ensure!(
                        app.app_roles.iter().any(|known| &known.value == role),
                        "app {name}: roleAssignments names the role {role}, which appRoles does not have"
                    );
                }
            }
        }
        for user in &self.users {
            ensure!(
                self.users.iter().filter(|other| other.oid == user.oid).count() == 1,
                "user {}: the oid occurs twice",
                user.oid
            );
        }
        Ok(())
    }
}

/// An app registration and its service principal.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// The application (client) id.
    pub client_id: Uuid,
    /// Shown on the sign-in page.
    #[serde(default)]
    pub display_name: String,
    /// App ID URIs, which name the application in scopes and `resource`.
    #[serde(default)]
    pub identifier_uris: Vec<String>,
    /// The format of access tokens *for* this application.
    #[serde(default)]
    pub requested_access_token_version: TokenVersion,
    /// Delegated scopes that the application exposes, e.g. `mcp.access`.
    #[serde(default)]
    pub scopes: Vec<String>,
    /// Roles that the application defines.
    #[serde(default)]
    pub app_roles: Vec<AppRole>,
    /// Clients that may call this application for a user without further consent; needed for on-behalf-of.
    #[serde(default)]
    pub pre_authorized_clients: Vec<Uuid>,
    /// Optional claims in access tokens for this application.
    #[serde(default)]
    pub optional_claims: Vec<OptionalClaim>,
    /// True if the application's tokens are signed with its own key, as with a claims mapping policy.
    #[serde(default)]
    pub own_signing_key: bool,
    /// Groups of a user that its tokens list.
    #[serde(default)]
    pub group_membership_claims: GroupMembershipClaims,
    /// True if the application is a public client. It has no credential and must not present one.
    #[serde(default)]
    pub public_client: bool,
    /// Redirect URIs. `http://localhost` and `http://127.0.0.1` match on any port.
    #[serde(default)]
    pub redirect_uris: Vec<String>,
    /// Workload identities that may act as this application.
    #[serde(default)]
    pub federated_credentials: Vec<FederatedCredential>,
    /// Delegated Graph scopes with an administrator's consent, e.g. `User.Read`.
    #[serde(default)]
    pub granted_graph_scopes: Vec<String>,
    /// Graph application permissions with an administrator's consent, e.g. `User.Read.All`.
    #[serde(default)]
    pub granted_graph_roles: Vec<String>,
    /// Settings of this application as a client that users consent to.
    #[serde(default)]
    pub consent: Consent,
    /// Role assignments of this application.
    #[serde(default)]
    pub role_assignments: Vec<RoleAssignment>,
    /// True if only users with a role assignment, directly or through a group, may sign in to this application and get
    /// tokens for it. In Entra: `appRoleAssignmentRequired`.
    #[serde(default)]
    pub assignment_required: bool,
    /// Requirements on its users for access to Graph, besides consent.
    #[serde(default)]
    pub conditional_access: ConditionalAccess,
    /// Lifetime of its access tokens. Defaults to one hour.
    #[serde(default)]
    pub access_token_lifetime_seconds: Option<u32>,
}

/// `requestedAccessTokenVersion`, written as a number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum TokenVersion {
    /// `https://sts.windows.net/{tid}/`, the default of Entra.
    V1,
    /// `…/{tid}/v2.0`
    #[default]
    V2,
}

impl TryFrom<u8> for TokenVersion {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            other => Err(format!("requestedAccessTokenVersion is 1 or 2, not {other}")),
        }
    }
}

impl From<TokenVersion> for u8 {
    fn from(version: TokenVersion) -> Self {
        match version {
            TokenVersion::V1 => 1,
            TokenVersion::V2 => 2,
        }
    }
}

/// A role that an application defines.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AppRole {
    /// Value in the `roles` claim.
    pub value: String,
    /// Kinds of members that may have the role. Defaults to users and groups.
    #[serde(default = "users_only")]
    pub allowed_member_types: Vec<MemberType>,
}

fn users_only() -> Vec<MemberType> {
    vec![MemberType::User]
}

/// Kind of members that may have an app role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemberType {
    /// Users and groups.
    User,
    /// Other applications.
    Application,
}

/// Optional claim of the application's access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptionalClaim {
    /// `idtyp`: `app` or (as with `include_user_token`) `user`.
    Idtyp,
    /// `xms_cc`: capabilities that the client sent.
    XmsCc,
    /// `acrs`: the authentication contexts that the sign-in met.
    Acrs,
    /// `acct`: 0 for a member of the tenant, 1 for a guest.
    Acct,
    /// `groups`, which only has an effect with `groupMembershipClaims`.
    Groups,
}

/// Groups in a token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupMembershipClaims {
    /// No `groups` claim.
    #[default]
    None,
    /// All groups, including nested ones.
    SecurityGroup,
    /// Groups that are assigned to the application and have the user as a direct member.
    ApplicationGroup,
    /// Same as `SecurityGroup`: the emulator has no other kinds of group.
    All,
}

/// A federated identity credential. Tokens that match it may act as the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FederatedCredential {
    /// Its name, unique in the application.
    pub name: String,
    /// `iss` of the external token, exactly.
    pub issuer: String,
    /// `sub` of the external token, exactly.
    pub subject: String,
    /// `aud` of the external token, exactly.
    #[serde(default = "token_exchange_audience")]
    pub audience: String,
}

fn token_exchange_audience() -> String {
    TOKEN_EXCHANGE_AUDIENCE.to_owned()
}

/// Consent settings of an application, besides an administrator's consent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Consent {
    /// The sign-in implies consent: no page is shown, and the client gets all requested scopes.
    #[default]
    OnSignIn,
    /// A page asks the user, unless all scopes have a consent.
    Ask,
    /// Only an administrator consents. A page refers all other users to one.
    AdminOnly,
}

/// Conditional Access policy for access to Graph through an application on behalf of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionalAccess {
    /// No policy.
    #[default]
    None,
    /// Requires a second factor, as documented: `interaction_required` with claims. A sign-in with these claims meets
    /// it.
    MultiFactor,
    /// Requires a second factor, as observed at Entra: `invalid_grant`, suberror `basic_action`, with claims.
    MultiFactorBasicAction,
    /// Refuses every user.
    Blocked,
}

/// Assigns a principal to an application, with or without a role.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RoleAssignment {
    /// A user's oid, a group's id, or the client id of another application of the tenant.
    pub principal: Uuid,
    /// Value of the role. If absent, the assignment has no role, and counts for `ApplicationGroup`.
    #[serde(default)]
    pub role: Option<String>,
}

/// A user, with profile and mailbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct User {
    /// The object id.
    pub oid: Uuid,
    /// The name to sign in with.
    pub user_principal_name: String,
    /// The full name.
    pub display_name: String,
    /// True if the account may sign in.
    pub account_enabled: bool,
    /// True if the user may consent for all users of the tenant.
    pub administrator: bool,
    /// Home tenant of a guest.
    pub home_tenant: Option<Uuid>,
    /// Graph's `mail`.
    pub mail: Option<String>,
    /// Graph's `givenName`.
    pub given_name: Option<String>,
    /// Graph's `surname`.
    pub surname: Option<String>,
    /// Graph's `jobTitle`.
    pub job_title: Option<String>,
    /// Graph's `officeLocation`.
    pub office_location: Option<String>,
    /// Graph's `mobilePhone`.
    pub mobile_phone: Option<String>,
    /// Graph's `businessPhones`.
    pub business_phones: Vec<String>,
    /// Graph's `preferredLanguage`.
    pub preferred_language: Option<String>,
    /// The mailbox.
    pub messages: Vec<Message>,
}

impl Default for User {
    fn default() -> Self {
        Self {
            oid: Uuid::nil(),
            user_principal_name: String::new(),
            display_name: String::new(),
            account_enabled: true,
            administrator: false,
            home_tenant: None,
            mail: None,
            given_name: None,
            surname: None,
            job_title: None,
            office_location: None,
            mobile_phone: None,
            business_phones: Vec::new(),
            preferred_language: None,
            messages: Vec::new(),
        }
    }
}

/// A message in a mailbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Message {
    /// The subject line.
    pub subject: String,
    /// The sender's address.
    pub from: String,
    /// The sender's name.
    #[serde(default)]
    pub from_name: String,
    /// Time of arrival, RFC 3339 in UTC, such as `2026-03-01T09:30:00Z`.
    pub received_date_time: String,
    /// Beginning of the text.
    #[serde(default)]
    pub body_preview: String,
    /// True if the message was read.
    #[serde(default)]
    pub is_read: bool,
}

/// A group.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Group {
    /// The object id.
    pub id: Uuid,
    /// The name.
    #[serde(default)]
    pub display_name: String,
    /// Object ids of users and of other groups.
    #[serde(default)]
    pub members: Vec<Uuid>,
    /// True if Graph shows the members only to callers with `Member.Read.Hidden` (`visibility: HiddenMembership`).
    #[serde(default)]
    pub hidden_membership: bool,
}
