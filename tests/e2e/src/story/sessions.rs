//! Sign-ins with an insufficient token: it does not list the user's groups, lacks the authentication context that a
//! mapping requires, or belongs to a revoked session.

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use entra_emulator::User;
use serde_json::{Value, json};

use super::callers::{Answer, apply_sales_mapping, call};
use super::world::World;
use crate::report::Evidence;

/// Authentication context that a mapping requires.
const CONTEXT: &str = "c1";
const TOOL: &str = "get_user_details";
/// Mapping of [`apply_sales_mapping`].
const MAPPING: &str = "sales";

pub(super) async fn overage(world: &World) -> anyhow::Result<Evidence> {
    let token = world.sign_in(&world.carol).await?.access_token;
    let claims = super::tokens::part(&token, 1)?;
    ensure!(claims.get("groups").is_none(), "carol's token lists her groups");
    ensure!(claims.pointer("/_claim_names/groups").is_some(), "carol's token does not say that she has groups");
    let status = || async { Ok(call(world, &token, TOOL).await?.status) };
    world.eventually("carol is refused before the mapping", status, |status| *status == 403).await?;

    apply_sales_mapping(world, &json!({})).await?;
    world.eventually("carol may call", status, |status| *status == 200).await?;
    let requests = world.stack.entra.control().requests();
    let asked = requests.iter().find(|request| {
        request.user == Some(world.carol.oid) && request.path.ends_with("/checkMemberGroups") && request.status == 200
    });
    asked.context("Graph got no request for carol's groups")?;

    world.kubectl(&["delete", "mcprolemapping", MAPPING]).await?;
    world.eventually("carol may no longer call", status, |status| *status == 403).await?;
    Ok(vec![
        "carol's token names no group: she has more than 200".to_owned(),
        "Graph was asked, as carol, for the mapping's group; with it she could call, and without it she could not"
            .to_owned(),
    ])
}

pub(super) async fn step_up(world: &World) -> anyhow::Result<Evidence> {
    apply_sales_mapping(world, &json!({"require": {"authenticationContext": CONTEXT}})).await?;
    let before = sign_in(world, &world.bob, json!({})).await?;
    let answer = || call(world, &before, TOOL);
    let (challenged, _) = world.eventually("bob is challenged", answer, |answer| answer.status == 401).await?;
    let claims = challenge(&challenged)?;
    ensure!(claims.pointer("/acrs/value") == Some(&json!(CONTEXT)), "{claims}");

    let other = sign_in(world, &world.bob, json!({"acrs": {"essential": true, "value": "c2"}})).await?;
    let refused = call(world, &other, TOOL).await?;
    ensure!(!refused.is_tool_result(), "another context gives bob access: {refused:?}");
    let after = sign_in(world, &world.bob, claims.clone()).await?;
    let answer = call(world, &after, TOOL).await?;
    ensure!(answer.is_tool_result(), "bob is refused after he met the challenge: {answer:?}");

    world.kubectl(&["delete", "mcprolemapping", MAPPING]).await?;
    let status = || async { Ok(call(world, &after, TOOL).await?.status) };
    world.eventually("bob may no longer call", status, |status| *status == 403).await?;
    Ok(vec![
        format!("401, WWW-Authenticate: {}", challenged.challenge.unwrap_or_default()),
        format!("its claims: {claims}"),
        "bob signed in again with these claims, and could call; with another context he could not".to_owned(),
    ])
}

pub(super) async fn revoked(world: &World) -> anyhow::Result<Evidence> {
    let before = sign_in(world, &world.alice, json!({})).await?;
    let answer = call(world, &before, TOOL).await?;
    ensure!(answer.is_tool_result(), "alice is refused: {answer:?}");
    world.stack.entra.control().revoke(world.tenant, world.alice.oid)?;
    let challenged = call(world, &before, TOOL).await?;
    let claims = challenge(&challenged)?;
    ensure!(claims.pointer("/nbf/value").is_some(), "{claims}");

    let after = sign_in(world, &world.alice, claims.clone()).await?;
    let answer = call(world, &after, TOOL).await?;
    ensure!(answer.is_tool_result(), "alice is refused after she signed in again: {answer:?}");
    let again = call(world, &before, TOOL).await?;
    ensure!(!again.is_tool_result(), "the token of the revoked session works again: {again:?}");
    Ok(vec![
        format!("401, WWW-Authenticate: {}", challenged.challenge.unwrap_or_default()),
        format!("its claims, as in Graph's challenge: {claims}"),
        "alice signed in again with these claims, and could call; the old token stayed refused".to_owned(),
    ])
}

/// Signs a user in as a client that supports claims challenges, and answers one.
async fn sign_in(world: &World, person: &User, access_token: Value) -> anyhow::Result<String> {
    let mut claims = json!({"access_token": {"xms_cc": {"values": ["cp1"]}}});
    super::world::merge(&mut claims, &json!({"access_token": access_token}));
    Ok(world.sign_in_with(person, &claims).await?.access_token)
}

/// Returns the claims for the access token from an answer's challenge.
fn challenge(answer: &Answer) -> anyhow::Result<Value> {
    let header = answer.challenge.as_deref().unwrap_or_default();
    ensure!(
        answer.status == 401 && header.contains("error=\"insufficient_claims\""),
        "no claims challenge: {answer:?}"
    );
    let encoded = header.split("claims=\"").nth(1).and_then(|rest| rest.split('"').next());
    let encoded = encoded.with_context(|| format!("no claims: {header}"))?;
    let claims: Value = serde_json::from_slice(&BASE64_STANDARD.decode(encoded)?)?;
    claims.get("access_token").cloned().with_context(|| format!("no claims of the access token: {claims}"))
}
