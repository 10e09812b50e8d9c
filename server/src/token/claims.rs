//! From verified claims to a principal: whose token this is, for whom, until when, and what it carries.
//!
//! Pure: the clock is an argument.

use std::collections::BTreeSet;

use mcp_entra_policy::{Groups, ServerConfiguration};
use secrecy::SecretString;
use serde_json::Value;
use uuid::Uuid;

use super::jwt::{Claims, VerifiedClaims};
use super::{Application, Principal, TokenError, User, keys};

/// Seconds by which clocks may differ.
const CLOCK_SKEW: u64 = 60;
/// Longest value of a token that is repeated in a message.
const LONGEST_QUOTE: usize = 100;
/// Microsoft Graph's application id, which stands as `aud` in its tokens as well as its address.
const GRAPH_APPLICATION: &str = "00000003-0000-0000-c000-000000000000";

/// What a token must say to be accepted.
pub(super) struct Expected {
    issuer: String,
    tenant: String,
    audiences: BTreeSet<String>,
    required_scopes: BTreeSet<String>,
    /// The required scopes, fully qualified: what a client should ask for.
    qualified_scopes: Vec<String>,
    graph_base_url: String,
}

impl Expected {
    pub(super) fn new(configuration: &ServerConfiguration) -> Self {
        let entra = &configuration.entra;
        let own = [entra.client_id.clone(), format!("api://{}", entra.client_id)];
        Self {
            issuer: keys::issuer(entra),
            tenant: entra.tenant_id.clone(),
            audiences: own.into_iter().chain(entra.audiences.iter().cloned()).collect(),
            required_scopes: entra.required_scopes.iter().cloned().collect(),
            qualified_scopes: configuration.qualified_scopes(),
            graph_base_url: configuration.graph.base_url.clone(),
        }
    }

    /// The mistake that claims show even though nothing is proven of them: only ever another way of saying no.
    pub(super) fn recognise_mistake(&self, claims: &Claims) -> Option<TokenError> {
        let error = check_origin(claims, self).err()?;
        let telling = matches!(
            error,
            TokenError::GraphToken { .. }
                | TokenError::Tenant { .. }
                | TokenError::Audience { .. }
                | TokenError::Version1
        );
        telling.then_some(error)
    }

    fn is_graph(&self, audience: &str) -> bool {
        let audience = audience.trim_end_matches('/');
        audience == GRAPH_APPLICATION || audience == self.graph_base_url || audience == "https://graph.microsoft.com"
    }

    fn a_scope(&self) -> String {
        self.qualified_scopes.first().cloned().unwrap_or_default()
    }
}

/// Who these claims speak for, at `now` (seconds since 1970). `token` is the one that they were read from.
pub(super) fn principal(
    claims: VerifiedClaims,
    token: &str,
    expected: &Expected,
    now: u64,
) -> Result<Principal, TokenError> {
    let claims = claims.as_claims();
    check_origin(claims, expected)?;
    let expires_at = check_lifetime(claims, now)?;
    if claims.get("cnf").is_some() {
        return Err(TokenError::Bound);
    }
    let roles = strings(claims, "roles")?.unwrap_or_default();
    let scopes = scopes(claims)?;
    let says_application = match claims.get("idtyp") {
        None => false,
        Some(kind) => kind.as_str().ok_or(TokenError::Claim("idtyp"))? == "app",
    };
    let tenant_id = expected.tenant.clone();
    if !scopes.is_empty() && !says_application {
        if scopes.is_disjoint(&expected.required_scopes) {
            return Err(TokenError::ScopeMissing { scopes: expected.qualified_scopes.join(" ") });
        }
        return Ok(Principal::User(User {
            tenant_id,
            object_id: guid(claims, "oid")?,
            client_id: client_id(claims)?,
            scopes,
            roles,
            groups: groups(claims)?,
            authentication_contexts: strings(claims, "acrs")?.unwrap_or_default(),
            accepts_claims_challenge: strings(claims, "xms_cc")?.is_some_and(|values| values.contains("cp1")),
            assertion: SecretString::from(token),
            expires_at,
        }));
    }
    // idtyp is an optional claim, so its absence proves nothing; a service principal's token has sub = oid. An ID
    // token has this server's audience, the same keys and even the user's roles, but neither scp nor these.
    let has_client = claims.get("azp").or(claims.get("appid")).is_some();
    let own_subject = claims.get("oid").is_some() && claims.get("oid") == claims.get("sub");
    if claims.get("scp").is_some() || !has_client || !(says_application || own_subject) {
        return Err(TokenError::IdToken { scope: expected.a_scope() });
    }
    if roles.is_empty() {
        return Err(TokenError::ApplicationWithoutRole);
    }
    Ok(Principal::Application(Application {
        tenant_id,
        object_id: guid(claims, "oid")?,
        client_id: client_id(claims)?,
        roles,
    }))
}

