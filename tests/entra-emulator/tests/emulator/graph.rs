//! Tests of Microsoft Graph: read permissions, pages, and errors in Graph's format.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use entra_emulator::{Fault, FaultKind, Host, Matcher};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::world::{EMULATOR, World};

fn error((status, body): &(u16, Value)) -> (u16, &str) {
    (*status, body["error"]["code"].as_str().unwrap())
}

#[tokio::test]
async fn me_is_the_signed_in_user() {
    let world = World::new();
    let (status, me) = world.graph("/me", &world.graph_token("alice", "User.Read")).await;
    assert_eq!((status, &me["id"]), (200, &json!(world.alice)));
    assert_eq!(me["userPrincipalName"], "alice@contoso.com");
    let logged = world.requests().pop().unwrap();
    assert_eq!((logged.user, logged.path.as_str()), (Some(world.alice), "/v1.0/me"));
    let (_, some) = world.graph("/me?$select=mail,unknown", &world.graph_token("alice", "User.Read")).await;
    assert_eq!(some["mail"], "alice@contoso.com");
    assert!(some.get("displayName").is_none() && some.get("unknown").is_none());
}

#[tokio::test]
async fn each_resource_needs_its_scope() {
    let world = World::new();
    let cases = [
        ("/me", "Mail.Read", 403, "Authorization_RequestDenied"),
        ("/me/messages", "User.Read", 403, "ErrorAccessDenied"),
        ("/me/memberOf", "Mail.Read", 403, "Authorization_RequestDenied"),
        ("/users/bob@contoso.com", "User.Read", 403, "Authorization_RequestDenied"),
        ("/users/nobody@contoso.com", "User.Read", 403, "Authorization_RequestDenied"),
        ("/users/nobody@contoso.com", "User.ReadBasic.All", 404, "Request_ResourceNotFound"),
    ];
    for (path, scope, status, code) in cases {
        let answer = world.graph(path, &world.graph_token("alice", scope)).await;
        assert_eq!(error(&answer), (status, code), "{path} with {scope}");
        assert!(answer.1["error"]["innerError"]["request-id"].is_string());
    }
    for (path, scope) in [
        ("/me/messages", "Mail.Read"),
        ("/me/memberOf", "User.Read"),
        ("/users/alice@contoso.com", "User.Read"),
        ("/users/bob@contoso.com", "User.ReadBasic.All"),
    ] {
        let (status, body) = world.graph(path, &world.graph_token("alice", scope)).await;
        assert_eq!(status, 200, "{path} with {scope}: {body}");
    }
}

#[tokio::test]
async fn a_basic_permission_shows_a_part_of_the_profile_unless_another_shows_the_whole() {
    let world = World::new();
    for (scopes, phones) in [("User.ReadBasic.All", Value::Null), ("User.ReadBasic.All User.Read", json!([]))] {
        let (status, me) = world.graph("/me", &world.graph_token("alice", scopes)).await;
        assert_eq!((status, &me["userPrincipalName"]), (200, &json!("alice@contoso.com")), "{scopes}");
        assert_eq!(me.get("businessPhones"), Some(&phones), "{scopes}");
    }
}

#[tokio::test]
async fn an_application_reads_users_by_its_role_and_has_no_me() {
    let world = World::new();
    let token = &world.graph_application_token().await;
    let refused = world.graph("/me", token).await;
    assert_eq!(error(&refused), (400, "BadRequest"));
    assert_eq!(refused.1["error"]["message"], "/me request is only valid with delegated authentication flow.");
    assert_eq!(world.graph(&format!("/users/{}", world.bob), token).await.0, 200);
}

#[tokio::test]
async fn tokens_for_other_resources_than_graph_are_refused() {
    let world = World::new();
    let graph = world.graph_token("alice", "User.Read");
    let mut claims = world.control().user_claims(world.tenant, world.api, "alice@contoso.com", "User.Read").unwrap();
    // Its signature verifies as sent, unlike that of Graph's tokens.
    let plain = world.control().sign(world.tenant, &json!({}), &Value::Object(claims.clone())).unwrap();
    claims.insert("scp".to_owned(), json!("User.Read Files.Read"));
    let (message, signature) = graph.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let widened = plain.split('.').nth(1).unwrap();
    for token in ["", "nonsense", &world.user_token("alice"), &plain, &format!("{header}.{widened}.{signature}")] {
        let response = world.http.get(format!("{}/v1.0/me", EMULATOR.graph())).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), 401, "{token}");
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.starts_with("Bearer realm=\"\", authorization_uri="), "{challenge}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["code"], "InvalidAuthenticationToken");
    }
    assert_eq!(world.graph("/me", &graph).await.0, 200);
}

