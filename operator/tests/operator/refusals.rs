//! Tests of refused specs: reported, left as they are, and never a reason to delay a revocation.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
    events::v1::Event,
    networking::v1::Ingress,
};
use kube::ResourceExt;
use mcp_entra_crds::{McpRoleMapping, McpServer};
use mcp_entra_policy::revision;
use serde_json::{Value, json};

use crate::harness::{OPERATOR, Space, find, mk_mapping, mk_server, until};

fn bundle(content: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corporate"},
           "data": {"ca.crt": format!("-----BEGIN CERTIFICATE-----\n{content}\n")}})
}

async fn template_annotations(space: &Space) -> std::collections::BTreeMap<String, String> {
    let deployment = space.get::<Deployment>("graph").await.unwrap();
    deployment.spec.unwrap().template.metadata.unwrap().annotations.unwrap()
}

#[tokio::test]
async fn a_missing_trust_bundle_is_awaited_and_a_changed_one_rolled_out() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["spec"]["entra"]["trustBundle"] = json!({"name": "corporate"});
    space.apply(server).await;
    let refused = space.condition("Accepted", "False", "TrustBundleNotFound").await;
    assert!(refused.message.contains("ConfigMap corporate"), "{}", refused.message);
    assert!(space.get::<Deployment>("graph").await.is_none());

    space.apply(bundle("one")).await;
    space.condition("Programmed", "True", "Applied").await;
    let before = template_annotations(&space).await;
    space.apply(bundle("two")).await;
    until("the pods are rolled out anew", async || template_annotations(&space).await != before).await;
}

#[tokio::test]
async fn a_spec_that_is_not_accepted_leaves_the_children_but_not_the_policy() {
    let space = Space::new().await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    assert!(space.policy().await.contains("Mcp.Reader"));
    let deployment = space.get::<Deployment>("graph").await.unwrap();

    space.edit::<McpServer>("graph", json!({"spec": {"replicas": 2, "graph": {"tools": ["drop_database"]}}})).await;
    let refused = space.condition("Accepted", "False", "ToolNotFound").await;
    assert!(refused.message.contains("drop_database"), "{}", refused.message);
    space.condition("Programmed", "False", "NotAccepted").await;
    assert_eq!(space.get::<Deployment>("graph").await.unwrap().metadata.generation, deployment.metadata.generation);

    space.delete::<McpRoleMapping>("readers").await;
    until("the mapping is revoked", async || space.policy().await == r#"{"grants":[]}"#).await;
}

#[tokio::test]
async fn endpoints_are_used_only_if_the_operator_allows_them() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["spec"]["entra"]["endpoints"] = json!({"authority": "https://login.evil", "graph": "https://graph.example"});
    space.apply(server.clone()).await;
    let refused = space.condition("Accepted", "False", "EndpointsNotAllowed").await;
    assert!(refused.message.contains("--allowed-authority=https://login.evil"), "{}", refused.message);

    server["spec"]["entra"]["endpoints"]["authority"] = json!("https://login.example");
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
    let configuration = space.get::<ConfigMap>("graph-config").await.unwrap().data.unwrap()["config.yaml"].clone();
    assert!(configuration.contains("https://login.example"), "{configuration}");
}

