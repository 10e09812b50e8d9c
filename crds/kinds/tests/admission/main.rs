//! A bad manifest is refused by the API server itself, with a message that names the field, and its neighbour is not:
//! every pattern, bound and CEL rule of the kinds, on a real API server.
#![cfg(test)] // clippy does not see otherwise that the functions tests share are of tests too

mod audiences;
mod mappings;

use std::{
    process::Stdio,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DynamicObject, Patch, PatchParams, ValidationDirective},
    core::ApiResource,
};
use mcp_entra_crds::{ClusterMcpRoleMapping, McpRoleMapping, McpServer, custom_resource_definitions};
use serde::Deserialize;
use serde_json::{Value, json};
use testbed::{control_plane::ControlPlane, shared::Shared, supervisor::Supervisor};
use tokio::io::AsyncWriteExt;

/// The control plane of this binary, with the kinds established.
async fn control_plane() -> &'static ControlPlane {
    static CONTROL_PLANE: Shared<ControlPlane> = Shared::new();
    let start = || {
        CONTROL_PLANE.get_or_start(async || {
            let plane = ControlPlane::start(&Supervisor::start()?).await?;
            let definitions = Api::<CustomResourceDefinition>::all(plane.client()?);
            for definition in custom_resource_definitions()? {
                let name = definition.name_any();
                definitions.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&definition)).await?;
                established(&definitions, &name).await?;
            }
            Ok(plane)
        })
    };
    tokio::task::spawn_blocking(start).await.unwrap().unwrap()
}

async fn established(definitions: &Api<CustomResourceDefinition>, name: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = definitions.get(name).await?.status.unwrap_or_default();
        let conditions = status.conditions.unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
            return Ok(());
        }
        anyhow::ensure!(Instant::now() < deadline, "{name} is not established: {conditions:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn mk_server() -> Value {
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "McpServer",
        "metadata": {"name": "graph"},
        "spec": {
            "entra": {
                "tenantId": "8f6b0000-0000-0000-0000-00000000000a",
                "clientId": "1c2d0000-0000-0000-0000-00000000000b",
                "audiences": ["https://graph.mcp.contoso.com/mcp"],
                "requiredScopes": ["mcp.access"],
                "allowedClients": ["aebc6443-996d-45c2-90f0-388ff96faa56"],
                "tokenVersions": ["V2"],
                "groups": "InToken",
                "federation": {"tokenExpirationSeconds": 3600},
                "endpoints": {"authority": "https://login.example", "graph": "https://graph.example:8443"},
                "trustBundle": {"name": "corporate", "key": "ca.crt"},
            },
            "graph": {"scopes": ["User.Read"], "tools": ["get_user_details", "list_*"], "access": "Application"},
            "rateLimit": {"perUser": {"requests": 120, "per": "1m30s"}},
            "audit": {"hashChain": true},
            "exposure": {
                "host": "graph.mcp.contoso.com",
                "path": "/mcp",
                "ingress": {"className": "nginx"},
                "tls": {"secretName": "graph-tls"},
            },
            "replicas": 2,
            "networkPolicy": {"allowFrom": [{"namespaceSelector": {"matchLabels": {"team": "edge"}}}]},
            "podTemplate": {
                "labels": {"team": "sales"},
                "annotations": {"team.example/note": "ours"},
                "env": [{"name": "HTTPS_PROXY", "value": "http://outbound.example:3128"}],
                "nodeSelector": {"pool": "apps"},
                "tolerations": [{"key": "apps", "operator": "Exists"}],
                "affinity": {},
                "topologySpreadConstraints": [
                    {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "DoNotSchedule"},
                ],
                "priorityClassName": "apps",
                "imagePullSecrets": [{"name": "registry"}],
                "resources": {"requests": {"cpu": "100m"}, "limits": {"memory": "1Gi"}},
            },
        },
    })
}

fn mk_autoscaled() -> Value {
    let mut server = mk_server();
    server["spec"].as_object_mut().unwrap().remove("replicas");
    server["spec"]["autoscaling"] = json!({"minReplicas": 2, "maxReplicas": 10, "targetCpuUtilization": 70});
    server
}

