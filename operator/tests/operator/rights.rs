//! Tests of the shipped rights: they are enough, and none is unused. Every feature of the operator is used here, and
//! the audit log shows the needed rights. The chart renders the list of rights.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Service, ServiceAccount},
};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams},
};
use mcp_entra_crds::McpServer;
use serde_json::{Value, json};
use testbed::{
    chart,
    control_plane::{AuditEvent, Marker},
    shared::Shared,
    supervisor::Supervisor,
};

use crate::harness::{
    Cluster, OPERATOR, Operator, Space, apply, cluster, find, mk_mapping, mk_server, until, until_or,
};

/// Granted or used right: API group, resource with subresource, verb.
type Right = (String, String, String);

/// Children of both servers here that are read again after an edit.
const CHILDREN: &[(&str, &str, &str)] = &[
    ("", "serviceaccounts", "graph"),
    ("", "configmaps", "graph-config"),
    ("", "services", "graph"),
    ("apps", "deployments", "graph"),
    ("networking.k8s.io", "ingresses", "graph"),
    ("networking.k8s.io", "networkpolicies", "graph"),
    ("policy", "poddisruptionbudgets", "graph"),
    ("autoscaling", "horizontalpodautoscalers", "graph"),
    ("monitoring.coreos.com", "podmonitors", "graph"),
    ("gateway.networking.k8s.io", "httproutes", "routed"),
    ("gateway.networking.k8s.io", "listenersets", "routed"),
    ("cert-manager.io", "certificates", "routed-tls"),
];

/// Rights that only admission checks (OwnerReferencesPermissionEnforcement). Without them adoption fails, and this test
/// gets a 403.
fn only_admission_sees((_, resource, verb): &Right) -> bool {
    verb == "delete" && matches!(resource.as_str(), "configmaps" | "services" | "deployments")
}

/// Returns everything that the chart's roles grant for these watched namespaces. No namespace means all.
async fn granted(watched: &[String]) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for document in chart::rights(&Supervisor::start().unwrap(), watched).await.unwrap() {
        for rule in document["rules"].as_array().into_iter().flatten() {
            let all = |key: &str| rule[key].as_array().unwrap().iter().map(|value| value.as_str().unwrap().to_owned());
            for group in all("apiGroups") {
                for resource in all("resources") {
                    granted.extend(all("verbs").map(|verb| (group.clone(), resource.clone(), verb)));
                }
            }
        }
    }
    granted
}

/// Returns the rights for a request. Server-side apply of a missing object needs two.
fn used(request: &AuditEvent) -> Vec<Right> {
    let resource = match &request.subresource {
        Some(subresource) => format!("{}/{subresource}", request.resource),
        None => request.resource.clone(),
    };
    let right = |verb: &str| (request.group.clone(), resource.clone(), verb.to_owned());
    match (request.verb.as_str(), request.code) {
        ("patch", 201) => vec![right("patch"), right("create")],
        (verb, _) => vec![right(verb)],
    }
}

#[tokio::test]
async fn every_role_may_create_secrets_but_not_read_them_and_has_no_rights_on_tokens_and_no_wildcards() {
    for right in granted(&[]).await.union(&granted(&["one".to_owned()]).await) {
        let (group, resource, verb) = right;
        assert!(!resource.starts_with("secrets") || verb == "create", "{right:?}");
        assert!(!resource.contains("token"), "{right:?}");
        assert!(![group, resource, verb].iter().any(|part| part.contains('*')), "{right:?}");
    }
}

