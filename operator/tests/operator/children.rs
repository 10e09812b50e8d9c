//! Tests of the children: created, corrected, removed.

use std::{pin::pin, time::Duration};

use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Service, ServiceAccount},
        networking::v1::Ingress,
    },
};
use kube::{Resource, ResourceExt, api::WatchEvent};
use mcp_entra_crds::McpServer;
use mcp_entra_policy::{CONFIGURATION_KEY, ServerConfiguration};
use serde_json::{Value, json};

use crate::harness::{Space, find, mk_mapping, mk_server, until};

const ALWAYS: [&str; 6] = ["Accepted", "Programmed", "Available", "FederationReady", "AuthorizationReady", "Ready"];

#[tokio::test]
async fn a_server_gets_its_children_and_a_status_that_names_what_is_missing() {
    let space = Space::new().await;
    let server = mk_server();
    let url = format!("https://{}/mcp", server["spec"]["exposure"]["host"].as_str().unwrap());
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
    // This cluster has no node.
    space.condition("Available", "False", "Unschedulable").await;

    let server = space.get::<McpServer>("graph").await.unwrap();
    let uid = server.uid().unwrap();
    let deployment = space.get::<Deployment>("graph").await.unwrap();
    let owners = [
        deployment.owner_references().to_vec(),
        space.get::<ServiceAccount>("graph").await.unwrap().owner_references().to_vec(),
        space.get::<Service>("graph").await.unwrap().owner_references().to_vec(),
        space.get::<Ingress>("graph").await.unwrap().owner_references().to_vec(),
        space.get::<ConfigMap>("graph-config").await.unwrap().owner_references().to_vec(),
        space.get::<ConfigMap>("graph-policy").await.unwrap().owner_references().to_vec(),
    ];
    for owner in owners {
        assert_eq!(owner.len(), 1);
        assert_eq!(
            (owner[0].uid.as_str(), owner[0].controller, owner[0].block_owner_deletion),
            (uid.as_str(), Some(true), None)
        );
    }

    let pod = deployment.spec.unwrap().template.spec.unwrap();
    let token = pod.volumes.unwrap().into_iter().find_map(|volume| volume.projected).unwrap().sources.unwrap()[0]
        .service_account_token
        .clone()
        .unwrap();
    assert_eq!(token.audience.as_deref(), Some("api://AzureADTokenExchange"));

    let configuration = space.get::<ConfigMap>("graph-config").await.unwrap().data.unwrap()[CONFIGURATION_KEY].clone();
    serde_yaml::from_str::<ServerConfiguration>(&configuration).unwrap().validate().unwrap();
    assert_eq!(space.policy().await, r#"{"grants":[]}"#);

    let status = server.status.unwrap();
    for type_ in ALWAYS.iter().chain(&["Exposed"]) {
        let condition = find(&status.conditions, type_).unwrap_or_else(|| panic!("{type_} is missing"));
        assert_eq!(condition.observed_generation, Some(1));
    }
    assert!(find(&status.conditions, "Conflicted").is_none());
    assert_eq!(find(&status.conditions, "FederationReady").unwrap().status, "Unknown");
    assert_eq!(find(&status.conditions, "Ready").unwrap().status, "False");
    assert_eq!(status.url, Some(url));
    let federation = status.federation.unwrap();
    assert_eq!(federation.subject, format!("system:serviceaccount:{}:graph", space.name));
    assert_eq!((federation.audience.as_str(), federation.issuer), ("api://AzureADTokenExchange", None));
}

#[tokio::test]
async fn the_first_conditions_of_a_server_are_unknown() {
    let space = Space::new().await;
    let servers = space.api::<McpServer>();
    let version = servers.list(&Default::default()).await.unwrap().metadata.resource_version.unwrap();
    let changes = servers.watch(&Default::default(), &version).await.unwrap();
    space.apply(mk_server()).await;
    let told = changes.filter_map(async |change| match change.unwrap() {
        WatchEvent::Added(server) | WatchEvent::Modified(server) => {
            server.status.filter(|status| !status.conditions.is_empty())
        }
        other => panic!("{other:?}"),
    });
    let first =
        tokio::time::timeout(Duration::from_secs(60), pin!(told).next()).await.expect("it is reported").unwrap();
    let types: Vec<_> = first.conditions.iter().map(|condition| condition.type_.as_str()).collect();
    assert_eq!(types, ALWAYS);
    for condition in first.conditions {
        assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("Unknown", "Progressing"));
        assert!(condition.message.ends_with("wait a few seconds"), "{}", condition.message);
    }
}

#[tokio::test]
async fn nothing_is_written_while_nothing_changes() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;
    let mark = space.mark();
    // Polls run every second meanwhile. The wait itself is tested here.
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(space.writes(mark).await, []);
}

