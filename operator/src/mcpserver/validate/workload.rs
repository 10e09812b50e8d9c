//! Validation of the pods: their number, their account, and their network peers. Pure.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use mcp_entra_crds::{
    Autoscaling, BackendEgress, EnvironmentVariable, Federation, Injection, McpServerSpec, PodTemplate,
};
use mcp_entra_policy::{STORE_PORT, ServerConfiguration, SessionStore};

use crate::{
    conditions::condition::Reason,
    mcpserver::{
        resolved::ResolvedAccount,
        validate::refusal::{Refusal, refuse},
    },
    objects::{
        names::{ALLOW_SERVER, CLIENT_ID},
        owner::Owner,
    },
    runtime::options::{Options, PodMonitors, matches_any},
};

/// The pods of a server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Workload {
    pub(crate) scale: Scale,
    pub(crate) injection: Injection,
    /// The lifetime of the projected token, in seconds.
    pub(crate) token_expiration_seconds: i64,
    /// The foreign ServiceAccount of the pods; none means the server's own.
    pub(crate) existing_account: Option<String>,
    /// The spec's additions to the pods.
    pub(crate) template: PodTemplate,
    pub(crate) network: Option<Network>,
    /// The PodMonitor for the pods' metrics, if the operator creates one.
    pub(crate) monitored: Option<PodMonitors>,
}

/// The source of the number of pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// The spec.
    Fixed(i32),
    /// An autoscaler of the operator.
    Auto(Autoscaling),
    /// A person or another autoscaler that scales the Deployment. It starts with one pod.
    External,
}

impl Scale {
    /// Returns true if there may be more than one pod.
    pub(crate) fn may_be_several(&self) -> bool {
        match self {
            Self::Fixed(replicas) => *replicas > 1,
            Self::Auto(autoscaling) => autoscaling.max_replicas > 1,
            Self::External => true,
        }
    }
}

/// The network peers of the pods.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Network {
    /// The peers that may reach the MCP endpoint.
    pub(crate) clients: Vec<NetworkPolicyPeer>,
    /// The namespaces that may reach the admin port.
    pub(crate) admin_namespaces: BTreeSet<String>,
    /// The TCP ports that pods may reach at any address, in addition to DNS.
    pub(crate) egress: BTreeSet<u16>,
    /// Additional addresses and ports of a backend. With a backend, metadata services are never reachable.
    pub(crate) backend_egress: Option<Vec<BackendEgress>>,
}

/// Validates the pods.
pub(crate) fn validate(
    owner: &Owner,
    spec: &McpServerSpec,
    configuration: &ServerConfiguration,
    account: &ResolvedAccount,
    options: &Options,
) -> Result<Workload, Refusal> {
    let federation = spec.entra.federation.clone().unwrap_or_default();
    if federation.service_account_name.is_some() {
        usable(owner, &federation, account, &spec.entra.client_id)?;
    }
    let template = spec.pod_template.as_deref().cloned().unwrap_or_default();
    unasked("annotation", &template.annotations, &options.allowed_pod_annotations)?;
    unasked("label", &template.labels, &options.allowed_pod_labels)?;
    priority(template.priority_class_name.as_ref(), &options.allowed_priority_classes)?;
    let network = spec.network_policy.as_ref().map(|network| Network {
        clients: network.allow_from.clone(),
        admin_namespaces: std::iter::once(&options.operator_namespace)
            .chain(&options.monitoring_namespaces)
            .cloned()
            .collect(),
        egress: egress(configuration, &template.env),
        backend_egress: spec.backend.as_ref().map(|backend| backend.egress.clone()),
    });
    let store = configuration.authorization_server.as_ref().map(|server| &server.session_store);
    let is_in_memory = matches!(store, Some(SessionStore::Memory {}));
    let scale = match (&spec.autoscaling, spec.replicas) {
        (Some(autoscaling), None) => Scale::Auto(autoscaling.clone()),
        (None, Some(replicas)) => Scale::Fixed(replicas),
        // A second pod would not know the sessions of the first, so no other client may scale.
        (None, None) if is_in_memory => Scale::Fixed(1),
        (None, None) => Scale::External,
        (Some(_), Some(_)) => {
            return refuse(
                Reason::InvalidConfiguration,
                "spec.replicas and spec.autoscaling exclude each other; remove one of them",
            );
        }
    };
    Ok(Workload {
        scale,
        injection: federation.injection,
        token_expiration_seconds: federation.token_expiration_seconds,
        existing_account: federation.service_account_name,
        template,
        network,
        monitored: options.pod_monitors.clone(),
    })
}