#[tokio::test]
async fn messages_are_listed_newest_first_and_in_pages() {
    let world = World::new();
    let token = world.graph_token("alice", "Mail.Read");
    let (_, first) = world.graph("/me/messages", &token).await;
    assert_eq!(first["value"].as_array().unwrap().len(), 10);
    assert_eq!(first["value"][0]["subject"], "Message 24");

    let mut seen = Vec::new();
    let mut next = Some("/me/messages?$top=9&$select=subject".to_owned());
    while let Some(link) = next {
        let (status, page) = world.graph(&link, &token).await;
        assert_eq!(status, 200, "{page}");
        for message in page["value"].as_array().unwrap() {
            assert!(message["id"].is_string() && message.get("bodyPreview").is_none());
            seen.push(message["subject"].as_str().unwrap().to_owned());
        }
        next = page["@odata.nextLink"].as_str().map(ToOwned::to_owned);
    }
    let all: Vec<String> = (0..25).rev().map(|minute| format!("Message {minute}")).collect();
    assert_eq!(seen, all);
}

#[tokio::test]
async fn the_address_of_the_next_page_is_opaque() {
    let world = World::new();
    let token = world.graph_token("alice", "Mail.Read");
    let link = async || world.graph("/me/messages", &token).await.1["@odata.nextLink"].as_str().unwrap().to_owned();
    let (one, two) = (link().await, link().await);
    assert!(one.starts_with(&format!("{}/v1.0/me/messages?", EMULATOR.graph())), "{one}");
    assert_ne!(one, two);
    assert_eq!(world.graph(&one, &token).await.1["value"], world.graph(&two, &token).await.1["value"]);
    assert_eq!(error(&world.graph("/me/messages?$skiptoken=mine", &token).await), (400, "BadRequest"));
}

#[tokio::test]
async fn an_empty_page_can_have_a_next_one() {
    let world = World::new();
    let token = world.graph_token("alice", "Mail.Read");
    let matcher = Matcher { host: Some(Host::Graph), tenant: Some(world.tenant), ..Matcher::default() };
    world.control().inject(Fault { matcher, times: 2, kind: FaultKind::EmptyPage }).unwrap();
    let mut link = "/me/messages?$top=25".to_owned();
    for _ in 0..2 {
        let (status, page) = world.graph(&link, &token).await;
        assert_eq!((status, &page["value"]), (200, &json!([])));
        link = page["@odata.nextLink"].as_str().unwrap().to_owned();
    }
    let (_, last) = world.graph(&link, &token).await;
    assert_eq!(last["value"].as_array().unwrap().len(), 25);
    assert!(last.get("@odata.nextLink").is_none());
}

#[tokio::test]
async fn only_the_owner_and_applications_with_the_role_read_a_mailbox() {
    let world = World::with(|tenant| tenant.apps[0].granted_graph_roles = vec!["Mail.Read".to_owned()]);
    let mailbox = format!("/users/{}/messages", world.alice);
    assert_eq!(world.graph(&mailbox, &world.graph_token("alice", "Mail.Read")).await.0, 200);
    let bobs = world.graph_token("bob", "Mail.Read User.Read.All Directory.Read.All");
    assert_eq!(error(&world.graph(&mailbox, &bobs).await), (403, "ErrorAccessDenied"));

    let (status, page) = world.graph(&mailbox, &world.graph_application_token().await).await;
    assert_eq!(status, 200, "{page}");
    let id = page["value"][3]["id"].as_str().unwrap();
    let (_, one) = world.graph(&format!("{mailbox}/{id}"), &world.graph_application_token().await).await;
    assert_eq!(one["subject"], page["value"][3]["subject"]);
    let none = world.graph(&format!("{mailbox}/none"), &world.graph_application_token().await).await;
    assert_eq!(error(&none), (404, "ErrorItemNotFound"));

    let roleless = World::with(|tenant| tenant.apps[0].granted_graph_roles = vec!["User.Read.All".to_owned()]);
    let mailbox = format!("/users/{}/messages", roleless.alice);
    let refused = roleless.graph(&mailbox, &roleless.graph_application_token().await).await;
    assert_eq!(error(&refused), (403, "ErrorAccessDenied"));
}

#[tokio::test]
async fn sent_mail_is_accepted_without_a_body_and_kept() {
    let world = World::new();
    let send = async |scope: &str, body: Value| {
        let url = format!("{}/v1.0/me/sendMail", EMULATOR.graph());
        let response = world.http.post(url).bearer_auth(world.graph_token("alice", scope)).json(&body).send().await;
        let response = response.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    let message = json!({"subject": "Hello", "toRecipients": [{"emailAddress": {"address": "bob@contoso.com"}}]});
    assert_eq!(send("Mail.Read", json!({"message": message})).await.0, 403);
    assert_eq!(send("Mail.Send", json!({"message": {"subject": "To nobody"}})).await.0, 400);
    let body = json!({"message": message, "saveToSentItems": false});
    assert_eq!(send("Mail.Send", body).await, (202, String::new()));
    let mut sent = world.control().sent_messages();
    sent.retain(|sent| sent.tenant == world.tenant);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].user, &sent[0].message, sent[0].save_to_sent_items), (world.alice, &message, false));
}

