//! Validation of the exposure: the way of clients to the server, and the place where TLS ends. TLS is mandatory. Pure.

use std::collections::BTreeMap;

use mcp_entra_crds::{Exposure, GatewayExposure, GatewayReference, IngressExposure, IssuerReference};

use crate::{
    conditions::condition::Reason,
    mcpserver::{
        resolved::NamedGateway,
        validate::refusal::{Refusal, refuse},
    },
    objects::{child::ChildKind, names::EXPOSES, owner::Owner},
    runtime::options::{Options, matches_any},
    watch::{gateways::ListenerView, stores::OwnChildren},
};

/// The exposure of a server to clients outside the cluster.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exposed {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) way: Way,
    /// The issuer of the server's own certificate, if it has one.
    pub(crate) issuer: Option<IssuerReference>,
    /// Missing Gateways and listeners that the spec names, as text.
    pub(crate) absent: Vec<String>,
    /// The request timeout, if the route should have one.
    pub(crate) request_timeout: Option<String>,
    /// True if the server is an authorization server, too, and publishes its metadata.
    pub(crate) signs_in: bool,
}

/// No limit for the time of a request: answers are event streams of unknown duration.
const NO_LIMIT: &str = "0s";

/// The way of clients to the server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Way {
    /// An Ingress.
    Ingress(IngressWay),
    /// HTTPS listeners of Gateways with certificates of their own: those that exist, which may be none.
    Listeners(Vec<GatewayReference>),
    /// The server's own listener at a Gateway, with the certificate in this Secret.
    OwnListener { gateway: GatewayReference, secret_name: String },
}

/// An Ingress, whose controller terminates TLS with the certificate in the Secret.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IngressWay {
    pub(crate) class_name: Option<String>,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) secret_name: String,
}

/// Validates the exposure. If Gateways are not visible, each one in the spec is assumed to be as the spec says.
pub(crate) fn validate(
    owner: &Owner,
    exposure: &Exposure,
    gateways: Option<&[NamedGateway]>,
    options: &Options,
) -> Result<Exposed, Refusal> {
    allowed_host(&exposure.host, &options.allowed_hosts)?;
    let issuer = exposure.tls.issuer_ref.clone();
    let secret_name = match &issuer {
        Some(_) => Some(certificate_secret(owner)),
        None => exposure.tls.secret_name.clone(),
    };
    let way = match (&exposure.gateway, &exposure.ingress, secret_name) {
        (Some(gateway), None, Some(secret_name)) => own_listener(gateway, secret_name)?,
        (Some(gateway), None, None) if exposure.tls.terminated_by_gateway == Some(true) => {
            Way::Listeners(match gateways {
                None => gateway.parent_refs.clone(),
                Some(gateways) => encrypted(gateways)?,
            })
        }
        (None, Some(ingress), Some(secret_name)) => Way::Ingress(IngressWay {
            class_name: ingress.class_name.clone(),
            annotations: annotations(ingress, options)?,
            secret_name,
        }),
        (_, _, None) => {
            return refuse(
                Reason::TlsRequired,
                "spec.exposure.tls: TLS is mandatory; set issuerRef or secretName, or, if a Gateway's HTTPS listener terminates TLS, set terminatedByGateway to true",
            );
        }
        (_, _, Some(_)) => {
            return refuse(Reason::InvalidConfiguration, "spec.exposure: set exactly one of gateway and ingress");
        }
    };
    let absent = gateways.into_iter().flatten().filter_map(NamedGateway::absent).collect();
    // A Gateway without support for the field may reject the route.
    let all_take_timeouts = gateways.is_some_and(|gateways| gateways.iter().all(|gateway| gateway.takes_timeouts));
    let request_timeout = exposure.request_timeout.clone().or_else(|| all_take_timeouts.then(|| NO_LIMIT.to_owned()));
    let (host, path) = (exposure.host.clone(), exposure.path.clone());
    Ok(Exposed { host, path, way, issuer, absent, request_timeout, signs_in: false })
}

