//! Tests of the control plane: it is real, has the stated version, and logs writes with their users.

use std::path::Path;
use std::process::Command;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::{control_plane, namespace, until};

/// Returns kubectl's output and errors. Its cache, in the home folder by default, is beside the kubeconfig.
fn kubectl(kubeconfig: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(control_plane().kubectl());
    command.arg("--kubeconfig").arg(kubeconfig).args(arguments);
    let output = command.env("KUBECACHEDIR", kubeconfig.with_extension("cache")).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

#[tokio::test]
async fn kubectl_prints_the_true_version_of_client_and_server() {
    let plane = control_plane();
    let versions: Value = serde_json::from_str(&kubectl(&plane.kubeconfig(), &["version", "--output=json"])).unwrap();
    for side in ["clientVersion", "serverVersion"] {
        assert_eq!(versions[side]["gitVersion"], "v1.37.2", "{side}");
    }
}

#[tokio::test]
async fn only_the_issuers_discovery_is_public_and_it_verifies_service_account_tokens() {
    let plane = control_plane();
    let namespace = namespace().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client().unwrap(), &namespace);
    until("the default service account", async || accounts.get("default").await.is_ok()).await;
    let audience = "api://AzureADTokenExchange";
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: vec![audience.into()], ..Default::default() },
        ..Default::default()
    };
    let issued = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap();
    let token = issued.status.unwrap().token;

    let anonymous = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(plane.ca_pem().as_bytes()).unwrap()])
        .build()
        .unwrap();
    let get = async |url: &str| anonymous.get(url).send().await.unwrap();
    let document = format!("{}/.well-known/openid-configuration", plane.issuer());
    let document: Value = get(&document).await.error_for_status().unwrap().json().await.unwrap();
    assert_eq!(document["issuer"], plane.issuer());
    let keys = get(document["jwks_uri"].as_str().unwrap()).await.error_for_status().unwrap();
    let keys: jsonwebtoken::jwk::JwkSet = keys.json().await.unwrap();

    let header = jsonwebtoken::decode_header(&token).unwrap();
    let key = keys.find(&header.kid.unwrap()).unwrap();
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_audience(&[audience]);
    validation.set_issuer(&[plane.issuer()]);
    let key = jsonwebtoken::DecodingKey::from_jwk(key).unwrap();
    let claims = jsonwebtoken::decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(claims["sub"], format!("system:serviceaccount:{namespace}:default"));

    assert_eq!(get(&format!("{}/api/v1/namespaces", plane.url())).await.status(), 403);
}

#[tokio::test]
async fn a_service_accounts_kubeconfig_has_exactly_the_rights_of_the_account() {
    let plane = control_plane();
    let namespace = namespace().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client().unwrap(), &namespace);
    until("the default service account", async || accounts.get("default").await.is_ok()).await;
    let kubeconfig = plane.kubeconfig_for_service_account(&namespace, "default").await.unwrap();
    let who = kubectl(&kubeconfig, &["auth", "whoami"]);
    assert!(who.contains(&format!("system:serviceaccount:{namespace}:default")), "{who}");
    let refused = kubectl(&kubeconfig, &["get", "secrets"]);
    assert!(refused.contains("forbidden"), "{refused}");
}

#[tokio::test]
async fn a_kubeconfig_for_an_account_that_does_not_exist_is_an_error_that_names_it() {
    let error = control_plane().kubeconfig_for_service_account("default", "nobody").await.unwrap_err();
    assert!(format!("{error:#}").contains("default/nobody"), "{error:#}");
}

