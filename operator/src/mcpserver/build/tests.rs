//! Tests of the children.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mcp_entra_crds::{EnvironmentVariable, McpServer, TrustBundle};
use serde_json::{Value, json};

use super::*;
use crate::{
    mcpserver::{
        resolved::{Resolved, ResolvedAccount, ResolvedTrustBundle},
        validate::{tests::mk_options, validate},
    },
    objects::{
        child::{ChildKind, json_of},
        config_map_edition::{Edition, Mounted},
        fixtures::{mk_owner, mk_server},
        names::TEMPLATE_HASH,
        owner::Controller,
    },
    policy::{binding::Target, compile::compile},
    runtime::options::Options,
};

/// Returns the built children by kind.
pub(super) type Children = BTreeMap<ChildKind, Value>;

pub(super) fn mk_children(change: impl FnOnce(&mut McpServer)) -> Children {
    mk_children_of(Held { root: true, listener_of: None }, change)
}

fn mk_children_of(held: Held, change: impl FnOnce(&mut McpServer)) -> Children {
    mk_children_with(held, &mk_options(), ResolvedAccount::Unset, change)
}

pub(super) fn mk_children_with(
    held: Held,
    options: &Options,
    account: ResolvedAccount,
    change: impl FnOnce(&mut McpServer),
) -> Children {
    mk_children_mounting(Mounted::default(), held, options, account, change)
}

fn mk_children_mounting(
    mounted: Mounted,
    held: Held,
    options: &Options,
    account: ResolvedAccount,
    change: impl FnOnce(&mut McpServer),
) -> Children {
    let mut server = mk_server();
    change(&mut server);
    let trust_bundle = match server.spec.entra.trust_bundle {
        Some(_) => ResolvedTrustBundle::Content("-----BEGIN CERTIFICATE-----".into()),
        None => ResolvedTrustBundle::Unset,
    };
    let resolved = Resolved { trust_bundle, account, ..Resolved::default() };
    let children = children(&validate(&server, &mk_owner(), &resolved, options).unwrap(), &held, mounted);
    assert!(children.is_sorted_by_key(Child::kind), "children are applied in the order of their kinds");
    children.iter().map(|child| (child.kind(), json_of(child))).collect()
}

fn deployment(change: impl FnOnce(&mut McpServer)) -> Value {
    mk_children(change).remove(&ChildKind::Deployment).unwrap()
}

fn with_bundle(server: &mut McpServer) {
    server.spec.entra.trust_bundle = Some(TrustBundle { name: "corporate".into(), key: "ca.crt".into() });
}

pub(super) fn hash(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["metadata"]["annotations"]["mcp-entra.dev/configuration-hash"]
}

#[test]
fn the_only_credential_is_the_projected_token_with_the_clouds_audience() {
    let deployment = deployment(|server| server.spec.entra.cloud = mcp_entra_policy::Cloud::USGov);
    let pod = &deployment["spec"]["template"]["spec"];
    let volumes = pod["volumes"].as_array().unwrap();
    let projected: Vec<_> = volumes.iter().filter_map(|volume| volume.get("projected")).collect();
    let token = json!({
        "audience": "api://AzureADTokenExchangeUSGov", "expirationSeconds": 3600, "path": "azure-identity-token",
    });
    assert_eq!(projected, [&json!({"sources": [{"serviceAccountToken": token}]})]);
    assert!(volumes.iter().all(|volume| volume.get("secret").is_none()));
    assert_eq!(pod["automountServiceAccountToken"], false);
    let file = "/var/run/secrets/mcp-entra/azure-identity-token";
    assert_eq!(pod["containers"][0]["env"], json!([{"name": "AZURE_FEDERATED_TOKEN_FILE", "value": file}]));
    assert!(deployment["spec"]["template"]["metadata"]["labels"].get("azure.workload.identity/use").is_none());
}

