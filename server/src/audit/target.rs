//! The tool, prompt or resource that a request names.

use std::fmt;

use mcp_entra_policy::Operation;

/// Longest name of a tool or a prompt in a line, in characters. Names come from clients, so their length is not
/// trusted.
const MAXIMUM_NAME: usize = 64;
/// Longest URI of a resource in a line, in characters.
const MAXIMUM_URI: usize = 256;

/// The tool, prompt or resource that a request names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A tool, by name.
    Tool(String),
    /// A prompt, by name.
    Prompt(String),
    /// A resource or a template of resources, by URI.
    Resource(String),
}

impl Target {
    /// `tool`, `prompt` or `resource`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Tool(_) => "tool",
            Self::Prompt(_) => "prompt",
            Self::Resource(_) => "resource",
        }
    }

    /// The name, or the URI.
    pub fn name(&self) -> &str {
        match self {
            Self::Tool(name) | Self::Prompt(name) | Self::Resource(name) => name,
        }
    }

    /// Returns the reason for a request whose target is not offered.
    pub fn not_offered(&self) -> &'static str {
        match self {
            Self::Tool(_) => "unknown_tool",
            Self::Prompt(_) => "unknown_prompt",
            Self::Resource(_) => "unknown_resource",
        }
    }

    /// Returns the target, cut to the limits of a line.
    pub(super) fn shortened(mut self) -> Self {
        let (name, maximum) = match &mut self {
            Self::Tool(name) | Self::Prompt(name) => (name, MAXIMUM_NAME),
            Self::Resource(uri) => (uri, MAXIMUM_URI),
        };
        if let Some((end, _)) = name.char_indices().nth(maximum) {
            name.truncate(end);
        }
        self
    }

    pub(super) fn as_tool(&self) -> Option<&str> {
        if let Self::Tool(name) = self { Some(name) } else { None }
    }

    pub(super) fn as_prompt(&self) -> Option<&str> {
        if let Self::Prompt(name) = self { Some(name) } else { None }
    }

    /// The URI of a resource.
    pub fn uri(&self) -> Option<&str> {
        if let Self::Resource(uri) = self { Some(uri) } else { None }
    }
}

impl From<Operation<'_>> for Target {
    fn from(operation: Operation<'_>) -> Self {
        match operation {
            Operation::Tool { name, .. } => Self::Tool(name.to_owned()),
            Operation::Prompt(name) => Self::Prompt(name.to_owned()),
            Operation::Resource(uri) => Self::Resource(uri.to_owned()),
        }
    }
}

/// A tool shows as its name, everything else with its kind.
impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tool(name) => formatter.write_str(name),
            Self::Prompt(name) => write!(formatter, "the prompt {name}"),
            Self::Resource(uri) => write!(formatter, "the resource {uri}"),
        }
    }
}
