//! Tests of cluster mappings: their namespaces for denies and grants, and their status.

use kube::ResourceExt;
use mcp_entra_crds::McpServer;
use mcp_entra_policy::CompiledPolicy;
use serde_json::{Value, json};

use crate::harness::{OPERATOR, Space, find, mk_mapping, mk_server, until};

/// Label in the selectors of cluster mappings. Each test uses its own value.
const STAGE: &str = "stage";

/// Returns a cluster mapping that denies reading mail on every server in the namespaces of this stage.
fn mk_guardrails(name: &str, stage: &str) -> Value {
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "ClusterMcpRoleMapping",
        "metadata": {"name": name},
        "spec": {
            "namespaceSelector": {"matchLabels": {STAGE: stage}},
            "servers": {"selector": {}},
            "deny": [{"name": "no-mail", "tools": ["list_my_messages"]}],
        },
    })
}

/// Creates a namespace of this stage with a server and a mapping that grants a tool, and waits for its policy.
async fn mk_space(stage: &str) -> Space {
    let space = Space::new().await;
    space.label(STAGE, Some(stage)).await;
    space.apply(mk_server()).await;
    space.apply(mk_mapping("readers", "Mcp.Reader")).await;
    until("the role may", async || space.policy().await.contains("Mcp.Reader")).await;
    space
}

/// Returns the names of the denies in the policy.
async fn denies(space: &Space) -> Vec<String> {
    let policy = CompiledPolicy::parse(space.policy().await.as_bytes()).unwrap();
    policy.denies.iter().map(|deny| format!("{}/{}", deny.mapping, deny.name)).collect()
}

async fn until_denied(space: &Space, by: &str) {
    until(&format!("{by} denies in {}", space.name), async || denies(space).await == [by]).await;
}

async fn until_free(space: &Space) {
    until(&format!("nothing denies in {}", space.name), async || denies(space).await.is_empty()).await;
}

#[tokio::test]
async fn a_cluster_deny_applies_exactly_where_its_selector_matches_until_its_deletion() {
    let (production, test) = (mk_space("bites").await, mk_space("spares").await);
    production.apply_to_cluster(&mk_guardrails("bites", "bites")).await;
    until_denied(&production, "bites/no-mail").await;
    assert_eq!(denies(&test).await, [""; 0]);
    assert!(production.policy().await.contains("Mcp.Reader"), "grants apply beside denies");

    production.cluster_mappings().delete("bites", &Default::default()).await.unwrap();
    until_free(&production).await;
}

#[tokio::test]
async fn a_changed_label_of_a_namespace_changes_a_cluster_deny_and_its_status() {
    let (one, other) = (mk_space("moves").await, mk_space("elsewhere").await);
    one.apply_to_cluster(&mk_guardrails("moves", "moves")).await;
    until_denied(&one, "moves/no-mail").await;
    until_bound("moves", &one, &[format!("{}/graph", one.name)]).await;

    one.label(STAGE, None).await;
    until_free(&one).await;
    other.label(STAGE, Some("moves")).await;
    until_denied(&other, "moves/no-mail").await;
    until_bound("moves", &other, &[format!("{}/graph", other.name)]).await;
    one.cluster_mappings().delete("moves", &Default::default()).await.unwrap();
}

async fn until_bound(name: &str, space: &Space, servers: &[String]) {
    until(&format!("{name} reports that it binds {servers:?}"), async || {
        let status = space.cluster_mappings().get(name).await.unwrap().status.unwrap_or_default();
        status.server_names == servers && status.servers == i32::try_from(servers.len()).unwrap()
    })
    .await;
}

#[tokio::test]
async fn a_cluster_mapping_grants_too_and_its_denies_follow_a_change() {
    let space = mk_space("grants").await;
    let mut mapping = mk_guardrails("grants", "grants");
    mapping["spec"]["grants"] = mk_mapping("x", "Mcp.Admin")["spec"]["grants"].clone();
    space.apply_to_cluster(&mapping).await;
    until("the cluster mapping grants", async || space.policy().await.contains("Mcp.Admin")).await;
    mapping["spec"].as_object_mut().unwrap().remove("deny");
    space.apply_to_cluster(&mapping).await;
    until_free(&space).await;
    assert!(space.policy().await.contains("Mcp.Admin"));
    space.cluster_mappings().delete("grants", &Default::default()).await.unwrap();
}