#[test]
fn pods_are_restricted() {
    let pod = &deployment(|_| {})["spec"]["template"]["spec"];
    let (whole, container) = (&pod["securityContext"], &pod["containers"][0]["securityContext"]);
    assert_eq!((&whole["runAsNonRoot"], &whole["runAsUser"]), (&json!(true), &json!(65532)));
    assert_eq!(whole["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["allowPrivilegeEscalation"], false);
    assert_eq!(container["readOnlyRootFilesystem"], true);
    assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
}

#[test]
fn every_volume_is_mounted_whole_so_that_it_is_refreshed() {
    let pod = &deployment(with_bundle)["spec"]["template"]["spec"];
    let mounts = pod["containers"][0]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts.len(), pod["volumes"].as_array().unwrap().len());
    assert!(mounts.iter().all(|mount| mount.get("subPath").is_none() && mount["readOnly"] == true));
    let arguments = pod["containers"][0]["args"].as_array().unwrap();
    assert!(arguments.windows(2).any(|pair| pair == [json!("--trust-bundle"), json!("/etc/mcp-entra/trust/ca.crt")]));
}

#[test]
fn a_config_map_shows_the_server_the_one_key_that_it_reads() {
    let volumes = &deployment(with_bundle)["spec"]["template"]["spec"]["volumes"];
    let items: Vec<_> = volumes
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|volume| volume.get("configMap"))
        .map(|source| (source["name"].as_str().unwrap(), source["items"].clone()))
        .collect();
    let one = |key: &str| json!([{"key": key, "path": key}]);
    let expected =
        [("graph-config", one("config.yaml")), ("graph-policy", one("policy.json")), ("corporate", one("ca.crt"))];
    assert_eq!(items, expected);
}

#[test]
fn pods_carry_the_uid_of_their_server() {
    let deployment = deployment(|_| {});
    assert_eq!(deployment["spec"]["template"]["metadata"]["annotations"]["mcp-entra.dev/server-uid"], "uid-1");
}

#[test]
fn a_changed_configuration_or_trust_bundle_restarts_the_pods_and_another_replica_count_does_not() {
    let before = deployment(|_| {});
    assert_eq!(hash(&before), hash(&deployment(|server| server.spec.replicas = Some(5))));
    assert_ne!(hash(&before), hash(&deployment(|server| server.spec.entra.required_scopes = vec!["other".into()])));
    assert_ne!(hash(&before), hash(&deployment(with_bundle)));
    let template = |deployment: &Value| deployment["metadata"]["annotations"][TEMPLATE_HASH].clone();
    assert_eq!(template(&before), template(&deployment(|server| server.spec.replicas = Some(5))));
    assert_ne!(template(&before), template(&deployment(with_bundle)));
}

#[test]
fn nothing_fails_while_pods_are_replaced() {
    let deployment = deployment(|_| {});
    let rolling = &deployment["spec"]["strategy"]["rollingUpdate"];
    assert_eq!((&rolling["maxUnavailable"], &rolling["maxSurge"]), (&json!(0), &json!(1)));
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"], 5);
    assert_eq!(pod["terminationGracePeriodSeconds"], 40);
}

#[test]
fn the_pods_environment_is_added_to_ours() {
    let deployment = deployment(|server| {
        server.spec.pod_template = Some(Box::new(mcp_entra_crds::PodTemplate {
            env: vec![EnvironmentVariable { name: "HTTPS_PROXY".into(), value: "http://proxy:3128".into() }],
            ..mcp_entra_crds::PodTemplate::default()
        }));
    });
    let environment = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    assert_eq!(environment[1], json!({"name": "HTTPS_PROXY", "value": "http://proxy:3128"}));
}

#[test]
fn the_selector_is_narrower_than_the_labels_since_it_can_never_change() {
    let deployment = deployment(|_| {});
    let selector = json!({"app.kubernetes.io/name": "mcp-entra-server", "app.kubernetes.io/instance": "graph"});
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], selector);
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(labels["app.kubernetes.io/managed-by"], "mcp-entra-operator");
    assert_eq!(mk_children(|_| {})[&ChildKind::Service]["spec"]["selector"], selector);
}

#[test]
fn the_admin_port_is_in_no_service() {
    let service = &mk_children(|_| {})[&ChildKind::Service];
    let port = json!({"name": "http", "port": 80, "protocol": "TCP", "targetPort": "http"});
    assert_eq!(service["spec"]["ports"], json!([port]));
}