/// Refuses a foreign ServiceAccount that does not allow the server: its federated credential trusts every pod that runs
/// as this account.
fn usable(
    Owner { namespace, name, .. }: &Owner,
    federation: &Federation,
    account: &ResolvedAccount,
    client_id: &str,
) -> Result<(), Refusal> {
    let account_name = federation.service_account_name.as_deref().unwrap_or_default();
    let field = "spec.entra.federation.serviceAccountName";
    let annotations = match account {
        ResolvedAccount::Existing(annotations) => annotations,
        ResolvedAccount::Child => {
            return refuse(
                Reason::ServiceAccountNotAllowed,
                format!("{field}: ServiceAccount {account_name} is this McpServer's own; remove the field to use it"),
            );
        }
        ResolvedAccount::Absent | ResolvedAccount::Unset => {
            return refuse(
                Reason::ServiceAccountNotFound,
                format!(
                    "{field}: there is no ServiceAccount {account_name} in this namespace; create it with the annotation {ALLOW_SERVER}: {name}, or remove the field to get the server's own"
                ),
            );
        }
    };
    if annotations.get(ALLOW_SERVER) != Some(name) {
        return refuse(
            Reason::ServiceAccountNotAllowed,
            format!(
                "{field}: ServiceAccount {account_name} does not allow this McpServer; its owner can allow it with kubectl -n {namespace} annotate serviceaccount {account_name} {ALLOW_SERVER}={name}"
            ),
        );
    }
    if federation.injection == Injection::Webhook && annotations.get(CLIENT_ID).is_none_or(|given| given != client_id) {
        return refuse(
            Reason::ServiceAccountMismatch,
            format!(
                "{field}: the annotation {CLIENT_ID} of ServiceAccount {account_name}, the client id for azure-workload-identity, is not spec.entra.clientId; its owner can correct it with kubectl -n {namespace} annotate --overwrite serviceaccount {account_name} {CLIENT_ID}={client_id}"
            ),
        );
    }
    Ok(())
}

/// Refuses labels or annotations that the operator's configuration does not allow. Only administrators know their
/// effect on pods.
fn unasked(what: &str, given: &BTreeMap<String, String>, allowed: &[String]) -> Result<(), Refusal> {
    match given.keys().find(|name| !matches_any(allowed, name)) {
        None => Ok(()),
        Some(name) => refuse(
            Reason::PodTemplateNotAllowed,
            format!(
                "spec.podTemplate.{what}s: {name} is not allowed; remove it, or ask the administrator of mcp-entra-operator to start it with --allowed-pod-{what}={name}"
            ),
        ),
    }
}

/// Checks the priority class: pods with a higher priority evict pods of other owners.
fn priority(given: Option<&String>, allowed: &[String]) -> Result<(), Refusal> {
    match given.filter(|given| !allowed.contains(given)) {
        None => Ok(()),
        Some(name) => refuse(
            Reason::PriorityClassNotAllowed,
            format!(
                "spec.podTemplate.priorityClassName: {name} is not allowed; remove it, or ask the administrator of mcp-entra-operator to start it with --allowed-priority-class={name}"
            ),
        ),
    }
}

