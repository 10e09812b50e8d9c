//! Tests of clients that listen to resources of a backend: subscriptions, receivers of updates, and the end of
//! streams.

use std::time::Duration;

use futures::future::join_all;
use mcp_entra_policy::{BackendSessions, Pattern};
use serde_json::{Value, json};
use stock_backends::scripted::{Era, Options};
use tokio::time::{Instant, timeout};

use super::puppet::{Puppet, described, told};
use super::stage::{ERAS, Stage, answer, request, text};
use crate::harness::{Setup, deny_to_everyone, eventually};
use crate::scripted::Events;
use crate::tenant::{ALICE, BOB};

const NOTE: &str = "scripted://note/1";
const OTHER: &str = "scripted://note/2";
/// A resource that is in no list.
const OF_TEMPLATE: &str = "scripted://note/77";
const SECRET: &str = "scripted://secret/1";

/// Opens a stream of this user. Returns it with the acknowledged URIs.
async fn listen(stage: &Stage, user: &str, uris: &[&str]) -> (Events, Vec<String>) {
    let notifications = json!({ "resourcesListChanged": true, "resourceSubscriptions": uris });
    let request = stage.request_of(user, true, "subscriptions/listen", json!({ "notifications": notifications }));
    let mut events = Events::of(request.send().await.unwrap());
    let first = events.next().await.unwrap();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let accepted = first["params"]["notifications"]["resourceSubscriptions"].as_array().cloned().unwrap_or_default();
    (events, accepted.iter().map(|uri| uri.as_str().unwrap().to_owned()).collect())
}

/// Opens a stream of this user, with an acknowledgement of all these URIs.
async fn listening(stage: &Stage, user: &str, uris: &[&str]) -> Events {
    let (events, accepted) = listen(stage, user, uris).await;
    assert_eq!(accepted, uris, "{}", stage.name());
    events
}

/// Returns the URI of the next update.
async fn updated(events: &mut Events) -> String {
    let message = events.next().await.unwrap();
    assert_eq!(message["method"], "notifications/resources/updated", "{message}");
    message["params"]["uri"].as_str().unwrap().to_owned()
}

/// Makes the backend report an update. Over HTTP it reports to all sessions, and over stdio to the session of this
/// user.
async fn announce(stage: &Stage, user: &str, uri: &str) {
    let answer = stage.call_of(user, true, "announce", json!({ "uri": uri })).await;
    assert_eq!(text(&answer), "announced", "{}", stage.name());
}

/// Returns the URIs of the requests with this method that the backend has received, in order.
async fn asked(stage: &Stage, method: &str) -> Vec<String> {
    let received = stage.received().await.into_iter().filter(|one| one.method() == method);
    received.map(|one| one.message["params"]["uri"].as_str().unwrap().to_owned()).collect()
}

/// Returns the URIs of the last stream that was requested from the backend.
async fn streamed(stage: &Stage) -> Value {
    let received = stage.received().await.into_iter().rev();
    let mut uris = received.map(|one| one.message["params"]["notifications"]["resourceSubscriptions"].clone());
    uris.find(|uris| !uris.is_null()).unwrap_or_default()
}

fn no_secrets(setup: &mut Setup) {
    let mut deny = deny_to_everyone(&[]);
    deny.forbid.resources = vec![Pattern("scripted://secret*".into())];
    setup.policy.denies = vec![deny];
}