#[tokio::test]
async fn in_watched_namespaces_the_operator_has_the_same_rights_except_events_of_cluster_mappings() {
    let (everywhere, namespaced) = (granted(&[]).await, granted(&["one".to_owned()]).await);
    let status = ["mcp-entra.dev", "clustermcprolemappings/status", "patch"].map(str::to_owned);
    assert_eq!(everywhere.difference(&namespaced).collect::<Vec<_>>(), [&status.into()]);
    assert!(namespaced.is_subset(&everywhere));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_uses_every_shipped_right_and_lacks_none() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let start = || CLUSTER.get_or_start(Cluster::start).unwrap();
    let cluster = tokio::task::spawn_blocking(start).await.unwrap();
    let (space, other) = (Space::on(cluster).await, Space::on(cluster).await);
    let begin = space.mark();
    everything_is_done(&space, &other, &[]).await;
    rights_fit(cluster, begin, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_does_everything_in_the_watched_namespaces_and_nothing_in_others() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let start = || CLUSTER.get_or_start(async || Cluster::start_watching(&["default".to_owned()]).await).unwrap();
    let cluster = tokio::task::spawn_blocking(start).await.unwrap();
    let (space, other, unwatched) = (Space::on(cluster).await, Space::on(cluster).await, Space::on(cluster).await);
    let watched = [space.name.clone(), other.name.clone()];
    for object in chart::rights(&Supervisor::start().unwrap(), &watched).await.unwrap() {
        space.apply_to_cluster(&object).await;
    }
    unwatched.apply(mk_server()).await;
    unwatched.apply(mk_mapping("readers", "Mcp.Reader")).await;
    let begin = space.mark();
    everything_is_done(&space, &other, &watched).await;
    rights_fit(cluster, begin, &watched).await;

    let requests = cluster.plane.audit().requests(begin, OPERATOR).await.unwrap();
    assert!(requests.iter().all(|request| request.namespace.as_ref() != Some(&unwatched.name)));
    assert!(unwatched.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions.is_empty());
    assert!(space.cluster_mappings().get("no-mail").await.unwrap().status.unwrap().conditions.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_cannot_see_every_deny_refuses_to_start_and_names_the_missing_right_and_its_role() {
    let cluster = tokio::task::spawn_blocking(cluster).await.unwrap();
    let client = cluster.plane.client().unwrap();
    let group = "rbac.authorization.k8s.io";
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "lists-denies"},
        "rules": [{"apiGroups": ["mcp-entra.dev"], "resources": ["clustermcprolemappings"], "verbs": ["list"]}]});
    let binding = json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding",
        "metadata": {"name": "lists-denies"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "lists-denies"},
        "subjects": [{"kind": "ServiceAccount", "name": "lists-denies", "namespace": "mcp-entra-system"}]});
    for object in [role, binding] {
        apply(&client, &object).await.unwrap();
    }
    for (account, missing) in [("sees-nothing", "list"), ("lists-denies", "watch")] {
        let object = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                            "metadata": {"name": account, "namespace": "mcp-entra-system"}});
        apply(&client, &object).await.unwrap();
        let kubeconfig = cluster.plane.kubeconfig_for_service_account("mcp-entra-system", account).await.unwrap();
        let start = |namespaces: &[&str]| {
            let namespaces = namespaces.iter().copied().map(str::to_owned).collect();
            cluster.operator_by(&kubeconfig, |options| options.watch_namespaces = namespaces)
        };
        // New rights are effective a moment later.
        until(&format!("{account} reports that it lacks {missing}"), async || {
            let error = start(&["default"]).await.unwrap().ended.await.unwrap().unwrap_err().to_string();
            error.contains(&format!("may not {missing} clustermcprolemappings.mcp-entra.dev"))
        })
        .await;
        let error = start(&[]).await.unwrap().ended.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("helm upgrade mcp-entra charts/mcp-entra"), "{error}");
    }
}

/// Asserts that every right of the chart was used since then, and none was missing.
async fn rights_fit(cluster: &Cluster, begin: Marker, watched: &[String]) {
    let granted = granted(watched).await;
    let requests = async || cluster.plane.audit().requests(begin, OPERATOR).await.unwrap();
    let idle = async || {
        let used: BTreeSet<Right> = requests().await.iter().flat_map(used).collect();
        let idle = granted.iter().filter(|right| !used.contains(right) && !only_admission_sees(right));
        idle.cloned().collect::<BTreeSet<_>>()
    };
    // The ends of watches are logged with a delay.
    if let Err(what) = until_or(|| "every right is used".to_owned(), async || idle().await.is_empty()).await {
        panic!("{what}, but {:?}", idle().await);
    }
    let refused: Vec<_> = requests().await.into_iter().filter(|request| request.code == 403).collect();
    assert_eq!(refused, [], "the operator needs these rights");
    assert!(requests().await.iter().all(|request| request.resource != "secrets" || request.verb == "create"));
}

