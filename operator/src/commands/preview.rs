//! `preview`: the tools, prompts and resources that a caller gets of a server, and what grants or denies each. From the cluster or, offline, from
//! manifests; decided by the function that the server decides by.

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use clap::Args;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config, Resource, ResourceExt, core::DeserializeGuard};
use mcp_entra_crds::{ClusterMcpRoleMapping, McpRoleMapping, McpServer};
use mcp_entra_policy::{
    Caller, CallerKind, Decision, GraphAccess, Groups, Operation, Pattern, Refusal, Registration, Ways, operations_over,
};
use uuid::Uuid;

use crate::{
    commands::{
        asked_backend::ask,
        manifests::{ManifestError, Manifests},
    },
    conditions::condition::named,
    mcpserver::validate::{callback, not_offered, offered},
    policy::{
        binding::{Labels, Mapping, Target},
        compile::{Compiled, compile},
        offered::Offered,
    },
};

/// The longest time that the cluster is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// The caller, and the server that is called.
#[derive(Args, Clone, Debug)]
pub struct PreviewOptions {
    /// The McpServer.
    #[arg(long)]
    pub server: String,
    /// Its namespace. Without it, that of the kubeconfig's context; offline, `default`.
    #[arg(long, short)]
    pub namespace: Option<String>,
    /// An app role that the caller has; repeatable.
    #[arg(long = "role", value_name = "ROLE")]
    pub roles: Vec<String>,
    /// Object id of a group that the caller is in; repeatable.
    #[arg(long = "group", value_name = "OBJECT_ID")]
    pub groups: Vec<Uuid>,
    /// A scope of the caller's token besides the server's required scopes; repeatable.
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// An authentication context of Conditional Access that the sign-in satisfied, as c1; repeatable.
    #[arg(long = "authentication-context", value_name = "CONTEXT")]
    pub authentication_contexts: Vec<String>,
    /// The caller is this application by itself, not a person.
    #[arg(long, value_name = "CLIENT_ID", conflicts_with_all = ["groups", "scopes", "authentication_contexts"])]
    pub application: Option<Uuid>,
    /// Read these manifests (YAML; `-` for standard input) and no cluster; repeatable. They must hold the McpServer,
    /// the mappings of both kinds, and the Namespace if cluster mappings choose by its labels.
    #[arg(long = "file", short, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// The reason why there is nothing to preview.
#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    /// The manifests cannot be used.
    #[error(transparent)]
    Manifests(#[from] ManifestError),
    /// No cluster is configured.
    #[error("there is no cluster to ask ({0}); set KUBECONFIG, or name manifests with --file")]
    Config(String),
    /// The cluster does not answer, or not this.
    #[error(
        "{action}: {source}; without it the preview would be wrong: ask for the right, or name manifests with --file"
    )]
    Kubernetes {
        /// The action that failed.
        action: String,
        /// The cause.
        source: Box<kube::Error>,
    },
    /// The cluster does not answer in time.
    #[error("the cluster did not answer within {} s; check the network, or name manifests with --file", PATIENCE.as_secs())]
    Deadline,
    /// The policy cannot be written as JSON.
    #[error("the policy cannot be compiled ({0}); report this as a defect")]
    Json(#[from] serde_json::Error),
    /// There is no such server.
    #[error("there is no McpServer {namespace}/{name}; there are: {found}")]
    NoServer {
        /// The namespace.
        namespace: String,
        /// The name.
        name: String,
        /// Those that there are.
        found: String,
    },
}

/// The facts that decisions about a server follow from.
#[derive(Default)]
struct Known {
    servers: Vec<McpServer>,
    mappings: Vec<McpRoleMapping>,
    cluster_mappings: Vec<ClusterMcpRoleMapping>,
    namespace_labels: Option<Labels>,
    /// Mappings that cannot be read.
    unreadable: Vec<String>,
    /// The names that the server's backend offers, or why they are not known.
    backend: Option<Result<Offered, String>>,
    /// Tools of it that are hidden, since they are not as the pin has them.
    hidden: Vec<String>,
}

