//! The program itself: its environment, its output, its end.

use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Client;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use crate::harness::{PATIENCE, Setup};

/// `serve` with everything that it needs. `timeout` ends it even if the test is killed.
fn serve(setup: &Setup) -> Command {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_mcp-entra-server"), "serve"]);
    command.args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--drain-seconds", "0"]);
    for (option, file) in [("--config", "config.yaml"), ("--policy", "policy.json"), ("--trust-bundle", "ca.pem")] {
        command.arg(option).arg(setup.file(file));
    }
    command.env("AZURE_FEDERATED_TOKEN_FILE", setup.tenant.token_file()).env("RUST_LOG", "info");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn refusal(mut command: Command) -> String {
    let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    String::from_utf8(output.stderr).unwrap()
}

/// The first log line with this member, read from standard error.
async fn log_line(lines: &mut tokio::io::Lines<BufReader<ChildStderr>>, member: &str) -> Value {
    loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        if line.get(member).is_some() {
            return line;
        }
    }
}

#[tokio::test]
async fn a_secret_in_the_environment_keeps_the_server_from_starting() {
    let setup = Setup::new();
    setup.write_files();
    for variable in [
        "AZURE_CLIENT_SECRET",
        "AZURE_CLIENT_CERTIFICATE_PATH",
        "AZURE_CLIENT_CERTIFICATE_PASSWORD",
        "AZURE_CLIENT_CERTIFICATE_SEND_CHAIN",
        "AZURE_PASSWORD",
    ] {
        let mut command = serve(&setup);
        command.env(variable, "hunter2");
        let message = refusal(command).await;
        assert!(message.contains(&format!("{variable} is set in the environment")), "{message}");
        assert!(!message.contains("hunter2"));
    }
}

#[tokio::test]
async fn a_missing_token_file_or_a_wrong_configuration_keeps_the_server_from_starting() {
    let setup = Setup::new();
    setup.write_files();
    let mut command = serve(&setup);
    command.env_remove("AZURE_FEDERATED_TOKEN_FILE");
    assert!(refusal(command).await.contains("AZURE_FEDERATED_TOKEN_FILE is not set"));

    std::fs::write(setup.file("config.yaml"), "server: { namespace: a, name: b }\nclientSecret: x\n").unwrap();
    let message = refusal(serve(&setup)).await;
    assert!(message.contains("clientSecret"), "{message}");
}

#[tokio::test]
async fn the_program_writes_audit_lines_to_stdout_and_logs_to_stderr_and_ends_cleanly() {
    let setup = Setup::new();
    setup.write_files();
    let mut child: Child = serve(&setup).spawn().unwrap();
    let mut logs = BufReader::new(child.stderr.take().unwrap()).lines();
    let serving = log_line(&mut logs, "admin_address").await;
    let url = format!("http://{}/mcp", serving["address"].as_str().unwrap());

    let http = Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let response = http.post(url).header("host", crate::harness::HOST).send().await.unwrap();
    assert_eq!(response.status(), 401);
    let request_id = response.headers()["x-request-id"].to_str().unwrap().to_owned();

    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let lines: Vec<Value> = output
        .stdout
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["requestId"], *request_id);
}