fn gateway(parents: Value, tls: Value) -> Value {
    json!({"host": "graph.mcp.contoso.com", "gateway": {"parentRefs": parents}, "tls": tls})
}

/// What the API server says to the manifest with one member changed (removed, by `null`); nothing is stored.
async fn refusal<K>(mut manifest: Value, pointer: &str, value: Value) -> Option<String>
where
    K: Resource<DynamicType = ()>,
{
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    match (manifest.pointer_mut(parent).unwrap_or_else(|| panic!("{parent}")), member) {
        (Value::Array(items), "-") => items.push(value),
        (Value::Array(items), index) => items[index.parse::<usize>().unwrap()] = value,
        (object, member) if value.is_null() => drop(object.as_object_mut().unwrap().remove(member)),
        (object, member) => object[member] = value,
    }
    said::<K>(&manifest).await.unwrap_or_else(|error| panic!("{pointer}: {error}"))
}

/// What the API server says to the manifest, if it is against it; nothing is stored.
async fn said<K: Resource<DynamicType = ()>>(manifest: &Value) -> kube::Result<Option<String>> {
    let name = manifest["metadata"]["name"].as_str().unwrap().to_owned();
    let (client, resource) = (control_plane().await.client().unwrap(), ApiResource::erase::<K>(&()));
    let api: Api<DynamicObject> = if resource.kind.starts_with("Cluster") {
        Api::all_with(client, &resource)
    } else {
        Api::namespaced_with(client, manifest["metadata"]["namespace"].as_str().unwrap_or("default"), &resource)
    };
    let mut parameters = PatchParams::apply("test").dry_run();
    parameters.field_validation = Some(ValidationDirective::Strict);
    match api.patch(&name, &parameters, &Patch::Apply(manifest)).await {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
        Err(error) => Err(error),
    }
}

async fn assert_refused<K>(manifest: fn() -> Value, cases: Vec<(&str, Value, &str)>)
where
    K: Resource<DynamicType = ()>,
{
    for (pointer, value, named) in cases {
        let what = format!("{pointer} = {}", value.to_string().chars().take(80).collect::<String>());
        let message = refusal::<K>(manifest(), pointer, value).await.unwrap_or_else(|| panic!("{what} was accepted"));
        assert!(message.contains(named), "{what}: {message}");
    }
}

async fn assert_accepted<K>(manifest: fn() -> Value, cases: Vec<(&str, Value)>)
where
    K: Resource<DynamicType = ()>,
{
    for (pointer, value) in cases {
        let what = format!("{pointer} = {value}");
        let refused = refusal::<K>(manifest(), pointer, value).await;
        assert_eq!(refused, None, "{what}");
    }
}

fn many(count: usize, entry: impl Fn(usize) -> Value) -> Value {
    (0..count).map(entry).collect()
}

