//! Tests of `spec.authorizationServer`.

use super::*;

fn mk_memory() -> Value {
    let mut server = mk_server();
    server["spec"]["replicas"] = json!(1);
    server["spec"]["graph"]["scopes"] = json!(["User.Read", "Mail.Read"]);
    server["spec"]["authorizationServer"] = json!({
        "sessionStore": {"memory": {}},
        "clientRegistration": "Listed",
        "clients": [{
            "clientId": "copilot-studio",
            "name": "Copilot Studio",
            "redirectUris": ["https://global.consent.azure-apim.net/redirect/graph"],
        }],
        "allowedRedirects": ["cursor://anysphere.cursor-retrieval/oauth/callback"],
        "clientMetadataHosts": ["client.example"],
        "userConsentScopes": ["User.Read"],
    });
    server
}

fn mk_valkey() -> Value {
    let mut server = mk_server();
    server["spec"]["authorizationServer"] = json!({"sessionStore": {"valkey": {
        "url": "rediss://sessions.example:6380/1",
        "username": "graph",
        "caBundle": {"name": "corporate", "key": "ca.crt"},
        "passwordSecretRef": {"name": "graph-session-store", "key": "password"},
    }}});
    server
}

fn mk_autoscaled_memory() -> Value {
    let mut server = mk_memory();
    server["spec"].as_object_mut().unwrap().remove("replicas");
    server["spec"]["autoscaling"] = json!({"minReplicas": 1, "maxReplicas": 1});
    server
}

const REDIRECT: &str = "a redirect URI must be https, http on the user's own machine";

#[tokio::test]
async fn a_bad_authorization_server_is_refused_with_the_field_named() {
    const AT: &str = "/spec/authorizationServer";
    let at = |member: &str| format!("{AT}/{member}");
    let client = |id: &str, uri: &str| json!({"clientId": id, "name": "A client", "redirectUris": [uri]});
    let redirects = at("allowedRedirects");
    let mut cases: Vec<(String, Value, &str)> = vec![
        ("/spec/exposure".into(), json!(null), "spec.authorizationServer requires spec.exposure"),
        ("/spec/replicas".into(), json!(2), "allows only one pod; set spec.replicas or"),
        ("/spec/graph/scopes".into(), json!(["Mail.Read"]), "userConsentScopes must be in spec.graph.scopes"),
        (at("clientSecret"), json!("hunter2"), ".spec.authorizationServer.clientSecret"),
        (at("sessionStore"), json!(null), "spec.authorizationServer.sessionStore"),
        (at("sessionStore"), json!({}), "exactly one of memory and valkey"),
        (at("clientRegistration"), json!("Nobody"), "spec.authorizationServer.clientRegistration"),
        (at("clients"), json!(null), "clients must not be empty"),
        (at("clients"), json!([]), "clients must not be empty"),
        (at("clients"), many(33, |n| client(&n.to_string(), "https://a.example/")), "authorizationServer.clients"),
        (at("clients/-"), client("copilot-studio", "https://a.example/"), "authorizationServer.clients"),
        (at("clients/-"), client("a b", "https://a.example/"), "clientId"),
        (at("clients/-"), client("", "https://a.example/"), "clientId"),
        (at("clients/-"), client("a", "http://a.example/"), REDIRECT),
        (at("clients/-"), json!({"clientId": "a", "name": "A", "redirectUris": []}), "redirectUris"),
        (at("clients/-"), json!({"clientId": "a", "redirectUris": ["https://a.example/"]}), "name"),
        (at("clients/0/clientSecret"), json!("hunter2"), "clientSecret"),
        (redirects.clone(), many(33, |n| json!(format!("https://a.example/{n}"))), "allowedRedirects"),
        (format!("{redirects}/-"), json!(format!("https://a.example/{}", "a".repeat(512))), "allowedRedirects"),
        (at("clientMetadataHosts/-"), json!("https://client.example"), "clientMetadataHosts"),
        (at("clientMetadataHosts/-"), json!("*.example"), "clientMetadataHosts"),
        (at("userConsentScopes/-"), json!("Calendars.Read"), "userConsentScopes must be in spec.graph.scopes"),
        (at("userConsentScopes/-"), json!("User"), "userConsentScopes"),
    ];
    let bad =
        ["javascript:/alert(1)", "http://a.example/", "https://a.example/#a", "https://b@a.example/", "data:/a", "*"];
    cases.extend(bad.map(|uri| (format!("{redirects}/-"), json!(uri), REDIRECT)));
    let cases = cases.iter().map(|(pointer, value, named)| (pointer.as_str(), value.clone(), *named)).collect();
    assert_refused::<McpServer>(mk_memory, cases).await;
    let maximum = ("/spec/autoscaling/maxReplicas", json!(2), "allows only one pod; set spec.replicas or");
    assert_refused::<McpServer>(mk_autoscaled_memory, vec![maximum]).await;
}

