//! Tests of stored tokens: their user, their validity, and their end.

use entra_emulator::{Fault, FaultKind, Host, Matcher};
use serde_json::{Value, json};

use super::person::{Client, PROFILE, Person, assert_profile, browser, error_text};
use super::session::{REFRESH, fail, refused};
use crate::harness::PATIENCE;
use crate::tenant::{ALICE, BOB, control};

/// Makes Graph reject the next token of this user.
fn reject(person: &Person) {
    let matcher = Matcher { tenant: Some(person.tenant.id), host: Some(Host::Graph), ..Matcher::default() };
    let kind = FaultKind::Status { status: 401, headers: [].into(), body: "{}".to_owned() };
    control().inject(Fault { matcher, times: 1, kind }).unwrap();
}

/// Runs a mode that ends by itself. Returns its success and all output.
async fn run(person: &Person, arguments: &[&str]) -> (bool, String) {
    let running = person.command(arguments).output();
    let output = tokio::time::timeout(PATIENCE, running).await.expect("it ends by itself").unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// A signed-in user, and the client of the sign-in.
async fn signed_in() -> (Person, Client) {
    let person = Person::new();
    let mut client = person.client().await;
    person.signs_in(&mut client).await;
    (person, client)
}

#[tokio::test]
async fn stored_tokens_are_sent_only_to_their_own_graph_and_entra() {
    let (person, client) = signed_in().await;
    client.end().await;
    let before = person.kept();
    for (number, address) in ["--graph-url", "--authority"].into_iter().enumerate() {
        let elsewhere = ["--token-store", "file", address, "https://localhost:9"];
        let mut client = person.client_with(&elsewhere, json!({})).await;
        client.send("tools/call", json!({"name": PROFILE, "arguments": {}})).await;
        person.opens(number + 1).await;
        client.end().await;
    }
    assert_eq!((person.kept(), person.grants(REFRESH).len()), (before, 0));
    let mut client = person.client().await;
    assert_profile(&client.call(PROFILE).await);
    client.end().await;
}

#[tokio::test]
async fn a_sign_out_deletes_the_stored_tokens_of_every_store() {
    for store in ["os", "file", "memory"] {
        let (person, client) = signed_in().await;
        client.end().await;
        // Only under the lock.
        let lock = person.kept_file().with_extension("lock");
        std::fs::remove_file(&lock).unwrap();
        std::fs::create_dir(&lock).unwrap();
        let (ok, text) = run(&person, &["--token-store", store, "--sign-out"]).await;
        assert!(!ok && text.contains(".lock") && !person.kept_files().is_empty(), "{store}: {text}");
        std::fs::remove_dir(lock).unwrap();
        for said in ["Signed out: the tokens on this machine are deleted.", "There was no sign-in on this machine."] {
            let (ok, text) = run(&person, &["--token-store", store, "--sign-out"]).await;
            assert!(ok && text.lines().eq([said]), "{store}: {text}");
            assert!(person.kept_files().is_empty(), "{store}: {:?}", person.kept_files());
        }
    }
}

#[tokio::test]
async fn a_newer_programs_file_is_not_replaced_and_no_sign_in_is_begun() {
    let (person, client) = signed_in().await;
    client.end().await;
    let newer = r#"{"version":2,"accounts":[]}"#;
    std::fs::write(person.kept_file(), newer).unwrap();
    let (ok, text) = run(&person, &["--token-store", "file", "--sign-in"]).await;
    assert!(!ok && text.contains("update this program"), "{text}");
    assert_eq!((std::fs::read_to_string(person.kept_file()).unwrap(), person.opened().len()), (newer.to_owned(), 1));
}

#[tokio::test]
async fn a_sign_in_in_a_terminal_fails_unless_it_is_stored() {
    let person = Person::new();
    let terminal = person.command(&["--token-store", "file", "--sign-in"]).spawn().unwrap();
    let address = person.opens(0).await;
    let folder = person.file(".local/share/mcp-entra");
    std::fs::rename(&folder, person.file("elsewhere")).unwrap();
    std::fs::write(&folder, "a file where the folder was").unwrap();
    let shown = browser().sign_in(&address, ALICE).await.unwrap();
    let output = tokio::time::timeout(PATIENCE, terminal.wait_with_output()).await.unwrap().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(shown.status == 400 && !output.status.success() && said.contains("cannot store the tokens"), "{said}");
}

#[tokio::test]
async fn a_sign_in_in_a_terminal_needs_a_store_that_outlives_it() {
    let person = Person::new();
    let (ok, text) = run(&person, &["--token-store", "memory", "--sign-in"]).await;
    assert!(!ok && text.contains("--token-store memory"), "{text}");
    assert_eq!((person.opened(), person.grants("authorization_code").len()), (vec![], 0));
}

#[tokio::test]
async fn a_user_who_is_signed_in_already_is_informed_and_does_not_sign_in_again() {
    let (person, client) = signed_in().await;
    client.end().await;
    let (ok, text) = run(&person, &["--token-store", "file", "--sign-in"]).await;
    assert!(ok && text.contains("alice@contoso.com is already signed in") && text.contains("--sign-out"), "{text}");
    assert_eq!(person.opened().len(), 1);
}

#[tokio::test]
async fn tokens_in_memory_are_renewed_although_older_ones_are_stored() {
    use std::os::unix::fs::PermissionsExt;
    let (person, client) = signed_in().await;
    client.end().await;
    person.expire();
    // Other users may replace files in there, so nothing is written any more.
    let folder = person.kept_file().parent().unwrap().to_owned();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o770)).unwrap();
    let mut client = person.client().await;
    assert_profile(&client.call(PROFILE).await);
    person.change(|kept| kept["refresh_token"] = json!("worth nothing any more"));
    for _ in 0..2 {
        reject(&person);
        assert_profile(&client.call(PROFILE).await);
    }
    assert_eq!((person.opened().len(), person.grants(REFRESH).len()), (1, 3));
    let log = client.end().await;
    assert!(log.contains("only in memory"), "{log}");
}

