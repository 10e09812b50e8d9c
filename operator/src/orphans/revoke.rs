//! Revocation of an orphan's rights: its policy is replaced by one that denies everything, its route is deleted. Each
//! object is read first, and written only at that version.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions},
};
use mcp_entra_crds::McpServer;
use mcp_entra_policy::POLICY_KEY;
use serde_json::{Value, json};

use crate::{
    MANAGER,
    objects::{child::ChildKind, views::ChildView},
    policy::compile::DENY_ALL,
    runtime::errors::{Error, code},
    watch::orphaned::{Evidence, Suspect},
};

/// The result of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Revocation {
    /// The policy denies everything, as of this version.
    Denied(String),
    /// The policy is immutable, as of this version, and grants something.
    Immutable(String),
    /// The route was deleted.
    Deleted,
    /// The object was deleted or changed meanwhile. Its watch will show it.
    Changed,
    /// The McpServer that controls the object still exists at the API server.
    ControllerLives,
}

/// Revokes the rights of an orphan, if the API server confirms that it is one.
pub(super) async fn revoke(client: &Client, suspect: &Suspect) -> Result<Revocation, Error> {
    match suspect.kind {
        ChildKind::Policy => deny(client, suspect).await,
        _ => delete(client, suspect).await,
    }
}

async fn deny(client: &Client, suspect: &Suspect) -> Result<Revocation, Error> {
    let (namespace, name) = (suspect.object.full_name.namespace(), suspect.object.name());
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let live = api.get_opt(name).await.map_err(Error::kubernetes(format!("reading {}", suspect.title())))?;
    let is_still = |live: &ConfigMap| suspect.is_still(&ChildView::from(&live.metadata));
    let Some(live) = live.filter(is_still) else { return Ok(Revocation::Changed) };
    if controller_lives(client, suspect).await? {
        return Ok(Revocation::ControllerLives);
    }
    let version = |config_map: &ConfigMap| config_map.resource_version().unwrap_or_default();
    if is_denied(&live) {
        return Ok(Revocation::Denied(version(&live)));
    }
    if live.immutable == Some(true) {
        return Ok(Revocation::Immutable(version(&live)));
    }
    let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    match api.patch(name, &parameters, &Patch::Merge(denial(&live))).await {
        Ok(written) => Ok(Revocation::Denied(version(&written))),
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(Revocation::Changed),
        Err(error) => Err(Error::kubernetes(format!("replacing the policy in {}", suspect.title()))(error)),
    }
}

fn is_denied(live: &ConfigMap) -> bool {
    live.data.as_ref().and_then(|data| data.get(POLICY_KEY)).is_some_and(|document| document == DENY_ALL)
}

/// Returns the patch that denies everything, for the version that was read. It removes all other keys: the guardrails
/// admit exactly this.
fn denial(live: &ConfigMap) -> Value {
    let keys = live.data.iter().flatten().map(|(key, _)| (key.clone(), Value::Null));
    let mut data: serde_json::Map<String, Value> = keys.collect();
    data.insert(POLICY_KEY.to_owned(), json!(DENY_ALL));
    let metadata = json!({"uid": live.metadata.uid, "resourceVersion": live.metadata.resource_version});
    json!({"metadata": metadata, "data": data, "binaryData": null})
}

async fn delete(client: &Client, suspect: &Suspect) -> Result<Revocation, Error> {
    let (namespace, name) = (suspect.object.full_name.namespace(), suspect.object.name());
    let api = suspect.kind.api(client, namespace);
    let live = api.get_metadata_opt(name).await;
    let live = live.map_err(Error::kubernetes(format!("reading {}", suspect.title())))?.map(|live| live.metadata);
    let Some(live) = live.filter(|live| suspect.is_still(&ChildView::from(live))) else {
        return Ok(Revocation::Changed);
    };
    if controller_lives(client, suspect).await? {
        return Ok(Revocation::ControllerLives);
    }
    let preconditions = Preconditions { uid: live.uid, resource_version: live.resource_version };
    let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
    match api.delete(name, &parameters).await {
        Ok(_) => Ok(Revocation::Deleted),
        Err(error) if matches!(code(&error), Some(404 | 409)) => Ok(Revocation::Changed),
        Err(error) => Err(Error::kubernetes(format!("deleting {}", suspect.title()))(error)),
    }
}

/// Asks the API server for a controller that is not in the cache. It lists by name, so that no permission to get is
/// needed.
async fn controller_lives(client: &Client, suspect: &Suspect) -> Result<bool, Error> {
    let Evidence::Unseen { server, uid } = &suspect.evidence else { return Ok(false) };
    let api = Api::<McpServer>::namespaced(client.clone(), suspect.object.full_name.namespace());
    let named = ListParams::default().fields(&format!("metadata.name={server}"));
    let found = api.list_metadata(&named).await.map_err(Error::kubernetes(format!("reading McpServer {server}")))?;
    Ok(found.iter().any(|found| found.metadata.uid.as_deref() == Some(uid)))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response};
    use kube::client::Body;

    use super::*;
    use crate::objects::fixtures::mk_owner;

    type Requests = Arc<Mutex<Vec<String>>>;

    /// An API server with these McpServers and one policy of an McpServer that is not in the cache. It records its
    /// requests.
    fn mk_client(requests: Requests, servers: &[&str]) -> Client {
        let items: Vec<Value> = servers.iter().map(|uid| json!({"metadata": {"name": "graph", "uid": uid}})).collect();
        let list = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList", "metadata": {},
                          "items": items});
        let policy = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": mk_suspect().1,
                            "data": {POLICY_KEY: "{\"grants\":[1]}"}});
        let service = tower::service_fn(move |request: Request<Body>| {
            requests.lock().unwrap().push(format!("{} {}", request.method(), request.uri()));
            let answer = match request.method() {
                &Method::GET if request.uri().path().ends_with("/mcpservers") => list.to_string(),
                _ => policy.to_string(),
            };
            std::future::ready(Ok::<_, std::convert::Infallible>(Response::new(Body::from(answer.into_bytes()))))
        });
        Client::new(service, "default")
    }

    fn mk_suspect() -> (Suspect, kube::core::ObjectMeta) {
        let mut metadata = mk_owner().child_metadata(ChildKind::Policy);
        metadata.uid = Some("uid-2".into());
        metadata.resource_version = Some("7".into());
        let evidence = Evidence::Unseen { server: "graph".into(), uid: mk_owner().uid.into() };
        let object = Arc::new(ChildView::from(&metadata));
        (Suspect { kind: ChildKind::Policy, object, evidence }, metadata)
    }

    #[tokio::test]
    async fn a_controller_counts_if_the_api_server_has_it_with_the_same_uid() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let own = mk_owner().uid;
        for (servers, lives) in [(&[&*own][..], true), (&["uid-of-a-namesake"], false), (&[], false)] {
            let requests = Requests::default();
            let outcome = revoke(&mk_client(requests.clone(), servers), &mk_suspect().0).await.unwrap();
            let requests = requests.lock().unwrap();
            let expected = if lives { Revocation::ControllerLives } else { Revocation::Denied("7".into()) };
            assert_eq!(outcome, expected, "{servers:?}");
            assert!(requests[1].contains("fieldSelector=metadata.name%3Dgraph"), "{requests:?}");
            assert_eq!(requests.iter().any(|request| request.starts_with("PATCH")), !lives, "{requests:?}");
        }
    }
}
