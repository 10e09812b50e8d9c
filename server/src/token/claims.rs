//! Conversion of verified claims to a principal.
//!
//! The functions are pure: the time is an argument.

use std::collections::BTreeSet;
use std::sync::Arc;

use mcp_entra_policy::{
    Caller, CallerKind, CompactSet, Groups, GroupsSource, Registration, ServerConfiguration, TokenVersion,
};
use serde_json::Value;
use uuid::Uuid;

use super::assertion::Assertion;
use super::error::TokenError;
use super::issuers::Issuers;
use super::jwt::{Claims, VerifiedClaims};
use super::principal::{Application, Membership, Principal, Profile, User};

/// Tolerated difference of clocks, in seconds.
const CLOCK_SKEW: u64 = 60;
/// Longest value of a token that a message quotes.
const LONGEST_QUOTE: usize = 100;
/// Microsoft Graph's application id. It occurs as `aud` in Graph's tokens, like Graph's address.
const GRAPH_APPLICATION: &str = "00000003-0000-0000-c000-000000000000";

/// Required claims of an accepted token.
pub(super) struct Expected {
    issuers: Issuers,
    token_versions: BTreeSet<TokenVersion>,
    tenant: String,
    audiences: BTreeSet<String>,
    /// Empty means any client.
    allowed_clients: BTreeSet<String>,
    required_scopes: BTreeSet<String>,
    /// The required scopes, fully qualified, for messages to clients.
    qualified_scopes: Vec<String>,
    groups: GroupsSource,
    graph_base_url: String,
}

impl Expected {
    pub(super) fn new(configuration: &ServerConfiguration) -> Self {
        let entra = &configuration.entra;
        let own = [entra.client_id.clone(), format!("api://{}", entra.client_id)];
        Self {
            issuers: Issuers::new(&entra.authority, &entra.tenant_id),
            token_versions: entra.token_versions.clone(),
            tenant: entra.tenant_id.clone(),
            audiences: own.into_iter().chain(entra.audiences.iter().cloned()).collect(),
            allowed_clients: entra.allowed_clients.iter().cloned().collect(),
            required_scopes: entra.required_scopes.iter().cloned().collect(),
            qualified_scopes: configuration.qualified_scopes(),
            groups: entra.groups,
            graph_base_url: configuration.graph.base_url.clone(),
        }
    }

    /// Recognises a common mistake in unverified claims. It only selects the error of a refused token.
    pub(super) fn recognise_mistake(&self, claims: &Claims) -> Option<TokenError> {
        check_origin(claims, self).err().filter(|error| !matches!(error, TokenError::Claim(_)))
    }

    fn is_graph(&self, audience: &str) -> bool {
        let audience = audience.trim_end_matches('/');
        audience == GRAPH_APPLICATION || audience == self.graph_base_url || audience == "https://graph.microsoft.com"
    }

    fn a_scope(&self) -> String {
        self.qualified_scopes.first().cloned().unwrap_or_default()
    }
}

