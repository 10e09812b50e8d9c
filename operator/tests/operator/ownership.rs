//! Tests of hosts, paths, client ids and audiences that two servers name: the first to claim a value owns it, and no
//! other server gets it.

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap, events::v1::Event, networking::v1::Ingress};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use mcp_entra_crds::McpServer;
use serde_json::{Value, json};
use testbed::shared::Shared;

use crate::harness::{Cluster, OPERATOR, Space, find, mk_server, until};

const ROOT: &str = "/.well-known/oauth-protected-resource";

/// Creates another server of this name. [`mk_server`] gives it its own host, path and client id, which the changes can
/// replace.
fn mk_other(name: &str, changes: &[(&str, Value)]) -> Value {
    let mut server = mk_server();
    server["metadata"]["name"] = json!(name);
    for (pointer, value) in changes {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        server.pointer_mut(parent).unwrap()[member] = value.clone();
    }
    server
}

/// Returns the paths of the Ingress to the server.
async fn paths(space: &Space, name: &str) -> Vec<String> {
    let Some(ingress) = space.get::<Ingress>(name).await else { return Vec::new() };
    let rule = ingress.spec.unwrap().rules.unwrap().remove(0);
    rule.http.unwrap().paths.into_iter().filter_map(|path| path.path).collect()
}

/// Returns the uid of the Ingress to a server. Another uid means that it was deleted in between.
async fn led_by(space: &Space, name: &str) -> Option<String> {
    space.get::<Ingress>(name).await.and_then(|ingress| ingress.uid())
}

/// Returns the claims in the operator's namespace with this value.
async fn claims_on(space: &Space, value: &str) -> Vec<ConfigMap> {
    let claims = Api::<ConfigMap>::namespaced(space.client.clone(), "mcp-entra-system");
    let mut found = claims.list(&ListParams::default().labels("mcp-entra.dev/claim")).await.unwrap().items;
    found.retain(|claim| claim.data.as_ref().unwrap()["claim.json"].contains(value));
    found
}

/// Deletes the claims on a value, as an administrator does to resolve a conflict.
async fn delete_claims(space: &Space, value: &str) {
    let claims = Api::<ConfigMap>::namespaced(space.client.clone(), "mcp-entra-system");
    let found = claims_on(space, value).await;
    assert!(!found.is_empty(), "there is a claim on {value}");
    for claim in found {
        claims.delete(&claim.name_any(), &DeleteParams::default()).await.unwrap();
    }
}

#[tokio::test]
async fn a_host_belongs_to_the_namespace_that_claimed_it_until_its_release_whose_time_the_next_one_gets() {
    let (holder, later) = (Space::new().await, Space::new().await);
    let server = mk_server();
    let host = server["spec"]["exposure"]["host"].as_str().unwrap().to_owned();
    holder.apply(server.clone()).await;
    holder.condition("Programmed", "True", "Applied").await;
    let ownership = holder.get::<McpServer>("graph").await.unwrap().status.unwrap().ownership.unwrap();
    assert_eq!((ownership.host.as_ref(), ownership.path.as_deref()), (Some(&host), Some("/mcp")));
    assert_eq!(json!(ownership.audiences), json!([server["spec"]["entra"]["clientId"]]));

    later.apply(mk_server()).await;
    later.condition("Programmed", "True", "Applied").await;
    assert!(led_by(&later, "graph").await.is_some(), "it is exposed on a host of its own");
    later.edit::<McpServer>("graph", json!({"spec": {"exposure": {"host": host, "path": "/elsewhere"}}})).await;
    let conflicted = later.condition("Conflicted", "True", "HostTaken").await;
    assert!(conflicted.message.contains("set another host"), "{}", conflicted.message);
    assert!(!conflicted.message.contains(&holder.name), "{}", conflicted.message);
    for type_ in ["Programmed", "Exposed", "Ready"] {
        later.condition(type_, "False", "HostTaken").await;
    }
    until("its Ingress is gone", async || led_by(&later, "graph").await.is_none()).await;
    let status = later.get::<McpServer>("graph").await.unwrap().status.unwrap();
    assert_eq!((status.url, status.ownership), (None, None));
    until("a Warning is published", async || {
        let events = later.api::<Event>().list(&Default::default()).await.unwrap();
        let mut taken = events.iter().filter(|event| event.reason.as_deref() == Some("HostTaken"));
        taken.any(|event| event.type_.as_deref() == Some("Warning"))
    })
    .await;
    assert_eq!(paths(&holder, "graph").await, ["/mcp", &format!("{ROOT}/mcp"), ROOT]);

    holder.delete::<McpServer>("graph").await;
    until("the status has the time when the host becomes free", async || {
        let conditions = later.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions;
        find(&conditions, "Conflicted").is_none_or(|found| found.message.contains("it becomes free at 20"))
    })
    .await;
    later.condition("Programmed", "True", "Applied").await;
    assert_eq!(paths(&later, "graph").await, ["/elsewhere", &format!("{ROOT}/elsewhere"), ROOT]);
    let conditions = later.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions;
    assert!(find(&conditions, "Conflicted").is_none());
}

