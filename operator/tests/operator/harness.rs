//! Test environment: a control plane with the kinds and the operator's role, a running operator, and a namespace for
//! each test.

use std::{
    fmt::Debug,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        admissionregistration::v1::ValidatingAdmissionPolicyBinding,
        core::v1::{ConfigMap, Namespace},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    discovery::{ApiCapabilities, ApiResource, Scope, oneshot::pinned_kind},
};
use mcp_entra_crds::{ClusterMcpRoleMapping, McpRoleMapping, McpServer};
use mcp_entra_operator::Options;
use mcp_entra_policy::POLICY_KEY;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use testbed::{
    chart,
    control_plane::{AuditEvent, ControlPlane, Marker},
    definitions,
    shared::Shared,
    supervisor::Supervisor,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tracing::instrument::WithSubscriber;

use crate::kubelet::FakePods;

pub(crate) const OPERATOR: &str = "system:serviceaccount:mcp-entra-system:mcp-entra-operator";

/// Control plane with the kinds and the operator's role.
pub(crate) struct Cluster {
    pub(crate) plane: ControlPlane,
    pub(crate) pods: FakePods,
    pod_proxy_url: String,
    kubeconfig: std::path::PathBuf,
}

/// Operator of one test.
pub(crate) struct Operator {
    pub(crate) url: String,
    pub(crate) shutdown: CancellationToken,
    pub(crate) ended: JoinHandle<Result<(), mcp_entra_operator::RunError>>,
    pub(crate) log: Log,
}

impl Cluster {
    /// Cluster with the kinds of Gateway API, cert-manager and Prometheus operator.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        Self::start_watching(&[]).await
    }

    /// Same as above, with the rights to watch only these namespaces.
    pub(crate) async fn start_watching(namespaces: &[String]) -> anyhow::Result<Self> {
        let cluster = Self::bare_watching(namespaces).await?;
        cluster.install_others().await?;
        Ok(cluster)
    }

    /// Installs third-party kinds.
    pub(crate) async fn install_others(&self) -> anyhow::Result<()> {
        let read = || -> anyhow::Result<Vec<Value>> {
            let mut all = definitions::gateway_api()?;
            all.extend(definitions::cert_manager()?);
            all.extend(definitions::prometheus_operator()?);
            Ok(all)
        };
        let all = tokio::task::spawn_blocking(read).await??;
        definitions::define(&self.plane.client()?, &all).await
    }

    /// Cluster without third-party kinds.
    pub(crate) async fn bare() -> anyhow::Result<Self> {
        Self::bare_watching(&[]).await
    }

    async fn bare_watching(namespaces: &[String]) -> anyhow::Result<Self> {
        let supervisor = Supervisor::start()?;
        let plane = ControlPlane::start(&supervisor).await?;
        let client = plane.client()?;
        let system = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mcp-entra-system"}});
        apply(&client, &system).await?;
        for definition in mcp_entra_crds::custom_resource_definitions()? {
            apply(&client, &serde_json::to_value(definition)?).await?;
        }
        for object in chart::rights(&supervisor, namespaces).await? {
            apply(&client, &object).await?;
        }
        until("the kinds are served", async || {
            Api::<McpRoleMapping>::all(client.clone()).list(&Default::default()).await.is_ok()
                && Api::<ClusterMcpRoleMapping>::all(client.clone()).list(&Default::default()).await.is_ok()
        })
        .await;
        let pods = FakePods::default();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let pod_proxy_url = format!("http://{}", listener.local_addr()?);
        tokio::spawn(axum::serve(listener, pods.router()).into_future());
        let kubeconfig = plane.kubeconfig_for_service_account("mcp-entra-system", "mcp-entra-operator").await?;
        Ok(Self { plane, pods, pod_proxy_url, kubeconfig })
    }

    /// Starts an operator as the program does, without a separate process.
    pub(crate) async fn operator(&self) -> anyhow::Result<Operator> {
        self.operator_with(|_| {}).await
    }

    /// Starts an operator with other options.
    pub(crate) async fn operator_with(&self, change: impl FnOnce(&mut Options)) -> anyhow::Result<Operator> {
        self.operator_by(&self.kubeconfig, change).await
    }

    /// Starts an operator with the rights of the kubeconfig's account.
    pub(crate) async fn operator_by(
        &self,
        kubeconfig: &Path,
        change: impl FnOnce(&mut Options),
    ) -> anyhow::Result<Operator> {
        let kubeconfig = kube::config::Kubeconfig::read_from(kubeconfig)?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        let mut options = self.options();
        change(&mut options);
        let listener = TcpListener::bind(options.listen).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let (shutdown, log) = (CancellationToken::new(), Log::default());
        let running = mcp_entra_operator::run(config, options, listener, shutdown.clone());
        let ended = tokio::spawn(running.with_subscriber(log.subscriber()));
        Ok(Operator { url, shutdown, ended, log })
    }

    /// Default options of operators.
    fn options(&self) -> Options {
        Options {
            server_image: "registry.example/mcp-entra-server:test".into(),
            allowed_authorities: vec!["https://login.example".into()],
            allowed_graphs: vec!["https://graph.example".into()],
            allow_trust_bundles: true,
            allowed_ingress_annotations: vec!["edge.example/*".into()],
            allowed_pod_annotations: vec![
                "team.example/*".into(),
                "container.apparmor.security.beta.kubernetes.io/*".into(),
            ],
            allowed_pod_labels: vec!["team".into()],
            watch_namespaces: Vec::new(),
            allowed_priority_classes: vec!["team".into()],
            allowed_hosts: vec!["*.mcp.contoso.com".into(), "*.example".into()],
            operator_namespace: "mcp-entra-system".into(),
            monitoring_namespaces: vec!["monitoring".into()],
            pod_monitors: None,
            allowed_images: vec!["registry.example/allowed:*".into()],
            allowed_backend_images: vec!["registry.example/mcp/*".into()],
            allowed_backend_resources: vec!["api://orders".into()],
            allowed_backend_secrets: Vec::new(),
            at_once: 5,
            roll_out_deadline_seconds: 300,
            pod_proxy_url: Some(self.pod_proxy_url.clone()),
            status_poll_seconds: 1,
            trusted_proxies: vec![],
            probe_interval_seconds: 300,
            release_after_seconds: 3,
            lease_duration_seconds: 15,
            identity: None,
            listen: ([127, 0, 0, 1], 0).into(),
        }
    }

    /// Options of the operator of this binary.
    pub(crate) fn shared_options(&self) -> Options {
        Options { pod_monitors: "release=prometheus".parse().ok(), ..self.options() }
    }
}

