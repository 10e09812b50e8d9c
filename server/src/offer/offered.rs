//! A snapshot of what is offered: decisions, lists and checks of one request read this and nothing else.

use mcp_entra_policy::Operation;

/// What is offered to a caller at one moment.
#[derive(Clone, Debug, Default)]
pub struct Offered {
    /// The tools, by name.
    pub tools: Vec<OfferedTool>,
}

/// A tool that is offered.
#[derive(Clone, Debug)]
pub struct OfferedTool {
    /// Name as clients call it and mappings grant it.
    pub name: String,
    /// True if it changes anything. A trailing `*` in a grant never matches such a tool.
    pub writes: bool,
}

impl OfferedTool {
    /// The use of this tool, as policies decide about it.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Tool { name: &self.name, writes: self.writes }
    }
}

impl Offered {
    /// The tool of that name, if it is offered.
    pub fn tool(&self, name: &str) -> Option<&OfferedTool> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}