#[tokio::test]
async fn a_bad_server_is_refused_with_the_field_named() {
    let guid = "8F6B0000-0000-0000-0000-00000000000A";
    let secret = |name: &str| json!({"name": name, "value": "x"});
    let cases = vec![
        ("/metadata/name", json!("g".repeat(41)), "metadata.name: at most 40 characters"),
        ("/metadata/name", json!("9graph"), "metadata.name: at most 40 characters"),
        ("/metadata/name", json!("gra.ph"), "metadata.name: at most 40 characters"),
        ("/spec/unknown", json!(1), ".spec.unknown"),
        ("/spec/entra", json!(null), "spec.entra"),
        ("/spec/entra/tenantId", json!("contoso.onmicrosoft.com"), "spec.entra.tenantId"),
        ("/spec/entra/tenantId", json!(guid), "spec.entra.tenantId"),
        ("/spec/entra/tenantId", json!("common"), "spec.entra.tenantId"),
        ("/spec/entra/tenantId", json!(null), "spec.entra.tenantId"),
        ("/spec/entra/clientId", json!(guid), "spec.entra.clientId"),
        ("/spec/entra/clientSecret", json!("hunter2"), ".spec.entra.clientSecret"),
        ("/spec/entra/cloud", json!("Germany"), "spec.entra.cloud"),
        ("/spec/entra/audiences/-", json!("https://graph.microsoft.com"), "spec.entra.audiences"),
        ("/spec/entra/audiences/-", json!("00000003-0000-0000-c000-000000000000"), "spec.entra.audiences"),
        ("/spec/entra/audiences/-", json!(""), "spec.entra.audiences"),
        ("/spec/entra/audiences", many(9, |number| json!(format!("api://{number}"))), "spec.entra.audiences"),
        ("/spec/entra/requiredScopes", json!([]), "spec.entra.requiredScopes"),
        ("/spec/entra/requiredScopes/-", json!("mcp access"), "spec.entra.requiredScopes"),
        ("/spec/entra/allowedClients/-", json!("VS Code"), "spec.entra.allowedClients"),
        ("/spec/entra/allowedClients/-", json!(guid), "spec.entra.allowedClients"),
        ("/spec/entra/tokenVersions", json!([]), "spec.entra.tokenVersions"),
        ("/spec/entra/tokenVersions/-", json!("V3"), "spec.entra.tokenVersions"),
        ("/spec/entra/tokenVersions/-", json!("V2"), "spec.entra.tokenVersions"),
        ("/spec/entra/groups", json!("Ignore"), "spec.entra.groups"),
        ("/spec/graph/access", json!("Anybody"), "spec.graph.access"),
        ("/spec/rateLimit/perUser/requests", json!(0), "spec.rateLimit.perUser.requests"),
        ("/spec/rateLimit/perUser/per", json!("0s"), "per is a time from 1s to 1h"),
        ("/spec/rateLimit/perUser/per", json!("61m"), "per is a time from 1s to 1h"),
        ("/spec/rateLimit/perUser/per", json!("500ms"), "spec.rateLimit.perUser.per"),
        ("/spec/rateLimit/perUser/per", json!(60), "spec.rateLimit.perUser.per"),
        ("/spec/rateLimit/perUser", json!(null), "spec.rateLimit.perUser"),
        ("/spec/entra/federation/tokenExpirationSeconds", json!(599), "spec.entra.federation.tokenExpirationSeconds"),
        ("/spec/entra/federation/tokenExpirationSeconds", json!(86401), "spec.entra.federation.tokenExpirationSeconds"),
        ("/spec/entra/endpoints/authority", json!("http://login.example"), "spec.entra.endpoints.authority"),
        ("/spec/entra/endpoints/authority", json!("https://login.example/"), "spec.entra.endpoints.authority"),
        ("/spec/entra/endpoints/authority", json!("https://a@login.example"), "spec.entra.endpoints.authority"),
        ("/spec/entra/endpoints/graph", json!("graph.example"), "spec.entra.endpoints.graph"),
        ("/spec/entra/endpoints/graph", json!(null), "spec.entra.endpoints.graph"),
        ("/spec/entra/trustBundle/name", json!(""), "spec.entra.trustBundle.name"),
        ("/spec/entra/trustBundle/key", json!("../ca.crt"), "spec.entra.trustBundle.key"),
        ("/spec/graph", json!(null), "spec.graph"),
        ("/spec/graph/scopes", json!([]), "spec.graph.scopes"),
        ("/spec/graph/scopes/-", json!("User"), "spec.graph.scopes"),
        ("/spec/graph/scopes/-", json!("https://graph.microsoft.com/User.Read"), "spec.graph.scopes"),
        ("/spec/graph/tools", json!([]), "spec.graph.tools"),
        ("/spec/graph/tools/-", json!("list_*"), "spec.graph.tools"),
        ("/spec/graph/tools/-", json!("*_details"), "spec.graph.tools"),
        ("/spec/exposure/host", json!("Graph.example"), "spec.exposure.host"),
        ("/spec/exposure/host", json!("*.example"), "spec.exposure.host"),
        ("/spec/exposure/host", json!("graph.example:443"), "spec.exposure.host"),
        ("/spec/exposure/path", json!("/"), "spec.exposure.path"),
        ("/spec/exposure/path", json!("/mcp/"), "spec.exposure.path"),
        ("/spec/exposure/path", json!("/mcp/../admin"), "spec.exposure.path"),
        ("/spec/exposure/path", json!("mcp"), "spec.exposure.path"),
        ("/spec/exposure/allowedOrigins", json!(["*"]), "spec.exposure.allowedOrigins"),
        ("/spec/exposure/allowedOrigins", json!(["null"]), "spec.exposure.allowedOrigins"),
        ("/spec/exposure/allowedOrigins", json!(["https://*.example"]), "spec.exposure.allowedOrigins"),
        ("/spec/exposure/allowedOrigins", json!(["https://chat.example/"]), "spec.exposure.allowedOrigins"),
        ("/spec/exposure/allowedOrigins", json!(["http://chat.example"]), "spec.exposure.allowedOrigins"),
        (
            "/spec/exposure/allowedOrigins",
            (0..17).map(|number| json!(format!("https://{number}.example"))).collect(),
            "spec.exposure.allowedOrigins",
        ),
        ("/spec/exposure/tls", json!(null), "spec.exposure.tls"),
        ("/spec/exposure/tls/secretName", json!(null), "spec.exposure.tls: Invalid value"),
        ("/spec/exposure/tls/issuerRef", json!({"name": "ca"}), "exactly one of issuerRef, secretName"),
        ("/spec/exposure/tls", json!({"issuerRef": {}}), "spec.exposure.tls.issuerRef.name"),
        ("/spec/exposure/tls", json!({"terminatedByGateway": true}), "tls.terminatedByGateway goes with gateway"),
        ("/spec/exposure/ingress", json!(null), "exactly one of gateway and ingress"),
        ("/spec/exposure/gateway", json!({"parentRefs": [{"name": "shared"}]}), "exactly one of gateway and ingress"),
        (
            "/spec/exposure/ingress/annotations",
            (0..33).map(|number| (format!("a.example/{number}"), json!("b"))).collect::<serde_json::Map<_, _>>().into(),
            "spec.exposure.ingress.annotations",
        ),
        ("/spec/exposure/ingress/annotations", json!({"a.example/b": "c".repeat(4097)}), "a.example/b"),
        ("/spec/exposure", gateway(json!([]), json!({"secretName": "s"})), "spec.exposure.gateway.parentRefs"),
        (
            "/spec/exposure",
            gateway(json!([{"name": "shared"}]), json!({"terminatedByGateway": true})),
            "names its HTTPS listener in sectionName",
        ),
        (
            "/spec/exposure",
            gateway(json!([{"name": "one"}, {"name": "two"}]), json!({"secretName": "s"})),
            "names one Gateway and no sectionName",
        ),
        (
            "/spec/exposure",
            gateway(json!([{"name": "one", "sectionName": "https"}]), json!({"issuerRef": {"name": "ca"}})),
            "names one Gateway and no sectionName",
        ),
        ("/spec/image", json!("an image"), "spec.image"),
        ("/spec/replicas", json!(-1), "spec.replicas"),
        ("/spec/replicas", json!(101), "spec.replicas"),
        ("/spec/podTemplate/env/-", secret("AZURE_CLIENT_SECRET"), "spec.podTemplate.env"),
        ("/spec/podTemplate/env/-", secret("AZURE_CLIENT_SECRET"), "federated credential"),
        ("/spec/podTemplate/env/-", secret("AZURE_PASSWORD"), "spec.podTemplate.env"),
        ("/spec/podTemplate/env/-", secret("AZURE_CLIENT_CERTIFICATE_PATH"), "spec.podTemplate.env"),
        ("/spec/podTemplate/env/-", secret("AZURE_FEDERATED_TOKEN_FILE"), "spec.podTemplate.env"),
        ("/spec/podTemplate/env/-", secret("MCP_ENTRA_CONFIG"), "spec.podTemplate.env"),
        ("/spec/podTemplate/env/-", secret("SSL_CERT_FILE"), "spec.podTemplate.env"),
        ("/spec/podTemplate/env/-", secret("LD_PRELOAD"), "spec.podTemplate.env"),
        ("/spec/podTemplate/env/-", secret("HTTPS_PROXY"), "HTTPS_PROXY"),
        ("/spec/podTemplate/env/-", secret("NOT A NAME"), "spec.podTemplate.env"),
        (
            "/spec/podTemplate/env/-",
            json!({"name": "A", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}),
            "valueFrom",
        ),
    ];
    assert_refused::<McpServer>(mk_server, cases).await;
}

