//! Label selectors with bounds: Kubernetes' own schema has none, and refuses nothing before it is used.

use schemars::{Schema, SchemaGenerator, json_schema};

/// The schema of a LabelSelector that can be used.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    let value = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 63, "pattern": value},
                "description": "Labels with exactly these values.",
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "description": "Requirements, all of which must hold.",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "minLength": 1, "maxLength": 316, "description": "The label's key."},
                        "operator": {
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label relates to the values.",
                        },
                        "values": {
                            "type": "array",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63, "pattern": value},
                            "x-kubernetes-list-type": "atomic",
                            "description": "With In and NotIn at least one, else none.",
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(has(self.values) && size(self.values) > 0) == (self.operator in ['In', 'NotIn'])",
                        "message": "In and NotIn take values, Exists and DoesNotExist take none",
                    }],
                },
            },
        },
        "x-kubernetes-map-type": "atomic",
    })
}
