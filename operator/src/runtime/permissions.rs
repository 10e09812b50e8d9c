//! Rights that the operator must have before it does anything: a deny that it does not see would let people in, and without
//! claims two servers would get the same host.

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

/// Denies are in cluster mappings, and hold where the labels of namespaces say.
const MUST: [(&str, &str); 2] = [("mcp-entra.dev", "clustermcprolemappings"), ("", "namespaces")];

/// Verbs on ConfigMaps in the operator's own namespace, by which it keeps the claims of servers on hosts and client ids.
const CLAIMS: [&str; 6] = ["get", "list", "watch", "create", "update", "delete"];

/// A right that the operator cannot do without, and lacks.
#[derive(Debug, thiserror::Error)]
#[error(
    "the operator may not {verb} {resource} in {}, so {consequence}; it must not run without that right, which the chart gives its service account: helm upgrade mcp-entra charts/mcp-entra --reuse-values --set rbac.create=true",
    namespace.as_ref().map_or_else(|| "the whole cluster".to_owned(), |namespace| format!("namespace {namespace}"))
)]
pub struct Blind {
    verb: &'static str,
    resource: String,
    namespace: Option<String>,
    consequence: &'static str,
}

/// Fails if it is certain that something cannot be seen that must be. Where the API server does not tell, the watches meet
/// the same, and nothing is done before they have seen everything.
pub(crate) async fn check(client: &Client, operator_namespace: &str) -> Result<(), Blind> {
    for (group, plural) in MUST {
        for verb in ["list", "watch"] {
            if is_allowed(client, verb, (group, plural), None).await == Ok(false) {
                let resource = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
                let consequence = "that it could overlook who is denied what";
                return Err(Blind { verb, resource, namespace: None, consequence });
            }
        }
    }
    for verb in CLAIMS {
        if is_allowed(client, verb, ("", "configmaps"), Some(operator_namespace)).await == Ok(false) {
            let (resource, namespace) = ("configmaps".to_owned(), Some(operator_namespace.to_owned()));
            let consequence = "that two servers could get the same host or client id";
            return Err(Blind { verb, resource, namespace, consequence });
        }
    }
    Ok(())
}

/// Returns true if the operator may make the keys of authorization servers in a namespace, or in all.
pub(crate) async fn may_make_keys(client: &Client, namespace: Option<&str>) -> bool {
    // Where the API server does not tell, the conditions of servers do.
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
        answer.map_err(|error| tracing::warn!(%error, "whether {plural} may be seen is not known yet"))?.status;
    Ok(status.is_some_and(|status| status.allowed))
}
