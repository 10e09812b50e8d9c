//! Separate API server of the guardrails, since they would affect other tests. All of them are in force, with the
//! running operator.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::Client;
use kube::api::{Api, DynamicObject, PostParams};
use serde_json::{Value, json};
use testbed::chart::{OPERATOR as ACCOUNT, chart};
use testbed::control_plane::ControlPlane;
use testbed::definitions;
use testbed::helm::Helm;
use testbed::programs;
use testbed::shared::Shared;
use testbed::stack::repository;
use testbed::supervisor::{Child, Command, Supervisor};

use super::images::mk_pod;
use super::requests::{Answer, create, objects};

/// Pinned image of an allowed registry.
pub(super) const IMAGE: &str = "registry.example/mcp-entra/mcp-entra-server@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
/// Namespace with its own hosts, and the servers of [`servers`].
pub(super) const TEAM: &str = "productivity";
/// The operator's user name.
pub(super) const OPERATOR: &str = "system:serviceaccount:mcp-entra-system:mcp-entra-operator";

const SYSTEM: &str = ACCOUNT.0;
const LIMIT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(50);

/// Guarded cluster of this binary.
pub(crate) struct Guarded {
    plane: ControlPlane,
    operator_log: PathBuf,
    _operator: Child,
}

impl Guarded {
    /// Starts with the first test.
    pub(crate) async fn get() -> &'static Self {
        static GUARDED: Shared<Guarded> = Shared::new();
        tokio::task::spawn_blocking(|| GUARDED.get_or_start(start).unwrap()).await.unwrap()
    }

    /// Returns a client with the rights of the cluster administrator.
    pub(super) fn admin(&self) -> Client {
        self.plane.client().unwrap()
    }

    /// Returns a client with every right, so that only a guardrail can refuse its requests.
    pub(super) fn person(&self) -> Client {
        self.as_user("dora", &[])
    }

    /// Returns a client with every right, this name and these groups.
    pub(super) fn as_user(&self, name: &str, groups: &[&str]) -> Client {
        as_user(&self.plane, name, groups)
    }

    /// Returns the operator's metrics from `/metrics`.
    pub(crate) async fn metrics(&self) -> String {
        let log = fs::read_to_string(&self.operator_log).unwrap();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address = lines.filter_map(|line| line["address"].as_str().map(str::to_owned)).next().unwrap();
        reqwest::get(format!("http://{address}/metrics")).await.unwrap().text().await.unwrap()
    }

    /// Creates a namespace with only the default host.
    pub(super) async fn namespace(&self) -> String {
        let new: Namespace = serde_json::from_value(json!({"metadata": {"generateName": "other-"}})).unwrap();
        let made = Api::<Namespace>::all(self.admin()).create(&PostParams::default(), &new).await.unwrap();
        made.metadata.name.unwrap()
    }

    /// Creates an McpServer, and waits until its children are applied.
    pub(super) async fn serve(&self, namespace: &str, server: &Value) {
        create(&self.person(), namespace, server, false).await.unwrap();
        programmed(&self.admin(), namespace, server["metadata"]["name"].as_str().unwrap()).await;
    }
}

async fn start() -> anyhow::Result<Guarded> {
    let supervisor = Supervisor::start()?;
    let plane = ControlPlane::start(&supervisor).await?;
    let client = plane.client()?;
    let kinds = tokio::task::spawn_blocking(|| -> anyhow::Result<Vec<Value>> {
        let mut kinds = definitions::gateway_api()?;
        kinds.extend(definitions::cert_manager()?);
        kinds.extend(definitions::prometheus_operator()?);
        for file in fs::read_dir(repository("crds/yaml"))? {
            kinds.push(serde_yaml::from_str(&fs::read_to_string(file?.path())?)?);
        }
        Ok(kinds)
    });
    definitions::define(&client, &kinds.await??).await?;
    let helm = Helm::with_kubeconfig(&supervisor, plane.kubeconfig()).await?;
    let (chart, values) = (chart(), values_of_all().to_string());
    helm.run(&["install", "mcp-entra", &chart, "--namespace", SYSTEM, "--create-namespace", "--set-json", &values])
        .await?;
    let team: Namespace = serde_json::from_value(json!({"metadata": {"name": TEAM}}))?;
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &team).await?;
    in_force(&plane).await;

    let kubeconfig = plane.kubeconfig_for_service_account(SYSTEM, ACCOUNT.1).await?;
    let program = tokio::task::spawn_blocking(|| programs::program("mcp-entra-operator")).await??;
    let operator_log = supervisor.folder().join("operator.log");
    let command = Command::new(program, &operator_log)
        .args(["run", "--listen=127.0.0.1:0", "--allowed-host=*", "--pod-monitors", "--server-image", IMAGE])
        .env("KUBECONFIG", kubeconfig.display().to_string());
    let guarded = Guarded { plane, operator_log, _operator: supervisor.spawn(command).await? };
    for server in servers() {
        guarded.serve(TEAM, &server).await;
    }
    Ok(guarded)
}

/// Returns every guardrail, with parameters.
fn values_of_all() -> Value {
    json!({
        "crds": {"install": false},
        "image": {"registry": "registry.example/mcp-entra", "server": {"digest": IMAGE.split_once('@').unwrap().1}},
        "allowedBackendSecrets": [
            format!("{TEAM}/shared-database"),
            "elsewhere/other-database",
            format!("{TEAM}/child-0123abcd-oauth-1"),
        ],
        "guardrails": {
            "namespaceSelector": {"matchExpressions": [{"key": "mcp-entra.dev/unguarded", "operator": "DoesNotExist"}]},
            "allowedRegistries": {"enabled": true, "registries": ["registry.example/mcp-entra", "registry.example:5000"]},
            "requireDigests": {"enabled": true},
            "allowedHosts": {
                "enabled": true,
                "default": ["*.shared.example"],
                "namespaces": {TEAM: ["*.mcp.contoso.com", "graph.contoso.com"], "hostless": []},
            },
            "requireTls": {"enabled": true, "ingressClasses": ["https-only"]},
            "onlyOperatorWrites": {"enabled": true, "exemptUsers": ["restorer"], "exemptGroups": ["platform"]},
            "refuseOrphaning": {"enabled": true},
            "operatorBounds": {"enabled": true},
        },
    })
}

