//! A client's subscription (`subscriptions/listen`): the lists that it sees, and changed resources.
//!
//! Notifications only cover entries that the caller may see by the current policy.

use axum::body::Bytes;
use serde_json::{Value, json};

use super::envelope::{self, Kind};
use super::lists::Seen;
use super::{Exchange, Protocol, Revision};
use crate::authorize::{Filter, Permissions};
use crate::offer::{JsonObject, Offered};

const SUBSCRIPTION_ID: &str = "io.modelcontextprotocol/subscriptionId";

/// A listening client.
pub struct Subscription {
    id: Value,
    filter: Filter,
    seen: Seen,
    server_info: Value,
}

impl Protocol {
    /// Starts to listen for this client.
    pub(super) fn listen(&self, id: Value, mut filter: Filter, exchange: &Exchange) -> Subscription {
        let about = self.offer.about();
        filter.prompts &= about.prompts;
        filter.resources &= about.resources;
        if !about.updates_resources {
            filter.uris.clear();
        }
        filter.uris.retain(|uri| may_read(uri, &exchange.offered, &exchange.permissions));
        let seen = Seen::now(&exchange.offered, &exchange.permissions);
        Subscription { id, filter, seen, server_info: Value::clone(&self.server_info) }
    }
}

impl Subscription {
    /// The id of the request.
    pub fn id(&self) -> &Value {
        &self.id
    }

    /// URIs of the resources that the client listens to.
    pub fn uris(&self) -> &[String] {
        &self.filter.uris
    }

    /// Removes all resources except these.
    pub fn listen_only_to(&mut self, uris: Vec<String>) {
        self.filter.uris = uris;
    }

    /// Returns the first message: the notifications that the client gets.
    pub fn acknowledged(&self) -> Bytes {
        let mut accepted = JsonObject::new();
        let Filter { tools, prompts, resources, uris } = &self.filter;
        for (name, is_accepted) in
            [("toolsListChanged", tools), ("promptsListChanged", prompts), ("resourcesListChanged", resources)]
        {
            if *is_accepted {
                accepted.insert(name.to_owned(), json!(true));
            }
        }
        if !uris.is_empty() {
            accepted.insert("resourceSubscriptions".to_owned(), json!(uris));
        }
        self.notification("notifications/subscriptions/acknowledged", json!({ "notifications": accepted }))
    }

    /// Returns the messages about lists that have changed for the caller.
    pub fn changed(&mut self, offered: &Offered, permissions: &Permissions) -> Vec<Bytes> {
        let before = std::mem::replace(&mut self.seen, Seen::now(offered, permissions));
        let changes = [
            (self.filter.tools && before.tools != self.seen.tools, "notifications/tools/list_changed"),
            (self.filter.prompts && before.prompts != self.seen.prompts, "notifications/prompts/list_changed"),
            (self.filter.resources && before.resources != self.seen.resources, "notifications/resources/list_changed"),
        ];
        let changed = changes.into_iter().filter(|(is_changed, _)| *is_changed);
        changed.map(|(_, method)| self.notification(method, json!({}))).collect()
    }

    /// Returns the message about a resource with changed content, if the client listens to it and may read it.
    pub fn updated(&self, uri: &str, offered: &Offered, permissions: &Permissions) -> Option<Bytes> {
        let listens = self.filter.uris.iter().any(|listened| listened == uri);
        (listens && may_read(uri, offered, permissions))
            .then(|| self.notification("notifications/resources/updated", json!({ "uri": uri })))
    }

    /// Returns the messages about all resources that the client listens to and may read, since any of them may have
    /// changed.
    pub fn all_updated(&self, offered: &Offered, permissions: &Permissions) -> Vec<Bytes> {
        self.filter.uris.iter().filter_map(|uri| self.updated(uri, offered, permissions)).collect()
    }

    /// Returns the last message.
    pub fn ended(&self) -> Bytes {
        let result = JsonObject::from_iter([("_meta".to_owned(), json!({ SUBSCRIPTION_ID: self.id }))]);
        let result = envelope::complete(result, Revision::V2026_07_28, Kind::Once, &self.server_info);
        envelope::result(&self.id, &Value::Object(result).to_string())
    }

    fn notification(&self, method: &str, mut params: Value) -> Bytes {
        if let Value::Object(params) = &mut params {
            params.insert("_meta".to_owned(), json!({ SUBSCRIPTION_ID: self.id }));
        }
        envelope::notification(method, &params)
    }
}

fn may_read(uri: &str, offered: &Offered, permissions: &Permissions) -> bool {
    offered.has_resource(uri) && permissions.allow(mcp_entra_policy::Operation::Resource(uri))
}
