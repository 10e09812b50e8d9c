//! Tests with unmodified, pinned third-party clients: MSAL for Python and for Node, and azure-identity for Python. Each
//! flow is one of the scripts in `clients/`, in a separate process.

mod installation;

use std::{ffi::OsString, path::PathBuf, process::Stdio, time::Duration};

use entra_emulator::{ConditionalAccess, OptionalClaim};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::world::{EMULATOR, ON_BEHALF_OF, REDIRECT_URI, World, claims};
use installation::{NODE_MODULES, PYTHON, source};

/// Timeout of one flow on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    MsalPython,
    MsalNode,
    AzureIdentity,
}

const MSAL: [Client; 2] = [Client::MsalPython, Client::MsalNode];

impl Client {
    fn command(self) -> (PathBuf, PathBuf, Vec<(&'static str, OsString)>) {
        match self {
            Self::MsalPython => (PYTHON.clone(), source("python/msal_flows.py"), vec![]),
            Self::AzureIdentity => (PYTHON.clone(), source("python/azure_identity_flows.py"), vec![]),
            Self::MsalNode => {
                let modules = ("NODE_PATH", NODE_MODULES.clone().into_os_string());
                ("node".into(), source("node/msal_flows.cjs"), vec![modules])
            }
        }
    }

    /// Runs a flow in a world, and returns the results of its first and of its second request.
    async fn run(self, flow: &str, world: &World) -> (Value, Value) {
        let (program, script, more) = self.command();
        let folder = tempfile::tempdir().unwrap();
        let (ca, assertion) = (folder.path().join("ca.pem"), folder.path().join("assertion"));
        std::fs::write(&ca, EMULATOR.ca_pem()).unwrap();
        std::fs::write(&assertion, world.right_assertion()).unwrap();
        let mut child = Command::new(program)
            .arg(script)
            .arg(flow)
            .envs(more)
            .env("REQUESTS_CA_BUNDLE", &ca)
            .env("NODE_EXTRA_CA_CERTS", &ca)
            .env("NO_PROXY", "localhost")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let input = json!({
            "authority": EMULATOR.authority(), "tenant": world.tenant,
            "api": world.api, "desktop": world.desktop, "scope": world.api_scope("mcp.access"),
            "redirect_uri": REDIRECT_URI, "user": "alice@contoso.com", "user_token": world.user_token("alice"),
            "assertion": world.right_assertion(), "assertion_file": assertion, "claims": context(),
            "me": format!("{}/v1.0/me", EMULATOR.graph()),
            "revoke": format!(
                "{}/_control/tenants/{}/users/{}/revoke", EMULATOR.authority(), world.tenant, world.alice
            ),
        });
        child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).await.unwrap();
        let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.map_err(|_| format!("{self:?} {flow} takes too long")).unwrap().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{self:?} {flow}:\n{errors}");
        let outcomes: Value = serde_json::from_slice(&output.stdout).unwrap();
        (outcomes["first"].clone(), outcomes["second"].clone())
    }
}

/// Claims that require an authentication context.
fn context() -> String {
    json!({"access_token": {"acrs": {"essential": true, "value": "c1"}}}).to_string()
}

/// A world whose API is a web application as well.
fn world() -> World {
    World::with(|tenant| tenant.apps[0].redirect_uris = vec![REDIRECT_URI.to_owned()])
}

fn token(client: Client, outcome: &Value) -> &Value {
    let token = &outcome["access_token"];
    assert!(token.is_string(), "{client:?}: {outcome}");
    token
}

async fn assert_is_alices(world: &World, client: Client, outcome: &Value) {
    let (status, me) = world.graph("/me", token(client, outcome).as_str().unwrap()).await;
    assert_eq!((status, &me["id"]), (200, &json!(world.alice)), "{client:?}: {me}");
}

/// Returns the number of token requests with this grant to this world's tenant.
fn grants(world: &World, grant_type: &str) -> usize {
    world.requests().iter().filter(|request| request.grant_type.as_deref() == Some(grant_type)).count()
}

#[tokio::test]
async fn every_client_authenticates_as_an_application_with_a_projected_token() {
    for (client, flow) in [
        (Client::MsalPython, "client_credentials"),
        (Client::MsalNode, "client_credentials"),
        (Client::AzureIdentity, "client_assertion"),
        (Client::AzureIdentity, "workload_identity"),
    ] {
        let world = world();
        let (first, second) = client.run(flow, &world).await;
        assert_eq!(claims(token(client, &first))["azp"], json!(world.api), "{client:?} {flow}");
        assert_eq!(token(client, &second), token(client, &first), "{client:?} {flow}: from its cache");
        assert_eq!(grants(&world, "client_credentials"), 1, "{client:?} {flow}");
        assert!(world.requests().iter().all(|request| !request.client_secret_present));
    }
}

