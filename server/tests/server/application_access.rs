//! Tests of access to Graph as the application itself. It is for applications that call by themselves, and for users
//! only if the grant allows it. Each request is about one user, and never about another.

use entra_emulator::{Fault, FaultKind, Host, LoggedRequest, Matcher};
use mcp_entra_policy::{BUILT_IN_TOOLS, CallerKind, GraphAccess, Subject};
use serde_json::{Value, json};

use crate::harness::{ON_BEHALF_OF, Setup, Site, arguments_for, every_tool, grant, grant_to_readers};
use crate::tenant::{ALICE, BOB, ROLE, TestTenant, control};

/// A server for users and applications with the role. It allows this access to Graph, which the grants to users name.
async fn site(configured: GraphAccess, granted: GraphAccess) -> Site {
    let mut setup = Setup::new();
    setup.configuration.graph.access = configured;
    // One probe at the start; its exchanges are of the same kind as those that are counted here.
    setup.configuration.probe.interval_seconds = 3600;
    let mut to_users = grant_to_readers(&every_tool());
    to_users.graph = granted;
    let daemons = Subject::AppRole { role: ROLE.into(), callers: [CallerKind::Application].into() };
    setup.policy.grants = vec![to_users, grant("daemons", daemons, &every_tool())];
    let server = setup.tenant.server;
    control()
        .change_tenant(setup.tenant.id, |directory| {
            let app = directory.apps.iter_mut().find(|app| app.client_id == server).unwrap();
            let roles = BUILT_IN_TOOLS.iter().flat_map(|tool| tool.permissions.application);
            app.granted_graph_roles = roles.map(|role| (*role).to_owned()).collect();
            Ok(())
        })
        .unwrap();
    setup.start().await
}

fn daemon(tenant: &TestTenant) -> String {
    tenant.sign(&json!({}), &tenant.application_claims(tenant.daemon))
}

async fn call(site: &Site, token: &str, arguments: Value) -> Value {
    let response = site.call(token, "get_user_details", arguments).await;
    assert_eq!(response.status(), 200);
    response.json::<Value>().await.unwrap()["result"].take()
}

fn text(result: &Value) -> &str {
    assert_eq!(result["isError"], true, "{result}");
    result["content"][0]["text"].as_str().unwrap()
}

fn graph_requests(tenant: &TestTenant) -> Vec<LoggedRequest> {
    tenant.requests().into_iter().filter(|request| request.host == Host::Graph).collect()
}

fn object_id(tenant: &TestTenant, user: &str) -> String {
    control().change_tenant(tenant.id, |directory| Ok(directory.find_user(user).unwrap().oid)).unwrap().to_string()
}

#[tokio::test]
async fn an_application_reads_the_user_whom_it_names_by_its_own_permissions() {
    let site = site(GraphAccess::Application, GraphAccess::OnBehalfOf).await;
    let tenant = &site.setup.tenant;
    for user in [BOB.to_owned(), BOB.to_uppercase(), object_id(tenant, BOB)] {
        let result = call(&site, &daemon(tenant), json!({ "user": user })).await;
        assert_eq!(result["structuredContent"]["displayName"], "Bob Brown", "{result}");
    }
    let asked = graph_requests(tenant);
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|request| request.path.starts_with("/v1.0/users/") && request.user.is_none()));
    assert_eq!(tenant.grants(ON_BEHALF_OF), 0);
    // An application cannot answer any challenge, so it never declares that it can.
    assert!(tenant.requests().iter().all(|request| !request.client_secret_present && request.claims.is_none()));
}

