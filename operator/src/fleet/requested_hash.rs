//! Hash of the parts of an McpServer that its author sets and pods depend on. A changed hash means that the author asks
//! for a rollout, which waits for no turn. Pure.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use mcp_entra_crds::{McpServer, McpServerSpec};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// The version of the hash. Raise it if the hash of an unchanged McpServer changes, such as after a changed schema
/// default. Hashes of different versions are not comparable.
const VERSION: &str = "v1-";

/// The hash of what the author asks of the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestedHash(String);

impl RequestedHash {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns true if the annotation is of a different request. An annotation of another version is no evidence.
    pub(crate) fn differs_from(&self, annotation: Option<&str>) -> bool {
        Self::is_comparable(annotation) && annotation != Some(&self.0)
    }

    /// Returns true if the annotation is of this version.
    pub(crate) fn is_comparable(annotation: Option<&str>) -> bool {
        annotation.is_some_and(|annotation| annotation.starts_with(VERSION))
    }

    #[cfg(test)]
    pub(crate) fn mk(digits: &str) -> Self {
        Self(format!("{VERSION}{digits}"))
    }
}

/// Content of other objects that the author refers to and pods read only at their start.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadOnce {
    /// Certificates of the trust bundle.
    pub(crate) certificates: Option<String>,
    /// Certificates of the CA of the session store.
    pub(crate) store_certificates: Option<String>,
    /// Numbers of an authorization server's key epochs, which annotations can request.
    pub(crate) epochs: Option<Vec<u32>>,
}

/// Hashes what the author asks of the pods, as canonical JSON: the keys of a [`Map`] are sorted.
///
/// # Errors
/// The spec cannot be serialised as JSON, which does not happen.
pub(crate) fn requested_hash(spec: &McpServerSpec, read: &ReadOnce) -> Result<RequestedHash, serde_json::Error> {
    let mut asked = json!({"spec": of_the_pods(spec)?, "certificates": read.certificates});
    // A member that all servers have would change all of their hashes.
    if let (Some(epochs), Some(asked)) = (&read.epochs, asked.as_object_mut()) {
        asked.insert("epochs".to_owned(), json!(epochs));
        asked.insert("storeCertificates".to_owned(), json!(read.store_certificates));
    }
    let mut digits = hex::encode(Sha256::digest(asked.to_string()));
    digits.truncate(16);
    Ok(RequestedHash(format!("{VERSION}{digits}")))
}

/// Returns the parts of the spec that pods depend on, without members that equal the schema's defaults. It leaves out
/// the number of pods, who can reach them, and the route to them. It keeps host, path and allowed origins, which are in
/// the pods' configuration.
fn of_the_pods(spec: &McpServerSpec) -> Result<Value, serde_json::Error> {
    static SCHEMA: LazyLock<Option<JSONSchemaProps>> = LazyLock::new(spec_schema);
    let mut asked = serde_json::to_value(spec)?;
    if let Value::Object(asked) = &mut asked {
        for field in ["replicas", "autoscaling", "networkPolicy", "suspend"] {
            asked.remove(field);
        }
        if let Some(Value::Object(exposure)) = asked.get_mut("exposure") {
            exposure.retain(|field, _| matches!(field.as_str(), "host" | "path" | "allowedOrigins"));
        }
        if let Some(Value::Object(backend)) = asked.get_mut("backend") {
            backend.remove("egress");
        }
    }
    Ok(without_defaults(asked, SCHEMA.as_ref()))
}

/// Returns the schema of `spec`.
fn spec_schema() -> Option<JSONSchemaProps> {
    let version = McpServer::crd().spec.versions.into_iter().next()?;
    version.schema?.open_api_v3_schema?.properties?.remove("spec")
}

/// Removes the members that equal the schema's defaults. The API server adds defaults on read, so a default of a new
/// version appears in objects that nobody has changed.
fn without_defaults(value: Value, schema: Option<&JSONSchemaProps>) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter_map(|(name, value)| {
                let schema = member_of(schema, &name);
                let value = without_defaults(value, schema);
                let default = schema.and_then(|schema| schema.default.as_ref()).map(|default| default.0.clone());
                let is_default = match default {
                    Some(default) => value == without_defaults(default, schema),
                    None => value.is_null() || value == "",
                };
                (!is_default).then_some((name, value))
            });
            Value::Object(kept.collect::<Map<_, _>>())
        }
        Value::Array(items) => {
            let schema = schema.and_then(|schema| match schema.items.as_ref()? {
                JSONSchemaPropsOrArray::Schema(schema) => Some(&**schema),
                JSONSchemaPropsOrArray::Schemas(_) => None,
            });
            Value::Array(items.into_iter().map(|item| without_defaults(item, schema)).collect())
        }
        value => value,
    }
}

