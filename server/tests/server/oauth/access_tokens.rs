//! Tests of access tokens: their content, and that no other token is accepted instead.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use entra_emulator::{Group, Tenant};
use jsonwebtoken::{Algorithm, EncodingKey};
use mcp_entra_policy::{KeyEpoch, KeyEpochs};
use mcp_entra_server::oauth::keys::KeyRing;
use serde_json::{Value, json};
use uuid::Uuid;

use super::by_hand::decoded;
use super::mcp_client::McpClient;
use super::site::{OAuthSetup, OAuthSite};
use crate::harness::grant_to_sales;
use crate::tenant::{ALICE, BOB, control};

/// A token with this header and these claims, signed with the server's own key of an issuer and an epoch.
fn signed(site: &OAuthSite, issuer: &str, epoch: u32, header: &Value, claims: &Value) -> String {
    let keys = KeyEpochs {
        registration: epoch,
        epochs: vec![KeyEpoch { number: epoch, used_from: 0 }],
        after_compromise: None,
    };
    let ring = KeyRing::read(site.site.setup.oauth.keys.as_ref().unwrap(), &keys, issuer).unwrap();
    let message = message(header, claims);
    let signature = ring.signing(i64::MAX).sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn message(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The object with this member.
fn with(object: &Value, name: &str, value: Value) -> Value {
    let mut object = object.clone();
    object[name] = value;
    object
}

/// Returns the status of the answer to a call with this token.
async fn status(site: &OAuthSite, token: &str) -> u16 {
    site.site.rpc(token, "ping", json!({})).await.status().as_u16()
}

#[tokio::test]
async fn a_token_names_user_and_client_and_is_valid_for_ten_minutes() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let answer = client.redeem(&client.code(ALICE).await).await;
    let answer: Value = answer.json().await.unwrap();
    let members: Vec<&str> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, ["access_token", "expires_in", "refresh_token", "scope", "token_type"]);
    assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(600)));
    let (header, claims) = decoded(answer["access_token"].as_str().unwrap());
    let keys = site.document("/mcp/jwks").await;
    assert_eq!(header, json!({ "alg": "ES256", "typ": "at+jwt", "kid": keys["keys"][0]["kid"] }));
    let members: Vec<&str> = claims.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "aud",
        "auth_time",
        "client_id",
        "exp",
        "iat",
        "iss",
        "jti",
        "nbf",
        "oid",
        "roles",
        "scp",
        "sid",
        "sub",
        "tid",
    ];
    assert_eq!(members, expected);
    let alice = site.site.setup.tenant.user_id(ALICE).to_string();
    for (name, expected) in [
        ("iss", json!(site.url(""))),
        ("aud", json!(site.url(""))),
        ("sub", json!(alice)),
        ("oid", json!(alice)),
        ("tid", json!(site.site.setup.tenant.id.to_string())),
        ("scp", json!("mcp.access")),
        ("roles", json!(["Mcp.Reader"])),
        ("nbf", claims["iat"].clone()),
    ] {
        assert_eq!(claims[name], expected, "{name}");
    }
    let time = |name: &str| claims[name].as_i64().unwrap();
    assert_eq!(time("exp") - time("iat"), 600);
    assert!((jiff::Timestamp::now().as_second() - time("iat")).abs() < 60);
    assert!(claims["client_id"].as_str().unwrap().len() < 40, "{claims}");
    let refreshed = super::mcp_client::tokens(client.refresh(answer["refresh_token"].as_str().unwrap()).await).await;
    let (_, later) = decoded(&refreshed.access_token);
    assert_eq!((&later["sid"], &later["auth_time"]), (&claims["sid"], &claims["auth_time"]));
    assert_ne!(later["jti"], claims["jti"]);
}

#[tokio::test]
async fn up_to_forty_groups_are_listed_and_graph_is_asked_for_users_in_more() {
    let mut setup = OAuthSetup::new().await;
    setup.setup.policy.grants = vec![grant_to_sales(&setup.setup.tenant, &["*"])];
    let site = setup.start().await;
    let tenant = &site.site.setup.tenant;
    let bob = tenant.user_id(BOB);
    let join = |number: usize| {
        let group = || Group { id: Uuid::new_v4(), members: vec![bob], ..Group::default() };
        let change = |directory: &mut Tenant| {
            directory.groups.extend((0..number).map(|_| group()));
            Ok(())
        };
        control().change_tenant(tenant.id, change).unwrap();
    };
    let client = McpClient::register(&site).await;
    // Besides the group `Sales`.
    for (more, listed) in [(39, Some(40)), (1, None)] {
        join(more);
        let tokens = client.sign_in(BOB).await;
        let (_, claims) = decoded(&tokens.access_token);
        assert_eq!(claims.get("groups").map(|groups| groups.as_array().unwrap().len()), listed);
        assert!(!site.site.tools(&tokens.access_token).await.is_empty(), "{listed:?}");
    }
}

