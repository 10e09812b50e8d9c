//! Description of this server: answers to `initialize` and `server/discover`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Revision;
use super::envelope::{self, Kind};
use crate::offer::{About, JsonObject};

/// The answers, as JSON text.
pub(super) struct Description {
    capabilities: Value,
    about: Arc<About>,
    server_info: Value,
    discovered: String,
}

impl Description {
    pub(super) fn new(about: Arc<About>, has_subscriptions: bool) -> Self {
        let server_info = envelope::server_info(&about.title);
        let discovered = JsonObject::from_iter([
            ("supportedVersions".to_owned(), json!(Revision::ALL.map(Revision::name))),
            ("capabilities".to_owned(), capabilities(&about, has_subscriptions)),
            ("instructions".to_owned(), json!(about.instructions)),
        ]);
        let discovered = envelope::complete(discovered, Revision::V2026_07_28, Kind::Cacheable, &server_info);
        let discovered = Value::Object(discovered).to_string();
        Self { capabilities: capabilities(&about, false), server_info, discovered, about }
    }

    /// The name and version of this server.
    pub(super) fn server_info(&self) -> &Value {
        &self.server_info
    }

    /// The answer to `server/discover`.
    pub(super) fn discovered(&self) -> &str {
        &self.discovered
    }

    /// The answer to `initialize`.
    pub(super) fn initialized(&self, revision: Revision) -> String {
        json!({
            "protocolVersion": revision.name(),
            "capabilities": self.capabilities,
            "serverInfo": self.server_info,
            "instructions": self.about.instructions,
        })
        .to_string()
    }

    pub(super) fn about(&self) -> &Arc<About> {
        &self.about
    }
}

/// Capabilities of the server. Only listening clients get notifications, which exist since 2026-07-28.
fn capabilities(about: &About, has_subscriptions: bool) -> Value {
    let list = if has_subscriptions { json!({ "listChanged": true }) } else { json!({}) };
    let resources = match has_subscriptions && about.updates_resources {
        true => json!({ "listChanged": true, "subscribe": true }),
        false => list.clone(),
    };
    let capabilities = [
        (true, "tools", list.clone()),
        (about.prompts, "prompts", list),
        (about.resources, "resources", resources),
        (about.completions, "completions", json!({})),
        (about.logs, "logging", json!({})),
    ];
    let capabilities = capabilities.into_iter().filter(|(is_there, ..)| *is_there);
    Value::Object(capabilities.map(|(_, name, capability)| (name.to_owned(), capability)).collect())
}