/// Returns two servers that have every kind of child between them.
fn servers() -> [Value; 2] {
    let mut routed = mk_server("routed");
    routed["spec"]["autoscaling"] = json!({"minReplicas": 2, "maxReplicas": 4});
    routed["spec"]["networkPolicy"] = json!({"allowFrom": [{"podSelector": {}}]});
    routed["spec"]["exposure"] = json!({
        "host": "graph.contoso.com",
        "gateway": {"parentRefs": [{"name": "shared", "namespace": "infra"}]},
        "tls": {"issuerRef": {"name": "letsencrypt", "kind": "ClusterIssuer"}},
    });
    let mut ingress = mk_server("ingress");
    ingress["spec"]["exposure"] = mk_ingress("ingress.mcp.contoso.com");
    let password = json!({"name": "ingress-session-store"});
    let valkey = json!({"url": "rediss://sessions.example", "passwordSecretRef": password});
    ingress["spec"]["authorizationServer"] = json!({"sessionStore": {"valkey": valkey}});
    [routed, ingress]
}

/// Returns a valid McpServer with its own client id, and without exposure.
pub(super) fn mk_server(name: &str) -> Value {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "McpServer",
        "metadata": {"name": name},
        "spec": {
            "entra": {
                "tenantId": "8f6b0000-0000-0000-0000-00000000000a",
                "clientId": format!("1c2d0000-0000-0000-0000-{number:012x}"),
            },
            "graph": {"scopes": ["User.Read"]},
        },
    })
}

/// Returns an exposure by an Ingress. It is allowed, except possibly its host.
pub(super) fn mk_ingress(host: &str) -> Value {
    json!({"host": host, "ingress": {"className": "https-only"}, "tls": {"secretName": "graph-tls"}})
}

/// Waits until each policy refuses its probe, since policies and their parameters take effect with a delay. Every probe
/// violates one of them, since only one refusal is reported.
async fn in_force(plane: &ControlPlane) {
    let client = as_user(plane, "dora", &["platform"]);
    let server = |change: fn(&mut Value)| {
        let mut server = mk_server("probe");
        change(&mut server["spec"]);
        server
    };
    let pod = |image: &str| {
        let mut pod = mk_pod(image);
        pod["metadata"]["labels"] = json!({"app.kubernetes.io/name": "mcp-entra-server"});
        pod
    };
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata":
        {"name": "probe", "labels": {"app.kubernetes.io/managed-by": "mcp-entra-operator"}}});
    let tag = "registry.example/mcp-entra/server:1";
    for (client, object, words) in [
        (
            &client,
            &server(|spec| spec["image"] = json!(IMAGE.replace("registry", "other"))),
            "(allowed: registry.example/mcp-entra",
        ),
        (&client, &server(|spec| spec["image"] = json!("registry.example/mcp-entra/server:1")), "has no digest"),
        (&client, &server(|spec| spec["exposure"] = mk_ingress("other.example")), "is not allowed in the namespace"),
        (
            &client,
            &server(|spec| {
                spec["exposure"] = mk_ingress("graph.contoso.com");
                spec["exposure"]["ingress"]["className"] = json!("plain");
            }),
            "(allowed: https-only)",
        ),
        (&client, &pod(&IMAGE.replace("registry", "other")), "(allowed: registry.example/mcp-entra"),
        (&client, &pod(tag), "has no digest"),
        (&as_user(plane, "dora", &[]), &account, "only by mcp-entra-operator"),
        (&as_user(plane, OPERATOR, &[]), &mk_pod(IMAGE), "policy-revision"),
    ] {
        let refused = async || create(client, TEAM, object, true).await.is_err_and(|refusal| refusal.contains(words));
        until(words, refused).await;
    }
}

fn as_user(plane: &ControlPlane, name: &str, groups: &[&str]) -> Client {
    let mut config = plane.config();
    config.auth_info.impersonate = Some(name.to_owned());
    let groups = ["system:masters", "system:authenticated"].iter().chain(groups);
    config.auth_info.impersonate_groups = Some(groups.map(|group| (*group).to_owned()).collect());
    Client::try_from(config).unwrap()
}

async fn programmed(client: &Client, namespace: &str, name: &str) {
    let servers = objects(client, namespace, "mcp-entra.dev/v1alpha1", "McpServer");
    let mut last: Answer = Err("not read yet".into());
    let limit = Instant::now() + LIMIT;
    while !last.as_ref().is_ok_and(is_programmed) {
        assert!(Instant::now() < limit, "{namespace}/{name} was not Programmed in time; the last was {last:#?}");
        tokio::time::sleep(POLL).await;
        last = servers.get(name).await.map_err(|error| error.to_string());
    }
}

fn is_programmed(server: &DynamicObject) -> bool {
    let conditions = server.data.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition["type"] == "Programmed" && condition["status"] == "True")
}

/// Waits until the condition holds.
pub(super) async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + LIMIT;
    while !so().await {
        assert!(Instant::now() < limit, "not in time: {what}");
        tokio::time::sleep(POLL).await;
    }
}
