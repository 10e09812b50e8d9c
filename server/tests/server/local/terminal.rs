//! Tests of the program in a terminal: its messages for a person, and the logs.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::pty::openpty;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::person::Person;
use crate::harness::PATIENCE;
use crate::tenant::ALICE;

const WAITS: &str = "This waits for an MCP client. To set one up, run it with --sign-in and --print-config.";
const KEPT: [&str; 2] = ["--token-store", "file"];

/// Both ends of a terminal: the person's, and the program's.
fn terminal() -> (OwnedFd, OwnedFd) {
    let ends = openpty(None, None).unwrap();
    (ends.master, ends.slave)
}

/// Returns all output of the program to the terminal.
fn shown_at(person: OwnedFd) -> String {
    let mut shown = vec![];
    // Linux returns an error for the end of the other side.
    _ = std::fs::File::from(person).read_to_end(&mut shown);
    String::from_utf8(shown).unwrap()
}

/// Returns standard error of a complete run, which succeeds or not.
async fn said(command: &mut Command) -> (bool, String) {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test]
async fn a_user_who_starts_the_server_in_a_terminal_is_informed_that_it_waits_for_an_mcp_client() {
    let person = Person::new();
    let (_keyboard, input) = terminal();
    let mut child = person.command(&KEPT).stdin(input).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.expect("a line in time").unwrap();
    assert_eq!(first.as_deref(), Some(WAITS));
    child.kill().await.unwrap();

    let (_keyboard, input) = terminal();
    let (is_well, signing_out) = said(person.command(&[&KEPT[..], &["--sign-out"]].concat()).stdin(input)).await;
    assert!(is_well && !signing_out.contains(WAITS), "{signing_out}");
    let (is_well, served) = said(person.command(&KEPT).stdin(Stdio::null())).await;
    assert!(is_well && served.contains("\"serving\"") && !served.contains(WAITS), "{served}");
}

#[tokio::test]
async fn logs_are_readable_in_a_terminal_and_json_in_a_file() {
    let person = Person::new();
    let file = person.file("log.jsonl");
    for arguments in [&KEPT[..], &["--log-file", file.to_str().unwrap()]] {
        let (screen, output) = terminal();
        let mut command = person.command(arguments);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).status().await.unwrap();
        // The program's end is dropped with it.
        drop(command);
        let shown = shown_at(screen);
        assert!(status.success(), "{shown}");
        let is_shown = arguments == KEPT;
        assert_eq!((shown.contains("serving"), shown.contains("{\"")), (is_shown, false), "{shown}");
    }
    let log = std::fs::read_to_string(file).unwrap();
    assert!(log.contains("serving") && !log.contains('\u{1b}'), "{log}");
    assert!(log.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{log}");
}

#[tokio::test]
async fn an_interactive_mode_only_logs_on_request() {
    let person = Person::new();
    let sign_in = [&KEPT[..], &["--sign-in"]].concat();
    for (number, level) in [None, Some("info")].into_iter().enumerate() {
        let mut command = person.command(&sign_in);
        match level {
            Some(level) => command.env("RUST_LOG", level),
            None => command.env_remove("RUST_LOG"),
        };
        let (said, shown) = tokio::join!(said(&mut command), person.signs_in_at(number, ALICE));
        assert_eq!(shown.status, 200);
        assert_eq!((said.0, said.1.contains("signed in")), (true, level.is_some()), "{said:?}");
        assert_eq!(said.1.is_empty(), level.is_none(), "{said:?}");
        assert!(person.command(&[&KEPT[..], &["--sign-out"]].concat()).output().await.unwrap().status.success());
    }
    let (_, served) = said(person.command(&KEPT).env_remove("RUST_LOG").stdin(Stdio::null())).await;
    assert!(served.contains("\"serving\""), "{served}");
}

#[tokio::test]
async fn an_absent_trust_bundle_is_reported_once_and_a_wrong_one_without_internal_errors() {
    let person = Person::new();
    let missing = person.file("missing.pem");
    let (is_well, absent) = said(&mut person.command(&["--trust-bundle", missing.to_str().unwrap()])).await;
    assert!(!is_well && absent.contains("--trust-bundle") && absent.contains("name another file"), "{absent}");
    assert_eq!(absent.matches("No such file").count(), 1, "{absent}");

    let foreign = person.file("foreign.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["ca.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(&foreign, certificate.pem()).unwrap();
    let arguments = ["--trust-bundle", foreign.to_str().unwrap(), "--token-store", "file", "--doctor"];
    let (is_well, logged) = said(&mut person.command(&arguments)).await;
    assert!(!is_well && !logged.contains("rustls_platform_verifier"), "{logged}");
}
