//! Tests of the tools' answers, and of their errors when Entra or Graph refuses.

use std::collections::BTreeSet;

use entra_emulator::{Fault, FaultKind, Host, Matcher, Message};
use mcp_entra_policy::{BUILT_IN_TOOLS, BuiltInTool, GraphAccess, accepted_permissions};
use mcp_entra_server::graph::Graph;
use serde_json::{Value, json};

use crate::harness::{Setup, Site, arguments_for, every_tool, grant_to_readers};
use crate::identity::signed_in;
use crate::tenant::{ALICE, control};

async fn call(site: &Site, tool: &str, arguments: Value) -> Value {
    let response = site.call(&site.setup.tenant.token(ALICE), tool, arguments).await;
    assert_eq!(response.status(), 200);
    response.json::<Value>().await.unwrap()["result"].take()
}

/// A server whose readers may use every tool.
fn setup() -> Setup {
    let mut setup = Setup::new();
    setup.policy.grants = vec![grant_to_readers(&every_tool())];
    setup
}

/// Returns the only delegated permission that the tool needs.
fn scope_of(tool: &BuiltInTool) -> &'static str {
    let [scope] = tool.permissions.delegated else { panic!("{tool:?}") };
    scope
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap()
}

#[tokio::test]
async fn the_user_is_the_one_in_the_token() {
    let site = Setup::new().start().await;
    let result = call(&site, "get_user_details", json!({})).await;
    assert_ne!(result["isError"], true);
    let user = &result["structuredContent"];
    assert_eq!((&user["displayName"], &user["userPrincipalName"]), (&json!("Alice Adams"), &json!(ALICE)));
    let asked = site.setup.tenant.requests();
    let graph = asked.iter().find(|request| request.host == Host::Graph).unwrap();
    assert_eq!(graph.path, "/v1.0/me");
    assert!(asked.iter().all(|request| !request.client_secret_present));
}

#[tokio::test]
async fn messages_are_listed_newest_first_and_limited_as_requested() {
    let site = Setup::new().start().await;
    let message = |day| Message {
        subject: format!("Day {day}"),
        from: "sender@contoso.com".into(),
        from_name: "Sender".into(),
        received_date_time: format!("2026-03-{day:02}T09:30:00Z"),
        body_preview: "Hello".into(),
        is_read: true,
    };
    control()
        .change_tenant(site.setup.tenant.id, |tenant| {
            let alice = tenant.users.iter_mut().find(|user| user.user_principal_name == ALICE).unwrap();
            alice.messages = (1..=12).map(message).collect();
            Ok(())
        })
        .unwrap();

    let two = call(&site, "list_my_messages", json!({ "top": 2 })).await;
    let messages = two["structuredContent"]["messages"].as_array().unwrap();
    assert_eq!(messages.iter().map(|message| &message["subject"]).collect::<Vec<_>>(), ["Day 12", "Day 11"]);
    let first = &messages[0];
    assert_eq!((&first["fromName"], &first["fromAddress"]), (&json!("Sender"), &json!("sender@contoso.com")));
    assert_eq!((&first["isRead"], &first["preview"]), (&json!(true), &json!("Hello")));

    let ten = call(&site, "list_my_messages", json!({})).await;
    assert_eq!(ten["structuredContent"]["messages"].as_array().unwrap().len(), 10);
}

#[tokio::test]
async fn an_argument_out_of_range_is_an_error_that_a_model_can_correct() {
    let site = Setup::new().start().await;
    for (arguments, hint) in [
        (json!({ "top": 0 }), "1 to 25"),
        (json!({ "top": 26 }), "1 to 25"),
        (json!({ "top": 256 }), "The argument top: expected a whole number from 1 to 25"),
        (json!({ "top": "ten" }), "1 to 25"),
        (json!({ "count": 3 }), "count"),
        (json!({ "users": "bob@contoso.com" }), "The argument users: unknown field `users`, expected `top`."),
        (json!({ "user": "bob@contoso.com" }), "leave out the argument user"),
    ] {
        let result = call(&site, "list_my_messages", arguments.clone()).await;
        assert_eq!(result["isError"], true, "{arguments}: {result}");
        assert!(text(&result).contains(hint), "{arguments}: {result}");
    }
    assert!(site.setup.tenant.requests().iter().all(|request| request.host != Host::Graph));
}

#[tokio::test]
async fn every_listed_tool_has_schemas_and_a_read_only_hint() {
    let site = setup().start().await;
    let answer: Value = site.rpc(&site.setup.tenant.token(ALICE), "tools/list", json!({})).await.json().await.unwrap();
    let tools = answer["result"]["tools"].as_array().unwrap();
    assert_eq!(tools.len(), BUILT_IN_TOOLS.len());
    for (tool, built_in) in tools.iter().zip(BUILT_IN_TOOLS) {
        assert_eq!(tool["name"], built_in.name);
        assert_eq!(tool["annotations"]["readOnlyHint"], !built_in.writes, "{tool}");
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert_eq!(tool["outputSchema"]["type"], "object", "{tool}");
    }
    let lister = tools.iter().find(|tool| tool["name"] == "list_my_messages").unwrap();
    let top = &lister["inputSchema"]["properties"]["top"];
    assert_eq!((&top["minimum"], &top["maximum"], &top["default"]), (&json!(1), &json!(25), &json!(10)), "{top}");
}