/// The table, ready to be printed.
///
/// # Errors
/// If the server or what decides about it cannot be read.
pub async fn preview(options: &PreviewOptions) -> Result<String, PreviewError> {
    let (namespace, known) = if options.files.is_empty() {
        tokio::time::timeout(PATIENCE, from_cluster(options)).await.map_err(|_| PreviewError::Deadline)??
    } else {
        let namespace = options.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let known = from_files(&options.files, &namespace)?;
        (namespace, known)
    };
    table(&namespace, options, &known)
}

async fn from_cluster(options: &PreviewOptions) -> Result<(String, Known), PreviewError> {
    let config = Config::infer().await.map_err(|error| PreviewError::Config(error.to_string()))?;
    let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| PreviewError::Config(error.to_string()))?;
    let failed = |action: String| move |source| PreviewError::Kubernetes { action, source: Box::new(source) };
    let servers = Api::<McpServer>::namespaced(client.clone(), &namespace).list(&Default::default()).await;
    let mut known = Known {
        servers: servers.map_err(failed(format!("listing the McpServers of {namespace}")))?.items,
        ..Known::default()
    };
    let backend = known.servers.iter().find(|server| server.name_any() == options.server);
    if let Some(backend) = backend.and_then(|server| server.spec.backend.as_ref()) {
        let asked = ask(&client, &namespace, &options.server).await;
        let report = asked.map_err(|error| error.to_string()).map(|(_, report)| report);
        known.hidden = report.iter().flat_map(|report| report.hidden.iter().cloned()).collect();
        known.backend = Some(report.map(|report| Offered {
            tools: report.tools.into_keys().filter(|name| !report.hidden.contains(name)).collect(),
            prompts: report.prompts,
            resources: report.resources,
            is_pinned: backend.pin.is_some(),
        }));
    }
    let mappings: Api<DeserializeGuard<McpRoleMapping>> = Api::namespaced(client.clone(), &namespace);
    let mappings = mappings.list(&Default::default()).await;
    let mappings = mappings.map_err(failed(format!("listing the McpRoleMappings of {namespace}")))?;
    known.mappings = readable(mappings.items, &mut known.unreadable);
    let mappings: Api<DeserializeGuard<ClusterMcpRoleMapping>> = Api::all(client.clone());
    let mappings = mappings.list(&Default::default()).await;
    let mappings = mappings.map_err(failed("listing the ClusterMcpRoleMappings".to_owned()))?;
    known.cluster_mappings = readable(mappings.items, &mut known.unreadable);
    if !known.cluster_mappings.is_empty() {
        let read = Api::<Namespace>::all(client).get_metadata(&namespace).await;
        let read = read.map_err(failed(format!("reading the labels of namespace {namespace}")))?;
        known.namespace_labels = Some(read.labels().clone());
    }
    Ok((namespace, known))
}

fn readable<K: Resource<DynamicType = ()>>(found: Vec<DeserializeGuard<K>>, unreadable: &mut Vec<String>) -> Vec<K> {
    let mut read = |found: DeserializeGuard<K>| {
        let name = format!("{} {}", K::kind(&()), found.name_any());
        found.0.inspect_err(|_| unreadable.push(name)).ok()
    };
    found.into_iter().filter_map(&mut read).collect()
}

fn from_files(files: &[PathBuf], namespace: &str) -> Result<Known, ManifestError> {
    let manifests = Manifests::read(files)?;
    Ok(Known {
        servers: manifests.of(namespace)?,
        mappings: manifests.of(namespace)?,
        cluster_mappings: manifests.all()?,
        namespace_labels: manifests.labels_of(namespace)?,
        ..Known::default()
    })
}

