//! Tests of the pods on a real API server: their number and its owner, their account, the causes of restarts, and a
//! namespace that enforces `restricted`.

use k8s_openapi::api::{
    apps::v1::Deployment,
    autoscaling::v2::HorizontalPodAutoscaler,
    core::v1::{Namespace, Pod, PodTemplateSpec, ServiceAccount},
    networking::v1::NetworkPolicy,
    policy::v1::PodDisruptionBudget,
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams},
};
use mcp_entra_crds::McpServer;
use serde_json::{Value, json};

use crate::harness::{Space, mk_mapping, mk_server, until};

const MANAGER: &str = "mcp-entra-operator";
const KEEPER: &str = "mcp-entra-operator-replicas";

async fn applied(space: &Space, changes: Value) {
    let mut server = mk_server();
    json_patch::merge(&mut server["spec"], &changes);
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
}

async fn deployment(space: &Space) -> Deployment {
    space.get::<Deployment>("graph").await.unwrap()
}

async fn replicas(space: &Space) -> Option<i32> {
    deployment(space).await.spec.unwrap().replicas
}

async fn template(space: &Space) -> PodTemplateSpec {
    deployment(space).await.spec.unwrap().template
}

/// Returns the field managers that apply the Deployment's number of pods.
async fn holders(space: &Space) -> Vec<String> {
    let holds = |entry: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:replicas").is_some())
    };
    let deployment = deployment(space).await;
    let holding = deployment.managed_fields().iter().filter(|entry| holds(entry));
    holding.filter_map(|entry| entry.manager.clone()).collect()
}

/// Scales as an autoscaler does.
async fn scale(space: &Space, replicas: i32) {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    space.api::<Deployment>().patch_scale("graph", &PatchParams::default(), &patch).await.unwrap();
}

/// Returns the operator's writes to Deployments since then.
async fn deployment_writes(space: &Space, mark: testbed::control_plane::Marker) -> usize {
    space.writes(mark).await.into_iter().filter(|write| write.resource == "deployments").count()
}

#[tokio::test]
async fn the_number_of_pods_is_handed_over_to_an_autoscaler_and_back_without_conflicts() {
    let space = Space::new().await;
    applied(&space, json!({"replicas": 4})).await;
    assert_eq!(holders(&space).await, [MANAGER]);

    let autoscaling = json!({"minReplicas": 2, "maxReplicas": 10});
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": null, "autoscaling": autoscaling}})).await;
    until("there is an autoscaler", async || space.get::<HorizontalPodAutoscaler>("graph").await.is_some()).await;
    space.quiet().await;
    // Without its only manager, it would be 1 now, or 2 by the autoscaler of this control plane.
    assert_eq!((replicas(&space).await, holders(&space).await), (Some(4), vec![KEEPER.to_owned()]));

    let mark = space.mark();
    scale(&space, 6).await;
    until("the status follows", async || {
        let conditions = space.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions;
        conditions.iter().any(|condition| condition.type_ == "Available" && condition.message.starts_with("0 of 6"))
    })
    .await;
    space.quiet().await;
    assert_eq!((replicas(&space).await, deployment_writes(&space, mark).await), (Some(6), 0));
    assert!(!holders(&space).await.iter().any(|holder| holder == MANAGER || holder == KEEPER));

    space.edit::<McpServer>("graph", json!({"spec": {"replicas": 1, "autoscaling": null}})).await;
    until("the autoscaler is gone", async || space.get::<HorizontalPodAutoscaler>("graph").await.is_none()).await;
    until("the spec sets the number", async || replicas(&space).await == Some(1)).await;
    space.quiet().await;
    assert_eq!(holders(&space).await, [MANAGER]);
    scale(&space, 3).await;
    until("it is corrected", async || replicas(&space).await == Some(1)).await;
}

