//! Tests of `preview` from its arguments to its table.

use clap::Parser;

use super::*;
use crate::policy::offered::Offered;

const MANIFESTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: productivity, labels: {stage: production}}
---
apiVersion: mcp-entra.dev/v1alpha1
kind: McpServer
metadata: {name: graph, namespace: productivity}
spec:
  entra: {tenantId: 8f6b0000-0000-0000-0000-00000000000a, clientId: 1c2d0000-0000-0000-0000-00000000000b}
  graph: {scopes: [User.Read, Mail.Read]}
---
kind: List
apiVersion: v1
items:
- apiVersion: mcp-entra.dev/v1alpha1
  kind: McpRoleMapping
  metadata: {name: readers, namespace: productivity}
  spec:
    servers: {names: [graph]}
    grants:
    - {name: profile, to: [{appRole: Mcp.Reader}, {application: {clientId: 77aa0000-0000-0000-0000-000000000001}}], allow: {tools: [get_user_details], prompts: ['introduce_*'], resources: ['graph://me/profile']}}
    - {name: mail, to: [{group: {id: 3f0c0000-0000-0000-0000-000000000001, displayName: Sales}}], allow: {tools: [list_*]}, require: {scopes: [mail.read], authenticationContext: c1}}
---
apiVersion: mcp-entra.dev/v1alpha1
kind: ClusterMcpRoleMapping
metadata: {name: guardrails}
spec:
  namespaceSelector: {matchLabels: {stage: production}}
  servers: {selector: {}}
  deny:
  - {name: no-guests, to: [{appRole: Guest}], tools: ['*']}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: unrelated}
";

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    options: PreviewOptions,
}

async fn previewed(manifests: &str, arguments: &str) -> Result<String, PreviewError> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("manifests.yaml");
    std::fs::write(&file, manifests).unwrap();
    let line = format!("preview --namespace productivity --file {} {arguments}", file.display());
    preview(&Program::parse_from(line.split_whitespace()).options).await
}

async fn told(arguments: &str) -> String {
    previewed(MANIFESTS, &format!("--server graph {arguments}")).await.unwrap()
}

#[tokio::test]
async fn each_tool_prompt_and_resource_is_shown_with_its_grant_or_its_missing_requirement() {
    let table = told("--role Mcp.Reader").await;
    let expected = "\
TOOL                DECISION  BY
get_user_details    allowed   grant profile of productivity/readers
list_my_messages    refused   needs the group Sales
PROMPT              DECISION  BY
introduce_me        allowed   grant profile of productivity/readers
summarize_inbox     refused   no mapping grants it
RESOURCE            DECISION  BY
graph://me/profile  allowed   grant profile of productivity/readers
";
    assert_eq!(table, expected);
    let nobody = told("").await;
    assert!(nobody.contains("get_user_details    refused   needs the app role Mcp.Reader\n"), "{nobody}");
}

#[tokio::test]
async fn without_an_answer_of_the_backend_the_names_from_mappings_are_shown() {
    let backend = "backend: {image: x, transport: Stdio, command: [x]}";
    let manifests = MANIFESTS.replace("graph: {scopes: [User.Read, Mail.Read]}", backend);
    let table = previewed(&manifests, "--server graph --role Mcp.Reader").await.unwrap();
    let expected = "\
TOOL                DECISION  BY
get_user_details    allowed   grant profile of productivity/readers
RESOURCE            DECISION  BY
graph://me/profile  allowed   grant profile of productivity/readers
note: only names from mappings are shown, because no backend is asked offline
";
    assert_eq!(table, expected);
}

#[test]
fn the_tools_of_a_backend_come_from_its_answer_and_notes_name_hidden_ones_or_why_it_was_not_asked() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("manifests.yaml");
    let backend = "backend: {image: x, transport: Stdio, command: [x]}";
    std::fs::write(&file, MANIFESTS.replace("graph: {scopes: [User.Read, Mail.Read]}", backend)).unwrap();
    let options = Program::parse_from(["preview", "--server", "graph", "--role", "Mcp.Reader"]).options;
    let told = |answer: Result<Offered, String>, hidden: &[&str]| {
        let mut known = from_files(std::slice::from_ref(&file), "productivity").unwrap();
        known.backend = Some(answer);
        known.hidden = hidden.iter().map(|name| (*name).to_owned()).collect();
        table("productivity", &options, &known).unwrap()
    };
    let tools = ["add", "get_user_details"].map(str::to_owned).into();
    let offered = Offered { tools, is_pinned: true, ..Offered::default() };
    let expected = "\
TOOL              DECISION  BY
add               refused   no mapping grants it
get_user_details  allowed   grant profile of productivity/readers
note: not offered, because they differ from spec.backend.pin: sub
";
    assert_eq!(told(Ok(offered), &["sub"]), expected);
    let failed = told(Err("no pod of productivity/graph is ready".to_owned()), &[]);
    assert!(failed.starts_with("TOOL                DECISION  BY\nget_user_details    allowed "), "{failed}");
    let note = "note: only names from mappings are shown, because no pod of productivity/graph is ready\n";
    assert!(failed.ends_with(note), "{failed}");
}