/// Checks a host against the list: an equal entry, an entry `*.` with a parent domain, or `*`. An empty list allows
/// none.
fn allowed_host(host: &str, allowed: &[String]) -> Result<(), Refusal> {
    let is_meant = |allowed: &String| match allowed.strip_prefix("*.") {
        Some(domain) => {
            let label = host.strip_suffix(domain).and_then(|label| label.strip_suffix('.'));
            label.is_some_and(|label| !label.is_empty())
        }
        None => allowed == "*" || host == allowed,
    };
    if allowed.iter().any(is_meant) {
        return Ok(());
    }
    refuse(
        Reason::HostNotAllowed,
        format!(
            "spec.exposure.host: {host} is not allowed, so nothing is exposed; use an allowed host, or ask the administrator of mcp-entra-operator to add it to the chart's value allowedHosts (--allowed-host={host})"
        ),
    )
}

/// Returns the name of the Secret with cert-manager's certificate. Cert-manager overwrites a Secret of that name, so
/// authors must not be able to choose it: it contains the uid.
pub(crate) fn certificate_secret(owner: &Owner) -> String {
    format!("{}-{}-tls", owner.name, owner.short_uid())
}

/// Returns the host, and path, for an exposing child's annotation. A child with another value is deleted.
pub(crate) fn exposes(kind: ChildKind, host: &str, path: &str) -> String {
    match kind {
        ChildKind::Ingress | ChildKind::HttpRoute => format!("{host}{path}"),
        _ => host.to_owned(),
    }
}

/// Returns true if an Ingress or a route among the children exposes the host and path of an exposure.
pub(crate) fn leads(children: &OwnChildren, exposure: &Exposure) -> bool {
    [ChildKind::Ingress, ChildKind::HttpRoute].into_iter().any(|kind| {
        let from = exposes(kind, &exposure.host, &exposure.path);
        children.get(&kind).is_some_and(|child| child.annotation(EXPOSES) == Some(&from))
    })
}

fn own_listener(gateway: &GatewayExposure, secret_name: String) -> Result<Way, Refusal> {
    match gateway.parent_refs.as_slice() {
        [gateway] => Ok(Way::OwnListener { gateway: gateway.clone(), secret_name }),
        _ => refuse(
            Reason::InvalidConfiguration,
            "spec.exposure.gateway.parentRefs: with tls.issuerRef or tls.secretName, set exactly one Gateway",
        ),
    }
}

/// Returns the existing HTTPS listeners. Others are refused: a plain listener would transmit tokens unencrypted, and a
/// missing one may become plain.
fn encrypted(gateways: &[NamedGateway]) -> Result<Vec<GatewayReference>, Refusal> {
    let mut encrypted = Vec::new();
    for gateway in gateways {
        match gateway.listener() {
            None => {}
            Some(listener) if listener.protocol == "HTTPS" => encrypted.push(gateway.parent.clone()),
            Some(ListenerView { name, protocol }) => {
                let NamedGateway { parent, namespace, .. } = gateway;
                return refuse(
                    Reason::TlsRequired,
                    format!(
                        "spec.exposure.gateway: listener {name} of Gateway {namespace}/{} has the protocol {protocol}, but TLS is mandatory; use a listener with HTTPS",
                        parent.name
                    ),
                );
            }
        }
    }
    Ok(encrypted)
}