/// Audience, tenant, version and issuer, in the order that names the mistake best.
fn check_origin(claims: &Claims, expected: &Expected) -> Result<(), TokenError> {
    // An array of audiences would make the token good for others too; Entra issues none.
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
    if text(claims, "ver")? != "2.0" {
        return Err(TokenError::Version1);
    }
    match text(claims, "iss")? == expected.issuer {
        true => Ok(()),
        false => Err(TokenError::Issuer { expected: expected.issuer.clone() }),
    }
}

/// When the token expires, if it is valid now.
fn check_lifetime(claims: &Claims, now: u64) -> Result<u64, TokenError> {
    let seconds = |name| claims.get(name).and_then(Value::as_u64).ok_or(TokenError::Claim(name));
    let (expires_at, not_before, issued_at) = (seconds("exp")?, seconds("nbf")?, seconds("iat")?);
    if now >= expires_at.saturating_add(CLOCK_SKEW) {
        return Err(TokenError::Expired);
    }
    let latest_start = now.saturating_add(CLOCK_SKEW);
    match not_before > latest_start || issued_at > latest_start {
        true => Err(TokenError::NotYetValid),
        false => Ok(expires_at),
    }
}

fn scopes(claims: &Claims) -> Result<BTreeSet<String>, TokenError> {
    match claims.get("scp") {
        None => Ok(BTreeSet::new()),
        Some(Value::String(scopes)) => Ok(scopes.split_ascii_whitespace().map(str::to_owned).collect()),
        Some(_) => Err(TokenError::Claim("scp")),
    }
}

/// An absent claim does not mean "no groups": the app registration may not emit it, and above 200 groups Entra puts
/// an indicator in its place.
fn groups(claims: &Claims) -> Result<Groups, TokenError> {
    let overage = claims.get("_claim_names").and_then(|names| names.get("groups")).is_some();
    let has_groups = claims.get("hasgroups").is_some_and(|value| *value != Value::Bool(false));
    match strings(claims, "groups")? {
        Some(groups) if !overage && !has_groups => {
            Ok(Groups::Known(groups.iter().map(|group| group.to_ascii_lowercase()).collect()))
        }
        _ => Ok(Groups::Unknown),
    }
}

fn client_id(claims: &Claims) -> Result<String, TokenError> {
    guid(claims, if claims.get("azp").is_some() { "azp" } else { "appid" })
}

fn text<'a>(claims: &'a Claims, name: &'static str) -> Result<&'a str, TokenError> {
    claims.get(name).and_then(Value::as_str).ok_or(TokenError::Claim(name))
}

fn guid(claims: &Claims, name: &'static str) -> Result<String, TokenError> {
    let value = text(claims, name)?.to_ascii_lowercase();
    match Uuid::try_parse(&value) {
        Ok(guid) if guid.hyphenated().to_string() == value => Ok(value),
        _ => Err(TokenError::Claim(name)),
    }
}

fn strings(claims: &Claims, name: &'static str) -> Result<Option<BTreeSet<String>>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let items = value.as_array().ok_or(TokenError::Claim(name))?;
    let strings = items.iter().map(|item| item.as_str().map(str::to_owned)).collect::<Option<_>>();
    strings.map(Some).ok_or(TokenError::Claim(name))
}

