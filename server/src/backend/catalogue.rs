//! The tools, prompts and resources that a backend has: all pages of its lists, as it wrote them.

use serde_json::json;
use sha2::{Digest, Sha256};
use unicode_general_category::{GeneralCategory, get_general_category};

use super::Identity;
use super::error::BackendError;
use super::session::{Asking, Session};
use crate::raw_json::{RawObject, raw};

/// Entries of one list that are read. A backend with more is cut there.
const MOST_ENTRIES: usize = 1_000;
/// Bytes of the entries of one list that are kept.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// Pages of one list that are read.
const MOST_PAGES: usize = 100;
/// The longest name or URI, in bytes.
const LONGEST_NAME: usize = 256;

/// Everything that a backend has.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Its tools, with a name and a schema of arguments that is an object.
    pub tools: Vec<Entry>,
    /// Its prompts.
    pub prompts: Vec<Entry>,
    /// Its resources.
    pub resources: Vec<Entry>,
    /// Its templates of resources.
    pub templates: Vec<Entry>,
}

/// An entry of a list.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name, URI or URI template: not empty, bounded, and free of what cannot be seen.
    pub name: String,
    /// The members of its definition.
    pub written: RawObject,
}

impl Catalogue {
    /// Reads all lists that the backend says it has.
    pub(super) async fn read(session: &Session, identity: &Identity) -> Result<Self, BackendError> {
        let peer = session.peer();
        let mut catalogue = Self::default();
        if peer.tools {
            catalogue.tools = entries(session, identity, ("tools/list", "tools", "name")).await?;
            catalogue.tools.retain(|tool| tool.written.read::<RawObject>("inputSchema").is_some());
        }
        if peer.prompts {
            catalogue.prompts = entries(session, identity, ("prompts/list", "prompts", "name")).await?;
        }
        if peer.resources {
            catalogue.resources = entries(session, identity, ("resources/list", "resources", "uri")).await?;
            catalogue.resources.retain(|resource| is_normal(&resource.name));
            let templates =
                entries(session, identity, ("resources/templates/list", "resourceTemplates", "uriTemplate"));
            // Some have resources, and not this method.
            catalogue.templates = match templates.await {
                Err(BackendError::Answered(_)) => Vec::new(),
                templates => templates?,
            };
        }
        Ok(catalogue)
    }

    /// Digest of everything, equal for equal catalogues.
    pub fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for list in [&self.tools, &self.prompts, &self.resources, &self.templates] {
            list.iter().for_each(|entry| digest.update(entry.written.to_text()));
            digest.update([0]);
        }
        digest.finalize().into()
    }
}

impl Entry {
    /// Digest of the whole definition, whatever the order of its members: a SHA-256, in hexadecimal.
    pub fn digest(&self) -> String {
        let defined: serde_json::Value = serde_json::from_str(&self.written.to_text()).unwrap_or_default();
        hex::encode(Sha256::digest(defined.to_string()))
    }
}

/// All pages of a list. Entries without a usable name are left out, and so is a second one of the same name.
async fn entries(
    session: &Session,
    identity: &Identity,
    (method, list, name): (&'static str, &'static str, &'static str),
) -> Result<Vec<Entry>, BackendError> {
    let (mut entries, mut bytes, mut cursor) = (Vec::<Entry>::new(), 0, None::<String>);
    for _ in 0..MOST_PAGES {
        let mut asking = Asking { identity: identity.clone(), ..Asking::new(method) };
        if let Some(cursor) = &cursor {
            asking.params.set("cursor", raw(&json!(cursor)));
        }
        let page = session.ask_soon(asking).await?;
        let found: Vec<RawObject> =
            page.read(list).ok_or_else(|| BackendError::Malformed(format!("the result of {method} has no {list}")))?;
        for mut written in found {
            let Some(named) = written.read::<String>(name).filter(|named| is_usable(named)) else { continue };
            // Tasks are not offered.
            written.remove("execution");
            bytes += written.to_text().len();
            if entries.iter().all(|entry| entry.name != named) && entries.len() < MOST_ENTRIES && bytes < MOST_BYTES {
                entries.push(Entry { name: named, written });
            }
        }
        let next: Option<String> = page.read("nextCursor");
        if next.is_none() || next == cursor || entries.len() >= MOST_ENTRIES || bytes >= MOST_BYTES {
            break;
        }
        cursor = next;
    }
    Ok(entries)
}

/// Returns whether a name shows as it is: something that cannot be seen would make two names look the same.
fn is_usable(name: &str) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Unassigned};
    let is_hidden = |letter| {
        let category = get_general_category(letter);
        matches!(category, Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Unassigned)
    };
    !name.is_empty() && name.len() <= LONGEST_NAME && name.trim() == name && !name.chars().any(is_hidden)
}

/// Returns whether a URI is in normal form, so that a policy which decides by its beginning means what is read.
fn is_normal(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|parsed| parsed.as_str() == uri)
}
