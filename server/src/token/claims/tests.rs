//! Tests of each claim and of exact time limits.

use serde_json::json;

use super::*;
use crate::token::keys::Key;
use crate::token::keys::tests::published;

const TENANT: &str = "8f6b0000-0000-4000-8000-000000000001";
const CLIENT: &str = "1c2d0000-0000-4000-8000-000000000002";
const CALLER: &str = "bbbb0000-0000-4000-8000-000000000004";
pub(in crate::token) const NOW: u64 = 1_800_000_000;

/// Returns the expectation of a server with these changes to `entra`.
pub(in crate::token) fn expected_with(changes: &Value) -> Expected {
    let mut configuration = json!({
        "server": { "namespace": "productivity", "name": "graph" },
        "path": "/mcp",
        "entra": {
            "tenantId": TENANT, "clientId": CLIENT, "authority": "https://login.example",
            "requiredScopes": ["mcp.access"],
        },
        "graph": { "baseUrl": "https://graph.example", "scopes": ["User.Read"], "tools": [] },
        "probe": { "intervalSeconds": 300 },
    });
    configuration["entra"].as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    let configuration: ServerConfiguration = serde_json::from_value(configuration).unwrap();
    configuration.validate().unwrap();
    Expected::new(&configuration)
}

pub(in crate::token) fn user_claims() -> Value {
    json!({
        "ver": "2.0", "iss": format!("https://login.example/{TENANT}/v2.0"), "aud": CLIENT, "tid": TENANT,
        "oid": "aaaa0000-0000-4000-8000-000000000003", "sub": "pairwise",
        "azp": CALLER, "scp": "profile mcp.access", "roles": ["Mcp.Reader"],
        "iat": NOW, "nbf": NOW, "exp": NOW + 3600,
    })
}

fn application_claims() -> Value {
    let mut claims = user_claims();
    claims.as_object_mut().unwrap().remove("scp");
    claims["sub"] = claims["oid"].clone();
    claims
}

/// Converts the claims to those of a version 1 token.
fn as_version_1(mut claims: Value) -> Value {
    let object = claims.as_object_mut().unwrap();
    let client = object.remove("azp").unwrap();
    object.insert("appid".into(), client);
    object.insert("ver".into(), json!("1.0"));
    object.insert("iss".into(), json!(format!("https://sts.windows.net/{TENANT}/")));
    claims
}

fn with(mut claims: Value, changes: Value) -> Value {
    claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    claims
}

fn key() -> Arc<Key> {
    Key::for_test(published())
}

fn read(claims: Value, expected: &Expected, now: u64) -> Result<Principal, TokenError> {
    principal(&VerifiedClaims::for_test(claims, key()), Assertion::for_test(), expected, now)
}

fn read_at(claims: Value, now: u64) -> Result<Principal, TokenError> {
    read(claims, &expected_with(&json!({})), now)
}

fn user(claims: Value, expected: &Expected) -> User {
    match read(claims, expected, NOW).unwrap() {
        Principal::User(user) => user,
        Principal::Application(_) | Principal::LocalUser(_) => panic!("an application"),
    }
}

fn groups_with(change: Value, source: &str) -> Groups {
    user(with(user_claims(), change), &expected_with(&json!({ "groups": source }))).caller.groups.clone()
}

#[test]
fn a_token_is_accepted_up_to_the_skew_around_its_lifetime_and_not_beyond() {
    let claims = user_claims;
    assert!(read_at(claims(), NOW - 60).is_ok());
    assert_eq!(read_at(claims(), NOW - 61).unwrap_err(), TokenError::NotYetValid { in_seconds: 61 });
    assert!(read_at(claims(), NOW + 3600 + 59).is_ok());
    assert_eq!(read_at(claims(), NOW + 3600 + 60).unwrap_err(), TokenError::Expired { seconds_ago: 60 });
}

#[test]
fn a_token_that_is_issued_or_valid_in_the_future_is_refused() {
    for name in ["iat", "nbf"] {
        let claims = with(user_claims(), json!({ name: NOW + 61 }));
        assert_eq!(read_at(claims, NOW).unwrap_err(), TokenError::NotYetValid { in_seconds: 61 }, "{name}");
    }
}

