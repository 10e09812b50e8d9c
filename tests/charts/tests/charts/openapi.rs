//! Validation of the rendered charts with the schemas of the oldest and the newest supported Kubernetes, and of
//! third-party kinds.

use std::collections::BTreeMap;

use jsonschema::Validator;
use serde_json::{Map, Value, json};
use testbed::chart::rendered;
use testbed::definitions;
use testbed::helm::Helm;
use testbed::openapi::Kubernetes;
use testbed::supervisor::Supervisor;

use crate::values;

const COMPONENTS: &str = "#/components/schemas/";

/// Returns the objects that the chart renders with these values for this version of Kubernetes, including the kinds.
pub(crate) async fn render(values: &Value, version: &str) -> Vec<Value> {
    let helm = Helm::offline(&Supervisor::start().unwrap()).await.unwrap();
    rendered(&helm, &["--kube-version", version, "--set-json", &values.to_string()]).await.unwrap()
}

/// Schemas of a version of Kubernetes, and of third-party definitions. Each kind's schema is built once.
struct Schemas {
    kubernetes: Kubernetes,
    others: Vec<Value>,
    known: BTreeMap<(String, String), Option<Validator>>,
}

impl Schemas {
    fn of(kubernetes: Kubernetes, others: &[Value]) -> Self {
        Self { kubernetes, others: others.to_vec(), known: BTreeMap::new() }
    }

    /// Returns the schema errors of an object.
    fn faults(&mut self, object: &Value) -> Vec<String> {
        let text = |key: &str| object[key].as_str().unwrap().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let Self { kubernetes, others, known } = self;
        let validator = known.entry((api_version.clone(), kind.clone())).or_insert_with(|| {
            let own = kubernetes.document(&api_version).unwrap();
            let own = own.and_then(|document| of_kind(&document, &api_version, &kind));
            let schema = own.or_else(|| of_others(others, &api_version, &kind))?;
            Some(jsonschema::validator_for(&schema).unwrap())
        });
        let Some(validator) = validator else { return vec![format!("{kubernetes:?} has no {kind} of {api_version}")] };
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        validator
            .iter_errors(object)
            .map(|error| format!("{kind} {name}: {}: {error}", error.instance_path()))
            .collect()
    }
}

/// Returns the schema of a kind in an OpenAPI document, with all references.
fn of_kind(document: &Value, api_version: &str, kind: &str) -> Option<Value> {
    let schemas = document["components"]["schemas"].as_object()?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let wanted = json!({"group": group, "version": version, "kind": kind});
    let is_meant = |schema: &Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.is_some_and(|kinds| kinds.len() == 1 && kinds.contains(&wanted))
    };
    let (name, _) = schemas.iter().find(|(_, schema)| is_meant(schema))?;
    let (mut used, mut next) = (Map::new(), vec![name.clone()]);
    while let Some(name) = next.pop() {
        let schema = &schemas[&name];
        if used.insert(name, strict(schema)).is_none() {
            references(schema, &mut next);
        }
    }
    Some(json!({"$ref": format!("{COMPONENTS}{name}"), "components": {"schemas": used}}))
}

/// Returns the names of the schemas that a schema refers to.
fn references(schema: &Value, into: &mut Vec<String>) {
    match schema {
        Value::String(text) => into.extend(text.strip_prefix(COMPONENTS).map(str::to_owned)),
        Value::Array(items) => items.iter().for_each(|item| references(item, into)),
        Value::Object(members) => members.values().for_each(|member| references(member, into)),
        _ => {}
    }
}

fn of_others(definitions: &[Value], api_version: &str, kind: &str) -> Option<Value> {
    let (group, version) = api_version.split_once('/')?;
    let is_meant =
        |definition: &&Value| definition["spec"]["group"] == group && definition["spec"]["names"]["kind"] == kind;
    let definition = definitions.iter().find(is_meant)?;
    let versions = definition["spec"]["versions"].as_array()?;
    let version = versions.iter().find(|there| there["name"] == version)?;
    Some(strict(&version["schema"]["openAPIV3Schema"]))
}