#[tokio::test]
async fn without_a_number_in_the_spec_any_scaler_of_the_deployment_decides() {
    let space = Space::new().await;
    applied(&space, json!({})).await;
    assert_eq!((replicas(&space).await, holders(&space).await), (Some(1), vec![]));
    assert!(space.get::<PodDisruptionBudget>("graph").await.is_some(), "there may be several pods");

    let available = async |starts: &str| {
        until(&format!("Available reports {starts}"), async || {
            let conditions = space.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions;
            conditions.iter().any(|found| found.type_ == "Available" && found.message.starts_with(starts))
        })
        .await;
    };
    space.quiet().await;
    let mark = space.mark();
    scale(&space, 3).await;
    available("0 of 3").await;
    space.quiet().await;
    assert_eq!((replicas(&space).await, deployment_writes(&space, mark).await), (Some(3), 0));
    scale(&space, 0).await;
    let zero = space.condition("Available", "False", "ScaledToZero").await;
    assert!(zero.message.contains(&format!("kubectl -n {} scale deployment graph --replicas=1", space.name)));

    // Another change of the Deployment does not remove the number either.
    scale(&space, 2).await;
    let before = template(&space).await;
    space.edit::<McpServer>("graph", json!({"spec": {"image": "registry.example/allowed:2"}})).await;
    until("the image is rolled out", async || template(&space).await != before).await;
    assert_eq!(replicas(&space).await, Some(2));

    space.edit::<McpServer>("graph", json!({"spec": {"replicas": 4}})).await;
    until("the spec sets the number", async || replicas(&space).await == Some(4)).await;
    // Without its only manager, it would be 1.
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": null}})).await;
    until("it is handed over", async || holders(&space).await == [KEEPER]).await;
    space.quiet().await;
    assert_eq!(replicas(&space).await, Some(4));
}

#[tokio::test]
async fn the_number_of_a_foreign_autoscaler_is_not_reverted() {
    let space = Space::new().await;
    applied(&space, json!({})).await;
    space.quiet().await;
    let mark = space.mark();
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "graph"});
    space
        .apply(json!({
            "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "theirs"},
            "spec": {"scaleTargetRef": target, "minReplicas": 3, "maxReplicas": 5},
        }))
        .await;
    // This control plane has the autoscaler's controller.
    until("it has set its number", async || replicas(&space).await == Some(3)).await;
    space.quiet().await;
    assert_eq!((replicas(&space).await, deployment_writes(&space, mark).await), (Some(3), 0));
}

#[tokio::test]
async fn an_unchanged_number_that_the_operator_takes_back_has_only_the_operator_as_manager() {
    let space = Space::new().await;
    applied(&space, json!({"replicas": 3})).await;
    let autoscaling = json!({"minReplicas": 2, "maxReplicas": 10});
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": null, "autoscaling": autoscaling}})).await;
    until("it is handed over", async || holders(&space).await == [KEEPER]).await;
    // With server-side apply alone, both managers would own the same number.
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": 3, "autoscaling": null}})).await;
    until("it is reverted", async || holders(&space).await == [MANAGER]).await;
    assert_eq!(replicas(&space).await, Some(3));
}

#[tokio::test]
async fn an_autoscaler_starts_a_server_that_had_no_pods() {
    let space = Space::new().await;
    applied(&space, json!({"replicas": 0})).await;
    let autoscaling = json!({"minReplicas": 2, "maxReplicas": 10});
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": null, "autoscaling": autoscaling}})).await;
    // This control plane has the autoscaler's controller, which does not change 0.
    until("there are pods", async || replicas(&space).await == Some(2)).await;
}

