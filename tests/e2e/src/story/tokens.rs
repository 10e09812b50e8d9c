//! Tokens that are not for this server. Each differs from a valid one by one change, and all are refused.

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use uuid::Uuid;

use super::callers::call;
use super::world::World;
use crate::report::Evidence;

pub(super) async fn refused(world: &World) -> anyhow::Result<Evidence> {
    let tokens = world.sign_in(&world.alice).await?;
    let good = &tokens.access_token;
    let id_token = tokens.id_token.context("openid was requested")?;
    let answer = call(world, good, "get_user_details").await?;
    ensure!(answer.is_tool_result(), "the original of the other tokens is refused: {answer:?}");
    let asked_of_graph = graph_requests(world);

    let mut evidence = Vec::new();
    let mut bad = bad_tokens(world, good).await?;
    bad.push(("an ID token", id_token));
    for (what, token) in bad {
        let answer = call(world, &token, "get_user_details").await?;
        ensure!(answer.status == 401, "{what}: {answer:?}");
        let challenge = answer.challenge.context("a 401 without a challenge")?;
        ensure!(challenge.contains("error=\"invalid_token\""), "{what}: {challenge}");
        let described = challenge.split("error_description=\"").nth(1).and_then(|rest| rest.split('"').next());
        evidence.push(format!("{what}: 401, {}", described.unwrap_or_default()));
    }
    let answer = call(world, &app_only(world, good)?, "get_user_details").await?;
    ensure!(matches!(answer.status, 401 | 403), "an app-only token without permission: {answer:?}");
    evidence.push(format!("an app-only token without permission: {}", answer.status));
    ensure!(graph_requests(world) == asked_of_graph, "one of these tokens reached Graph");
    Ok(evidence)
}

/// Returns the number of requests to Graph for alice.
fn graph_requests(world: &World) -> usize {
    let requests = world.stack.entra.control().requests();
    requests
        .iter()
        .filter(|request| request.user == Some(world.alice.oid) && request.path.starts_with("/v1.0/"))
        .count()
}

async fn bad_tokens(world: &World, good: &str) -> anyhow::Result<Vec<(&'static str, String)>> {
    let (header, claims) = (part(good, 0)?, part(good, 1)?);
    let now = jiff::Timestamp::now().as_second();
    let other_tenant = Uuid::new_v4();
    let issuer = format!("{}/{other_tenant}/v2.0", world.stack.entra.authority());
    let changed = |change: Value| {
        let mut claims = claims.clone();
        super::world::merge(&mut claims, &change);
        world.stack.entra.control().sign(world.tenant, &json!({}), &claims)
    };
    let kid = header.get("kid").and_then(Value::as_str).context("a kid")?;
    let graph = world.sign_in_for(&world.alice, &["https://graph.microsoft.com/User.Read"]).await?;
    Ok(vec![
        ("a wrong audience", changed(json!({"aud": Uuid::new_v4()}))?),
        ("another tenant", changed(json!({"tid": other_tenant, "iss": issuer}))?),
        ("a wrong issuer", changed(json!({"iss": issuer}))?),
        ("a wrong key", signed_by_a_stranger(kid, &claims)?),
        ("algorithm none", unsigned(&claims)),
        ("HS256 with the public key", signed_with_the_public_key(world, kid, &claims).await?),
        ("expired", changed(json!({"iat": now - 7200, "nbf": now - 7200, "exp": now - 3600}))?),
        ("not yet valid", changed(json!({"nbf": now + 3600, "exp": now + 7200}))?),
        ("a Graph token", graph.access_token),
    ])
}

fn app_only(world: &World, good: &str) -> anyhow::Result<String> {
    let mut claims = part(good, 1)?;
    let members = claims.as_object_mut().context("claims are an object")?;
    for user_only in ["scp", "roles", "groups", "name", "preferred_username"] {
        members.remove(user_only);
    }
    let object = json!(Uuid::new_v4());
    members.extend([("oid".into(), object.clone()), ("sub".into(), object), ("idtyp".into(), json!("app"))]);
    world.stack.entra.control().sign(world.tenant, &json!({}), &claims)
}

pub(super) fn part(token: &str, index: usize) -> anyhow::Result<Value> {
    let part = token.split('.').nth(index).context("a JWT has three parts")?;
    Ok(serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part)?)?)
}

fn signed_by_a_stranger(kid: &str, claims: &Value) -> anyhow::Result<String> {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::RS256) };
    Ok(jsonwebtoken::encode(&header, claims, &EncodingKey::from_rsa_pem(key.serialize_pem().as_bytes())?)?)
}

fn unsigned(claims: &Value) -> String {
    let encode = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", encode(&json!({"alg": "none", "typ": "JWT"})), encode(claims))
}

/// Forges a token with the confusion of RFC 8725 section 2.1: a verifier that trusts the token's algorithm uses the
/// public key as a shared secret.
async fn signed_with_the_public_key(world: &World, kid: &str, claims: &Value) -> anyhow::Result<String> {
    let address = format!("{}/{}/discovery/v2.0/keys", world.stack.entra.authority(), world.tenant);
    let keys: Value = world.http.get(address).send().await?.error_for_status()?.json().await?;
    let keys = keys.get("keys").and_then(Value::as_array).context("a key set")?;
    let key = keys.iter().find(|key| key.get("kid") == Some(&json!(kid))).context("the key that signed")?;
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(key.get("n").and_then(Value::as_str).unwrap_or_default())?;
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::HS256) };
    Ok(jsonwebtoken::encode(&header, claims, &EncodingKey::from_secret(&modulus))?)
}
