//! Each step of the demo's story as a test, in a separate world.

use anyhow::bail;
use e2e::story::{self, Step, World};
use stock_backends::Public;
use testbed::chart::PUBLIC_BACKEND_IMAGE;
use testbed::stack::AnyNode;

/// Plays a step in a world whose server is Ready, and checks that it returns evidence.
async fn in_a_ready_world(name: &str, step: Step) -> anyhow::Result<World> {
    let world = crate::world(name).await?;
    world.make_ready().await?;
    assert!(!step.play(&world).await?.is_empty());
    Ok(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_refuses_an_invalid_mcpserver_and_names_the_field() -> anyhow::Result<()> {
    let world = crate::world("definitions").await?;
    assert!(!story::DEFINITIONS.play(&world).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_become_a_running_server_whose_federation_is_ready_once_entra_has_the_credential()
-> anyhow::Result<()> {
    let world = crate::world("examples").await?;
    assert!(!story::SERVER.play(&world).await?.is_empty());
    assert!(!story::FEDERATION.play(&world).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_without_a_token_gets_a_challenge_and_metadata_that_refers_to_entra() -> anyhow::Result<()> {
    in_a_ready_world("challenge", story::CHALLENGE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn alice_sees_her_tools_and_reads_her_profile_as_herself() -> anyhow::Result<()> {
    in_a_ready_world("alice", story::ALICE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn bob_without_a_role_sees_nothing_and_his_refusal_names_the_role() -> anyhow::Result<()> {
    in_a_ready_world("bob", story::BOB).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_gives_bob_access_and_its_deletion_removes_it_without_a_restart() -> anyhow::Result<()> {
    in_a_ready_world("mapping", story::MAPPING).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn carol_gets_access_by_a_group_that_her_token_does_not_list() -> anyhow::Result<()> {
    in_a_ready_world("overage", story::OVERAGE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_required_authentication_context_challenges_bob_and_his_next_sign_in_meets_it() -> anyhow::Result<()> {
    in_a_ready_world("step-up", story::STEP_UP).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_challenge_of_a_revoked_session_reaches_the_client_and_the_next_sign_in_meets_it() -> anyhow::Result<()> {
    in_a_ready_world("revoked-session", story::REVOKED_SESSION).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_that_is_not_for_this_server_is_refused() -> anyhow::Result<()> {
    in_a_ready_world("tokens", story::TOKENS).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_quotes_a_gateway_that_refuses_the_server_until_it_accepts_it_again() -> anyhow::Result<()> {
    in_a_ready_world("exposure", story::EXPOSURE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_makes_the_server_unready_and_a_new_one_ready_again() -> anyhow::Result<()> {
    in_a_ready_world("certificate", story::CERTIFICATE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_with_the_same_host_gets_a_conflict_that_does_not_name_the_first() -> anyhow::Result<()> {
    in_a_ready_world("conflict", story::CONFLICT).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_over_stdio_is_granted_by_role_and_its_end_fails_only_the_open_call() -> anyhow::Result<()> {
    in_a_ready_world("stdio-backend", story::STDIO_BACKEND).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_over_http_is_granted_by_role_and_its_end_fails_only_the_open_call() -> anyhow::Result<()> {
    in_a_ready_world("http-backend", story::HTTP_BACKEND).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_verifies_the_caller_by_an_assertion_that_gives_no_access() -> anyhow::Result<()> {
    in_a_ready_world("backend-identity", story::BACKEND_IDENTITY).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_public_server_is_a_backend_with_one_tool_for_one_role() -> anyhow::Result<()> {
    let world = crate::world("public-backend").await?;
    world.make_ready().await?;
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().to_owned();
    let launch = tokio::task::spawn_blocking(move || Public::Time.launch(&folder)).await??;
    let AnyNode::Processes(node) = &world.stack.node else { bail!("the pods are processes") };
    node.add_image(PUBLIC_BACKEND_IMAGE, launch.program);
    assert!(!story::PUBLIC_BACKEND.play(&world).await?.is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_keeps_an_autoscalers_pods_and_replaces_them_without_a_failed_call() -> anyhow::Result<()> {
    in_a_ready_world("autoscaling", story::AUTOSCALING).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_operators_leader_is_killed_another_replica_takes_over() -> anyhow::Result<()> {
    in_a_ready_world("hand-over", story::HAND_OVER).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_is_corrected_once_foreign_objects_stay_and_then_nothing_is_written() -> anyhow::Result<()> {
    in_a_ready_world("convergence", story::CONVERGENCE).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_removal_of_a_credential_in_entra_is_noticed_and_so_is_its_return() -> anyhow::Result<()> {
    in_a_ready_world("revocation", story::REVOCATION).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_mcpserver_leaves_nothing_behind() -> anyhow::Result<()> {
    in_a_ready_world("deletion", story::DELETION).await.map(drop)
}
