//! Validation that the API server cannot do. Its result can be built without errors. Pure.

pub(crate) mod authorization_server;
mod backend;
pub(crate) mod exposure;
pub(crate) mod refusal;
mod tools;
mod trust;
pub(crate) mod workload;

use mcp_entra_crds::{Backend, DEFAULT_PATH, Exposure, McpServer, McpServerSpec, RateLimit};
use mcp_entra_policy::{
    AuditConfiguration, EntraConfiguration, GraphAccess, GraphConfiguration, ProbeConfiguration, Rate,
    RateLimitConfiguration, ServerConfiguration, ServerReference,
};

use crate::{
    conditions::condition::Reason,
    fleet::{ReadOnce, RequestedHash, requested_hash},
    mcpserver::{
        resolved::Resolved,
        validate::{
            authorization_server::SignIn,
            exposure::Exposed,
            refusal::{Refusal, refuse},
            workload::Workload,
        },
    },
    objects::{owner::Owner, trust_bundle::Trust},
    ownership::Held,
    runtime::options::{Options, matches_any},
};

pub(crate) use tools::{named_tools, not_offered, offered};

/// An McpServer that can be built.
#[derive(Clone, Debug)]
pub(crate) struct Validated {
    pub(crate) owner: Owner,
    /// The server uid in the pods: the owner's, or that of an adopted Deployment's first owner.
    pub(crate) pods_uid: String,
    /// The server's configuration file.
    pub(crate) configuration: String,
    /// The configuration file of a server at its host's root, until that is decided.
    root_configuration: Option<String>,
    pub(crate) tenant_id: String,
    pub(crate) client_id: String,
    /// The audience of the projected token.
    pub(crate) audience: &'static str,
    pub(crate) trust: Option<Trust>,
    pub(crate) exposure: Option<Exposed>,
    /// The authorization server of clients that cannot sign in to Entra, if there is one.
    pub(crate) sign_in: Option<SignIn>,
    /// The MCP server that runs as a backend in each pod, if there is one.
    pub(crate) backend: Option<Backend>,
    pub(crate) workload: Workload,
    pub(crate) image: String,
    /// The hash of what the author asks of the pods.
    pub(crate) requested_hash: RequestedHash,
    /// Seconds after which a rollout without progress has failed.
    pub(crate) roll_out_deadline_seconds: i32,
}

impl Validated {
    /// Completes the configuration with the server's shares of its host.
    pub(crate) fn hold(&mut self, held: &Held) {
        if let Some(configuration) = self.root_configuration.take().filter(|_| held.root) {
            self.configuration = configuration;
        }
    }

    /// Returns true if the configuration is complete.
    pub(crate) fn is_settled(&self) -> bool {
        self.root_configuration.is_none()
    }
}