#[tokio::test]
async fn policy_budget_and_monitor_follow_the_spec_and_are_corrected() {
    let space = Space::new().await;
    let clients = json!([{"namespaceSelector": {"matchLabels": {"team": "edge"}}}]);
    applied(&space, json!({"replicas": 2, "networkPolicy": {"allowFrom": clients}})).await;
    let policy = async || space.get::<NetworkPolicy>("graph").await.unwrap().spec.unwrap();
    let budget = async || space.get::<PodDisruptionBudget>("graph").await.unwrap().spec.unwrap();
    let (policy_as_built, budget_as_built) = (policy().await, budget().await);
    let resource = ApiResource {
        group: "monitoring.coreos.com".into(),
        version: "v1".into(),
        api_version: "monitoring.coreos.com/v1".into(),
        kind: "PodMonitor".into(),
        plural: "podmonitors".into(),
    };
    let monitors = Api::<DynamicObject>::namespaced_with(space.client.clone(), &space.name, &resource);
    let monitor = monitors.get("graph").await.unwrap();
    assert_eq!(monitor.data["spec"]["podMetricsEndpoints"][0]["port"], "admin");
    assert_eq!(monitor.labels()["release"], "prometheus");
    space.quiet().await;

    // Selects no pod, so that all pods stay reachable.
    let narrower = json!({"spec": {"podSelector": {"matchLabels": {"nobody": "has-this"}}}});
    space.edit::<NetworkPolicy>("graph", narrower).await;
    space.edit::<PodDisruptionBudget>("graph", json!({"spec": {"maxUnavailable": "100%"}})).await;
    until("both are as built", async || policy().await == policy_as_built && budget().await == budget_as_built).await;
    space.edit::<NetworkPolicy>("graph", json!({"spec": {"ingress": [{}]}})).await;
    until("the policy is as built", async || policy().await == policy_as_built).await;
    space.delete::<NetworkPolicy>("graph").await;
    until("the policy is back", async || space.get::<NetworkPolicy>("graph").await.is_some()).await;

    space.edit::<McpServer>("graph", json!({"spec": {"replicas": 1, "networkPolicy": null}})).await;
    until("both are gone", async || {
        space.get::<NetworkPolicy>("graph").await.is_none() && space.get::<PodDisruptionBudget>("graph").await.is_none()
    })
    .await;
    space.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn no_pod_is_started_without_the_requested_network_policy() {
    let space = Space::new().await;
    let mut server = mk_server();
    let expressions = json!([{"key": "team", "operator": "Like", "values": ["edge"]}]);
    server["spec"]["networkPolicy"] = json!({"allowFrom": [{"podSelector": {"matchExpressions": expressions}}]});
    space.apply(server).await;
    let failed = space.condition("Programmed", "False", "ApplyFailed").await;
    assert!(failed.message.contains("NetworkPolicy graph"), "{}", failed.message);
    assert!(space.get::<Deployment>("graph").await.is_none());

    let expressions = json!([{"key": "team", "operator": "In", "values": ["edge"]}]);
    let mended = json!({"allowFrom": [{"podSelector": {"matchExpressions": expressions}}]});
    space.edit::<McpServer>("graph", json!({"spec": {"networkPolicy": mended}})).await;
    space.condition("Programmed", "True", "Applied").await;
    assert!(space.get::<Deployment>("graph").await.is_some());
}

#[tokio::test]
async fn a_server_can_be_scaled_like_a_deployment_unless_an_autoscaler_does_that() {
    let space = Space::new().await;
    applied(&space, json!({"replicas": 1})).await;
    let scaled = async |replicas: i32| {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        space.api::<McpServer>().patch_scale("graph", &PatchParams::default(), &patch).await
    };
    let scale = scaled(2).await.unwrap();
    let selector = scale.status.unwrap().selector.unwrap();
    assert_eq!(selector, "app.kubernetes.io/instance=graph,app.kubernetes.io/name=mcp-entra-server");
    until("the Deployment follows", async || replicas(&space).await == Some(2)).await;

    let autoscaling = json!({"minReplicas": 2, "maxReplicas": 10});
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": null, "autoscaling": autoscaling}})).await;
    assert!(scaled(3).await.is_err());
    assert_eq!(space.get::<McpServer>("graph").await.unwrap().spec.replicas, None);
}

#[tokio::test]
async fn a_foreign_account_is_used_while_its_annotation_allows_it_and_never_changed() {
    let space = Space::new().await;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "shared"}});
    applied(&space, json!({})).await;
    space
        .edit::<McpServer>("graph", json!({"spec": {"entra": {"federation": {"serviceAccountName": "shared"}}}}))
        .await;
    space.condition("Accepted", "False", "ServiceAccountNotFound").await;
    space.apply(account).await;
    let refused = space.condition("Accepted", "False", "ServiceAccountNotAllowed").await;
    assert!(refused.message.contains("annotate serviceaccount shared mcp-entra.dev/allow-server=graph"));
    assert_eq!(template(&space).await.spec.unwrap().service_account_name.as_deref(), Some("graph"));

    let allow = |server: Option<&str>| json!({"metadata": {"annotations": {"mcp-entra.dev/allow-server": server}}});
    space.edit::<ServiceAccount>("shared", allow(Some("another"))).await;
    space.edit::<ServiceAccount>("shared", allow(Some("graph"))).await;
    space.condition("Accepted", "True", "Accepted").await;
    let version = space.get::<ServiceAccount>("shared").await.unwrap().resource_version();
    until("the pods run under it", async || {
        template(&space).await.spec.unwrap().service_account_name.as_deref() == Some("shared")
    })
    .await;
    until("the server's own is deleted", async || space.get::<ServiceAccount>("graph").await.is_none()).await;
    let subject = format!("system:serviceaccount:{}:shared", space.name);
    until("the status has its subject", async || {
        let status = space.get::<McpServer>("graph").await.unwrap().status.unwrap();
        status.federation.unwrap().subject == subject
    })
    .await;

    // It has no watched label, and its withdrawal is noticed nevertheless.
    space.quiet().await;
    assert_eq!(space.get::<ServiceAccount>("shared").await.unwrap().resource_version(), version);
    space.edit::<ServiceAccount>("shared", allow(None)).await;
    space.condition("Accepted", "False", "ServiceAccountNotAllowed").await;

    // The server's own account again.
    space.edit::<McpServer>("graph", json!({"spec": {"entra": {"federation": null}}})).await;
    until("the server's own is back", async || space.get::<ServiceAccount>("graph").await.is_some()).await;
    space.delete::<McpServer>("graph").await;
    until("the server's own is deleted", async || space.get::<ServiceAccount>("graph").await.is_none()).await;
    let shared = space.get::<ServiceAccount>("shared").await.unwrap();
    assert!(shared.owner_references().is_empty() && shared.metadata.deletion_timestamp.is_none());
}

