//! Tests of the session: tokens outlive the process, are refreshed silently, and end by Entra or the user.

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use serde_json::json;

use super::person::{PROFILE, Person, assert_profile, browser, error_text};
use crate::harness::{PATIENCE, eventually};
use crate::tenant::{ALICE, control};

pub(super) const REFRESH: &str = "refresh_token";

/// Makes the next requests of this user's program to the token endpoint fail this way.
pub(super) fn fail(person: &Person, times: u32, kind: FaultKind) {
    let matcher = Matcher {
        tenant: Some(person.tenant.id),
        host: Some(Host::Authority),
        grant_type: Some(REFRESH.to_owned()),
        ..Matcher::default()
    };
    control().inject(Fault { matcher, times, kind }).unwrap();
}

pub(super) fn refused(error: &str, code: u32) -> FaultKind {
    FaultKind::Aadsts {
        code,
        status: 400,
        error: error.to_owned(),
        message: "no".to_owned(),
        suberror: Some("bad_token".to_owned()),
        claims: None,
    }
}

#[tokio::test]
async fn a_restart_continues_without_a_sign_in_and_without_a_request_to_entra() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    let mut client = person.client().await;
    assert_profile(&client.call(PROFILE).await);
    client.end().await;
    assert_eq!((person.opened().len(), person.grants(REFRESH).len()), (1, 0));
}

#[tokio::test]
async fn only_the_user_can_read_the_stored_tokens() {
    use std::os::unix::fs::PermissionsExt;
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    for (path, mode) in [(person.kept_file(), 0o600), (person.kept_file().parent().unwrap().to_owned(), 0o700)] {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode, "{}", path.display());
    }
}

#[tokio::test]
async fn an_expired_token_is_refreshed_silently_and_the_newest_refresh_token_is_stored() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    let first = person.kept();
    person.expire();
    let mut client = person.client().await;
    assert_profile(&client.call(PROFILE).await);
    client.end().await;
    assert_eq!(person.opened().len(), 1);
    let refresh = &person.grants(REFRESH)[0];
    assert!(refresh.claims.as_ref().unwrap().contains("cp1") && !refresh.client_secret_present);
    assert_ne!(person.kept()["refresh_token"], first["refresh_token"]);
}

#[tokio::test]
async fn neither_a_network_that_is_down_nor_a_busy_entra_opens_a_browser() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    person.expire();
    let busy = |status| FaultKind::Status {
        status,
        headers: [("Retry-After".to_owned(), "0".to_owned())].into(),
        body: String::new(),
    };
    for kind in [FaultKind::Disconnect, busy(429), busy(503), refused("temporarily_unavailable", 90033)] {
        fail(&person, 4, kind.clone());
        let mut client = person.client().await;
        let text = error_text(&client.call(PROFILE).await);
        assert!(!text.contains("--sign-in") && !text.contains("browser"), "{kind:?}: {text}");
        assert_eq!(person.opened().len(), 1, "{kind:?}");
        assert_profile(&client.call(PROFILE).await);
        person.expire();
        client.end().await;
    }
}

#[tokio::test]
async fn a_refusal_that_requires_the_user_opens_the_browser_for_any_code() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    for (number, (error, code)) in [
        ("invalid_grant", 700_082),
        ("invalid_grant", 50173),
        ("invalid_grant", 50105),
        ("interaction_required", 50076),
        ("invalid_grant", 65001),
    ]
    .into_iter()
    .enumerate()
    {
        person.expire();
        fail(&person, 1, refused(error, code));
        let mut client = person.client().await;
        let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
        assert_eq!(person.signs_in_at(number + 1, ALICE).await.status, 200, "{code}");
        assert_profile(&client.answer(call).await);
        client.end().await;
    }
}

#[tokio::test]
async fn a_refusal_of_the_application_is_reported_with_its_next_step_and_opens_nothing() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    person.expire();
    for (error, code, step) in [
        ("invalid_client", 7_000_218, "Mobile and desktop applications"),
        ("unauthorized_client", 700_016, "check --client-id"),
        ("invalid_scope", 70011, "--scopes"),
    ] {
        fail(&person, 1, refused(error, code));
        let mut client = person.client().await;
        let text = error_text(&client.call(PROFILE).await);
        assert!(text.contains(&format!("AADSTS{code}")) && text.contains(step), "{text}");
        client.end().await;
    }
    assert_eq!(person.opened().len(), 1);
}