#[test]
fn the_ingress_publishes_the_endpoint_and_both_forms_of_its_metadata_over_tls_and_nothing_else() {
    let ingress = &mk_children(|_| {})[&ChildKind::Ingress];
    assert_eq!(
        paths(ingress),
        [
            ("/mcp", "Prefix"),
            ("/.well-known/oauth-protected-resource/mcp", "ImplementationSpecific"),
            ("/.well-known/oauth-protected-resource", "ImplementationSpecific"),
        ]
    );
    assert_eq!(ingress["spec"]["tls"], json!([{"hosts": ["graph.mcp.contoso.com"], "secretName": "graph-tls"}]));
    assert_eq!(ingress["spec"]["ingressClassName"], "testbed");
    assert!(!mk_children(|server| server.spec.exposure = None).contains_key(&ChildKind::Ingress));
}

#[test]
fn a_host_has_one_metadata_document_at_its_root_that_of_its_oldest_server() {
    let ingress = &mk_children_of(Held { root: false, listener_of: None }, |_| {})[&ChildKind::Ingress];
    let metadata = "/.well-known/oauth-protected-resource/mcp";
    assert_eq!(paths(ingress), [("/mcp", "Prefix"), (metadata, "ImplementationSpecific")]);
}

#[test]
fn a_strict_ingress_controller_accepts_every_path() {
    for path in ["/mcp", "/team_a/graph-2", "/~alice", "/a/~b/c"] {
        let children = mk_children(|server| server.spec.exposure.as_mut().unwrap().path = path.into());
        for (path, path_type) in paths(&children[&ChildKind::Ingress]) {
            let is_plain = !path.contains(['.', '~']);
            assert_eq!(path_type == "ImplementationSpecific", !is_plain, "{path}: {path_type}");
        }
    }
}

fn paths(ingress: &Value) -> Vec<(&str, &str)> {
    let paths = ingress["spec"]["rules"][0]["http"]["paths"].as_array().unwrap();
    paths.iter().map(|path| (path["path"].as_str().unwrap(), path["pathType"].as_str().unwrap())).collect()
}

#[test]
fn every_child_is_owned_and_labelled() {
    let policy = policy(&mk_owner(), Edition::default(), &compile(&Target::of(&mk_server(), None), []).unwrap());
    let children = mk_children(|_| {}).into_iter().chain([(policy.kind(), json_of(&policy))]);
    for (kind, child) in children {
        let metadata: ObjectMeta = serde_json::from_value(child["metadata"].clone()).unwrap();
        assert!(mk_owner().owns(Controller::of(&metadata).as_ref()), "{kind:?}");
        assert_eq!(metadata.name, Some(kind.name("graph")));
        assert_eq!(metadata.labels.unwrap()["app.kubernetes.io/instance"], "graph");
        assert_eq!((&child["kind"], &child["apiVersion"]), (&json!(kind.kind()), &json!(kind.api_version())));
    }
}

#[test]
fn a_route_has_the_published_paths_and_a_timeout_if_one_is_set() {
    let at_gateway = |time: Option<&'static str>| {
        mk_children(move |server| {
            let parent = json!({"name": "shared", "namespace": "infra", "sectionName": "https"});
            let exposure = json!({"host": "h.example", "tls": {"terminatedByGateway": true},
                "gateway": {"parentRefs": [parent]}, "requestTimeout": time});
            server.spec.exposure = Some(serde_json::from_value(exposure).unwrap());
        })
    };
    let timed = at_gateway(Some("90s"));
    assert_eq!(timed[&ChildKind::HttpRoute]["spec"]["rules"][0]["timeouts"], json!({"request": "90s"}));
    let children = at_gateway(None);
    let spec = &children[&ChildKind::HttpRoute]["spec"];
    let parent = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "shared", "namespace": "infra",
                        "sectionName": "https"});
    assert_eq!((&spec["parentRefs"], &spec["hostnames"]), (&json!([parent]), &json!(["h.example"])));
    let rule = &spec["rules"][0];
    assert!(rule.get("timeouts").is_none(), "Gateways without support for the field reject the route");
    assert_eq!(rule["backendRefs"], json!([{"name": "graph", "port": 80}]));
    let paths: Vec<_> = rule["matches"].as_array().unwrap().iter().map(|found| found["path"].clone()).collect();
    assert_eq!(
        paths,
        [
            json!({"type": "PathPrefix", "value": "/mcp"}),
            json!({"type": "Exact", "value": "/.well-known/oauth-protected-resource/mcp"}),
            json!({"type": "Exact", "value": "/.well-known/oauth-protected-resource"}),
        ]
    );
    for kind in [ChildKind::Ingress, ChildKind::ListenerSet, ChildKind::Certificate] {
        assert!(!children.contains_key(&kind), "{kind:?}");
    }
}