fn shared(setup: &mut Setup) {
    setup.configuration.backend.as_mut().unwrap().sessions = BackendSessions::Shared;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_reaches_those_who_listen_to_exactly_this_resource() {
    join_all(Stage::each().await.iter().map(async |stage| {
        let mut alices = listening(stage, ALICE, &[NOTE, OF_TEMPLATE]).await;
        let mut bobs = listening(stage, BOB, &[OTHER]).await;
        for uri in [NOTE, OF_TEMPLATE] {
            announce(stage, ALICE, uri).await;
            assert_eq!(updated(&mut alices).await, uri, "{}", stage.name());
        }
        announce(stage, BOB, OTHER).await;
        assert_eq!(updated(&mut bobs).await, OTHER, "{}", stage.name());
        // Nobody listens to these.
        for uri in [OTHER, "scripted://note/3", "scripted://note/11"] {
            let answer = stage.call(true, "announce", json!({ "uri": uri, "to_all": true })).await;
            assert_eq!(text(&answer), "announced");
        }
        announce(stage, ALICE, NOTE).await;
        assert_eq!(updated(&mut alices).await, NOTE, "{}", stage.name());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_granted_resources_in_normal_form_are_acknowledged_and_asked_of_the_backend() {
    for era in ERAS {
        for stage in [
            Stage::http_with(Options::of(era), no_secrets).await,
            Stage::stdio_with(Options::of(era), no_secrets).await,
        ] {
            let uris = [
                SECRET,
                "scripted://secret/77",
                "scripted://note/../secret/1",
                "scripted://note/%31",
                "SCRIPTED://note/1",
                "scripted://else/1",
                "scripted://note/1/2",
                NOTE,
                NOTE,
                "",
            ];
            let (_events, accepted) = listen(&stage, ALICE, &uris).await;
            assert_eq!(accepted, [NOTE], "{}", stage.name());
            match era {
                Era::Legacy => assert_eq!(asked(&stage, "resources/subscribe").await, [NOTE], "{}", stage.name()),
                Era::Modern => assert_eq!(streamed(&stage).await, json!([NOTE]), "{}", stage.name()),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withdrawn_right_ends_the_updates_of_an_open_stream() {
    join_all(Stage::each().await.iter().map(async |stage| {
        let mut events = listening(stage, ALICE, &[SECRET, NOTE]).await;
        announce(stage, ALICE, SECRET).await;
        assert_eq!(updated(&mut events).await, SECRET);
        let mut policy = stage.site.setup.policy.clone();
        let mut deny = deny_to_everyone(&[]);
        deny.forbid.resources = vec![Pattern("scripted://secret*".into())];
        policy.denies = vec![deny];
        stage.site.setup.write_policy(&policy);
        assert_eq!(events.next().await.unwrap()["method"], "notifications/resources/list_changed");
        announce(stage, ALICE, SECRET).await;
        announce(stage, ALICE, NOTE).await;
        assert_eq!(updated(&mut events).await, NOTE, "{}", stage.name());
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backend_is_asked_once_for_a_resource_and_told_when_the_last_listener_has_gone() {
    join_all(Stage::each().await.iter().map(async |stage| {
        let first = listening(stage, ALICE, &[NOTE, OTHER]).await;
        let mut second = listening(stage, ALICE, &[NOTE]).await;
        drop(first);
        match stage.options.era {
            Era::Legacy => {
                let gone = async || (asked(stage, "resources/unsubscribe").await == [OTHER]).then_some(());
                eventually("the first has gone", gone).await;
                let mut subscribed = asked(stage, "resources/subscribe").await;
                subscribed.sort();
                assert_eq!(subscribed, [NOTE, OTHER], "{}", stage.name());
            }
            Era::Modern => {
                eventually("the first has gone", async || (streamed(stage).await == json!([NOTE])).then_some(())).await;
            }
        }
        announce(stage, ALICE, NOTE).await;
        assert_eq!(updated(&mut second).await, NOTE, "{}", stage.name());
        drop(second);
        if stage.options.era == Era::Legacy {
            let gone = async || (asked(stage, "resources/unsubscribe").await == [OTHER, NOTE]).then_some(());
            eventually("the last has gone", gone).await;
        } else if stage.is_http() {
            // The streams about lists remain: those of Alice and of the probe.
            eventually("the last has gone", async || (stage.scripted().listeners() == 2).then_some(())).await;
        } else {
            let cancelled = async || {
                let all = stage.received().await.into_iter().filter(|one| one.method() == "notifications/cancelled");
                (all.count() >= 2).then_some(())
            };
            eventually("the last has gone", cancelled).await;
        }
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_token_ends_its_subscriptions() {
    let stage = Stage::http(Options::of(Era::Legacy)).await;
    let tenant = &stage.site.setup.tenant;
    let mut claims = tenant.claims(ALICE);
    claims["exp"] = json!(claims["iat"].as_i64().unwrap() + 5);
    let token = tenant.sign(&json!({}), &claims);
    let params = json!({ "notifications": { "resourceSubscriptions": [NOTE] } });
    let mut built = stage.request(true, "subscriptions/listen", params).build().unwrap();
    built.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut events = Events::of(stage.site.http.execute(built).await.unwrap());
    assert_eq!(asked(&stage, "resources/subscribe").await, [NOTE]);
    assert_eq!(events.rest().await.last().unwrap()["result"]["resultType"], "complete");
    let gone = async || (asked(&stage, "resources/unsubscribe").await == [NOTE]).then_some(());
    eventually("nobody listens", gone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_shared_session_listeners_are_counted_and_told_what_each_may_read() {
    for era in ERAS {
        let change = |setup: &mut Setup| {
            shared(setup);
            setup.policy.grants[1].allow.resources = vec![Pattern("scripted://note/*".into())];
        };
        for stage in
            [Stage::http_with(Options::of(era), change).await, Stage::stdio_with(Options::of(era), change).await]
        {
            let mut alices = listening(&stage, ALICE, &[SECRET, NOTE]).await;
            let (mut bobs, accepted) = listen(&stage, BOB, &[SECRET, NOTE]).await;
            assert_eq!(accepted, [NOTE], "{}", stage.name());
            announce(&stage, BOB, SECRET).await;
            assert_eq!(updated(&mut alices).await, SECRET);
            announce(&stage, BOB, NOTE).await;
            assert_eq!(updated(&mut bobs).await, NOTE, "{}", stage.name());
            assert_eq!(updated(&mut alices).await, NOTE);
            drop(alices);
            match era {
                Era::Legacy => {
                    let gone = async || (asked(&stage, "resources/unsubscribe").await == [SECRET]).then_some(());
                    eventually("Alice has gone", gone).await;
                    let mut subscribed = asked(&stage, "resources/subscribe").await;
                    subscribed.sort();
                    assert_eq!(subscribed, [NOTE, SECRET], "{}", stage.name());
                }
                Era::Modern => {
                    let gone = async || (streamed(&stage).await == json!([NOTE])).then_some(());
                    eventually("Alice has gone", gone).await;
                }
            }
            announce(&stage, BOB, NOTE).await;
            assert_eq!(updated(&mut bobs).await, NOTE, "{}", stage.name());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_made_again_after_a_process_has_ended_and_an_update_is_told() {
    join_all(ERAS.map(async |era| {
        let stage = Stage::stdio(Options::of(era)).await;
        let mut events = listening(&stage, ALICE, &[NOTE, OTHER]).await;
        stage.call(true, "exit", json!({})).await;
        // The backend may have reported updates that nobody received.
        let mut missed = [updated(&mut events).await, updated(&mut events).await];
        missed.sort();
        assert_eq!(missed, [NOTE, OTHER], "{era:?}");
        announce(&stage, ALICE, NOTE).await;
        assert_eq!(updated(&mut events).await, NOTE, "{era:?}");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_made_again_in_the_session_after_one_that_the_backend_has_forgotten() {
    join_all([true, false].map(async |is_noticed_by_a_call| {
        let stage = Stage::http(Options::of(Era::Legacy)).await;
        let mut events = listening(&stage, ALICE, &[NOTE]).await;
        stage.scripted().forget_sessions();
        if is_noticed_by_a_call {
            stage.call(true, "echo", json!({})).await;
        }
        assert_eq!(updated(&mut events).await, NOTE);
        assert_eq!(asked(&stage, "resources/subscribe").await, [NOTE, NOTE]);
        stage.scripted().announce_resource(NOTE).await;
        assert_eq!(updated(&mut events).await, NOTE);
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resource_that_the_backend_refuses_or_is_silent_about_is_not_acknowledged_and_holds_up_nobody() {
    let shares = ERAS.map(async |era| {
        [Stage::http_with(Options::of(era), shared).await, Stage::stdio_with(Options::of(era), shared).await]
    });
    let mut stages = join_all(shares).await.into_iter().flatten().collect::<Vec<_>>();
    stages.extend(Stage::each().await);
    join_all(stages.iter().map(async |stage| {
        let (_first, accepted) = listen(stage, ALICE, &["scripted://note/refused", NOTE]).await;
        assert_eq!(accepted, [NOTE], "{}", stage.name());
        // A session has at most so many requests about resources at the same time.
        let silent: [_; 8] = std::array::from_fn(|number| format!("scripted://note/{number}-silent"));
        let silent = silent.each_ref().map(String::as_str);
        let silent = listen(stage, ALICE, &silent);
        let others = async {
            let mut bobs = listening(stage, BOB, &[NOTE]).await;
            announce(stage, BOB, NOTE).await;
            assert_eq!(updated(&mut bobs).await, NOTE);
        };
        let ((_second, accepted), ()) = tokio::join!(silent, others);
        assert_eq!(accepted, Vec::<String>::new(), "{}", stage.name());
        listening(stage, ALICE, &[OTHER]).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_updates_is_told_as_a_few() {
    for era in ERAS {
        let stage = Stage::http(Options::of(era)).await;
        let mut alices = listening(&stage, ALICE, &[NOTE]).await;
        let mut bobs = listening(&stage, BOB, &[NOTE, OTHER]).await;
        let flood = async {
            for _ in 0..2_000 {
                stage.scripted().announce_resource(NOTE).await;
            }
            stage.scripted().announce_resource(OTHER).await;
        };
        let told = async {
            let mut count = 0;
            while updated(&mut bobs).await != OTHER {
                count += 1;
            }
            count
        };
        let begun = Instant::now();
        let ((), count, call) = tokio::join!(flood, told, stage.call(true, "echo", json!({})));
        assert_eq!(text(&call), "{}");
        let most = 2 + begun.elapsed().as_millis() / 200;
        assert!((1..=most).contains(&count), "{era:?}: {count} of {most}");
        assert_eq!(updated(&mut alices).await, NOTE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn subscriptions_are_promised_to_clients_that_can_listen_if_the_backend_has_them() {
    let capability = async |stage: &Stage, is_modern: bool| {
        let mut params = json!({});
        let method = if is_modern { "server/discover" } else { "initialize" };
        if !is_modern {
            let info = json!({ "name": "test", "version": "1" });
            params = json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": info });
        }
        stage.ask(is_modern, method, params).await["result"]["capabilities"]["resources"].clone()
    };
    for stage in Stage::each().await {
        stage.probed().await;
        assert_eq!(capability(&stage, true).await, json!({ "listChanged": true, "subscribe": true }));
        assert_eq!(capability(&stage, false).await, json!({}), "{}", stage.name());
        for method in ["resources/subscribe", "resources/unsubscribe"] {
            stage.ask(false, method, json!({ "uri": NOTE })).await;
            assert_eq!(asked(&stage, method).await, Vec::<String>::new(), "{}", stage.name());
        }
    }
    let puppet = Puppet::start(|received| match received.method() {
        "resources/list" => told(received, r#""result":{"resources":[{"name":"a","uri":"scripted://note/1"}]}"#),
        "tools/list" => told(received, r#""result":{"tools":[]}"#),
        "prompts/list" => told(received, r#""result":{"prompts":[]}"#),
        _ => described(received),
    })
    .await;
    let site = puppet.site(&[]).await;
    let params = json!({ "notifications": { "resourceSubscriptions": [NOTE] } });
    let mut events = Events::of(request(&site, ALICE, true, "subscriptions/listen", params).send().await.unwrap());
    let first = timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap();
    assert_eq!(first["params"]["notifications"], json!({}), "{first}");
    assert!(puppet.received().iter().all(|one| one.method() != "subscriptions/listen"), "it is not asked");
    let probed = async || {
        let discovered = answer(request(&site, ALICE, true, "server/discover", json!({}))).await;
        (discovered["result"]["capabilities"]["resources"] == json!({ "listChanged": true })).then_some(())
    };
    eventually("nothing is promised", probed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_acknowledged_of_a_backend_over_http_that_has_no_stream_to_tell_of_updates() {
    let stage = Stage::http(Options { get_405: true, ..Options::of(Era::Legacy) }).await;
    let (_events, accepted) = listen(&stage, ALICE, &[NOTE]).await;
    assert_eq!(accepted, Vec::<String>::new());
    assert_eq!(asked(&stage, "resources/subscribe").await, Vec::<String>::new());
}
