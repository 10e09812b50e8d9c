//! Tests of a user's sign-in in a browser, by a code and through the client, and of users who are refused.

use std::time::Duration;

use entra_emulator::{Fault, FaultKind, Matcher};
use serde_json::json;

use super::person::{PROFILE, Person, assert_profile, browser, error_text};
use crate::harness::{PATIENCE, eventually};
use crate::tenant::{ALICE, BOB};

#[tokio::test]
async fn the_first_call_opens_the_browser_and_is_answered_once_the_person_has_signed_in() {
    let person = Person::new();
    let mut client = person.client().await;
    assert_eq!(person.opened(), [""; 0], "before a call nothing opens");
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(0).await;
    assert!(address.starts_with("http://localhost:") && address.contains("/start/"), "{address}");
    let shown = browser().sign_in(&address, ALICE).await.unwrap();
    assert!(shown.status == 200 && shown.html.contains("alice@contoso.com is signed in"), "{}", shown.html);
    assert_profile(&client.answer(call).await);
    assert_profile(&client.call(PROFILE).await);
    assert_eq!(person.opened().len(), 1);
    client.end().await;
}

#[tokio::test]
async fn a_one_time_address_works_once_and_only_with_this_machines_own_name() {
    let person = Person::new();
    let mut client = person.client().await;
    client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(0).await;
    let browser = browser();
    let port = reqwest::Url::parse(&address).unwrap().port().unwrap();
    for host in
        ["evil.example".to_owned(), format!("evil.example:{port}"), format!("127.0.0.1:{port}"), "localhost".to_owned()]
    {
        let shown = browser.show(browser.get(&address).header("host", &host)).await.unwrap();
        assert_eq!(shown.status, 421, "{host}");
    }
    let shown = browser.show(browser.get(&format!("http://localhost:{port}/start/AAAA"))).await.unwrap();
    assert_eq!(shown.status, 410);
    assert_eq!(browser.show(browser.get(&address)).await.unwrap().status, 303);
    assert_eq!(browser.show(browser.get(&address)).await.unwrap().status, 410);
    client.end().await;
}

#[tokio::test]
async fn another_state_has_no_effect_and_a_code_is_accepted_once() {
    let person = Person::new();
    let mut client = person.client().await;
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(0).await;
    let browser = browser();
    let (action, form) = browser.submit(&address, ALICE).await.unwrap();
    let without = |name: &str| Vec::from_iter(form.iter().filter(|(input, _)| input != name).cloned());
    let with = |name: &str, value: &str| [without(name), vec![(name.to_owned(), value.to_owned())]].concat();
    for form in [without("state"), with("state", ""), with("state", "AAAA"), without("code"), vec![]] {
        assert_eq!(browser.show(browser.post(&action, &form)).await.unwrap().status, 400, "{form:?}");
    }
    let long = with("code", &"A".repeat(100_000));
    assert_eq!(browser.show(browser.post(&action, &long)).await.unwrap().status, 400);
    assert_eq!(person.grants("authorization_code").len(), 0, "nothing of that reached Entra");
    let rebound = browser.post(&action, &form).header("host", "evil.example");
    assert_eq!(browser.show(rebound).await.unwrap().status, 421);
    assert_eq!(browser.show(browser.post(&action, &form)).await.unwrap().status, 200);
    assert_profile(&client.answer(call).await);
    let again = eventually("the port is closed", async || browser.show(browser.post(&action, &form)).await.err()).await;
    assert!(again.to_string().contains("error sending request"), "{again}");
    client.end().await;
}

#[tokio::test]
async fn a_refusal_of_entra_ends_the_sign_in_and_is_shown_on_the_page_and_to_the_client() {
    let person = Person::new();
    let mut client = person.client().await;
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let browser = browser();
    let (action, form) = browser.submit(&person.opens(0).await, ALICE).await.unwrap();
    let state = form.iter().find(|(name, _)| name == "state").cloned().unwrap();
    let refusal = [
        ("error", "access_denied"),
        ("error_description", "AADSTS65004: <b>alice</b> declined to consent. Trace ID: 1 Timestamp: 2"),
    ];
    let refusal = refusal.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let shown = browser.show(browser.post(&action, &[refusal.to_vec(), vec![state]].concat())).await.unwrap();
    assert!(shown.html.contains("&#60;b&#62;alice") && !shown.html.contains("Trace ID"), "{}", shown.html);
    let text = error_text(&client.answer(call).await);
    assert!(text.contains("AADSTS65004") && text.contains("declined to consent"), "{text}");
    client.end().await;
}