#[tokio::test]
async fn a_refusal_of_graph_is_an_error_with_graphs_own_words() {
    let site = Setup::new().start().await;
    let body = json!({ "error": { "code": "ErrorAccessDenied", "message": "Access is denied.", "innerError": {} } });
    control()
        .inject(Fault {
            matcher: Matcher { tenant: Some(site.setup.tenant.id), host: Some(Host::Graph), ..Matcher::default() },
            times: 1,
            kind: FaultKind::Status { status: 403, headers: [].into(), body: body.to_string() },
        })
        .unwrap();
    let result = call(&site, "get_user_details", json!({})).await;
    assert_eq!(result["isError"], true);
    assert!(text(&result).contains("ErrorAccessDenied"), "{result}");
    assert_ne!(call(&site, "get_user_details", json!({})).await["isError"], true);
}

#[tokio::test]
async fn missing_consent_is_an_error_that_names_who_must_give_it() {
    let site = Setup::new().start().await;
    let tenant = &site.setup.tenant;
    control()
        .change_tenant(tenant.id, |directory| {
            directory.apps.iter_mut().for_each(|app| app.granted_graph_scopes.clear());
            Ok(())
        })
        .unwrap();
    let result = call(&site, "get_user_details", json!({})).await;
    assert_eq!(result["isError"], true);
    let text = text(&result);
    assert!(text.contains("65001") && text.contains("User.Read") && text.contains("consent"), "{text}");
}

#[tokio::test]
async fn a_permission_without_consent_stops_the_tool_that_needs_it_and_no_other() {
    for tool in BUILT_IN_TOOLS {
        let site = setup().start().await;
        let others = |scope: &String| scope != scope_of(tool);
        control()
            .change_tenant(site.setup.tenant.id, |directory| {
                directory.apps.iter_mut().for_each(|app| app.granted_graph_scopes.retain(others));
                Ok(())
            })
            .unwrap();
        assert!(site.status().await.graph.missing_permissions.is_empty());
        for called in BUILT_IN_TOOLS {
            let result = call(&site, called.name, arguments_for(called.name)).await;
            let stopped = result["isError"] == true;
            assert_eq!(stopped, scope_of(called) == scope_of(tool), "{} without {}", called.name, scope_of(tool));
            assert!(!stopped || text(&result).contains(&format!("the permissions {}.", scope_of(tool))), "{result}");
        }
        assert_eq!(Vec::from_iter(site.status().await.graph.missing_permissions), [scope_of(tool)]);
        control()
            .change_tenant(site.setup.tenant.id, |directory| {
                directory.apps.iter_mut().for_each(|app| app.granted_graph_scopes.push(scope_of(tool).to_owned()));
                Ok(())
            })
            .unwrap();
        let result = call(&site, tool.name, arguments_for(tool.name)).await;
        assert_ne!(result["isError"], true, "consent counts from the next call on");
        assert!(site.status().await.graph.missing_permissions.is_empty());
    }
}

/// A server with only this permission of Graph, with consent for all users.
async fn site_with_scope(scope: &str) -> Site {
    let mut setup = setup();
    setup.configuration.graph.scopes = vec![scope.to_owned()];
    control()
        .change_tenant(setup.tenant.id, |directory| {
            directory.apps.iter_mut().for_each(|app| app.granted_graph_scopes = vec![scope.to_owned()]);
            Ok(())
        })
        .unwrap();
    setup.start().await
}

/// Returns Graph's answer to the request of this tool, independent of the server's own checks.
async fn graph_answers(graph: &Graph, tool: &str) -> bool {
    let moment = |hour: u8| json!({ "dateTime": format!("2026-12-01T{hour}:00:00"), "timeZone": "UTC" });
    let recipient = json!({ "emailAddress": { "address": ALICE } });
    let answer = match tool {
        "create_event" => graph.post_once("/events", json!({ "start": moment(12), "end": moment(13) })).await,
        "get_user_details" => graph.get("", &[]).await,
        "list_my_messages" => graph.get("/messages", &[]).await,
        "send_mail" => graph.post_once("/sendMail", json!({ "message": { "toRecipients": [recipient] } })).await,
        other => panic!("no request of {other} is known here"),
    };
    answer.is_ok()
}

#[tokio::test]
async fn a_tool_is_offered_with_each_permission_that_graph_accepts_for_it_and_with_no_other() {
    let accepted = BUILT_IN_TOOLS.iter().flat_map(|tool| accepted_permissions(scope_of(tool)));
    let others = [
        "Calendars.Read",
        "Calendars.ReadWrite.Shared",
        "Directory.AccessAsUser.All",
        "Files.Read",
        "Mail.Send.Shared",
        "People.Read",
    ];
    for scope in accepted.chain(others).collect::<BTreeSet<_>>() {
        let site = site_with_scope(scope).await;
        let alice = signed_in(&site.setup.tenant, ALICE).await;
        let graph = site.running.graph().for_caller(&alice, GraphAccess::OnBehalfOf, None, &[scope]).unwrap();
        for tool in BUILT_IN_TOOLS {
            let is_accepted = accepted_permissions(scope_of(tool)).any(|accepted| accepted == scope);
            assert_eq!(graph_answers(&graph, tool.name).await, is_accepted, "{} with {scope}", tool.name);
            let offered = site.tools(&site.setup.tenant.token(ALICE)).await.iter().any(|name| name == tool.name);
            assert_eq!(offered, is_accepted, "{} with {scope}", tool.name);
            if offered {
                let result = call(&site, tool.name, arguments_for(tool.name)).await;
                assert!(result["isError"] != true && result["structuredContent"].is_object(), "{scope}: {result}");
            }
        }
    }
}
