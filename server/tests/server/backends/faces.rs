//! Tests of a backend that shows each caller separate lists.

use std::sync::Arc;

use mcp_entra_policy::{BackendIdentity, BackendStatus};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::block_in_place;

use super::puppet::{Puppet, described, status, told};
use super::stage::{Received, answer, request, text};
use crate::harness::{Setup, Site, eventually, grant_to_sales};
use crate::identity::backend_identity::claims;
use crate::tenant::{ALICE, BOB};

/// Returns the object id of the user in the assertion.
fn user(received: &Received) -> String {
    let claims = received.headers.get("mcp-entra-assertion").map(|assertion| claims(assertion));
    claims.map_or_else(|| "nobody".to_owned(), |claims| claims["oid"].as_str().unwrap().to_owned())
}

/// Starts a backend whose schema of the tool `faced` requires a header with the user's name. It answers a call after
/// it has its state back, which `released` must allow.
async fn faced(released: &Arc<Notify>) -> Puppet {
    let released = Arc::clone(released);
    Puppet::start(move |received| match received.method() {
        _ if !received.headers.contains_key("mcp-entra-assertion") => status(401),
        "tools/list" => {
            let argument = json!({ "type": "string", "x-mcp-header": format!("Of-{}", user(received)) });
            let tool = json!({ "name": "faced", "inputSchema": { "type": "object", "properties": { "a": argument } } });
            told(received, &format!(r#""result":{{"tools":[{tool}]}}"#))
        }
        "prompts/list" => told(received, r#""result":{"prompts":[]}"#),
        "resources/list" => told(received, r#""result":{"resources":[]}"#),
        "tools/call" if received.message["params"]["requestState"].is_null() => {
            block_in_place(|| Handle::current().block_on(released.notified()));
            told(received, r#""result":{"resultType":"input_required","requestState":"again"}"#)
        }
        "tools/call" => told(received, r#""result":{"content":[{"type":"text","text":"called"}]}"#),
        _ => described(received),
    })
    .await
}

fn asserted(setup: &mut Setup) {
    setup.configuration.backend.as_mut().unwrap().identity = BackendIdentity::Assertion {};
    let mut bobs = grant_to_sales(&setup.tenant, &[]);
    bobs.allow = setup.policy.grants[0].allow.clone();
    setup.policy.grants.push(bobs);
}

fn header(site: &Site, user: &str) -> String {
    format!("mcp-param-of-{}", site.setup.tenant.user_id(user))
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_repeat_arguments_follow_the_schema_in_the_callers_list() {
    let released = Arc::<Notify>::default();
    let puppet = faced(&released).await;
    let site = puppet.site_with(&["faced"], asserted).await;
    let ask = |user: &str, header: &str| {
        let params = json!({ "name": "faced", "arguments": { "a": "x" } });
        request(&site, user, true, "tools/call", params).header(header, "x")
    };
    let calls = || Vec::from_iter(puppet.received().into_iter().filter(|one| one.method() == "tools/call"));
    for (rounds, user, other) in [(1, ALICE, BOB), (3, BOB, ALICE)] {
        let call = tokio::spawn(answer(ask(user, &header(&site, user))));
        eventually("the call is there", async || (calls().len() == rounds).then_some(())).await;
        // The other user sees their own list during the call.
        let listed = answer(request(&site, other, true, "tools/list", json!({}))).await;
        assert!(listed.to_string().contains(&site.setup.tenant.user_id(other).to_string()), "{listed}");
        released.notify_one();
        let called = call.await.unwrap();
        assert_eq!(text(&called), "called", "{called}");
        for received in &calls()[rounds - 1..] {
            let sent = Vec::from_iter(received.headers.keys().filter(|name| name.starts_with("mcp-param-")));
            assert_eq!(sent, [&header(&site, user)], "{user}");
        }
        let forged = answer(ask(user, &header(&site, other))).await;
        assert_eq!(forged["error"]["code"], -32020, "{forged}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_has_lists_that_only_users_see_after_a_user_has_seen_them() {
    let puppet = faced(&Arc::default()).await;
    let site = puppet.site_with(&["faced"], asserted).await;
    let status = async |is_there: fn(&BackendStatus) -> bool| {
        let status = async || site.status().await.backend.filter(is_there);
        eventually("the probe has ended", status).await
    };
    let nothing = status(|backend| backend.works == Some(true)).await;
    assert!(nothing.tools.is_empty() && nothing.name.is_none(), "{nothing:?}");
    answer(request(&site, ALICE, true, "tools/list", json!({}))).await;
    let alices = status(|backend| !backend.tools.is_empty()).await;
    assert_eq!(Vec::from_iter(alices.tools.keys()), ["faced"]);
    assert!(alices.hidden.is_empty());
    assert_eq!(alices.protocol.as_deref(), Some("2026-07-28"));

    let pinned = puppet
        .site_with(&["faced"], |setup| {
            asserted(setup);
            setup.configuration.backend.as_mut().unwrap().pin = Some(alices.tools.clone());
        })
        .await;
    let status = async || pinned.status().await.backend.filter(|backend| !backend.hidden.is_empty());
    for user in [ALICE, BOB] {
        answer(request(&pinned, user, true, "tools/list", json!({}))).await;
    }
    let told = eventually("the shown lists are compared with the pin", status).await;
    assert_eq!(
        Vec::from_iter(told.hidden),
        ["faced"],
        "each user is another one in the second site, and has another tool"
    );
}