#[tokio::test]
async fn another_account_than_the_known_one_is_refused_and_not_stored() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    let alice = person.tenant.user_id(ALICE);
    crate::tenant::control().revoke(person.tenant.id, alice).unwrap();
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let shown = person.signs_in_at(1, BOB).await;
    assert!(shown.status == 400 && shown.html.contains("--sign-out"), "{}", shown.html);
    let text = error_text(&client.answer(call).await);
    assert!(text.contains("bob@contoso.com signed in") && text.contains("alice@contoso.com"), "{text}");
    person.signs_in(&mut client).await;
    client.end().await;
}

#[tokio::test]
async fn a_client_that_opens_addresses_is_requested_to_and_this_program_opens_none() {
    let person = Person::new();
    let capabilities = json!({"elicitation": {"url": {}}});
    let mut client = person.client_with(&["--token-store", "file"], capabilities).await;
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let asked = client.message(PATIENCE, |message| message["method"] == "elicitation/create").await;
    let address = asked["params"]["url"].as_str().unwrap().to_owned();
    assert!(asked["params"]["mode"] == "url" && address.starts_with("http://localhost:"), "{asked}");
    client.line(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept"}}).to_string()).await;
    assert_eq!(browser().sign_in(&address, ALICE).await.unwrap().status, 200);
    assert_profile(&client.answer(call).await);
    assert_eq!(person.opened(), [""; 0]);
    client.end().await;
}

#[tokio::test]
async fn a_person_who_declines_in_the_client_is_not_signed_in_and_asked_again_at_the_next_call() {
    let person = Person::new();
    let capabilities = json!({"elicitation": {"url": {}}});
    let mut client = person.client_with(&["--token-store", "file"], capabilities).await;
    for action in ["decline", "cancel"] {
        let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
        let asked = client.message(PATIENCE, |message| message["method"] == "elicitation/create").await;
        client.line(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": action}}).to_string()).await;
        assert!(error_text(&client.answer(call).await).contains("was declined"));
    }
    let terminal = person.command(&["--token-store", "file", "--sign-in"]).spawn().unwrap();
    assert_eq!(person.signs_in_at(0, ALICE).await.status, 200, "nothing is in its way");
    assert!(tokio::time::timeout(PATIENCE, terminal.wait_with_output()).await.unwrap().unwrap().status.success());
    client.end().await;
}

#[tokio::test]
async fn a_client_that_cannot_open_an_address_after_all_leaves_that_to_this_program() {
    let person = Person::new();
    let capabilities = json!({"elicitation": {"url": {}}});
    let mut client = person.client_with(&["--token-store", "file"], capabilities).await;
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let asked = client.message(PATIENCE, |message| message["method"] == "elicitation/create").await;
    let failure = json!({"code": -32601, "message": "not today"});
    client.line(&json!({"jsonrpc": "2.0", "id": asked["id"], "error": failure}).to_string()).await;
    assert_eq!(person.signs_in_at(0, ALICE).await.status, 200);
    assert_profile(&client.answer(call).await);
    client.end().await;
}

#[tokio::test]
async fn a_tool_that_writes_does_nothing_in_the_call_that_signs_in() {
    let person = Person::new();
    let mut client = person.client_with(&["--token-store", "file", "--allow", "send_mail"], json!({})).await;
    let mail = json!({"name": "send_mail", "arguments": {"to": [ALICE], "subject": "s", "body": "b"}});
    let (first, again) = (client.send("tools/call", mail.clone()).await, client.send("tools/call", mail.clone()).await);
    assert_eq!(person.signs_in_at(0, ALICE).await.status, 200);
    for call in [first, again] {
        assert!(error_text(&client.answer(call).await).contains("call again"));
    }
    let sent = |person: &Person| {
        let from = person.tenant.user_id(ALICE);
        crate::tenant::control().sent_messages().into_iter().filter(|message| message.user == from).count()
    };
    assert_eq!(sent(&person), 0);
    let answer = client.ask("tools/call", mail).await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    assert_eq!(sent(&person), 1);
    client.end().await;
}

#[tokio::test]
async fn a_client_of_the_newest_revision_gets_the_address_to_open_in_the_answer() {
    let person = Person::new();
    let mut client = super::person::Client::start(person.command(&["--token-store", "file"]));
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}},
    });
    let found = client.ask("server/discover", json!({"_meta": meta})).await;
    assert!(found["result"]["supportedVersions"].to_string().contains("2026-07-28"), "{found}");
    let answer = client.ask("tools/call", json!({"name": PROFILE, "arguments": {}, "_meta": meta})).await;
    assert_eq!(answer["result"]["resultType"], "input_required", "{answer}");
    let (name, request) = answer["result"]["inputRequests"].as_object().unwrap().iter().next().unwrap();
    let address = request["params"]["url"].as_str().unwrap();
    assert_eq!(browser().sign_in(address, ALICE).await.unwrap().status, 200);
    let responses = json!({name: {"action": "accept"}});
    let params = json!({"name": PROFILE, "arguments": {}, "inputResponses": responses, "_meta": meta});
    assert_profile(&client.ask("tools/call", params).await);
    client.end().await;
}

