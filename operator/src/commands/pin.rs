//! `pin`: prints the digests of the tools that a server's backend offers now, for `spec.backend.pin`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;
use kube::{Client, Config};
use mcp_entra_crds::MOST_PINS;
use serde::Serialize;

use crate::{
    commands::asked_backend::{AskError, ask},
    mcpserver::pod_status::report::BackendReport,
};

/// Timeout of the cluster.
const PATIENCE: Duration = Duration::from_secs(30);

/// The server whose backend is pinned.
#[derive(Args, Clone, Debug)]
pub struct PinOptions {
    /// The McpServer, as NAMESPACE/NAME.
    #[arg(value_name = "NAMESPACE/NAME", value_parser = full_name)]
    pub server: (String, String),
}

fn full_name(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok((namespace.to_owned(), name.to_owned()))
        }
        _ => Err("write the McpServer as NAMESPACE/NAME"),
    }
}

/// The reason why nothing can be pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// No cluster is configured.
    #[error("no cluster is configured ({0}); set KUBECONFIG")]
    Config(String),
    /// The backend cannot be asked.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The cluster does not answer in time.
    #[error("the cluster did not answer within {} s; check the network", PATIENCE.as_secs())]
    Deadline,
    /// The backend has no tools.
    #[error(
        "the backend has shown no tools to this pod, so there is nothing to pin; if spec.backend.identity is onBehalfOf, list the tools as a signed-in user and repeat this; otherwise remove spec.backend.pin"
    )]
    Nothing,
    /// The backend has more tools than a pin takes.
    #[error("the backend offers {0} tools, but a pin allows {MOST_PINS}; grant its tools by exact name instead")]
    TooMany(usize),
    /// The YAML cannot be written.
    #[error("the pin cannot be written ({0}); report this as a defect")]
    Yaml(#[from] serde_yaml::Error),
}

/// Returns the YAML fragment to print.
///
/// # Errors
/// If the backend cannot be asked, or its tools cannot be pinned.
pub async fn pin(options: &PinOptions) -> Result<String, PinError> {
    let config = Config::infer().await.map_err(|error| PinError::Config(error.to_string()))?;
    let client = Client::try_from(config).map_err(|error| PinError::Config(error.to_string()))?;
    let (namespace, name) = &options.server;
    let asked = tokio::time::timeout(PATIENCE, ask(&client, namespace, name)).await;
    let (pod, report) = asked.map_err(|_| PinError::Deadline)??;
    fragment(&format!("{namespace}/{name}"), &pod, &report)
}

fn fragment(server: &str, pod: &str, report: &BackendReport) -> Result<String, PinError> {
    #[derive(Serialize)]
    struct Fragment<'a> {
        pin: &'a BTreeMap<String, String>,
    }
    match report.tools.len() {
        0 => return Err(PinError::Nothing),
        number if number > MOST_PINS => return Err(PinError::TooMany(number)),
        _ => {}
    }
    let yaml = serde_yaml::to_string(&Fragment { pin: &report.tools })?;
    Ok(format!(
        "# The tools of the backend of {server}, as pod {pod} offers them. Review them, and put this under spec.backend.\n{yaml}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(tools: &[(&str, &str)]) -> BackendReport {
        let tools = tools.iter().map(|(name, digest)| ((*name).to_owned(), (*digest).to_owned())).collect();
        BackendReport { tools, ..BackendReport::default() }
    }

    #[test]
    fn an_mcp_server_accepts_the_printed_fragment() {
        let digest = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let printed = fragment(
            "productivity/time",
            "time-0",
            &report(&[("now", digest), ("yes", "12345678901234567890123456789012")]),
        );
        let printed = printed.unwrap();
        assert!(
            printed.starts_with("# The tools of the backend of productivity/time, as pod time-0 offers them."),
            "{printed}"
        );
        let backend = format!("image: x\ntransport: Stdio\ncommand: [x]\n{printed}");
        let backend: mcp_entra_crds::Backend = serde_yaml::from_str(&backend).unwrap();
        let pin = backend.pin.unwrap();
        assert_eq!((pin["now"].as_str(), pin["yes"].as_str()), (digest, "12345678901234567890123456789012"));
    }

    #[test]
    fn an_error_of_a_pin_ends_with_the_next_step() {
        let told = |report: &BackendReport| fragment("a/b", "c", report).unwrap_err().to_string();
        assert!(told(&report(&[])).contains("remove spec.backend.pin"));
        let mut many = report(&[]);
        many.tools = (0..=MOST_PINS).map(|number| (number.to_string(), "0".to_owned())).collect();
        assert!(told(&many).contains("257 tools, but a pin allows 256"));
        assert!(full_name("time").is_err() && full_name("a/b/c").is_err() && full_name("/b").is_err());
        assert_eq!(full_name("a/b"), Ok(("a".to_owned(), "b".to_owned())));
    }
}