/// Returns the warnings and errors that an operator logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }

    fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
        let log = self.clone();
        let format = tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::WARN);
        format.with_writer(move || log.clone()).finish()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, text: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Cluster and operator of this binary.
pub(crate) fn cluster() -> &'static Cluster {
    static CLUSTER: Shared<Cluster> = Shared::new();
    CLUSTER
        .get_or_start(async || {
            let cluster = Cluster::start().await?;
            let options = cluster.shared_options();
            cluster.operator_with(|own| *own = options).await?;
            Ok(cluster)
        })
        .unwrap()
}

/// Namespace of one test.
pub(crate) struct Space {
    pub(crate) cluster: &'static Cluster,
    pub(crate) client: Client,
    pub(crate) name: String,
}

impl Space {
    pub(crate) async fn new() -> Self {
        Self::on(tokio::task::spawn_blocking(cluster).await.unwrap()).await
    }

    /// Namespace on a separate cluster.
    pub(crate) async fn on(cluster: &'static Cluster) -> Self {
        let client = cluster.plane.client().unwrap();
        let new: Namespace = serde_json::from_value(json!({"metadata": {"generateName": "test-"}})).unwrap();
        let made = Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &new).await.unwrap();
        Self { cluster, client, name: made.name_any() }
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies with kubectl.
    pub(crate) async fn apply(&self, mut object: Value) {
        object["metadata"]["namespace"] = json!(self.name);
        apply(&self.client, &object).await.unwrap();
    }