/// Returns the principal of these claims at `now` (seconds since 1970). `assertion` has the token of the claims.
pub(super) fn principal(
    verified: &VerifiedClaims,
    assertion: Assertion,
    expected: &Expected,
    now: u64,
) -> Result<Principal, TokenError> {
    let claims = verified.as_claims();
    let version = check_origin(claims, expected)?;
    // Only keys for version 2 are published with their issuer. Keys for version 1 are the same, so the tenant's
    // version 2 issuer counts for both, as in Microsoft's own validator.
    if !verified.key_is_for(expected.issuers.of(TokenVersion::V2), &expected.tenant) {
        return Err(TokenError::KeyIssuer);
    }
    let expires_at = check_lifetime(claims, now)?;
    if claims.contains_key("cnf") {
        return Err(TokenError::Bound);
    }
    let scopes = scopes(claims)?;
    let kind = caller_kind(claims, scopes.as_ref(), expected)?;
    let (tenant_id, object_id) = (expected.tenant.clone(), guid(claims, "oid")?);
    let registration = Registration::proven_by(text(claims, "aud")?);
    let client_id = client_id(claims, version, expected)?;
    let roles = strings(claims, "roles")?.unwrap_or_default();
    if kind == CallerKind::Application {
        if roles.is_empty() {
            return Err(TokenError::ApplicationWithoutRole);
        }
        let caller = Arc::new(Caller {
            kind,
            registration,
            client_id,
            roles,
            // An application's groups are not read.
            groups: Groups::Unknown,
            scopes: CompactSet::default(),
            authentication_contexts: CompactSet::default(),
        });
        return Ok(Principal::Application(Application { tenant_id, object_id, caller, expires_at }));
    }
    let scopes = scopes.unwrap_or_default();
    if !scopes.iter().any(|scope| expected.required_scopes.contains(&**scope)) {
        return Err(TokenError::ScopeMissing { scopes: expected.qualified_scopes.join(" ") });
    }
    let caller = Arc::new(Caller {
        kind,
        registration,
        client_id,
        roles,
        groups: groups(claims, expected.groups)?,
        scopes,
        authentication_contexts: strings(claims, "acrs")?.unwrap_or_default(),
    });
    let profile = Profile {
        tenant_id,
        object_id,
        membership: membership(claims, expected),
        caller,
        accepts_claims_challenge: strings(claims, "xms_cc")?.is_some_and(|values| values.contains("cp1")),
        expires_at,
    };
    Ok(Principal::User(User { profile: Arc::new(profile), assertion }))
}

/// Checks audience, tenant, version and issuer, in the order that gives the most helpful error.
fn check_origin(claims: &Claims, expected: &Expected) -> Result<TokenVersion, TokenError> {
    // Entra issues no array of audiences. It would make the token valid for other servers, too.
    let audience = text(claims, "aud")?;
    if expected.is_graph(audience) {
        return Err(TokenError::GraphToken { scope: expected.a_scope() });
    }
    let tenant = text(claims, "tid")?;
    if tenant != expected.tenant {
        return Err(TokenError::Tenant { tenant: quote(tenant), expected: expected.tenant.clone() });
    }
    if !expected.audiences.contains(audience) {
        return Err(TokenError::Audience { audience: quote(audience), scope: expected.a_scope() });
    }
    let (version, other) = match text(claims, "ver")? {
        "1.0" => (TokenVersion::V1, TokenError::Version1),
        "2.0" => (TokenVersion::V2, TokenError::Version2),
        _ => return Err(TokenError::Claim("ver")),
    };
    if !expected.token_versions.contains(&version) {
        return Err(other);
    }
    let issuer = expected.issuers.of(version);
    match text(claims, "iss")? == issuer {
        true => Ok(version),
        false => Err(TokenError::Issuer { expected: issuer.to_owned() }),
    }
}

/// Returns the kind of the caller. `idtyp` is an optional claim, so its absence proves nothing. Without it, the token
/// of a service principal has `sub` equal to `oid`. An ID token has this server's audience, the same keys and even
/// the user's roles, but no `scp`.
fn caller_kind(
    claims: &Claims,
    scopes: Option<&CompactSet<Box<str>>>,
    expected: &Expected,
) -> Result<CallerKind, TokenError> {
    let stated = match claims.get("idtyp") {
        None => None,
        Some(kind) => Some(kind.as_str().ok_or(TokenError::Claim("idtyp"))?),
    };
    let has_client = claims.contains_key("azp") || claims.contains_key("appid");
    let own_subject = claims.contains_key("oid") && claims.get("oid") == claims.get("sub");
    match (scopes, stated) {
        (None, Some("app")) => Ok(CallerKind::Application),
        (None, None) if has_client && own_subject => Ok(CallerKind::Application),
        (None, _) => Err(TokenError::IdToken { scope: expected.a_scope() }),
        (Some(scopes), stated) if !scopes.is_empty() && stated != Some("app") => Ok(CallerKind::User),
        (Some(_), _) => Err(TokenError::NeitherUserNorApplication),
    }
}

