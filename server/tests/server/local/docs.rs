//! Tests of docs/local.md, whose commands run as written.

use std::process::Output;

use entra_emulator::{App, Tenant, User};
use serde_json::{Value, json};
use tokio::process::Command;
use uuid::Uuid;

use super::person::{Client, PROFILE, Person, assert_profile};
use crate::harness::PATIENCE;
use crate::tenant::{ALICE, control};

const PAGE: &str = include_str!("../../../../docs/local.md");

/// Returns the commands of the page, each with the shown lines of its output. Commands that build the program are in
/// another kind of block (`sh`).
fn commands() -> Vec<(String, Vec<String>)> {
    let blocks = PAGE.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap());
    let mut commands: Vec<(String, Vec<String>)> = vec![];
    for line in blocks.flat_map(str::lines) {
        match line.strip_prefix("$ ") {
            Some(command) => commands.push((command.to_owned(), vec![])),
            None => commands.last_mut().unwrap().1.push(line.to_owned()),
        }
    }
    commands
}

/// Asserts that the output has each line on the page, up to a `…`, in this order.
fn assert_shown(said: &str, shown: &[String]) {
    let mut lines = said.lines();
    for line in shown.iter().filter(|line| *line != "…") {
        // Ports, and addresses of the cloud.
        let start = line.split(['…', ':']).next().unwrap();
        assert!(lines.any(|said| said.starts_with(start)), "{start:?} of the page is not in\n{said}");
    }
}

#[tokio::test]
async fn the_commands_of_the_page_lead_from_a_new_registration_to_a_profile_from_graph() {
    let commands = commands();
    let (export, rest) = commands.split_first().unwrap();
    let variables = export.0.strip_prefix("export ").unwrap().split(' ').map(|pair| pair.split_once('=').unwrap());
    let variables: Vec<(&str, &str)> = variables.collect();
    let value = |name: &str| variables.iter().find(|(known, _)| *known == name).unwrap().1;
    let alice = User { oid: Uuid::new_v4(), user_principal_name: ALICE.to_owned(), ..User::default() };
    control()
        .add_tenant(Tenant {
            id: Uuid::new_v4(),
            domains: vec![value("MCP_ENTRA_TENANT").to_owned()],
            apps: vec![App {
                client_id: value("MCP_ENTRA_CLIENT_ID").parse().unwrap(),
                public_client: true,
                // As in step 2 of the page.
                redirect_uris: vec!["http://localhost".to_owned()],
                ..App::default()
            }],
            users: vec![alice],
            ..Tenant::default()
        })
        .unwrap();
    assert!(PAGE.contains("redirect URI `http://localhost`"));

    let person = Person::new();
    let configuration = person.tenant.configuration();
    let start = |words: &[&str]| {
        let [program, arguments @ ..] = words else { panic!("an empty command") };
        assert_eq!(*program, "mcp-entra-server");
        let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-entra-server"));
        command.args(arguments).envs(variables.iter().copied()).kill_on_drop(true);
        // Differences from a real tenant: the addresses, the certificate, and that there is no secret service.
        person.dress(&mut command);
        command.env("MCP_ENTRA_AUTHORITY", &configuration.entra.authority);
        command.env("MCP_ENTRA_GRAPH_URL", &configuration.graph.base_url);
        command.env("MCP_ENTRA_TRUST_BUNDLE", person.file("ca.pem")).env("MCP_ENTRA_TOKEN_STORE", "file");
        command
    };
    let mut played = vec![];
    for (line, shown) in rest {
        let words: Vec<&str> = line.split(' ').collect();
        let mode = words.iter().find(|word| word.starts_with("--")).unwrap();
        let running = start(&words).spawn().unwrap();
        if *mode == "--sign-in" {
            assert_eq!(person.signs_in_at(0, ALICE).await.status, 200);
        }
        let output = tokio::time::timeout(PATIENCE, running.wait_with_output()).await.unwrap().unwrap();
        let Output { status, stdout, stderr } = output;
        let said = String::from_utf8(stdout).unwrap();
        assert!(status.success(), "{line}: {said} {}", String::from_utf8_lossy(&stderr));
        assert_shown(&said, shown);
        if *mode == "--print-config" {
            let block: Value = serde_json::from_str(&said).unwrap();
            let server = &block["servers"]["microsoft-graph"];
            let mut command = Command::new(server["command"].as_str().unwrap());
            command.args(server["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()));
            person.dress(&mut command);
            let mut client = Client::start(command);
            client.begin(json!({})).await;
            assert_profile(&client.call(PROFILE).await);
            client.end().await;
        }
        played.push((*mode).to_owned());
    }
    assert_eq!(played, ["--doctor", "--sign-in", "--print-config"]);
    assert_eq!(person.opened().len(), 1);
}