/// Returns the ports of the server's destinations.
fn egress(configuration: &ServerConfiguration, environment: &[EnvironmentVariable]) -> BTreeSet<u16> {
    let is_proxy = |variable: &&EnvironmentVariable| variable.name.eq_ignore_ascii_case("HTTPS_PROXY");
    let proxies = environment.iter().filter(is_proxy).map(|variable| variable.value.as_str());
    let port = |address: &str| {
        // A proxy can be set without a scheme.
        let address = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        reqwest::Url::parse(&address).ok()?.port_or_known_default()
    };
    let store = configuration.authorization_server.as_ref().and_then(|server| match &server.session_store {
        SessionStore::Memory {} => None,
        SessionStore::Valkey(valkey) => Some(reqwest::Url::parse(&valkey.url).ok()?.port().unwrap_or(STORE_PORT)),
    });
    [configuration.entra.authority.as_str(), &configuration.graph.base_url]
        .into_iter()
        .chain(proxies)
        .filter_map(port)
        .chain([443])
        .chain(store)
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        mcpserver::{
            resolved::Resolved,
            validate::{tests::mk_options, validate},
        },
        objects::fixtures::{mk_owner, mk_server},
    };

    fn check(
        change: impl FnOnce(&mut McpServerSpec),
        account: ResolvedAccount,
        options: &Options,
    ) -> Result<Workload, Refusal> {
        let mut server = mk_server();
        change(&mut server.spec);
        let resolved = Resolved { account, ..Resolved::default() };
        validate(&server, &mk_owner(), &resolved, options).map(|validated| validated.workload)
    }

    fn spec_with(changes: serde_json::Value) -> impl FnOnce(&mut McpServerSpec) {
        move |spec| {
            let mut value = serde_json::to_value(&*spec).unwrap();
            json_patch::merge(&mut value, &changes);
            *spec = serde_json::from_value(value).unwrap();
        }
    }

    fn assert_refused(checked: Result<Workload, Refusal>, reason: Reason, part: &str) {
        let refusal = checked.unwrap_err();
        assert_eq!(refusal.reason, reason);
        assert!(refusal.message.contains(part), "{}", refusal.message);
    }

    #[test]
    fn a_foreign_service_account_is_used_only_if_it_names_the_server() {
        let named = || spec_with(json!({"entra": {"federation": {"serviceAccountName": "shared"}}}));
        let account = |allowed: &str| ResolvedAccount::Existing([(ALLOW_SERVER.into(), allowed.into())].into());
        let workload = check(named(), account("graph"), &mk_options()).unwrap();
        assert_eq!(workload.existing_account.as_deref(), Some("shared"));
        for foreign in ["graph-2", "", "*"] {
            let checked = check(named(), account(foreign), &mk_options());
            assert_refused(checked, Reason::ServiceAccountNotAllowed, "mcp-entra.dev/allow-server=graph");
        }
        let bare = ResolvedAccount::Existing(BTreeMap::new());
        assert_refused(check(named(), bare, &mk_options()), Reason::ServiceAccountNotAllowed, "annotate");
        let absent = check(named(), ResolvedAccount::Absent, &mk_options());
        assert_refused(absent, Reason::ServiceAccountNotFound, "there is no ServiceAccount shared");
        let child = check(named(), ResolvedAccount::Child, &mk_options());
        assert_refused(child, Reason::ServiceAccountNotAllowed, "remove the field");
    }

    #[test]
    fn an_account_for_the_webhook_must_have_the_servers_client_id() {
        let named = |injection: &str| {
            spec_with(json!({"entra": {"federation": {"serviceAccountName": "shared", "injection": injection}}}))
        };
        let account = |client_id: &str| {
            let annotations = [(ALLOW_SERVER, "graph"), (CLIENT_ID, client_id)];
            ResolvedAccount::Existing(annotations.map(|(name, value)| (name.into(), value.into())).into())
        };
        check(named("Webhook"), account("1c2d0000-0000-0000-0000-00000000000b"), &mk_options()).unwrap();
        let other = check(named("Webhook"), account("other"), &mk_options());
        assert_refused(other, Reason::ServiceAccountMismatch, "is not spec.entra.clientId");
        check(named("Operator"), account("other"), &mk_options()).unwrap();
    }

    #[test]
    fn only_allowed_labels_and_annotations_of_pods_are_accepted() {
        let options = Options {
            allowed_pod_labels: vec!["team".into()],
            allowed_pod_annotations: vec!["team.example/*".into()],
            ..mk_options()
        };
        let with = |template: serde_json::Value| spec_with(json!({"podTemplate": template}));
        check(with(json!({"labels": {"team": "a"}})), ResolvedAccount::Unset, &options).unwrap();
        check(with(json!({"annotations": {"team.example/a": "b"}})), ResolvedAccount::Unset, &options).unwrap();
        for (template, part) in [
            (json!({"labels": {"team-2": "a"}}), "--allowed-pod-label=team-2"),
            (json!({"labels": {"team.example/a": "b"}}), "--allowed-pod-label=team.example/a"),
            (
                json!({"annotations": {"vault.hashicorp.com/agent-inject": "true"}}),
                "--allowed-pod-annotation=vault.hashicorp.com/agent-inject",
            ),
            (json!({"annotations": {"team": "a"}}), "--allowed-pod-annotation=team"),
        ] {
            assert_refused(
                check(with(template), ResolvedAccount::Unset, &options),
                Reason::PodTemplateNotAllowed,
                part,
            );
        }
        let none = check(with(json!({"labels": {"team": "a"}})), ResolvedAccount::Unset, &mk_options());
        assert_refused(none, Reason::PodTemplateNotAllowed, "spec.podTemplate.labels: team");
    }

    #[test]
    fn a_priority_is_one_that_the_operators_configuration_names() {
        let options = Options { allowed_priority_classes: vec!["high".into()], ..mk_options() };
        let with = |name: &str| spec_with(json!({"podTemplate": {"priorityClassName": name}}));
        check(with("high"), ResolvedAccount::Unset, &options).unwrap();
        let refused = check(with("higher"), ResolvedAccount::Unset, &options);
        assert_refused(refused, Reason::PriorityClassNotAllowed, "--allowed-priority-class=higher");
        let refused = check(with("high"), ResolvedAccount::Unset, &mk_options());
        assert_refused(refused, Reason::PriorityClassNotAllowed, "--allowed-priority-class=high");
    }

    #[test]
    fn the_pods_reach_the_ports_that_the_spec_implies_and_no_others() {
        let egress = |changes: serde_json::Value| {
            let mut spec = json!({"networkPolicy": {"allowFrom": [{"podSelector": {}}]}});
            json_patch::merge(&mut spec, &changes);
            let options = Options {
                allowed_authorities: vec!["https://login.example:8443".into()],
                allowed_graphs: vec!["https://graph.example:9443".into()],
                ..mk_options()
            };
            check(spec_with(spec), ResolvedAccount::Unset, &options).unwrap().network.unwrap().egress
        };
        let proxy = |name: &str, value: &str| json!({"podTemplate": {"env": [{"name": name, "value": value}]}});
        assert_eq!(egress(json!({})), [443].into());
        let endpoints = json!({"authority": "https://login.example:8443", "graph": "https://graph.example:9443"});
        assert_eq!(egress(json!({"entra": {"endpoints": endpoints}})), [443, 8443, 9443].into());
        assert_eq!(egress(proxy("HTTPS_PROXY", "http://outbound.example:3128")), [443, 3128].into());
        assert_eq!(egress(proxy("https_proxy", "outbound.example:3129")), [443, 3129].into());
        assert_eq!(egress(proxy("HTTPS_PROXY", "http://outbound.example")), [80, 443].into());
        assert_eq!(egress(proxy("NO_PROXY", "intern.example:3128")), [443].into());
    }
}