/// Returns the end of the token if it is valid now.
pub(super) fn check_lifetime(claims: &Claims, now: u64) -> Result<u64, TokenError> {
    let seconds = |name| claims.get(name).and_then(Value::as_u64).ok_or(TokenError::Claim(name));
    let (expires_at, not_before, issued_at) = (seconds("exp")?, seconds("nbf")?, seconds("iat")?);
    if now >= expires_at.saturating_add(CLOCK_SKEW) {
        return Err(TokenError::Expired { seconds_ago: now - expires_at });
    }
    let starts_at = not_before.max(issued_at);
    match starts_at > now.saturating_add(CLOCK_SKEW) {
        true => Err(TokenError::NotYetValid { in_seconds: starts_at - now }),
        false => Ok(expires_at),
    }
}

/// Returns the scopes of a user's token. Other tokens have no such claim.
fn scopes(claims: &Claims) -> Result<Option<CompactSet<Box<str>>>, TokenError> {
    match claims.get("scp") {
        None => Ok(None),
        Some(Value::String(scopes)) => Ok(Some(scopes.split(' ').filter(|scope| !scope.is_empty()).collect())),
        Some(_) => Err(TokenError::Claim("scp")),
    }
}

/// Returns the user's membership. `acct` decides if the app registration emits it: 0 is a member, anything else a
/// guest. Otherwise `idp` decides: it names a foreign identity provider and is absent for members.
fn membership(claims: &Claims, expected: &Expected) -> Membership {
    let own = match (claims.get("acct"), claims.get("idp")) {
        (Some(account), _) => account.as_u64() == Some(0),
        (None, Some(provider)) => provider.as_str().is_some_and(|provider| expected.issuers.contain(provider)),
        (None, None) => true,
    };
    if own { Membership::Member } else { Membership::Guest }
}

/// Returns the groups in the claims. An absent claim means "no groups" only if the app registration is known to emit
/// all that matter. Above 200 groups, Entra emits an indicator instead. A list may hold names of groups that are
/// synchronised from elsewhere (`CONTOSO\Sales`). The policy only knows ids, so such a list counts as unknown.
fn groups(claims: &Claims, source: GroupsSource) -> Result<Groups, TokenError> {
    let overage = claims.get("_claim_names").and_then(|names| names.get("groups")).is_some();
    let has_groups = claims.get("hasgroups").is_some_and(|value| *value != Value::Bool(false));
    let listed = strings(claims, "groups")?;
    Ok(match (listed, source) {
        _ if overage || has_groups => Groups::Unknown,
        (Some(groups), _) => {
            groups.iter().map(|group| as_guid(group)).collect::<Option<_>>().map_or(Groups::Unknown, Groups::Known)
        }
        (None, GroupsSource::InToken) => Groups::Known(CompactSet::default()),
        (None, GroupsSource::Resolve) => Groups::Unknown,
    })
}

/// Returns the client that requested the token, if it is allowed.
fn client_id(claims: &Claims, version: TokenVersion, expected: &Expected) -> Result<String, TokenError> {
    let client = guid(
        claims,
        match version {
            TokenVersion::V1 => "appid",
            TokenVersion::V2 => "azp",
        },
    )?;
    match expected.allowed_clients.is_empty() || expected.allowed_clients.contains(&client) {
        true => Ok(client),
        false => Err(TokenError::Client { client }),
    }
}

fn text<'a>(claims: &'a Claims, name: &'static str) -> Result<&'a str, TokenError> {
    claims.get(name).and_then(Value::as_str).ok_or(TokenError::Claim(name))
}

fn guid(claims: &Claims, name: &'static str) -> Result<String, TokenError> {
    as_guid(text(claims, name)?).map(|guid| guid.to_string()).ok_or(TokenError::Claim(name))
}

/// Parses a GUID in the form with hyphens, in any case.
fn as_guid(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|guid| guid.to_string().eq_ignore_ascii_case(text))
}

fn strings(claims: &Claims, name: &'static str) -> Result<Option<CompactSet<Box<str>>>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let items = value.as_array().ok_or(TokenError::Claim(name))?;
    let strings = items.iter().map(|item| item.as_str()).collect::<Option<_>>();
    strings.map(Some).ok_or(TokenError::Claim(name))
}

/// Quotes a value of a token for a message to the client, in the characters that RFC 6750 allows.
fn quote(value: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'/' | b'_' | b'~');
    match !value.is_empty() && value.len() <= LONGEST_QUOTE && value.bytes().all(harmless) {
        true => value.to_owned(),
        false => "another one".to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests;