#[tokio::test]
async fn a_token_with_one_wrong_claim_or_header_is_refused_although_the_signature_holds() {
    let site = OAuthSite::new().await;
    let token = McpClient::register(&site).await.sign_in(ALICE).await.access_token;
    let (header, claims) = decoded(&token);
    let (issuer, now) = (site.url(""), jiff::Timestamp::now().as_second());
    assert_eq!(status(&site, &signed(&site, &issuer, 1, &header, &claims)).await, 200, "the forge is not good");
    for (name, value) in [
        ("aud", json!(site.url("/"))),
        ("aud", json!(site.edge.origin)),
        ("aud", json!("https://evil.example/mcp")),
        ("aud", json!([site.url("")])),
        ("aud", json!(site.site.setup.tenant.server.to_string())),
        ("aud", Value::Null),
        ("exp", json!(now - 3600)),
        ("exp", Value::Null),
        ("exp", json!("4102444800")),
        ("nbf", json!(now + 3600)),
        ("tid", json!(Uuid::new_v4().to_string())),
        ("tid", Value::Null),
        ("oid", Value::Null),
        // An owner of the key with their own session cannot become another user.
        ("oid", json!(site.site.setup.tenant.user_id(BOB).to_string())),
        ("client_id", json!("https://trusted.example/client.json")),
        ("auth_time", json!(now + 1)),
        ("sid", json!(Uuid::new_v4().to_string())),
        ("sid", Value::Null),
        ("iss", json!(site.url("/"))),
        ("iss", json!("https://evil.example")),
        ("iss", Value::Null),
    ] {
        let claims = with(&claims, name, value.clone());
        assert_eq!(status(&site, &signed(&site, &issuer, 1, &header, &claims)).await, 401, "{name} {value}");
    }
    assert_eq!(status(&site, &signed(&site, &issuer, 1, &header, &with(&claims, "scp", json!("other")))).await, 403);
    for (name, value) in [
        ("typ", json!("JWT")),
        ("typ", Value::Null),
        ("alg", json!("ES384")),
        ("alg", json!("none")),
        ("alg", json!("RS256")),
        ("alg", json!("es256")),
        ("kid", json!("unknown")),
        ("kid", Value::Null),
    ] {
        let header = with(&header, name, value.clone());
        assert_eq!(status(&site, &signed(&site, &issuer, 1, &header, &claims)).await, 401, "{name} {value}");
    }
    // The same secret at another issuer, and an unlisted epoch: their keys differ.
    for (issuer, epoch) in [(site.url("/"), 1), ("https://evil.example/mcp".to_owned(), 1), (issuer, 2)] {
        assert_eq!(status(&site, &signed(&site, &issuer, epoch, &header, &claims)).await, 401, "{issuer} {epoch}");
    }
}

#[tokio::test]
async fn an_altered_token_is_refused() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let (alice, bob) = (client.sign_in(ALICE).await.access_token, client.sign_in(BOB).await.access_token);
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (ours, others) = (parts(&alice), parts(&bob));
    let (header, claims) = decoded(&bob);
    let promoted = with(&claims, "roles", json!(["Mcp.Reader"]));
    let bytes = URL_SAFE_NO_PAD.decode(&ours[2]).unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    for (what, token) in [
        ("another signature", format!("{}.{}.{}", ours[0], ours[1], others[2])),
        ("other claims", format!("{}.{}.{}", ours[0], others[1], ours[2])),
        ("a role more", format!("{}.{}", message(&header, &promoted), others[2])),
        ("no signature", format!("{}.{}.", ours[0], ours[1])),
        ("no signature, and alg none", format!("{}.", message(&with(&header, "alg", json!("none")), &promoted))),
        ("a signature of zeros (CVE-2022-21449)", format!("{}.{}.{zeros}", ours[0], ours[1])),
        ("half a signature", format!("{}.{}.{}", ours[0], ours[1], URL_SAFE_NO_PAD.encode(&bytes[..32]))),
        ("standard base64", format!("{}.{}.{}==", ours[0], ours[1], ours[2])),
        ("a part more", format!("{alice}.{}", ours[2])),
        ("two parts", format!("{}.{}", ours[0], ours[1])),
    ] {
        assert_eq!(status(&site, &token).await, 401, "{what}");
    }
    assert_eq!(status(&site, &alice).await, 200);
}