#[tokio::test]
async fn a_child_that_the_api_server_refuses_is_reported_and_retried_with_back_off_until_it_works() {
    let space = Space::new().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
                       "spec": {"hard": {"services": "0"}}});
    space.apply(quota).await;
    until("the quota is enforced", async || {
        let quota = space.get::<k8s_openapi::api::core::v1::ResourceQuota>("none").await.unwrap();
        quota.status.is_some_and(|status| status.hard.is_some())
    })
    .await;
    let mark = space.mark();
    space.apply(mk_server()).await;
    let failed = space.condition("Programmed", "False", "ApplyFailed").await;
    assert!(failed.message.contains("Service graph") && failed.message.contains("quota"), "{}", failed.message);
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let attempts = space.cluster.plane.audit().writes(mark, OPERATOR).await.unwrap();
    let refused = attempts
        .iter()
        .filter(|write| write.namespace.as_deref() == Some(space.name.as_str()) && write.code == 403)
        .count();
    assert!((1..=8).contains(&refused), "{refused} attempts in five seconds");

    space.delete::<k8s_openapi::api::core::v1::ResourceQuota>("none").await;
    space.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn revocations_reach_a_terminating_server_whose_status_reports_its_deletion() {
    let space = Space::new().await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.apply(mk_server()).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    let pod = space.pod("one").await;
    pod.enforces(&space.policy().await);
    space.condition("AuthorizationReady", "True", "PolicyEnforced").await;

    space.edit::<McpServer>("graph", json!({"metadata": {"finalizers": ["team.example/hold"]}})).await;
    space.delete::<McpServer>("graph").await;
    until("the deletion is noticed: nothing leads to it", async || space.get::<Ingress>("graph").await.is_none()).await;
    space.delete::<ConfigMap>("graph-config").await;
    space.delete::<McpRoleMapping>("readers").await;
    until("the mapping is revoked", async || space.policy().await == r#"{"grants":[]}"#).await;
    until("the pod is nudged", async || {
        let nudged = revision(space.policy().await.as_bytes());
        space.get::<Pod>("one").await.unwrap().annotations().get("mcp-entra.dev/policy-revision") == Some(&nudged)
    })
    .await;
    assert!(space.get::<ConfigMap>("graph-config").await.is_none());

    pod.enforces(&space.policy().await);
    space.delete::<ConfigMap>("graph-policy").await;
    space.apply(mk_mapping("late", "Mcp.Late")).await;
    // Its pod still serves, and would enforce a deleted mapping.
    until("there is a policy again", async || {
        let policy = space.get::<ConfigMap>("graph-policy").await;
        policy.is_some_and(|policy| policy.data.unwrap()["policy.json"].contains("Mcp.Late"))
    })
    .await;
    assert!(space.get::<ConfigMap>("graph-config").await.is_none(), "nothing else is created for it");
    let deleting = space.condition("Programmed", "False", "Deleting").await;
    assert!(deleting.message.ends_with("team.example/hold"), "{}", deleting.message);
    space.condition("Ready", "False", "Deleting").await;
    space.condition("AuthorizationReady", "False", "PolicyLagging").await;
    space.edit::<McpServer>("graph", json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test]
async fn pods_that_a_quota_refuses_are_reported_as_such() {
    let space = Space::new().await;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    space.apply(quota).await;
    space.apply(mk_server()).await;
    let refused = space.condition("Available", "False", "QuotaExceeded").await;
    assert!(refused.message.contains("exceeded quota") && refused.message.contains("raise"), "{}", refused.message);
    let ready = space.condition("Ready", "False", "QuotaExceeded").await;
    assert_eq!(ready.message, refused.message);
}

#[tokio::test]
async fn only_hosts_that_the_operator_allows_are_routed_and_not_similar_ones() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    for neighbour in ["mcp.contoso.com", "graphmcp.contoso.com", "graph.mcp.contoso.com.evil.net"] {
        assert!(space.get::<Ingress>("graph").await.is_some(), "it is exposed before");
        space.edit::<McpServer>("graph", json!({"spec": {"exposure": {"host": neighbour}}})).await;
        let mut refused = None;
        until(&format!("{neighbour} is refused"), async || {
            let found = space.condition("Accepted", "False", "HostNotAllowed").await;
            refused = Some(found.message).filter(|message| message.contains(&format!("--allowed-host={neighbour}")));
            refused.is_some()
        })
        .await;
        until("nothing leads to it", async || space.get::<Ingress>("graph").await.is_none()).await;

        let allowed = json!({"spec": {"exposure": {"host": format!("{}.mcp.contoso.com", space.name)}}});
        space.edit::<McpServer>("graph", allowed).await;
        space.condition("Programmed", "True", "Applied").await;
    }
}

#[tokio::test]
async fn a_policy_that_cannot_be_written_delays_neither_the_end_of_an_exposure_nor_a_claim() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    let is_left = format!("request.userInfo.username != '{OPERATOR}' || object.metadata.name != 'graph-policy'");
    space.refuse("", "configmaps", &is_left, "policies are frozen").await;
    until("the operator's writes of it are refused", async || {
        let change = json!({"data": {"policy.json": "{}"}});
        space.edit::<ConfigMap>("graph-policy", change).await;
        let server = space.get::<McpServer>("graph").await.unwrap().status.unwrap();
        find(&server.conditions, "Programmed").is_some_and(|found| found.reason == "ApplyFailed")
    })
    .await;

    space.edit::<McpServer>("graph", json!({"spec": {"exposure": {"host": "graph.contoso.net"}}})).await;
    space.condition("Accepted", "False", "HostNotAllowed").await;
    until("nothing leads to it", async || space.get::<Ingress>("graph").await.is_none()).await;
    until("it has no address", async || space.get::<McpServer>("graph").await.unwrap().status.unwrap().url.is_none())
        .await;

    let host = format!("{}.mcp.contoso.com", space.name);
    space.edit::<McpServer>("graph", json!({"spec": {"exposure": {"host": host}}})).await;
    until("it has claimed the host that is allowed", async || {
        let ownership = space.get::<McpServer>("graph").await.unwrap().status.unwrap().ownership;
        ownership.is_some_and(|ownership| ownership.host.as_ref() == Some(&host))
    })
    .await;
    assert!(space.get::<Ingress>("graph").await.is_none(), "nothing is exposed while the policy cannot be written");
}

