//! Tests of both kinds of role mapping.

use mcp_entra_crds::{ClusterMcpRoleMapping, McpRoleMapping};
use serde_json::{Value, json};

use crate::{assert_accepted, assert_refused, many};

fn mk_mapping() -> Value {
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "McpRoleMapping",
        "metadata": {"name": "readers"},
        "spec": {
            "servers": {"names": ["graph"]},
            "grants": [{
                "name": "readers",
                "to": [
                    {"appRole": "Mcp.Reader"},
                    {"group": {"id": "3f0c0000-0000-0000-0000-00000000000c", "displayName": "Sales"}},
                ],
                "allow": {"tools": ["get_user_details", "list_*"]},
            }],
        },
    })
}

#[tokio::test]
async fn a_bad_mapping_is_refused_with_the_field_named() {
    let role = |number: usize| json!({"appRole": format!("Role{number}")});
    let cases = vec![
        ("/spec/unknown", json!(1), ".spec.unknown"),
        ("/spec/servers/names", json!([]), "spec.servers.names"),
        ("/spec/servers/names/-", json!("g".repeat(41)), "spec.servers.names"),
        ("/spec/servers/names/-", json!("graph"), "spec.servers.names"),
        ("/spec/grants", json!([]), "spec.grants"),
        ("/spec/grants/-", mk_mapping()["spec"]["grants"][0].clone(), "readers"),
        ("/spec/grants/0/name", json!("Readers"), "spec.grants[0].name"),
        ("/spec/grants/0/graph", json!("Everything"), "spec.grants[0].graph"),
        ("/spec/grants/0/to", json!([]), "spec.grants[0].to"),
        ("/spec/grants/0/to", many(65, role), "spec.grants[0].to"),
        ("/spec/grants/0/to/-", json!({}), "exactly one of appRole, group and application"),
        (
            "/spec/grants/0/to/-",
            json!({"appRole": "A", "group": {"id": "3f0c0000-0000-0000-0000-00000000000c"}}),
            "exactly one of appRole, group and application",
        ),
        (
            "/spec/grants/0/to/-",
            json!({"appRole": "A", "application": {"clientId": "3f0c0000-0000-0000-0000-00000000000c"}}),
            "exactly one of appRole, group and application",
        ),
        ("/spec/grants/0/to/-", json!({"application": {"clientId": "daemon"}}), "application.clientId"),
        ("/spec/grants/0/to/0/callers", json!([]), "spec.grants[0].to[0].callers"),
        ("/spec/grants/0/to/0/callers", json!(["User", "User"]), ".to[0].callers: duplicate entries"),
        ("/spec/grants/0/to/0/callers", json!(["Daemon"]), "spec.grants[0].to[0].callers"),
        ("/spec/grants/0/to/1/callers", json!(["User"]), "callers is allowed only with appRole"),
        ("/spec/servers", json!({}), "exactly one of names and selector"),
        ("/spec/servers/selector", json!({}), "exactly one of names and selector"),
        ("/spec/servers", json!({"selector": {"matchLabels": {"a": "b c"}}}), "spec.servers.selector.matchLabels"),
        (
            "/spec/servers",
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}),
            "matchExpressions[0].operator",
        ),
        (
            "/spec/servers",
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            "values are required with In and NotIn",
        ),
        (
            "/spec/servers",
            json!({"selector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}),
            "values are required with In and NotIn",
        ),
        ("/spec/servers/clientId", json!("graph"), "spec.servers.clientId"),
        ("/spec/servers/names/-", json!("Graph"), "spec.servers.names"),
        ("/spec/grants/0/require", json!({}), "at least one of scopes and authenticationContext"),
        ("/spec/grants/0/require", json!({"scopes": []}), "at least one of scopes and authenticationContext"),
        ("/spec/grants/0/require", json!({"scopes": ["a b"]}), "spec.grants[0].require.scopes"),
        ("/spec/grants/0/require", json!({"scopes": ["a", "a"]}), ".require.scopes: duplicate entries"),
        ("/spec/grants/0/require", json!({"authenticationContext": "c0"}), "require.authenticationContext"),
        ("/spec/grants/0/require", json!({"authenticationContext": "c100"}), "require.authenticationContext"),
        ("/spec/grants/0/allow", json!({}), "at least one of tools, prompts and resources"),
        (
            "/spec/grants/0/allow",
            json!({"prompts": [], "resources": []}),
            "at least one of tools, prompts and resources",
        ),
        ("/spec/grants/0/allow/prompts", json!(["*_x"]), "spec.grants[0].allow.prompts"),
        ("/spec/grants/0/allow/resources", json!(["file://*/x"]), "spec.grants[0].allow.resources"),
        ("/spec/deny", json!([{"name": "a", "tools": ["*"]}]), "deny"),
        ("/spec/namespaceSelector", json!({}), "namespaceSelector"),
        ("/spec/grants/0/to/-", json!({"appRole": "Mcp Reader"}), "spec.grants[0].to[2].appRole"),
        ("/spec/grants/0/to/-", json!({"appRole": ""}), "spec.grants[0].to[2].appRole"),
        ("/spec/grants/0/to/-", json!({"user": "alice@contoso.com"}), "user"),
        ("/spec/grants/0/to/1/group/id", json!("Sales"), "spec.grants[0].to[1].group.id"),
        (
            "/spec/grants/0/to/1/group/id",
            json!("3F0C0000-0000-0000-0000-00000000000C"),
            "spec.grants[0].to[1].group.id",
        ),
        ("/spec/grants/0/allow", json!(null), "spec.grants[0].allow"),
        ("/spec/grants/0/allow/tools", json!([]), "at least one of tools, prompts and resources"),
        ("/spec/grants/0/allow/tools/-", json!("*_details"), "spec.grants[0].allow.tools"),
        ("/spec/grants/0/deny", json!({"tools": ["*"]}), "deny"),
    ];
    assert_refused::<McpRoleMapping>(mk_mapping, cases).await;
}

