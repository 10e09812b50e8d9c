//! Tests of `$batch`, and of faults in single items of it.

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use serde_json::{Value, json};

use crate::world::{EMULATOR, World};

async fn batch(world: &World, token: &str, requests: Value) -> (u16, Value) {
    let url = format!("{}/v1.0/$batch", EMULATOR.graph());
    let body = json!({"requests": requests});
    let response = world.http.post(url).bearer_auth(token).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

fn get(id: &str, url: &str) -> Value {
    json!({"id": id, "method": "GET", "url": url})
}

fn item<'a>(answer: &'a Value, id: &str) -> &'a Value {
    answer["responses"].as_array().unwrap().iter().find(|item| item["id"] == id).unwrap()
}

#[tokio::test]
async fn each_request_of_a_batch_is_answered_by_itself() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read Mail.Send");
    let mail = json!({"message": {"toRecipients": [{"emailAddress": {"address": "bob@contoso.com"}}]}});
    let send = json!({
        "id": "3", "method": "POST", "url": "/me/sendMail", "body": mail,
        "headers": {"Content-Type": "application/json"},
    });
    let (status, answer) =
        batch(&world, &token, json!([get("1", "/me?$select=id"), get("2", "/me/messages"), send])).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(item(&answer, "1")["body"]["id"], json!(world.alice));
    assert_eq!(item(&answer, "1")["headers"]["content-type"], "application/json");
    assert_eq!(item(&answer, "2")["status"], 403);
    assert_eq!(item(&answer, "2")["body"]["error"]["code"], "ErrorAccessDenied");
    assert_eq!(item(&answer, "3")["status"], 202);
    assert!(item(&answer, "3").get("body").is_none());
    let paths: Vec<String> = world.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, ["/v1.0/me", "/v1.0/me/messages", "/v1.0/me/sendMail", "/v1.0/$batch"]);
}

#[tokio::test]
async fn items_that_depend_on_a_failed_item_are_not_tried() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    let after = |id: &str, url: &str, on: &str| json!({"id": id, "method": "GET", "url": url, "dependsOn": [on]});
    let requests = json!([
        after("c", "/me", "b"),
        after("b", "/me", "a"),
        get("a", "/me/messages"),
        after("e", "/me", "d"),
        get("d", "/me")
    ]);
    let (_, answer) = batch(&world, &token, requests).await;
    for (id, status) in [("a", 403), ("b", 424), ("c", 424), ("d", 200), ("e", 200)] {
        assert_eq!(item(&answer, id)["status"], status, "{id}");
    }
}

#[tokio::test]
async fn one_item_can_be_throttled_without_the_others() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read Mail.Read");
    let matcher = Matcher {
        host: Some(Host::Graph),
        tenant: Some(world.tenant),
        path: Some("/me/messages".to_owned()),
        ..Matcher::default()
    };
    let kind = FaultKind::Status {
        status: 429,
        headers: [("Retry-After".to_owned(), "1".to_owned())].into(),
        body: json!({"error": {"code": "TooManyRequests"}}).to_string(),
    };
    world.control().inject(Fault { matcher, times: 1, kind }).unwrap();
    let requests = json!([get("1", "/me"), get("2", "/me/messages"), get("3", "/me/messages")]);
    let (status, answer) = batch(&world, &token, requests).await;
    assert_eq!((status, &item(&answer, "1")["status"]), (200, &json!(200)));
    assert_eq!(item(&answer, "2")["status"], 429);
    assert_eq!(item(&answer, "2")["headers"]["retry-after"], "1");
    assert_eq!(item(&answer, "2")["body"]["error"]["code"], "TooManyRequests");
    assert_eq!(item(&answer, "3")["status"], 200);
}

#[tokio::test]
async fn answers_do_not_keep_the_order_of_the_requests() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    let ids: Vec<String> = (0..20).map(|number| number.to_string()).collect();
    let requests: Vec<Value> = ids.iter().map(|id| get(id, "/me")).collect();
    let (status, answer) = batch(&world, &token, json!(requests)).await;
    let found: Vec<&str> =
        answer["responses"].as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap()).collect();
    assert_eq!((status, found.len()), (200, 20));
    assert_ne!(found, ids, "one in 20! that this is chance");
}

#[tokio::test]
async fn an_invalid_batch_is_refused_as_a_whole() {
    let world = World::new();
    let token = world.graph_token("alice", "User.Read");
    let many: Vec<Value> = (0..21).map(|number| get(&number.to_string(), "/me")).collect();
    let on = |id: &str, on: &str| json!({"id": id, "method": "GET", "url": "/me", "dependsOn": [on]});
    for requests in [
        json!(many),
        json!([get("1", "/me"), get("1", "/me")]),
        json!([on("1", "2")]),
        json!([on("1", "2"), on("2", "1")]),
        json!([get("1", "me")]),
        json!([get("1", "/$batch")]),
        json!("requests"),
    ] {
        let (status, answer) = batch(&world, &token, requests.clone()).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!("BadRequest")), "{requests}");
    }
    assert_eq!(batch(&world, "", json!([get("1", "/me")])).await.1["responses"][0]["status"], 401);
}