#[tokio::test]
async fn a_clock_that_was_set_back_locks_no_user_out() {
    let (person, mut client) = signed_in().await;
    // Another process, whose clock is years behind, refreshes the tokens.
    let (ok, text) = run(&person, &["--token-store", "file", "--doctor"]).await;
    assert!(ok, "{text}");
    person.change(|kept| kept["issued_at"] = json!("2020-01-01T00:00:00Z"));
    fail(&person, 1, refused("invalid_grant", 700_082));
    reject(&person);
    assert_profile(&client.call(PROFILE).await);
    assert_eq!(person.opened().len(), 1);
    client.end().await;
}

#[tokio::test]
async fn a_failed_lock_is_reported_and_the_renewed_tokens_are_stored() {
    let (person, client) = signed_in().await;
    client.end().await;
    let lock = person.kept_file().with_extension("lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(lock).unwrap();
    person.expire();
    let before = person.kept();
    let mut client = person.client().await;
    assert_profile(&client.call(PROFILE).await);
    let log = client.end().await;
    assert!(log.contains("two processes may renew them at the same time") && !log.contains("memory"), "{log}");
    assert_ne!(person.kept()["refresh_token"], before["refresh_token"]);
}

#[tokio::test]
async fn a_running_client_never_uses_another_account_that_is_stored_meanwhile() {
    for issued_at in ["2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z"] {
        let (person, mut client) = signed_in().await;
        person.change(|kept| {
            kept["object_id"] = json!(person.tenant.user_id(BOB));
            kept["issued_at"] = json!(issued_at);
        });
        let kept = person.kept();
        reject(&person);
        let text = error_text(&client.call(PROFILE).await);
        assert!(text.contains("another account") && text.contains("restart the MCP client"), "{text}");
        assert_eq!((person.kept(), person.grants(REFRESH).len(), person.opened().len()), (kept, 0, 1), "{issued_at}");
        client.end().await;
    }
}

#[tokio::test]
async fn a_refresh_that_returns_another_account_is_refused_and_not_stored() {
    let (person, client) = signed_in().await;
    client.end().await;
    let alices = person.kept();
    assert!(run(&person, &["--token-store", "file", "--sign-out"]).await.0);
    let terminal = person.command(&["--token-store", "file", "--sign-in"]).spawn().unwrap();
    assert_eq!(person.signs_in_at(1, BOB).await.status, 200);
    assert!(tokio::time::timeout(PATIENCE, terminal.wait_with_output()).await.unwrap().unwrap().status.success());
    person.change(|kept| kept["object_id"] = alices["object_id"].clone());
    person.expire();
    let (kept, refreshes) = (person.kept(), person.grants(REFRESH).len());
    let mut client = person.client().await;
    let text = error_text(&client.call(PROFILE).await);
    assert!(text.contains("another account"), "{text}");
    assert_eq!((person.kept(), person.grants(REFRESH).len()), (kept, refreshes + 1));
    client.end().await;
}

impl Person {
    /// Returns the files with data of this user, except locks.
    pub(super) fn kept_files(&self) -> Vec<std::path::PathBuf> {
        let folder = self.file(".local/share/mcp-entra");
        let Ok(entries) = std::fs::read_dir(folder) else { return vec![] };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths.filter(|path| path.extension().is_none_or(|extension| extension != "lock")).collect()
    }

    /// Returns true while a process refreshes.
    pub(super) fn is_locked(&self) -> bool {
        let folder = std::fs::read_dir(self.file(".local/share/mcp-entra")).unwrap();
        let mut locks = folder.map(|entry| entry.unwrap().path()).filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.ends_with(".lock") && !name.ends_with(".sign-in.lock")
        });
        locks.any(|path| std::fs::File::open(path).unwrap().try_lock().is_err())
    }

    pub(super) fn kept_file(&self) -> std::path::PathBuf {
        self.kept_files().pop().expect("something is kept")
    }

    /// Returns the stored tokens.
    pub(super) fn kept(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.kept_file()).unwrap()).unwrap()
    }

    /// Changes the stored tokens.
    pub(super) fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut kept = self.kept();
        change(&mut kept);
        std::fs::write(self.kept_file(), kept.to_string()).unwrap();
    }

    /// Replaces the stored access token with an expired one.
    pub(super) fn expire(&self) {
        self.change(|kept| kept["access"]["usable_until"] = json!("2020-01-01T00:00:00Z"));
    }
}
