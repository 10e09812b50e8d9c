//! Clients that subscribe to changes.

use std::collections::HashSet;
use std::sync::Mutex;

use serde_json::{Value, json};

use super::backend::{Backend, lock};
use super::message;
use super::outlet::{Outlet, Output};

/// Maximum number of listening clients.
const MOST: usize = 1_000;

/// Listening clients.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    listeners: Mutex<Vec<Listener>>,
    /// Sessions and URIs of the legacy era.
    resources: Mutex<HashSet<(String, String)>>,
}

#[derive(Clone, Debug)]
struct Listener {
    session: String,
    outlet: Outlet,
    /// The id of the request and its filter, in the modern era.
    filter: Option<(Value, Value)>,
}

impl Listener {
    fn wants_list(&self, kind: &str) -> bool {
        let asked = |(_, filter): &(Value, Value)| filter.get(format!("{kind}ListChanged")) == Some(&json!(true));
        self.filter.as_ref().is_none_or(asked)
    }

    fn wants_resource(&self, uri: &str, legacy: &HashSet<(String, String)>) -> bool {
        match &self.filter {
            Some((_, filter)) => {
                let uris = filter.get("resourceSubscriptions").and_then(Value::as_array);
                uris.is_some_and(|uris| uris.iter().any(|of| of == uri))
            }
            None => legacy.contains(&(self.session.clone(), uri.to_owned())),
        }
    }

    async fn tell(&self, method: &str, mut params: Value) {
        if let (Some((id, _)), Some(params)) = (&self.filter, params.as_object_mut()) {
            params.insert("_meta".to_owned(), json!({ "io.modelcontextprotocol/subscriptionId": id }));
        }
        self.outlet.send(Output::Message(message::notification(method, &params))).await;
    }
}

impl Subscriptions {
    fn add(&self, listener: Listener) {
        let mut listeners = lock(&self.listeners);
        if listeners.len() < MOST {
            listeners.push(listener);
        }
    }

    /// The number of listening clients.
    pub(super) fn len(&self) -> usize {
        lock(&self.listeners).len()
    }

    pub(super) fn subscribe(&self, session: &str, uri: &str) {
        lock(&self.resources).insert((session.to_owned(), uri.to_owned()));
    }

    pub(super) fn unsubscribe(&self, session: &str, uri: &str) {
        lock(&self.resources).remove(&(session.to_owned(), uri.to_owned()));
    }

    /// Forgets everything about a session, which ends its streams.
    pub(super) fn end(&self, session: &str) {
        lock(&self.listeners).retain(|listener| listener.session != session);
        lock(&self.resources).retain(|(of, _)| of != session);
    }

    fn listeners(&self) -> Vec<Listener> {
        lock(&self.listeners).clone()
    }
}

impl Backend {
    /// Sends changes to a legacy client over stdio.
    pub(super) fn listen_on_stdio(&self, outlet: Outlet) {
        if self.options.era == super::Era::Legacy {
            self.listen_in_session("", outlet);
        }
    }

    /// Sends changes to a legacy client by this outlet.
    pub(super) fn listen_in_session(&self, session: &str, outlet: Outlet) {
        self.subscriptions.add(Listener { session: session.to_owned(), outlet, filter: None });
    }

    /// Sends the requested changes to a modern client, in the answer to its request.
    pub(super) async fn listen(&self, id: Value, filter: Value, outlet: Outlet) {
        // No session has this name, so none ends it.
        let listener =
            Listener { session: format!("listen {}", self.next()), outlet, filter: Some((id, filter.clone())) };
        listener.tell("notifications/subscriptions/acknowledged", json!({ "notifications": filter })).await;
        let (session, outlet) = (listener.session.clone(), listener.outlet.clone());
        self.subscriptions.add(listener);
        outlet.closed().await;
        self.subscriptions.end(&session);
    }

    /// Sends to all listening clients that a list has changed: `tools`, `prompts` or `resources`.
    pub(super) async fn announce_list(&self, kind: &str) {
        for listener in self.subscriptions.listeners() {
            if listener.wants_list(kind) {
                listener.tell(&format!("notifications/{kind}/list_changed"), json!({})).await;
            }
        }
    }

    /// Sends to subscribed clients that a resource has changed.
    pub(super) async fn announce_resource(&self, uri: &str) {
        let legacy = lock(&self.subscriptions.resources).clone();
        for listener in self.subscriptions.listeners() {
            if listener.wants_resource(uri, &legacy) {
                self.tell_of_resource(&listener, uri).await;
            }
        }
    }

    /// Sends to all listening clients that a resource has changed, subscribed or not.
    pub(super) async fn announce_resource_to_all(&self, uri: &str) {
        for listener in self.subscriptions.listeners() {
            self.tell_of_resource(&listener, uri).await;
        }
    }

    async fn tell_of_resource(&self, listener: &Listener, uri: &str) {
        listener.tell("notifications/resources/updated", json!({ "uri": uri })).await;
    }
}
