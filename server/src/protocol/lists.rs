//! Lists of the offer for a caller, in pages.
//!
//! Many callers may see the same entries. Each page is therefore written once for all of them, and cached for a while.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::sync::Cache;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::envelope::{self, Kind};
use super::{Revision, entries};
use crate::authorize::Permissions;
use crate::offer::{Failure, Listed, Offered};
use crate::raw_json::{RawObject, raw};

/// Number of entries on a page.
const PAGE: usize = 100;
/// Maximum memory of the cached pages, in bytes. The least used are removed first.
const KEPT: u64 = 4 * 1024 * 1024;

/// The cached pages.
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
    /// Positions in the list of the entries on the page.
    shown: Vec<u16>,
    has_next: bool,
}

impl Lists {
    pub(super) fn new(server_info: Value) -> Self {
        let weight =
            |key: &Key, page: &Arc<str>| u32::try_from(page.len() + key.shown.len() * 2 + 256).unwrap_or(u32::MAX);
        Self { kept: Cache::builder().max_capacity(KEPT).weigher(weight).build(), server_info }
    }

    /// Returns a page of a list, as the JSON text of a result.
    ///
    /// # Errors
    /// If the cursor does not belong to this list.
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
                    "the cursor does not belong to this list, or the list has changed; list again without a cursor",
                )
            })?,
        };
        let mut allowed = allowed(offered, of, permissions, start);
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
        let name = match key.of {
            Listed::Tools => "tools",
            Listed::Prompts => "prompts",
            Listed::Resources => "resources",
            Listed::Templates => "resourceTemplates",
        };
        let shown = key.shown.iter().filter_map(|at| entries::shown(offered, key.of, usize::from(*at)));
        let list = ["[", &Vec::from_iter(shown).join(","), "]"].concat();
        let mut result = RawObject::default();
        result.set(name, RawValue::from_string(list).unwrap_or_else(|_| RawValue::NULL.to_owned()));
        let last = key.shown.last().filter(|_| key.has_next);
        if let Some(last) = last.and_then(|at| offered.entry(key.of, usize::from(*at))) {
            result.set("nextCursor", raw(&json!(URL_SAFE_NO_PAD.encode(last.name()))));
        }
        envelope::complete_raw(result, key.revision, Kind::Cacheable, &self.server_info).to_text()
    }
}

/// Digests of the lists that a caller sees. A list has changed if its digest has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) tools: [u8; 32],
    pub(super) prompts: [u8; 32],
    pub(super) resources: [u8; 32],
}

impl Seen {
    pub(super) fn now(offered: &Offered, permissions: &Permissions) -> Self {
        let digest = |lists: &[Listed]| {
            let mut digest = Sha256::new();
            for of in lists {
                let shown = allowed(offered, *of, permissions, 0).filter_map(|at| entries::shown(offered, *of, at));
                shown.for_each(|entry| digest.update(&*entry));
            }
            digest.finalize().into()
        };
        Self {
            tools: digest(&[Listed::Tools]),
            prompts: digest(&[Listed::Prompts]),
            resources: digest(&[Listed::Resources, Listed::Templates]),
        }
    }
}

/// Returns the positions of the entries that a caller may use, from this position on.
fn allowed(offered: &Offered, of: Listed, permissions: &Permissions, start: usize) -> impl Iterator<Item = usize> {
    (start..offered.count(of))
        .filter(move |at| offered.entry(of, *at).is_some_and(|operation| permissions.allow(operation)))
}

/// Returns the position after the entry that a cursor names.
fn after(offered: &Offered, of: Listed, cursor: &str) -> Option<usize> {
    let name = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    let is_named = |at: &usize| offered.entry(of, *at).is_some_and(|operation| operation.name().as_bytes() == name);
    (0..offered.count(of)).find(is_named).map(|last| last + 1)
}