#[tokio::test]
async fn without_a_browser_the_answer_names_the_sign_in_command_and_then_the_client_continues() {
    let person = Person::new();
    person.launcher("exit 3");
    let mut client = person.client().await;
    let text = error_text(&client.call(PROFILE).await);
    assert!(text.contains("mcp-entra-server local") && text.contains("--sign-in"), "{text}");
    person.launcher("printf '%s\\n' \"$1\" >> \"$HOME/opened\"");
    let terminal = person.command(&["--token-store", "file", "--sign-in"]).spawn().unwrap();
    assert_eq!(person.signs_in_at(0, ALICE).await.status, 200);
    let output = tokio::time::timeout(PATIENCE, terminal.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.contains("alice@contoso.com is signed in"), "{said}");
    assert_profile(&client.call(PROFILE).await);
    client.end().await;
}

#[tokio::test]
async fn in_a_session_without_a_display_no_launcher_is_started() {
    let person = Person::new();
    let mut command = person.command(&["--token-store", "file"]);
    command.env_remove("DISPLAY");
    let mut client = super::person::Client::start(command);
    client.begin(json!({})).await;
    let text = error_text(&client.call(PROFILE).await);
    assert!(text.contains("no display") && text.contains("--sign-in"), "{text}");
    assert_eq!(person.opened(), [""; 0]);
    client.end().await;
}

#[tokio::test]
async fn a_device_code_is_returned_at_once_and_the_call_after_its_entry_is_answered() {
    let person = Person::new();
    let mut client = person.client_with(&["--token-store", "file", "--device-code"], json!({})).await;
    let text = error_text(&client.call(PROFILE).await);
    assert!(text.contains("enter the code") && text.contains("call again"), "{text}");
    person.enters(&text, ALICE).await;
    assert_profile(&client.call(PROFILE).await);
    assert_eq!(person.opened(), [""; 0]);
    client.end().await;
}

#[tokio::test]
async fn the_browser_launcher_has_neither_the_input_nor_the_output_of_the_protocol() {
    let person = Person::new();
    person.launcher("echo noise; cat > \"$HOME/input\"; printf '%s\\n' \"$1\" >> \"$HOME/opened\"");
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    assert_eq!(client.ask("ping", json!({})).await["result"], json!({}));
    assert_eq!(std::fs::read(person.file("input")).unwrap(), b"");
    client.end().await;
}

