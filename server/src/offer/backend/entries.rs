//! Offered entries of a backend's lists. With a pin, only pinned tools are offered. A snapshot is kept until the
//! lists change.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::backend::{Catalogue, Entry};
use crate::offer::{JsonObject, Offered, OfferedPrompt, OfferedResource, OfferedTemplate, OfferedTool};

/// Snapshots of the offered entries.
pub(super) struct Snapshots {
    pin: Option<BTreeMap<String, String>>,
    latest: Mutex<Option<(Arc<Catalogue>, Arc<Offered>)>>,
}

impl Snapshots {
    pub(super) fn new(pin: Option<BTreeMap<String, String>>) -> Self {
        Self { pin, latest: Mutex::default() }
    }

    /// Returns the snapshot of this catalogue.
    pub(super) fn of(&self, catalogue: &Arc<Catalogue>) -> Arc<Offered> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        match &*latest {
            Some((known, offered)) if Arc::ptr_eq(known, catalogue) => Arc::clone(offered),
            _ => {
                let offered = Arc::new(self.offered(catalogue));
                *latest = Some((Arc::clone(catalogue), Arc::clone(&offered)));
                offered
            }
        }
    }

    /// Returns true if a tool is the same as in the pin. Without a pin, every tool is.
    pub(super) fn is_pinned(&self, tool: &Entry) -> bool {
        self.pin.as_ref().is_none_or(|pin| pin.get(&tool.name).is_some_and(|digest| *digest == tool.digest()))
    }

    fn offered(&self, catalogue: &Catalogue) -> Offered {
        let Catalogue { tools, prompts, resources, templates } = catalogue;
        let tools = tools.iter().filter(|entry| self.is_pinned(entry)).map(|entry| OfferedTool {
            name: entry.name.clone(),
            // The backend's own description of a tool grants nothing. Only a pin shows that somebody has read it.
            writes: self.pin.is_none(),
            input_schema: schema(entry),
            written: written(entry),
            ..OfferedTool::default()
        });
        let prompts = prompts.iter().map(|entry| OfferedPrompt {
            name: entry.name.clone(),
            written: written(entry),
            ..OfferedPrompt::default()
        });
        let resources = resources.iter().map(|entry| OfferedResource {
            uri: entry.name.clone(),
            written: written(entry),
            ..OfferedResource::default()
        });
        let templates = templates.iter().map(|entry| OfferedTemplate {
            uri_template: entry.name.clone(),
            written: written(entry),
            ..OfferedTemplate::default()
        });
        Offered::new(tools.collect(), prompts.collect(), resources.collect(), templates.collect())
    }
}

fn written(entry: &Entry) -> Option<Arc<str>> {
    Some(entry.written.to_text().into())
}

fn schema(tool: &Entry) -> Arc<JsonObject> {
    Arc::new(tool.written.read("inputSchema").unwrap_or_default())
}