/// Validates an McpServer.
pub(crate) fn validate(
    server: &McpServer,
    owner: &Owner,
    resolved: &Resolved,
    options: &Options,
) -> Result<Validated, Refusal> {
    let spec = &server.spec;
    let exposure = spec.exposure.as_ref();
    let gateways = resolved.gateways.as_deref();
    let mut exposure = exposure.map(|exposure| exposure::validate(owner, exposure, gateways, options)).transpose()?;
    if let Some(exposed) = &mut exposure {
        exposed.signs_in = spec.authorization_server.is_some();
    }
    let (authorization_server, sign_in) = authorization_server::validate(owner, spec, resolved)?.unzip();
    let mut configuration = ServerConfiguration {
        server: ServerReference { namespace: owner.namespace.clone(), name: owner.name.clone() },
        public_url: public_url(spec.exposure.as_ref()),
        path: spec.exposure.as_ref().map_or(DEFAULT_PATH, |exposure| &exposure.path).to_owned(),
        entra: EntraConfiguration {
            tenant_id: spec.entra.tenant_id.clone(),
            client_id: spec.entra.client_id.clone(),
            authority: authority(spec, options)?,
            audiences: spec.entra.audiences.clone(),
            required_scopes: spec.entra.required_scopes.clone(),
            allowed_clients: spec.entra.allowed_clients.clone(),
            token_versions: spec.entra.token_versions.iter().copied().collect(),
            groups: spec.entra.groups,
        },
        graph: graph(spec, options)?,
        backend: backend::validate(owner, spec, options)?,
        probe: ProbeConfiguration { interval_seconds: options.probe_interval_seconds },
        rate_limit: rate_limit(spec),
        audit: AuditConfiguration { hash_chain: spec.audit.as_ref().is_some_and(|audit| audit.hash_chain) },
        trusted_proxies: options.trusted_proxies.clone(),
        allowed_origins: spec.exposure.as_ref().map(|exposure| exposure.allowed_origins.clone()).unwrap_or_default(),
        authorization_server,
    };
    let trust = trust::trust_bundle(spec, &resolved.trust_bundle, options)?;
    let workload = workload::validate(owner, spec, &configuration, &resolved.account, options)?;
    if let Err(error) = configuration.validate() {
        return refuse(Reason::InvalidConfiguration, error.to_string());
    }
    let text = serde_yaml::to_string(&configuration).map_err(unwritable)?;
    let root_configuration = match &mut configuration.authorization_server {
        Some(authorization_server) => {
            authorization_server.serves_root = true;
            Some(serde_yaml::to_string(&configuration).map_err(unwritable)?)
        }
        None => None,
    };
    Ok(Validated {
        pods_uid: resolved.pods_uid.clone().unwrap_or_else(|| owner.uid.clone()),
        owner: owner.clone(),
        configuration: text,
        root_configuration,
        tenant_id: spec.entra.tenant_id.clone(),
        client_id: spec.entra.client_id.clone(),
        audience: spec.entra.cloud.federation_audience(),
        requested_hash: requested_hash(spec, &read_once(trust.as_ref(), sign_in.as_ref())).map_err(unwritable)?,
        trust,
        exposure,
        sign_in,
        backend: spec.backend.as_deref().cloned(),
        workload,
        image: image(spec, options)?,
        roll_out_deadline_seconds: i32::try_from(options.roll_out_deadline_seconds).unwrap_or(i32::MAX),
    })
}

/// Returns the content of referenced objects that pods read only at their start.
fn read_once(trust: Option<&Trust>, sign_in: Option<&SignIn>) -> ReadOnce {
    ReadOnce {
        certificates: trust.map(|trust| trust.certificates.clone()),
        store_certificates: sign_in.and_then(SignIn::store_ca).map(|ca| ca.certificates.clone()),
        epochs: sign_in.map(|sign_in| sign_in.epochs.clone()),
    }
}

fn unwritable(error: impl std::fmt::Display) -> Refusal {
    let message = format!("the server's configuration cannot be written ({error}); report this as a defect");
    Refusal { reason: Reason::InvalidConfiguration, message }
}

fn rate_limit(spec: &McpServerSpec) -> RateLimitConfiguration {
    let rate = |limit: &RateLimit| {
        let seconds = std::time::Duration::from(limit.per_user.per).as_secs();
        Rate { requests: limit.per_user.requests, per_seconds: u32::try_from(seconds).unwrap_or(u32::MAX) }
    };
    RateLimitConfiguration { per_user: spec.rate_limit.as_ref().map(rate).unwrap_or_default() }
}

/// Checks the image, which runs with the server's identity and receives its users' tokens.
fn image(spec: &McpServerSpec, options: &Options) -> Result<String, Refusal> {
    let Some(image) = &spec.image else { return Ok(options.server_image.clone()) };
    if matches_any(&options.allowed_images, image) {
        return Ok(image.clone());
    }
    refuse(
        Reason::ImageNotAllowed,
        format!(
            "spec.image: {image} is not allowed; remove it to use the operator's own, or ask the administrator of mcp-entra-operator to start it with --allowed-image={image}"
        ),
    )
}

/// Returns the URL for clients.
pub(crate) fn public_url(exposure: Option<&Exposure>) -> Option<String> {
    exposure.map(|exposure| format!("https://{}{}", exposure.host, exposure.path))
}

/// Returns the redirect URI for Entra's answers to the server's own authorization server.
pub(crate) fn callback(exposure: Option<&Exposure>) -> Option<String> {
    public_url(exposure).map(|url| format!("{url}/callback"))
}