#[tokio::test]
async fn the_audit_log_contains_writes_and_no_reads() {
    let plane = control_plane();
    let namespace = namespace().await;
    let maps: Api<ConfigMap> = Api::namespaced(plane.client().unwrap(), &namespace);
    let log = plane.audit();
    let ours = async |since| {
        let mut events = log.writes(since, "admin").await.unwrap();
        events.retain(|event| event.namespace.as_deref() == Some(&namespace));
        events
    };
    let since = log.mark().unwrap();
    maps.list(&ListParams::default()).await.unwrap();
    maps.get_opt("one").await.unwrap();
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "one" }, "data": { "a": "b" } });
    maps.patch("one", &PatchParams::apply("test"), &Patch::Apply(&map)).await.unwrap();
    maps.delete("one", &DeleteParams::default()).await.unwrap();
    let events = ours(since).await;
    let told: Vec<_> = events.iter().map(|event| (event.verb.as_str(), event.resource.as_str(), event.code)).collect();
    assert_eq!(told, [("patch", "configmaps", 201), ("delete", "configmaps", 200)]);
    assert_eq!(events[0].name.as_deref(), Some("one"));

    // A name matches only this user; a star matches any suffix.
    assert!(log.writes(since, "adm").await.unwrap().is_empty());
    assert!(log.writes(since, "adm*").await.unwrap().len() >= 2);
    // Writes before a mark are not counted after it.
    assert!(ours(log.mark().unwrap()).await.is_empty());
}

#[tokio::test]
async fn reads_of_the_operator_are_logged_and_are_not_writes() {
    let plane = control_plane();
    let namespaces: Api<Namespace> = Api::all(plane.client().unwrap());
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client().unwrap(), "mcp-entra-system");
    let named = |name: &str| json!({ "metadata": { "name": name } });
    let namespace = serde_json::from_value(named("mcp-entra-system")).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    accounts.create(&PostParams::default(), &serde_json::from_value(named("operator")).unwrap()).await.unwrap();
    let kubeconfig = plane.kubeconfig_for_service_account("mcp-entra-system", "operator").await.unwrap();
    let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(kube::Client::try_from(config).unwrap());

    let (log, user) = (plane.audit(), "system:serviceaccount:mcp-entra-system:operator");
    let since = log.mark().unwrap();
    // Refused requests are included, too.
    maps.get("one").await.unwrap_err();
    let reads = log.requests(since, user).await.unwrap();
    let [read] = reads.as_slice() else { panic!("{reads:?}") };
    assert_eq!((read.verb.as_str(), read.code, read.is_write()), ("get", 403, false));
    assert_eq!(log.writes(since, user).await.unwrap(), []);
}

#[tokio::test]
async fn owners_are_protected_as_in_a_hardened_cluster() {
    // OwnerReferencesPermissionEnforcement: a user without update rights on an owner's finalizers must not block its
    // deletion.
    let plane = control_plane();
    let namespace = namespace().await;
    let client = plane.client().unwrap();
    let admin: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let owner = admin.create(&PostParams::default(), &map("owner", None)).await.unwrap();
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": "writer" },
        "rules": [{ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "writer" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "writer" },
        "subjects": [{ "kind": "User", "name": "writer" }],
    });
    let roles: Api<k8s_openapi::api::rbac::v1::Role> = Api::namespaced(client.clone(), &namespace);
    let bindings: Api<k8s_openapi::api::rbac::v1::RoleBinding> = Api::namespaced(client, &namespace);
    roles.patch("writer", &PatchParams::apply("test"), &Patch::Apply(role)).await.unwrap();
    bindings.patch("writer", &PatchParams::apply("test"), &Patch::Apply(binding)).await.unwrap();

    let mut config = plane.config();
    config.auth_info.impersonate = Some("writer".into());
    let writer: Api<ConfigMap> = Api::namespaced(kube::Client::try_from(config).unwrap(), &namespace);
    until("the role is in force", async || writer.create(&PostParams::default(), &map("free", None)).await.is_ok())
        .await;
    let refused = writer.create(&PostParams::default(), &map("owned", owner.metadata.uid)).await.unwrap_err();
    assert!(refused.to_string().contains("blockOwnerDeletion"), "{refused}");
}

fn map(name: &str, owner: Option<String>) -> ConfigMap {
    let owners: Vec<_> = owner
        .map(|uid| {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid, "blockOwnerDeletion": true })
        })
        .into_iter()
        .collect();
    serde_json::from_value(json!({ "metadata": { "name": name, "ownerReferences": owners } })).unwrap()
}

#[tokio::test]
async fn a_namespace_is_made_and_emptied_by_real_controllers() {
    let client = control_plane().client().unwrap();
    let name = namespace().await;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
    until("the controller manager published the root certificate", async || maps.get("kube-root-ca.crt").await.is_ok())
        .await;
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
    until("the namespace is gone", async || matches!(namespaces.get_opt(&name).await, Ok(None))).await;
}
