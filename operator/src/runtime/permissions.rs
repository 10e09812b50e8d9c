//! Permissions that the operator must have before it starts. Without them it could miss a deny and let people in, or
//! give two servers the same host.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

/// Kinds that denies depend on: cluster mappings, and the namespaces whose labels they select.
const MUST: [(&str, &str); 2] = [("mcp-entra.dev", "clustermcprolemappings"), ("", "namespaces")];

/// Verbs on ConfigMaps in the operator's own namespace, which hold the servers' claims on hosts and client ids.
const CLAIMS: [&str; 6] = ["get", "list", "watch", "create", "update", "delete"];

/// A missing permission without which the operator must not run.
#[derive(Debug, thiserror::Error)]
#[error(
    "the operator may not {verb} {resource} in {}, so {consequence}; the chart gives this permission to the operator's service account: helm upgrade mcp-entra charts/mcp-entra --reuse-values --set rbac.create=true",
    namespace.as_ref().map_or_else(|| "the whole cluster".to_owned(), |namespace| format!("namespace {namespace}"))
)]
pub struct Blind {
    verb: &'static str,
    resource: String,
    namespace: Option<String>,
    consequence: &'static str,
}

/// Fails if a required permission is certainly missing. If the API server gives no answer, the watches meet the same
/// problem, and nothing is reconciled before their caches are synced.
pub(crate) async fn check(client: &Client, operator_namespace: &str) -> Result<(), Blind> {
    for (group, plural) in MUST {
        for verb in ["list", "watch"] {
            if is_allowed(client, verb, (group, plural), None).await == Ok(false) {
                let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
                let consequence = "it could miss mappings that deny access";
                return Err(Blind { verb, resource, namespace: None, consequence });
            }
        }
    }
    for verb in CLAIMS {
        if is_allowed(client, verb, ("", "configmaps"), Some(operator_namespace)).await == Ok(false) {
            let (resource, namespace) = ("configmaps".to_owned(), Some(operator_namespace.to_owned()));
            let consequence = "two servers could get the same host or client id";
            return Err(Blind { verb, resource, namespace, consequence });
        }
    }
    Ok(())
}

/// Returns true if the operator may create keys of authorization servers in a namespace, or in all of them.
pub(crate) async fn may_make_keys(client: &Client, namespace: Option<&str>) -> bool {
    // Without an answer, the conditions of servers report the problem later.
    is_allowed(client, "create", ("", "secrets"), namespace).await != Ok(false)
}

async fn is_allowed(
    client: &Client,
    verb: &str,
    (group, plural): (&str, &str),
    namespace: Option<&str>,
) -> Result<bool, ()> {
    let resource_attributes = Some(ResourceAttributes {
        verb: Some(verb.to_owned()),
        namespace: namespace.map(str::to_owned),
        group: Some(group.to_owned()),
        resource: Some(plural.to_owned()),
        ..Default::default()
    });
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes, ..Default::default() },
        ..Default::default()
    };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone()).create(&PostParams::default(), &review).await;
    let status =
        answer.map_err(|error| tracing::warn!(%error, "cannot check the permission to {verb} {plural} yet"))?.status;
    Ok(status.is_some_and(|status| status.allowed))
}
