//! Exposure as validated: by what clients come in, and where TLS ends. There is none without TLS. Pure.

use std::collections::BTreeMap;

use mcp_entra_crds::{Exposure, GatewayExposure, GatewayReference, IngressExposure, IssuerReference};

use crate::{
    child::ChildKind,
    conditions::Reason,
    options::Options,
    owner::Owner,
    validate::{Refusal, matches_any, refuse},
};

/// The annotation of what leads clients to a server with the host, and path, that it leads from.
pub(crate) const EXPOSES: &str = "mcp-entra.dev/exposes";

/// How clients outside the cluster reach a server.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exposed {
    pub(crate) host: String,
    pub(crate) path: String,
    pub(crate) way: Way,
    /// Who issues the certificate of the server's own, if it has one.
    pub(crate) issuer: Option<IssuerReference>,
}

/// By what clients come in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Way {
    /// An Ingress, whose controller ends TLS with the certificate in that Secret.
    Ingress { class_name: Option<String>, annotations: BTreeMap<String, String>, secret_name: String },
    /// HTTPS listeners of Gateways, which end TLS with certificates of their own.
    Listeners(Vec<GatewayReference>),
    /// A listener of the server's own at a Gateway, with the certificate in that Secret.
    OwnListener { gateway: GatewayReference, secret_name: String },
}

/// A listener that an exposure names, as far as its Gateway can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedListener {
    /// `namespace/name` of the Gateway.
    pub(crate) gateway: String,
    pub(crate) section_name: String,
    pub(crate) protocol: String,
}

/// Decides whether, and how, the server can be exposed.
pub(crate) fn validate(
    owner: &Owner,
    exposure: &Exposure,
    listeners: &[NamedListener],
    options: &Options,
) -> Result<Exposed, Refusal> {
    let issuer = exposure.tls.issuer_ref.clone();
    let secret_name = match &issuer {
        Some(_) => Some(certificate_secret(owner)),
        None => exposure.tls.secret_name.clone(),
    };
    let way = match (&exposure.gateway, &exposure.ingress, secret_name) {
        (Some(gateway), None, Some(secret_name)) => own_listener(gateway, secret_name)?,
        (Some(gateway), None, None) if exposure.tls.terminated_by_gateway == Some(true) => {
            encrypted(listeners)?;
            Way::Listeners(gateway.parent_refs.clone())
        }
        (None, Some(ingress), Some(secret_name)) => Way::Ingress {
            class_name: ingress.class_name.clone(),
            annotations: annotations(ingress, options)?,
            secret_name,
        },
        (_, _, None) => {
            return refuse(
                Reason::TlsRequired,
                "spec.exposure.tls: nothing is exposed without TLS; name an issuerRef or a secretName, or, where a Gateway's HTTPS listener ends TLS, set terminatedByGateway to true",
            );
        }
        (_, _, Some(_)) => {
            return refuse(Reason::InvalidConfiguration, "spec.exposure: name exactly one of gateway and ingress");
        }
    };
    Ok(Exposed { host: exposure.host.clone(), path: exposure.path.clone(), way, issuer })
}

/// The Secret that cert-manager keeps the server's certificate in. Cert-manager writes over a Secret of that name, so that
/// nobody may be able to choose one: the uid is the API server's.
pub(crate) fn certificate_secret(owner: &Owner) -> String {
    let uid: String = owner.uid.chars().take(8).collect();
    format!("{}-{uid}-tls", owner.name)
}

/// What of the spec leads clients to a child, noted on it: where the spec says something else, it is to be gone.
pub(crate) fn exposes(kind: ChildKind, host: &str, path: &str) -> String {
    match kind {
        ChildKind::Ingress | ChildKind::HttpRoute => format!("{host}{path}"),
        _ => host.to_owned(),
    }
}