    /// Applies a cluster-scoped object with kubectl. Tests share the cluster, so each uses its own names.
    pub(crate) async fn apply_to_cluster(&self, object: &Value) {
        apply(&self.client, object).await.unwrap();
    }

    /// Makes the API server refuse objects of the namespace for which this expression (CEL) is false, by a policy of
    /// the cluster's administrator. It takes effect a moment later.
    pub(crate) async fn refuse(&self, group: &str, plural: &str, expression: &str, message: &str) {
        let name = format!("{}-{}", self.name, plural.replace('/', "-"));
        let version = "admissionregistration.k8s.io/v1";
        let rule = json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [plural],
                          "operations": ["CREATE", "UPDATE"]});
        self.apply_to_cluster(&json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {"failurePolicy": "Fail", "matchConstraints": {"resourceRules": [rule]},
                     "validations": [{"expression": expression, "message": message, "reason": "Forbidden"}]},
        }))
        .await;
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": self.name}});
        self.apply_to_cluster(&json!({
            "apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
            "spec": {"policyName": name, "validationActions": ["Deny"],
                     "matchResources": {"namespaceSelector": here}},
        }))
        .await;
    }

    /// Reverts [`Space::refuse`].
    pub(crate) async fn refuse_no_longer(&self, plural: &str) {
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(self.client.clone());
        bindings
            .delete(&format!("{}-{}", self.name, plural.replace('/', "-")), &DeleteParams::default())
            .await
            .unwrap();
    }

    /// Runs kubectl in the namespace, unless the arguments name another.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> std::process::Output {
        let plane = &self.cluster.plane;
        let mut kubectl = tokio::process::Command::new(plane.kubectl());
        kubectl.arg("--kubeconfig").arg(plane.kubeconfig()).args(["--namespace", &self.name]).args(arguments);
        // Without this, discovery is cached below HOME and stays there.
        kubectl.env("KUBECACHEDIR", plane.kubeconfig().with_file_name("kubectl-cache"));
        kubectl.output().await.unwrap()
    }

    /// Sets a label of the namespace; `None` removes it.
    pub(crate) async fn label(&self, key: &str, value: Option<&str>) {
        let patch = json!({"metadata": {"labels": {key: value}}});
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    /// Returns the cluster mapping of this name.
    pub(crate) fn cluster_mappings(&self) -> Api<ClusterMcpRoleMapping> {
        Api::all(self.client.clone())
    }

    /// Edits with `kubectl patch`.
    pub(crate) async fn edit<K>(&self, name: &str, patch: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }

    pub(crate) async fn get<K>(&self, name: &str) -> Option<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().get_opt(name).await.unwrap()
    }

    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
    {
        self.api::<K>().delete(name, &Default::default()).await.unwrap();
    }

    /// Waits until the condition of the server `graph` matches, and returns it.
    pub(crate) async fn condition(&self, type_: &str, status: &str, reason: &str) -> Condition {
        self.condition_of("graph", type_, status, reason).await
    }

    /// Waits until the condition of a server matches, and returns it.
    pub(crate) async fn condition_of(&self, name: &str, type_: &str, status: &str, reason: &str) -> Condition {
        let mut last = None;
        until_or(
            || format!("{type_} of {name} is {status} for {reason}"),
            async || {
                let server = self.get::<McpServer>(name).await;
                last = server.and_then(|server| server.status).map(|status| status.conditions);
                find(last.as_deref().unwrap_or_default(), type_)
                    .is_some_and(|found| found.status == status && found.reason == reason)
            },
        )
        .await
        .unwrap_or_else(|what| panic!("{what}; the last conditions were {last:#?}"));
        find(&last.unwrap(), type_).unwrap()
    }

    /// Waits until the condition of a mapping matches, and returns it.
    pub(crate) async fn mapping_condition(&self, name: &str, type_: &str, status: &str, reason: &str) -> Condition {
        let mut found = None;
        until(&format!("{type_} of {name} is {status} for {reason}"), async || {
            let mapping = self.get::<McpRoleMapping>(name).await;
            let conditions = mapping.and_then(|mapping| mapping.status).map(|status| status.conditions);
            found = find(&conditions.unwrap_or_default(), type_);
            found.as_ref().is_some_and(|found| found.status == status && found.reason == reason)
        })
        .await;
        found.unwrap()
    }

    /// Returns the policy in the ConfigMap.
    pub(crate) async fn policy(&self) -> String {
        let config_map = self.get::<ConfigMap>("graph-policy").await;
        config_map.and_then(|map| map.data).and_then(|mut data| data.remove(POLICY_KEY)).unwrap_or_default()
    }

    pub(crate) fn mark(&self) -> Marker {
        self.cluster.plane.audit().mark().unwrap()
    }

    /// Returns the operator's writes to this namespace since then.
    pub(crate) async fn writes(&self, since: Marker) -> Vec<AuditEvent> {
        let mut writes = self.cluster.plane.audit().writes(since, OPERATOR).await.unwrap();
        writes.retain(|write| write.namespace.as_deref() == Some(self.name.as_str()));
        writes
    }

    /// Waits until the operator has been quiet for longer than its longest delay. Later writes then do not result from
    /// earlier events.
    pub(crate) async fn quiet(&self) {
        until("the operator is quiet", async || {
            let mark = self.mark();
            tokio::time::sleep(Duration::from_secs(4)).await;
            self.writes(mark).await.is_empty()
        })
        .await;
    }
}