#[tokio::test]
async fn a_server_that_comes_back_in_time_gets_its_host_and_client_id_again() {
    let (holder, waiting) = (Space::new().await, Space::new().await);
    let server = mk_server();
    let (host, client_id) = (server["spec"]["exposure"]["host"].clone(), server["spec"]["entra"]["clientId"].clone());
    holder.apply(server.clone()).await;
    holder.condition("Programmed", "True", "Applied").await;
    waiting.apply(mk_other("host", &[("/spec/exposure/host", host)])).await;
    waiting.apply(mk_other("app", &[("/spec/entra/clientId", client_id)])).await;
    waiting.condition_of("host", "Conflicted", "True", "HostTaken").await;
    waiting.condition_of("app", "Conflicted", "True", "ClientIdTaken").await;
    let before = holder.get::<McpServer>("graph").await.unwrap().uid();
    holder.delete::<McpServer>("graph").await;
    until("it is gone", async || holder.get::<McpServer>("graph").await.is_none()).await;
    holder.apply(server).await;
    holder.condition("Programmed", "True", "Applied").await;
    assert_ne!(holder.get::<McpServer>("graph").await.unwrap().uid(), before);
    waiting.condition_of("host", "Conflicted", "True", "HostTaken").await;
    waiting.condition_of("app", "Conflicted", "True", "ClientIdTaken").await;
}