#[tokio::test]
async fn the_neighbours_of_bad_servers_are_accepted() {
    let cases = vec![
        ("/metadata/name", json!("g".repeat(40))),
        ("/metadata/name", json!("g-9")),
        ("/spec/entra/cloud", json!("USGovDoD")),
        ("/spec/entra/audiences", json!(null)),
        ("/spec/entra/audiences", many(8, |number| json!(format!("api://{number}")))),
        ("/spec/entra/requiredScopes", json!(null)),
        ("/spec/entra/federation", json!(null)),
        ("/spec/entra/federation/tokenExpirationSeconds", json!(600)),
        ("/spec/entra/federation/tokenExpirationSeconds", json!(86400)),
        ("/spec/entra/endpoints", json!(null)),
        ("/spec/entra/endpoints/authority", json!("https://127.0.0.1:8443")),
        ("/spec/entra/trustBundle", json!({"name": "corporate"})),
        ("/spec/graph/scopes", json!(["User.Read", "Mail.ReadWrite.Shared"])),
        ("/spec/graph/tools", json!(["*"])),
        ("/spec/graph/tools", json!(null)),
        ("/spec/exposure", json!(null)),
        ("/spec/exposure/path", json!(null)),
        ("/spec/exposure/path", json!("/team-a/mcp_1~x")),
        ("/spec/exposure/allowedOrigins", json!(["https://chat.example", "https://chat.example:8443"])),
        ("/spec/exposure/allowedOrigins", json!(["http://localhost:6274", "http://127.0.0.1:1", "http://[::1]:1"])),
        ("/spec/exposure/ingress", json!({})),
        ("/spec/exposure/ingress/annotations", json!({"a.example/b": "c".repeat(4096)})),
        ("/spec/exposure/tls", json!({"issuerRef": {"name": "ca", "kind": "ClusterIssuer"}})),
        ("/spec/exposure", gateway(json!([{"name": "shared", "namespace": "infra"}]), json!({"secretName": "s"}))),
        ("/spec/exposure", gateway(json!([{"name": "shared"}]), json!({"issuerRef": {"name": "ca"}}))),
        (
            "/spec/exposure",
            gateway(
                json!([{"name": "one", "sectionName": "https"}, {"name": "two", "sectionName": "web"}]),
                json!({"terminatedByGateway": true}),
            ),
        ),
        ("/spec/suspend", json!(true)),
        ("/spec/image", json!("registry.example:5000/server@sha256:abc")),
        ("/spec/replicas", json!(null)),
        ("/spec/replicas", json!(0)),
        ("/spec/replicas", json!(100)),
        ("/spec/podTemplate", json!(null)),
        ("/spec/podTemplate/env/-", json!({"name": "RUST_LOG", "value": "debug"})),
        ("/spec/podTemplate/env/-", json!({"name": "NO_PROXY"})),
    ];
    assert_accepted::<McpServer>(mk_server, cases).await;
}

