//! Tests of every pattern, bound and CEL rule of the kinds, on a real API server. A bad manifest is refused with a
//! message that names the field. A similar good manifest is accepted.
#![cfg(test)] // without it, clippy treats functions that tests share as non-test code

mod audiences;
mod authorization_servers;
mod backends;
mod examples;
mod mappings;
mod pods;

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

/// Control plane of this test binary, with the kinds established.
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

/// Returns the API server's answer to the manifest with one member changed, or removed by `null`. A dry run: nothing is
/// stored.
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

/// Returns the API server's error for the manifest, if it refuses it. A dry run: nothing is stored.
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
        ("/metadata/name", json!("g".repeat(41)), "metadata.name must have at most 40 characters"),
        ("/metadata/name", json!("9graph"), "metadata.name must have at most 40 characters"),
        ("/metadata/name", json!("gra.ph"), "metadata.name must have at most 40 characters"),
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
        ("/spec/rateLimit/perUser/per", json!("0s"), "per must be between 1s and 1h"),
        ("/spec/rateLimit/perUser/per", json!("61m"), "per must be between 1s and 1h"),
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
        (
            "/spec/exposure/tls",
            json!({"terminatedByGateway": true}),
            "tls.terminatedByGateway is allowed only with gateway",
        ),
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
            "must name an HTTPS listener in sectionName",
        ),
        (
            "/spec/exposure",
            gateway(json!([{"name": "one"}, {"name": "two"}]), json!({"secretName": "s"})),
            "must have one entry without sectionName",
        ),
        (
            "/spec/exposure",
            gateway(json!([{"name": "one", "sectionName": "https"}]), json!({"issuerRef": {"name": "ca"}})),
            "must have one entry without sectionName",
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
