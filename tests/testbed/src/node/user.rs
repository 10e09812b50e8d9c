//! Check of the user of a container. The node never changes the user of a process, so it can only refuse.

use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

/// Refused user, in the kubelet's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("container's runAsUser breaks non-root policy (pod: {0:?}, container: {1})")]
    RunsAsRoot(String, String),
    #[error("container has runAsNonRoot and image will run as root (pod: {0:?}, container: {1})")]
    ImageIsRoots(String, String),
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({2}), cannot verify user is non-root (pod: {0:?}, container: {1})"
    )]
    NotNumeric(String, String, String),
}

/// Checks the user of a container with `runAsNonRoot`. `image` is the user in its image.
///
/// # Errors
/// If the container would or could run as root.
pub(super) fn verify(pod: &Pod, container: &Container, image: &str) -> Result<(), Refused> {
    let of_pod = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let is_non_root = own.and_then(|own| own.run_as_non_root).or_else(|| of_pod?.run_as_non_root);
    if is_non_root != Some(true) {
        return Ok(());
    }
    let uid = pod.uid().unwrap_or_default();
    let whose = format!("{}_{}({uid})", pod.name_any(), pod.namespace().unwrap_or_default());
    let name = container.name.clone();
    if let Some(user) = own.and_then(|own| own.run_as_user).or_else(|| of_pod?.run_as_user) {
        return if user == 0 { Err(Refused::RunsAsRoot(whose, name)) } else { Ok(()) };
    }
    match image.split(':').next().unwrap_or_default() {
        "" | "0" => Err(Refused::ImageIsRoots(whose, name)),
        user if user.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        user => Err(Refused::NotNumeric(whose, name, user.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn verdict(of_pod: Value, own: Value, image: &str) -> Option<String> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "n", "uid": "u" },
            "spec": { "securityContext": of_pod, "containers": [{ "name": "c", "securityContext": own }] },
        }))
        .unwrap();
        verify(&pod, &pod.spec.as_ref().unwrap().containers[0], image).err().map(|refused| refused.to_string())
    }

    #[test]
    fn a_container_that_must_not_run_as_root_is_refused_if_it_would_or_could() {
        let non_root = || json!({ "runAsNonRoot": true });
        let by_image = "container has runAsNonRoot and image will run as root (pod: \"p_n(u)\", container: c)";
        for image in ["", "0", "0:0"] {
            assert_eq!(verdict(non_root(), json!({}), image).as_deref(), Some(by_image), "{image}");
            assert_eq!(verdict(json!({}), non_root(), image).as_deref(), Some(by_image), "{image}");
        }
        let named = verdict(non_root(), json!({}), "node:node").unwrap();
        assert!(named.contains("image has non-numeric user (node), cannot verify user is non-root"), "{named}");
        let root = verdict(non_root(), json!({ "runAsUser": 0 }), "65532").unwrap();
        assert!(root.starts_with("container's runAsUser breaks non-root policy"), "{root}");
    }

    #[test]
    fn a_numeric_user_is_accepted_and_so_is_root_without_run_as_non_root() {
        let non_root = || json!({ "runAsNonRoot": true });
        assert_eq!(verdict(non_root(), json!({}), "65532:65532"), None);
        assert_eq!(verdict(non_root(), json!({ "runAsUser": 1000 }), "root"), None);
        assert_eq!(verdict(json!({ "runAsNonRoot": true, "runAsUser": 1000 }), json!({}), "0"), None);
        assert_eq!(verdict(non_root(), json!({ "runAsNonRoot": false }), "0"), None);
        assert_eq!(verdict(json!({}), json!({}), "0"), None);
    }
}
