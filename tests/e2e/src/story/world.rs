//! The world of a story: a namespace of the cluster, a tenant of Entra with its people, and clients that reach both.

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

/// The role that the example's mapping grants.
pub(super) const READER: &str = "Mcp.Reader";

/// The namespace of whoever runs the Gateways, as in the example.
const INFRASTRUCTURE: &str = "infra";

/// The group that bob is in.
pub(super) const SALES: &str = "Sales";

/// How many groups a token lists.
const LISTED_GROUPS: usize = 200;

/// World of a story.
pub struct World {
    /// Everything the product runs on.
    pub stack: Arc<Stack>,
    /// The namespace that the examples are applied to.
    pub namespace: String,
    /// The host that the server is exposed at.
    pub host: String,
    /// The Gateway that it is exposed by.
    gateway: String,
    /// The tenant's id.
    pub tenant: Uuid,
    /// The server's app registration.
    pub server_app: Uuid,
    /// The app registration of the MCP client that people sign in with.
    pub client_app: Uuid,
    /// Has the role `Mcp.Reader`.
    pub alice: User,
    /// Has no role, and is in the group `Sales`.
    pub bob: User,
    /// Has no role, and is in `Sales` and in more groups than a token lists.
    pub carol: User,
    /// Id of the group `Sales`.
    pub sales: Uuid,
    /// Reaches the edge under the server's host name, and trusts its certificate.
    pub http: reqwest::Client,
    /// Reaches the cluster as its administrator.
    pub kube: kube::Client,
    /// How long to wait for what has to come.
    pub patience: Duration,
}

/// The names and ids that tell worlds on one stack apart.
struct Names {
    namespace: String,
    host: String,
    gateway: String,
    tenant: Uuid,
    server_app: Uuid,
}

impl World {
    /// The world of `crds/examples`, to the letter: its namespace, host, tenant and app registration.
    ///
    /// # Errors
    /// Where the examples cannot be read or the tenant cannot be made.
    pub fn of_the_examples(stack: Arc<Stack>) -> anyhow::Result<Self> {
        let server = example("McpServer")?;
        let text = |pointer: &str| server.pointer(pointer).and_then(Value::as_str).context(pointer.to_owned());
        let tenant = text("/spec/entra/tenantId")?.parse()?;
        let app = text("/spec/entra/clientId")?.parse()?;
        let gateway = text("/spec/exposure/gateway/parentRefs/0/name")?.to_owned();
        let (namespace, host) = (text("/metadata/namespace")?.to_owned(), text("/spec/exposure/host")?.to_owned());
        Self::new(stack, Names { namespace, host, gateway, tenant, server_app: app })
    }

    /// A world of its own beside others on the same stack.
    ///
    /// # Errors
    /// Where the tenant cannot be made.
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
            // Without a port in the URL, the port of this address is the one that is dialled.
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

    /// What the server is reached at, and calls itself.
    pub fn url(&self) -> String {
        self.url_at("/mcp")
    }

    /// URL of a server that is exposed at this path of the host.
    pub(super) fn url_at(&self, path: &str) -> String {
        format!("https://{}{path}", self.host)
    }