fn own_listener(gateway: &GatewayExposure, secret_name: String) -> Result<Way, Refusal> {
    match gateway.parent_refs.as_slice() {
        [gateway] => Ok(Way::OwnListener { gateway: gateway.clone(), secret_name }),
        _ => refuse(
            Reason::InvalidConfiguration,
            "spec.exposure.gateway.parentRefs: with tls.issuerRef or tls.secretName, name one Gateway",
        ),
    }
}

/// A token that comes in by a plain listener has been on the wire for everybody to read.
fn encrypted(listeners: &[NamedListener]) -> Result<(), Refusal> {
    match listeners.iter().find(|listener| listener.protocol != "HTTPS") {
        None => Ok(()),
        Some(NamedListener { gateway, section_name, protocol }) => refuse(
            Reason::TlsRequired,
            format!(
                "spec.exposure.gateway: listener {section_name} of Gateway {gateway} speaks {protocol}, and nothing is exposed without TLS; name a listener that speaks HTTPS"
            ),
        ),
    }
}

fn annotations(ingress: &IngressExposure, options: &Options) -> Result<BTreeMap<String, String>, Refusal> {
    let is_allowed = |name: &str| matches_any(&options.allowed_ingress_annotations, name);
    match ingress.annotations.keys().find(|name| !is_allowed(name)) {
        None => Ok(ingress.annotations.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect()),
        Some(name) => refuse(
            Reason::AnnotationsNotAllowed,
            format!(
                "spec.exposure.ingress.annotations: {name} is not allowed here; remove it, or ask whoever runs mcp-entra-operator to start it with --allowed-ingress-annotation={name}"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validate::tests::{mk_options, mk_owner};

    fn check(exposure: Value, listeners: &[NamedListener]) -> Result<Exposed, Refusal> {
        let options = Options {
            allowed_ingress_annotations: vec!["a.example/exact".into(), "b.example/*".into()],
            ..mk_options()
        };
        validate(&mk_owner(), &serde_json::from_value(exposure).unwrap(), listeners, &options)
    }

    fn mk(parts: Value, tls: Value) -> Value {
        let mut exposure = json!({"host": "h.example", "tls": tls});
        exposure.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
        exposure
    }

    fn listener(protocol: &str) -> NamedListener {
        NamedListener { gateway: "infra/shared".into(), section_name: "web".into(), protocol: protocol.into() }
    }

    #[test]
    fn each_way_in_ends_tls_somewhere() {
        let gateway = || json!({"gateway": {"parentRefs": [{"name": "shared", "namespace": "infra"}]}});
        let exposed = check(mk(json!({"ingress": {}}), json!({"secretName": "s"})), &[]).unwrap();
        assert!(matches!(exposed.way, Way::Ingress { secret_name, .. } if secret_name == "s"));
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
        assert!(refusal.message.contains("listener web of Gateway infra/shared speaks HTTP,"), "{}", refusal.message);
        let refusal = check(mk(json!({"ingress": {}}), json!({"terminatedByGateway": true})), &[]).unwrap_err();
        assert_eq!(refusal.reason, Reason::TlsRequired);
    }

    #[test]
    fn annotations_are_passed_on_where_the_operator_allows_them_and_no_others() {
        let annotated =
            |name: &str| check(mk(json!({"ingress": {"annotations": {name: "on"}}}), json!({"secretName": "s"})), &[]);
        for allowed in ["a.example/exact", "b.example/anything"] {
            let Way::Ingress { annotations, .. } = annotated(allowed).unwrap().way else { panic!("{allowed}") };
            assert_eq!(annotations, BTreeMap::from([(allowed.to_owned(), "on".to_owned())]));
        }
        for refused in ["a.example/exactly", "b.example.evil/x", "nginx.ingress.kubernetes.io/server-snippet"] {
            let refusal = annotated(refused).unwrap_err();
            assert_eq!(refusal.reason, Reason::AnnotationsNotAllowed);
            assert!(refusal.message.contains(&format!("--allowed-ingress-annotation={refused}")));
        }
    }
}
