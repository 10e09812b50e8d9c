//! Tests of the keys of an authorization server: created once, rotated and replaced on request, and deleted with their
//! server.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams},
};
use mcp_entra_crds::McpServer;
use mcp_entra_policy::{CONFIGURATION_KEY, CompiledPolicy, ServerConfiguration};
use serde_json::{Value, json};

use crate::harness::{Space, mk_server, until};

/// A server with sessions in the memory of its only pod.
fn mk_signing_in() -> Value {
    let mut server = mk_server();
    server["spec"]["authorizationServer"] = json!({"sessionStore": {"memory": {}}, "userConsentScopes": ["User.Read"]});
    server
}

/// Returns the numbers of the epochs with a ConfigMap and a Secret.
async fn epochs(space: &Space) -> (Vec<u32>, Vec<u32>) {
    let number = |name: String| name.rsplit_once("-oauth-").and_then(|(_, number)| number.parse::<u32>().ok());
    let all = ListParams::default();
    let maps = space.api::<ConfigMap>().list(&all).await.unwrap().items;
    let secrets = space.api::<Secret>().list(&all).await.unwrap().items;
    let mut maps: Vec<u32> = maps.iter().filter_map(|map| number(map.name_any())).collect();
    let mut secrets: Vec<u32> = secrets.iter().filter_map(|secret| number(secret.name_any())).collect();
    maps.sort_unstable();
    secrets.sort_unstable();
    (maps, secrets)
}

/// Waits until exactly these epochs exist, and the configuration names them.
async fn has_epochs(space: &Space, expected: &[u32], configured: &[u32], registration: u32) {
    until(&format!("there are the epochs {expected:?}, configured are {configured:?}"), async || {
        let keys = configuration(space).await.and_then(|found| found.authorization_server).map(|found| found.keys);
        let named = keys.as_ref().map(|keys| keys.epochs.iter().map(|epoch| epoch.number).collect::<Vec<_>>());
        epochs(space).await == (expected.to_vec(), expected.to_vec())
            && named.as_deref() == Some(configured)
            && keys.is_some_and(|keys| keys.registration == registration)
    })
    .await;
}

async fn configuration(space: &Space) -> Option<ServerConfiguration> {
    let map = space.get::<ConfigMap>("graph-config").await?;
    serde_yaml::from_str(map.data?.get(CONFIGURATION_KEY)?).ok()
}

/// Returns the names of the Secrets with the pods' keys.
async fn mounted(space: &Space) -> Vec<String> {
    let deployment = space.get::<Deployment>("graph").await.unwrap();
    let volumes = deployment.spec.unwrap().template.spec.unwrap().volumes.unwrap();
    let keys = volumes.into_iter().find(|volume| volume.name == "oauth").unwrap().projected.unwrap();
    keys.sources.unwrap().into_iter().map(|source| source.secret.unwrap().name).collect()
}