fn table(namespace: &str, options: &PreviewOptions, known: &Known) -> Result<String, PreviewError> {
    let full_name = |server: &McpServer| format!("{}/{}", server.namespace().unwrap_or_default(), server.name_any());
    let wanted = format!("{namespace}/{}", options.server);
    let Some(server) = known.servers.iter().find(|server| full_name(server) == wanted) else {
        let found: Vec<String> = known.servers.iter().map(full_name).collect();
        let found = if found.is_empty() { "none".to_owned() } else { named(&found) };
        return Err(PreviewError::NoServer { namespace: namespace.to_owned(), name: options.server.clone(), found });
    };
    let labels = known.namespace_labels.as_ref();
    let mappings = known.mappings.iter().map(Mapping::from);
    let all = mappings.chain(known.cluster_mappings.iter().map(Mapping::from));
    let compiled = compile(&Target::of(server, labels), all)?;

    let caller = caller(options, server);
    let mut rows = Vec::new();
    let mut kind = "";
    let of_backend = of_backend(server, known, &compiled);
    let offered = of_backend.as_ref().map(|offered| offered.operations().collect());
    for operation in offered.unwrap_or_else(|| operations(server, caller.kind)) {
        let next = kind_of(operation);
        if next != kind {
            rows.push([next, "DECISION", "BY"].map(str::to_owned));
            kind = next;
        }
        let (decision, by) = match compiled.policy.decide(&caller, operation) {
            Decision::Allowed { mapping, grant, graph } => {
                ("allowed", format!("grant {grant} of {mapping}{}", as_whom(graph)))
            }
            Decision::Refused(refusal) => ("refused", why(&refusal)),
        };
        rows.push([operation.name().to_owned(), decision.to_owned(), by]);
    }
    let mut text = Table(rows).to_string();
    let mut note = |note: String| text.push_str(&format!("note: {note}\n"));
    if labels.is_none() && !known.cluster_mappings.is_empty() {
        note(format!(
            "the labels of namespace {namespace} are not known, so cluster mappings that choose by labels deny and do not grant; add the Namespace to the files"
        ));
    }
    if let Some(redirect_uri) = server.spec.authorization_server.as_ref().and(callback(server.spec.exposure.as_ref())) {
        note(format!(
            "people sign in by the server itself, too; its app registration must have the redirect URI {redirect_uri} of the platform Web"
        ));
    }
    let not_offered = Vec::from_iter(server.spec.graph.iter().flat_map(not_offered));
    if !not_offered.is_empty() {
        note(format!("not offered, since spec.graph.scopes lacks the permission: {}", named(&not_offered)));
    }
    match (&server.spec.backend, &known.backend) {
        (Some(_), Some(Err(error))) => note(format!("only names that mappings name are shown, since {error}")),
        (Some(_), None) => note("only names that mappings name are shown: offline, no backend is asked".to_owned()),
        _ => {}
    }
    if !known.hidden.is_empty() {
        note(format!("not offered, since they are not as spec.backend.pin has them: {}", named(&known.hidden)));
    }
    if !compiled.left_out.is_empty() {
        note(format!("the policy is too large, so these mappings grant nothing: {}", named(&compiled.left_out)));
    }
    if !known.unreadable.is_empty() {
        note(format!("these cannot be read and are left out: {}", named(&known.unreadable)));
    }
    Ok(text)
}

/// The names of the server's backend, if it has one: as a pod told them, or else as far as mappings name them.
fn of_backend(server: &McpServer, known: &Known, compiled: &Compiled) -> Option<Offered> {
    let backend = server.spec.backend.as_ref()?;
    if let Some(Ok(offered)) = &known.backend {
        return Some(offered.clone());
    }
    let exact = |patterns: &[Pattern]| {
        let names = patterns.iter().map(|pattern| pattern.0.clone());
        Vec::from_iter(names.filter(|name| !name.ends_with('*')))
    };
    let granted = || compiled.policy.grants.iter().map(|grant| &grant.allow);
    Some(Offered {
        tools: granted().flat_map(|allow| exact(&allow.tools)).collect(),
        prompts: granted().flat_map(|allow| exact(&allow.prompts)).collect(),
        resources: granted().flat_map(|allow| exact(&allow.resources)).collect(),
        is_pinned: backend.pin.is_some(),
    })
}