#[tokio::test]
async fn an_edited_deployment_is_corrected_by_exactly_one_write() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["spec"]["replicas"] = json!(1);
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;
    let mark = space.mark();
    let image = json!([{"name": "server", "image": "evil.example/server:1"}]);
    space
        .api::<Deployment>()
        .patch(
            "graph",
            &Default::default(),
            &kube::api::Patch::Strategic(json!({"spec": {"replicas": 3, "template": {"spec": {"containers": image}}}})),
        )
        .await
        .unwrap();
    until("the Deployment is as built", async || {
        let spec = space.get::<Deployment>("graph").await.unwrap().spec.unwrap();
        let image = spec.template.spec.unwrap().containers[0].image.clone();
        spec.replicas == Some(1) && image.as_deref() == Some("registry.example/mcp-entra-server:test")
    })
    .await;
    space.quiet().await;
    let writes: Vec<_> = space.writes(mark).await.into_iter().filter(|write| write.resource == "deployments").collect();
    assert_eq!(writes.len(), 1, "{writes:#?}");
}

#[tokio::test]
async fn a_deleted_and_an_edited_config_map_are_restored_by_one_write_each() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;
    let uid = space.get::<ConfigMap>("graph-config").await.unwrap().uid();
    let mark = space.mark();
    space.delete::<ConfigMap>("graph-config").await;
    space.edit::<ConfigMap>("graph-policy", json!({"data": {"policy.json": "{\"grants\":[{}]}"}})).await;
    until("both are as built", async || {
        let config = space.get::<ConfigMap>("graph-config").await;
        config.is_some_and(|config| config.uid() != uid) && space.policy().await == r#"{"grants":[]}"#
    })
    .await;
    space.quiet().await;
    let writes: Vec<_> = space.writes(mark).await.into_iter().filter(|write| write.resource == "configmaps").collect();
    assert_eq!(writes.len(), 2, "{writes:#?}");
}

#[tokio::test]
async fn additions_of_others_to_a_child_stay() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;
    let mark = space.mark();
    space.edit::<Service>("graph", json!({"metadata": {"annotations": {"team.example/note": "mine"}}})).await;
    space.edit::<Deployment>("graph", json!({"spec": {"minReadySeconds": 1}})).await;
    space.quiet().await;
    assert_eq!(space.writes(mark).await, []);
    assert_eq!(space.get::<Service>("graph").await.unwrap().annotations()["team.example/note"], "mine");
}

#[tokio::test]
async fn the_ingress_is_deleted_with_the_exposure() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Exposed", "False", "AddressPending").await;
    space
        .api::<Ingress>()
        .patch_status(
            "graph",
            &Default::default(),
            &kube::api::Patch::Merge(json!({"status": {"loadBalancer": {"ingress": [{"hostname": "edge.example"}]}}})),
        )
        .await
        .unwrap();
    let exposed = space.condition("Exposed", "True", "AddressAssigned").await;
    assert!(exposed.message.contains("edge.example"));

    space.edit::<McpServer>("graph", json!({"spec": {"exposure": null}})).await;
    until("the Ingress is gone", async || space.get::<Ingress>("graph").await.is_none()).await;
    until("the status reports it", async || {
        let status = space.get::<McpServer>("graph").await.unwrap().status.unwrap();
        find(&status.conditions, "Exposed").is_none() && status.url.is_none()
    })
    .await;
    assert!(space.get::<Service>("graph").await.is_some());
}

#[tokio::test]
async fn a_foreign_ingress_is_not_deleted_with_an_exposure_that_never_worked() {
    let space = Space::new().await;
    let theirs = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "graph", "labels": {"app.kubernetes.io/managed-by": "mcp-entra-operator"}},
        "spec": {"defaultBackend": {"service": {"name": "theirs", "port": {"number": 80}}}},
    });
    space.apply(theirs).await;
    let mut server = mk_server();
    server["spec"].as_object_mut().unwrap().remove("exposure");
    space.apply(server).await;
    // A name that is not needed causes no conflict.
    space.condition("Programmed", "True", "Applied").await;
    assert!(space.get::<Ingress>("graph").await.is_some());
}

#[tokio::test]
async fn the_children_of_a_deleted_server_are_deleted() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.delete::<McpServer>("graph").await;
    until("everything is deleted", async || {
        space.get::<Deployment>("graph").await.is_none()
            && space.get::<Service>("graph").await.is_none()
            && space.get::<Ingress>("graph").await.is_none()
            && space.get::<ServiceAccount>("graph").await.is_none()
            && space.get::<ConfigMap>("graph-config").await.is_none()
            && space.get::<ConfigMap>("graph-policy").await.is_none()
    })
    .await;
}

