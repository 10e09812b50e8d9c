//! Lists of what a caller may use, page by page.
//!
//! Many callers may use the same. So a page is written once for all to whom it shows the same entries, and kept for a while.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mcp_entra_policy::Operation;
use moka::sync::Cache;
use serde_json::{Value, json};

use super::Revision;
use super::envelope::{self, Kind};
use crate::authorize::{Listed, Permissions};
use crate::offer::{
    Failure, JsonObject, Offered, OfferedPrompt, OfferedResource, OfferedTemplate, OfferedTool, PromptArgument,
};

/// Entries of a page.
const PAGE: usize = 100;
/// Memory that the kept pages may take, in bytes; the least used go first.
const KEPT: u64 = 4 * 1024 * 1024;

/// The pages that are kept.
pub(super) struct Lists {
    kept: Cache<Key, Arc<str>>,
    server_info: Value,
}

/// Everything that a page depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    offered: u64,
    of: Listed,
    revision: Revision,
    /// Places in the list of the entries on the page.
    shown: Vec<u16>,
    has_next: bool,
}

impl Lists {
    pub(super) fn new(server_info: Value) -> Self {
        let weight =
            |key: &Key, page: &Arc<str>| u32::try_from(page.len() + key.shown.len() * 2 + 256).unwrap_or(u32::MAX);
        Self { kept: Cache::builder().max_capacity(KEPT).weigher(weight).build(), server_info }
    }

    /// A page of a list, as the JSON text of a result.
    ///
    /// # Errors
    /// If the cursor is none of this list.
    pub(super) fn page(
        &self,
        (of, cursor): (Listed, Option<&str>),
        offered: &Offered,
        permissions: &Permissions,
        revision: Revision,
    ) -> Result<Arc<str>, Failure> {
        let start = match cursor {
            None => 0,
            Some(cursor) => after(offered, of, cursor).ok_or_else(|| {
                Failure::invalid(
                    "the cursor is none of this list, or the list has changed; list again without a cursor",
                )
            })?,
        };
        let mut allowed = (start..length(offered, of))
            .filter(|at| operation(offered, of, *at).is_some_and(|operation| permissions.allow(operation)));
        let shown = allowed.by_ref().take(PAGE).filter_map(|at| u16::try_from(at).ok()).collect();
        let has_next = allowed.next().is_some();
        let key = Key { offered: offered.id(), of, revision, shown, has_next };
        if let Some(page) = self.kept.get(&key) {
            return Ok(page);
        }
        let page: Arc<str> = self.write(offered, &key).into();
        self.kept.insert(key, Arc::clone(&page));
        Ok(page)
    }

    fn write(&self, offered: &Offered, key: &Key) -> String {
        let (name, kind) = match key.of {
            Listed::Tools => ("tools", tool as fn(&Offered, usize) -> Option<Value>),
            Listed::Prompts => ("prompts", prompt as _),
            Listed::Resources => ("resources", resource as _),
            Listed::Templates => ("resourceTemplates", template as _),
        };
        let entries: Vec<Value> = key.shown.iter().filter_map(|at| kind(offered, usize::from(*at))).collect();
        let mut result = JsonObject::from_iter([(name.to_owned(), Value::Array(entries))]);
        let last = key.shown.last().filter(|_| key.has_next);
        if let Some(last) = last.and_then(|at| operation(offered, key.of, usize::from(*at))) {
            result.insert("nextCursor".to_owned(), json!(URL_SAFE_NO_PAD.encode(last.name())));
        }
        Value::Object(envelope::complete(result, key.revision, Kind::Cacheable, &self.server_info)).to_string()
    }
}

/// What a caller may see of the lists that news are about, to find out whether they have changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) tools: Vec<String>,
    pub(super) prompts: Vec<String>,
    pub(super) resources: Vec<String>,
}

