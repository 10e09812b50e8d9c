//! Table of decisions about a caller, with notes on how far it can be trusted.

use std::fmt;

use kube::ResourceExt;
use mcp_entra_crds::McpServer;
use mcp_entra_policy::{
    Caller, CallerKind, CompactSet, Decision, GraphAccess, Groups, Operation, Pattern, Refusal, Registration, Ways,
    operations_over,
};

use crate::{
    commands::preview::{error::PreviewError, known::Known, options::PreviewOptions},
    conditions::condition::named,
    mcpserver::validate::{callback, not_offered, offered},
    policy::{
        binding::{Mapping, Target},
        compile::{Compiled, compile},
        offered::Offered,
    },
};

/// The table and its notes, ready to be printed.
pub(super) fn table(namespace: &str, options: &PreviewOptions, known: &Known) -> Result<String, PreviewError> {
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
            "the labels of namespace {namespace} are unknown, so cluster mappings that select by labels deny but do not grant; add the Namespace to the files"
        ));
    }
    if let Some(redirect_uri) = server.spec.authorization_server.as_ref().and(callback(server.spec.exposure.as_ref())) {
        note(format!(
            "users can also sign in at the server itself; its app registration must have the redirect URI {redirect_uri} of the platform Web"
        ));
    }
    let not_offered = Vec::from_iter(server.spec.graph.iter().flat_map(not_offered));
    if !not_offered.is_empty() {
        note(format!("not offered, because spec.graph.scopes lacks the permission: {}", named(&not_offered)));
    }
    match (&server.spec.backend, &known.backend) {
        (Some(_), Some(Err(error))) => note(format!("only names from mappings are shown, because {error}")),
        (Some(_), None) => note("only names from mappings are shown, because no backend is asked offline".to_owned()),
        _ => {}
    }
    if !known.hidden.is_empty() {
        note(format!("not offered, because they differ from spec.backend.pin: {}", named(&known.hidden)));
    }
    if !compiled.left_out.is_empty() {
        note(format!("the policy is too large, so these mappings grant nothing: {}", named(&compiled.left_out)));
    }
    if !known.unreadable.is_empty() {
        note(format!("these mappings are unreadable and ignored: {}", named(&known.unreadable)));
    }
    Ok(text)
}

/// Returns the names that the server's backend offers, if it has one. They come from a pod, else from the mappings.
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

/// Returns all operations that the server offers to this kind of caller. Prompts and resources are for users only.
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
        GraphAccess::Application => ", calls Graph as the application",
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
            None => Groups::Known(options.groups.iter().copied().collect()),
        },
        scopes: match options.application {
            Some(_) => CompactSet::default(),
            None => required().chain(options.scopes.iter().cloned()).collect(),
        },
        authentication_contexts: options.authentication_contexts.iter().cloned().collect(),
    }
}

fn why(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Denied { mapping, deny, groups_unknown, .. } => {
            let unknown = if *groups_unknown { ", because the caller's groups are unknown" } else { "" };
            format!("deny {deny} of {mapping}{unknown}")
        }
        Refusal::ScopesMissing { mapping, grant, scopes } => {
            let scopes = Vec::from_iter(scopes.iter().map(String::as_str)).join(", ");
            format!("needs the scopes {scopes} (grant {grant} of {mapping})")
        }
        Refusal::AuthenticationContextMissing { mapping, grant, context } => {
            format!("needs the authentication context {context} (grant {grant} of {mapping})")
        }
        Refusal::NotGranted(Ways { roles, groups, .. }) => {
            let roles = roles.iter().map(|role| format!("the app role {role}"));
            let ways = Vec::from_iter(roles.chain(groups.iter().map(|group| format!("the group {group}"))));
            if ways.is_empty() { "no mapping grants it".to_owned() } else { format!("needs {}", ways.join(" or ")) }
        }
    }
}

/// Text in aligned columns.
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
