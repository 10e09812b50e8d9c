//! Built-in tools that a server offers: those that match `spec.graph.tools` and whose permissions are in
//! `spec.graph.scopes`. Pure.

use mcp_entra_crds::Graph;
use mcp_entra_policy::{BUILT_IN_TOOLS, BuiltInTool, Operation, Pattern};

use crate::{
    conditions::condition::{Reason, named},
    mcpserver::validate::refusal::{Refusal, refuse},
};

/// Returns the exact names of the matching tools. The server itself leaves out those without their scopes. Refuses an
/// entry that matches no tool, or only tools without their scopes.
pub(super) fn validate(graph: &Graph) -> Result<Vec<String>, Refusal> {
    graph.tools.iter().try_for_each(|pattern| check(graph, pattern))?;
    Ok(named_tools(graph).map(|tool| tool.name.to_owned()).collect())
}

fn check(graph: &Graph, pattern: &str) -> Result<(), Refusal> {
    let mut lacking = Vec::new();
    for tool in meant(pattern) {
        match missing(graph, tool) {
            scopes if scopes.is_empty() => return Ok(()),
            scopes => lacking.push(format!("{} needs {}", tool.name, scopes.join(" and "))),
        }
    }
    if lacking.is_empty() {
        let hint = match pattern.ends_with('*') {
            true => " that only reads (a tool that writes needs its full name)",
            false => "",
        };
        let there_are = BUILT_IN_TOOLS.iter().map(|tool| tool.name.to_owned());
        return refuse(
            Reason::ToolNotFound,
            format!(
                "spec.graph.tools: {pattern:?} matches no built-in tool{hint}; correct or remove it; the built-in tools are: {}",
                Vec::from_iter(there_are).join(", ")
            ),
        );
    }
    refuse(
        Reason::GraphScopeMissing,
        format!(
            "spec.graph.tools: {pattern:?} matches only tools without their Graph permissions ({}); add the permissions of one of them to spec.graph.scopes and consent to them in Entra, or set other tools",
            named(&lacking)
        ),
    )
}

/// Returns the built-in tools that a server with this `spec.graph` offers.
pub(crate) fn offered(graph: &Graph) -> impl Iterator<Item = &'static BuiltInTool> {
    named_tools(graph).filter(|tool| missing(graph, tool).is_empty())
}

/// Returns the matching tools that are not offered, each with its missing scopes, as text.
pub(crate) fn not_offered(graph: &Graph) -> Vec<String> {
    let lacking = |tool: &'static BuiltInTool| {
        let scopes = missing(graph, tool);
        (!scopes.is_empty()).then(|| format!("{} needs {}", tool.name, scopes.join(" and ")))
    };
    named_tools(graph).filter_map(lacking).collect()
}

/// Returns the built-in tools that match `spec.graph.tools`, even without their scopes.
pub(crate) fn named_tools(graph: &Graph) -> impl Iterator<Item = &'static BuiltInTool> {
    BUILT_IN_TOOLS.iter().filter(|tool| graph.tools.iter().any(|pattern| means(pattern, tool)))
}

fn meant(pattern: &str) -> impl Iterator<Item = &'static BuiltInTool> {
    BUILT_IN_TOOLS.iter().filter(move |tool| means(pattern, tool))
}

fn means(pattern: &str, tool: &BuiltInTool) -> bool {
    Pattern(pattern.to_owned()).grants(Operation::built_in(tool))
}

fn missing(graph: &Graph, tool: &BuiltInTool) -> Vec<&'static str> {
    tool.missing_scopes(&graph.scopes, graph.access)
}

#[cfg(test)]
mod tests {
    use mcp_entra_policy::GraphAccess;

    use super::*;

    fn graph(scopes: &[&str], tools: &[&str], access: GraphAccess) -> Graph {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Graph { scopes: list(scopes), tools: list(tools), access }
    }

