//! Statuses that the edge writes, in the terms of Gateway API.

use kube::ResourceExt;
use serde_json::{Value, json};

use super::kinds::{GROUP, GatewayClass, HTTPRoute};
use super::listeners::{Listener, Owner, Parent};
use super::routes::Attachment;
use super::{CLASS, CONTROLLER};
use crate::controller::{Verdict, conditions};

/// Status of a class of the edge.
pub(super) fn of_class(class: &GatewayClass) -> Value {
    let verdict = Verdict::new("Accepted", None);
    json!({ "conditions": conditions(class.metadata.generation, class.status.as_ref(), &[verdict]) })
}

/// Status of the Gateway or ListenerSet. `at` is its index among the parents.
pub(super) fn of_parent(at: usize, parents: &[Parent], attachments: &[Attachment]) -> Option<Value> {
    let parent = parents.get(at)?;
    let (generation, before) = match &parent.owner {
        Owner::Gateway(gateway) => (gateway.metadata.generation, gateway.status.as_ref()),
        Owner::ListenerSet(set) => (set.metadata.generation, set.status.as_ref()),
    };
    let mut invalid = parent.listeners.iter().filter(|listener| listener.problem().is_some());
    let words = invalid.next().and_then(|listener| Some((listener, &listener.problem()?.1)));
    let message = words.map(|(listener, why)| format!("listener {}: {why}", listener.spec.name)).unwrap_or_default();
    let is_any_valid = parent.listeners.iter().any(|listener| listener.problem().is_none());
    let refused = parent.refused.as_ref();
    let own = |kind, reason_if_invalid| match refused {
        Some(_) => Verdict::new(kind, refused),
        None if message.is_empty() => Verdict::new(kind, None),
        None => Verdict { kind, holds: is_any_valid, reason: reason_if_invalid, message: &message },
    };
    let accepted = own("Accepted", "ListenersNotValid");
    let mut programmed = own("Programmed", "Invalid");
    if programmed.holds {
        programmed.reason = "Programmed";
    }
    let listeners: Vec<Value> = parent
        .listeners
        .iter()
        .enumerate()
        .map(|(position, listener)| {
            let is_here = |one: &&Attachment| one.parent == at && one.listeners.contains(&position);
            of_listener(listener, generation, before, attachments.iter().filter(is_here).count())
        })
        .collect();
    let conditions = conditions(generation, before, &[accepted, programmed]);
    Some(match &parent.owner {
        Owner::ListenerSet(_) => json!({ "conditions": conditions, "listeners": listeners }),
        Owner::Gateway(gateway) => {
            let (namespace, name) = (gateway.namespace().unwrap_or_default(), gateway.name_any());
            json!({
                "conditions": conditions,
                "listeners": listeners,
                "addresses": [{ "type": "Hostname", "value": "localhost" }],
                "attachedListenerSets": parents.iter().filter(|set| is_set_of(set, &namespace, &name)).count(),
            })
        }
    })
}

fn is_set_of(parent: &Parent, namespace: &str, name: &str) -> bool {
    let Owner::ListenerSet(set) = &parent.owner else { return false };
    let own = set.namespace().unwrap_or_default();
    let gateway = &set.spec.parent_ref;
    parent.refused.is_none() && gateway.name == name && gateway.namespace(&own) == namespace
}

fn of_listener(listener: &Listener, generation: Option<i64>, before: Option<&Value>, attached_routes: usize) -> Value {
    let name = &listener.spec.name;
    let known = before.and_then(|status| status.get("listeners")).and_then(Value::as_array);
    let before = known.into_iter().flatten().find(|known| known["name"] == name.as_str());
    let invalid = listener.problem().map(|(_, why)| ("Invalid", why.clone()));
    let conflicted = match &listener.conflict {
        Some((reason, message)) => Verdict { kind: "Conflicted", holds: true, reason, message },
        None => Verdict { kind: "Conflicted", holds: false, reason: "NoConflicts", message: "" },
    };
    // A listener without TLS has no reference that could fail.
    let unresolved = listener.accepted.as_ref().ok().and(listener.certificate.as_ref().err());
    let verdicts = [
        Verdict::new("Accepted", listener.accepted.as_ref().err().or(listener.conflict.as_ref())),
        Verdict::new("Programmed", invalid.as_ref()),
        Verdict::new("ResolvedRefs", unresolved),
        conflicted,
    ];
    json!({
        "name": name,
        "supportedKinds": [{ "group": GROUP, "kind": "HTTPRoute" }],
        "attachedRoutes": attached_routes,
        "conditions": conditions(generation, before, &verdicts),
    })
}

/// Status of a route with these attachments. Entries of other controllers stay. Returns `None` for a route without
/// attachments to our parents.
pub(super) fn of_route(route: &HTTPRoute, attachments: &[&Attachment]) -> Option<Value> {
    let known = route.status.as_ref().and_then(|status| status.get("parents")).and_then(Value::as_array);
    let (ours, theirs): (Vec<&Value>, Vec<&Value>) =
        known.into_iter().flatten().partition(|parent| parent["controllerName"] == CONTROLLER);
    if ours.is_empty() && attachments.is_empty() {
        return None;
    }
    let mut parents: Vec<Value> = theirs.into_iter().cloned().collect();
    for attachment in attachments {
        let reference = json!(attachment.parent_ref).as_object().cloned().unwrap_or_default();
        // The API server would refuse a null.
        let reference: Value =
            reference.into_iter().filter(|(_, value)| !value.is_null()).collect::<serde_json::Map<_, _>>().into();
        let before = ours.iter().find(|parent| parent["parentRef"] == reference).copied();
        let verdicts = [
            Verdict::new("Accepted", attachment.accepted.as_ref().err()),
            Verdict::new("ResolvedRefs", attachment.resolved.as_ref().err()),
        ];
        parents.push(json!({
            "parentRef": reference,
            "controllerName": CONTROLLER,
            "conditions": conditions(route.metadata.generation, before, &verdicts),
        }));
    }
    Some(json!({ "parents": parents }))
}

/// Returns the class of the edge.
pub(super) fn class() -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "GatewayClass",
        "metadata": { "name": CLASS },
        "spec": { "controllerName": CONTROLLER },
    })
}