fn authority(spec: &McpServerSpec, options: &Options) -> Result<String, Refusal> {
    match &spec.entra.endpoints {
        None => Ok(spec.entra.cloud.authority().to_owned()),
        Some(endpoints) => allowed("authority", &endpoints.authority, &options.allowed_authorities),
    }
}

fn graph(spec: &McpServerSpec, options: &Options) -> Result<GraphConfiguration, Refusal> {
    let base_url = match &spec.entra.endpoints {
        None => spec.entra.cloud.graph().to_owned(),
        Some(endpoints) => allowed("graph", &endpoints.graph, &options.allowed_graphs)?,
    };
    Ok(match &spec.graph {
        Some(graph) => GraphConfiguration {
            base_url,
            scopes: graph.scopes.clone(),
            tools: tools::validate(graph)?,
            access: graph.access,
        },
        // Graph is only asked for a user's groups.
        None => GraphConfiguration {
            base_url,
            scopes: vec!["User.Read".to_owned()],
            tools: Vec::new(),
            access: GraphAccess::OnBehalfOf,
        },
    })
}

/// Checks an endpoint. Another authority could vouch for any user, and another Graph would receive users' tokens.
fn allowed(field: &str, url: &str, allowed: &[String]) -> Result<String, Refusal> {
    if allowed.iter().any(|allowed| allowed == url) {
        return Ok(url.to_owned());
    }
    refuse(
        Reason::EndpointsNotAllowed,
        format!(
            "spec.entra.endpoints.{field}: {url} is not allowed; remove spec.entra.endpoints to use the cloud's own, or ask the administrator of mcp-entra-operator to start it with --allowed-{field}={url}"
        ),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use mcp_entra_policy::{GraphAccess, GroupsSource, TokenVersion};
    use serde_json::json;

    use super::*;
    use crate::{
        mcpserver::resolved::ResolvedTrustBundle,
        objects::fixtures::{mk_owner, mk_server},
    };

    pub(crate) fn mk_options() -> Options {
        Options {
            server_image: "registry.example/mcp-entra-server:1".into(),
            allowed_authorities: vec!["https://login.example".into()],
            allowed_graphs: vec!["https://graph.example".into()],
            allow_trust_bundles: true,
            allowed_ingress_annotations: Vec::new(),
            allowed_backend_images: vec!["registry.example/mcp/*".into()],
            allowed_backend_resources: vec!["api://orders".into()],
            allowed_backend_secrets: [
                "productivity/shared-database",
                "productivity/shared-prefix-*",
                "sales/sales-database",
                "productivity/graph-backend-0123abcd-oauth-1",
            ]
            .map(Into::into)
            .into(),
            allowed_images: vec!["registry.example/allowed/*".into(), "registry.example/one:1".into()],
            at_once: 5,
            roll_out_deadline_seconds: 300,
            allowed_pod_annotations: Vec::new(),
            allowed_pod_labels: Vec::new(),
            watch_namespaces: Vec::new(),
            allowed_priority_classes: Vec::new(),
            allowed_hosts: vec!["*".into()],
            operator_namespace: "mcp-entra-system".into(),
            monitoring_namespaces: vec!["monitoring".into()],
            pod_monitors: None,
            pod_proxy_url: None,
            status_poll_seconds: 10,
            trusted_proxies: vec![],
            probe_interval_seconds: 300,
            release_after_seconds: 600,
            lease_duration_seconds: 15,
            identity: None,
            listen: ([127, 0, 0, 1], 0).into(),
        }
    }

    fn check(change: impl FnOnce(&mut McpServer), bundle: &ResolvedTrustBundle) -> Result<Validated, Refusal> {
        let mut server = mk_server();
        change(&mut server);
        validate(&server, &mk_owner(), &Resolved { trust_bundle: bundle.clone(), ..Resolved::default() }, &mk_options())
    }

    fn configuration(validated: &Validated) -> ServerConfiguration {
        serde_yaml::from_str(&validated.configuration).unwrap()
    }

    #[test]
    fn a_sound_server_gets_the_configuration_that_its_program_reads() {
        let validated = check(|_| {}, &ResolvedTrustBundle::Unset).unwrap();
        let configuration = configuration(&validated);
        configuration.validate().unwrap();
        assert_eq!(configuration.public_url.as_deref(), Some("https://graph.mcp.contoso.com/mcp"));
        assert_eq!(configuration.entra.authority, "https://login.microsoftonline.com");
        assert_eq!(configuration.entra.required_scopes, ["mcp.access"]);
        assert_eq!(configuration.graph.tools, ["get_user_details", "list_my_messages"]);
        assert_eq!(configuration.probe.interval_seconds, 300);
        assert_eq!(validated.workload.scale, workload::Scale::External);
        assert_eq!(validated.workload.token_expiration_seconds, 3600);
    }

    #[test]
    fn limits_of_callers_reach_the_configuration_unchanged() {
        let ask = |server: &mut McpServer| {
            server.spec = serde_json::from_value(json!({
                "entra": {
                    "tenantId": "8f6b0000-0000-0000-0000-00000000000a",
                    "clientId": "1c2d0000-0000-0000-0000-00000000000b",
                    "allowedClients": ["aebc6443-996d-45c2-90f0-388ff96faa56"],
                    "tokenVersions": ["V2", "V1"],
                    "groups": "InToken",
                },
                "graph": {"scopes": ["User.Read"], "access": "Application"},
                "rateLimit": {"perUser": {"requests": 7, "per": "1m30s"}},
                "audit": {"hashChain": true},
            }))
            .unwrap();
        };
        let asked = configuration(&check(ask, &ResolvedTrustBundle::Unset).unwrap());
        assert_eq!(asked.entra.allowed_clients, ["aebc6443-996d-45c2-90f0-388ff96faa56"]);
        assert_eq!(Vec::from_iter(asked.entra.token_versions), [TokenVersion::V1, TokenVersion::V2]);
        assert_eq!((asked.entra.groups, asked.graph.access), (GroupsSource::InToken, GraphAccess::Application));
        assert_eq!(asked.rate_limit.per_user, Rate { requests: 7, per_seconds: 90 });
        assert!(asked.audit.hash_chain);
        let plain = configuration(&check(|_| {}, &ResolvedTrustBundle::Unset).unwrap());
        assert_eq!((plain.entra.groups, plain.graph.access), (GroupsSource::Resolve, GraphAccess::OnBehalfOf));
        assert_eq!(plain.rate_limit.per_user, Rate { requests: 120, per_seconds: 60 });
        assert_eq!(Vec::from_iter(plain.entra.token_versions), [TokenVersion::V2]);
        assert!(plain.entra.allowed_clients.is_empty() && !plain.audit.hash_chain);
    }

    #[test]
    fn authority_graph_and_audience_follow_the_cloud() {
        let validated =
            check(|server| server.spec.entra.cloud = mcp_entra_policy::Cloud::China, &ResolvedTrustBundle::Unset)
                .unwrap();
        let configuration = configuration(&validated);
        assert_eq!(configuration.entra.authority, "https://login.partner.microsoftonline.cn");
        assert_eq!(configuration.graph.base_url, "https://microsoftgraph.chinacloudapi.cn");
        assert_eq!(validated.audience, "api://AzureADTokenExchangeChina");
    }

    #[test]
    fn endpoints_are_used_if_the_operator_allows_both_and_refused_otherwise() {
        let endpoints = |authority: &str, graph: &str| {
            let endpoints = mcp_entra_crds::Endpoints { authority: authority.into(), graph: graph.into() };
            check(|server| server.spec.entra.endpoints = Some(endpoints), &ResolvedTrustBundle::Unset)
        };
        let validated = endpoints("https://login.example", "https://graph.example").unwrap();
        assert_eq!(configuration(&validated).entra.authority, "https://login.example");

        for (field, authority, graph) in [
            ("authority", "https://login.example:444", "https://graph.example"),
            ("graph", "https://login.example", "https://graph.example.evil"),
            // A URL that is allowed for one field is not allowed for the other.
            ("authority", "https://graph.example", "https://graph.example"),
            ("graph", "https://login.example", "https://login.example"),
        ] {
            let refusal = endpoints(authority, graph).unwrap_err();
            assert_eq!(refusal.reason, Reason::EndpointsNotAllowed);
            assert!(refusal.message.starts_with(&format!("spec.entra.endpoints.{field}: ")), "{}", refusal.message);
            assert!(refusal.message.contains(&format!("--allowed-{field}=https://")), "{}", refusal.message);
        }
    }

    #[test]
    fn a_trust_bundle_must_be_allowed_exist_and_hold_a_certificate() {
        let with_bundle = |server: &mut McpServer| {
            server.spec.entra.trust_bundle =
                Some(mcp_entra_crds::TrustBundle { name: "corporate".into(), key: "ca.crt".into() });
        };
        let pem = ResolvedTrustBundle::Content("-----BEGIN CERTIFICATE-----\n".into());
        assert_eq!(check(with_bundle, &pem).unwrap().trust.unwrap().config_map, "corporate");
        for (resolved, reason) in [
            (ResolvedTrustBundle::NoConfigMap, Reason::TrustBundleNotFound),
            (ResolvedTrustBundle::NoKey, Reason::TrustBundleNotFound),
            (ResolvedTrustBundle::Content("hello".into()), Reason::TrustBundleInvalid),
        ] {
            assert_eq!(check(with_bundle, &resolved).unwrap_err().reason, reason);
        }

        let mut server = mk_server();
        with_bundle(&mut server);
        let forbidding = Options { allow_trust_bundles: false, ..mk_options() };
        let resolved = Resolved { trust_bundle: pem, ..Resolved::default() };
        let refusal = validate(&server, &mk_owner(), &resolved, &forbidding).unwrap_err();
        assert_eq!(refusal.reason, Reason::TrustBundleNotAllowed);
        assert!(refusal.message.contains("--allow-trust-bundles"));
    }

    #[test]
    fn tools_are_resolved_to_exact_names_and_a_pattern_that_matches_none_is_named() {
        let tools = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            check(|server| server.spec.graph.as_mut().unwrap().tools = patterns, &ResolvedTrustBundle::Unset)
        };
        assert_eq!(configuration(&tools(&["list_*"]).unwrap()).graph.tools, ["list_my_messages"]);
        let refusal = tools(&["get_user_details", "get_user_detail"]).unwrap_err();
        assert_eq!(refusal.reason, Reason::ToolNotFound);
        assert!(refusal.message.contains("\"get_user_detail\""), "{}", refusal.message);
    }

    #[test]
    fn only_allowed_images_are_accepted() {
        let image = |image: &str| {
            check(|server| server.spec.image = Some(image.into()), &ResolvedTrustBundle::Unset)
                .map(|validated| validated.image)
        };
        for allowed in ["registry.example/allowed/server@sha256:0", "registry.example/one:1"] {
            assert_eq!(image(allowed).unwrap(), allowed);
        }
        for refused in ["registry.example/one:12", "registry.example/allowed", "evil/registry.example/allowed/x"] {
            let refusal = image(refused).unwrap_err();
            assert_eq!(refusal.reason, Reason::ImageNotAllowed);
            assert!(refusal.message.contains(&format!("--allowed-image={refused}")), "{}", refusal.message);
        }
    }

    #[test]
    fn the_origins_that_a_server_allows_reach_its_program_and_bad_ones_are_refused() {
        let allowing = |origin: &str| {
            let allow = |server: &mut McpServer| {
                server.spec.exposure.as_mut().unwrap().allowed_origins = vec![origin.to_owned()];
            };
            check(allow, &ResolvedTrustBundle::Unset)
        };
        let validated = allowing("http://localhost:6274").unwrap();
        assert_eq!(configuration(&validated).allowed_origins, ["http://localhost:6274"]);
        let refusal = allowing("https://chat.contoso.com:443").unwrap_err();
        assert_eq!(refusal.reason, Reason::InvalidConfiguration);
        assert!(refusal.message.starts_with("allowedOrigins: "), "{}", refusal.message);
    }

    #[test]
    fn without_exposure_there_is_no_public_url() {
        let validated = check(|server| server.spec.exposure = None, &ResolvedTrustBundle::Unset).unwrap();
        assert_eq!(configuration(&validated).public_url, None);
        assert_eq!(configuration(&validated).path, "/mcp");
    }
}
