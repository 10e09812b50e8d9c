//! Tools, prompts and resources of a backend: all pages of its lists, as the backend wrote them.

use serde_json::json;
use sha2::{Digest, Sha256};
use unicode_general_category::{GeneralCategory, get_general_category};

use super::Identity;
use super::error::BackendError;
use super::session::{Asking, Session};
use crate::raw_json::{RawObject, raw};

/// Maximum number of entries that are read of one list. Further entries are dropped.
const MOST_ENTRIES: usize = 1_000;
/// Maximum size of all entries of one list, in bytes.
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// Maximum number of pages that are read of one list.
const MOST_PAGES: usize = 100;
/// Maximum length of a name or URI, in bytes.
const LONGEST_NAME: usize = 256;

/// All tools, prompts, resources and templates of a backend.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Tools. Each has a usable name, and an argument schema that is an object.
    pub tools: Vec<Entry>,
    /// Prompts.
    pub prompts: Vec<Entry>,
    /// Resources.
    pub resources: Vec<Entry>,
    /// Resource templates.
    pub templates: Vec<Entry>,
}

/// An entry of a list.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Name, URI or URI template. It is not empty, has a limited length, and contains no invisible characters.
    pub name: String,
    /// Members of its definition.
    pub written: RawObject,
}

impl Catalogue {
    /// Reads all lists for which the backend declares a capability.
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
            // Some backends have resources, but not this method.
            catalogue.templates = match templates.await {
                Err(BackendError::Answered(_)) => Vec::new(),
                templates => templates?,
            };
        }
        Ok(catalogue)
    }

    /// Returns a digest of all entries. Equal catalogues have equal digests.
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
    /// Returns the SHA-256 digest of the whole definition, in hexadecimal. The order of its members does not matter.
    pub fn digest(&self) -> String {
        let defined: serde_json::Value = serde_json::from_str(&self.written.to_text()).unwrap_or_default();
        hex::encode(Sha256::digest(defined.to_string()))
    }
}

/// Returns the entries of all pages of a list. Skips entries without a usable name, and later entries with the same
/// name.
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
            // This server does not offer tasks.
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

/// Returns true if a name is not empty, not too long, and has no invisible characters. With them, two names could
/// look the same.
fn is_usable(name: &str) -> bool {
    use GeneralCategory::{Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Unassigned};
    let is_hidden = |letter| {
        let category = get_general_category(letter);
        matches!(category, Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Unassigned)
    };
    !name.is_empty() && name.len() <= LONGEST_NAME && name.trim() == name && !name.chars().any(is_hidden)
}

/// Returns true if a URI is in normal form. A policy decides by the beginning of a URI. Another form of the URI could
/// name another resource than the policy allows.
fn is_normal(uri: &str) -> bool {
    url::Url::parse(uri).is_ok_and(|parsed| parsed.as_str() == uri)
}