#[tokio::test]
async fn requirements_of_a_grant_are_shown_until_the_caller_meets_them() {
    let sales = "--group 3F0C0000-0000-0000-0000-000000000001";
    let mail = async |more: &str| {
        let table = told(&format!("{sales} {more}")).await;
        table.lines().find(|line| line.starts_with("list_my_messages")).unwrap().to_owned()
    };
    assert!(mail("").await.ends_with("refused   needs the scopes mail.read (grant mail of productivity/readers)"));
    assert!(mail("--scope mail.read").await.contains("needs the authentication context c1"));
    let all = mail("--scope mail.read --authentication-context c1").await;
    assert!(all.ends_with("allowed   grant mail of productivity/readers"), "{all}");
}

#[tokio::test]
async fn a_deny_of_a_cluster_mapping_is_named() {
    let table = told("--role Mcp.Reader --role Guest").await;
    assert_eq!(table.matches("refused   deny no-guests of guardrails").count(), 2, "{table}");
    assert!(table.contains("introduce_me        allowed"), "only tools are denied: {table}");
    let prompts_too = MANIFESTS.replace("tools: ['*']}", "tools: ['*'], prompts: ['*'], resources: ['graph://*']}");
    let table = previewed(&prompts_too, "--server graph --role Mcp.Reader --role Guest").await.unwrap();
    assert_eq!(table.matches("refused   deny no-guests of guardrails").count(), 5, "{table}");
    let elsewhere = MANIFESTS.replace("{stage: production}}\n---", "{stage: test}}\n---");
    let table = previewed(&elsewhere, "--server graph --role Mcp.Reader --role Guest").await.unwrap();
    assert!(table.contains("get_user_details    allowed"), "{table}");
}

#[tokio::test]
async fn an_application_gets_only_its_own_grants() {
    let table = told("--application 77aa0000-0000-0000-0000-000000000001").await;
    assert!(table.contains("get_user_details  allowed   grant profile of productivity/readers"), "{table}");
    assert!(table.contains("list_my_messages  refused   no mapping grants it"), "{table}");
    assert!(!table.contains("PROMPT") && !table.contains("RESOURCE"), "it has no mailbox and no profile: {table}");
    let table = told("--application 77aa0000-0000-0000-0000-000000000002 --role Mcp.Reader").await;
    assert!(!table.contains("allowed"), "{table}");
}

#[tokio::test]
async fn without_the_namespace_cluster_denies_count_and_a_note_says_so() {
    let without = MANIFESTS.replace("kind: Namespace", "kind: Ignored");
    let table = previewed(&without, "--server graph --role Mcp.Reader --role Guest").await.unwrap();
    assert!(table.contains("deny no-guests of guardrails") && table.contains("note: the labels"), "{table}");
}

#[tokio::test]
async fn an_error_of_a_preview_names_the_cause() {
    let error = previewed(MANIFESTS, "--server grpah").await.unwrap_err().to_string();
    assert_eq!(error, "there is no McpServer productivity/grpah; existing McpServers: productivity/graph");
    let broken = MANIFESTS.replace("namespaceSelector", "namespaceSelecter");
    let error = previewed(&broken, "--server graph").await.unwrap_err().to_string();
    assert!(error.contains("ClusterMcpRoleMapping guardrails") && error.contains("namespaceSelector"), "{error}");
    let missing = "preview --server graph --file /does/not/exist".split(' ');
    let error = preview(&Program::parse_from(missing).options).await.unwrap_err().to_string();
    assert!(error.starts_with("/does/not/exist: "), "{error}");
}

#[tokio::test]
async fn only_a_server_with_an_authorization_server_shows_a_redirect_uri() {
    let signs_in = "  exposure: {host: graph.example, ingress: {}, tls: {secretName: tls}}
  authorizationServer: {sessionStore: {memory: {}}}
---
kind: List";
    let manifests = MANIFESTS.replace("---\nkind: List", signs_in);
    let told_of = previewed(&manifests, "--server graph").await.unwrap();
    assert!(told_of.contains("redirect URI https://graph.example/mcp/callback of the platform Web"), "{told_of}");
    assert!(!told("").await.contains("redirect URI"));
}
