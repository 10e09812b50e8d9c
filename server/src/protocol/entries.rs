//! Entries of lists in the format of MCP.

use std::borrow::Cow;
use std::sync::Arc;

use rmcp::model::{Prompt, PromptArgument, Resource, ResourceTemplate, Tool, ToolAnnotations};
use serde::Serialize;

use crate::offer::{Listed, Offered, OfferedPrompt, OfferedResource, OfferedTemplate, OfferedTool};

/// Returns the entry at this position in the clients' format, as JSON text.
pub(super) fn shown(offered: &Offered, of: Listed, at: usize) -> Option<Cow<'_, str>> {
    match of {
        Listed::Tools => offered.tools.get(at).and_then(|entry| text_of(&entry.written, || tool(entry))),
        Listed::Prompts => offered.prompts.get(at).and_then(|entry| text_of(&entry.written, || prompt(entry))),
        Listed::Resources => offered.resources.get(at).and_then(|entry| text_of(&entry.written, || resource(entry))),
        Listed::Templates => offered.templates.get(at).and_then(|entry| text_of(&entry.written, || template(entry))),
    }
}

fn text_of<T: Serialize>(written: &Option<Arc<str>>, entry: impl FnOnce() -> T) -> Option<Cow<'_, str>> {
    if let Some(written) = written {
        return Some(Cow::Borrowed(written));
    }
    let text = serde_json::to_string(&entry());
    text.inspect_err(|error| tracing::error!(%error, "an entry of a list is not JSON")).ok().map(Cow::Owned)
}

fn tool(tool: &OfferedTool) -> Tool {
    let description = Some(tool.description.clone().into());
    let mut shown = Tool::new_with_raw(tool.name.clone(), description, Arc::clone(&tool.input_schema));
    shown.title = text(&tool.title);
    shown.output_schema = tool.output_schema.clone();
    shown.annotations = Some(ToolAnnotations::with_title(&tool.title).read_only(!tool.writes));
    shown
}

fn prompt(prompt: &OfferedPrompt) -> Prompt {
    let arguments = prompt.arguments.iter().map(|argument| {
        let mut shown = PromptArgument::new(&argument.name).with_required(argument.required);
        shown.description = text(&argument.description);
        shown
    });
    let mut shown = Prompt::new(&prompt.name, Some(&prompt.description), Some(arguments.collect()));
    shown.title = text(&prompt.title);
    shown
}

fn resource(resource: &OfferedResource) -> Resource {
    let mut shown = Resource::new(&resource.uri, &resource.name);
    shown.title = text(&resource.title);
    shown.description = text(&resource.description);
    shown.mime_type = resource.mime_type.clone();
    shown
}

fn template(template: &OfferedTemplate) -> ResourceTemplate {
    let mut shown = ResourceTemplate::new(&template.uri_template, &template.name);
    shown.title = text(&template.title);
    shown.description = text(&template.description);
    shown.mime_type = template.mime_type.clone();
    shown
}

fn text(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
