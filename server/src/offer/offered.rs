//! A snapshot of what is offered: decisions, lists and checks of one request read this and nothing else.

use std::sync::Arc;

use mcp_entra_policy::Operation;

use super::{JsonObject, call};

/// The tools, prompts and resources that are offered to a caller at one moment.
#[derive(Clone, Debug, Default)]
pub struct Offered {
    /// The tools, by name.
    pub tools: Vec<OfferedTool>,
    /// The prompts, by name.
    pub prompts: Vec<OfferedPrompt>,
    /// The resources, by URI.
    pub resources: Vec<OfferedResource>,
}

/// A tool that is offered.
#[derive(Clone, Debug, Default)]
pub struct OfferedTool {
    /// Name as clients call it and mappings grant it.
    pub name: String,
    /// True if it changes anything. A trailing `*` in a grant never matches such a tool.
    pub writes: bool,
    /// Title, for people.
    pub title: String,
    /// Description, for models.
    pub description: String,
    /// JSON schema of the arguments.
    pub input_schema: Arc<JsonObject>,
    /// JSON schema of the structured answer, if the tool has one.
    pub output_schema: Option<Arc<JsonObject>>,
}

/// A prompt that is offered.
#[derive(Clone, Debug, Default)]
pub struct OfferedPrompt {
    /// Name as clients get it and mappings grant it.
    pub name: String,
    /// Description, for people.
    pub description: String,
    /// The arguments that it takes.
    pub arguments: Vec<PromptArgument>,
}

/// An argument of a prompt.
#[derive(Clone, Debug, Default)]
pub struct PromptArgument {
    /// Name of the argument.
    pub name: String,
    /// True if it must be given.
    pub required: bool,
}

/// A resource that is offered.
#[derive(Clone, Debug, Default)]
pub struct OfferedResource {
    /// URI as clients read it and mappings grant it.
    pub uri: String,
    /// Name, for people.
    pub name: String,
}

impl OfferedTool {
    /// The use of this tool, as policies decide about it.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Tool { name: &self.name, writes: self.writes }
    }
}

impl OfferedPrompt {
    /// The use of this prompt, as policies decide about it.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Prompt(&self.name)
    }
}

impl OfferedResource {
    /// The use of this resource, as policies decide about it.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Resource(&self.uri)
    }
}

impl Offered {
    /// The tool of that name, if it is offered.
    pub fn tool(&self, name: &str) -> Option<&OfferedTool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// Returns whether this is the use of something that is offered.
    pub fn has(&self, operation: &call::Operation) -> bool {
        match operation {
            call::Operation::Tool { name, .. } => self.tool(name).is_some(),
            call::Operation::Prompt { name, .. } => self.prompts.iter().any(|prompt| prompt.name == *name),
            call::Operation::Resource { uri } => self.resources.iter().any(|resource| resource.uri == *uri),
        }
    }
}