#[tokio::test]
async fn an_application_uses_every_tool_only_for_the_user_whom_it_names() {
    let site = site(GraphAccess::Application, GraphAccess::OnBehalfOf).await;
    let tenant = &site.setup.tenant;
    let bob = object_id(tenant, BOB);
    for tool in BUILT_IN_TOOLS {
        let mut arguments = arguments_for(tool.name);
        let response = site.call(&daemon(tenant), tool.name, arguments.clone()).await;
        let result = response.json::<Value>().await.unwrap()["result"].take();
        assert!(text(&result).contains("set the argument user"), "{result}");

        arguments["user"] = json!(bob);
        let before = graph_requests(tenant).len();
        let response = site.call(&daemon(tenant), tool.name, arguments).await;
        let result = response.json::<Value>().await.unwrap()["result"].take();
        assert_eq!(result["isError"], false, "{}: {result}", tool.name);
        let asked = &graph_requests(tenant)[before..];
        assert_eq!(asked.len(), 1, "{}", tool.name);
        assert!(asked[0].path.starts_with(&format!("/v1.0/users/{bob}")) && asked[0].user.is_none(), "{asked:?}");
    }
    let sent = control().sent_messages().into_iter().filter(|message| message.tenant == tenant.id);
    assert_eq!(Vec::from_iter(sent.map(|message| message.user.to_string())), [bob.as_str()]);
    let created = control().created_events().into_iter().filter(|event| event.tenant == tenant.id);
    assert_eq!(Vec::from_iter(created.map(|event| event.user.to_string())), [bob]);
}

#[tokio::test]
async fn only_an_application_sees_the_argument_that_names_a_user() {
    let site = site(GraphAccess::Application, GraphAccess::OnBehalfOf).await;
    let tenant = &site.setup.tenant;
    for (token, names_a_user) in [(daemon(tenant), true), (tenant.token(ALICE), false)] {
        let answer: Value = site.rpc(&token, "tools/list", json!({})).await.json().await.unwrap();
        let tools = answer["result"]["tools"].as_array().unwrap();
        assert_eq!(tools.len(), BUILT_IN_TOOLS.len(), "{answer}");
        for tool in tools {
            let schema = &tool["inputSchema"];
            assert_eq!(schema["properties"]["user"].is_object(), names_a_user, "{schema}");
            let required = schema["required"].as_array().into_iter().flatten();
            assert_eq!(required.filter(|name| **name == "user").count() == 1, names_a_user, "{schema}");
        }
    }
}

#[tokio::test]
async fn an_application_without_a_valid_user_gets_an_error_and_graph_gets_no_request() {
    let site = site(GraphAccess::Application, GraphAccess::OnBehalfOf).await;
    let tenant = &site.setup.tenant;
    for (arguments, hint) in [
        (json!({}), "set the argument user"),
        (json!({ "user": "me" }), "as alice@contoso.com"),
        (json!({ "user": "" }), "as alice@contoso.com"),
        (json!({ "user": "bob@contoso.com/messages" }), "as alice@contoso.com"),
        (json!({ "user": "../groups" }), "as alice@contoso.com"),
        (json!({ "user": 7 }), "invalid type"),
        (json!({ "users": BOB }), "unknown field `users`, expected `user`; give the required `user`."),
        (json!({ "users": BOB, "user": BOB }), "unknown field `users`, expected `user`."),
    ] {
        let result = call(&site, &daemon(tenant), arguments.clone()).await;
        assert!(text(&result).contains(hint), "{arguments}: {result}");
    }
    assert_eq!(graph_requests(tenant).len(), 0);
    let result = call(&site, &daemon(tenant), json!({ "user": "nobody@contoso.com" })).await;
    assert!(text(&result).contains("HTTP 404"), "{result}");
}

#[tokio::test]
async fn an_application_has_no_access_if_the_server_only_acts_as_users() {
    let site = site(GraphAccess::OnBehalfOf, GraphAccess::Application).await;
    let tenant = &site.setup.tenant;
    for arguments in [json!({}), json!({ "user": BOB })] {
        let result = call(&site, &daemon(tenant), arguments).await;
        assert!(text(&result).contains("sign in as a user"), "{result}");
    }
    assert_eq!(graph_requests(tenant).len(), 0);
}

