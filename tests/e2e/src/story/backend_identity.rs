//! Identity of the caller at a backend: an assertion that the backend verifies with the companion's key. It is not a
//! token for the companion itself.

use anyhow::{Context, ensure};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};
use testbed::address::{Announced, Pods};
use testbed::chart::BACKEND;
use testbed::stack::AnyNode;

use super::world::World;
use super::{backends, callers};
use crate::report::Evidence;

/// Server of this step.
const NAME: &str = "identity";
/// Tool that returns the message as its backend received it.
const TOOL: &str = "whoami";
/// Member of `_meta` that holds the assertion.
const MEMBER: &str = "dev.mcp-entra/assertion";
/// Value of `typ` in the header of an assertion.
const TOKEN_TYPE: &str = "mcp-entra-assertion+jwt";
/// Port of the companion that serves the key of its assertions.
const ADMIN_PORT: u16 = 8081;

pub(super) async fn is_verified(world: &World) -> anyhow::Result<Evidence> {
    let (_, program) = BACKEND;
    let backend = json!({"transport": "Stdio", "command": [program], "identity": {"assertion": {}}});
    backends::deploy(world, NAME, backend, &[TOOL]).await?;
    let url = world.url_at(&format!("/{NAME}"));
    let alice = world.sign_in(&world.alice).await?.access_token;
    let assertion = received(world, &url, &alice).await?;
    let claims = verified(world, &assertion, &published_keys(world).await?)?;
    let refusal = is_no_token(world, &url, &assertion).await?;
    backends::delete(world, NAME).await?;
    let claim = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    Ok(vec![
        format!(
            "the backend of {} receives from {}: {} calls {}",
            claim("aud"),
            claim("iss"),
            claim("oid"),
            claim("target")
        ),
        "this is alice, and the key of /backend/jwks.json in its pod verifies the signature".to_owned(),
        refusal,
    ])
}

/// Returns the assertion that the backend received, instead of a forged one from the client.
async fn received(world: &World, url: &str, token: &str) -> anyhow::Result<String> {
    let forged = "made.up.here";
    let params = json!({"name": TOOL, "arguments": {}, "_meta": {MEMBER: forged}});
    let answer = callers::call_at(world, url, token, &params).await?;
    let meta =
        answer.body.pointer("/result/structuredContent/meta").with_context(|| format!("no _meta: {answer:?}"))?;
    let assertion = meta.get(MEMBER).and_then(Value::as_str).with_context(|| format!("no assertion: {meta}"))?;
    ensure!(assertion != forged, "the backend receives the client's forged assertion");
    Ok(assertion.to_owned())
}

/// Returns the keys on the admin port of the server's pod.
async fn published_keys(world: &World) -> anyhow::Result<JwkSet> {
    let pod = world.pods_of(NAME).await?.into_iter().next().context("the server has a pod")?;
    let address: Announced = pod.status.and_then(|status| status.pod_ip).context("its pod has an address")?.parse()?;
    let pods = match world.stack.node {
        AnyNode::Containers(_) => Pods::Containers,
        AnyNode::Processes(_) => Pods::Processes,
    };
    let url = format!("http://{}/backend/jwks.json", address.dialable_as(pods, ADMIN_PORT));
    Ok(world.http.get(url).send().await?.error_for_status()?.json().await?)
}

/// Returns the claims, if they show that alice makes this call.
fn verified(world: &World, assertion: &str, keys: &JwkSet) -> anyhow::Result<Value> {
    let header = decode_header(assertion)?;
    ensure!(header.typ.as_deref() == Some(TOKEN_TYPE), "the type of the assertion is {:?}", header.typ);
    let key = header.kid.as_deref().and_then(|kid| keys.find(kid)).context("the key of the assertion")?;
    let server = format!("{}/{NAME}", world.namespace);
    let mut expected = Validation::new(Algorithm::ES256);
    expected.set_audience(&[format!("mcp-entra-backend:{server}")]);
    expected.set_issuer(&[format!("mcp-entra:{server}")]);
    expected.set_required_spec_claims(&["aud", "exp", "iss", "sub"]);
    let claims = decode::<Value>(assertion, &DecodingKey::from_jwk(key)?, &expected)?.claims;
    ensure!(claims.get("oid") == Some(&json!(world.alice.oid)), "the assertion is not about alice: {claims}");
    ensure!(claims.get("target") == Some(&json!(TOOL)), "the assertion is not about the call: {claims}");
    Ok(claims)
}

/// Sends the assertion to the server as a token.
async fn is_no_token(world: &World, url: &str, assertion: &str) -> anyhow::Result<String> {
    let refused = callers::call_at(world, url, assertion, &json!({"name": TOOL, "arguments": {}})).await?;
    ensure!(refused.status == 401, "the assertion is a token for the server: {refused:?}");
    let challenge = refused.challenge.context("a 401 without a challenge")?;
    ensure!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    Ok(format!("as a token at {url} it gets {}, {challenge}", refused.status))
}
