//! The CustomResourceDefinitions as the API server gets them: what derives from the types, mended where derivation
//! falls short of the conventions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{ClusterMcpRoleMapping, McpRoleMapping, McpServer};

/// The definitions of every kind.
pub fn custom_resource_definitions() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    [McpServer::crd(), McpRoleMapping::crd(), ClusterMcpRoleMapping::crd()].into_iter().map(mend).collect()
}

/// A definition as the YAML document that `crds/yaml` holds and `mcp-entra-operator crds` prints.
pub fn definition_yaml(definition: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    // Through a value: the API server's own order of members is nothing to keep, and a stable one is.
    serde_yaml::to_string(&serde_yaml::to_value(definition)?)
}

fn mend(definition: CustomResourceDefinition) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut value = serde_json::to_value(definition)?;
    mend_schema(&mut value);
    let versions = value.pointer_mut("/spec/versions").and_then(Value::as_array_mut);
    for version in versions.into_iter().flatten() {
        let conditions = "/schema/openAPIV3Schema/properties/status/properties/conditions";
        if let Some(conditions) = version.pointer_mut(conditions) {
            *conditions = conditions_schema();
        }
        // Without it, kstatus (Flux, Helm) takes an object that nobody has looked at yet for healthy.
        if let Some(status) = version.pointer_mut("/schema/openAPIV3Schema/properties/status") {
            status["default"] = json!({"observedGeneration": -1});
        }
    }
    serde_json::from_value(value)
}

/// An absent member is absent, never null; unsigned formats are unknown to Kubernetes.
fn mend_schema(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("nullable");
            if members.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                members.remove("format");
            }
            members.values_mut().for_each(mend_schema);
        }
        Value::Array(items) => items.iter_mut().for_each(mend_schema),
        _ => {}
    }
}

/// The limits and the list type that metav1.Condition has in built-in kinds.
fn conditions_schema() -> Value {
    json!({
        "description": "What is so now, one entry a type.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When `status` last changed."},
                "message": {"type": "string", "maxLength": 32768, "description": "For people: what is so, and what to do next."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "The generation of the spec that this is about."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", "description": "For programs: a stable word in CamelCase."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
                "type": {"type": "string", "maxLength": 316}
            }
        }
    })
}
