//! Refuses to start if no host is allowed but hosts are in use. An upgrade that forgets the list fails with a message,
//! and all servers stay reachable.

use std::collections::BTreeSet;

use kube::ResourceExt;
use mcp_entra_crds::McpServer;

use crate::runtime::options::Options;

/// McpServers are exposed, but the operator allows no host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "McpServers are exposed, but no host is allowed: {}. Nothing was changed. Allow these hosts with the chart's value allowedHosts: {list} (--allowed-host, repeatable), or remove spec.exposure from these servers; \"*\" allows every host",
    servers.join(", ")
)]
pub struct NoHostAllowed {
    /// Each server as `host (namespace/name)`.
    servers: Vec<String>,
    /// The hosts as a JSON list, which is also YAML.
    list: String,
}

/// Fails if the operator allows no host, but the status of a server has a URL. Only the operator writes statuses, and
/// without an allowed host it writes no URL. Such a server was exposed by an operator with other options.
pub(crate) fn check<'a>(
    options: &Options,
    servers: impl IntoIterator<Item = &'a McpServer>,
) -> Result<(), NoHostAllowed> {
    if !options.allowed_hosts.is_empty() {
        return Ok(());
    }
    let (mut hosts, mut exposed) = (BTreeSet::new(), BTreeSet::new());
    for server in servers {
        let is_exposed = server.status.as_ref().is_some_and(|status| status.url.is_some());
        if let Some(exposure) = server.spec.exposure.as_ref().filter(|_| is_exposed) {
            hosts.insert(exposure.host.as_str());
            let namespace = server.namespace().unwrap_or_default();
            exposed.insert(format!("{} ({namespace}/{})", exposure.host, server.name_any()));
        }
    }
    match exposed.is_empty() {
        true => Ok(()),
        false => {
            Err(NoHostAllowed { servers: exposed.into_iter().collect(), list: serde_json::json!(hosts).to_string() })
        }
    }
}

#[cfg(test)]
mod tests {
    use mcp_entra_crds::McpServerStatus;

    use super::*;
    use crate::{mcpserver::validate::tests::mk_options, objects::fixtures::mk_server};

    #[test]
    fn an_operator_that_allows_no_host_does_not_start_over_exposed_servers_and_names_their_hosts() {
        let closed = Options { allowed_hosts: Vec::new(), ..mk_options() };
        let named = mk_server();
        check(&closed, [&named]).expect("a host that is only requested is not in use");
        let url = Some("https://graph.mcp.contoso.com/mcp".to_owned());
        let exposed = McpServer { status: Some(McpServerStatus { url, ..Default::default() }), ..named };
        let error = check(&closed, [&exposed]).unwrap_err().to_string();
        assert!(error.contains("graph.mcp.contoso.com (productivity/graph)"), "{error}");
        assert!(error.contains(r#"allowedHosts: ["graph.mcp.contoso.com"]"#), "{error}");
        check(&Options { allowed_hosts: vec!["other.example".into()], ..closed }, [&exposed]).unwrap();
    }
}
