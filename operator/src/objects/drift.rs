//! Drift: differences between a live object and the desired one. Pure.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde_json::{Value, json};

use crate::objects::untrusted_text::{Quoted, word};

/// A field that differs from the desired value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Drift {
    /// The path to the field, last step first.
    steps: Vec<String>,
    /// The live value, if there is one.
    there: Option<Value>,
    desired: Value,
}

impl Drift {
    fn new(there: Option<&Value>, desired: &Value) -> Self {
        Self { steps: Vec::new(), there: there.cloned(), desired: desired.clone() }
    }

    fn within(mut self, step: String) -> Self {
        self.steps.push(step);
        self
    }

    /// Returns the field's path, such as `spec.template.spec.containers[server].image`.
    fn field(&self) -> String {
        let path: String = self.steps.iter().rev().map(String::as_str).collect();
        word(path.trim_start_matches('.'))
    }

    /// Returns the way to keep the field at its desired value.
    fn remedy(&self) -> &'static str {
        match self.steps.first().map(String::as_str) {
            Some(".image") => {
                "if that is a mirror, set it in the chart's value image.registry, or in spec.image if the McpServer sets its image; else exempt objects labelled app.kubernetes.io/managed-by=mcp-entra-operator from the change"
            }
            _ => "exempt objects labelled app.kubernetes.io/managed-by=mcp-entra-operator from the change",
        }
    }
}

impl fmt::Display for Drift {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let quoted = |value: &Value| Quoted::of(&word(&text(value)));
        let is = self.there.as_ref().map_or_else(|| "is absent".to_owned(), |there| format!("is {}", quoted(there)));
        write!(formatter, "{} {is} and should be {}; {}", self.field(), quoted(&self.desired), self.remedy())
    }
}

/// Returns the first field of an object that differs from the desired one. It copies only some metadata: managed fields
/// would be several times larger than the rest.
pub(crate) fn drift(there: &DynamicObject, desired: &Value) -> Result<Option<Drift>, serde_json::Error> {
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
    let mut own = members.filter(|(key, _)| !matches!(key.as_str(), "apiVersion" | "kind"));
    Ok(own.find_map(|(key, desired)| member(key, head.get(key).or_else(|| there.data.get(key)), desired)))
}

/// Returns the first difference from the desired value. Additions by others are allowed: members that are not set here,
/// and entries of lists that Kubernetes merges by name.
fn differs(there: &Value, desired: &Value) -> Option<Drift> {
    match (there, desired) {
        (Value::Object(there), Value::Object(desired)) => {
            desired.iter().find_map(|(key, desired)| member(key, there.get(key), desired))
        }
        (Value::Array(found), Value::Array(entries)) if are_named(entries) => {
            entries.iter().find_map(|entry| named(found, entry))
        }
        (Value::Array(found), Value::Array(entries)) if found.len() == entries.len() => {
            let pairs = found.iter().zip(entries).enumerate();
            pairs.filter_map(|(index, (found, entry))| Some(differs(found, entry)?.within(format!("[{index}]")))).next()
        }
        (there, desired) if there == desired => None,
        (there, desired) => Some(Drift::new(Some(there), desired)),
    }
}

fn member(key: &str, there: Option<&Value>, desired: &Value) -> Option<Drift> {
    let length = |list: &Value| list.as_array().map(Vec::len);
    let drift = match there {
        None if is_nothing(desired) => None,
        None => Some(Drift::new(None, desired)),
        // Others may restrict the nodes of the pods.
        Some(there) if key == "nodeSelector" => differs(there, desired),
        // An added label selects other pods: selectors are replaced as a whole.
        Some(there) if key == "selector" || key.ends_with("Selector") => {
            (there != desired).then(|| Drift::new(Some(there), desired))
        }
        // An added parent would expose the server elsewhere: no other writer may add to lists of references.
        Some(there) if key.ends_with("Refs") && length(there) != length(desired) => {
            Some(Drift::new(Some(there), desired))
        }
        // Tolerations have no name. Others may add some, in any order.
        Some(Value::Array(there)) if key == "tolerations" => {
            let is_there = |entry: &&Value| there.iter().any(|found| differs(found, entry).is_none());
            let missing = desired.as_array().into_iter().flatten().position(|entry| !is_there(&entry));
            missing.and_then(|index| Some(Drift::new(None, desired.get(index)?).within(format!("[{index}]"))))
        }
        Some(there) => differs(there, desired),
    };
    let is_word = key.chars().all(|char| char.is_ascii_alphanumeric());
    drift.map(|drift| drift.within(if is_word { format!(".{key}") } else { format!("[{key}]") }))
}

