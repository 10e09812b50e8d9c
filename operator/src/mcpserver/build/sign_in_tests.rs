//! Tests of the children of a server with an authorization server.

use mcp_entra_crds::McpServer;
use mcp_entra_policy::ServerConfiguration;
use serde_json::{Value, json};

use super::tests::Children;
use crate::{
    mcpserver::{
        build,
        resolved::{Resolved, ResolvedTrustBundle},
        validate::{tests::mk_options, validate},
    },
    objects::{
        child::{Child, ChildKind, json_of},
        config_map_edition::Mounted,
        fixtures::{mk_owner, mk_server},
    },
    ownership::Held,
};

fn memory() -> Value {
    json!({"sessionStore": {"memory": {}}})
}

fn valkey() -> Value {
    json!({"sessionStore": {"valkey": {
        "url": "rediss://sessions.example:6380/1",
        "username": "graph",
        "caBundle": {"name": "corporate"},
        "passwordSecretRef": {"name": "graph-session-store"},
    }}})
}

/// Returns the children of a server with this authorization server, at the root of its host or not.
fn children_of(authorization_server: Value, root: bool, change: impl FnOnce(&mut McpServer)) -> Children {
    let mut server = mk_server();
    server.spec.authorization_server = Some(serde_json::from_value(authorization_server).unwrap());
    change(&mut server);
    let store_ca = ResolvedTrustBundle::Content("-----BEGIN CERTIFICATE-----".into());
    let resolved = Resolved { store_ca, ..Resolved::default() };
    let mut validated = validate(&server, &mk_owner(), &resolved, &mk_options()).unwrap();
    assert!(!validated.is_settled(), "it depends on what the server holds");
    let held = Held { root, listener_of: None };
    validated.hold(&held);
    assert!(validated.is_settled());
    let children = build::children(&validated, &held, Mounted::default());
    children.iter().map(|child: &Child| (child.kind(), json_of(child))).collect()
}

fn configuration(children: &Children) -> ServerConfiguration {
    let text = children[&ChildKind::Configuration]["data"]["config.yaml"].as_str().unwrap();
    let configuration: ServerConfiguration = serde_yaml::from_str(text).unwrap();
    configuration.validate().unwrap();
    configuration
}

fn volume<'a>(deployment: &'a Value, name: &str) -> Option<&'a Value> {
    let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    volumes.iter().find(|volume| volume["name"] == name)
}

fn variables(deployment: &Value) -> Vec<(&str, &str)> {
    let variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    variables.iter().map(|variable| (variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap())).collect()
}

fn paths(children: &Children) -> Vec<&str> {
    let paths = children[&ChildKind::Ingress]["spec"]["rules"][0]["http"]["paths"].as_array().unwrap();
    paths.iter().map(|path| path["path"].as_str().unwrap()).collect()
}

#[test]
fn only_sign_in_servers_publish_their_metadata_and_one_serves_the_root() {
    let root = children_of(memory(), true, |_| {});
    let metadata = "/.well-known/oauth-authorization-server/mcp";
    let resource = "/.well-known/oauth-protected-resource";
    assert_eq!(paths(&root), ["/mcp", &format!("{resource}/mcp"), metadata, resource]);
    let beside = children_of(memory(), false, |_| {});
    assert_eq!(paths(&beside), ["/mcp", &format!("{resource}/mcp"), metadata]);
    let serves_root = |children: &Children| configuration(children).authorization_server.unwrap().serves_root;
    assert_eq!((serves_root(&root), serves_root(&beside)), (true, false));
    let without = super::tests::mk_children(|_| {});
    assert!(paths(&without).iter().all(|path| !path.contains("authorization-server")));
}

#[test]
fn the_fields_of_the_spec_reach_the_configuration() {
    let mut asked = valkey();
    asked["clientRegistration"] = json!("Listed");
    asked["clients"] = json!([{"clientId": "a", "name": "A", "redirectUris": ["https://a.example/"]}]);
    asked["allowedRedirects"] = json!(["https://b.example/"]);
    asked["clientMetadataHosts"] = json!(["c.example"]);
    asked["userConsentScopes"] = json!(["User.Read"]);
    let configured =
        serde_json::to_value(configuration(&children_of(asked.clone(), false, |_| {})).authorization_server);
    let expected = json!({
        "sessionStore": {"valkey": {"url": "rediss://sessions.example:6380/1", "username": "graph",
                                    "keyPrefix": "mcp-entra/productivity/graph/uid-1/"}},
        "keys": {"registration": 1, "epochs": [{"number": 1, "usedFrom": 0}]},
        "clientRegistration": "Listed",
        "clients": asked["clients"],
        "allowedRedirects": ["https://b.example/"],
        "clientMetadataHosts": ["c.example"],
        "userConsentScopes": ["User.Read"],
        "servesRoot": false,
    });
    assert_eq!(configured.unwrap(), expected);
}

