//! The built-in Graph tools by name: what the server implements, mappings can name and Graph must consent to.

/// A tool that the server answers from Microsoft Graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BuiltInTool {
    /// Name as MCP clients call it and mappings grant it.
    pub name: &'static str,
    /// Whether the tool changes anything in Graph. A trailing `*` in a grant never matches such a tool.
    pub writes: bool,
    /// The delegated Graph permission that the tool needs.
    pub graph_scope: &'static str,
}

/// Every built-in tool, by name.
pub const BUILT_IN_TOOLS: &[BuiltInTool] = &[
    BuiltInTool { name: "get_user_details", writes: false, graph_scope: "User.Read" },
    BuiltInTool { name: "list_my_messages", writes: false, graph_scope: "Mail.Read" },
];

/// The built-in tool of that name, if there is one.
pub fn built_in_tool(name: &str) -> Option<&'static BuiltInTool> {
    BUILT_IN_TOOLS.iter().find(|tool| tool.name == name)
}