/// Returns the schema of a member: the named one, or the one of all members of a map.
fn member_of<'a>(schema: Option<&'a JSONSchemaProps>, name: &str) -> Option<&'a JSONSchemaProps> {
    let schema = schema?;
    let named = schema.properties.as_ref().and_then(|properties| properties.get(name));
    named.or(match schema.additional_properties.as_ref() {
        Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(schema),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::fixtures::mk_server;

    /// A spec with every member that an author can set, and as few members as possible in each list entry.
    fn mk_written() -> Value {
        json!({
            "entra": {
                "tenantId": "8f6b0000-0000-0000-0000-00000000000a",
                "clientId": "1c2d0000-0000-0000-0000-00000000000b",
                "audiences": ["api://graph"],
                "requiredScopes": ["mcp.use"],
                "allowedClients": ["aebc6443-996d-45c2-90f0-388ff96faa56"],
                "tokenVersions": ["V1"],
                "groups": "InToken",
                "endpoints": {"authority": "https://login.example", "graph": "https://graph.example"},
                "trustBundle": {"name": "corporate"},
                "federation": {"injection": "Webhook"},
            },
            "graph": {"scopes": ["User.Read"], "tools": ["list_*"], "access": "Application"},
            "exposure": {"host": "graph.example", "path": "/graph", "tls": {"secretName": "graph-tls"}},
            "rateLimit": {"perUser": {"requests": 7, "per": "90s"}},
            "audit": {"hashChain": true},
            "podTemplate": {
                "env": [{"name": "NO_PROXY"}],
                "tolerations": [{"operator": "Exists"}],
                "imagePullSecrets": [{"name": "registry"}],
                "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
                "affinity": {"podAntiAffinity": {}},
                "resources": {"limits": {"cpu": 1}},
            },
            "image": "registry.example/one:1",
        })
    }

    fn read(spec: &Value) -> McpServerSpec {
        serde_json::from_value(spec.clone()).unwrap()
    }

    fn hash(spec: &Value) -> RequestedHash {
        requested_hash(&read(spec), &ReadOnce::default()).unwrap()
    }

    fn patched(patch: Value) -> Value {
        let mut spec = mk_written();
        json_patch::merge(&mut spec, &patch);
        spec
    }

    #[test]
    fn the_hash_covers_the_authors_fields_and_no_defaults() {
        let of_the_pods = |spec: &Value| of_the_pods(&read(spec)).unwrap();
        let written = patched(json!({"exposure": {"tls": null}}));
        assert_eq!(of_the_pods(&mk_written()), written);
        let fewest = json!({"entra": {"tenantId": "a", "clientId": "b"}, "graph": {"scopes": ["User.Read"]}});
        assert_eq!(of_the_pods(&fewest), fewest);
    }

    #[test]
    fn only_fields_that_change_the_pods_request_a_rollout() {
        for asking in [
            json!({"image": "registry.example/one:2"}),
            json!({"image": null}),
            json!({"entra": {"requiredScopes": null}}),
            json!({"entra": {"tokenVersions": ["V1", "V2"]}}),
            json!({"entra": {"federation": {"tokenExpirationSeconds": 7200}}}),
            json!({"graph": {"access": null}}),
            json!({"exposure": {"host": "other.example"}}),
            json!({"exposure": {"path": null}}),
            json!({"exposure": {"allowedOrigins": ["https://inspector.example"]}}),
            json!({"rateLimit": {"perUser": {"requests": 8}}}),
            json!({"audit": null}),
            json!({"podTemplate": {"env": [{"name": "NO_PROXY", "value": "x"}]}}),
            json!({"podTemplate": {"resources": {"limits": {"cpu": 2}}}}),
        ] {
            assert_ne!(hash(&patched(asking.clone())), hash(&mk_written()), "{asking}");
        }
        for other in [
            json!({"replicas": 3}),
            json!({"autoscaling": {"minReplicas": 1, "maxReplicas": 2}}),
            json!({"networkPolicy": {"allowFrom": [{"podSelector": {}}]}}),
            json!({"suspend": true}),
            json!({"exposure": {"ingress": {"className": "nginx"}}}),
            json!({"exposure": {"tls": {"secretName": "other-tls"}}}),
            json!({"exposure": {"requestTimeout": "90s"}}),
            json!({"entra": {"cloud": "Public", "trustBundle": {"key": "ca.crt"}}}),
            json!({"podTemplate": {"env": [{"name": "NO_PROXY", "value": ""}]}}),
        ] {
            assert_eq!(hash(&patched(other.clone())), hash(&mk_written()), "{other}");
        }
        let with = |read: &ReadOnce| requested_hash(&mk_server().spec, read).unwrap();
        let trust = |certificates: &str| ReadOnce { certificates: Some(certificates.into()), ..ReadOnce::default() };
        assert_ne!(with(&trust("one")), with(&trust("other")));
        let sign_in = |epochs: &[u32], store: &str| ReadOnce {
            epochs: Some(epochs.to_vec()),
            store_certificates: Some(store.into()),
            ..ReadOnce::default()
        };
        assert_ne!(with(&sign_in(&[1], "one")), with(&sign_in(&[1, 2], "one")));
        assert_ne!(with(&sign_in(&[1], "one")), with(&sign_in(&[1], "other")));
    }

    #[test]
    fn every_field_of_a_backend_except_its_egress_requests_a_rollout() {
        let with = |changes: Value| {
            let mut backend =
                json!({"image": "registry.example/mcp/time:1", "transport": "Stdio", "command": ["time"]});
            json_patch::merge(&mut backend, &changes);
            hash(&patched(json!({"graph": null, "backend": backend})))
        };
        let before = with(json!({}));
        for asking in [
            json!({"image": "registry.example/mcp/time:2"}),
            json!({"args": ["--utc"]}),
            json!({"identity": {"assertion": {}}}),
            json!({"pin": {"now": "0123456789abcdef0123456789abcdef"}}),
            json!({"writableDirs": []}),
        ] {
            assert_ne!(with(asking.clone()), before, "{asking}");
        }
        for other in [
            json!({"egress": [{"cidr": "10.0.0.0/8", "ports": [443]}]}),
            json!({"writableDirs": ["/tmp"]}),
            json!({"sessions": "PerPrincipal"}),
        ] {
            assert_eq!(with(other.clone()), before, "{other}");
        }
    }

    #[test]
    fn fields_and_defaults_that_a_new_version_adds_do_not_change_what_is_hashed() {
        let added = json!({
            "retries": {"type": "integer"},
            "compress": {"type": "boolean", "default": true},
            "limits": {"type": "object", "default": {}, "properties": {
                "perCall": {"type": "integer", "default": 5}, "burst": {"type": "integer"}}},
            "hosts": {"type": "array", "default": ["a"], "items": {"type": "string"}},
        });
        let mut schema = serde_json::to_value(spec_schema().unwrap()).unwrap();
        let entra = schema.pointer_mut("/properties/entra/properties").unwrap();
        json_patch::merge(entra, &added);
        let newer: JSONSchemaProps = serde_json::from_value(schema).unwrap();
        let hashed = |patch: Value| without_defaults(patched(json!({"entra": patch})), Some(&newer));
        let before = without_defaults(mk_written(), spec_schema().as_ref());

        assert_eq!(hashed(json!({})), before, "an absent optional field");
        let filled = json!({"compress": true, "limits": {"perCall": 5}, "hosts": ["a"]});
        assert_eq!(hashed(filled), before, "defaults that the API server filled in");
        for asked in [
            json!({"retries": 0}),
            json!({"compress": false}),
            json!({"limits": {"perCall": 6}}),
            json!({"limits": {"perCall": 5, "burst": 0}}),
            json!({"hosts": ["a", "b"]}),
            json!({"hosts": []}),
        ] {
            assert_ne!(hashed(asked.clone()), before, "{asked}");
        }
    }

    #[test]
    fn a_hash_of_another_version_does_not_count_as_a_request_of_the_author() {
        let hash = RequestedHash::mk("0123456789abcdef");
        assert!(hash.differs_from(Some("v1-fedcba9876543210")));
        for annotation in [None, Some(""), Some("fedcba9876543210"), Some("v2-fedcba9876543210"), Some(hash.as_str())] {
            assert!(!hash.differs_from(annotation), "{annotation:?}");
        }
    }

    #[test]
    fn the_hash_of_an_unchanged_spec_stays_while_the_version_does() {
        // A changed hash rolls out every server at once: raise VERSION in the same change.
        assert_eq!(hash(&mk_written()).as_str(), "v1-9f5bbf12bf72b55e");
    }
}