/// Returns the difference between an entry and the live entries of its name, if all of them differ.
fn named(found: &[Value], entry: &Value) -> Option<Drift> {
    let mut drift = Drift::new(None, entry);
    for found in found.iter().filter(|found| name_of(found) == name_of(entry)) {
        drift = differs(found, entry)?;
    }
    Some(drift.within(format!("[{}]", name_of(entry).unwrap_or_default())))
}

fn are_named(entries: &[Value]) -> bool {
    !entries.is_empty() && entries.iter().all(|entry| name_of(entry).is_some())
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("name").or_else(|| entry.get("topologyKey")).and_then(Value::as_str)
}

/// Returns true for empty members, which the API server does not store.
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
    use crate::objects::{child::ChildKind, fixtures::mk_owner, names::APPLIED_HASH};

    fn holds(there: &Value, desired: &Value) -> bool {
        differs(there, desired).is_none()
    }

    #[test]
    fn changes_of_the_operators_fields_are_drift_and_additions_of_others_are_not() {
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
    fn changes_of_the_operators_metadata_and_members_are_drift_and_foreign_ones_are_not() {
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
            drift(&serde_json::from_value(there).unwrap(), &desired).unwrap().is_none()
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

    #[test]
    fn the_field_its_value_and_the_wanted_one_are_named_with_a_remedy() {
        let desired = json!({
            "metadata": {"name": "graph", "annotations": {"mcp-entra.dev/a": "b"}},
            "spec": {"template": {"spec": {
                "containers": [{"name": "server", "image": "registry.example/server:1", "args": ["serve", "x"]}],
                "tolerations": [{"key": "a"}], "terminationGracePeriodSeconds": 40,
            }}},
        });
        let told = |pointer: &str, value: Value| {
            let mut there = desired.clone();
            *there.pointer_mut(pointer).unwrap() = value;
            drift(&serde_json::from_value(there).unwrap(), &desired).unwrap().unwrap().to_string()
        };
        let spec = "/spec/template/spec";
        let image = told(&format!("{spec}/containers/0/image"), json!("mirror.example/server:1"));
        let says = "spec.template.spec.containers[server].image is “mirror.example/server:1” and should be “registry.example/server:1”; ";
        assert!(image.starts_with(says) && image.contains("chart's value image.registry"), "{image}");
        let exempt = "exempt objects labelled app.kubernetes.io/managed-by=mcp-entra-operator from the change";
        for (pointer, value, says) in [
            ("/metadata/annotations", json!({}), "metadata.annotations[mcp-entra.dev/a] is absent and should be “b”"),
            (
                "/spec/template/spec/containers/0/args/1",
                json!("y"),
                "spec.template.spec.containers[server].args[1] is “y” and should be “x”",
            ),
            (
                "/spec/template/spec/containers/0/name",
                json!("other"),
                "spec.template.spec.containers[server] is absent and should be “{",
            ),
            (
                "/spec/template/spec/tolerations",
                json!([{"key": "b"}]),
                "spec.template.spec.tolerations[0] is absent and should be “{\"key\":\"a\"}”",
            ),
            (
                "/spec/template/spec/terminationGracePeriodSeconds",
                json!(1),
                "spec.template.spec.terminationGracePeriodSeconds is “1” and should be “40”",
            ),
        ] {
            let told = told(pointer, value);
            assert!(told.starts_with(says) && told.ends_with(exempt), "{told}");
        }
        let hostile =
            told(&format!("{spec}/containers/0/image"), json!(crate::objects::untrusted_text::tests::hostile()));
        crate::objects::untrusted_text::tests::assert_harmless(&hostile);
        assert!(hostile.chars().count() < 1024, "it fits into the note of an event");
    }
}