/// Everything that the server offers to callers of this kind, by kind and name: prompts and resources to users alone.
fn operations(server: &McpServer, caller: CallerKind) -> Vec<Operation<'static>> {
    let mut operations = operations_over(&Vec::from_iter(server.spec.graph.iter().flat_map(offered)));
    if caller == CallerKind::Application {
        operations.retain(|operation| matches!(operation, Operation::Tool { .. }));
    }
    operations
}

fn kind_of(operation: Operation<'_>) -> &'static str {
    match operation {
        Operation::Tool { .. } => "TOOL",
        Operation::Prompt(_) => "PROMPT",
        Operation::Resource(_) => "RESOURCE",
    }
}

fn as_whom(graph: GraphAccess) -> &'static str {
    match graph {
        GraphAccess::OnBehalfOf => "",
        GraphAccess::Application => ", reaching Graph as the application",
    }
}

fn caller(options: &PreviewOptions, server: &McpServer) -> Caller {
    let required = || server.spec.entra.required_scopes.iter().cloned();
    Caller {
        registration: Registration::Known(server.spec.entra.client_id.clone()),
        kind: if options.application.is_some() { CallerKind::Application } else { CallerKind::User },
        client_id: options.application.map(|id| id.to_string()).unwrap_or_default(),
        roles: options.roles.iter().cloned().collect(),
        groups: match options.application {
            Some(_) => Groups::Unknown,
            None => Groups::Known(options.groups.iter().map(Uuid::to_string).collect()),
        },
        scopes: match options.application {
            Some(_) => BTreeSet::new(),
            None => required().chain(options.scopes.iter().cloned()).collect(),
        },
        authentication_contexts: options.authentication_contexts.iter().cloned().collect(),
    }
}

fn why(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Denied { mapping, deny, groups_unknown, .. } => {
            let unknown = if *groups_unknown { ", since the caller's groups are unknown" } else { "" };
            format!("deny {deny} of {mapping}{unknown}")
        }
        Refusal::ScopesMissing { mapping, grant, scopes } => {
            let scopes = Vec::from_iter(scopes.iter().map(String::as_str)).join(", ");
            format!("takes the scopes {scopes} (grant {grant} of {mapping})")
        }
        Refusal::AuthenticationContextMissing { mapping, grant, context } => {
            format!("takes the authentication context {context} (grant {grant} of {mapping})")
        }
        Refusal::NotGranted(Ways { roles, groups, .. }) => {
            let roles = roles.iter().map(|role| format!("the app role {role}"));
            let ways = Vec::from_iter(roles.chain(groups.iter().map(|group| format!("the group {group}"))));
            if ways.is_empty() { "no mapping grants it".to_owned() } else { format!("takes {}", ways.join(" or ")) }
        }
    }
}

/// Columns of text, aligned.
struct Table(Vec<[String; 3]>);