#[tokio::test]
async fn each_issuer_has_its_own_algorithm_and_keys() {
    let site = OAuthSite::new().await;
    let tenant = &site.site.setup.tenant;
    let (header, claims) = decoded(&McpClient::register(&site).await.sign_in(ALICE).await.access_token);
    let direct = tenant.claims(ALICE);
    assert_eq!(status(&site, &tenant.sign(&json!({}), &direct)).await, 200);
    let jwks = site.document("/mcp/jwks").await;
    let key = &jwks["keys"][0];
    let point = ["x", "y"].map(|name| URL_SAFE_NO_PAD.decode(key[name].as_str().unwrap()).unwrap()).concat();
    let uncompressed = [&[4], point.as_slice()].concat();
    // The fixed start of a SubjectPublicKeyInfo of P-256.
    let prefix = URL_SAFE_NO_PAD.decode("MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE").unwrap();
    let der = [prefix.as_slice(), &point].concat();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(&der));
    let hmac = |secret: &[u8]| {
        let message = message(&with(&header, "alg", json!("HS256")), &claims);
        let key = EncodingKey::from_secret(secret);
        format!("{message}.{}", jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap())
    };
    let own_key = json!({ "typ": "at+jwt", "alg": "RS256", "kid": header["kid"] });
    let entras_issuer = with(&claims, "iss", direct["iss"].clone());
    let with_issuer = |issuer: Value| with(&direct, "iss", issuer);
    let issuer = site.url("");
    let ours_with_direct_claims = signed(&site, &issuer, 1, &header, &direct);
    for (what, token) in [
        ("Entra's key, our issuer and claims", tenant.sign(&json!({ "typ": "at+jwt" }), &claims)),
        ("Entra's key under our kid", tenant.sign(&own_key, &claims)),
        (
            "no signature under our kid",
            tenant.sign(&json!({ "typ": "at+jwt", "alg": "none", "kid": header["kid"] }), &claims),
        ),
        ("Entra's key and claims, our issuer", tenant.sign(&json!({}), &with_issuer(json!(issuer)))),
        ("our key, Entra's issuer", signed(&site, &issuer, 1, &header, &entras_issuer)),
        ("our key, Entra's claims", ours_with_direct_claims),
        ("our key as RS256, Entra's claims", signed(&site, &issuer, 1, &with(&header, "alg", json!("RS256")), &direct)),
        ("HS256 with the public key, a PEM", hmac(pem.as_bytes())),
        ("HS256 with the public key, DER", hmac(&der)),
        ("HS256 with the public key, a point", hmac(&uncompressed)),
        ("HS256 with the public key, its JSON", hmac(key.to_string().as_bytes())),
        ("HS256 with nothing", hmac(b"")),
        ("alg none, Entra's issuer", tenant.sign(&json!({ "alg": "none" }), &direct)),
        ("HS256 with Entra's key", tenant.sign(&json!({ "alg": "HS256" }), &direct)),
    ] {
        assert_eq!(status(&site, &token).await, 401, "{what}");
    }
    let embedded = with(&with(&header, "jwk", key.clone()), "jku", json!("https://evil.example/jwks"));
    let stranger = with(&embedded, "kid", json!("stranger"));
    assert_eq!(status(&site, &signed(&site, &site.url(""), 2, &stranger, &claims)).await, 401);
}

#[tokio::test]
async fn other_values_of_the_server_and_of_entra_are_not_access_tokens() {
    let site = OAuthSite::new().await;
    let client = McpClient::register(&site).await;
    let tokens = client.sign_in(ALICE).await;
    let tenant = &site.site.setup.tenant;
    let id_token = Value::Object(control().id_token_claims(tenant.id, tenant.server, ALICE).unwrap());
    let graph = "https://graph.microsoft.com/User.Read";
    for (what, token) in [
        ("the client's id", client.id.clone()),
        ("the refresh token", tokens.refresh_token.clone()),
        ("a code", client.code(ALICE).await),
        ("Entra's ID token", tenant.sign(&json!({}), &id_token)),
        ("a token for Graph", control().mint_user_access_token(tenant.id, tenant.server, ALICE, graph).unwrap()),
        ("the service account's token", std::fs::read_to_string(tenant.token_file()).unwrap()),
    ] {
        assert_eq!(status(&site, &token).await, 401, "{what}");
    }
    // Never from the query string.
    let url = format!("{}?access_token={}", site.url(""), tokens.access_token);
    let answer = site.http.post(url).header("content-type", "application/json").body("{}").send().await.unwrap();
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn direct_tokens_of_entra_work_beside_those_of_the_authorization_server() {
    let site = OAuthSite::new().await;
    let direct = site.site.setup.tenant.token(ALICE);
    let ours = McpClient::register(&site).await.sign_in(ALICE).await.access_token;
    let mut tools: Vec<Vec<String>> = Vec::new();
    let mut lines: Vec<BTreeMap<String, Value>> = Vec::new();
    for token in [&direct, &ours] {
        tools.push(site.site.tools(token).await);
        let answer = site.site.call(token, "get_user_details", json!({})).await;
        let line = site.site.audit_of(&answer).await;
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["result"]["structuredContent"]["displayName"], "Alice Adams", "{answer}");
        lines.push(serde_json::from_value(line).unwrap());
    }
    assert_eq!(tools[0], tools[1]);
    let names = |line: &BTreeMap<String, Value>| line.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&lines[0]), names(&lines[1]));
    let moving = ["time", "requestId", "clientId", "latencyMs"];
    for (name, value) in lines[0].iter().filter(|(name, _)| !moving.contains(&name.as_str())) {
        assert_eq!(value, &lines[1][name], "{name}");
    }
    let bob = site.site.setup.tenant.token(BOB);
    assert!(site.site.tools(&bob).await.is_empty());
}