#[tokio::test]
async fn an_event_is_created_once_for_each_transaction_id() {
    let world = World::with(|tenant| {
        tenant.apps[0].granted_graph_roles = vec!["Calendars.ReadWrite".to_owned()];
    });
    let create = async |path: &str, token: &str, event: Value| {
        let url = format!("{}/v1.0{path}/events", EMULATOR.graph());
        let response = world.http.post(url).bearer_auth(token).json(&event).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let moment = |hour: u8| json!({"dateTime": format!("2026-12-01T{hour}:00:00"), "timeZone": "UTC"});
    let event = |subject: &str, id: Value| json!({"subject": subject, "start": moment(12), "end": moment(13), "transactionId": id});
    let created = || {
        let all = world.control().created_events().into_iter().filter(|event| event.tenant == world.tenant);
        Vec::from_iter(all.map(|event| (event.user, event.event["subject"].clone())))
    };
    let (alice, reader) =
        (world.graph_token("alice", "Calendars.ReadWrite"), world.graph_token("alice", "Calendars.Read"));
    let lunch = event("Lunch", json!("1"));
    assert_eq!(error(&create("/me", &reader, lunch.clone()).await), (403, "ErrorAccessDenied"));
    let bobs = format!("/users/{}", world.bob);
    assert_eq!(error(&create(&bobs, &alice, lunch.clone()).await), (403, "ErrorAccessDenied"));
    assert_eq!(create("/me", &alice, json!({"subject": "Some day"})).await.0, 400);
    assert_eq!(created(), []);

    let (status, first) = create("/me", &alice, lunch.clone()).await;
    assert_eq!((status, &first["subject"], &first["start"]), (201, &json!("Lunch"), &moment(12)));
    assert!(first["webLink"].as_str().unwrap().contains(first["id"].as_str().unwrap()));
    assert_eq!(create("/me", &alice, lunch.clone()).await, (201, first));
    let other = create("/me", &alice, event("Dinner", json!("1"))).await;
    assert_eq!(error(&other), (409, "ErrorDuplicateTransactionId"));
    for id in [json!("2"), Value::Null, Value::Null] {
        assert_eq!(create("/me", &alice, event("Lunch", id)).await.0, 201);
    }
    let application = world.graph_application_token().await;
    assert_eq!(create(&bobs, &application, lunch).await.0, 201, "another calendar");
    let mut expected = vec![(world.alice, json!("Lunch")); 4];
    expected.push((world.bob, json!("Lunch")));
    assert_eq!(created(), expected);
}

#[tokio::test]
async fn unsupported_options_are_refused() {
    let world = World::new();
    let token = world.graph_token("alice", "Mail.Read");
    for (option, status) in
        [("$top=0", 400), ("$top=1001", 400), ("$top=x", 400), ("$filter=isRead", 501), ("$top=1000", 200)]
    {
        assert_eq!(world.graph(&format!("/me/messages?{option}"), &token).await.0, status, "{option}");
    }
}

#[tokio::test]
async fn memberships_are_direct_or_transitive_as_requested() {
    let world = World::new();
    let token = world.graph_token("bob", "User.Read");
    let (_, direct) = world.graph("/me/memberOf", &token).await;
    assert_eq!(direct["value"].as_array().unwrap().len(), 1);
    assert_eq!(direct["value"][0]["id"], json!(world.sales));
    let (_, transitive) = world.graph("/me/transitiveMemberOf", &token).await;
    assert_eq!(transitive["value"].as_array().unwrap().len(), 2);

    let post = async |path: &str, body: Value| {
        let url = format!("{}/v1.0{path}", EMULATOR.graph());
        let response = world.http.post(url).bearer_auth(&token).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (_, all) = post("/me/getMemberGroups", json!({"securityEnabledOnly": true})).await;
    assert_eq!(all["value"].as_array().unwrap().len(), 2);
    let (_, checked) = post("/me/checkMemberGroups", json!({"groupIds": [world.sales, Uuid::new_v4()]})).await;
    assert_eq!(checked["value"], json!([world.sales]));
    let too_many: Vec<Uuid> = (0..21).map(|_| Uuid::new_v4()).collect();
    for body in [json!({"groupIds": too_many}), json!({"groups": []})] {
        assert_eq!(error(&post("/me/checkMemberGroups", body).await).0, 400);
    }
}

#[tokio::test]
async fn only_a_token_with_the_permission_sees_a_hidden_membership() {
    let world = World::with(|tenant| tenant.groups[0].hidden_membership = true);
    for (scope, shown) in [("User.Read", false), ("User.Read Member.Read.Hidden", true)] {
        let token = world.graph_token("bob", scope);
        for path in ["/me/memberOf", "/me/transitiveMemberOf"] {
            let (_, groups) = world.graph(path, &token).await;
            assert_eq!(groups.to_string().contains(&world.sales.to_string()), shown, "{path} with {scope}");
        }
        for function in ["checkMemberGroups", "getMemberGroups", "getMemberObjects"] {
            let url = format!("{}/v1.0/me/{function}", EMULATOR.graph());
            let body = json!({"groupIds": [world.sales], "securityEnabledOnly": true});
            let answer = world.http.post(url).bearer_auth(&token).json(&body).send().await.unwrap();
            let answer = answer.text().await.unwrap();
            assert_eq!(answer.contains(&world.sales.to_string()), shown, "{function} with {scope}: {answer}");
        }
    }
}

#[tokio::test]
async fn every_answer_has_graphs_request_ids() {
    let world = World::new();
    let response = world
        .http
        .get(format!("{}/v1.0/nothing", EMULATOR.graph()))
        .header("client-request-id", "mine")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(response.headers()["client-request-id"], "mine");
    assert!(response.headers().contains_key("request-id"));
}

#[tokio::test]
async fn a_revoked_users_token_is_challenged_and_the_next_one_works() {
    let world = World::new();
    let capable = json!({"access_token": {"xms_cc": {"values": ["cp1"]}}}).to_string();
    let user_token = world.user_token("alice");
    let (_, before) = world.on_behalf_of_with(&user_token, "User.Read", &[("claims", &capable)]).await;
    let incapable = world.graph_token("alice", "User.Read");
    world.control().revoke(world.tenant, world.alice).unwrap();

    let url = format!("{}/v1.0/me", EMULATOR.graph());
    let challenge = async |token: &str| {
        let response = world.http.get(&url).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), 401);
        response.headers()["www-authenticate"].to_str().unwrap().to_owned()
    };
    let text = challenge(before["access_token"].as_str().unwrap()).await;
    let encoded = text.split("claims=\"").nth(1).unwrap().trim_end_matches('"');
    let claims: Value = serde_json::from_slice(&STANDARD.decode(encoded).unwrap()).unwrap();
    assert_eq!(claims["access_token"]["nbf"]["essential"], true);
    assert!(text.contains("error=\"insufficient_claims\""));
    assert!(!challenge(&incapable).await.contains("claims="));

    assert_eq!(world.on_behalf_of(&user_token, "User.Read").await.0, 400, "the user's own token is void too");
    let (status, after) = world.on_behalf_of(&world.user_token("alice"), "User.Read").await;
    assert_eq!(status, 200);
    assert_eq!(world.graph("/me", after["access_token"].as_str().unwrap()).await.0, 200);
}

