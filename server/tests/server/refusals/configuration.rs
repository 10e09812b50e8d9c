//! Tests of Entra's documents: unusable keys beside usable ones, and unusable documents.

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use serde_json::{Value, json};

use super::case::{Case, Category, Change};
use super::forge::{Forge, KEY_ID, PUBLISHED};
use crate::tenant::{TestTenant, control};

const DISCOVERY: &str = "/v2.0/.well-known/openid-configuration";
const KEYS: &str = "/discovery/v2.0/keys";
/// More than the number of requests in any test.
const ALWAYS: u32 = 10_000;

/// The forge's key under other ids, published for other issuers than the tenant's.
pub(super) const KEYS_OF_OTHER_ISSUERS: [(&str, &str); 8] = [
    ("for-another-tenant", "https://localhost/aaaa0000-0000-4000-8000-000000000003/v2.0"),
    ("for-the-public-cloud", "https://login.microsoftonline.com/{tenantid}/v2.0"),
    ("for-the-us-government", "https://login.microsoftonline.us/{tenantid}/v2.0"),
    ("for-version-1", "https://sts.windows.net/{tenantid}/"),
    ("for-any-host", "{tenantid}"),
    ("for-no-issuer", ""),
    ("for-an-unfilled-template", "https://localhost/{tenantId}/v2.0"),
    ("for-another-domain", "https://localhost.evil.example/{tenantid}/v2.0"),
];

/// The forge's key under other ids, each published with one member that makes it unusable; `null` removes the member.
fn defects() -> Vec<(&'static str, &'static str, Value)> {
    let modulus = PUBLISHED.modulus();
    vec![
        ("an-elliptic-curve", "kty", json!("EC")),
        ("a-shared-secret", "kty", json!("oct")),
        ("an-unknown-type", "kty", json!("XYZ")),
        ("a-type-in-lower-case", "kty", json!("rsa")),
        ("no-type", "kty", json!(null)),
        ("for-encryption", "use", json!("enc")),
        ("for-an-unknown-use", "use", json!("tls")),
        ("for-rs512", "alg", json!("RS512")),
        ("for-hs256", "alg", json!("HS256")),
        ("no-modulus", "n", json!(null)),
        ("an-empty-modulus", "n", json!("")),
        ("a-modulus-of-bad-base64", "n", json!(format!("{}!", &modulus[1..]))),
        ("a-padded-modulus", "n", json!(format!("{modulus}=="))),
        ("a-modulus-of-1024-bits", "n", json!(&modulus[..172])),
        ("a-modulus-that-is-a-number", "n", json!(65537)),
        ("no-exponent", "e", json!(null)),
        ("an-empty-exponent", "e", json!("")),
        ("an-exponent-of-bad-base64", "e", json!("A?AB")),
        ("an-exponent-that-is-a-number", "e", json!(65537)),
        ("issuers-in-a-list", "issuer", json!(["https://localhost/{tenantid}/v2.0"])),
        ("of-another-cloud", "cloud_instance_name", json!("microsoftonline.us")),
        ("of-a-cloud-in-a-list", "cloud_instance_name", json!(["microsoftonline.com"])),
    ]
}

/// Makes the tenant publish the forge's key besides its own, and all unusable keys.
pub(super) fn publish(tenant: &TestTenant, forge: &Forge) {
    let issuer = forge.issuer.replace(&tenant.id.to_string(), "{tenantid}");
    let mut document = forge.published.clone();
    let keys = document["keys"].as_array_mut().unwrap();
    keys.push(PUBLISHED.published_as(KEY_ID, &issuer));
    keys.extend(KEYS_OF_OTHER_ISSUERS.map(|(kid, issuer)| PUBLISHED.published_as(kid, issuer)));
    for (kid, member, value) in defects() {
        let mut key = PUBLISHED.published_as(kid, &issuer);
        match value {
            Value::Null => _ = key.as_object_mut().unwrap().remove(member),
            value => key[member] = value,
        }
        keys.push(key);
    }
    keys.extend([PUBLISHED.published_as("twice", &issuer), PUBLISHED.published_as("twice", &issuer)]);
    keys.extend([json!(null), json!("key"), json!([]), json!({})]);
    answer(tenant, KEYS, 200, document.to_string());
}

pub(super) fn cases() -> Vec<Case> {
    let unusable = defects().into_iter().map(|(kid, ..)| kid).chain(["twice"]);
    unusable
        .map(|kid| {
            let change = Change::Header("kid", Some(json!(kid)));
            Case::new(Category::Configuration, format!("a published key with {kid}"), change, "unknown_key")
        })
        .collect()
}