/// A value of a token as part of a message to the client, within what RFC 6750 allows there.
fn quote(value: &str) -> String {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b':' | b'/' | b'_' | b'~');
    match !value.is_empty() && value.len() <= LONGEST_QUOTE && value.bytes().all(harmless) {
        true => value.to_owned(),
        false => "another one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::{
        AuditConfiguration, EntraConfiguration, GraphAccess, GraphConfiguration, GroupsSource, ProbeConfiguration,
        RateLimitConfiguration, ServerReference, TokenVersion,
    };
    use serde_json::json;

    use super::*;

    const TENANT: &str = "8f6b0000-0000-4000-8000-000000000001";
    const CLIENT: &str = "1c2d0000-0000-4000-8000-000000000002";
    const NOW: u64 = 1_800_000_000;

    fn expected() -> Expected {
        Expected::new(&ServerConfiguration {
            server: ServerReference { namespace: "productivity".into(), name: "graph".into() },
            public_url: None,
            path: "/mcp".into(),
            entra: EntraConfiguration {
                tenant_id: TENANT.into(),
                client_id: CLIENT.into(),
                authority: "https://login.example".into(),
                audiences: vec![],
                required_scopes: vec!["mcp.access".into()],
                allowed_clients: vec![],
                token_versions: TokenVersion::by_default(),
                groups: GroupsSource::Resolve,
            },
            graph: GraphConfiguration {
                base_url: "https://graph.example".into(),
                scopes: vec!["User.Read".into()],
                tools: vec![],
                access: GraphAccess::OnBehalfOf,
            },
            probe: ProbeConfiguration { interval_seconds: 300 },
            rate_limit: RateLimitConfiguration::default(),
            audit: AuditConfiguration::default(),
            trusted_proxies: vec![],
        })
    }

    fn user_claims() -> Value {
        json!({
            "ver": "2.0", "iss": format!("https://login.example/{TENANT}/v2.0"), "aud": CLIENT, "tid": TENANT,
            "oid": "aaaa0000-0000-4000-8000-000000000003", "sub": "pairwise",
            "azp": "bbbb0000-0000-4000-8000-000000000004", "scp": "profile mcp.access", "roles": ["Mcp.Reader"],
            "iat": NOW, "nbf": NOW, "exp": NOW + 3600,
        })
    }

    fn application_claims() -> Value {
        let mut claims = user_claims();
        claims.as_object_mut().unwrap().remove("scp");
        claims["sub"] = claims["oid"].clone();
        claims
    }

    fn read_at(claims: Value, now: u64) -> Result<Principal, TokenError> {
        principal(VerifiedClaims::for_test(claims), "token", &expected(), now)
    }

    fn groups_with(change: Value) -> Groups {
        let mut claims = user_claims();
        claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        match read_at(claims, NOW).unwrap() {
            Principal::User(user) => user.groups,
            Principal::Application(_) => panic!("an application"),
        }
    }

    #[test]
    fn a_token_is_accepted_up_to_the_skew_around_its_lifetime_and_not_beyond() {
        let claims = user_claims;
        assert!(read_at(claims(), NOW - 60).is_ok());
        assert_eq!(read_at(claims(), NOW - 61).unwrap_err(), TokenError::NotYetValid);
        assert!(read_at(claims(), NOW + 3600 + 59).is_ok());
        assert_eq!(read_at(claims(), NOW + 3600 + 60).unwrap_err(), TokenError::Expired);
    }

    #[test]
    fn a_token_issued_or_valid_in_the_future_is_refused_whatever_its_other_times() {
        for name in ["iat", "nbf"] {
            let mut claims = user_claims();
            claims[name] = json!(NOW + 61);
            assert_eq!(read_at(claims, NOW).unwrap_err(), TokenError::NotYetValid, "{name}");
        }
    }

    #[test]
    fn absent_or_replaced_groups_are_unknown_and_an_empty_list_is_not() {
        assert_eq!(groups_with(json!({})), Groups::Unknown);
        assert_eq!(groups_with(json!({ "groups": [] })), Groups::Known(BTreeSet::new()));
        assert_eq!(groups_with(json!({ "groups": ["ABC"] })), Groups::Known(BTreeSet::from(["abc".to_owned()])));
        assert_eq!(groups_with(json!({ "hasgroups": true })), Groups::Unknown);
        assert_eq!(groups_with(json!({ "_claim_names": { "groups": "src1" }, "groups": ["abc"] })), Groups::Unknown);
    }

    #[test]
    fn an_application_is_told_from_a_user_by_the_absence_of_scp_and_by_its_subject_or_idtyp() {
        assert!(matches!(read_at(application_claims(), NOW), Ok(Principal::Application(_))));
        let mut by_idtyp = application_claims();
        by_idtyp["sub"] = json!("pairwise");
        assert_eq!(read_at(by_idtyp.clone(), NOW).unwrap_err().reason(), "id_token");
        by_idtyp["idtyp"] = json!("app");
        assert!(matches!(read_at(by_idtyp, NOW), Ok(Principal::Application(_))));
        let mut both = user_claims();
        both["idtyp"] = json!("app");
        assert_eq!(read_at(both, NOW).unwrap_err().reason(), "id_token");
    }

    #[test]
    fn what_is_repeated_to_the_client_stays_within_the_characters_of_rfc_6750() {
        for audience in ["https://other.example/\"", "a\\b", "ü", &"x".repeat(101), "", "a\r\nb"] {
            let mut claims = user_claims();
            claims["aud"] = json!(audience);
            let text = read_at(claims, NOW).unwrap_err().to_string();
            assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E)), "{text}");
            assert!(text.contains("issued for another one, not for this server"), "{text}");
        }
    }
}