#[tokio::test]
async fn a_bad_session_store_is_refused_with_the_field_named() {
    const URL: &str = "/spec/authorizationServer/sessionStore/valkey/url";
    const SECRET: &str = "/spec/authorizationServer/sessionStore/valkey/passwordSecretRef";
    let mut cases: Vec<(&str, Value, &str)> = vec![
        ("/spec/authorizationServer/sessionStore/memory", json!({}), "exactly one of memory and valkey"),
        ("/spec/authorizationServer/sessionStore/valkey/password", json!("hunter2"), "valkey.password"),
        ("/spec/authorizationServer/sessionStore/valkey/username", json!("a b"), "valkey.username"),
        ("/spec/authorizationServer/sessionStore/valkey/caBundle/key", json!("../a"), "valkey.caBundle.key"),
        (URL, json!(null), "valkey.url"),
        (SECRET, json!(null), "valkey.passwordSecretRef"),
        (SECRET, json!({"name": "anybodys"}), "valkey.passwordSecretRef.name"),
        (SECRET, json!({"name": "-session-store"}), "valkey.passwordSecretRef.name"),
        (SECRET, json!({"name": "another-session-store"}), "valkey.passwordSecretRef.name"),
        (SECRET, json!({"name": "graph-session-store", "key": "../a"}), "valkey.passwordSecretRef.key"),
    ];
    let bad =
        ["redis://a.example", "rediss://", "rediss://user:word@a.example", "rediss://a.example/x", "rediss://a b"];
    cases.extend(bad.map(|url| (URL, json!(url), "valkey.url")));
    assert_refused::<McpServer>(mk_valkey, cases).await;
}

#[tokio::test]
async fn the_neighbours_of_bad_authorization_servers_are_accepted() {
    let accepted = vec![
        ("/spec/authorizationServer", json!(null)),
        ("/spec/authorizationServer", json!({"sessionStore": {"memory": {}}})),
        ("/spec/authorizationServer/clientRegistration", json!("Dynamic")),
        ("/spec/replicas", json!(0)),
        ("/spec/replicas", json!(null)),
        ("/spec/authorizationServer/allowedRedirects", json!(["http://127.0.0.1/", "com.example.app:/callback"])),
        ("/spec/authorizationServer/userConsentScopes/-", json!("Mail.Read")),
    ];
    assert_accepted::<McpServer>(mk_memory, accepted).await;
    let accepted = vec![
        ("/spec/replicas", json!(100)),
        ("/spec/authorizationServer/sessionStore/valkey/url", json!("rediss://[fd00::1]")),
        ("/spec/authorizationServer/sessionStore/valkey/username", json!(null)),
        ("/spec/authorizationServer/sessionStore/valkey/caBundle", json!({"name": "corporate"})),
    ];
    assert_accepted::<McpServer>(mk_valkey, accepted).await;
    assert_accepted::<McpServer>(mk_autoscaled_memory, vec![("/spec/suspend", json!(true))]).await;
}
