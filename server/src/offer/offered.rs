//! A snapshot of what is offered: decisions, lists and checks of one request read this and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use mcp_entra_policy::Operation;

use super::{JsonObject, uri_template};

/// The tools, prompts and resources that are offered to a caller at one moment.
#[derive(Debug, Default)]
pub struct Offered {
    /// Tells snapshots of one process apart, and stands for them in the keys of caches.
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

/// A list of what is offered.
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
    /// The whole entry as another server wrote it, which lists show then.
    pub written: Option<Arc<str>>,
}

/// A prompt that is offered.
#[derive(Clone, Debug, Default)]
pub struct OfferedPrompt {
    /// Name as clients get it and mappings grant it.
    pub name: String,
    /// Title, for people.
    pub title: String,
    /// Description, for people.
    pub description: String,
    /// The arguments that it takes.
    pub arguments: Vec<PromptArgument>,
    /// The whole entry as another server wrote it, which lists show then.
    pub written: Option<Arc<str>>,
}

/// An argument of a prompt.
#[derive(Clone, Debug, Default)]
pub struct PromptArgument {
    /// Name of the argument.
    pub name: String,
    /// Description, for people.
    pub description: String,
    /// True if it must be given.
    pub required: bool,
}

/// A resource that is offered.
#[derive(Clone, Debug, Default)]
pub struct OfferedResource {
    /// URI as clients read it and mappings grant it.
    pub uri: String,
    /// Name, for programs.
    pub name: String,
    /// Title, for people.
    pub title: String,
    /// Description, for models.
    pub description: String,
    /// MIME type of its content, if it is known.
    pub mime_type: Option<String>,
    /// The whole entry as another server wrote it, which lists show then.
    pub written: Option<Arc<str>>,
}

/// A template of resources that are offered, but stand in no list.
#[derive(Clone, Debug, Default)]
pub struct OfferedTemplate {
    /// URI template (RFC 6570 level 1). Mappings grant the resources by their URIs, and the template's place in a list by
    /// its own text.
    pub uri_template: String,
    /// Name, for programs.
    pub name: String,
    /// Title, for people.
    pub title: String,
    /// Description, for models.
    pub description: String,
    /// MIME type of their content, if it is known.
    pub mime_type: Option<String>,
    /// The whole entry as another server wrote it, which lists show then.
    pub written: Option<Arc<str>>,
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

impl OfferedTemplate {
    /// The place of this template in a list, as policies decide about it.
    pub fn operation(&self) -> Operation<'_> {
        Operation::Resource(&self.uri_template)
    }
}

/// The number of the next snapshot. Zero is the empty one's.
static NEXT: AtomicU64 = AtomicU64::new(1);

impl Offered {
    /// A snapshot of these.
    pub fn new(
        tools: Vec<OfferedTool>,
        prompts: Vec<OfferedPrompt>,
        resources: Vec<OfferedResource>,
        templates: Vec<OfferedTemplate>,
    ) -> Self {
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), tools, prompts, resources, templates }
    }

    /// Number of this snapshot, unlike that of any other in this process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The tool of that name, if it is offered.
    pub fn tool(&self, name: &str) -> Option<&OfferedTool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// The prompt of that name, if it is offered.
    pub fn prompt(&self, name: &str) -> Option<&OfferedPrompt> {
        self.prompts.iter().find(|prompt| prompt.name == name)
    }

    /// The template of that text, if it is offered.
    pub fn template(&self, uri_template: &str) -> Option<&OfferedTemplate> {
        self.templates.iter().find(|template| template.uri_template == uri_template)
    }

    /// Returns whether this URI is that of a resource in the list, or one of a template.
    pub fn has_resource(&self, uri: &str) -> bool {
        self.resources.iter().any(|resource| resource.uri == uri)
            || self.templates.iter().any(|template| uri_template::matches(&template.uri_template, uri))
    }

    /// The number of entries of a list.
    pub fn count(&self, of: Listed) -> usize {
        match of {
            Listed::Tools => self.tools.len(),
            Listed::Prompts => self.prompts.len(),
            Listed::Resources => self.resources.len(),
            Listed::Templates => self.templates.len(),
        }
    }

    /// The entry at this place of a list, as policies decide about it.
    pub fn entry(&self, of: Listed, at: usize) -> Option<Operation<'_>> {
        match of {
            Listed::Tools => self.tools.get(at).map(OfferedTool::operation),
            Listed::Prompts => self.prompts.get(at).map(OfferedPrompt::operation),
            Listed::Resources => self.resources.get(at).map(OfferedResource::operation),
            Listed::Templates => self.templates.get(at).map(OfferedTemplate::operation),
        }
    }

    /// The entries of a list, as policies decide about them.
    pub fn entries(&self, of: Listed) -> impl Iterator<Item = Operation<'_>> {
        (0..self.count(of)).filter_map(move |at| self.entry(of, at))
    }
}