#[tokio::test]
async fn an_account_for_the_webhook_must_name_the_same_app_registration() {
    let space = Space::new().await;
    let annotations = json!({"mcp-entra.dev/allow-server": "graph", "azure.workload.identity/client-id": "other"});
    let metadata = json!({"name": "shared", "annotations": annotations});
    space.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})).await;
    let mut server = mk_server();
    server["spec"]["entra"]["federation"] = json!({"injection": "Webhook", "serviceAccountName": "shared"});
    let client_id = server["spec"]["entra"]["clientId"].clone();
    space.apply(server).await;
    space.condition("Accepted", "False", "ServiceAccountMismatch").await;
    let mended = json!({"metadata": {"annotations": {"azure.workload.identity/client-id": client_id}}});
    space.edit::<ServiceAccount>("shared", mended).await;
    space.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn changes_that_need_a_restart_roll_out_once_and_live_ones_never() {
    let space = Space::new().await;
    applied(&space, json!({})).await;
    space.quiet().await;
    let before = template(&space).await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    let clients = json!({"allowFrom": [{"podSelector": {}}]});
    space.edit::<McpServer>("graph", json!({"spec": {"replicas": 2, "networkPolicy": clients}})).await;
    until("all of it is applied", async || {
        space.policy().await.contains("Mcp.Reader") && replicas(&space).await == Some(2)
    })
    .await;
    space.quiet().await;
    assert_eq!(template(&space).await, before);

    for restarting in [
        json!({"image": "registry.example/allowed:2"}),
        json!({"podTemplate": {"resources": {"requests": {"cpu": "0.25"}, "limits": {"memory": "1024Mi"}}}}),
        json!({"entra": {"federation": {"tokenExpirationSeconds": 7200}}}),
        json!({"entra": {"federation": {"injection": "Webhook"}}}),
        json!({"podTemplate": {"labels": {"team": "sales"}, "annotations": {"team.example/note": "ours"}}}),
    ] {
        let (before, mark) = (template(&space).await, space.mark());
        space.edit::<McpServer>("graph", json!({"spec": restarting.clone()})).await;
        until(&format!("the pods are replaced for {restarting}"), async || template(&space).await != before).await;
        space.quiet().await;
        assert_eq!(deployment_writes(&space, mark).await, 1, "{restarting}");
        space.condition("Programmed", "True", "Applied").await;
    }
    let labels = template(&space).await.metadata.unwrap().labels.unwrap();
    assert_eq!((labels["team"].as_str(), labels["azure.workload.identity/use"].as_str()), ("sales", "true"));
    let account = space.get::<ServiceAccount>("graph").await.unwrap();
    assert_eq!(account.annotations()["azure.workload.identity/service-account-token-expiration"], "7200");
    // The webhook's settings are removed with it.
    space.edit::<McpServer>("graph", json!({"spec": {"entra": {"federation": {"injection": "Operator"}}}})).await;
    until("the webhook's settings are removed", async || {
        let labels = template(&space).await.metadata.unwrap().labels.unwrap();
        !labels.contains_key("azure.workload.identity/use")
            && space
                .get::<ServiceAccount>("graph")
                .await
                .unwrap()
                .annotations()
                .keys()
                .all(|name| !name.contains("azure"))
    })
    .await;
}