#[test]
fn absent_named_or_replaced_groups_are_unknown_and_an_empty_list_is_not() {
    let none = Groups::Known(CompactSet::default());
    for source in ["Resolve", "InToken"] {
        assert_eq!(groups_with(json!({ "groups": [] }), source), none);
        let sales = "5A1E0000-0000-4000-8000-00000000000C";
        let known = Groups::Known([sales.parse::<Uuid>().unwrap()].into_iter().collect());
        assert_eq!(groups_with(json!({ "groups": [sales] }), source), known);
        for name in [
            "CONTOSO\\Sales",
            "contoso.com\\Sales",
            "Sales",
            "",
            "S-1-5-21-1004336348-1177238915-682003330-512",
            "5a1e000000004000800000000000000c",
            "{5a1e0000-0000-4000-8000-00000000000c}",
        ] {
            for list in [json!([name]), json!([sales, name]), json!([name, sales])] {
                assert_eq!(groups_with(json!({ "groups": list }), source), Groups::Unknown, "{name}");
            }
        }
        assert_eq!(groups_with(json!({ "hasgroups": true }), source), Groups::Unknown);
        let overage = json!({ "_claim_names": { "groups": "src1" }, "groups": ["abc"] });
        assert_eq!(groups_with(overage, source), Groups::Unknown);
    }
    assert_eq!(groups_with(json!({}), "Resolve"), Groups::Unknown);
    assert_eq!(groups_with(json!({}), "InToken"), none, "the configuration says that the token lists all that matter");
}

#[test]
fn an_application_is_recognized_by_the_absence_of_scp_and_by_its_subject_or_idtyp() {
    let reason = |claims| read_at(claims, NOW).unwrap_err().reason();
    assert!(matches!(read_at(application_claims(), NOW), Ok(Principal::Application(_))));
    let pairwise = with(application_claims(), json!({ "sub": "pairwise" }));
    assert_eq!(reason(pairwise.clone()), "id_token");
    assert!(matches!(read_at(with(pairwise, json!({ "idtyp": "app" })), NOW), Ok(Principal::Application(_))));
    assert_eq!(reason(with(application_claims(), json!({ "idtyp": "user" }))), "id_token");
    assert_eq!(reason(with(user_claims(), json!({ "idtyp": "app" }))), "neither_user_nor_application");
    assert_eq!(reason(with(application_claims(), json!({ "scp": "" }))), "neither_user_nor_application");
    assert!(matches!(read_at(with(user_claims(), json!({ "idtyp": "user" })), NOW), Ok(Principal::User(_))));
}

#[test]
fn a_scope_is_not_a_role_and_a_role_is_not_a_scope() {
    let role_named_like_the_scope = with(user_claims(), json!({ "scp": "profile", "roles": ["mcp.access"] }));
    assert_eq!(read_at(role_named_like_the_scope, NOW).unwrap_err().reason(), "scope_missing");
    let scope_named_like_the_role = with(user_claims(), json!({ "scp": "mcp.access Mcp.Reader", "roles": [] }));
    assert!(user(scope_named_like_the_role, &expected_with(&json!({}))).caller.roles.is_empty());
}

#[test]
fn a_guest_is_recognized_by_acct_or_by_the_identity_provider() {
    let own = [format!("https://sts.windows.net/{TENANT}/"), format!("https://login.example/{TENANT}/v2.0")];
    let table = [
        (json!({}), Membership::Member),
        (json!({ "idp": own[0] }), Membership::Member),
        (json!({ "idp": own[1] }), Membership::Member),
        (json!({ "idp": "https://sts.windows.net/9999/" }), Membership::Guest),
        (json!({ "idp": "live.com" }), Membership::Guest),
        (json!({ "idp": null }), Membership::Guest),
        (json!({ "acct": 0 }), Membership::Member),
        (json!({ "acct": 1 }), Membership::Guest),
        (json!({ "acct": "0" }), Membership::Guest),
        // A guest account that became a member of this tenant, and the reverse.
        (json!({ "acct": 0, "idp": "https://sts.windows.net/9999/" }), Membership::Member),
        (json!({ "acct": 1, "idp": own[0] }), Membership::Guest),
    ];
    for (change, membership) in table {
        let read = user(with(user_claims(), change.clone()), &expected_with(&json!({}))).membership;
        assert_eq!(read, membership, "{change}");
    }
}

