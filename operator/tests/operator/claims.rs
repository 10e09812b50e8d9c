//! Hosts, paths and client ids that two servers name: the older keeps them, the younger is told and not exposed.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap, events::v1::Event, networking::v1::Ingress};
use mcp_entra_crds::McpServer;
use serde_json::{Value, json};

use crate::harness::{Space, find, mk_server, until};

const ROOT: &str = "/.well-known/oauth-protected-resource";

/// Another server of the name, with the host, path and client id of its own that [`mk_server`] gives it, but for changes.
fn mk_other(name: &str, changes: &[(&str, Value)]) -> Value {
    let mut server = mk_server();
    server["metadata"]["name"] = json!(name);
    for (pointer, value) in changes {
        let (parent, member) = pointer.rsplit_once('/').unwrap();
        server.pointer_mut(parent).unwrap()[member] = value.clone();
    }
    server
}

/// The paths that the Ingress leads to the server.
async fn paths(space: &Space, name: &str) -> Vec<String> {
    let Some(ingress) = space.get::<Ingress>(name).await else { return Vec::new() };
    let rule = ingress.spec.unwrap().rules.unwrap().remove(0);
    rule.http.unwrap().paths.into_iter().filter_map(|path| path.path).collect()
}

#[tokio::test]
async fn the_older_keeps_its_host_across_namespaces_until_it_is_gone() {
    let (one, two) = (Space::new().await, Space::new().await);
    // Of servers that are created within one second, the namespaces decide which counts as the older.
    let (older, younger) = if one.name < two.name { (one, two) } else { (two, one) };
    let server = mk_server();
    let host = &server["spec"]["exposure"]["host"];
    older.apply(server.clone()).await;
    older.condition("Programmed", "True", "Applied").await;
    younger.apply(mk_server()).await;
    younger.condition("Programmed", "True", "Applied").await;
    assert!(younger.get::<Ingress>("graph").await.is_some(), "it is exposed on a host of its own");

    let elsewhere = json!({"spec": {"exposure": {"host": host, "path": "/elsewhere"}}});
    younger.edit::<McpServer>("graph", elsewhere).await;
    let conflicted = younger.condition("Conflicted", "True", "HostTaken").await;
    assert!(conflicted.message.contains("another host"), "{}", conflicted.message);
    assert!(!conflicted.message.contains(&older.name), "{}", conflicted.message);
    for type_ in ["Programmed", "Exposed", "Ready"] {
        younger.condition(type_, "False", "HostTaken").await;
    }
    until("its Ingress is gone", async || younger.get::<Ingress>("graph").await.is_none()).await;
    assert_eq!(younger.get::<McpServer>("graph").await.unwrap().status.unwrap().url, None);
    until("a Warning is published", async || {
        let events = younger.api::<Event>().list(&Default::default()).await.unwrap();
        let mut taken = events.iter().filter(|event| event.reason.as_deref() == Some("HostTaken"));
        taken.any(|event| event.type_.as_deref() == Some("Warning"))
    })
    .await;
    older.quiet().await;
    younger.quiet().await;
    assert_eq!(paths(&older, "graph").await, ["/mcp", &format!("{ROOT}/mcp"), ROOT]);
    assert!(younger.get::<Ingress>("graph").await.is_none(), "it stays away");

    older.delete::<McpServer>("graph").await;
    younger.condition("Programmed", "True", "Applied").await;
    assert_eq!(paths(&younger, "graph").await, ["/elsewhere", &format!("{ROOT}/elsewhere"), ROOT]);
    let conditions = younger.get::<McpServer>("graph").await.unwrap().status.unwrap().conditions;
    assert!(find(&conditions, "Conflicted").is_none());
}

#[tokio::test]
async fn servers_of_a_namespace_share_a_host_by_path_and_its_root_leads_to_the_oldest() {
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
    space.condition_of("nested", "Programmed", "True", "Applied").await;
    until("the root leads to the next", async || paths(&space, "mail").await.contains(&ROOT.to_owned())).await;
    assert!(!paths(&space, "nested").await.contains(&ROOT.to_owned()));
}

#[tokio::test]
async fn a_client_id_is_refused_to_a_second_server_unless_it_requires_other_scopes() {
    let space = Space::new().await;
    let server = mk_server();
    space.apply(server.clone()).await;
    space.condition("Programmed", "True", "Applied").await;
    space.apply(mk_other("second", &[("/spec/entra/clientId", server["spec"]["entra"]["clientId"].clone())])).await;
    let conflicted = space.condition_of("second", "Conflicted", "True", "ClientIdTaken").await;
    assert!(conflicted.message.contains("another app registration"), "{}", conflicted.message);
    assert!(space.get::<ConfigMap>("second-policy").await.is_some());
    assert!(space.get::<Deployment>("second").await.is_none());
    assert!(space.get::<Ingress>("second").await.is_none());
    space.condition("Programmed", "True", "Applied").await;

    space.edit::<McpServer>("second", json!({"spec": {"entra": {"requiredScopes": ["second.access"]}}})).await;
    space.condition_of("second", "Programmed", "True", "Applied").await;
    assert!(space.get::<Ingress>("second").await.is_some());
    space.condition("Programmed", "True", "Applied").await;
}