impl fmt::Display for Table {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: fn(&[String; 3]) -> &String| self.0.iter().map(|row| column(row).len()).max().unwrap_or(0);
        let (first, second) = (width(|[first, ..]| first), width(|[_, second, _]| second));
        for [one, two, three] in &self.0 {
            writeln!(formatter, "{one:first$}  {two:second$}  {three}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

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
    async fn each_tool_prompt_and_resource_is_told_with_what_grants_it_or_what_it_takes() {
        let table = told("--role Mcp.Reader").await;
        let expected = "\
TOOL                DECISION  BY
get_user_details    allowed   grant profile of productivity/readers
list_my_messages    refused   takes the group Sales
PROMPT              DECISION  BY
introduce_me        allowed   grant profile of productivity/readers
summarize_inbox     refused   no mapping grants it
RESOURCE            DECISION  BY
graph://me/profile  allowed   grant profile of productivity/readers
";
        assert_eq!(table, expected);
        let nobody = told("").await;
        assert!(nobody.contains("get_user_details    refused   takes the app role Mcp.Reader\n"), "{nobody}");
    }

    #[tokio::test]
    async fn of_a_backend_that_is_not_asked_the_names_that_mappings_name_are_shown() {
        let backend = "backend: {image: x, transport: Stdio, command: [x]}";
        let manifests = MANIFESTS.replace("graph: {scopes: [User.Read, Mail.Read]}", backend);
        let table = previewed(&manifests, "--server graph --role Mcp.Reader").await.unwrap();
        let expected = "\
TOOL                DECISION  BY
get_user_details    allowed   grant profile of productivity/readers
RESOURCE            DECISION  BY
graph://me/profile  allowed   grant profile of productivity/readers
note: only names that mappings name are shown: offline, no backend is asked
";
        assert_eq!(table, expected);
    }

    #[tokio::test]
    async fn what_a_grant_requires_is_told_until_the_caller_has_it() {
        let sales = "--group 3F0C0000-0000-0000-0000-000000000001";
        let mail = async |more: &str| {
            let table = told(&format!("{sales} {more}")).await;
            table.lines().find(|line| line.starts_with("list_my_messages")).unwrap().to_owned()
        };
        assert!(mail("").await.ends_with("refused   takes the scopes mail.read (grant mail of productivity/readers)"));
        assert!(mail("--scope mail.read").await.contains("takes the authentication context c1"));
        let all = mail("--scope mail.read --authentication-context c1").await;
        assert!(all.ends_with("allowed   grant mail of productivity/readers"), "{all}");
    }

    #[tokio::test]
    async fn a_deny_of_a_cluster_mapping_is_named() {
        let table = told("--role Mcp.Reader --role Guest").await;
        assert_eq!(table.matches("refused   deny no-guests of guardrails").count(), 2, "{table}");
        assert!(table.contains("introduce_me        allowed"), "tools alone are denied: {table}");
        let prompts_too = MANIFESTS.replace("tools: ['*']}", "tools: ['*'], prompts: ['*'], resources: ['graph://*']}");
        let table = previewed(&prompts_too, "--server graph --role Mcp.Reader --role Guest").await.unwrap();
        assert_eq!(table.matches("refused   deny no-guests of guardrails").count(), 5, "{table}");
        let elsewhere = MANIFESTS.replace("{stage: production}}\n---", "{stage: test}}\n---");
        let table = previewed(&elsewhere, "--server graph --role Mcp.Reader --role Guest").await.unwrap();
        assert!(table.contains("get_user_details    allowed"), "{table}");
    }

    #[tokio::test]
    async fn an_application_is_judged_as_itself() {
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
    async fn what_cannot_be_previewed_is_named() {
        let error = previewed(MANIFESTS, "--server grpah").await.unwrap_err().to_string();
        assert_eq!(error, "there is no McpServer productivity/grpah; there are: productivity/graph");
        let broken = MANIFESTS.replace("namespaceSelector", "namespaceSelecter");
        let error = previewed(&broken, "--server graph").await.unwrap_err().to_string();
        assert!(error.contains("ClusterMcpRoleMapping guardrails") && error.contains("namespaceSelector"), "{error}");
        let missing = "preview --server graph --file /does/not/exist".split(' ');
        let error = preview(&Program::parse_from(missing).options).await.unwrap_err().to_string();
        assert!(error.starts_with("/does/not/exist: "), "{error}");
    }

    #[tokio::test]
    async fn the_redirect_uri_of_a_server_that_signs_people_in_is_told_and_of_no_other() {
        let signs_in = "  exposure: {host: graph.example, ingress: {}, tls: {secretName: tls}}
  authorizationServer: {sessionStore: {memory: {}}}
---
kind: List";
        let manifests = MANIFESTS.replace("---\nkind: List", signs_in);
        let told_of = previewed(&manifests, "--server graph").await.unwrap();
        assert!(told_of.contains("redirect URI https://graph.example/mcp/callback of the platform Web"), "{told_of}");
        assert!(!told("").await.contains("redirect URI"));
    }
}