async fn annotate(space: &Space, name: &str, value: &str) {
    space.edit::<McpServer>("graph", json!({"metadata": {"annotations": {name: value}}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_created_rotated_replaced_and_deleted_with_their_server() {
    let space = Space::new().await;
    space.apply(mk_signing_in()).await;
    space.condition("Programmed", "True", "Applied").await;
    has_epochs(&space, &[1], &[1], 1).await;

    let server = space.get::<McpServer>("graph").await.unwrap();
    let host = server.spec.exposure.unwrap().host;
    let name = format!("graph-{}-oauth-1", &server.metadata.uid.unwrap()[..8]);
    assert_eq!(mounted(&space).await, [name.as_str()]);
    let secret = space.get::<Secret>(&name).await.unwrap();
    let map = space.get::<ConfigMap>(&name).await.unwrap();
    assert_eq!((secret.immutable, secret.type_.as_deref(), map.immutable), (Some(true), Some("Opaque"), Some(true)));
    assert_eq!(secret.data.as_ref().unwrap()["key"].0.len(), 64);
    assert_eq!(secret.owner_references()[0].uid, map.metadata.uid.unwrap());
    assert_eq!(map.metadata.owner_references.unwrap()[0].kind, "McpServer");
    let strategy = space.get::<Deployment>("graph").await.unwrap().spec.unwrap().strategy.unwrap();
    assert_eq!((strategy.type_.as_deref(), strategy.rolling_update), (Some("Recreate"), None));
    let status = server.status.unwrap();
    assert_eq!(status.redirect_uri, Some(format!("https://{host}/mcp/callback")));
    space.condition("SessionStoreReady", "True", "SessionsInMemory").await;

    annotate(&space, "mcp-entra.dev/rotate-keys", "1").await;
    has_epochs(&space, &[1, 2], &[1, 2], 1).await;
    let used_from = configuration(&space).await.unwrap().authorization_server.unwrap().keys.epochs[1].used_from;
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    assert!((now + 600..=now + 900).contains(&used_from), "{used_from} is not soon after {now}");
    assert_eq!(space.get::<Secret>(&name).await.unwrap().data, secret.data, "it is kept as it is");

    // A pod that still uses the old keys keeps them.
    annotate(&space, "mcp-entra.dev/compromised-keys", "leaked on Monday").await;
    has_epochs(&space, &[3], &[3], 3).await;
    until("the pods mount only the new key", async || mounted(&space).await == [name.replace("-1", "-3")]).await;

    space.delete::<McpServer>("graph").await;
    until("nothing is left", async || epochs(&space).await == (vec![], vec![])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_server_becomes_an_authorization_server_and_back_and_keeps_its_keys() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let strategy = async || {
        let deployment = space.get::<Deployment>("graph").await.unwrap();
        deployment.spec.unwrap().strategy.unwrap().type_.unwrap()
    };
    assert_eq!((strategy().await, epochs(&space).await), ("RollingUpdate".to_owned(), (vec![], vec![])));
    let memory = json!({"sessionStore": {"memory": {}}});
    space.edit::<McpServer>("graph", json!({"spec": {"authorizationServer": memory}})).await;
    has_epochs(&space, &[1], &[1], 1).await;
    until("there is never a second pod", async || strategy().await == "Recreate").await;
    space.condition("Programmed", "True", "Applied").await;
    space.edit::<McpServer>("graph", json!({"spec": {"authorizationServer": null}})).await;
    until("there may be a second pod", async || strategy().await == "RollingUpdate").await;
    assert_eq!(epochs(&space).await, (vec![1], vec![1]), "who puts it back finds clients registered");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_a_pod_still_uses_are_kept_until_its_end() {
    let space = Space::new().await;
    space.apply(mk_signing_in()).await;
    space.condition("Programmed", "True", "Applied").await;
    let pod = space.pod("graph-0").await;
    annotate(&space, "mcp-entra.dev/compromised-keys", "1").await;
    has_epochs(&space, &[1, 2], &[2], 2).await;
    drop(pod);
    space.api::<Pod>().delete("graph-0", &DeleteParams::default().grace_period(0)).await.unwrap();
    has_epochs(&space, &[2], &[2], 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_is_created_again_while_a_pod_waits_for_it() {
    let space = Space::new().await;
    space.apply(mk_signing_in()).await;
    space.condition("Programmed", "True", "Applied").await;
    has_epochs(&space, &[1], &[1], 1).await;
    let name = mounted(&space).await.remove(0);
    let before = space.get::<Secret>(&name).await.unwrap().metadata.uid;
    space.delete::<Secret>(&name).await;
    until("the Secret is there again", async || {
        space.get::<Secret>(&name).await.is_some_and(|secret| secret.metadata.uid != before)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_ends_sessions_through_the_policy_and_an_invalid_time_is_reported() {
    let space = Space::new().await;
    space.apply(mk_signing_in()).await;
    space.condition("Programmed", "True", "Applied").await;
    annotate(&space, "mcp-entra.dev/revoke-sessions-before", "1970-01-02T00:00:00Z").await;
    until("the policy ends sessions", async || {
        let policy = CompiledPolicy::parse(space.policy().await.as_bytes());
        policy.is_ok_and(|policy| policy.revoke_sessions_before == Some(86_400))
    })
    .await;
    annotate(&space, "mcp-entra.dev/revoke-sessions-before", "yesterday").await;
    let told = space.condition("AuthorizationReady", "False", "RevocationUnreadable").await;
    assert!(told.message.contains("annotate --overwrite mcpserver graph"), "{}", told.message);
}
