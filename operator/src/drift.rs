//! Drift: whether what is there is still as built. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::{Value, json};

/// Whether an object is as built. A copy of all of it would be mostly of who manages which field: several times the rest.
pub(crate) fn is_as_built(there: &DynamicObject, desired: &Value) -> Result<bool, serde_json::Error> {
    let ObjectMeta { name, namespace, labels, annotations, owner_references, .. } = &there.metadata;
    let metadata = ObjectMeta {
        name: name.clone(),
        namespace: namespace.clone(),
        labels: labels.clone(),
        annotations: annotations.clone(),
        owner_references: owner_references.clone(),
        ..ObjectMeta::default()
    };
    let head = json!({"metadata": serde_json::to_value(metadata)?});
    let members = desired.as_object().into_iter().flatten();
    Ok(members.filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind")).all(|(key, desired)| {
        match head.get(key).or_else(|| there.data.get(key)) {
            None => is_nothing(desired),
            Some(there) => holds(there, desired),
        }
    }))
}

/// Whether everything that is desired stands in what is there. What others add is theirs: members that we do not set,
/// and entries of lists that Kubernetes merges by name.
fn holds(there: &Value, desired: &Value) -> bool {
    match (there, desired) {
        (Value::Object(there), Value::Object(desired)) => desired.iter().all(|(key, desired)| match there.get(key) {
            None => is_nothing(desired),
            // One more label selects other pods: selectors are replaced as a whole.
            Some(there) if key == "selector" || key.ends_with("Selector") => there == desired,
            // One more parent would expose the server elsewhere: lists of references are nobody's to add to.
            Some(there) if key.ends_with("Refs") => holds_each(there, desired),
            Some(there) => holds(there, desired),
        }),
        (Value::Array(there), Value::Array(desired)) => {
            let named = !desired.is_empty() && desired.iter().all(|entry| name_of(entry).is_some());
            if named {
                desired
                    .iter()
                    .all(|entry| there.iter().any(|found| name_of(found) == name_of(entry) && holds(found, entry)))
            } else {
                there.len() == desired.len() && there.iter().zip(desired).all(|(there, desired)| holds(there, desired))
            }
        }
        (there, desired) => there == desired,
    }
}

fn holds_each(there: &Value, desired: &Value) -> bool {
    let length = |list: &Value| list.as_array().map(Vec::len);
    length(there) == length(desired) && holds(there, desired)
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("name").or_else(|| entry.get("topologyKey")).and_then(Value::as_str)
}

/// Empty members are not stored.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{child::ChildKind, owner::APPLIED_HASH, validate::tests::mk_owner};

    #[test]
    fn what_others_add_is_theirs_and_what_they_change_of_ours_is_noticed() {
        let desired = json!({
            "metadata": {"labels": {"a": "1"}, "annotations": {}},
            "spec": {"replicas": 2, "containers": [{"name": "server", "args": ["x"], "env": [{"name": "A", "value": "1"}]}]},
        });
        let there = json!({
            "metadata": {"labels": {"a": "1", "b": "2"}, "uid": "x"},
            "spec": {"replicas": 2, "paused": false, "containers": [
                {"name": "sidecar"},
                {"name": "server", "args": ["x"], "tty": false, "env": [{"name": "B"}, {"name": "A", "value": "1"}]},
            ]},
        });
        assert!(holds(&there, &desired));
        for (pointer, value) in [
            ("/spec/replicas", json!(3)),
            ("/metadata/labels/a", json!("2")),
            ("/spec/containers/1/args", json!(["x", "y"])),
            ("/spec/containers/1/env/1/value", json!("2")),
            ("/spec/containers/1/name", json!("other")),
            ("/spec/containers/1/env", json!([])),
        ] {
            let mut changed = there.clone();
            *changed.pointer_mut(pointer).unwrap() = value;
            assert!(!holds(&changed, &desired), "{pointer}");
        }
    }

    #[test]
    fn a_change_of_metadata_or_of_any_other_member_is_noticed_and_what_is_not_ours_is_not() {
        let mut desired = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"policy.json": "{}"}, "binaryData": {},
            "metadata": mk_owner().child_metadata(ChildKind::Policy),
        });
        desired["metadata"]["annotations"] = json!({APPLIED_HASH: "hash"});
        let is_held = |pointer: &str, value: Value| {
            let mut there = desired.clone();
            there["metadata"]["uid"] = json!("u");
            there["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
            there["data"]["a"] = json!("b");
            *there.pointer_mut(pointer).unwrap() = value;
            is_as_built(&serde_json::from_value(there).unwrap(), &desired).unwrap()
        };
        assert!(is_held("/metadata/uid", json!("other")) && is_held("/data/a", json!("other")));
        for (pointer, value) in [
            ("/data/policy.json", json!("[]")),
            ("/data", json!({})),
            ("/metadata/labels/app.kubernetes.io~1instance", json!("other")),
            ("/metadata/annotations/mcp-entra.dev~1applied-hash", json!("other")),
            ("/metadata/ownerReferences/0/uid", json!("other")),
            ("/metadata/ownerReferences", json!([])),
        ] {
            assert!(!is_held(pointer, value), "{pointer}");
        }
    }

    #[test]
    fn lists_that_are_replaced_as_a_whole_must_be_equal() {
        let desired = json!({"rules": [{"host": "a"}]});
        assert!(holds(&json!({"rules": [{"host": "a", "more": 1}]}), &desired));
        assert!(!holds(&json!({"rules": [{"host": "a"}, {"host": "b"}]}), &desired));
        assert!(!holds(&json!({"rules": []}), &desired));
    }

    #[test]
    fn one_more_parent_of_a_route_is_noticed() {
        let desired = json!({"parentRefs": [{"name": "shared", "namespace": "infra"}]});
        let ours = json!({"name": "shared", "namespace": "infra", "kind": "Gateway"});
        assert!(holds(&json!({"parentRefs": [ours]}), &desired));
        assert!(!holds(&json!({"parentRefs": [ours, {"name": "public"}]}), &desired));
    }

    #[test]
    fn an_empty_value_that_is_not_stored_is_held() {
        let desired = json!({"env": [{"name": "NO_PROXY", "value": ""}]});
        assert!(holds(&json!({"env": [{"name": "NO_PROXY"}]}), &desired));
        assert!(!holds(&json!({"env": [{"name": "NO_PROXY", "value": "x"}]}), &desired));
    }

    #[test]
    fn a_selector_with_one_more_label_is_another() {
        let desired = json!({"spec": {"selector": {"a": "1"}}});
        assert!(holds(&json!({"spec": {"selector": {"a": "1"}, "type": "ClusterIP"}}), &desired));
        assert!(!holds(&json!({"spec": {"selector": {"a": "1", "b": "2"}}}), &desired));
    }

    #[test]
    fn a_pod_selector_with_one_more_label_selects_fewer_pods_and_is_noticed() {
        let desired = json!({"spec": {"podSelector": {"matchLabels": {"a": "1"}}}});
        assert!(holds(&desired, &desired));
        assert!(!holds(&json!({"spec": {"podSelector": {"matchLabels": {"a": "1", "b": "2"}}}}), &desired));
    }
}