/// Unusable documents.
#[derive(Clone, Copy, Debug)]
pub(super) enum Document {
    DiscoveryUnavailable,
    DiscoveryMoved,
    DiscoveryOfNoJson,
    DiscoveryWithoutKeys,
    DiscoveryTwice,
    DiscoveryOfAnotherIssuer,
    DiscoveryOfTheTemplate,
    KeysElsewhere,
    KeysByHttp,
    KeysUnavailable,
    KeysMoved,
    KeysOfNoJson,
    KeysWithoutList,
    KeysEmpty,
    KeysTwice,
    KeysOfUnknownType,
    KeysTooLong,
}

impl Document {
    pub(super) const ALL: [Self; 17] = [
        Self::DiscoveryUnavailable,
        Self::DiscoveryMoved,
        Self::DiscoveryOfNoJson,
        Self::DiscoveryWithoutKeys,
        Self::DiscoveryTwice,
        Self::DiscoveryOfAnotherIssuer,
        Self::DiscoveryOfTheTemplate,
        Self::KeysElsewhere,
        Self::KeysByHttp,
        Self::KeysUnavailable,
        Self::KeysMoved,
        Self::KeysOfNoJson,
        Self::KeysWithoutList,
        Self::KeysEmpty,
        Self::KeysTwice,
        Self::KeysOfUnknownType,
        Self::KeysTooLong,
    ];

    /// Makes the tenant answer with this document from now on.
    pub(super) fn answer(self, tenant: &TestTenant) {
        let entra = tenant.configuration().entra;
        let (authority, id) = (&entra.authority, &entra.tenant_id);
        let (issuer, keys) = (format!("{authority}/{id}/v2.0"), format!("{authority}/{id}{KEYS}"));
        let discovery = |issuer: &str, keys: &str| json!({ "issuer": issuer, "jwks_uri": keys }).to_string();
        let (path, status, body) = match self {
            Self::DiscoveryUnavailable => (DISCOVERY, 503, String::new()),
            Self::DiscoveryMoved => (DISCOVERY, 302, String::new()),
            Self::DiscoveryOfNoJson => (DISCOVERY, 200, "<html>".to_owned()),
            Self::DiscoveryWithoutKeys => (DISCOVERY, 200, json!({ "issuer": issuer }).to_string()),
            Self::DiscoveryTwice => {
                (DISCOVERY, 200, discovery(&issuer, &keys).replacen('{', &format!(r#"{{"issuer":"{issuer}","#), 1))
            }
            Self::DiscoveryOfAnotherIssuer => (DISCOVERY, 200, discovery(&format!("{issuer}/"), &keys)),
            Self::DiscoveryOfTheTemplate => {
                (DISCOVERY, 200, discovery(&format!("{authority}/{{tenantid}}/v2.0"), &keys))
            }
            Self::KeysElsewhere => (DISCOVERY, 200, discovery(&issuer, "https://elsewhere.example/keys")),
            Self::KeysByHttp => (DISCOVERY, 200, discovery(&issuer, &keys.replace("https:", "http:"))),
            Self::KeysUnavailable => (KEYS, 500, String::new()),
            Self::KeysMoved => (KEYS, 307, String::new()),
            Self::KeysOfNoJson => (KEYS, 200, "<html>".to_owned()),
            Self::KeysWithoutList => (KEYS, 200, r#"{"keys":{}}"#.to_owned()),
            Self::KeysEmpty => (KEYS, 200, r#"{"keys":[]}"#.to_owned()),
            Self::KeysTwice => (KEYS, 200, r#"{"keys":[],"keys":[]}"#.to_owned()),
            Self::KeysOfUnknownType => (KEYS, 200, json!({ "keys": [{ "kty": "XYZ", "kid": "x" }] }).to_string()),
            Self::KeysTooLong => (KEYS, 200, format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(1024 * 1024))),
        };
        answer(tenant, path, status, body);
    }
}

fn answer(tenant: &TestTenant, path: &str, status: u16, body: String) {
    let matcher = Matcher {
        host: Some(Host::Authority),
        tenant: Some(tenant.id),
        path: Some(path.to_owned()),
        ..Matcher::default()
    };
    let kind = FaultKind::Status { status, headers: [].into(), body };
    control().inject(Fault { matcher, times: ALWAYS, kind }).unwrap();
}
