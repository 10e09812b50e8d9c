//! Tests of tools that write: their effects, that they write once, and the users who may call them.

use entra_emulator::{CreatedEvent, Fault, FaultKind, Host, Matcher, SentMessage};
use futures::future::join_all;
use mcp_entra_policy::{BUILT_IN_TOOLS, BuiltInTool, CREATE_EVENT, GraphAccess, SEND_MAIL};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Setup, Site, arguments_for, deny_to_everyone, eventually, grant_to_readers};
use crate::identity::{arrived, signed_in};
use crate::tenant::{ALICE, BOB, TestTenant, control};

/// A server whose readers are granted these tools.
async fn site(granted: &[&str]) -> Site {
    let mut setup = Setup::new();
    setup.policy.grants = vec![grant_to_readers(granted)];
    setup.start().await
}

async fn call(site: &Site, tool: &str, arguments: Value) -> Value {
    let response = site.call(&site.setup.tenant.token(ALICE), tool, arguments).await;
    assert_eq!(response.status(), 200);
    response.json::<Value>().await.unwrap()["result"].take()
}

fn text(result: &Value) -> &str {
    assert_eq!(result["isError"], true, "{result}");
    result["content"][0]["text"].as_str().unwrap()
}

fn sent(tenant: &TestTenant) -> Vec<SentMessage> {
    control().sent_messages().into_iter().filter(|message| message.tenant == tenant.id).collect()
}

fn created(tenant: &TestTenant) -> Vec<CreatedEvent> {
    control().created_events().into_iter().filter(|event| event.tenant == tenant.id).collect()
}

/// Path of this tool's requests to Graph.
fn path_of(tool: &BuiltInTool) -> &'static str {
    match *tool {
        SEND_MAIL => "/v1.0/me/sendMail",
        CREATE_EVENT => "/v1.0/me/events",
        other => panic!("the path of {other:?} is not known here"),
    }
}

/// Returns the number of this tool's requests to Graph, and the number of changes.
fn counts(tenant: &TestTenant, tool: &BuiltInTool) -> (usize, usize) {
    let asked = tenant.requests().iter().filter(|request| request.path == path_of(tool)).count();
    (asked, sent(tenant).len() + created(tenant).len())
}

fn writing() -> impl Iterator<Item = &'static BuiltInTool> {
    BUILT_IN_TOOLS.iter().filter(|tool| tool.writes)
}

fn alice_id(tenant: &TestTenant) -> Uuid {
    control().change_tenant(tenant.id, |directory| Ok(directory.find_user(ALICE).unwrap().oid)).unwrap()
}

fn next_answer(tenant: &TestTenant, tool: &BuiltInTool, kind: FaultKind) {
    let matcher = Matcher { path: Some(path_of(tool).to_owned()), tenant: Some(tenant.id), ..Matcher::default() };
    control().inject(Fault { matcher, times: 1, kind }).unwrap();
}

#[tokio::test]
async fn a_mail_is_sent_as_requested() {
    let site = site(&["send_mail"]).await;
    let tenant = &site.setup.tenant;
    let to = |address: &str| json!({ "emailAddress": { "address": address } });
    let arguments = json!({
        "to": [BOB, "carol@fabrikam.com"], "cc": ["dan@contoso.com"], "subject": "Lünch", "body": "<b>At noon?</b>\n",
        "save_to_sent_items": false,
    });
    let result = call(&site, "send_mail", arguments).await;
    let output = json!({
        "sent": true, "to": [BOB, "carol@fabrikam.com"], "cc": ["dan@contoso.com"], "savedToSentItems": false,
    });
    assert_eq!(result["structuredContent"], output, "{result}");
    let result = call(&site, "send_mail", arguments_for("send_mail")).await;
    assert_eq!(result["structuredContent"]["savedToSentItems"], true, "{result}");

    let [first, second] = sent(tenant).try_into().unwrap();
    let body = json!({ "contentType": "text", "content": "<b>At noon?</b>\n" });
    let message = json!({
        "subject": "Lünch", "body": body, "toRecipients": [to(BOB), to("carol@fabrikam.com")],
        "ccRecipients": [to("dan@contoso.com")],
    });
    assert_eq!((first.user, first.message, first.save_to_sent_items), (alice_id(tenant), message, false));
    assert_eq!((&second.message["ccRecipients"], second.save_to_sent_items), (&json!([]), true));
}

