//! A snapshot of the offer. Decisions, lists and checks of one request use only this snapshot.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mcp_entra_policy::Operation;

use super::{JsonObject, uri_template};

/// The tools, prompts and resources offered to a caller at one moment.
#[derive(Debug, Default)]
pub struct Offered {
    /// Unique id of a snapshot in this process, used in cache keys.
    id: u64,
    /// The tools, in the order of lists.
    pub tools: Vec<OfferedTool>,
    /// The prompts, in the order of lists.
    pub prompts: Vec<OfferedPrompt>,
    /// The resources, in the order of lists.
    pub resources: Vec<OfferedResource>,
    /// The templates of further resources, in the order of lists.
    pub templates: Vec<OfferedTemplate>,
}

/// A list of the offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Listed {
    /// Tools.
    Tools,
    /// Prompts.
    Prompts,
    /// Resources.
    Resources,
    /// Templates of resources.
    Templates,
}

impl Listed {
    /// Every list.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];
}

/// An offered tool.
#[derive(Clone, Debug, Default)]
pub struct OfferedTool {
    /// Name for clients and mappings.
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
    /// The whole entry as another server wrote it, for use in lists.
    pub written: Option<Arc<str>>,
}

/// An offered prompt.
#[derive(Clone, Debug, Default)]
pub struct OfferedPrompt {
    /// Name for clients and mappings.
    pub name: String,
    /// Title, for people.
    pub title: String,
    /// Description, for people.
    pub description: String,
    /// The arguments.
    pub arguments: Vec<PromptArgument>,
    /// The whole entry as another server wrote it, for use in lists.
    pub written: Option<Arc<str>>,
}

/// An argument of a prompt.
#[derive(Clone, Debug, Default)]
pub struct PromptArgument {
    /// Name of the argument.
    pub name: String,
    /// Description, for people.
    pub description: String,
    /// True if it is required.
    pub required: bool,
}

/// An offered resource.
#[derive(Clone, Debug, Default)]
pub struct OfferedResource {
    /// URI for clients and mappings.
    pub uri: String,
    /// Name, for programs.
    pub name: String,
    /// Title, for people.
    pub title: String,
    /// Description, for models.
    pub description: String,
    /// MIME type of its content, if known.
    pub mime_type: Option<String>,
    /// The whole entry as another server wrote it, for use in lists.
    pub written: Option<Arc<str>>,
}

/// A template of resources that are offered but not listed.
#[derive(Clone, Debug, Default)]
pub struct OfferedTemplate {
    /// URI template (RFC 6570 level 1). Mappings grant the resources by their URIs, and the template's list entry by
    /// its own text.
    pub uri_template: String,
    /// Name, for programs.
    pub name: String,
    /// Title, for people.
    pub title: String,
    /// Description, for models.
    pub description: String,
    /// MIME type of their content, if known.
    pub mime_type: Option<String>,
    /// The whole entry as another server wrote it, for use in lists.
    pub written: Option<Arc<str>>,
}

impl OfferedTool {
    /// Returns the use of this tool, for decisions of the policy.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Tool { name: &self.name, writes: self.writes }
    }
}

impl OfferedPrompt {
    /// Returns the use of this prompt, for decisions of the policy.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Prompt(&self.name)
    }
}

impl OfferedResource {
    /// Returns the use of this resource, for decisions of the policy.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Resource(&self.uri)
    }
}

impl OfferedTemplate {
    /// Returns the list entry of this template, for decisions of the policy.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Resource(&self.uri_template)
    }
}

/// Id of the next snapshot. Zero is the empty one.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Offered {
    /// Returns a snapshot with a new id.
    pub fn new(
        tools: Vec<OfferedTool>,
        prompts: Vec<OfferedPrompt>,
        resources: Vec<OfferedResource>,
        templates: Vec<OfferedTemplate>,
    ) -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), tools, prompts, resources, templates }
    }

    /// Returns the id of this snapshot.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the offered tool with this name.
    pub fn tool(&self, name: &str) -> Option<&OfferedTool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// Returns the offered prompt with this name.
    pub fn prompt(&self, name: &str) -> Option<&OfferedPrompt> {
        self.prompts.iter().find(|prompt| prompt.name == name)
    }

    /// Returns the offered template with this text.
    pub fn template(&self, uri_template: &str) -> Option<&OfferedTemplate> {
        self.templates.iter().find(|template| template.uri_template == uri_template)
    }

    /// True if this URI belongs to a listed resource or matches a template.
    pub fn has_resource(&self, uri: &str) -> bool {
        self.resources.iter().any(|resource| resource.uri == uri)
            || self.templates.iter().any(|template| uri_template::matches(&template.uri_template, uri))
    }

    /// Returns the number of entries of a list.
    pub fn count(&self, of: Listed) -> usize {
        match of {
            Listed::Tools => self.tools.len(),
            Listed::Prompts => self.prompts.len(),
            Listed::Resources => self.resources.len(),
            Listed::Templates => self.templates.len(),
        }
    }

    /// Returns the entry at this position of a list, for decisions of the policy.
    pub fn entry(&self, of: Listed, at: usize) -> Option<Operation<'_>> {
        match of {
            Listed::Tools => self.tools.get(at).map(OfferedTool::operation),
            Listed::Prompts => self.prompts.get(at).map(OfferedPrompt::operation),
            Listed::Resources => self.resources.get(at).map(OfferedResource::operation),
            Listed::Templates => self.templates.get(at).map(OfferedTemplate::operation),
        }
    }

    /// Returns the entries of a list, for decisions of the policy.
    pub fn entries(&self, of: Listed) -> impl Iterator<Item = Operation<'_>> {
        (0..self.count(of)).filter_map(move |at| self.entry(of, at))
    }
}
