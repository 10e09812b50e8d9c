//! World of a story: a namespace of the cluster, a tenant of Entra with its users, and clients that reach both.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use entra_emulator::sign_in::{Authority, SignIn, Tokens};
use entra_emulator::{
    App, AppRole, Group, GroupMembershipClaims, MemberType, Message, OptionalClaim, RoleAssignment, Tenant, User,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::wait::await_condition;
use mcp_entra_crds::{ConditionType, McpServer};
use serde_json::{Value, json};
use testbed::edge;
use testbed::stack::{Stack, repository};
use uuid::Uuid;

/// Name of the McpServer in `crds/examples`.
pub(super) const SERVER: &str = "graph";

/// Role that the example's mapping grants.
pub(super) const READER: &str = "Mcp.Reader";

/// Namespace of the Gateways, as in the example.
const INFRASTRUCTURE: &str = "infra";

/// Group of bob.
pub(super) const SALES: &str = "Sales";

/// Number of groups that a token lists at most.
const LISTED_GROUPS: usize = 200;

/// World of a story.
pub struct World {
    /// Stack of the story.
    pub stack: Arc<Stack>,
    /// Namespace of the examples.
    pub namespace: String,
    /// Host of the server.
    pub host: String,
    /// Gateway of the server.
    gateway: String,
    /// Id of the tenant.
    pub tenant: Uuid,
    /// App registration of the server.
    pub server_app: Uuid,
    /// App registration of the MCP client that users sign in with.
    pub client_app: Uuid,
    /// User with the role `Mcp.Reader`.
    pub alice: User,
    /// User without a role, in the group `Sales`.
    pub bob: User,
    /// User without a role, in `Sales` and in more groups than a token lists.
    pub carol: User,
    /// Id of the group `Sales`.
    pub sales: Uuid,
    /// HTTP client that reaches the edge under the server's host name, and trusts its certificate.
    pub http: reqwest::Client,
    /// Kubernetes client with the rights of the cluster administrator.
    pub kube: kube::Client,
    /// Time limit of waits.
    pub patience: Duration,
}

/// Names and ids that distinguish worlds on one stack.
struct Names {
    namespace: String,
    host: String,
    gateway: String,
    tenant: Uuid,
    server_app: Uuid,
}

impl World {
    /// Returns the exact world of `crds/examples`: its namespace, host, tenant and app registration.
    ///
    /// # Errors
    /// If the examples cannot be read or the tenant cannot be made.
    pub fn of_the_examples(stack: Arc<Stack>) -> anyhow::Result<Self> {
        let server = example("McpServer")?;
        let text = |pointer: &str| server.pointer(pointer).and_then(Value::as_str).context(pointer.to_owned());
        let tenant = text("/spec/entra/tenantId")?.parse()?;
        let app = text("/spec/entra/clientId")?.parse()?;
        let gateway = text("/spec/exposure/gateway/parentRefs/0/name")?.to_owned();
        let (namespace, host) = (text("/metadata/namespace")?.to_owned(), text("/spec/exposure/host")?.to_owned());
        Self::new(stack, Names { namespace, host, gateway, tenant, server_app: app })
    }

    /// Creates a separate world beside others on the same stack.
    ///
    /// # Errors
    /// If the tenant cannot be made.
    pub fn beside_others(stack: Arc<Stack>, name: &str) -> anyhow::Result<Self> {
        let host = format!("{name}.mcp.contoso.com");
        let (namespace, gateway) = (name.to_owned(), name.to_owned());
        let (tenant, server_app) = (Uuid::new_v4(), Uuid::new_v4());
        Self::new(stack, Names { namespace, host, gateway, tenant, server_app })
    }

    fn new(stack: Arc<Stack>, names: Names) -> anyhow::Result<Self> {
        let Names { namespace, host, gateway, tenant, server_app } = names;
        let (client_app, sales) = (Uuid::new_v4(), Uuid::new_v4());
        let (alice, bob) = (person("alice", "Alice Example"), person("bob", "Bob Example"));
        let carol = person("carol", "Carol Example");
        stack.entra.control().add_tenant(Tenant {
            id: tenant,
            domains: vec![format!("{namespace}.example.com")],
            apps: vec![
                App {
                    client_id: server_app,
                    display_name: "MCP server".into(),
                    identifier_uris: vec![format!("api://{server_app}")],
                    scopes: vec!["mcp.access".into()],
                    app_roles: vec![AppRole { value: READER.into(), allowed_member_types: vec![MemberType::User] }],
                    pre_authorized_clients: vec![client_app],
                    optional_claims: vec![OptionalClaim::Idtyp, OptionalClaim::XmsCc, OptionalClaim::Acrs],
                    group_membership_claims: GroupMembershipClaims::SecurityGroup,
                    granted_graph_scopes: vec!["User.Read".into(), "Mail.Read".into()],
                    role_assignments: vec![RoleAssignment { principal: alice.oid, role: Some(READER.into()) }],
                    ..App::default()
                },
                App {
                    client_id: client_app,
                    display_name: "MCP client".into(),
                    public_client: true,
                    redirect_uris: vec!["http://localhost".into()],
                    granted_graph_scopes: vec!["User.Read".into()],
                    ..App::default()
                },
            ],
            groups: groups(sales, &bob, &carol),
            users: vec![alice.clone(), bob.clone(), carol.clone()],
        })?;
        let http = reqwest::Client::builder()
            .tls_certs_merge([
                reqwest::Certificate::from_pem(stack.certificates.pem().as_bytes())?,
                reqwest::Certificate::from_pem(stack.entra.ca_pem().as_bytes())?,
            ])
            // Without a port in the URL, the client dials the port of this address.
            .resolve(&host, stack.edge.address())
            .no_proxy()
            .timeout(Duration::from_secs(20))
            .build()?;
        let kube = stack.control_plane.client()?;
        let patience = Duration::from_secs(60);
        Ok(Self {
            stack,
            namespace,
            host,
            gateway,
            tenant,
            server_app,
            client_app,
            alice,
            bob,
            carol,
            sales,
            http,
            kube,
            patience,
        })
    }

    /// URL of the server, which is also its resource identifier.
    pub fn url(&self) -> String {
        self.url_at("/mcp")
    }

    /// URL of a server that is exposed at this path of the host.
    pub(super) fn url_at(&self, path: &str) -> String {
        format!("https://{}{path}", self.host)
    }

    /// Subject that the federated credential must have.
    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{SERVER}", self.namespace)
    }

    /// Returns the manifests of `crds/examples` for this world. Names and ids differ. Two fields differ for an emulated
    /// Entra: its addresses, and the CA of its certificate.
    ///
    /// # Errors
    /// If the examples cannot be read.
    pub fn manifests(&self) -> anyhow::Result<String> {
        let mut namespace = example("Namespace")?;
        merge(&mut namespace, &json!({"metadata": {"name": self.namespace}}));
        let mut mapping = example("McpRoleMapping")?;
        merge(&mut mapping, &json!({"metadata": {"namespace": self.namespace}}));
        Ok(format!("---\n{namespace}\n{}---\n{mapping}\n", self.server_manifests()?))
    }

    /// Returns the server's manifest, after those of its Gateway and its CA.
    pub(super) fn server_manifests(&self) -> anyhow::Result<String> {
        let trust = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "entra-ca", "namespace": self.namespace},
            "data": {"ca.crt": self.stack.entra.ca_pem()},
        });
        let documents = [self.gateway_manifest("All"), trust, self.server_manifest()?];
        Ok(documents.iter().map(|document| format!("---\n{document}\n")).collect())
    }

    /// Returns the shared Gateway, which accepts the listeners of `All` or `None` of the namespaces. Each world has its
    /// own one, so that worlds do not affect each other.
    fn gateway_manifest(&self, allowed: &str) -> Value {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
            "metadata": {"name": self.gateway, "namespace": INFRASTRUCTURE},
            "spec": {
                "gatewayClassName": edge::CLASS,
                "allowedListeners": {"namespaces": {"from": allowed}},
                "listeners": [{
                    "name": "https", "port": 443, "protocol": "HTTPS", "hostname": format!("{}.example.com", self.gateway),
                    "tls": {"certificateRefs": [{"name": "edge-tls"}]},
                }],
            },
        })
    }

    /// Changes the namespaces whose listeners the Gateway accepts.
    ///
    /// # Errors
    /// Returns the error output of kubectl.
    pub(super) async fn allow_listeners(&self, from: &str) -> anyhow::Result<()> {
        self.apply(&self.gateway_manifest(from).to_string()).await.map(drop)
    }

    /// Returns the example's McpServer for this world.
    ///
    /// # Errors
    /// If the examples cannot be read.
    pub fn server_manifest(&self) -> anyhow::Result<Value> {
        let mut server = example("McpServer")?;
        let entra = &self.stack.entra;
        merge(
            &mut server,
            &json!({"metadata": {"namespace": self.namespace}, "spec": {
                "entra": {
                    "tenantId": self.tenant, "clientId": self.server_app,
                    "endpoints": {"authority": entra.authority(), "graph": entra.graph()},
                    "trustBundle": {"name": "entra-ca"},
                },
                "exposure": {"host": self.host, "gateway": {"parentRefs": [
                    {"name": self.gateway, "namespace": INFRASTRUCTURE},
                ]}},
            }}),
        );
        Ok(server)
    }

    /// Applies manifests with kubectl.
    ///
    /// # Errors
    /// Returns the error output of kubectl.
    pub async fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.stack.kubectl(&["apply", "-f", "-"], Some(manifests)).await
    }

    /// Runs kubectl in the world's namespace.
    ///
    /// # Errors
    /// Returns the error output of kubectl.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.stack.kubectl(&[&["--namespace", self.namespace.as_str()], arguments].concat(), None).await
    }

    /// Plays the missing part of the story up to a Ready server.
    ///
    /// # Errors
    /// If a step on the way fails.
    pub async fn make_ready(&self) -> anyhow::Result<()> {
        super::SERVER.play(self).await?;
        super::FEDERATION.play(self).await?;
        Ok(())
    }

    /// Signs a user in by code and PKCE, through the pages that a browser would show.
    ///
    /// # Errors
    /// Returns the answer of Entra.
    pub async fn sign_in(&self, person: &User) -> anyhow::Result<Tokens> {
        let scope = format!("{}/mcp.access", self.server_app);
        self.sign_in_for(person, &["openid", "profile", &scope]).await
    }

    /// Signs a user in for other scopes.
    ///
    /// # Errors
    /// Returns the answer of Entra.
    pub async fn sign_in_for(&self, person: &User, scopes: &[&str]) -> anyhow::Result<Tokens> {
        self.tokens(person, scopes, None).await
    }

    /// Signs a user in for claims, as an MCP client that answers a claims challenge.
    ///
    /// # Errors
    /// Returns the answer of Entra.
    pub async fn sign_in_with(&self, person: &User, claims: &Value) -> anyhow::Result<Tokens> {
        let scope = format!("{}/mcp.access", self.server_app);
        self.tokens(person, &["openid", &scope], Some(&claims.to_string())).await
    }

    async fn tokens(&self, person: &User, scopes: &[&str], claims: Option<&str>) -> anyhow::Result<Tokens> {
        let sign_in = SignIn {
            authority: &Authority::from(&self.stack.entra),
            tenant: self.tenant,
            client: self.client_app,
            redirect_uri: "http://localhost:8400/",
            user: &person.user_principal_name,
            scopes,
            claims,
        };
        sign_in.tokens().await
    }

    /// Waits until a condition of the server has this status, and returns it.
    ///
    /// # Errors
    /// If it does not within the world's timeout. The error has all conditions.
    pub async fn condition(&self, kind: ConditionType, status: &str) -> anyhow::Result<Condition> {
        self.condition_of(SERVER, kind, status).await
    }

    /// Waits for a condition of any server of the namespace.
    ///
    /// # Errors
    /// If it does not within the world's timeout. The error has all conditions.
    pub async fn condition_of(&self, server: &str, kind: ConditionType, status: &str) -> anyhow::Result<Condition> {
        self.condition_in(&self.namespace, server, kind, status).await
    }

    /// Waits for a condition of any server.
    ///
    /// # Errors
    /// If it does not within the world's timeout. The error has all conditions.
    pub(super) async fn condition_in(
        &self,
        namespace: &str,
        server: &str,
        kind: ConditionType,
        status: &str,
    ) -> anyhow::Result<Condition> {
        let api: Api<McpServer> = Api::namespaced(self.kube.clone(), namespace);
        let wanted = status.to_owned();
        let reached = await_condition(api.clone(), server, move |server: Option<&McpServer>| {
            server.and_then(|server| find(server, kind)).is_some_and(|condition| condition.status == wanted)
        });
        if let Ok(reached) = tokio::time::timeout(self.patience, reached).await {
            let server = reached?.context("the McpServer is gone")?;
            return find(&server, kind).cloned().context("the condition is gone");
        }
        let now = api.get(server).await?.status.unwrap_or_default().conditions;
        let now: Vec<_> = now
            .iter()
            .map(|known| format!("  {}={} {}: {}", known.type_, known.status, known.reason, known.message))
            .collect();
        bail!(
            "{kind} of {namespace}/{server} did not become {status} within {:?}; its conditions:\n{}\nlast log lines of the operator:\n{}",
            self.patience,
            now.join("\n"),
            self.stack.operator_log().await?
        )
    }

    /// Reads the server.
    ///
    /// # Errors
    /// If the API server does not answer with it.
    pub async fn server(&self) -> anyhow::Result<McpServer> {
        self.server_named(SERVER).await
    }

    /// Reads any server of the namespace.
    pub(super) async fn server_named(&self, name: &str) -> anyhow::Result<McpServer> {
        Ok(Api::<McpServer>::namespaced(self.kube.clone(), &self.namespace).get(name).await?)
    }

    /// Lists the server's pods.
    ///
    /// # Errors
    /// If the API server does not answer.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        self.pods_of(SERVER).await
    }

    /// Lists the pods of any server of the namespace.
    pub(super) async fn pods_of(&self, server: &str) -> anyhow::Result<Vec<Pod>> {
        let selected = ListParams::default().labels(&format!("app.kubernetes.io/instance={server}"));
        Ok(Api::<Pod>::namespaced(self.kube.clone(), &self.namespace).list(&selected).await?.items)
    }

    /// Returns the audit lines of all the server's pods.
    ///
    /// # Errors
    /// If a pod has no log.
    pub async fn audit(&self) -> anyhow::Result<Vec<Value>> {
        let mut lines = Vec::new();
        for pod in self.pods().await? {
            let log = self.stack.node.logs(&self.namespace, pod.metadata.name.as_deref().unwrap_or_default()).await?;
            let values = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.extend(values.filter(|line| line.get("decision").is_some()));
        }
        Ok(lines)
    }

    /// Repeats the request until the answer is the expected one, and returns the elapsed time.
    ///
    /// # Errors
    /// If it is not within the world's timeout. The error has the last answer.
    pub async fn eventually<T: Debug, F: Future<Output = anyhow::Result<T>>>(
        &self,
        what: &str,
        mut ask: impl FnMut() -> F,
        wanted: impl Fn(&T) -> bool,
    ) -> anyhow::Result<(T, Duration)> {
        let start = Instant::now();
        loop {
            let answer = ask().await;
            match answer {
                Ok(answer) if wanted(&answer) => return Ok((answer, start.elapsed())),
                other if start.elapsed() > self.patience => {
                    return Err(anyhow!("{what}: not within {:?}; last: {other:?}", self.patience));
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }
}

/// Returns the condition of this type, if there is one.
pub(super) fn find(server: &McpServer, kind: ConditionType) -> Option<&Condition> {
    server.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind.as_str())
}

fn person(name: &str, display_name: &str) -> User {
    let principal = format!("{name}@example.com");
    User {
        oid: Uuid::new_v4(),
        user_principal_name: principal.clone(),
        display_name: display_name.to_owned(),
        mail: Some(principal),
        job_title: Some("Example".into()),
        messages: vec![Message {
            subject: format!("Welcome, {name}"),
            from: "hello@example.com".into(),
            received_date_time: "2026-01-05T08:00:00Z".into(),
            body_preview: "Good to have you here.".into(),
            ..Message::default()
        }],
        ..User::default()
    }
}

/// Returns [`SALES`] with bob and carol as members, and so many more groups of carol that her tokens cannot list them.
fn groups(sales: Uuid, bob: &User, carol: &User) -> Vec<Group> {
    let more = (1..=LISTED_GROUPS).map(|number| Group {
        id: Uuid::new_v4(),
        display_name: format!("Distribution list {number}"),
        members: vec![carol.oid],
        ..Group::default()
    });
    let sales = Group { id: sales, display_name: SALES.into(), members: vec![bob.oid, carol.oid], ..Group::default() };
    std::iter::once(sales).chain(more).collect()
}

/// Returns the first document of this kind in `crds/examples`, in the order of file names.
fn example(kind: &str) -> anyhow::Result<Value> {
    let files = std::fs::read_dir(repository("crds/examples"))?.map(|entry| Ok(entry?.path()));
    let mut files = files.collect::<anyhow::Result<Vec<_>>>()?;
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(file)?;
        let document: Value = serde_yaml::from_str(&text)?;
        if document.get("kind").and_then(Value::as_str) == Some(kind) {
            return Ok(document);
        }
    }
    bail!("crds/examples has no {kind}")
}

/// Merges by RFC 7396, without removals, which no test needs.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            patch.iter().for_each(|(name, value)| merge(target.entry(name).or_insert(Value::Null), value));
        }
        (target, patch) => *target = patch.clone(),
    }
}
