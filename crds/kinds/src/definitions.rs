//! CustomResourceDefinitions as the API server gets them. They are derived from the types and then corrected to follow
//! the Kubernetes API conventions.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{ClusterMcpRoleMapping, McpRoleMapping, McpServer};

/// Returns the definitions of all kinds.
pub fn custom_resource_definitions() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    [McpServer::crd(), McpRoleMapping::crd(), ClusterMcpRoleMapping::crd()].into_iter().map(mend).collect()
}

/// Returns a definition as a YAML document, as in `crds/yaml` and in the output of `mcp-entra-operator crds`.
pub fn definition_yaml(definition: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    // Converted to a value first, so that the order of members is stable.
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
        // Without this default, kstatus (Flux, Helm) reports a new object as healthy before the operator has reconciled
        // it.
        if let Some(status) = version.pointer_mut("/schema/openAPIV3Schema/properties/status") {
            status["default"] = json!({"observedGeneration": -1});
        }
    }
    serde_json::from_value(value)
}

/// Removes `nullable`, since absent members are never null, and unsigned formats, which Kubernetes does not know.
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

/// Returns the schema of conditions, with the limits and the list type that metav1.Condition has in built-in kinds.
fn conditions_schema() -> Value {
    json!({
        "description": "Conditions of the object, one for each type.",
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "Time of the last change of `status`."},
                "message": {"type": "string", "maxLength": 32768, "description": "Description of the state and the next step, for people."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "Generation of the spec that the condition describes."},
                "reason": {"type": "string", "minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$", "description": "Reason of the state, for programs: a stable identifier in CamelCase."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Status of the condition."},
                "type": {"type": "string", "maxLength": 316, "description": "Type of the condition."}
            }
        }
    })
}
