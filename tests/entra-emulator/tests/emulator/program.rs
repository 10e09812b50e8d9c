//! Tests of the program: its ready line, its services, and that it leaves nothing behind.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
};

use entra_emulator::{EntraEmulator, sign_in::http_client};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

const CONFIGURATION: &str = "
tenants:
- id: 11111111-1111-4111-8111-111111111111
  domains: [contoso.com]
  apps:
  - clientId: 22222222-2222-4222-8222-222222222222
    displayName: MCP server
    identifierUris: ['api://22222222-2222-4222-8222-222222222222']
    scopes: [mcp.access]
    requestedAccessTokenVersion: 2
    appRoles: [{ value: Mcp.Reader, allowedMemberTypes: [User] }]
    optionalClaims: [idtyp, xms_cc]
    groupMembershipClaims: ApplicationGroup
    grantedGraphScopes: [User.Read, Mail.Read]
    federatedCredentials:
    - { name: cluster, issuer: 'https://localhost:1', subject: 'system:serviceaccount:productivity:graph' }
    roleAssignments:
    - { principal: 33333333-3333-4333-8333-333333333333, role: Mcp.Reader }
  users:
  - { oid: 33333333-3333-4333-8333-333333333333, userPrincipalName: alice@contoso.com, displayName: Alice }
";

/// Ends the program even if the test fails.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn start(configuration: &str) -> (Program, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("entra.yaml");
    std::fs::write(&file, configuration).unwrap();
    // The kernel ends the program with this thread, even if the test itself is killed.
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "TERM", env!("CARGO_BIN_EXE_entra-emulator"), "--config"])
        .arg(file)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    (Program(child), folder)
}

#[tokio::test]
async fn the_program_prints_its_addresses_when_it_serves_and_leaves_nothing_behind() {
    let (mut program, _folder) = start(CONFIGURATION);
    let mut output = BufReader::new(program.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let values = line.trim_end().strip_prefix("entra-emulator ready: ").unwrap();
    let value = |name: &str| {
        let prefix = format!("{name}=");
        values.split(' ').find_map(|part| part.strip_prefix(&prefix)).unwrap().to_owned()
    };
    let ca = value("ca");
    let http = http_client(&std::fs::read_to_string(&ca).unwrap()).unwrap();
    let metadata = format!("{}/contoso.com/v2.0/.well-known/openid-configuration", value("authority"));
    assert_eq!(http.get(metadata).send().await.unwrap().status(), 200);
    assert_eq!(http.get(format!("{}/v1.0/me", value("graph"))).send().await.unwrap().status(), 401);
    let log: Value = http.get(format!("{}/requests", value("control"))).send().await.unwrap().json().await.unwrap();
    assert_eq!(log.as_array().unwrap().len(), 2);

    kill(Pid::from_raw(i32::try_from(program.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(program.0.wait().unwrap().success());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "", "one line and no more");
    assert!(!Path::new(&ca).parent().unwrap().exists());
}

#[test]
fn an_inconsistent_configuration_is_refused_with_its_name() {
    let misspelt = CONFIGURATION.replace("grantedGraphScopes", "grantedGraphScope");
    let unknown_role = CONFIGURATION.replace("role: Mcp.Reader }", "role: Mcp.Writer }");
    for (configuration, named) in [(misspelt, "grantedGraphScope"), (unknown_role, "Mcp.Writer")] {
        let (mut program, _folder) = start(&configuration);
        assert!(!program.0.wait().unwrap().success());
        let mut error = String::new();
        program.0.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        assert!(error.contains(named), "{error}");
    }
}

#[tokio::test]
async fn a_dropped_emulator_no_longer_answers() {
    let emulator = EntraEmulator::start(Default::default(), ([127, 0, 0, 1], 0).into()).await.unwrap();
    let http = http_client(emulator.ca_pem()).unwrap();
    let url = format!("{}/common/discovery/v2.0/keys", emulator.authority());
    assert_eq!(http.get(&url).send().await.unwrap().status(), 200);
    drop(emulator);
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    while http.get(&url).send().await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "it still answers");
        tokio::task::yield_now().await;
    }
}
