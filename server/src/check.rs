//! `check`: tests a configuration against the real Entra and Graph. Each line of the report has a result and, after a
//! failure, the next step.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mcp_entra_policy::{CompiledPolicy, ServerConfiguration, revision};

use crate::entra::{FederatedToken, Sts};
use crate::environment::refuse_secrets;
use crate::http_client;
use crate::inputs;
use crate::report::Report;
use crate::token::Keys;

/// Largest answer of Graph that is read, in bytes. The content does not matter.
const MAXIMUM_ANSWER: usize = 1024 * 1024;

/// The files to check.
pub struct Inputs {
    /// The configuration file.
    pub config: PathBuf,
    /// The compiled policy.
    pub policy: PathBuf,
    /// CA certificates for outgoing TLS, besides the system's.
    pub trust_bundle: Option<PathBuf>,
}

/// Runs all checks and writes a line for each: `ok` or `FAIL`, the subject, and the next step. Returns true if all
/// are ok. Fails only if the report cannot be written.
pub async fn check(files: &Inputs, report: &mut (dyn Write + Send)) -> io::Result<bool> {
    let mut report = Report::new(report);
    let names = std::env::vars_os().map(|(name, _)| name);
    let environment = refuse_secrets(names).map(|()| "no client secret, certificate or password".to_owned());
    report.line("environment", environment)?;
    let configuration = report.value("configuration", inputs::configuration(&files.config), |configuration| {
        let reference = &configuration.server;
        format!("{} is valid, for McpServer {}/{}", files.config.display(), reference.namespace, reference.name)
    })?;
    report.line("policy", policy(&files.policy))?;
    let federated_token = report.value("federated token", FederatedToken::from_environment(), |token| {
        format!("AZURE_FEDERATED_TOKEN_FILE is {}", token.path().display())
    })?;
    if let Some(token) = &federated_token {
        report.line("federated token", federated_token_says(token).await)?;
    }
    let trusted = match &files.trust_bundle {
        Some(path) => format!("the system's certificates and {}", path.display()),
        None => "the system's certificates".to_owned(),
    };
    let http = report.value("trust", inputs::http_client(files.trust_bundle.as_deref()), |_| trusted)?;
    if let (Some(configuration), Some(http)) = (configuration, http) {
        report.line("signing keys", signing_keys(&configuration, &http).await)?;
        if let Some(token) = federated_token {
            report.line("token exchange", exchange(&configuration, &http, token).await)?;
        }
        report.line("graph", graph(&configuration, &http).await)?;
    }
    Ok(report.is_all_ok())
}

fn policy(path: &Path) -> Result<String, String> {
    let document = inputs::read(path).map_err(|error| error.to_string())?;
    let policy = CompiledPolicy::parse(&document).map_err(|error| error.to_string())?;
    let nobody =
        if policy.grants.is_empty() { ": nobody may use any tool until an McpRoleMapping is applied" } else { "" };
    let (grants, denies) = (policy.grants.len(), policy.denies.len());
    Ok(format!("revision {} with {grants} grants and {denies} denies{nobody}", revision(&document)))
}

async fn federated_token_says(token: &FederatedToken) -> Result<String, String> {
    let says = token.describe().await.map_err(|error| error.to_string())?;
    let identity = says.identity;
    let remaining = says.expires_at - jiff::Timestamp::now().as_second();
    match remaining > 0 {
        true => Ok(format!(
            "issuer {}, subject {}, audience {}, valid for another {remaining} s",
            identity.issuer, identity.subject, identity.audience
        )),
        false => Err(format!(
            "the token of subject {} expired {} s ago; check that the kubelet renews it, and the clock",
            identity.subject, -remaining
        )),
    }
}

async fn signing_keys(configuration: &ServerConfiguration, http: &reqwest::Client) -> Result<String, String> {
    let entra = &configuration.entra;
    match Keys::new(http.clone(), entra).refresh().await {
        Ok(count) => Ok(format!("{count} usable at {} for tenant {}", entra.authority, entra.tenant_id)),
        Err(error) => Err(error.to_string()),
    }
}

async fn exchange(
    configuration: &ServerConfiguration,
    http: &reqwest::Client,
    token: FederatedToken,
) -> Result<String, String> {
    let entra = &configuration.entra;
    let sts = Sts::new(http.clone(), entra, token).map_err(|error| format!("entra.authority: {error}"))?;
    match sts.as_application(&configuration.graph.base_url).await {
        Ok(_) => Ok(format!("Entra accepts the federated token for app registration {}", entra.client_id)),
        Err(error) => Err(error.to_string()),
    }
}

async fn graph(configuration: &ServerConfiguration, http: &reqwest::Client) -> Result<String, String> {
    let base_url = &configuration.graph.base_url;
    // Any answer counts: without a token, Graph answers most requests with 401.
    match http_client::exchange(http.get(format!("{base_url}/v1.0/me")), MAXIMUM_ANSWER).await {
        Ok(_) => Ok(format!("{base_url} answers")),
        Err(error) => Err(format!("{base_url} does not answer ({error}); check graph.baseUrl and the network")),
    }
}