#[tokio::test]
async fn graphs_challenge_is_met_by_a_refresh_or_by_a_sign_in_that_satisfies_it() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    // Graph rejects the token that it has accepted before, and Entra refuses to refresh it.
    control().revoke(person.tenant.id, person.tenant.user_id(ALICE)).unwrap();
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    let address = person.opens(1).await;
    let refresh = person.grants(REFRESH).pop().unwrap();
    assert!(refresh.claims.unwrap().contains("nbf"), "the refresh answers Graph's challenge");
    let shown = browser().sign_in(&address, ALICE).await.unwrap();
    assert_eq!(shown.status, 200, "{}", shown.html);
    assert_profile(&client.answer(call).await);
    client.end().await;
}

#[tokio::test]
async fn claims_that_a_refresh_lacks_are_asked_for_at_the_sign_in() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    person.expire();
    let claims = r#"{"access_token":{"capolids":{"essential":true,"values":["policy"]}}}"#;
    let mut refusal = refused("interaction_required", 50076);
    if let FaultKind::Aadsts { claims: asked, .. } = &mut refusal {
        *asked = Some(claims.to_owned());
    }
    fail(&person, 1, refusal);
    let mut client = person.client().await;
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    assert_eq!(person.signs_in_at(1, ALICE).await.status, 200);
    assert_profile(&client.answer(call).await);
    let redeemed = person.grants("authorization_code").pop().unwrap();
    assert!(redeemed.claims.unwrap().contains("capolids"), "the sign-in satisfies what the refresh lacked");
    client.end().await;
}

#[tokio::test]
async fn a_process_that_is_killed_while_it_refreshes_leaves_the_sign_in_whole() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    let before = person.kept();
    person.expire();
    fail(&person, 1, FaultKind::Delay { milliseconds: 60_000 });
    let mut client = person.client().await;
    client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    eventually("the refresh is on its way", async || person.is_locked().then_some(())).await;
    client.child.kill().await.unwrap();
    assert_eq!(person.kept()["refresh_token"], before["refresh_token"]);
    let mut client = person.client().await;
    assert_profile(&client.call(PROFILE).await);
    assert_eq!(person.opened().len(), 1);
    client.end().await;
}

#[tokio::test]
async fn two_processes_refresh_once() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    person.expire();
    let (mut one, mut other) = (person.client().await, person.client().await);
    let (first, second) = tokio::join!(one.call(PROFILE), other.call(PROFILE));
    assert_profile(&first);
    assert_profile(&second);
    assert_eq!(person.grants(REFRESH).len(), 1);
    one.end().await;
    other.end().await;
}

#[tokio::test]
async fn without_a_secret_service_tokens_are_only_in_memory_which_is_reported() {
    let person = Person::new();
    let mut client = person.client_with(&["--token-store", "os"], json!({})).await;
    person.signs_in(&mut client).await;
    assert_profile(&client.call(PROFILE).await);
    let log = client.end().await;
    assert!(log.contains("only in memory") && log.contains("--token-store file"), "{log}");
    let mut client = person.client_with(&["--token-store", "os"], json!({})).await;
    person.signs_in(&mut client).await;
    client.end().await;
    let terminal = person.command(&["--token-store", "os", "--sign-in"]).output().await.unwrap();
    let said = String::from_utf8(terminal.stderr).unwrap();
    assert!(!terminal.status.success() && said.contains("--token-store file"), "{said}");
    assert_eq!(person.opened().len(), 2, "a sign-in that cannot be kept is not begun");
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_unchanged_until_the_user_runs_sign_in() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    std::fs::write(person.kept_file(), "{ not ours").unwrap();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    let log = client.end().await;
    assert!(log.contains("only in memory") && log.contains("--sign-in"), "{log}");
    assert_eq!(std::fs::read_to_string(person.kept_file()).unwrap(), "{ not ours");
    let terminal = person.command(&["--token-store", "file", "--sign-in"]).spawn().unwrap();
    assert_eq!(person.signs_in_at(2, ALICE).await.status, 200);
    let output = tokio::time::timeout(PATIENCE, terminal.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(person.kept()["refresh_token"].is_string());
}

#[tokio::test]
async fn a_read_only_folder_only_makes_the_next_start_sign_in_again() {
    let person = Person::new();
    std::fs::create_dir_all(person.file(".local/share")).unwrap();
    std::fs::write(person.file(".local/share/mcp-entra"), "a file where the folder should be").unwrap();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    assert_profile(&client.call(PROFILE).await);
    let log = client.end().await;
    assert!(log.contains("only in memory"), "{log}");
}

#[tokio::test]
async fn a_sign_out_deletes_the_stored_tokens_and_the_next_start_signs_in_again() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    for (said, there) in [("deleted", true), ("There was no sign-in", false)] {
        assert_eq!(person.kept_files().is_empty(), !there);
        let output = person.command(&["--token-store", "file", "--sign-out"]).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(said), "{text}");
    }
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
}