#[tokio::test]
async fn the_neighbours_of_bad_mappings_are_accepted() {
    let role = |number: usize| json!({"appRole": format!("Role{number}")});
    let cases = vec![
        ("/spec/servers/names/-", json!("g".repeat(40))),
        ("/spec/grants/0/to", many(64, role)),
        ("/spec/grants/0/to/-", json!({"appRole": "Müller/ä"})),
        ("/spec/grants/0/to/1/group/displayName", json!(null)),
        ("/spec/grants/0/to/-", json!({"application": {"clientId": "3f0c0000-0000-0000-0000-00000000000c"}})),
        ("/spec/grants/0/to/0/callers", json!(["User", "Application"])),
        ("/spec/servers", json!({"selector": {}})),
        ("/spec/servers", json!({"selector": {"matchLabels": {"mcp-entra.dev/team": "a"}}})),
        (
            "/spec/servers",
            json!({"selector": {"matchExpressions": [
                {"key": "a", "operator": "In", "values": ["b", ""]}, {"key": "c", "operator": "DoesNotExist"},
            ]}}),
        ),
        ("/spec/servers/clientId", json!("3f0c0000-0000-0000-0000-00000000000c")),
        ("/spec/grants/0/require", json!({"scopes": ["mail.read"], "authenticationContext": "c99"})),
        ("/spec/grants/0/require", json!({"authenticationContext": "c1"})),
        ("/spec/grants/0/allow", json!({"tools": [], "prompts": ["greet*"], "resources": ["file:///a/*", "*"]})),
        ("/spec/grants/0/allow/tools", json!(["*"])),
        (
            "/spec/grants",
            many(64, |number| {
                let mut grant = mk_mapping()["spec"]["grants"][0].clone();
                grant["name"] = json!(format!("grant-{number}"));
                grant
            }),
        ),
    ];
    assert_accepted::<McpRoleMapping>(mk_mapping, cases).await;
}

fn mk_cluster_mapping() -> Value {
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "ClusterMcpRoleMapping",
        "metadata": {"name": "guardrails"},
        "spec": {
            "namespaceSelector": {"matchLabels": {"stage": "production"}},
            "servers": {"selector": {}},
            "grants": mk_mapping()["spec"]["grants"].clone(),
            "deny": [{"name": "no-guests", "to": [{"appRole": "Guest"}], "tools": ["send_*"]}],
        },
    })
}

#[tokio::test]
async fn a_bad_cluster_mapping_is_refused_with_the_field_named() {
    let cases = vec![
        ("/spec/namespaceSelector", json!(null), "spec.namespaceSelector"),
        ("/spec/namespaceSelector/matchLabel", json!({}), "matchLabel"),
        ("/spec/namespaceSelector/matchLabels/a", json!("b c"), "spec.namespaceSelector.matchLabels"),
        ("/spec/servers", json!({}), "exactly one of names and selector"),
        ("/spec/grants/0/name", json!("Readers"), "spec.grants[0].name"),
        ("/spec/deny/-", mk_cluster_mapping()["spec"]["deny"][0].clone(), "no-guests"),
        ("/spec/deny/0/name", json!("No guests"), "spec.deny[0].name"),
        ("/spec/deny/0/to", json!([]), "spec.deny[0].to"),
        ("/spec/deny/0/to/0", json!({}), "exactly one of appRole, group and application"),
        ("/spec/deny/0/tools", json!([]), "at least one of tools, prompts and resources"),
        ("/spec/deny/0/tools", json!(null), "at least one of tools, prompts and resources"),
        ("/spec/deny/0/tools", json!(["*_mail"]), "spec.deny[0].tools"),
        ("/spec/deny/0/require", json!({"scopes": ["a"]}), "require"),
        (
            "/spec",
            json!({"namespaceSelector": {}, "servers": {"selector": {}}, "grants": []}),
            "at least one of grants and deny",
        ),
    ];
    assert_refused::<ClusterMcpRoleMapping>(mk_cluster_mapping, cases).await;
}

#[tokio::test]
async fn the_neighbours_of_bad_cluster_mappings_are_accepted() {
    let cases = vec![
        ("/spec/namespaceSelector", json!({})),
        ("/spec/servers", json!({"names": ["graph"]})),
        ("/spec/grants", json!(null)),
        ("/spec/deny", json!(null)),
        ("/spec/deny/0/to", json!(null)),
        ("/spec/deny/0/tools", json!(["*"])),
        ("/spec/deny/0", json!({"name": "no-files", "resources": ["file://*"], "prompts": ["*"]})),
    ];
    assert_accepted::<ClusterMcpRoleMapping>(mk_cluster_mapping, cases).await;
}