#[tokio::test]
async fn labels_and_annotations_of_pods_need_the_operators_permission() {
    let space = Space::new().await;
    applied(&space, json!({"podTemplate": {"annotations": {"team.example/note": "ours"}}})).await;
    let inject = json!({"vault.hashicorp.com/agent-inject": "true"});
    space.edit::<McpServer>("graph", json!({"spec": {"podTemplate": {"annotations": inject}}})).await;
    let refused = space.condition("Accepted", "False", "PodTemplateNotAllowed").await;
    assert!(refused.message.contains("--allowed-pod-annotation=vault.hashicorp.com/agent-inject"));
    let annotations = template(&space).await.metadata.unwrap().annotations.unwrap();
    assert!(!annotations.contains_key("vault.hashicorp.com/agent-inject"), "{annotations:?}");
}

#[tokio::test]
async fn a_namespace_that_enforces_restricted_accepts_every_built_pod_and_not_a_weaker_one() {
    let space = Space::new().await;
    let enforced = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    let namespaces = Api::<Namespace>::all(space.client.clone());
    namespaces.patch(&space.name, &PatchParams::default(), &Patch::Merge(&enforced)).await.unwrap();
    let bundle = json!({"ca.crt": "-----BEGIN CERTIFICATE-----"});
    space
        .apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "corporate"}, "data": bundle}))
        .await;

    applied(&space, json!({})).await;
    for variant in [
        json!({}),
        json!({"entra": {"federation": {"injection": "Webhook"}}}),
        json!({"entra": {"trustBundle": {"name": "corporate"}}}),
        json!({"podTemplate": {
            "labels": {"team": "sales"},
            "annotations": {"team.example/note": "ours"},
            "env": [{"name": "RUST_LOG", "value": "debug"}],
            "nodeSelector": {"pool": "apps"},
            "tolerations": [{"operator": "Exists"}],
            "affinity": {"podAntiAffinity": {}},
            "imagePullSecrets": [{"name": "registry"}],
            "resources": {"limits": {"cpu": 1}},
        }}),
    ] {
        space.edit::<McpServer>("graph", json!({"spec": variant})).await;
        let generation = space.get::<McpServer>("graph").await.unwrap().metadata.generation;
        until("the variant is applied", async || {
            let status = space.get::<McpServer>("graph").await.unwrap().status.unwrap();
            status.observed_generation == generation
        })
        .await;
        space.condition("Programmed", "True", "Applied").await;
        let pod = pod(template(&space).await);
        created(&space, &pod).await.unwrap_or_else(|refusal| panic!("{variant}: {refusal}"));
    }

    let mut neighbour = pod(template(&space).await);
    neighbour.spec.as_mut().unwrap().containers[0].security_context = None;
    let refusal = created(&space, &neighbour).await.unwrap_err();
    assert!(refusal.contains("violates PodSecurity \"restricted"), "{refusal}");
}

fn pod(template: PodTemplateSpec) -> Pod {
    let mut metadata = template.metadata.unwrap();
    metadata.name = Some("one".into());
    Pod { metadata, spec: template.spec, status: None }
}

/// Creates a pod in a dry run, or returns the reason of the refusal.
async fn created(space: &Space, pod: &Pod) -> Result<(), String> {
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    space.api::<Pod>().create(&parameters, pod).await.map(drop).map_err(|error| error.to_string())
}