/// A term of affinity to pods.
fn term(more: Value) -> Value {
    let mut term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "a"}}});
    term.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    term
}

fn required(affinity: &str, more: Value) -> Value {
    json!({affinity: {"requiredDuringSchedulingIgnoredDuringExecution": [term(more)]}})
}

fn preferred(affinity: &str, more: Value) -> Value {
    let term = json!({"weight": 1, "podAffinityTerm": term(more)});
    json!({affinity: {"preferredDuringSchedulingIgnoredDuringExecution": [term]}})
}

#[tokio::test]
async fn what_a_server_says_badly_of_its_pods_is_refused_with_the_field_named() {
    let named = |count: usize| (0..count).map(|number| (format!("a{number}"), json!("b"))).collect::<Value>();
    let peer = |peer: Value| ("/spec/networkPolicy/allowFrom/-", peer, "each peer is an ipBlock, or has");
    let affinity = |affinity: Value| ("/spec/podTemplate/affinity", affinity, "a term means pods of this namespace");
    let cases = vec![
        ("/spec/entra/federation/injection", json!("Sidecar"), "spec.entra.federation.injection"),
        (
            "/spec/entra/federation",
            json!({"injection": "Webhook", "tokenExpirationSeconds": 3599}),
            "tokenExpirationSeconds is at least 3600",
        ),
        ("/spec/entra/federation/serviceAccountName", json!("Other"), "spec.entra.federation.serviceAccountName"),
        ("/spec/autoscaling", json!({"minReplicas": 1, "maxReplicas": 2}), "exclude each other"),
        ("/spec/networkPolicy", json!({}), "spec.networkPolicy.allowFrom"),
        ("/spec/networkPolicy/allowFrom", json!([]), "spec.networkPolicy.allowFrom"),
        ("/spec/networkPolicy/allowFrom", many(17, |_| json!({"podSelector": {}})), "spec.networkPolicy.allowFrom"),
        peer(json!({})),
        peer(json!({"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}})),
        ("/spec/networkPolicy/allowFrom/-", json!({"ipBlock": {"cidr": "10.0.0.0"}}), "ipBlock.cidr is a range"),
        (
            "/spec/networkPolicy/allowFrom/-",
            json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}}),
            "ipBlock.cidr is a range",
        ),
        ("/spec/networkPolicy/egress", json!([{}]), ".spec.networkPolicy.egress"),
        ("/spec/podTemplate/labels", named(33), "spec.podTemplate.labels"),
        ("/spec/podTemplate/labels", json!({"a": "b".repeat(64)}), "spec.podTemplate.labels"),
        ("/spec/podTemplate/labels", json!({"app.kubernetes.io/instance": "other"}), "the operator's own"),
        ("/spec/podTemplate/labels", json!({"azure.workload.identity/use": "true"}), "the operator's own"),
        ("/spec/podTemplate/labels", json!({"mcp-entra.dev/a": "b"}), "the operator's own"),
        ("/spec/podTemplate/annotations", named(33), "spec.podTemplate.annotations"),
        ("/spec/podTemplate/annotations", json!({"mcp-entra.dev/server-uid": "b"}), "the operator's own"),
        (
            "/spec/podTemplate/annotations",
            json!({"azure.workload.identity/inject-proxy-sidecar": "true"}),
            "the operator's own",
        ),
        ("/spec/podTemplate/nodeSelector", named(33), "spec.podTemplate.nodeSelector"),
        ("/spec/podTemplate/tolerations", many(17, |_| json!({})), "spec.podTemplate.tolerations"),
        ("/spec/podTemplate/affinity/nodeName", json!("a"), ".spec.podTemplate.affinity.nodeName"),
        affinity(required("podAntiAffinity", json!({"namespaceSelector": {}}))),
        affinity(required("podAffinity", json!({"namespaces": ["kube-system"]}))),
        affinity(preferred("podAntiAffinity", json!({"namespaces": ["kube-system"]}))),
        affinity(preferred("podAffinity", json!({"namespaceSelector": {}}))),
        (
            "/spec/podTemplate/topologySpreadConstraints/0/whenUnsatisfiable",
            json!("Never"),
            "spec.podTemplate.topologySpreadConstraints[0].whenUnsatisfiable",
        ),
        ("/spec/podTemplate/topologySpreadConstraints/0/labelSelector", json!({}), "labelSelector"),
        ("/spec/podTemplate/priorityClassName", json!("system-cluster-critical"), "what the cluster itself needs"),
        ("/spec/podTemplate/imagePullSecrets/-", json!({"name": "registry"}), "spec.podTemplate.imagePullSecrets"),
        ("/spec/podTemplate/resources/requests/cpu", json!("much"), "spec.podTemplate.resources.requests.cpu"),
        ("/spec/podTemplate/resources/limits/memory", json!(-1), "spec.podTemplate.resources.limits.memory"),
        (
            "/spec/podTemplate/resources/limits/memory",
            json!(1_000_000_000_000_u64),
            "spec.podTemplate.resources.limits.memory",
        ),
        ("/spec/podTemplate/resources/limits/gpu", json!("1"), ".spec.podTemplate.resources.limits.gpu"),
        ("/spec/podTemplate/securityContext", json!({"runAsUser": 0}), ".spec.podTemplate.securityContext"),
        ("/spec/podTemplate/hostNetwork", json!(true), ".spec.podTemplate.hostNetwork"),
        ("/spec/podTemplate/serviceAccountName", json!("other"), ".spec.podTemplate.serviceAccountName"),
        ("/spec/podTemplate/containers", json!([]), ".spec.podTemplate.containers"),
    ];
    assert_refused::<McpServer>(mk_server, cases).await;
    let cases = vec![
        ("/spec/replicas", json!(2), "exclude each other"),
        ("/spec/autoscaling/minReplicas", json!(0), "spec.autoscaling.minReplicas"),
        ("/spec/autoscaling/minReplicas", json!(11), "minReplicas is at most maxReplicas"),
        ("/spec/autoscaling/maxReplicas", json!(null), "spec.autoscaling.maxReplicas"),
        ("/spec/autoscaling/maxReplicas", json!(101), "spec.autoscaling.maxReplicas"),
        ("/spec/autoscaling/targetCpuUtilization", json!(0), "spec.autoscaling.targetCpuUtilization"),
    ];
    assert_refused::<McpServer>(mk_autoscaled, cases).await;
}