#[tokio::test]
async fn a_user_is_served_as_the_application_only_if_server_and_grant_allow_it_and_for_their_own_data() {
    use GraphAccess::{Application, OnBehalfOf};
    for (configured, granted, by_application) in [
        (OnBehalfOf, OnBehalfOf, false),
        (OnBehalfOf, Application, false),
        (Application, OnBehalfOf, false),
        (Application, Application, true),
    ] {
        let site = site(configured, granted).await;
        let tenant = &site.setup.tenant;
        let token = tenant.token(ALICE);
        let result = call(&site, &token, json!({})).await;
        assert_eq!(result["structuredContent"]["userPrincipalName"], ALICE, "{result}");
        for user in [BOB, ALICE, &object_id(tenant, BOB)] {
            let result = call(&site, &token, json!({ "user": user })).await;
            assert!(text(&result).contains("leave out the argument user"), "{result}");
        }
        let asked = graph_requests(tenant);
        assert_eq!(asked.len(), 1, "{configured:?} {granted:?}");
        let path = if by_application { format!("/v1.0/users/{}", object_id(tenant, ALICE)) } else { "/v1.0/me".into() };
        assert_eq!((&asked[0].path, asked[0].user.is_none()), (&path, by_application), "{configured:?} {granted:?}");
        assert_eq!(tenant.grants(ON_BEHALF_OF), usize::from(!by_application));
    }
}

#[tokio::test]
async fn the_applications_token_is_kept_and_replaced_once_graph_rejects_it() {
    let site = site(GraphAccess::Application, GraphAccess::OnBehalfOf).await;
    let tenant = &site.setup.tenant;
    let token = daemon(tenant);
    crate::harness::eventually("the probe is over", async || site.status().await.federation.works).await;
    let exchanges = || tenant.grants("client_credentials");
    let before = exchanges();
    for _ in 0..2 {
        assert_ne!(call(&site, &token, json!({ "user": BOB })).await["isError"], true);
    }
    assert_eq!(exchanges() - before, 1);
    let matcher = Matcher { host: Some(Host::Graph), tenant: Some(tenant.id), ..Matcher::default() };
    let body = r#"{"error":{"code":"InvalidAuthenticationToken","message":"Revoked."}}"#.to_owned();
    let claims = "Bearer error=\"insufficient_claims\", claims=\"eyJhY2Nlc3NfdG9rZW4iOnsibmJmIjpudWxsfX0\"";
    let headers = [("WWW-Authenticate".to_owned(), claims.to_owned())].into();
    control().inject(Fault { matcher, times: 1, kind: FaultKind::Status { status: 401, headers, body } }).unwrap();
    assert_ne!(call(&site, &token, json!({ "user": BOB })).await["isError"], true);
    assert_eq!(exchanges() - before, 2);
    let statuses: Vec<_> = graph_requests(tenant).iter().map(|request| request.status).collect();
    assert_eq!(statuses, [200, 200, 401, 200]);
}

#[tokio::test]
async fn entras_error_about_the_application_is_returned_with_the_next_step() {
    let site = site(GraphAccess::Application, GraphAccess::OnBehalfOf).await;
    let tenant = &site.setup.tenant;
    control().remove_federated_credential(tenant.id, tenant.server, crate::tenant::CREDENTIAL).unwrap();
    let result = call(&site, &daemon(tenant), json!({ "user": BOB })).await;
    let told = text(&result);
    assert!(told.contains("as the application itself") && told.contains("AADSTS70025"), "{told}");
    assert!(told.contains("federated credential with issuer"), "{told}");
    // It is never cached: it works as soon as the cause is removed.
    control().add_federated_credential(tenant.id, tenant.server, tenant.credential()).unwrap();
    assert_ne!(call(&site, &daemon(tenant), json!({ "user": BOB })).await["isError"], true);
}