    /// The subject that the federated credential must have.
    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{SERVER}", self.namespace)
    }

    /// The manifests of `crds/examples` for this world. Beside names and ids, an emulated Entra differs from the real
    /// one in two fields: its addresses, and the CA that vouches for them.
    ///
    /// # Errors
    /// Where the examples cannot be read.
    pub fn manifests(&self) -> anyhow::Result<String> {
        let mut namespace = example("Namespace")?;
        merge(&mut namespace, &json!({"metadata": {"name": self.namespace}}));
        let mut mapping = example("McpRoleMapping")?;
        merge(&mut mapping, &json!({"metadata": {"namespace": self.namespace}}));
        Ok(format!("---\n{namespace}\n{}---\n{mapping}\n", self.server_manifests()?))
    }

    /// The server's manifest, behind those of the Gateway and the CA that it names.
    pub(super) fn server_manifests(&self) -> anyhow::Result<String> {
        let trust = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "entra-ca", "namespace": self.namespace},
            "data": {"ca.crt": self.stack.entra.ca_pem()},
        });
        let documents = [self.gateway_manifest("All"), trust, self.server_manifest()?];
        Ok(documents.iter().map(|document| format!("---\n{document}\n")).collect())
    }

    /// The Gateway that somebody else runs, which lets in the listeners of those namespaces: `All` or `None`. Each world
    /// has one of its own, so that none is in another's way.
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

    /// Changes whose listeners the Gateway lets in.
    ///
    /// # Errors
    /// With kubectl's own words.
    pub(super) async fn allow_listeners(&self, from: &str) -> anyhow::Result<()> {
        self.apply(&self.gateway_manifest(from).to_string()).await.map(drop)
    }

    /// The example's McpServer for this world.
    ///
    /// # Errors
    /// Where the examples cannot be read.
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

    /// Applies manifests as a person does.
    ///
    /// # Errors
    /// With kubectl's own words.
    pub async fn apply(&self, manifests: &str) -> anyhow::Result<String> {
        self.stack.kubectl(&["apply", "-f", "-"], Some(manifests)).await
    }

    /// Runs kubectl in the world's namespace.
    ///
    /// # Errors
    /// With kubectl's own words.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.stack.kubectl(&[&["--namespace", self.namespace.as_str()], arguments].concat(), None).await
    }

    /// Plays the story up to a server that is Ready, as far as it is not yet.
    ///
    /// # Errors
    /// Where a step on the way fails.
    pub async fn make_ready(&self) -> anyhow::Result<()> {
        super::SERVER.play(self).await?;
        super::FEDERATION.play(self).await?;
        Ok(())
    }

    /// Signs a person in by code and PKCE, over the very pages that a browser would be shown.
    ///
    /// # Errors
    /// With what Entra answers.
    pub async fn sign_in(&self, person: &User) -> anyhow::Result<Tokens> {
        let scope = format!("{}/mcp.access", self.server_app);
        self.sign_in_for(person, &["openid", "profile", &scope]).await
    }

    /// Signs a person in for other scopes.
    ///
    /// # Errors
    /// With what Entra answers.
    pub async fn sign_in_for(&self, person: &User, scopes: &[&str]) -> anyhow::Result<Tokens> {
        self.tokens(person, scopes, None).await
    }

    /// Signs a person in for claims, as an MCP client does that answers a claims challenge.
    ///
    /// # Errors
    /// With what Entra answers.
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
    /// Where it does not within the world's patience: with all conditions as they stand.
    pub async fn condition(&self, kind: ConditionType, status: &str) -> anyhow::Result<Condition> {
        self.condition_of(SERVER, kind, status).await
    }

    /// The same of any server of the namespace.
    ///
    /// # Errors
    /// Where it does not within the world's patience: with all conditions as they stand.
    pub async fn condition_of(&self, server: &str, kind: ConditionType, status: &str) -> anyhow::Result<Condition> {
        self.condition_in(&self.namespace, server, kind, status).await
    }

    /// The same of any server.
    ///
    /// # Errors
    /// Where it does not within the world's patience: with all conditions as they stand.
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
            "{kind} of {namespace}/{server} did not become {status} within {:?}; its conditions:\n{}\nthe operator's last lines:\n{}",
            self.patience,
            now.join("\n"),
            self.stack.operator_log().await?
        )
    }

    /// The server as it stands.
    ///
    /// # Errors
    /// Where the API server does not answer with it.
    pub async fn server(&self) -> anyhow::Result<McpServer> {
        self.server_named(SERVER).await
    }

    /// The same of any server of the namespace.
    pub(super) async fn server_named(&self, name: &str) -> anyhow::Result<McpServer> {
        Ok(Api::<McpServer>::namespaced(self.kube.clone(), &self.namespace).get(name).await?)
    }

    /// The server's pods.
    ///
    /// # Errors
    /// Where the API server does not answer.
    pub async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        self.pods_of(SERVER).await
    }

    /// The same of any server of the namespace.
    pub(super) async fn pods_of(&self, server: &str) -> anyhow::Result<Vec<Pod>> {
        let selected = ListParams::default().labels(&format!("app.kubernetes.io/instance={server}"));
        Ok(Api::<Pod>::namespaced(self.kube.clone(), &self.namespace).list(&selected).await?.items)
    }

    /// The audit lines of all the server's pods.
    ///
    /// # Errors
    /// Where a pod has no log.
    pub async fn audit(&self) -> anyhow::Result<Vec<Value>> {
        let mut lines = Vec::new();
        for pod in self.pods().await? {
            let log = self.stack.node.logs(&self.namespace, pod.metadata.name.as_deref().unwrap_or_default()).await?;
            let values = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.extend(values.filter(|line| line.get("decision").is_some()));
        }
        Ok(lines)
    }

    /// Asks again until the answer is the wanted one, and tells how long that took.
    ///
    /// # Errors
    /// Where it is not within the world's patience: with the last answer.
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

/// The condition of that type, if there is one.
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

/// [`SALES`] with bob and carol in it, and as many more with carol that her tokens cannot list them.
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

/// The first document of that kind in `crds/examples`, by the names of the files.
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

/// RFC 7396, as far as a test needs it: no member is removed.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            patch.iter().for_each(|(name, value)| merge(target.entry(name).or_insert(Value::Null), value));
        }
        (target, patch) => *target = patch.clone(),
    }
}