/// Uses every feature of the operator, in two namespaces, while it watches these. No namespace means all.
async fn everything_is_done(space: &Space, other: &Space, watched: &[String]) {
    let cluster = space.cluster;
    let first = cluster.operator_with(|options| {
        options.watch_namespaces = watched.to_vec();
        options.pod_monitors = Some("release=prometheus".parse().unwrap());
    });
    let first = first.await.unwrap();
    everything_is_made(space).await;
    if watched.is_empty() {
        until("the cluster mapping is programmed", async || {
            let status = space.cluster_mappings().get("no-mail").await.unwrap().status.unwrap_or_default();
            find(&status.conditions, "Programmed").is_some_and(|found| found.status == "True")
        })
        .await;
    }
    everything_is_edited(space).await;
    end(first).await;
    // Without PodMonitors, which are removed.
    let second = cluster.operator_with(|options| options.watch_namespaces = watched.to_vec()).await.unwrap();
    everything_is_taken_away(space).await;
    everything_is_adopted(space, other).await;
    everything_is_deleted(other).await;
    end(second).await;
}

async fn end(operator: Operator) {
    operator.shutdown.cancel();
    operator.ended.await.unwrap().unwrap();
}

fn with(name: &str, changes: Value) -> Value {
    let mut server = mk_server();
    server["metadata"]["name"] = json!(name);
    json_patch::merge(&mut server["spec"], &changes);
    server
}

async fn everything_is_made(space: &Space) {
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    space
        .apply_to_cluster(&json!({"apiVersion": "mcp-entra.dev/v1alpha1", "kind": "ClusterMcpRoleMapping",
            "metadata": {"name": "no-mail"}, "spec": {"namespaceSelector": {}, "servers": {"selector": {}},
            "deny": [{"name": "mail", "tools": ["list_my_messages"]}]}}))
        .await;
    let clients = json!({"allowFrom": [{"podSelector": {}}]});
    let autoscaling = json!({"minReplicas": 2, "maxReplicas": 3});
    let password = json!({"name": "graph-session-store"});
    let valkey = json!({"valkey": {"url": "rediss://sessions.example", "passwordSecretRef": password}});
    let spec =
        json!({"autoscaling": autoscaling, "networkPolicy": clients, "authorizationServer": {"sessionStore": valkey}});
    space.apply(with("graph", spec)).await;
    space
        .apply(json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "shared"},
            "spec": {"gatewayClassName": "none", "listeners": [{"name": "web", "port": 80, "protocol": "HTTP"}]}}))
        .await;
    let exposure = json!({"ingress": null, "gateway": {"parentRefs": [{"name": "shared"}]},
                          "tls": {"secretName": null, "issuerRef": {"name": "ca"}}});
    space.apply(with("routed", json!({"exposure": exposure}))).await;
    for name in ["graph", "routed"] {
        space.condition_of(name, "Programmed", "True", "Applied").await;
    }
    space.mapping_condition("readers", "Programmed", "True", "Applied").await;
    assert!(space.policy().await.contains("no-mail"));
    let mark = space.mark();
    let _pod = space.pod("graph-0").await;
    until("a pod with another policy is nudged", async || {
        space.writes(mark).await.iter().any(|write| write.resource == "pods")
    })
    .await;
}

fn api(space: &Space, group: &str, plural: &str) -> Api<DynamicObject> {
    let version = if group == "autoscaling" { "v2" } else { "v1" };
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let (group, version, plural) = (group.into(), version.into(), plural.into());
    let resource = ApiResource { group, version, api_version, kind: String::new(), plural };
    Api::namespaced_with(space.client.clone(), &space.name, &resource)
}