#[tokio::test]
async fn groups_of_others_need_a_permission_for_users_and_one_for_groups() {
    let post = async |world: &World, token: &str, path: &str| {
        let url = format!("{}/v1.0{path}", EMULATOR.graph());
        let body = json!({"groupIds": [world.sales], "securityEnabledOnly": true});
        let response = world.http.post(url).bearer_auth(token).json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    for function in ["checkMemberGroups", "getMemberGroups", "getMemberObjects"] {
        let world = World::new();
        let (mine, bobs) = (format!("/me/{function}"), format!("/users/{}/{function}", world.bob));
        for (path, scope, status) in [
            (&mine, "User.Read", 200),
            (&mine, "Mail.Read", 403),
            (&bobs, "User.Read", 403),
            (&bobs, "User.ReadBasic.All", 403),
            (&bobs, "GroupMember.Read.All", 403),
            (&bobs, "User.ReadBasic.All GroupMember.Read.All", 200),
            (&bobs, "Directory.Read.All", 200),
        ] {
            let token = world.graph_token("alice", scope);
            assert_eq!(post(&world, &token, path).await.0, status, "{path} with {scope}");
        }
        for (roles, status) in [
            (vec!["User.Read.All"], 403),
            (vec!["User.Read.All", "GroupMember.Read.All"], 200),
            (vec!["Directory.Read.All"], 200),
            (vec![], 403),
        ] {
            let roles: Vec<String> = roles.into_iter().map(ToOwned::to_owned).collect();
            let world = World::with(|tenant| tenant.apps[0].granted_graph_roles = roles.clone());
            let token = world.graph_application_token().await;
            let path = format!("/users/{}/{function}", world.bob);
            let (found, body) = post(&world, &token, &path).await;
            assert_eq!(found, status, "{path} with {roles:?}: {body}");
            assert_eq!(error(&post(&world, &token, &mine).await), (400, "BadRequest"));
        }
    }
}
