//! Requests to the API server and their answers. They change nothing, except those that say so.

use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::Value;

/// Object, or refusal.
pub(super) type Answer = Result<DynamicObject, String>;

/// A client for the objects of a kind.
pub(super) fn objects(client: &Client, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

fn api_of(client: &Client, namespace: &str, object: &Value) -> Api<DynamicObject> {
    let text = |key: &str| object[key].as_str().unwrap().to_owned();
    objects(client, namespace, &text("apiVersion"), &text("kind"))
}

fn words(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// Creates an object.
pub(super) async fn create(client: &Client, namespace: &str, object: &Value, dry_run: bool) -> Answer {
    let parameters = PostParams { dry_run, ..PostParams::default() };
    let typed = serde_json::from_value(object.clone()).unwrap();
    api_of(client, namespace, object).create(&parameters, &typed).await.map_err(words)
}

/// Merges something into an object.
pub(super) async fn patch(api: &Api<DynamicObject>, name: &str, change: &Value) -> Answer {
    let parameters = PatchParams { dry_run: true, ..PatchParams::default() };
    api.patch(name, &parameters, &Patch::Merge(change)).await.map_err(words)
}

/// Merges something into a subresource of an object.
pub(super) async fn patch_part(api: &Api<DynamicObject>, name: &str, part: &str, change: &Value) -> Answer {
    let parameters = PatchParams { dry_run: true, ..PatchParams::default() };
    api.patch_subresource(part, name, &parameters, &Patch::Merge(change)).await.map_err(words)
}

/// Deletes an object.
pub(super) async fn delete(api: &Api<DynamicObject>, name: &str) -> Result<(), String> {
    let parameters = DeleteParams { dry_run: true, ..DeleteParams::default() };
    api.delete(name, &parameters).await.map(drop).map_err(words)
}

/// Deletes all objects of the kind.
pub(super) async fn delete_all(api: &Api<DynamicObject>) -> Result<(), String> {
    let parameters = DeleteParams { dry_run: true, ..DeleteParams::default() };
    api.delete_collection(&parameters, &Default::default()).await.map(drop).map_err(words)
}

/// Asserts that the answer is a refusal of this guardrail with this message.
#[track_caller]
pub(super) fn assert_refused<T: std::fmt::Debug>(answer: Result<T, String>, guardrail: &str, words: &str) {
    let refusal = answer.expect_err("it was allowed");
    let policy = format!("ValidatingAdmissionPolicy 'mcp-entra-operator-{guardrail}'");
    assert!(refusal.contains(&policy) && refusal.contains(words), "{refusal}");
}
