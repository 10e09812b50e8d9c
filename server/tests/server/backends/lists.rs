//! Tests of a backend's lists, which are read within limits and block nothing.

use std::time::Duration;

use serde_json::json;
use stock_backends::scripted::{Listed, Options};
use tokio::time::Instant;

use super::puppet::{Puppet, described, told};
use super::stage::{ERAS, Stage, text};
use crate::harness::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn all_pages_of_a_list_are_read_within_bounds() {
    for (listed, expected, last) in [
        (Listed::Ordinary, stock_backends::scripted::TOOLS.len(), "fill_stderr"),
        (Listed::CursorLoop, 3, "whoami"),
        (Listed::Many, 1_000, "tool_00999"),
    ] {
        let page_size = if listed == Listed::Many { 100 } else { 3 };
        let stage = Stage::http(Options { listed, page_size, ..Options::default() }).await;
        let status = stage.probed().await;
        assert_eq!(status.tools.len(), expected, "{listed:?}");
        assert!(status.tools.contains_key(last), "{listed:?}");
        assert_eq!(status.prompts.len(), 14, "{listed:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_with_deceptive_names_are_dropped_and_the_first_of_duplicates_wins() {
    let stage = Stage::http(Options { listed: Listed::BadNames, ..Options::default() }).await;
    let status = stage.probed().await;
    let known = Vec::from_iter(stock_backends::scripted::TOOLS.iter().map(|(name, _)| *name));
    let others = Vec::from_iter(status.tools.keys().filter(|name| !known.contains(&name.as_str())));
    assert_eq!(others, ["ECHO", "écho"]);
    let listed = stage.ask(true, "tools/list", json!({})).await;
    let echo = listed["result"]["tools"].as_array().unwrap().iter().filter(|tool| tool["name"] == "echo");
    assert_eq!(Vec::from_iter(echo.map(|tool| &tool["description"])), ["Has a bad name."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_too_large_is_refused_and_reported_in_the_status() {
    let stage = Stage::http(Options { listed: Listed::BigPage, ..Options::default() }).await;
    let failed = async || stage.site.status().await.backend.filter(|backend| backend.works == Some(false));
    let status = eventually("the probe has failed", failed).await;
    assert!(status.message.unwrap().contains("4 MiB"));
    let response = stage.request(true, "tools/list", json!({})).send().await.unwrap();
    assert_eq!(response.status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_too_many_bytes_is_cut_and_no_further_page_is_asked_for() {
    let puppet = Puppet::start(|received| match received.method() {
        "tools/list" => {
            let page: usize = received.message["params"]["cursor"].as_str().map_or(0, |page| page.parse().unwrap());
            let description = "x".repeat(300 << 10);
            let tool =
                |number| json!({ "name": format!("{page}-{number}"), "description": description, "inputSchema": {} });
            let result = json!({ "tools": [tool(0), tool(1), tool(2)], "nextCursor": (page + 1).to_string() });
            told(received, &format!(r#""result":{result}"#))
        }
        "prompts/list" => told(received, r#""result":{"prompts":[]}"#),
        "resources/list" => told(received, r#""result":{"resources":[]}"#),
        _ => described(received),
    })
    .await;
    let site = puppet.site(&[]).await;
    let probed = async || site.status().await.backend.filter(|backend| backend.works == Some(true));
    let status = eventually("the probe has ended", probed).await;
    let expected = ["0-0", "0-1", "0-2", "1-0", "1-1", "1-2"];
    assert_eq!(Vec::from_iter(status.tools.keys()), expected, "six of 300 KiB are less than 2 MiB");
    let pages = puppet.received().into_iter().filter(|one| one.method() == "tools/list").count();
    assert_eq!(pages, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_hangs_blocks_no_call() {
    for era in ERAS {
        let stage = Stage::http(Options::of(era)).await;
        let lists = async || stage.received().await.iter().filter(|one| one.method() == "tools/list").count();
        assert_eq!(text(&stage.call(true, "silent_list", json!({})).await), "set");
        let listens = async || (stage.scripted().listeners() >= 2).then_some(());
        eventually("both sessions listen", listens).await;
        let before = lists().await;
        stage.scripted().announce_lists().await;
        // The probe reads them again, too.
        eventually("the lists are requested again", async || {
            let begun = Instant::now();
            assert_eq!(text(&stage.call(true, "echo", json!({})).await), "{}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{era:?} {:?}", begun.elapsed());
            (lists().await >= before + 2).then_some(())
        })
        .await;
        assert_eq!(text(&stage.call(false, "echo", json!({})).await), "{}", "{era:?}");
    }
}