fn with_own_listener(server: &mut McpServer) {
    let exposure = json!({"host": "h.example", "tls": {"issuerRef": {"name": "ca", "kind": "ClusterIssuer"}},
        "gateway": {"parentRefs": [{"name": "shared", "namespace": "infra"}]}});
    server.spec.exposure = Some(serde_json::from_value(exposure).unwrap());
}

#[test]
fn a_listener_set_of_the_server_has_its_certificate() {
    let children = mk_children(with_own_listener);
    let certificate = &children[&ChildKind::Certificate];
    assert_eq!(certificate["metadata"]["name"], "graph-tls");
    let issuer = json!({"name": "ca", "kind": "ClusterIssuer", "group": "cert-manager.io"});
    assert_eq!(
        certificate["spec"],
        json!({"secretName": "graph-uid-1-tls", "dnsNames": ["h.example"], "issuerRef": issuer})
    );
    let set = &children[&ChildKind::ListenerSet]["spec"];
    assert_eq!((&set["parentRef"]["name"], &set["parentRef"]["namespace"]), (&json!("shared"), &json!("infra")));
    let listener = &set["listeners"][0];
    assert_eq!((&listener["protocol"], &listener["hostname"]), (&json!("HTTPS"), &json!("h.example")));
    assert_eq!(listener["tls"]["certificateRefs"], json!([{"group": "", "kind": "Secret", "name": "graph-uid-1-tls"}]));
    let parent = &children[&ChildKind::HttpRoute]["spec"]["parentRefs"];
    assert_eq!((&parent[0]["kind"], &parent[0]["name"]), (&json!("ListenerSet"), &json!("graph")));
}

#[test]
fn a_younger_server_of_a_host_uses_the_listener_of_the_older_one() {
    let carrier = Owner { name: "first".into(), ..mk_owner() };
    let children = mk_children_of(Held { root: false, listener_of: Some(carrier) }, with_own_listener);
    let parent = &children[&ChildKind::HttpRoute]["spec"]["parentRefs"];
    assert_eq!((&parent[0]["kind"], &parent[0]["name"]), (&json!("ListenerSet"), &json!("first")));
    assert!(!children.contains_key(&ChildKind::ListenerSet) && !children.contains_key(&ChildKind::Certificate));
}

#[test]
fn a_new_policy_replaces_all_pods_at_once_and_a_new_configuration_waits_for_its_turn() {
    let deployment = |mounted: Mounted| {
        let held = Held { root: true, listener_of: None };
        mk_children_mounting(mounted, held, &mk_options(), ResolvedAccount::Unset, |_| {})
            .remove(&ChildKind::Deployment)
            .unwrap()
    };
    let second = |kind| Edition::of(kind, "graph", &format!("{}-2", kind.name("graph"))).unwrap();
    let volume = |deployment: &Value, name: &str| {
        let volumes = deployment["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|volume| volume["name"] == name).unwrap()["configMap"]["name"].clone()
    };
    let hash = |deployment: &Value| deployment["metadata"]["annotations"][TEMPLATE_HASH].clone();
    let unavailable = |deployment: &Value| deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"].clone();

    let first = deployment(Mounted::default());
    let policy = Mounted { policy: second(ChildKind::Policy), is_moving: true, ..Mounted::default() };
    let moving = deployment(policy);
    assert_eq!((volume(&first, "policy"), volume(&moving, "policy")), (json!("graph-policy"), json!("graph-policy-2")));
    assert_eq!(hash(&moving), hash(&first));
    assert_eq!((unavailable(&first), unavailable(&moving)), (json!(0), json!("100%")));
    assert_eq!(unavailable(&deployment(Mounted { is_moving: false, ..policy })), json!(0));

    let another = deployment(Mounted { configuration: second(ChildKind::Configuration), ..Mounted::default() });
    assert_eq!(volume(&another, "config"), "graph-config-2");
    assert_ne!(hash(&another), hash(&first));
}