fn annotations(ingress: &IngressExposure, options: &Options) -> Result<BTreeMap<String, String>, Refusal> {
    let is_allowed = |name: &str| matches_any(&options.allowed_ingress_annotations, name);
    match ingress.annotations.keys().find(|name| !is_allowed(name)) {
        None => Ok(ingress.annotations.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()),
        Some(name) => refuse(
            Reason::AnnotationsNotAllowed,
            format!(
                "spec.exposure.ingress.annotations: {name} is not allowed; remove it, or ask the administrator of mcp-entra-operator to start it with --allowed-ingress-annotation={name}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{mcpserver::validate::tests::mk_options, objects::fixtures::mk_owner};

    fn check(exposure: Value, gateways: &[NamedGateway]) -> Result<Exposed, Refusal> {
        check_for(&["*"], exposure, Some(gateways))
    }

    fn check_for(
        allowed_hosts: &[&str],
        exposure: Value,
        gateways: Option<&[NamedGateway]>,
    ) -> Result<Exposed, Refusal> {
        let options = Options {
            allowed_ingress_annotations: vec!["a.example/exact".into(), "b.example/*".into()],
            allowed_hosts: allowed_hosts.iter().map(|host| (*host).to_owned()).collect(),
            ..mk_options()
        };
        validate(&mk_owner(), &serde_json::from_value(exposure).unwrap(), gateways, &options)
    }

    fn mk(parts: Value, tls: Value) -> Value {
        let mut exposure = json!({"host": "h.example", "tls": tls});
        exposure.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        exposure
    }

    fn listener(protocol: &str) -> NamedGateway {
        let listener = ListenerView { name: "web".into(), protocol: protocol.into() };
        NamedGateway { listeners: Some(vec![listener]), ..no_gateway() }
    }

    fn no_gateway() -> NamedGateway {
        let parent = json!({"name": "shared", "namespace": "infra", "sectionName": "web"});
        NamedGateway {
            parent: serde_json::from_value(parent).unwrap(),
            namespace: "infra".into(),
            listeners: None,
            takes_timeouts: false,
        }
    }

    #[test]
    fn a_route_names_a_time_where_the_author_does_or_all_gateways_take_no_limit() {
        let time = |takes: &[bool], asked: Option<&str>| {
            let gateways: Vec<NamedGateway> =
                takes.iter().map(|takes| NamedGateway { takes_timeouts: *takes, ..listener("HTTPS") }).collect();
            let mut exposure = at_listener();
            exposure["requestTimeout"] = json!(asked);
            check(exposure, &gateways).unwrap().request_timeout
        };
        assert_eq!(time(&[true], None).as_deref(), Some("0s"));
        assert_eq!(time(&[true, false], None), None);
        for takes in [true, false] {
            assert_eq!(time(&[takes], Some("90s")).as_deref(), Some("90s"), "its author knows the Gateway");
        }
    }

    fn at_listener() -> Value {
        let parent = json!({"name": "shared", "namespace": "infra", "sectionName": "web"});
        mk(json!({"gateway": {"parentRefs": [parent]}}), json!({"terminatedByGateway": true}))
    }

    #[test]
    fn a_route_uses_only_https_listeners_and_a_missing_listener_is_named() {
        let led = |gateways: &[NamedGateway]| {
            let Exposed { way: Way::Listeners(parents), absent, .. } = check(at_listener(), gateways).unwrap() else {
                panic!()
            };
            (parents.len(), absent.join(", "))
        };
        assert_eq!(led(&[listener("HTTPS")]), (1, String::new()));
        assert_eq!(led(&[no_gateway()]), (0, "Gateway infra/shared".into()));
        let mut another = listener("HTTPS");
        another.listeners.as_mut().unwrap()[0].name = "webs".into();
        assert_eq!(led(std::slice::from_ref(&another)), (0, "listener web of Gateway infra/shared".into()));
        assert_eq!(led(&[another, listener("HTTPS")]), (1, "listener web of Gateway infra/shared".into()));
        let unseen = check_for(&["*"], at_listener(), None).unwrap();
        assert!(matches!(unseen.way, Way::Listeners(parents) if parents.len() == 1));
        assert!(unseen.absent.is_empty());
    }

    #[test]
    fn a_host_is_one_that_the_operator_allows_and_an_empty_list_allows_none() {
        let check = |allowed: &[&str], host: &str| {
            let mut exposure = mk(json!({"ingress": {}}), json!({"secretName": "s"}));
            exposure["host"] = json!(host);
            check_for(allowed, exposure, None)
        };
        let allowed = ["*.contoso.com", "mcp.example"];
        check(&["*"], "anything.example").unwrap();
        assert_eq!(check(&[], "anything.example").unwrap_err().reason, Reason::HostNotAllowed);
        assert!(check(&["*contoso.com", ""], "graph.contoso.com").is_err(), "a star stands for whole labels");
        for host in ["graph.contoso.com", "a.b.contoso.com", "mcp.example"] {
            check(&allowed, host).unwrap();
        }
        for host in ["evil-contoso.com", "contoso.com", ".contoso.com", "graph.contoso.com.evil", "a.mcp.example"] {
            let refusal = check(&allowed, host).unwrap_err();
            assert_eq!(refusal.reason, Reason::HostNotAllowed);
            assert!(refusal.message.contains(&format!("--allowed-host={host}")), "{}", refusal.message);
        }
    }

    #[test]
    fn every_exposure_terminates_tls() {
        let gateway = || json!({"gateway": {"parentRefs": [{"name": "shared", "namespace": "infra"}]}});
        let exposed = check(mk(json!({"ingress": {}}), json!({"secretName": "s"})), &[]).unwrap();
        assert!(matches!(exposed.way, Way::Ingress(way) if way.secret_name == "s"));
        let exposed = check(mk(gateway(), json!({"secretName": "s"})), &[]).unwrap();
        assert!(matches!(exposed.way, Way::OwnListener { secret_name, .. } if secret_name == "s"));
        let exposed = check(mk(gateway(), json!({"issuerRef": {"name": "ca"}})), &[]).unwrap();
        assert!(matches!(exposed.way, Way::OwnListener { secret_name, .. } if secret_name == "graph-uid-1-tls"));
        assert_eq!(exposed.issuer.unwrap().kind, "Issuer");
        let exposed = check(mk(gateway(), json!({"terminatedByGateway": true})), &[listener("HTTPS")]).unwrap();
        assert!(matches!(exposed.way, Way::Listeners(parents) if parents.len() == 1));
    }

    #[test]
    fn without_tls_there_is_no_exposure() {
        let gateway = || json!({"gateway": {"parentRefs": [{"name": "shared", "sectionName": "web"}]}});
        for (tls, listeners) in [
            (json!({"terminatedByGateway": false}), vec![]),
            (json!({}), vec![]),
            (json!({"terminatedByGateway": true}), vec![listener("HTTPS"), listener("HTTP")]),
            (json!({"terminatedByGateway": true}), vec![listener("TLS")]),
        ] {
            assert_eq!(check(mk(gateway(), tls), &listeners).unwrap_err().reason, Reason::TlsRequired);
        }
        let refusal = check(mk(gateway(), json!({"terminatedByGateway": true})), &[listener("HTTP")]).unwrap_err();
        assert!(
            refusal.message.contains("listener web of Gateway infra/shared has the protocol HTTP,"),
            "{}",
            refusal.message
        );
        let refusal = check(mk(json!({"ingress": {}}), json!({"terminatedByGateway": true})), &[]).unwrap_err();
        assert_eq!(refusal.reason, Reason::TlsRequired);
    }

    #[test]
    fn annotations_are_passed_on_where_the_operator_allows_them_and_no_others() {
        let annotated =
            |name: &str| check(mk(json!({"ingress": {"annotations": {name: "on"}}}), json!({"secretName": "s"})), &[]);
        for allowed in ["a.example/exact", "b.example/anything"] {
            let Way::Ingress(IngressWay { annotations, .. }) = annotated(allowed).unwrap().way else {
                panic!("{allowed}")
            };
            assert_eq!(annotations, BTreeMap::from([(allowed.to_owned(), "on".to_owned())]));
        }
        for refused in ["a.example/exactly", "b.example.evil/x", "nginx.ingress.kubernetes.io/server-snippet"] {
            let refusal = annotated(refused).unwrap_err();
            assert_eq!(refusal.reason, Reason::AnnotationsNotAllowed);
            assert!(refusal.message.contains(&format!("--allowed-ingress-annotation={refused}")));
        }
    }
}
