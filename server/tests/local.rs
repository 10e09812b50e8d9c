//! Tests of the subcommand `local`: its environment, its output, its end.
// Clippy allows tests to unwrap. Without this, it does not recognise helper functions of tests.
#![cfg(test)]

use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

const CLIENT_ID: &str = "8f6b1c52-0d4e-4c0a-9b7f-2a1d3e4f5a6b";

/// Runs `local` to its end, with only these arguments and variables.
fn local(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mcp-entra-server"));
    command.arg("local").args(arguments).env_clear().envs(variables.iter().copied()).stdin(Stdio::null());
    command.output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

#[test]
fn the_printed_configuration_starts_this_program_with_the_settings_of_the_environment() {
    let variables =
        [("MCP_ENTRA_TENANT", "Contoso.com"), ("MCP_ENTRA_CLIENT_ID", CLIENT_ID), ("MCP_ENTRA_SCOPES", "User.Read")];
    let output = local(&["--print-config", "vscode", "--tenant", "fabrikam.com"], &variables);
    assert!(output.status.success(), "{output:?}");
    assert!(text(output.stderr).contains(".vscode/mcp.json"));
    let block: Value = serde_json::from_slice(&output.stdout).unwrap();
    let server = &block["servers"]["microsoft-graph"];
    let program = std::fs::canonicalize(env!("CARGO_BIN_EXE_mcp-entra-server")).unwrap();
    assert_eq!(server["command"], json!(program));
    let client_id = format!("--client-id={CLIENT_ID}");
    assert_eq!(server["args"], json!(["local", "--tenant=fabrikam.com", client_id, "--scopes=User.Read"]));
}

#[test]
fn a_wrong_variable_ends_the_program_in_one_line_that_names_it() {
    let (tenant, client_id) = (("MCP_ENTRA_TENANT", "contoso.com"), ("MCP_ENTRA_CLIENT_ID", CLIENT_ID));
    for (name, value) in [
        ("MCP_ENTRA_TENANT", "common"),
        ("MCP_ENTRA_CLIENT_ID", "x"),
        ("MCP_ENTRA_SCOPES", "x y"),
        ("MCP_ENTRA_ALLOW", "x"),
        ("MCP_ENTRA_ALIAS", "x"),
        ("MCP_ENTRA_CLOUD", "x"),
        ("MCP_ENTRA_AUTHORITY", "x"),
        ("MCP_ENTRA_GRAPH_URL", "x"),
        ("MCP_ENTRA_TOKEN_STORE", "x"),
        ("MCP_ENTRA_DEVICE_CODE", "x"),
        ("MCP_ENTRA_TRUST_BUNDLE", ""),
        ("MCP_ENTRA_LOG_FILE", ""),
        ("MCP_ENTRA_AUDIT_FILE", ""),
    ] {
        let output = local(&["--print-config", "codex"], &[tenant, client_id, (name, value)]);
        assert_eq!(output.status.code(), Some(1), "{name}: {output:?}");
        assert!(output.stdout.is_empty(), "{name}");
        let error = text(output.stderr);
        assert!(error.contains(&format!("({name})")) && error.lines().count() == 1, "{name}: {error}");
    }
}

#[test]
fn local_mode_refuses_to_start_with_a_secret_in_the_environment() {
    let required = ["--tenant", "contoso.com", "--client-id", CLIENT_ID, "--print-config", "cursor"];
    for variable in ["AZURE_CLIENT_SECRET", "AZURE_PASSWORD", "AZURE_CLIENT_CERTIFICATE_PATH"] {
        let output = local(&required, &[(variable, "hunter2")]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{variable}");
        let error = text(output.stderr);
        assert!(error.contains(&format!("{variable} is set in the environment")), "{error}");
        assert!(!error.contains("hunter2"));
    }
    assert!(local(&required, &[]).status.success());
}
