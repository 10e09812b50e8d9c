//! Lists, page by page.

use serde_json::{Value, json};

use super::{Stage, names};

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
async fn a_long_list_comes_page_by_page_and_hidden_entries_leave_no_gap() {
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
async fn a_cursor_that_is_none_is_refused_with_the_next_step() {
    let stage = Stage::new().await;
    for (method, cursor) in [("tools/list", "nonsense"), ("tools/list", ""), ("prompts/list", "ZWNobw")] {
        let answer = stage.ask(method, json!({ "cursor": cursor })).await;
        assert_eq!(answer["error"]["code"], -32602, "{method} {cursor}: {answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains("without a cursor"), "{answer}");
    }
    // The same cursor is one of the list that has the entry.
    let answer = stage.ask("tools/list", json!({ "cursor": "ZWNobw" })).await;
    assert_eq!(names(&answer, "tools", "name")[0], "hangs", "{answer}");
}

#[tokio::test]
async fn a_list_is_the_same_again_and_another_one_as_soon_as_the_offer_is() {
    let stage = Stage::new().await;
    let first = stage.ask("tools/list", json!({})).await;
    assert_eq!(stage.ask("tools/list", json!({})).await, first);
    stage.offer.offer_tools(&["echo"]);
    assert_eq!(names(&stage.ask("tools/list", json!({})).await, "tools", "name"), ["echo"]);
}