#[tokio::test]
async fn a_sign_out_stays_effective_although_a_running_clients_token_is_then_rejected() {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    let output = person.command(&["--token-store", "file", "--sign-out"]).output().await.unwrap();
    assert!(output.status.success());
    control().revoke(person.tenant.id, person.tenant.user_id(ALICE)).unwrap();
    let call = client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
    person.opens(1).await;
    assert!(person.kept_files().is_empty(), "{:?}", person.kept_files());
    assert_eq!(person.grants(REFRESH).len(), 0, "nothing is refreshed after a sign-out");
    assert_eq!(person.signs_in_at(1, ALICE).await.status, 200);
    assert_profile(&client.answer(call).await);
    client.end().await;
}

#[tokio::test]
async fn a_token_that_lacks_a_permission_of_a_tool_is_renewed_for_all_of_them() {
    let person = Person::new();
    let mut client = person.client_with(&["--token-store", "file", "--scopes", "User.Read"], json!({})).await;
    person.signs_in(&mut client).await;
    client.end().await;
    let mut client = person.client().await;
    let answer = client.call("list_my_messages").await;
    assert_eq!(answer["result"]["isError"], false, "{answer}");
    assert_eq!((person.opened().len(), person.grants(REFRESH).len()), (1, 1));
    client.end().await;
}

#[tokio::test]
async fn the_doctor_reports_each_check_in_a_line_with_a_next_step_for_failures() {
    let person = Person::new();
    person.launcher("exit 0");
    let doctor = async |arguments: &[&str]| {
        let arguments = [&["--token-store", "file", "--doctor"], arguments].concat();
        let output = person.command(&arguments).output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    };
    let (ok, text) = doctor(&[]).await;
    assert!(ok && text.contains("not signed in yet") && !text.contains("FAIL"), "{text}");
    for line in ["tenant", "registration", "browser", "token store", "sign-in", "graph"] {
        assert!(text.contains(&format!("ok    {line}: ")), "{line}: {text}");
    }
    person.launcher("printf '%s\\n' \"$1\" >> \"$HOME/opened\"");
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    client.end().await;
    let (ok, text) = doctor(&[]).await;
    assert!(
        ok && text.contains("alice@contoso.com is signed in") && text.contains("ok    scopes: Mail.Read, User.Read"),
        "{text}"
    );

    let other = uuid::Uuid::new_v4().to_string();
    let (ok, text) = doctor(&["--client-id", &other]).await;
    assert!(!ok && text.contains("FAIL  registration: ") && text.contains("AADSTS700016"), "{text}");
    let (ok, text) = doctor(&["--tenant", "nowhere.example"]).await;
    assert!(!ok && text.contains("FAIL  tenant: ") && text.contains("--tenant"), "{text}");
    let web = person.tenant.daemon.to_string();
    let (ok, text) = doctor(&["--client-id", &web]).await;
    assert!(!ok && text.contains("FAIL  registration: ") && text.contains("http://localhost"), "{text}");
    let (ok, text) = doctor(&["--graph-url", "https://localhost:9"]).await;
    assert!(!ok && text.contains("FAIL  graph: "), "{text}");
}
