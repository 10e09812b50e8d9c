//! Schema of label selectors with bounds. The Kubernetes schema has none, so that errors appear only when the selector
//! is used.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Returns the schema of a LabelSelector with bounds and rules.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    let value = r"^(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?$";
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": {"type": "string", "maxLength": 63, "pattern": value},
                "description": "Labels that the object must have, with exactly these values.",
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "description": "Requirements on labels. The object must meet all of them.",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {"type": "string", "minLength": 1, "maxLength": 316, "description": "Key of the label."},
                        "operator": {
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "Relation of the label to the values.",
                        },
                        "values": {
                            "type": "array",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63, "pattern": value},
                            "x-kubernetes-list-type": "atomic",
                            "description": "Values of the label. Required with In and NotIn, otherwise not allowed.",
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(has(self.values) && size(self.values) > 0) == (self.operator in ['In', 'NotIn'])",
                        "message": "values are required with In and NotIn, and not allowed with Exists and DoesNotExist",
                    }],
                },
            },
        },
        "x-kubernetes-map-type": "atomic",
    })
}