#[tokio::test]
async fn the_neighbours_of_what_a_server_says_badly_of_its_pods_are_accepted() {
    let labels = |count: usize| (0..count).map(|number| (format!("a{number}"), json!("b"))).collect::<Value>();
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["arm64"]}]}]}}});
    let cases = vec![
        ("/spec/entra/federation", json!({"injection": "Webhook"})),
        ("/spec/entra/federation", json!({"serviceAccountName": "shared.accounts-1"})),
        ("/spec/networkPolicy", json!(null)),
        ("/spec/networkPolicy/allowFrom/-", json!({"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}})),
        ("/spec/networkPolicy/allowFrom/-", json!({"ipBlock": {"cidr": "2001:db8::/32"}})),
        ("/spec/networkPolicy/allowFrom/-", json!({"podSelector": {}, "namespaceSelector": {}})),
        ("/spec/podTemplate/labels", labels(32)),
        ("/spec/podTemplate/labels", json!({"app": "b".repeat(63)})),
        ("/spec/podTemplate/annotations", json!({"a.example/b": "c".repeat(4096)})),
        ("/spec/podTemplate/nodeSelector", labels(32)),
        ("/spec/podTemplate/affinity", affinity),
        ("/spec/podTemplate/affinity", required("podAntiAffinity", json!({}))),
        ("/spec/podTemplate/affinity", preferred("podAffinity", json!({}))),
        ("/spec/podTemplate/topologySpreadConstraints", json!(null)),
        ("/spec/podTemplate/priorityClassName", json!("system")),
        ("/spec/podTemplate/resources/requests/cpu", json!(2)),
        ("/spec/podTemplate/resources/requests/cpu", json!("0.25")),
        ("/spec/podTemplate/resources/limits/memory", json!(3_000_000_000_u64)),
        ("/spec/podTemplate/resources/limits/ephemeral-storage", json!("1Gi")),
    ];
    assert_accepted::<McpServer>(mk_server, cases).await;
    let cases =
        vec![("/spec/autoscaling/minReplicas", json!(10)), ("/spec/autoscaling/targetCpuUtilization", json!(null))];
    assert_accepted::<McpServer>(mk_autoscaled, cases).await;
}

#[tokio::test]
async fn every_example_is_accepted() {
    let mut seen = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut manifest = Value::deserialize(document).unwrap();
            // Nothing is stored, the namespace of the examples neither.
            manifest["metadata"].as_object_mut().unwrap().remove("namespace");
            let refused = match manifest["kind"].as_str().unwrap() {
                "McpServer" => said::<McpServer>(&manifest).await,
                "McpRoleMapping" => said::<McpRoleMapping>(&manifest).await,
                "ClusterMcpRoleMapping" => said::<ClusterMcpRoleMapping>(&manifest).await,
                _ => continue,
            };
            assert_eq!(refused.unwrap(), None, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} examples were seen");
}

/// The examples, as objects that no other test of this control plane has.
fn examples() -> Vec<Value> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let text: Vec<String> = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let mut objects = Vec::new();
    for document in text.iter().flat_map(|text| serde_yaml::Deserializer::from_str(text)) {
        let mut object = Value::deserialize(document).unwrap();
        let its_own = if object["metadata"].get("namespace").is_some() { "namespace" } else { "name" };
        object["metadata"][its_own] = json!(format!("twice-{}", object["metadata"][its_own].as_str().unwrap()));
        objects.push(object);
    }
    objects
}

#[tokio::test]
async fn a_second_apply_of_the_examples_changes_nothing() {
    let plane = control_plane().await;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": examples()}).to_string();
    let mut said = String::new();
    for _ in 0..2 {
        let mut kubectl = tokio::process::Command::new(plane.kubectl());
        kubectl.arg("--kubeconfig").arg(plane.kubeconfig()).args(["apply", "-f", "-"]);
        // Discovery is cached below HOME otherwise, and would stay behind.
        kubectl.env("KUBECACHEDIR", plane.kubeconfig().with_file_name("kubectl-cache"));
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = kubectl.spawn().unwrap();
        running.stdin.take().unwrap().write_all(list.as_bytes()).await.unwrap();
        let output = running.wait_with_output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        said = String::from_utf8(output.stdout).unwrap();
    }
    let changed: Vec<&str> = said.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    assert!(said.lines().count() >= 4 && changed.is_empty(), "{said}");
}

#[tokio::test]
async fn an_object_that_nobody_has_looked_at_says_so_however_often_it_is_applied() {
    let client = control_plane().await.client().unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "unseen"}});
    let namespaces = Api::<DynamicObject>::all_with(client.clone(), &ApiResource::erase::<Namespace>(&()));
    namespaces.patch("unseen", &PatchParams::apply("test"), &Patch::Apply(&namespace)).await.unwrap();
    for mut manifest in examples() {
        let resource = match manifest["kind"].as_str().unwrap() {
            "McpServer" => ApiResource::erase::<McpServer>(&()),
            "McpRoleMapping" => ApiResource::erase::<McpRoleMapping>(&()),
            "ClusterMcpRoleMapping" => ApiResource::erase::<ClusterMcpRoleMapping>(&()),
            _ => continue,
        };
        let api: Api<DynamicObject> = if resource.kind.starts_with("Cluster") {
            Api::all_with(client.clone(), &resource)
        } else {
            manifest["metadata"]["namespace"] = json!("unseen");
            Api::namespaced_with(client.clone(), "unseen", &resource)
        };
        let name = format!("unseen-{}", manifest["metadata"]["name"].as_str().unwrap());
        manifest["metadata"]["name"] = json!(name);
        let apply = async || api.patch(&name, &PatchParams::apply("test"), &Patch::Apply(&manifest)).await.unwrap();
        let (first, second, third) = (apply().await, apply().await, apply().await);
        let read = api.get(&name).await.unwrap();
        for object in [&first, &second, &third, &read] {
            assert_eq!(object.data["status"]["observedGeneration"], -1, "{}", resource.kind);
            let of = |object: &DynamicObject| (object.metadata.generation, object.metadata.managed_fields.clone());
            assert_eq!(of(object), of(&first), "{}", resource.kind);
        }
        // The second apply stores the default, which nobody wrote.
        assert_eq!(third.metadata, second.metadata, "{}", resource.kind);
        let status = json!({"status": {"observedGeneration": 1}});
        let written = api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        assert_eq!(written.data["status"]["observedGeneration"], 1);
    }
}