#[tokio::test]
async fn a_change_is_written_to_the_status_once_for_any_number_of_servers_and_ten_are_named() {
    let space = Space::new().await;
    space.label(STAGE, Some("many")).await;
    for number in 0..12 {
        let mut server = mk_server();
        server["metadata"]["name"] = json!(format!("graph-{number:02}"));
        space.apply(server).await;
    }
    until("every server has a policy", async || {
        let servers = space.api::<McpServer>().list(&Default::default()).await.unwrap().items;
        servers.iter().filter(|server| server.status.as_ref().is_some_and(|status| status.policy.is_some())).count()
            == 12
    })
    .await;
    let writes = async |mark| {
        let mut writes = space.cluster.plane.audit().writes(mark, OPERATOR).await.unwrap();
        writes.retain(|write| write.resource == "clustermcprolemappings" && write.name.as_deref() == Some("many"));
        writes.len()
    };
    let mark = space.mark();
    let mut mapping = mk_guardrails("many", "many");
    mapping["spec"]["deny"][0]["tools"] = json!(["list_my_messages", "lsit_*"]);
    space.apply_to_cluster(&mapping).await;
    let programmed = async |generation: i64| {
        until("the mapping is programmed", async || {
            let status = space.cluster_mappings().get("many").await.unwrap().status.unwrap_or_default();
            status.observed_generation == Some(generation)
                && find(&status.conditions, "Programmed").is_some_and(|found| found.status == "True")
        })
        .await;
    };
    programmed(1).await;
    assert_eq!(writes(mark).await, 1);
    let status = space.cluster_mappings().get("many").await.unwrap().status.unwrap();
    assert_eq!((status.servers, status.server_names.len()), (12, 10));
    assert_eq!(status.server_names[0], format!("{}/graph-00", space.name));
    assert_eq!((status.unmatched, status.unmatched_names), (1, vec!["lsit_*".to_owned()]));

    let mark = space.mark();
    mapping["spec"]["deny"][0]["tools"] = json!(["*"]);
    space.apply_to_cluster(&mapping).await;
    programmed(2).await;
    assert_eq!(writes(mark).await, 1);
    space.cluster_mappings().delete("many", &Default::default()).await.unwrap();
}

#[tokio::test]
async fn a_cluster_mapping_without_a_server_reports_it() {
    let space = Space::new().await;
    space.apply_to_cluster(&mk_guardrails("nowhere", "nowhere")).await;
    until("the mapping reports that it binds nothing", async || {
        let mapping = space.cluster_mappings().get("nowhere").await.unwrap();
        assert!(mapping.namespace().is_none());
        let conditions = mapping.status.unwrap_or_default().conditions;
        find(&conditions, "Programmed").is_some_and(|found| found.reason == "NoServers")
    })
    .await;
    space.cluster_mappings().delete("nowhere", &Default::default()).await.unwrap();
}

#[tokio::test]
async fn the_program_previews_the_allowed_tools_of_callers_in_a_cluster() {
    let space = mk_space("previews").await;
    let mut mapping = mk_guardrails("previews", "previews");
    mapping["spec"]["deny"][0] = json!({"name": "no-guests", "to": [{"appRole": "Guest"}], "tools": ["*"]});
    space.apply_to_cluster(&mapping).await;
    let preview = async |more: &[&str]| {
        let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_mcp-entra-operator"));
        program.args(["preview", "--namespace", &space.name, "--server", "graph", "--role", "Mcp.Reader"]).args(more);
        let output = program.env("KUBECONFIG", space.cluster.plane.kubeconfig()).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = preview(&[]).await;
    let granted = format!("get_user_details    allowed   grant all of {}/readers", space.name);
    assert!(
        table.contains(&granted) && table.contains("list_my_messages    refused   no mapping grants it"),
        "{table}"
    );
    let table = preview(&["--role", "Guest"]).await;
    assert!(table.contains("get_user_details    refused   deny no-guests of previews"), "{table}");
    space.cluster_mappings().delete("previews", &Default::default()).await.unwrap();
}