#[tokio::test]
async fn every_manual_edit_is_corrected_including_those_that_apply_cannot_correct() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["spec"]["podTemplate"] = json!({"env": [{"name": "HTTPS_PROXY", "value": "http://outbound.example:3128"}]});
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
    let before = spec(&space.get::<Service>("graph").await);

    let container = "/spec/template/spec/containers/0";
    let edits: [(&str, &str, Value); 9] = [
        ("Service", "another port", json!([{"op": "replace", "path": "/spec/ports/0/port", "value": 81}])),
        ("Service", "a wider selector", json!([{"op": "add", "path": "/spec/selector/team", "value": "theirs"}])),
        ("Service", "another type", json!([{"op": "replace", "path": "/spec/type", "value": "NodePort"}])),
        (
            "Deployment",
            "a probe of another sort",
            json!([
                {"op": "remove", "path": format!("{container}/readinessProbe/httpGet")},
                {"op": "add", "path": format!("{container}/readinessProbe/exec"), "value": {"command": ["true"]}},
            ]),
        ),
        (
            "Deployment",
            "a variable from elsewhere",
            json!([{"op": "replace", "path": format!("{container}/env/1"), "value":
                {"name": "HTTPS_PROXY", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}}]),
        ),
        (
            "Deployment",
            "another port",
            json!([{"op": "replace", "path": format!("{container}/ports/1/containerPort"), "value": 9}]),
        ),
        (
            "Deployment",
            "another volume under our name",
            json!([{"op": "replace", "path": "/spec/template/spec/volumes/1", "value": {"name": "policy", "emptyDir": {}}}]),
        ),
        (
            "Deployment",
            "another strategy",
            json!([{"op": "replace", "path": "/spec/strategy", "value": {"type": "Recreate"}}]),
        ),
        ("Ingress", "another host", json!([{"op": "replace", "path": "/spec/rules/0/host", "value": "evil.example"}])),
    ];
    for (kind, what, edit) in edits {
        match kind {
            "Service" => edited_is_put_back::<Service>(&space, what, edit).await,
            "Deployment" => edited_is_put_back::<Deployment>(&space, what, edit).await,
            _ => edited_is_put_back::<Ingress>(&space, what, edit).await,
        }
    }
    assert_eq!(spec(&space.get::<Service>("graph").await)["clusterIP"], before["clusterIP"], "its address stays");
    space.condition("Programmed", "True", "Applied").await;
}

fn spec<K: serde::Serialize>(object: &Option<K>) -> Value {
    serde_json::to_value(object).unwrap()["spec"].take()
}

async fn edited_is_put_back<K>(space: &Space, what: &str, edit: Value)
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::Serialize
        + serde::de::DeserializeOwned,
{
    space.quiet().await;
    let before = spec(&space.get::<K>("graph").await);
    let patch = kube::api::Patch::Json::<()>(serde_json::from_value(edit).unwrap());
    let edited = space.api::<K>().patch("graph", &Default::default(), &patch).await.unwrap();
    assert_ne!(spec(&Some(edited)), before, "{what} is a change");
    until(&format!("{what} is corrected"), async || spec(&space.get::<K>("graph").await) == before).await;
}

#[tokio::test]
async fn an_edit_of_labels_is_corrected_although_the_generation_does_not_change() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;
    let label = "app.kubernetes.io/name";
    let other = json!({"metadata": {"labels": {label: "other"}}});
    space.edit::<Deployment>("graph", other.clone()).await;
    space.edit::<Ingress>("graph", other).await;
    until("the labels are as built", async || {
        space.get::<Deployment>("graph").await.unwrap().labels()[label] == "mcp-entra-server"
            && space.get::<Ingress>("graph").await.unwrap().labels()[label] == "mcp-entra-server"
    })
    .await;
}

#[tokio::test]
async fn a_variable_without_a_value_is_applied_once() {
    let space = Space::new().await;
    let mut server = mk_server();
    server["spec"]["podTemplate"] = json!({"env": [{"name": "NO_PROXY", "value": ""}]});
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
    space.quiet().await;
}

#[tokio::test]
async fn a_removed_exposure_ends_at_once_although_the_spec_is_not_accepted() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.edit::<McpServer>("graph", json!({"spec": {"exposure": null, "graph": {"tools": ["drop_database"]}}})).await;
    space.condition("Accepted", "False", "ToolNotFound").await;
    until("the Ingress is gone", async || space.get::<Ingress>("graph").await.is_none()).await;
}

#[tokio::test]
async fn an_ingress_with_a_foreign_finalizer_is_deleted_once() {
    let space = Space::new().await;
    space.apply(mk_server()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.edit::<Ingress>("graph", json!({"metadata": {"finalizers": ["team.example/hold"]}})).await;
    space.quiet().await;
    let mark = space.mark();
    space.edit::<McpServer>("graph", json!({"spec": {"exposure": null}})).await;
    until("the Ingress is being deleted", async || {
        space.get::<Ingress>("graph").await.unwrap().metadata.deletion_timestamp.is_some()
    })
    .await;
    // Several reconciles run meanwhile. The wait itself is tested here.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let deletions = space.writes(mark).await.into_iter().filter(|write| write.verb == "delete").count();
    assert_eq!(deletions, 1);
    space.edit::<Ingress>("graph", json!({"metadata": {"finalizers": null}})).await;
}