#[test]
fn only_allowed_clients_may_call_for_a_user_or_as_an_application_by_the_claim_of_their_version() {
    let another = "cccc0000-0000-4000-8000-000000000005";
    let expected =
        |clients: &[&str]| expected_with(&json!({ "allowedClients": clients, "tokenVersions": ["V1", "V2"] }));
    for claims in [user_claims(), application_claims()] {
        for claims in [claims.clone(), as_version_1(claims)] {
            read(claims.clone(), &expected(&[]), NOW).unwrap();
            read(claims.clone(), &expected(&[another, CALLER]), NOW).unwrap();
            let error = read(claims, &expected(&[another]), NOW).unwrap_err();
            assert_eq!(error, TokenError::Client { client: CALLER.to_owned() });
        }
    }
    // Entra emits only one of these claims. The claim of the other version has no effect.
    let both = with(user_claims(), json!({ "appid": another }));
    assert_eq!(read(both, &expected(&[another]), NOW).unwrap_err().reason(), "client_not_allowed");
    let other_claim = with(as_version_1(user_claims()), json!({ "appid": null, "azp": CALLER }));
    assert_eq!(read(other_claim, &expected(&[]), NOW).unwrap_err(), TokenError::Claim("appid"));
}

#[test]
fn a_token_version_is_accepted_if_enabled_and_only_from_its_own_issuer() {
    let (version_1, version_2) = (as_version_1(user_claims()), user_claims());
    let reason = |claims: &Value, versions: Value| match read(
        claims.clone(),
        &expected_with(&json!({ "tokenVersions": versions })),
        NOW,
    ) {
        Ok(_) => "accepted",
        Err(error) => error.reason(),
    };
    assert_eq!(reason(&version_1, json!(["V1"])), "accepted");
    assert_eq!(reason(&version_1, json!(["V1", "V2"])), "accepted");
    assert_eq!(reason(&version_1, json!(["V2"])), "version_1_token");
    assert_eq!(reason(&version_2, json!(["V2"])), "accepted");
    assert_eq!(reason(&version_2, json!(["V1"])), "version_2_token");
    for (claims, other) in [(&version_1, &version_2), (&version_2, &version_1)] {
        let crossed = with(claims.clone(), json!({ "iss": other["iss"] }));
        assert_eq!(reason(&crossed, json!(["V1", "V2"])), "another_issuer");
    }
}

#[test]
fn a_key_verifies_only_tokens_of_its_own_issuers_in_either_version() {
    let expected = expected_with(&json!({ "tokenVersions": ["V1", "V2"] }));
    let issuers = [
        ("https://login.example/{tenantid}/v2.0".to_owned(), true),
        (format!("https://login.example/{TENANT}/v2.0"), true),
        ("https://login.example/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0".to_owned(), false),
        ("https://login.elsewhere/{tenantid}/v2.0".to_owned(), false),
        ("https://sts.windows.net/{tenantid}/".to_owned(), false),
        ("{tenantid}".to_owned(), false),
        (String::new(), false),
    ];
    for claims in [user_claims(), as_version_1(user_claims())] {
        for (issuer, good) in &issuers {
            let mut published = published();
            published["issuer"] = json!(issuer);
            let verified = VerifiedClaims::for_test(claims.clone(), Key::for_test(published));
            let result = principal(&verified, Assertion::for_test(), &expected, NOW);
            assert_eq!(result.is_ok(), *good, "{issuer}");
            assert!(*good || result.unwrap_err() == TokenError::KeyIssuer, "{issuer}");
        }
    }
}

#[test]
fn text_for_the_client_has_only_characters_of_rfc_6750() {
    for audience in ["https://other.example/\"", "a\\b", "ü", &"x".repeat(101), "", "a\r\nb"] {
        let text = read_at(with(user_claims(), json!({ "aud": audience })), NOW).unwrap_err().to_string();
        assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5B | 0x5D..=0x7E)), "{text}");
        assert!(text.contains("issued for another one, not for this server"), "{text}");
    }
}