/// Returns the schema with unknown members forbidden.
fn strict(schema: &Value) -> Value {
    let Some(keywords) = schema.as_object() else { return schema.clone() };
    let mut strict_keywords: Map<String, Value> = keywords
        .iter()
        .map(|(keyword, value)| {
            let value = match keyword.as_str() {
                // Members may have the names of keywords.
                "properties" => members(value),
                "items" | "additionalProperties" => strict(value),
                _ => value.clone(),
            };
            (keyword.clone(), value)
        })
        .collect();
    let is_open = keywords.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
    if keywords.contains_key("properties") && !keywords.contains_key("additionalProperties") && !is_open {
        strict_keywords.insert("additionalProperties".to_owned(), json!(false));
    }
    Value::Object(strict_keywords)
}

fn members(properties: &Value) -> Value {
    let properties = properties.as_object().into_iter().flatten();
    Value::Object(properties.map(|(name, schema)| (name.clone(), strict(schema))).collect())
}

async fn others() -> Vec<Value> {
    tokio::task::spawn_blocking(|| definitions::prometheus_operator().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_rendered_is_valid_in_the_oldest_and_the_newest_kubernetes() {
    let others = others().await;
    for (kubernetes, version) in [(Kubernetes::Oldest, "1.33.0"), (Kubernetes::Newest, "1.37.0")] {
        let mut schemas = Schemas::of(kubernetes, &others);
        for values in [json!({}), values::everything(), values::namespaced()] {
            let rendered = render(&values, version).await;
            assert!(rendered.iter().any(|object| object["kind"] == "CustomResourceDefinition"));
            let faults: Vec<String> = rendered.iter().flat_map(|object| schemas.faults(object)).collect();
            assert!(faults.is_empty(), "for {version}: {faults:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_or_missing_field_is_found_at_any_depth() {
    let rendered = render(&json!({}), "1.37.0").await;
    let deployment = rendered.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let mut schemas = Schemas::of(Kubernetes::Newest, &[]);
    assert_eq!(schemas.faults(deployment), Vec::<String>::new());
    for (parent, field, value) in [
        ("", "specs", json!({})),
        ("/metadata", "label", json!({})),
        ("/spec", "replica", json!(1)),
        ("/spec/template/spec/containers/0", "imagePullPolice", json!("Always")),
        ("/spec/template/spec/containers/0/ports/0", "containerPort", json!("http")),
        ("/spec/template/spec/containers/0", "name", Value::Null),
    ] {
        let mut wrong = deployment.clone();
        wrong.pointer_mut(parent).unwrap()[field] = value;
        assert_eq!(schemas.faults(&wrong).len(), 1, "{parent} {field}");
    }
}

#[test]
fn a_kind_that_the_oldest_kubernetes_lacks_is_found() {
    let class =
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "a"}, "spec": {}});
    assert_eq!(Schemas::of(Kubernetes::Newest, &[]).faults(&class), Vec::<String>::new());
    let faults = Schemas::of(Kubernetes::Oldest, &[]).faults(&class);
    assert_eq!(faults, ["Oldest has no DeviceClass of resource.k8s.io/v1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn third_party_kinds_are_validated_with_their_definitions() {
    let mut schemas = Schemas::of(Kubernetes::Oldest, &others().await);
    let mut monitor = json!({
        "apiVersion": "monitoring.coreos.com/v1", "kind": "ServiceMonitor", "metadata": {"name": "a"},
        "spec": {"selector": {}, "endpoints": [{"port": "http"}]},
    });
    assert_eq!(schemas.faults(&monitor), Vec::<String>::new());
    monitor["spec"]["endpoints"][0]["prot"] = json!("http");
    assert_eq!(schemas.faults(&monitor).len(), 1);
}