#[tokio::test]
async fn an_event_is_created_as_requested() {
    let site = site(&["create_event"]).await;
    let tenant = &site.setup.tenant;
    let at = |time: &str, zone: &str| json!({ "dateTime": time, "timeZone": zone });
    let (start, end) = ("2026-12-01T12:00:00", "2026-12-01T13:00:00");
    let arguments = json!({
        "subject": "Lunch", "start": start, "end": end, "time_zone": "Europe/Berlin", "location": "Canteen",
        "body": "With soup.", "attendees": [BOB],
    });
    let full = call(&site, "create_event", arguments).await;
    let plain = call(&site, "create_event", arguments_for("create_event")).await;

    let [first, second] = created(tenant).try_into().unwrap();
    let id = |event: &CreatedEvent| event.event["transactionId"].as_str().unwrap().parse::<Uuid>().unwrap();
    assert_ne!(id(&first), id(&second), "each call is for another event");
    let posted = json!({
        "subject": "Lunch", "start": at(start, "Europe/Berlin"), "end": at(end, "Europe/Berlin"),
        "transactionId": id(&first), "location": { "displayName": "Canteen" },
        "body": { "contentType": "text", "content": "With soup." },
        "attendees": [{ "emailAddress": { "address": BOB } }],
    });
    assert_eq!((first.user, json!(first.event)), (alice_id(tenant), posted));
    let posted = json!({
        "subject": "Lunch", "start": at(start, "UTC"), "end": at(end, "UTC"), "attendees": [],
        "transactionId": id(&second),
    });
    assert_eq!(json!(second.event), posted);
    for (result, created, zone) in [(full, first, "Europe/Berlin"), (plain, second, "UTC")] {
        let output = &result["structuredContent"];
        assert_eq!((&output["id"], &output["subject"]), (&json!(created.id), &json!("Lunch")), "{result}");
        assert_eq!((&output["start"], &output["end"]), (&at(start, zone), &at(end, zone)));
        assert!(output["webLink"].as_str().unwrap().contains(&created.id));
    }
}

#[tokio::test]
async fn a_change_is_requested_once_with_any_answer_and_a_possible_change_is_reported() {
    let status = |status, headers: &[(&str, &str)]| FaultKind::Status {
        status,
        headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        body: String::new(),
    };
    let refused = "Microsoft Graph answered HTTP";
    let unknown = "check Sent Items or the calendar before you call again";
    for tool in writing() {
        let site = site(&[tool.name]).await;
        let tenant = &site.setup.tenant;
        // So that the connection was used before.
        assert_eq!(call(&site, tool.name, arguments_for(tool.name)).await["isError"], false, "{}", tool.name);
        for (kind, happened, told) in [
            (FaultKind::LoseAnswer, 1, unknown),
            (FaultKind::Disconnect, 0, unknown),
            (status(504, &[("Retry-After", "0")]), 0, unknown),
            (status(500, &[]), 0, unknown),
            (status(429, &[("Retry-After", "0")]), 0, refused),
            (status(503, &[("Retry-After", "0")]), 0, refused),
            (status(400, &[]), 0, refused),
        ] {
            let (asked, done) = counts(tenant, tool);
            next_answer(tenant, tool, kind.clone());
            let result = call(&site, tool.name, arguments_for(tool.name)).await;
            assert!(text(&result).contains(told), "{} {kind:?}: {result}", tool.name);
            assert_eq!(counts(tenant, tool), (asked + 1, done + happened), "{} {kind:?}", tool.name);
        }
    }
}

#[tokio::test]
async fn an_event_with_an_incomplete_answer_is_reported_as_possible() {
    let site = site(&["create_event"]).await;
    next_answer(&site.setup.tenant, &CREATE_EVENT, FaultKind::Truncate);
    let result = call(&site, "create_event", arguments_for("create_event")).await;
    assert!(text(&result).contains("the calendar before you call again"), "{result}");
    assert_eq!(counts(&site.setup.tenant, &CREATE_EVENT), (1, 1));
}

#[tokio::test]
async fn a_started_change_happens_once_and_is_in_the_audit_log_although_the_client_disconnects() {
    let all = writing().flat_map(|tool| [(tool, true), (tool, false)]).map(async |(tool, is_modern)| {
        let site = site(&[tool.name]).await;
        let tenant = &site.setup.tenant;
        let alice = signed_in(tenant, ALICE).await;
        let graph = site.running.graph().for_caller(&alice, GraphAccess::OnBehalfOf, None, &["User.Read"]).unwrap();
        next_answer(tenant, tool, FaultKind::Delay { milliseconds: 3_000 });
        let params = json!({ "name": tool.name, "arguments": arguments_for(tool.name) });
        let token = tenant.token(ALICE);
        tokio::select! {
            answer = site.answer_in(is_modern, &token, "tools/call", params) => panic!("answered too early: {answer}"),
            () = arrived(tenant, &graph) => {}
        }
        assert_eq!(counts(tenant, tool), (0, 0), "{}: it is under way", tool.name);
        eventually("the end of the request", async || (counts(tenant, tool) == (1, 1)).then_some(())).await;
        let lines = || Vec::from_iter(site.audit().into_iter().filter(|line| line["tool"] == tool.name));
        let lines = eventually("the line is written", async || Some(lines()).filter(|lines| !lines.is_empty())).await;
        let [line] = lines.try_into().unwrap();
        assert_eq!((&line["decision"], &line["reason"]), (&json!("allowed"), &json!("granted")), "{line}");
        assert_eq!(line["status"], Value::Null, "the client has no answer: {line}");
    });
    join_all(all).await;
}