#[tokio::test]
async fn a_refused_status_is_reported_in_an_event_and_written_later() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.refuse("mcp-entra.dev", "mcpservers/status", "false", "nobody says anything").await;
    let mut replicas = 1;
    until("an event reports that the status cannot be written", async || {
        replicas += 1;
        space.edit::<McpServer>("graph", json!({"spec": {"replicas": replicas % 50}})).await;
        let events = space.api::<Event>().list(&Default::default()).await.unwrap();
        let is_told = |event: &Event| {
            event.reason.as_deref() == Some("StatusNotWritten")
                && event.note.as_deref().is_some_and(|note| note.contains("nobody says anything"))
        };
        events.iter().any(is_told)
    })
    .await;
    space.refuse_no_longer("mcpservers/status").await;
    until("the status is of the spec as it is", async || {
        let server = space.get::<McpServer>("graph").await.unwrap();
        let accepted = find(&server.status.unwrap().conditions, "Accepted").unwrap();
        accepted.observed_generation == server.metadata.generation
    })
    .await;
}

#[tokio::test]
async fn pods_may_only_have_a_priority_that_the_operator_allows() {
    let space = Space::new().await;
    for (name, value) in [("team", 1000), ("team-2", 1001)] {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
                           "metadata": {"name": name}, "value": value});
        space.apply_to_cluster(&class).await;
    }
    let mut server = mk_server();
    server["spec"]["podTemplate"] = json!({"priorityClassName": "team"});
    space.apply(server).await;
    let pod = space.bound_pod().await;
    assert_eq!(space.get::<Pod>(&pod).await.unwrap().spec.unwrap().priority, Some(1000));

    space.edit::<McpServer>("graph", json!({"spec": {"podTemplate": {"priorityClassName": "team-2"}}})).await;
    let refused = space.condition("Accepted", "False", "PriorityClassNotAllowed").await;
    assert!(refused.message.ends_with("--allowed-priority-class=team-2"), "{}", refused.message);
    space.quiet().await;
    let template = space.get::<Deployment>("graph").await.unwrap().spec.unwrap().template.spec.unwrap();
    assert_eq!(template.priority_class_name.as_deref(), Some("team"));
}