#[tokio::test]
async fn an_ineffective_sign_in_is_not_requested_again_at_once() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    let challenge = json!({"access_token": {"nbf": {"essential": true, "value": "1"}}}).to_string();
    let encoded = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, challenge);
    let header = format!(r#"Bearer error="insufficient_claims", claims="{encoded}""#);
    let matcher =
        Matcher { tenant: Some(person.tenant.id), host: Some(entra_emulator::Host::Graph), ..Matcher::default() };
    let kind = FaultKind::Status {
        status: 401,
        headers: [("WWW-Authenticate".to_owned(), header)].into(),
        body: String::new(),
    };
    crate::tenant::control().inject(Fault { matcher, times: 100, kind }).unwrap();
    let refusal = FaultKind::Aadsts {
        code: 50076,
        status: 400,
        error: "interaction_required".to_owned(),
        message: "no".to_owned(),
        suberror: None,
        claims: Some(r#"{"access_token":{"capolids":{"essential":true,"values":["policy"]}}}"#.to_owned()),
    };
    let matcher =
        Matcher { tenant: Some(person.tenant.id), grant_type: Some("refresh_token".to_owned()), ..Matcher::default() };
    crate::tenant::control().inject(Fault { matcher, times: 100, kind: refusal }).unwrap();
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    assert_eq!(person.signs_in_at(1, ALICE).await.status, 200);
    let told = error_text(&client.answer(call).await);
    assert_eq!(error_text(&client.call(PROFILE).await), told);
    assert_eq!(person.opened().len(), 2, "no third page opens");
    client.end().await;
}

#[tokio::test]
async fn a_cancelled_call_gets_no_answer_and_its_sign_in_continues() {
    let person = Person::new();
    let mut client = person.client().await;
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(0).await;
    client.tell("notifications/cancelled", json!({"requestId": call})).await;
    assert_eq!(client.ask("ping", json!({})).await["result"], json!({}));
    assert_eq!(browser().sign_in(&address, ALICE).await.unwrap().status, 200);
    assert_profile(&client.call(PROFILE).await);
    assert_eq!(person.opened().len(), 1);
    client.assert_no_answer(call);
    client.end().await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_the_browser_starts_leaves_its_sign_in_open() {
    let person = Person::new();
    person.launcher("printf '%s\\n' \"$1\" >> \"$HOME/opened\"; sleep 1");
    let mut client = person.client().await;
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(0).await;
    client.tell("notifications/cancelled", json!({"requestId": call})).await;
    assert_eq!(client.ask("ping", json!({})).await["result"], json!({}));
    assert_eq!(browser().sign_in(&address, ALICE).await.unwrap().status, 200);
    assert_profile(&client.call(PROFILE).await);
    client.end().await;
}

#[tokio::test]
async fn the_end_of_the_input_during_a_sign_in_ends_the_program_and_frees_its_port() {
    let person = Person::new();
    let mut client = person.client().await;
    client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(0).await;
    let ended = std::time::Instant::now();
    client.end().await;
    assert!(ended.elapsed() < PATIENCE);
    assert!(browser().show(browser().get(&address)).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_call_with_progress_is_notified_of_the_wait_for_a_sign_in() {
    let person = Person::new();
    let mut client = person.client().await;
    let params = json!({"name": PROFILE, "arguments": {}, "_meta": {"progressToken": "p"}});
    let call = client.send("tools/call", params).await;
    let told = client.message(Duration::from_secs(30), |message| message["method"] == "notifications/progress").await;
    assert_eq!(told["params"]["progressToken"], "p");
    assert!(told["params"]["message"].as_str().unwrap().contains("sign-in"), "{told}");
    assert_eq!(person.signs_in_at(0, ALICE).await.status, 200);
    assert_profile(&client.answer(call).await);
    client.end().await;
}

#[tokio::test]
async fn two_clients_of_one_user_open_one_browser_and_both_continue() {
    let person = Person::new();
    let (mut one, mut other) = (person.client().await, person.client().await);
    let first = one.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(0).await;
    let params = json!({"name": PROFILE, "arguments": {}, "_meta": {"progressToken": 1}});
    let second = other.send("tools/call", params).await;
    other.message(PATIENCE, |message| message["method"] == "notifications/progress").await;
    assert_eq!(browser().sign_in(&address, ALICE).await.unwrap().status, 200);
    assert_profile(&one.answer(first).await);
    assert_profile(&other.answer(second).await);
    assert_eq!(person.opened().len(), 1);
    assert_eq!(person.grants("authorization_code").len(), 1);
    one.end().await;
    other.end().await;
}

/// Returns the address of Entra behind a one-time address, with the headers on the way.
async fn led_to(address: &str) -> (reqwest::Url, reqwest::header::HeaderMap) {
    let answer = browser().get(address).send().await.unwrap();
    let headers = answer.headers().clone();
    (reqwest::Url::parse(headers["location"].to_str().unwrap()).unwrap(), headers)
}

fn parameter(url: &reqwest::Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(known, _)| known == name).map(|(_, value)| value.into_owned())
}

#[tokio::test]
async fn a_first_sign_in_offers_a_choice_of_the_account_and_a_later_one_names_it() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    crate::tenant::control().revoke(person.tenant.id, person.tenant.user_id(ALICE)).unwrap();
    client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let (later, _) = led_to(&person.opens(1).await).await;
    client.end().await;

    let other = Person::new();
    let mut client = other.client().await;
    client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let (first, headers) = led_to(&other.opens(0).await).await;
    client.end().await;
    for (url, prompt, hint) in [(first, Some("select_account"), None), (later, None, Some(ALICE))] {
        assert_eq!(parameter(&url, "prompt").as_deref(), prompt, "{url}");
        assert_eq!(parameter(&url, "login_hint").as_deref(), hint, "{url}");
        assert_eq!(parameter(&url, "response_mode").as_deref(), Some("form_post"));
        assert_eq!(parameter(&url, "code_challenge_method").as_deref(), Some("S256"));
        let scope = parameter(&url, "scope").unwrap();
        assert!(scope.starts_with("openid profile offline_access https://") && scope.contains("/Mail.Read"), "{scope}");
        for secret in ["state", "nonce", "code_challenge"] {
            assert_eq!(parameter(&url, secret).unwrap().len(), 43, "{secret}: 32 random bytes");
        }
    }
    assert_eq!(
        (&headers["cache-control"], &headers["referrer-policy"]),
        (&"no-store".parse().unwrap(), &"no-referrer".parse().unwrap())
    );
}

#[tokio::test]
async fn an_invalid_request_to_a_one_time_address_does_not_use_it_up() {
    let person = Person::new();
    let mut client = person.client().await;
    client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(0).await;
    let looked = reqwest::Client::new().head(&address).send().await.unwrap();
    assert_eq!(looked.status(), 410);
    let hosts = format!(
        "GET /start/x HTTP/1.1\r\nHost: evil.example\r\nHost: {}\r\n\r\n",
        &address[7..].split('/').next().unwrap()
    );
    assert!(raw(&address, &hosts).await.starts_with("HTTP/1.1 4"), "two hosts");
    assert_eq!(browser().sign_in(&address, ALICE).await.unwrap().status, 200);
    client.end().await;
}

/// Returns the answer to bytes that no client would send.
async fn raw(address: &str, bytes: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let port = reqwest::Url::parse(address).unwrap().port().unwrap();
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn tokens_with_an_id_token_of_another_sign_in_are_refused() {
    let person = Person::new();
    let tenant = &person.tenant;
    let issuer = format!("{}/{}/v2.0", tenant.configuration().entra.authority, tenant.id);
    for (claim, value) in [
        ("nonce", json!("another")),
        ("aud", json!(tenant.server)),
        ("iss", json!(issuer.replace(&tenant.id.to_string(), &tenant.server.to_string()))),
        ("tid", json!(tenant.server)),
        ("exp", json!(1)),
    ] {
        let mut client = person.client().await;
        let number = person.opened().len();
        let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
        let address = person.opens(number).await;
        let (url, _) = led_to(&address).await;
        let mut claims = crate::tenant::control().id_token_claims(tenant.id, tenant.client, ALICE).unwrap();
        claims.insert("nonce".to_owned(), json!(parameter(&url, "nonce")));
        claims.insert(claim.to_owned(), value);
        let id_token = tenant.sign(&json!({}), &json!(claims));
        let body = json!({
            "token_type": "Bearer", "access_token": "a", "refresh_token": "r", "expires_in": 3600,
            "scope": "User.Read Mail.Read", "id_token": id_token,
        });
        let matcher = Matcher {
            tenant: Some(tenant.id),
            grant_type: Some("authorization_code".to_owned()),
            ..Matcher::default()
        };
        let kind = FaultKind::Status { status: 200, headers: [].into(), body: body.to_string() };
        crate::tenant::control().inject(Fault { matcher, times: 1, kind }).unwrap();
        let port = reqwest::Url::parse(&address).unwrap().port().unwrap();
        let form = [("state", parameter(&url, "state").unwrap()), ("code", "code".to_owned())];
        let form = form.map(|(name, value)| (name.to_owned(), value));
        let browser = browser();
        let shown = browser.show(browser.post(&format!("http://localhost:{port}/"), &form)).await.unwrap();
        assert_eq!(shown.status, 400, "{claim}: {}", shown.html);
        let text = error_text(&client.answer(call).await);
        assert!(text.contains("does not match this sign-in"), "{claim}: {text}");
        client.end().await;
    }
    assert!(person.kept_files().is_empty());
}