#[tokio::test]
async fn every_client_repeats_the_refusal_of_a_projected_token_without_a_credential() {
    for (client, flow) in [
        (Client::MsalPython, "client_credentials"),
        (Client::MsalNode, "client_credentials"),
        (Client::AzureIdentity, "client_assertion"),
        (Client::AzureIdentity, "workload_identity"),
    ] {
        let world = World::with(|tenant| tenant.apps[0].federated_credentials[0].subject.push('2'));
        let (first, _) = client.run(flow, &world).await;
        let text = first["error_description"].as_str().unwrap_or_default();
        assert!(text.contains("AADSTS700213"), "{client:?} {flow}: {first}");
    }
}

#[tokio::test]
async fn every_client_reaches_graph_on_behalf_of_a_user() {
    for client in [Client::MsalPython, Client::MsalNode, Client::AzureIdentity] {
        let world = world();
        let (first, second) = client.run("on_behalf_of", &world).await;
        assert_is_alices(&world, client, &first).await;
        assert_eq!(claims(token(client, &first))["xms_cc"].as_array().unwrap().len(), 1, "{client:?}");
        assert_is_alices(&world, client, &second).await;
        // MSAL for Python reads its cache only on request.
        let exchanges = if client == Client::MsalPython { 2 } else { 1 };
        assert_eq!(grants(&world, ON_BEHALF_OF), exchanges, "{client:?}");
    }
}

#[tokio::test]
async fn clients_recognise_missing_consent() {
    for client in MSAL {
        let (first, _) = client.run("on_behalf_of_without_consent", &world()).await;
        assert_eq!(first["suberror"], "consent_required", "{client:?}: {first}");
    }
}

#[tokio::test]
async fn people_sign_in_to_public_clients_and_stay_signed_in() {
    for client in MSAL {
        let world = world();
        let (first, second) = client.run("authorization_code", &world).await;
        assert_eq!(claims(token(client, &first))["oid"], json!(world.alice), "{client:?}");
        assert!(first["id_token"].is_string(), "{client:?}: {first}");
        assert_eq!(claims(token(client, &second))["oid"], json!(world.alice), "{client:?}");
        assert_ne!(token(client, &second), token(client, &first), "{client:?}: refreshed");
        assert_eq!((grants(&world, "authorization_code"), grants(&world, "refresh_token")), (1, 1), "{client:?}");
    }
}

#[tokio::test]
async fn people_sign_in_to_web_applications_that_authenticate_with_projected_tokens() {
    for client in MSAL {
        let world = world();
        let (first, second) = client.run("authorization_code_of_a_web_application", &world).await;
        assert_is_alices(&world, client, &first).await;
        assert_is_alices(&world, client, &second).await;
        assert_ne!(token(client, &second), token(client, &first), "{client:?}: refreshed");
        let federated = world.requests().into_iter().filter(|request| request.federated.is_some()).count();
        assert_eq!(federated, 2, "{client:?}: for the code and for the refresh token");
    }
}

#[tokio::test]
async fn people_sign_in_on_another_device() {
    for client in MSAL {
        let world = world();
        let (first, second) = client.run("device_code", &world).await;
        assert_eq!(claims(token(client, &first))["oid"], json!(world.alice), "{client:?}");
        assert_eq!(claims(token(client, &second))["oid"], json!(world.alice), "{client:?}");
        assert_eq!(grants(&world, "refresh_token"), 1, "{client:?}");
    }
    let (client, world) = (Client::AzureIdentity, world());
    let (first, second) = client.run("device_code", &world).await;
    assert_eq!(claims(token(client, &first))["oid"], json!(world.alice), "{client:?}");
    assert_eq!(token(client, &second), token(client, &first), "{client:?}: from its cache");
}

#[tokio::test]
async fn a_second_factor_is_requested_given_and_accepted() {
    for (client, access) in [
        (Client::MsalPython, ConditionalAccess::MultiFactor),
        (Client::MsalPython, ConditionalAccess::MultiFactorBasicAction),
        (Client::MsalNode, ConditionalAccess::MultiFactor),
        (Client::MsalNode, ConditionalAccess::MultiFactorBasicAction),
    ] {
        let world = World::with(|tenant| tenant.apps[0].conditional_access = access);
        let (first, second) = client.run("second_factor", &world).await;
        assert!(first["claims"].is_string() && first.get("access_token").is_none(), "{client:?}: {first}");
        assert_is_alices(&world, client, &second).await;
    }
}

#[tokio::test]
async fn a_new_sign_in_replaces_a_revoked_session() {
    for client in MSAL {
        let world = world();
        let (first, second) = client.run("revoked_session", &world).await;
        assert!(first["claims"].as_str().unwrap_or_default().contains("nbf"), "{client:?}: {first}");
        assert_is_alices(&world, client, &second).await;
    }
}

#[tokio::test]
async fn an_authentication_context_needs_a_new_sign_in() {
    for client in MSAL {
        let world = World::with(|tenant| tenant.apps[0].optional_claims.push(OptionalClaim::Acrs));
        let (first, second) = client.run("authentication_context", &world).await;
        assert!(first["error"].is_string() && first.get("access_token").is_none(), "{client:?}: {first}");
        assert_eq!(claims(token(client, &second))["acrs"], json!(["c1"]), "{client:?}");
        assert_eq!(claims(token(client, &second))["xms_cc"], json!(["cp1"]), "{client:?}");
    }
}
