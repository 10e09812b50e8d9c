//! Tests of lists in pages.

use mcp_entra_policy::Pattern;
use serde_json::{Value, json};

use super::{Stage, names};
use crate::harness::eventually;

/// Every page of the list of tools.
async fn pages(stage: &Stage, is_modern: bool) -> Vec<Vec<String>> {
    let (mut pages, mut params) = (vec![], json!({}));
    loop {
        let answer = stage.send(stage.request("tools/list", params, is_modern)).await;
        pages.push(names(&answer, "tools", "name"));
        match &answer["result"]["nextCursor"] {
            Value::Null => return pages,
            cursor => params = json!({ "cursor": cursor }),
        }
    }
}

#[tokio::test]
async fn a_long_list_has_pages_and_hidden_entries_leave_no_gap() {
    let stage = Stage::new().await;
    let all: Vec<String> =
        (0..250).map(|number| format!("{}{number:03}", if number % 2 == 0 { "a" } else { "writes" })).collect();
    stage.offer.offer_tools(&all.iter().map(String::as_str).collect::<Vec<_>>());
    for is_modern in [true, false] {
        let pages = pages(&stage, is_modern).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 25]);
        let expected: Vec<&String> = all.iter().filter(|name| name.starts_with('a')).collect();
        assert_eq!(pages.iter().flatten().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn the_last_page_of_one_caller_has_no_cursor_though_another_sees_more_after_it() {
    let stage = Stage::new().await;
    let mut all: Vec<String> = (0..100).map(|number| format!("a{number:03}")).collect();
    all.push("b".into());
    stage.offer.offer_tools(&all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(pages(&stage, true).await.iter().map(Vec::len).collect::<Vec<_>>(), [100, 1]);
    stage.change_policy(|policy| policy.grants[0].allow.tools = vec![Pattern("a*".into())]);
    let one = async || (pages(&stage, true).await.len() == 1).then_some(());
    eventually("the list ends with its first page", one).await;
}

#[tokio::test]
async fn an_invalid_cursor_is_refused_with_the_next_step() {
    let stage = Stage::new().await;
    for (method, cursor) in [("tools/list", "nonsense"), ("tools/list", ""), ("prompts/list", "ZWNobw")] {
        let answer = stage.ask(method, json!({ "cursor": cursor })).await;
        assert_eq!(answer["error"]["code"], -32602, "{method} {cursor}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("without a cursor"), "{answer}");
    }
    // The same cursor belongs to a list with the entry.
    let answer = stage.ask("tools/list", json!({ "cursor": "ZWNobw" })).await;
    assert_eq!(names(&answer, "tools", "name")[0], "hangs", "{answer}");
}

#[tokio::test]
async fn a_list_changes_exactly_when_the_offer_changes() {
    let stage = Stage::new().await;
    let first = stage.ask("tools/list", json!({})).await;
    assert_eq!(stage.ask("tools/list", json!({})).await, first);
    stage.offer.offer_tools(&["echo"]);
    assert_eq!(names(&stage.ask("tools/list", json!({})).await, "tools", "name"), ["echo"]);
}

#[tokio::test]
async fn templates_are_listed_read_and_completed_with_a_grant() {
    let stage = Stage::new().await;
    let templates = stage.ask("resources/templates/list", json!({})).await;
    assert_eq!(names(&templates, "resourceTemplates", "uriTemplate"), ["memo://all/{id}"]);
    let read = async |uri: &str| stage.ask("resources/read", json!({ "uri": uri })).await;
    assert_eq!(read("memo://all/7").await["result"]["contents"][0]["uri"], "memo://all/7");
    assert_eq!(read("secret://all/7").await["error"]["code"], 403);
    for unknown in ["memo://all/7/8", "memo://all/..", "memo://all/%37", "MEMO://all/7", "memo://all/"] {
        let answer = read(unknown).await;
        assert_eq!((&answer["error"]["code"], &answer["error"]["data"]["uri"]), (&json!(-32602), &json!(unknown)));
    }
    let legacy = stage.send(stage.request("resources/read", json!({ "uri": "memo://nothing" }), false)).await;
    assert_eq!(legacy["error"]["code"], -32002, "{legacy}");
    assert_eq!(stage.calls(), 1);
}

#[tokio::test]
async fn completions_of_an_argument_are_only_for_users_of_its_prompt_or_template() {
    let stage = Stage::new().await;
    let complete = async |of: Value, argument: &str| {
        let argument = json!({ "name": argument, "value": "a" });
        stage.ask("completion/complete", json!({ "ref": of, "argument": argument })).await
    };
    let prompt = |name: &str| json!({ "type": "ref/prompt", "name": name });
    let template = |text: &str| json!({ "type": "ref/resource", "uri": text });
    for (of, argument) in [(prompt("greet"), "name"), (template("memo://all/{id}"), "id")] {
        let answer = complete(of, argument).await;
        let completion = &answer["result"]["completion"];
        let values = completion["values"].as_array().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!((values.len(), &values[0]), (100, &json!("a0")));
        assert_eq!((&completion["total"], &completion["hasMore"]), (&json!(150), &json!(true)));
    }
    for (of, argument, code) in [
        (prompt("greet"), "else", -32602),
        (prompt("nothing"), "name", -32602),
        (template("memo://one"), "id", -32602),
        (template("secret://all/{id}"), "id", 403),
    ] {
        let answer = complete(of.clone(), argument).await;
        assert_eq!(answer["error"]["code"], code, "{of} {argument}: {answer}");
    }
}

#[tokio::test]
async fn a_client_of_an_earlier_revision_may_subscribe_to_what_it_may_read() {
    let stage = Stage::new().await;
    for method in ["resources/subscribe", "resources/unsubscribe"] {
        for (uri, expected) in [("memo://one", Value::Null), ("secret://two", json!(403)), ("memo://no", json!(-32002))]
        {
            let answer = stage.send(stage.request(method, json!({ "uri": uri }), false)).await;
            assert_eq!(answer["error"]["code"], expected, "{method} {uri}: {answer}");
        }
    }
}
