//! Federated credential: requested before it exists, detected after its creation, reported as missing after its
//! removal.

use anyhow::{Context, ensure};
use entra_emulator::{FederatedCredential, LoggedRequest};
use mcp_entra_crds::ConditionType;

use super::callers;
use super::server::listed;
use super::world::{SERVER, World};
use crate::report::Evidence;

const NAME: &str = "kubernetes";

pub(super) async fn comes_true(world: &World) -> anyhow::Result<Evidence> {
    let before = world.condition(ConditionType::FederationReady, "False").await?;
    ensure!(before.message.contains("AADSTS70025"), "no AADSTS code in: {}", before.message);
    ensure!(before.message.contains(&world.subject()), "the message does not name the subject: {}", before.message);

    let credential = credential(world).await?;
    ensure!(credential.subject == world.subject(), "status.federation.subject is {}", credential.subject);
    ensure!(credential.issuer == world.stack.control_plane.issuer(), "the issuer is {}", credential.issuer);
    let mut evidence = vec![
        format!("before: {}", before.message),
        format!("status.federation: issuer {}, subject {}", credential.issuer, credential.subject),
    ];
    evidence.push(restore(world, credential).await?);
    evidence.extend(listed(world).await?);
    Ok(evidence)
}

/// Returns the exact credential that `status.federation` requires.
async fn credential(world: &World) -> anyhow::Result<FederatedCredential> {
    credential_of(world, SERVER, NAME).await
}

async fn credential_of(world: &World, server: &str, name: &str) -> anyhow::Result<FederatedCredential> {
    let told = || async { Ok(world.server_named(server).await?.status.and_then(|status| status.federation)) };
    let known = |told: &Option<_>| {
        told.as_ref().is_some_and(|told: &mcp_entra_crds::FederatedCredential| told.issuer.is_some())
    };
    let (told, _) = world.eventually("status.federation with an issuer", told, known).await?;
    let told = told.context("eventually only returns a success")?;
    Ok(FederatedCredential {
        name: name.into(),
        issuer: told.issuer.unwrap_or_default(),
        subject: told.subject,
        audience: told.audience,
    })
}

/// Lets other servers share the server's app registration. Both have to agree.
pub(super) async fn share(world: &World) -> anyhow::Result<()> {
    let share = r#"{"spec":{"entra":{"sharedClientId":true}}}"#;
    world.kubectl(&["patch", "mcpserver", SERVER, "--type=merge", "-p", share]).await.map(drop)
}

/// Creates the credential that another server of this app registration needs.
pub(super) async fn allow(world: &World, server: &str) -> anyhow::Result<()> {
    let credential = credential_of(world, server, server).await?;
    world.stack.entra.control().add_federated_credential(world.tenant, world.server_app, credential)
}

/// Creates the credential, waits for the condition, and shows that an exchange caused it.
async fn restore(world: &World, credential: FederatedCredential) -> anyhow::Result<String> {
    let control = world.stack.entra.control();
    let exchanges = || {
        let works = |request: &&LoggedRequest| {
            request.grant_type.as_deref() == Some("client_credentials")
                && request.tenant == Some(world.tenant)
                && request.federated.as_ref().is_some_and(|federated| federated.subject == world.subject())
                && request.status == 200
        };
        control.requests().iter().filter(works).count()
    };
    let before = exchanges();
    control.add_federated_credential(world.tenant, world.server_app, credential)?;
    world.condition(ConditionType::FederationReady, "True").await?;
    ensure!(exchanges() > before, "FederationReady is True, and Entra saw no exchange");
    Ok("created in Entra: FederationReady=True, from an exchange in Entra's log".to_owned())
}

pub(super) async fn is_revoked_and_restored(world: &World) -> anyhow::Result<Evidence> {
    let credential = credential(world).await?;
    let alice = world.sign_in(&world.alice).await?.access_token;
    let answer = callers::call(world, &alice, "get_user_details").await?;
    ensure!(answer.status == 200, "alice cannot call before: {answer:?}");

    world.stack.entra.control().remove_federated_credential(world.tenant, world.server_app, NAME)?;
    let gone = world.condition(ConditionType::FederationReady, "False").await?;
    ensure!(gone.message.contains("AADSTS7002"), "no AADSTS code in: {}", gone.message);
    let ready = world.condition(ConditionType::Ready, "False").await?;
    let answer = callers::call(world, &alice, "get_user_details").await?;
    ensure!(answer.is_tool_result(), "the cache for alice ended with the credential: {answer:?}");

    let restored = restore(world, credential).await?;
    world.condition(ConditionType::Ready, "True").await?;
    Ok(vec![
        format!("removed: {}", gone.message),
        format!("{SERVER} is not Ready ({}), while alice keeps her cached results", ready.reason),
        restored,
    ])
}
