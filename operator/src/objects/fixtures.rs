//! An McpServer and its owner, for tests.

use mcp_entra_crds::McpServer;
use serde_json::json;

use crate::objects::owner::Owner;

pub(crate) fn mk_owner() -> Owner {
    Owner { namespace: "productivity".into(), name: "graph".into(), uid: "uid-1".into() }
}

pub(crate) fn mk_server() -> McpServer {
    serde_json::from_value(json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "McpServer",
        "metadata": {"name": "graph", "namespace": "productivity", "uid": "uid-1", "generation": 2},
        "spec": {
            "entra": {
                "tenantId": "8f6b0000-0000-0000-0000-00000000000a",
                "clientId": "1c2d0000-0000-0000-0000-00000000000b",
            },
            "graph": {"scopes": ["User.Read", "Mail.Read"]},
            "exposure": {
                "host": "graph.mcp.contoso.com",
                "ingress": {"className": "testbed"},
                "tls": {"secretName": "graph-tls"},
            },
        },
    }))
    .unwrap()
}

/// Returns the server with a backend instead of built-in tools.
pub(crate) fn mk_backend_server() -> McpServer {
    let mut server = mk_server();
    server.spec.graph = None;
    let backend = json!({
        "image": "registry.example/mcp/time:1",
        "transport": "Stdio",
        "command": ["python", "-m", "mcp_server_time"],
        "args": ["--local-timezone", "Europe/Stockholm"],
    });
    server.spec.backend = Some(serde_json::from_value(backend).unwrap());
    server.spec.network_policy = Some(serde_json::from_value(json!({"allowFrom": [{"podSelector": {}}]})).unwrap());
    server
}