    #[test]
    fn a_server_offers_the_tools_that_it_names_and_has_the_scopes_for() {
        use GraphAccess::{Application, OnBehalfOf};
        const READS: &[&str] = &["get_user_details", "list_my_messages"];
        for (scopes, tools, access, expected) in [
            (&["User.Read", "Mail.Read"][..], &["*"][..], OnBehalfOf, READS),
            (&["User.Read", "Mail.ReadWrite"], &["*"], OnBehalfOf, READS),
            // A server without tools in its manifest has `*`.
            (&["User.Read", "Mail.Read", "Mail.Send", "Calendars.ReadWrite"], &["*"], OnBehalfOf, READS),
            (&["User.Read", "Mail.Send"], &["*", "send_mail"], OnBehalfOf, &["get_user_details", "send_mail"]),
            (&["Calendars.ReadWrite"], &["create_event"], OnBehalfOf, &["create_event"]),
            (&["User.Read"], &["*"], OnBehalfOf, &["get_user_details"]),
            (&["User.Read"], &["get_user_details"], OnBehalfOf, &["get_user_details"]),
            (&["Mail.Read"], &["*", "list_*"], OnBehalfOf, &["list_my_messages"]),
            (&["Calendars.Read"], &["*"], Application, READS),
            (&["Calendars.Read"], &["list_my_messages"], Application, &["list_my_messages"]),
            (&["Calendars.Read"], &["send_mail"], Application, &["send_mail"]),
        ] {
            let graph = graph(scopes, tools, access);
            assert!(validate(&graph).is_ok(), "{graph:?}");
            assert_eq!(Vec::from_iter(offered(&graph).map(|tool| tool.name)), expected, "{graph:?}");
        }
    }

    #[test]
    fn a_tool_without_its_scopes_is_reported_and_stays_in_the_configuration() {
        let lacking = graph(&["User.Read"], &["*"], GraphAccess::OnBehalfOf);
        assert_eq!(validate(&lacking).unwrap(), ["get_user_details", "list_my_messages"]);
        assert_eq!(not_offered(&lacking), ["list_my_messages needs Mail.Read"]);
        assert!(not_offered(&graph(&["User.Read", "Mail.Read"], &["*"], GraphAccess::OnBehalfOf)).is_empty());
        assert!(not_offered(&graph(&["User.Read"], &["get_*"], GraphAccess::OnBehalfOf)).is_empty());
    }

    #[test]
    fn an_entry_that_offers_nothing_is_refused_with_the_next_step() {
        for (scopes, tools, reason, told) in [
            (
                &["User.Read"][..],
                &["list_my_messages"][..],
                Reason::GraphScopeMissing,
                "list_my_messages needs Mail.Read",
            ),
            (&["User.Read"], &["*", "list_*"], Reason::GraphScopeMissing, "\"list_*\" matches only tools without"),
            (&["Calendars.Read"], &["*"], Reason::GraphScopeMissing, "get_user_details needs User.Read"),
            (&["User.Read"], &["get_*", "lsit_*"], Reason::ToolNotFound, "\"lsit_*\" matches no built-in tool"),
            (&["User.Read"], &["lsit_mail"], Reason::ToolNotFound, "\"lsit_mail\" matches no built-in tool; correct"),
            (&["Mail.Send"], &["send_*"], Reason::ToolNotFound, "a tool that writes needs its full name"),
            (
                &["User.Read", "Mail.ReadWrite"],
                &["*", "send_mail"],
                Reason::GraphScopeMissing,
                "send_mail needs Mail.Send",
            ),
            (&["Mail.Send"], &["create_event"], Reason::GraphScopeMissing, "needs Calendars.ReadWrite"),
        ] {
            let graph = graph(scopes, tools, GraphAccess::OnBehalfOf);
            let refusal = validate(&graph).unwrap_err();
            assert_eq!(refusal.reason, reason, "{graph:?}");
            assert!(refusal.message.contains(told), "{}", refusal.message);
            assert!(refusal.message.starts_with("spec.graph.tools: "), "{}", refusal.message);
        }
    }
}