#[test]
fn pods_mount_their_keys_and_the_stores_password_and_know_where() {
    let children = children_of(valkey(), true, |_| {});
    let deployment = &children[&ChildKind::Deployment];
    let keys = json!([{"secret": {"name": "graph-uid-1-oauth-1", "items": [{"key": "key", "path": "1"}]}}]);
    assert_eq!(volume(deployment, "oauth").unwrap()["projected"]["sources"], keys);
    let password = json!({"secretName": "graph-session-store", "items": [{"key": "password", "path": "password"}]});
    assert_eq!(volume(deployment, "session-store").unwrap()["secret"], password);
    assert_eq!(volume(deployment, "session-store-ca").unwrap()["configMap"]["name"], "corporate");
    for variable in [
        ("MCP_ENTRA_OAUTH_KEYS", "/etc/mcp-entra/oauth"),
        ("MCP_ENTRA_SESSION_STORE_PASSWORD", "/etc/mcp-entra/session-store/password"),
        ("MCP_ENTRA_SESSION_STORE_CA", "/etc/mcp-entra/session-store-ca/ca.crt"),
    ] {
        assert!(variables(deployment).contains(&variable), "{variable:?}");
    }
    let memory = children_of(memory(), true, |_| {});
    let deployment = &memory[&ChildKind::Deployment];
    assert!(volume(deployment, "oauth").is_some() && volume(deployment, "session-store").is_none());
    assert!(!variables(deployment).iter().any(|(name, _)| name.contains("SESSION_STORE")));
    let without = super::tests::mk_children(|_| {});
    assert!(volume(&without[&ChildKind::Deployment], "oauth").is_none());
}

#[test]
fn a_server_with_sessions_in_memory_never_has_two_pods() {
    let memory = children_of(memory(), true, |_| {});
    let spec = &memory[&ChildKind::Deployment]["spec"];
    assert_eq!((&spec["strategy"], &spec["replicas"]), (&json!({"type": "Recreate"}), &json!(1)));
    assert!(!memory.contains_key(&ChildKind::DisruptionBudget));
    let none = children_of(super::sign_in_tests::memory(), true, |server| server.spec.replicas = Some(0));
    assert_eq!(none[&ChildKind::Deployment]["spec"]["replicas"], json!(0));
    let shared = children_of(valkey(), true, |_| {});
    let spec = &shared[&ChildKind::Deployment]["spec"];
    assert_eq!((&spec["strategy"]["type"], &spec["replicas"]), (&json!("RollingUpdate"), &Value::Null));
}

#[test]
fn the_network_policy_lets_pods_reach_their_session_store() {
    let restrict = |server: &mut McpServer| {
        server.spec.network_policy = Some(serde_json::from_value(json!({"allowFrom": [{"podSelector": {}}]})).unwrap());
    };
    let ports = |url: Option<&str>| {
        let mut asked = if url.is_some() { valkey() } else { memory() };
        if let Some(url) = url {
            asked["sessionStore"]["valkey"]["url"] = json!(url);
        }
        let children = children_of(asked, true, restrict);
        let egress = &children[&ChildKind::NetworkPolicy]["spec"]["egress"][1]["ports"];
        egress.as_array().unwrap().iter().map(|port| port["port"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(ports(None), [443]);
    assert_eq!(ports(Some("rediss://sessions.example:6380/1")), [443, 6380]);
    assert_eq!(ports(Some("rediss://[fd00::1]")), [443, 6379]);
}

#[test]
fn a_new_ca_of_the_store_and_new_keys_restart_the_pods() {
    let hash = |certificates: &str, taken: u32| {
        let mut server = mk_server();
        server.spec.authorization_server = Some(serde_json::from_value(valkey()).unwrap());
        let content = format!("-----BEGIN CERTIFICATE-----{certificates}");
        let keys = crate::mcpserver::keys::epochs::decide(&Default::default(), Vec::new(), taken, 0);
        let resolved = Resolved { store_ca: ResolvedTrustBundle::Content(content), keys, ..Resolved::default() };
        let validated = validate(&server, &mk_owner(), &resolved, &mk_options()).unwrap();
        (build::configuration_hash(&validated), validated.requested_hash)
    };
    let (before, asked) = hash("a", 0);
    assert_eq!((before.clone(), asked.clone()), hash("a", 0));
    for other in [hash("b", 0), hash("a", 1)] {
        assert_ne!(other.0, before);
        assert_ne!(other.1, asked, "a request of its author waits for no turn");
    }
}