async fn everything_is_edited(space: &Space) {
    let edit = json!({"metadata": {"annotations": {"team.example/seen": "yes"}}});
    for (group, plural, name) in CHILDREN {
        let api = api(space, group, plural);
        until(&format!("{plural} {name} is there"), async || api.get_metadata_opt(name).await.unwrap().is_some()).await;
        let mark = space.mark();
        api.patch(name, &PatchParams::default(), &Patch::Merge(&edit)).await.unwrap();
        until(&format!("{plural} {name} is reconciled"), async || {
            let requests = space.cluster.plane.audit().requests(mark, OPERATOR).await.unwrap();
            requests.iter().any(|request| request.verb == "get" && request.resource == *plural)
        })
        .await;
    }
}

async fn everything_is_taken_away(space: &Space) {
    let shared = json!({"apiVersion": "v1", "kind": "ServiceAccount",
                        "metadata": {"name": "shared", "annotations": {"mcp-entra.dev/allow-server": "graph"}}});
    space.apply(shared).await;
    let federation = json!({"federation": {"serviceAccountName": "shared"}});
    let spec = json!({"autoscaling": null, "replicas": 1, "networkPolicy": null, "exposure": null, "entra": federation,
               "authorizationServer": null});
    space.edit::<McpServer>("graph", json!({"spec": spec})).await;
    space.edit::<McpServer>("routed", json!({"spec": {"exposure": null}})).await;
    let stays = |plural: &str| matches!(plural, "configmaps" | "services" | "deployments");
    for (group, plural, name) in CHILDREN.iter().filter(|(_, plural, _)| !stays(plural)) {
        let api = api(space, group, plural);
        until(&format!("{plural} {name} is gone"), async || api.get_metadata_opt(name).await.unwrap().is_none()).await;
    }
}

/// A server finds its children as another writer left them, and gets them by adoption.
async fn everything_is_adopted(from: &Space, space: &Space) {
    let offered = |kind: &str, api_version: &str, name: &str, content: Value| {
        let mut object = json!({"apiVersion": api_version, "kind": kind,
            "metadata": {"name": name, "annotations": {"mcp-entra.dev/adopt": "graph"}}});
        json_patch::merge(&mut object, &content);
        object
    };
    let deployment = from.get::<Deployment>("graph").await.unwrap().spec.unwrap();
    let service = from.get::<Service>("graph").await.unwrap().spec.unwrap();
    space.apply(offered("ServiceAccount", "v1", "graph", json!({}))).await;
    space.apply(offered("ConfigMap", "v1", "graph-policy", json!({}))).await;
    space.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "graph-config"}})).await;
    space
        .apply(offered(
            "Service",
            "v1",
            "graph",
            json!({"spec": {"selector": service.selector, "ports": service.ports}}),
        ))
        .await;
    let spec = json!({"spec": {"selector": deployment.selector, "template": deployment.template}});
    space.apply(offered("Deployment", "apps/v1", "graph", spec)).await;
    space.apply(mk_server()).await;
    space.condition("Conflicted", "True", "NotOwned").await;
    space.apply(offered("ConfigMap", "v1", "graph-config", json!({}))).await;
    space.condition("Programmed", "True", "Applied").await;
    assert!(!space.get::<ServiceAccount>("graph").await.unwrap().owner_references().is_empty());
    assert!(!space.get::<ConfigMap>("graph-policy").await.unwrap().owner_references().is_empty());
}

async fn everything_is_deleted(space: &Space) {
    space.delete::<McpServer>("graph").await;
    until("its children are gone", async || {
        space.get::<Deployment>("graph").await.is_none() && space.get::<ServiceAccount>("graph").await.is_none()
    })
    .await;
    let claims = Api::<ConfigMap>::namespaced(space.client.clone(), "mcp-entra-system");
    until("its host and client id are free", async || {
        let labelled = ListParams::default().labels("mcp-entra.dev/claim");
        let all = claims.list(&labelled).await.unwrap();
        let names_it = |claim: &ConfigMap| claim.data.iter().flatten().any(|(_, text)| text.contains(&space.name));
        !all.iter().any(names_it)
    })
    .await;
}