#[tokio::test]
async fn servers_of_a_namespace_share_a_host_by_path_and_its_root_is_routed_to_the_first() {
    let space = Space::new().await;
    let server = mk_server();
    let host = &server["spec"]["exposure"]["host"];
    let beside = |name: &str, path: &str| {
        mk_other(name, &[("/spec/exposure/host", host.clone()), ("/spec/exposure/path", json!(path))])
    };
    space.apply(server.clone()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.apply(beside("mail", "/mail")).await;
    space.apply(beside("nested", "/mcp/nested")).await;
    space.condition_of("mail", "Programmed", "True", "Applied").await;
    space.condition_of("nested", "Conflicted", "True", "PathTaken").await;
    assert_eq!(paths(&space, "graph").await, ["/mcp", &format!("{ROOT}/mcp"), ROOT]);
    assert_eq!(paths(&space, "mail").await, ["/mail", &format!("{ROOT}/mail")]);
    assert!(paths(&space, "nested").await.is_empty());

    space.delete::<McpServer>("graph").await;
    until("the root leads to the next", async || paths(&space, "mail").await.contains(&ROOT.to_owned())).await;
    space.condition_of("nested", "Programmed", "True", "Applied").await;
    assert!(!paths(&space, "nested").await.contains(&ROOT.to_owned()));
}

#[tokio::test]
async fn a_client_id_is_refused_to_a_second_server_unless_both_of_one_namespace_share_it() {
    let space = Space::new().await;
    let server = mk_server();
    space.apply(server.clone()).await;
    space.condition("Programmed", "True", "Applied").await;
    let client_id = server["spec"]["entra"]["clientId"].clone();
    // Scopes do not separate servers: a token contains every granted scope.
    let scopes = ("/spec/entra/requiredScopes", json!(["second.access"]));
    space.apply(mk_other("second", &[("/spec/entra/clientId", client_id), scopes])).await;
    let conflicted = space.condition_of("second", "Conflicted", "True", "ClientIdTaken").await;
    assert!(conflicted.message.contains("another app registration"), "{}", conflicted.message);
    assert!(space.get::<ConfigMap>("second-policy").await.is_some());
    assert!(space.get::<Deployment>("second").await.is_none());
    assert!(space.get::<Ingress>("second").await.is_none());

    let share = json!({"spec": {"entra": {"sharedClientId": true}}});
    space.edit::<McpServer>("second", share.clone()).await;
    space.quiet().await;
    space.condition_of("second", "Conflicted", "True", "ClientIdTaken").await;
    space.edit::<McpServer>("graph", share).await;
    space.condition_of("second", "Programmed", "True", "Applied").await;
    assert!(space.get::<Ingress>("second").await.is_some());
    space.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn exactly_one_of_concurrently_applied_servers_gets_the_host() {
    let spaces = join_all((0..4).map(|_| Space::new())).await;
    let host = mk_server()["spec"]["exposure"]["host"].clone();
    join_all(spaces.iter().map(|space| space.apply(mk_other("graph", &[("/spec/exposure/host", host.clone())])))).await;
    let mut reasons = BTreeMap::new();
    until("it is decided", async || {
        reasons.clear();
        for space in &spaces {
            let status = space.get::<McpServer>("graph").await.unwrap().status.unwrap_or_default();
            let reason = find(&status.conditions, "Programmed").map(|found| found.reason).unwrap_or_default();
            *reasons.entry(reason).or_insert(0) += 1;
        }
        reasons.contains_key("Applied") && reasons.values().sum::<i32>() == 4 && reasons.len() == 2
    })
    .await;
    assert_eq!(reasons, BTreeMap::from([("Applied".to_owned(), 1), ("HostTaken".to_owned(), 3)]));
}

/// Returns the states of an attacker's server, as changes of its spec.
const STATES: [(&str, &str); 3] =
    [("suspended", r#"{"suspend": true}"#), ("refused", r#"{"image": "evil.example/x:1"}"#), ("active", "{}")];

/// Returns the change with which an attacker uses a victim's value in this field, and the expected reason.
fn attack(field: &str, victim: &Value) -> (Value, &'static str) {
    let (client_id, host) = (&victim["spec"]["entra"]["clientId"], &victim["spec"]["exposure"]["host"]);
    match field {
        "clientId" => (json!({"entra": {"clientId": client_id}}), "ClientIdTaken"),
        "audience" => (json!({"entra": {"audiences": [client_id]}}), "ClientIdTaken"),
        "uri" => (json!({"entra": {"audiences": [format!("api://{}", client_id.as_str().unwrap())]}}), "ClientIdTaken"),
        _ => (json!({"exposure": {"host": host, "path": "/steal"}}), "HostTaken"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_server_of_another_namespace_displaces_no_other_server() {
    static CLUSTER: Shared<Cluster> = Shared::new();
    let cluster = tokio::task::spawn_blocking(|| CLUSTER.get_or_start(Cluster::start).unwrap()).await.unwrap();
    let patient = |options: &mut mcp_entra_operator::Options| options.release_after_seconds = 600;
    let (team_b, team_a) = (Space::on(cluster).await, Space::on(cluster).await);
    let first = cluster.operator_with(patient).await.unwrap();

    // The attackers exist first, with their own values, and each is in one of the states.
    let mut cases = Vec::new();
    for (state, parked) in STATES {
        for field in ["clientId", "audience", "uri", "host"] {
            let name = format!("{state}-{}", field.to_lowercase());
            let victim = mk_other(&name, &[]);
            let (change, reason) = attack(field, &victim);
            team_b.apply(mk_other(&name, &[])).await;
            cases.push((name, parked, victim, change, reason));
        }
    }
    for (name, ..) in &cases {
        team_b.condition_of(name, "Programmed", "True", "Applied").await;
    }
    for (name, parked, victim, ..) in &cases {
        let parked: Value = serde_json::from_str(parked).unwrap();
        team_b.edit::<McpServer>(name, json!({"spec": parked})).await;
        team_a.apply(victim.clone()).await;
    }
    let mut before = BTreeMap::new();
    for (name, ..) in &cases {
        team_a.condition_of(name, "Programmed", "True", "Applied").await;
        before.insert(name.clone(), led_by(&team_a, name).await.expect("it is exposed"));
    }

    // Each names a value of its victim.
    for (name, _, _, change, _) in &cases {
        team_b.edit::<McpServer>(name, json!({"spec": change})).await;
    }
    let is_told = async || {
        for (name, _, _, _, reason) in &cases {
            team_b.condition_of(name, "Conflicted", "True", reason).await;
            until("nothing leads to the attacker", async || led_by(&team_b, name).await.is_none()).await;
        }
    };
    let is_unmoved = async |when: &str| {
        for (name, ..) in &cases {
            team_a.condition_of(name, "Programmed", "True", "Applied").await;
            assert_eq!(led_by(&team_a, name).await.as_ref(), before.get(name), "{name}, {when}");
        }
    };
    is_told().await;
    is_unmoved("named by an older server").await;

    // An administrator deletes the claims. The servers that clients are routed to claim first.
    for (_, _, victim, ..) in &cases {
        delete_claims(&team_a, victim["spec"]["entra"]["clientId"].as_str().unwrap()).await;
        delete_claims(&team_a, victim["spec"]["exposure"]["host"].as_str().unwrap()).await;
    }
    team_a.quiet().await;
    is_told().await;
    is_unmoved("claims deleted").await;

    // Another leader, with all claims lost: as after an upgrade from a version without claims.
    first.shutdown.cancel();
    first.ended.await.unwrap().unwrap();
    delete_claims(&team_a, "holders").await;
    let second = cluster.operator_with(patient).await.unwrap();
    for (_, _, victim, ..) in &cases {
        until("the victims have claimed", async || {
            claims_on(&team_a, victim["spec"]["entra"]["clientId"].as_str().unwrap()).await.len() == 1
        })
        .await;
    }
    team_a.quiet().await;
    is_told().await;
    is_unmoved("another leader").await;

    // And another, with all claims: nothing is written.
    second.shutdown.cancel();
    second.ended.await.unwrap().unwrap();
    let mark = cluster.plane.audit().mark().unwrap();
    let third = cluster.operator_with(patient).await.unwrap();
    until("it leads", async || {
        let metrics = reqwest::get(format!("{}/metrics", third.url)).await.unwrap().text().await.unwrap();
        metrics.contains("mcp_entra_operator_leader 1")
    })
    .await;
    team_a.quiet().await;
    let mut writes = cluster.plane.audit().writes(mark, OPERATOR).await.unwrap();
    writes.retain(|write| write.resource == "configmaps");
    assert_eq!(writes, []);
    is_unmoved("restarted").await;
    third.shutdown.cancel();
    third.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_suspended_server_claims_nothing_and_keeps_the_values_that_it_owned() {
    let (parked, other) = (Space::new().await, Space::new().await);
    let server = mk_server();
    let host = server["spec"]["exposure"]["host"].clone();
    let mut suspended = server.clone();
    suspended["spec"]["suspend"] = json!(true);
    parked.apply(suspended).await;
    parked.condition("Programmed", "Unknown", "Suspended").await;
    other.apply(mk_other("graph", &[("/spec/exposure/host", host)])).await;
    other.condition("Programmed", "True", "Applied").await;
    let before = led_by(&other, "graph").await;
    parked.edit::<McpServer>("graph", json!({"spec": {"suspend": false}})).await;
    parked.condition("Conflicted", "True", "HostTaken").await;

    other.edit::<McpServer>("graph", json!({"spec": {"suspend": true}})).await;
    other.condition("Programmed", "Unknown", "Suspended").await;
    other.quiet().await;
    parked.condition("Conflicted", "True", "HostTaken").await;
    assert_eq!(led_by(&other, "graph").await, before);
}

#[tokio::test]
async fn a_host_is_not_free_while_a_route_of_its_last_server_exists() {
    let (gone, next) = (Space::new().await, Space::new().await);
    let server = mk_server();
    gone.apply(server.clone()).await;
    gone.condition("Programmed", "True", "Applied").await;
    // Garbage collection is delayed: the Ingress outlives its server.
    gone.edit::<Ingress>("graph", json!({"metadata": {"finalizers": ["team.example/hold"]}})).await;
    next.apply(mk_other("graph", &[("/spec/exposure/host", server["spec"]["exposure"]["host"].clone())])).await;
    next.condition("Conflicted", "True", "HostTaken").await;
    gone.delete::<McpServer>("graph").await;
    until("the server is gone", async || gone.get::<McpServer>("graph").await.is_none()).await;
    // Far longer than the grace period of this operator. The wait itself is tested here.
    tokio::time::sleep(std::time::Duration::from_secs(15)).await;
    assert!(gone.get::<Ingress>("graph").await.is_some());
    let conflicted = next.condition("Conflicted", "True", "HostTaken").await;
    assert!(!conflicted.message.contains("becomes free"), "{}", conflicted.message);
    gone.edit::<Ingress>("graph", json!({"metadata": {"finalizers": null}})).await;
    next.condition("Programmed", "True", "Applied").await;
}

#[tokio::test]
async fn a_corrupted_claim_blocks_its_value_until_it_is_deleted() {
    let (one, two) = (Space::new().await, Space::new().await);
    let server = mk_server();
    let host = server["spec"]["exposure"]["host"].as_str().unwrap().to_owned();
    one.apply(server).await;
    one.condition("Programmed", "True", "Applied").await;
    let before = led_by(&one, "graph").await;
    let claims = Api::<ConfigMap>::namespaced(one.client.clone(), "mcp-entra-system");
    let claim = claims_on(&one, &host).await.remove(0).name_any();
    let garbled = kube::api::Patch::Merge(json!({"data": {"claim.json": "{}"}}));
    claims.patch(&claim, &Default::default(), &garbled).await.unwrap();
    two.apply(mk_other("graph", &[("/spec/exposure/host", json!(host))])).await;
    two.condition("Programmed", "False", "OwnershipPending").await;
    one.condition("Programmed", "False", "OwnershipPending").await;
    // Longer than a server waits for one that never owned the value.
    tokio::time::sleep(std::time::Duration::from_secs(35)).await;
    assert_eq!(led_by(&one, "graph").await, before, "it keeps the values that it owns");
    assert!(led_by(&two, "graph").await.is_none());
    claims.delete(&claim, &DeleteParams::default()).await.unwrap();
    one.condition("Programmed", "True", "Applied").await;
    two.condition("Conflicted", "True", "HostTaken").await;
    assert_eq!(led_by(&one, "graph").await, before);
}

#[tokio::test]
async fn a_host_without_a_claim_waits_for_the_end_of_an_orphans_route_and_not_forever() {
    let space = Space::new().await;
    let server = mk_server();
    let host = server["spec"]["exposure"]["host"].as_str().unwrap();
    let labels = json!({"app.kubernetes.io/managed-by": "mcp-entra-operator", "app.kubernetes.io/name": "mcp-entra-server",
                        "app.kubernetes.io/instance": "left"});
    let backend = json!({"service": {"name": "left", "port": {"number": 80}}});
    space
        .apply(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            // The finalizer is never removed, so the object stays although the operator deletes it.
            "metadata": {"name": "left", "labels": labels, "finalizers": ["team.example/hold"],
                         "annotations": {"mcp-entra.dev/exposes": format!("{host}/mcp")}},
            "spec": {"defaultBackend": backend},
        }))
        .await;
    let is_orphan = async || space.get::<Ingress>("left").await.unwrap().metadata.deletion_timestamp.is_some();
    until("the operator sees the orphan", is_orphan).await;
    space.apply(server.clone()).await;
    space.condition("Programmed", "False", "OwnershipPending").await;
    assert!(claims_on(&space, host).await.is_empty());
    // After half a minute the next server gets the host: a route of that kind can belong to anyone.
    space.condition("Programmed", "True", "Applied").await;
    space.edit::<Ingress>("left", json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test]
async fn a_suspended_server_that_serves_keeps_its_client_id_although_the_claim_is_lost() {
    let space = Space::new().await;
    let other = Space::new().await;
    let server = mk_server();
    let client_id = server["spec"]["entra"]["clientId"].clone();
    space.apply(server).await;
    space.condition("Programmed", "True", "Applied").await;
    space.edit::<McpServer>("graph", json!({"spec": {"suspend": true}})).await;
    space.condition("Programmed", "Unknown", "Suspended").await;
    other.apply(mk_other("thief", &[("/spec/entra/clientId", client_id.clone())])).await;
    other.condition_of("thief", "Conflicted", "True", "ClientIdTaken").await;
    let led = led_by(&space, "graph").await.unwrap();

    let claims = claims_on(&space, client_id.as_str().unwrap()).await;
    let api = Api::<ConfigMap>::namespaced(space.client.clone(), "mcp-entra-system");
    api.delete(&claims[0].name_any(), &DeleteParams::default()).await.unwrap();
    until("it is claimed again", async || {
        let claims = claims_on(&space, client_id.as_str().unwrap()).await;
        claims.first().is_some_and(|claim| claim.data.as_ref().unwrap()["claim.json"].contains(&space.name))
    })
    .await;
    other.condition_of("thief", "Conflicted", "True", "ClientIdTaken").await;
    assert_eq!(led_by(&space, "graph").await, Some(led), "clients were routed to it all the time");
}