/// Returns a valid McpServer named `graph`, with its own host and client id: tests share a cluster.
pub(crate) fn mk_server() -> Value {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "McpServer",
        "metadata": {"name": "graph"},
        "spec": {
            "entra": {
                "tenantId": "8f6b0000-0000-0000-0000-00000000000a",
                "clientId": format!("1c2d0000-0000-0000-0000-{number:012x}"),
            },
            "graph": {"scopes": ["User.Read", "Mail.Read"]},
            "exposure": {
                "host": format!("graph-{number}.mcp.contoso.com"),
                "ingress": {"className": "none"},
                "tls": {"secretName": "graph-tls"},
            },
        },
    })
}

/// Returns a mapping that grants an app role one tool of the server `graph`.
pub(crate) fn mk_mapping(name: &str, role: &str) -> Value {
    json!({
        "apiVersion": "mcp-entra.dev/v1alpha1",
        "kind": "McpRoleMapping",
        "metadata": {"name": name},
        "spec": {
            "servers": {"names": ["graph"]},
            "grants": [{"name": "all", "to": [{"appRole": role}], "allow": {"tools": ["get_user_details"]}}],
        },
    })
}

pub(crate) fn find(conditions: &[Condition], type_: &str) -> Option<Condition> {
    conditions.iter().find(|condition| condition.type_ == type_).cloned()
}

/// Returns the client for an object, and the plural of its kind.
pub(crate) async fn api_of(client: &Client, object: &DynamicObject) -> anyhow::Result<(Api<DynamicObject>, String)> {
    let types = object.types.clone().unwrap_or_default();
    let (resource, capabilities): (ApiResource, ApiCapabilities) = pinned_kind(client, &types.try_into()?).await?;
    let api = match (capabilities.scope, object.namespace()) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), &namespace, &resource),
        _ => Api::all_with(client.clone(), &resource),
    };
    Ok((api, resource.plural))
}

pub(crate) async fn apply(client: &Client, object: &Value) -> anyhow::Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let (api, _) = api_of(client, &object).await?;
    api.patch(&object.name_any(), &PatchParams::apply("kubectl").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// Returns the HTTP status of an operator's answer, if it answers.
pub(crate) async fn status_of(url: &str, path: &str) -> Option<u16> {
    reqwest::get(format!("{url}{path}")).await.ok().map(|response| response.status().as_u16())
}

/// Polls until the condition holds. After a minute, it fails the test with the awaited condition.
pub(crate) async fn until(what: &str, condition: impl AsyncFnMut() -> bool) {
    until_or(|| what.to_owned(), condition).await.unwrap_or_else(|what| panic!("{what}"));
}

pub(crate) async fn until_or(
    what: impl Fn() -> String,
    mut condition: impl AsyncFnMut() -> bool,
) -> Result<(), String> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        if Instant::now() > deadline {
            return Err(format!("waited too long until {}", what()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}