impl Seen {
    pub(super) fn now(offered: &Offered, permissions: &Permissions) -> Self {
        let list = |of: Listed, kind: fn(&Offered, usize) -> Option<Value>| -> Vec<String> {
            let allowed = (0..length(offered, of))
                .filter(|at| operation(offered, of, *at).is_some_and(|operation| permissions.allow(operation)));
            allowed.filter_map(|at| kind(offered, at)).map(|entry| entry.to_string()).collect()
        };
        let mut resources = list(Listed::Resources, resource);
        resources.extend(list(Listed::Templates, template));
        Self { tools: list(Listed::Tools, tool), prompts: list(Listed::Prompts, prompt), resources }
    }
}

fn length(offered: &Offered, of: Listed) -> usize {
    match of {
        Listed::Tools => offered.tools.len(),
        Listed::Prompts => offered.prompts.len(),
        Listed::Resources => offered.resources.len(),
        Listed::Templates => offered.templates.len(),
    }
}

/// The use of the entry at this place, as policies decide about it.
fn operation(offered: &Offered, of: Listed, at: usize) -> Option<Operation<'_>> {
    match of {
        Listed::Tools => offered.tools.get(at).map(OfferedTool::operation),
        Listed::Prompts => offered.prompts.get(at).map(OfferedPrompt::operation),
        Listed::Resources => offered.resources.get(at).map(OfferedResource::operation),
        Listed::Templates => offered.templates.get(at).map(OfferedTemplate::operation),
    }
}

/// The place after the entry that a cursor names.
fn after(offered: &Offered, of: Listed, cursor: &str) -> Option<usize> {
    let name = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let mut places = 0..length(offered, of);
    let last = places.find(|at| operation(offered, of, *at).is_some_and(|last| last.name().as_bytes() == name))?;
    Some(last + 1)
}

fn tool(offered: &Offered, at: usize) -> Option<Value> {
    let tool = offered.tools.get(at)?;
    let mut shown = json!({
        "name": tool.name,
        "title": tool.title,
        "description": tool.description,
        "inputSchema": tool.input_schema,
        "annotations": { "title": tool.title, "readOnlyHint": !tool.writes },
    });
    add(&mut shown, "outputSchema", tool.output_schema.as_ref().map(|schema| json!(schema)));
    Some(shown)
}

fn prompt(offered: &Offered, at: usize) -> Option<Value> {
    let prompt = offered.prompts.get(at)?;
    let argument = |PromptArgument { name, description, required }: &PromptArgument| {
        let mut shown = json!({ "name": name, "required": required });
        add(&mut shown, "description", text(description));
        shown
    };
    let arguments: Vec<Value> = prompt.arguments.iter().map(argument).collect();
    let mut shown = json!({ "name": prompt.name, "description": prompt.description, "arguments": arguments });
    add(&mut shown, "title", text(&prompt.title));
    Some(shown)
}

fn resource(offered: &Offered, at: usize) -> Option<Value> {
    let OfferedResource { uri, name, title, description, mime_type } = offered.resources.get(at)?;
    let mut shown = json!({ "uri": uri, "name": name });
    add(&mut shown, "title", text(title));
    add(&mut shown, "description", text(description));
    add(&mut shown, "mimeType", mime_type.as_deref().and_then(text));
    Some(shown)
}

fn template(offered: &Offered, at: usize) -> Option<Value> {
    let OfferedTemplate { uri_template, name, title, description, mime_type } = offered.templates.get(at)?;
    let mut shown = json!({ "uriTemplate": uri_template, "name": name });
    add(&mut shown, "title", text(title));
    add(&mut shown, "description", text(description));
    add(&mut shown, "mimeType", mime_type.as_deref().and_then(text));
    Some(shown)
}

fn text(text: &str) -> Option<Value> {
    (!text.is_empty()).then(|| json!(text))
}

fn add(shown: &mut Value, name: &str, value: Option<Value>) {
    if let (Value::Object(shown), Some(value)) = (shown, value) {
        shown.insert(name.to_owned(), value);
    }
}