#[tokio::test]
async fn invalid_arguments_change_nothing_and_are_reported() {
    let site = site(&["send_mail", "create_event"]).await;
    let crowd = vec![BOB; 21];
    let (start, end) = ("2026-12-01T12:00:00", "2026-12-01T13:00:00");
    for (tool, argument, value, told) in [
        ("send_mail", "to", json!([]), "The argument to: expected 1 to 20 mail addresses."),
        ("send_mail", "to", json!(crowd), "1 to 20"),
        ("send_mail", "to", json!(BOB), "The argument to: invalid type"),
        (
            "send_mail",
            "to",
            json!([BOB, "Bob <bob@contoso.com>"]),
            "The argument to[1]: expected a mail address without a name",
        ),
        ("send_mail", "cc", json!(crowd), "The argument cc: expected 0 to 20"),
        ("send_mail", "cc", json!(["bob"]), "The argument cc[0]"),
        ("send_mail", "bcc", json!([BOB]), "unknown field `bcc`, expected `body` or `cc`"),
        ("send_mail", "subject", json!("ü".repeat(256)), "The argument subject: expected at most 255 characters."),
        ("send_mail", "subject", Value::Null, "subject"),
        ("send_mail", "body", json!("a".repeat(100_001)), "at most 100000 characters"),
        ("send_mail", "save_to_sent_items", json!("no"), "save_to_sent_items"),
        ("send_mail", "user", json!(BOB), "leave out the argument user"),
        ("create_event", "start", json!("2026-12-01T12:00:00Z"), "The argument start: expected a local date and time"),
        ("create_event", "start", json!(end), "The argument end: expected a time after start."),
        ("create_event", "end", json!(start), "The argument end"),
        ("create_event", "end", json!("2026-12-01T11:00:00"), "The argument end"),
        ("create_event", "time_zone", json!("Zürich"), "The argument time_zone: expected the name of a time zone"),
        ("create_event", "location", json!("a".repeat(256)), "The argument location"),
        ("create_event", "body", json!("a".repeat(100_001)), "The argument body"),
        ("create_event", "attendees", json!(crowd), "The argument attendees: expected 0 to 20"),
        ("create_event", "attendees", json!(["bob@"]), "The argument attendees[0]"),
        ("create_event", "user", json!(BOB), "leave out the argument user"),
    ] {
        let mut arguments = arguments_for(tool);
        arguments[argument] = value;
        let result = call(&site, tool, arguments).await;
        assert!(text(&result).contains(told), "{tool} {argument}: {result}");
    }
    assert!(site.setup.tenant.requests().iter().all(|request| request.host != Host::Graph));
    // Requests within the limits.
    let mut longest = arguments_for("send_mail");
    longest["to"] = json!(vec![BOB; 20]);
    longest["subject"] = json!("ü".repeat(255));
    longest["body"] = json!("a".repeat(100_000));
    assert_eq!(call(&site, "send_mail", longest).await["isError"], false);
}

#[tokio::test]
async fn a_tool_that_writes_is_granted_only_by_its_full_name() {
    for tool in writing() {
        let (first_word, _) = tool.name.split_once('_').unwrap();
        let neighbour = writing().find(|other| other.name != tool.name).unwrap().name;
        let (prefix, whole) = (format!("{first_word}_*"), format!("{}*", tool.name));
        for granted in ["*", &prefix, &whole, neighbour, "get_user_details"] {
            let site = site(&[granted]).await;
            let token = site.setup.tenant.token(ALICE);
            assert!(!site.tools(&token).await.contains(&tool.name.to_owned()), "{granted}");
            let refused = site.call(&token, tool.name, arguments_for(tool.name)).await;
            assert_eq!(refused.status(), 403, "{} by {granted}", tool.name);
            let line = site.audit_of(&refused).await;
            assert_eq!((&line["tool"], &line["reason"]), (&json!(tool.name), &json!("not_granted")), "{line}");
            assert_eq!(counts(&site.setup.tenant, tool), (0, 0));
        }
        let site = site(&[tool.name]).await;
        let token = site.setup.tenant.token(ALICE);
        assert_eq!(site.tools(&token).await, [tool.name]);
        let allowed = site.call(&token, tool.name, arguments_for(tool.name)).await;
        let line = site.audit_of(&allowed).await;
        assert_eq!((&line["tool"], &line["decision"]), (&json!(tool.name), &json!("allowed")), "{line}");
        assert_eq!(counts(&site.setup.tenant, tool), (1, 1));
    }
}

#[tokio::test]
async fn a_deny_by_a_prefix_applies_to_tools_that_write() {
    for tool in writing() {
        let mut setup = Setup::new();
        setup.policy.grants = vec![grant_to_readers(&[tool.name])];
        setup.policy.denies = vec![deny_to_everyone(&["*"])];
        let site = setup.start().await;
        let token = site.setup.tenant.token(ALICE);
        assert_eq!(site.call(&token, tool.name, arguments_for(tool.name)).await.status(), 403);
        assert_eq!(counts(&site.setup.tenant, tool), (0, 0));
    }
}
