//! Conditions Exposed and CertificateReady: clients outside the cluster are routed to the server, according to the
//! controllers of Ingress, route, listener and certificate. Pure.

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use mcp_entra_crds::{Exposure, GatewayReference};

use crate::{
    conditions::condition::{Reason, Verdict},
    objects::{
        child::ChildKind,
        status_views::{ConditionView, ParentReferenceView},
        views::ChildView,
    },
};

/// The facts that the verdicts depend on.
#[derive(Clone, Copy)]
pub(crate) struct Leading<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) exposure: &'a Exposure,
    /// Missing Gateways and listeners that the spec names, as text.
    pub(crate) absent: &'a [String],
    pub(crate) ingress: Option<&'a ChildView>,
    pub(crate) route: Option<&'a ChildView>,
    /// The ListenerSet of this server, or of the server whose listener it shares.
    pub(crate) listener_set: Option<&'a ChildView>,
    /// The name of the ListenerSet, even if it does not exist.
    pub(crate) listener_set_name: &'a str,
    /// The Certificate of this server, or of the server whose listener it shares.
    pub(crate) certificate: Option<&'a ChildView>,
    pub(crate) now: Timestamp,
}

/// Time for controllers to react to each other's newest conditions.
const SETTLING: SignedDuration = SignedDuration::from_secs(10);

impl Leading<'_> {
    /// Returns the verdict for a rejecting condition. It is only pending while the condition, or a condition that it
    /// depends on, is new: controllers may not have reacted yet.
    fn rejected(self, by: &ConditionView, answers_to: Option<&ChildView>, reason: Reason, message: String) -> Verdict {
        let mut conditions = answers_to.into_iter().map(ChildView::status).flat_map(|status| {
            status.listeners.iter().flat_map(|listener| &listener.conditions).chain(&status.conditions)
        });
        let is_new = |condition: &ConditionView| {
            let since = condition.last_transition_time.as_ref();
            since.is_some_and(|since| self.now.duration_since(since.0).abs() < SETTLING)
        };
        match is_new(by) || conditions.any(is_new) {
            true => Verdict::no(Reason::RoutePending, format!("{message}; this is new, so wait a few seconds first")),
            false => Verdict::no(reason, message),
        }
    }

    /// Returns true if the certificate of the server's own listener is not issued yet.
    fn awaits_certificate(self) -> bool {
        let is_issued = self.exposure.tls.issuer_ref.is_some();
        is_issued && certificate_ready(self).reason == Reason::CertificatePending.to_string()
    }
}

/// Returns the verdict that every parent accepts the route.
pub(crate) fn exposed(leading: Leading<'_>) -> Verdict {
    let Some(gateway) = &leading.exposure.gateway else { return by_ingress(leading.ingress) };
    if !leading.absent.is_empty() {
        let message = format!(
            "there is no {}, so nothing is exposed there; correct spec.exposure.gateway.parentRefs, or ask the Gateway's administrators",
            leading.absent.join(", no ")
        );
        return Verdict::no(Reason::GatewayNotFound, message);
    }
    if leading.exposure.tls.terminated_by_gateway.is_some() {
        return by_route(leading, &gateway.parent_refs.iter().map(at_gateway).collect::<Vec<_>>());
    }
    let parent = gateway.parent_refs.first().map_or_else(String::new, |parent| name_of(&at_gateway(parent)));
    let listener = by_listener(leading, &parent);
    listener.unwrap_or_else(|| by_route(leading, &[at_listener_set(leading.listener_set_name)]))
}

fn by_ingress(ingress: Option<&ChildView>) -> Verdict {
    let address = ingress.and_then(|ingress| ingress.status().load_balancer.ingress.first());
    match address.and_then(|address| address.hostname.as_ref().or(address.ip.as_ref())) {
        Some(address) => {
            let address = address.word();
            Verdict::yes(Reason::AddressAssigned, format!("an ingress controller serves the host at {address}"))
        }
        None => Verdict::no(
            Reason::AddressPending,
            "no ingress controller has set an address for the Ingress; check that one serves the class in spec.exposure.ingress.className",
        ),
    }
}

fn at_gateway(gateway: &GatewayReference) -> ParentReferenceView {
    ParentReferenceView {
        kind: Some("Gateway".to_owned()),
        namespace: gateway.namespace.clone(),
        name: gateway.name.clone(),
        section_name: gateway.section_name.clone(),
    }
}

fn at_listener_set(name: &str) -> ParentReferenceView {
    ParentReferenceView {
        kind: Some(ChildKind::ListenerSet.kind().to_owned()),
        name: name.to_owned(),
        ..ParentReferenceView::default()
    }
}

/// Returns the name of a parent for a message.
fn name_of(parent: &ParentReferenceView) -> String {
    let kind = parent.kind.as_deref().unwrap_or("Gateway");
    let namespace = parent.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
    let section = parent.section_name.as_ref().map(|section| format!(" (listener {section})")).unwrap_or_default();
    format!("{kind} {namespace}{}{section}", parent.name)
}

fn is_same(one: &ParentReferenceView, other: &ParentReferenceView, namespace: &str) -> bool {
    let key = |parent: &ParentReferenceView| {
        (
            parent.kind.clone().unwrap_or_else(|| "Gateway".to_owned()),
            parent.namespace.clone().unwrap_or_else(|| namespace.to_owned()),
            parent.name.clone(),
        )
    };
    // Each ListenerSet has one listener, so its name adds nothing.
    let sections = one.section_name == other.section_name || one.section_name.is_none();
    key(one) == key(other) && sections
}

/// Returns the fault of the server's own listener, if there is one.
fn by_listener(leading: Leading<'_>, gateway: &str) -> Option<Verdict> {
    let pending = || {
        let message = format!(
            "{gateway} has not reported on ListenerSet {}; check that the Gateway exists and that its class supports ListenerSets",
            leading.listener_set_name
        );
        Some(Verdict::no(Reason::RoutePending, message))
    };
    let Some(set) = leading.listener_set else { return pending() };
    let status = set.status();
    let generation = set.generation;
    let all = status.listeners.iter().flat_map(|listener| &listener.conditions).chain(&status.conditions);
    let mut rejected = all.filter(|condition| {
        is_current(condition, generation)
            && match condition.type_.as_str() {
                "Accepted" | "Programmed" | "ResolvedRefs" => condition.status == "False",
                "Conflicted" => condition.status == "True",
                _ => false,
            }
    });
    if leading.awaits_certificate() {
        let follows = |condition: &&ConditionView| {
            matches!(condition.reason.raw(), "InvalidCertificateRef" | "ListenersNotValid" | "Invalid" | "Pending")
        };
        let mut following = rejected.clone().peekable();
        if following.peek().is_some() && following.all(|condition| follows(&condition)) {
            let message =
                format!("{gateway} waits for the certificate; see the condition CertificateReady for its progress");
            return Some(Verdict::no(Reason::CertificatePending, message));
        }
    }
    if let Some(condition) = rejected.next() {
        let advice = match condition.reason.raw() {
            "InvalidCertificateRef" | "RefNotPermitted" | "ListenersNotValid" => {
                "check that the Secret of spec.exposure.tls exists in this namespace and contains a certificate"
            }
            "NotAllowed" => {
                "ask the Gateway's administrators to allow ListenerSets of this namespace (spec.allowedListeners)"
            }
            _ => "ask the Gateway's administrators",
        };
        let message = format!("{gateway} does not serve the listener of this server: {}; {advice}", said(condition));
        return Some(leading.rejected(condition, leading.certificate, Reason::ListenerRejected, message));
    }
    let accepted = status.conditions.iter().any(|condition| {
        condition.type_ == "Accepted" && condition.status == "True" && is_current(condition, generation)
    });
    if accepted { None } else { pending() }
}

/// Returns true if a condition is about the newest spec.
fn is_current(condition: &ConditionView, generation: Option<i64>) -> bool {
    condition.observed_generation.is_none() || condition.observed_generation >= generation
}

fn said(condition: &ConditionView) -> String {
    match condition.message.quoted() {
        message if message.is_empty() => condition.reason.word(),
        message => format!("{}: {message}", condition.reason.word()),
    }
}

fn by_route(leading: Leading<'_>, parents: &[ParentReferenceView]) -> Verdict {
    let verdicts = parents.iter().map(|parent| by_parent(leading, parent));
    let refused: Option<Verdict> = verdicts.flatten().next();
    refused.unwrap_or_else(|| {
        let names: Vec<String> = parents.iter().map(name_of).collect();
        Verdict::yes(Reason::RouteAccepted, format!("every parent accepts the route: {}", names.join(", ")))
    })
}

/// Returns the fault of the route at one of its parents, if there is one.
fn by_parent(leading: Leading<'_>, parent: &ParentReferenceView) -> Option<Verdict> {
    let name = name_of(parent);
    let answers = || {
        let generation = leading.route.and_then(|route| route.generation);
        let parents = leading.route.into_iter().flat_map(|route| &route.status().parents);
        parents
            .filter(|found| is_same(parent, &found.parent_ref, leading.namespace))
            .flat_map(|found| &found.conditions)
            .filter(move |condition| is_current(condition, generation))
    };
    let rejected = answers().find(|condition| {
        matches!(condition.type_.as_str(), "Accepted" | "ResolvedRefs") && condition.status == "False"
    });
    if let Some(condition) = rejected {
        let advice = match condition.reason.raw() {
            "NotAllowedByListeners" => {
                "ask the Gateway's administrators to allow routes of this namespace (allowedRoutes of its listener)"
            }
            "NoMatchingListenerHostname" => "set spec.exposure.host to a host that one of its listeners serves",
            "NoMatchingParent" => "correct spec.exposure.gateway.parentRefs",
            _ => "ask the Gateway's administrators",
        };
        let message = format!("{name} does not accept the route: {}; {advice}", said(condition));
        return Some(leading.rejected(condition, leading.listener_set, Reason::RouteRejected, message));
    }
    let is_true = |type_: &str| answers().any(|condition| condition.type_ == type_ && condition.status == "True");
    if is_true("Accepted") && is_true("ResolvedRefs") {
        return None;
    }
    let message =
        format!("{name} has not reported on the route; check that it exists and that its class has a controller");
    Some(Verdict::no(Reason::RoutePending, message))
}

/// Returns the verdict that the certificate is valid now.
pub(crate) fn certificate_ready(leading: Leading<'_>) -> Verdict {
    let now = leading.now;
    let advice = "see kubectl describe certificate, and the issuer in spec.exposure.tls.issuerRef";
    let pending = || {
        let message = format!("cert-manager has not reported on the present certificate yet; if this lasts, {advice}");
        Verdict::no(Reason::CertificatePending, message)
    };
    let Some(certificate) = leading.certificate else { return pending() };
    let status = certificate.status();
    let generation = certificate.generation;
    let current = status.conditions.iter().filter(|condition| is_current(condition, generation));
    let condition = |type_: &str| current.clone().find(|condition| condition.type_ == type_);
    let not_after = status.not_after.as_ref().map(|time| time.0);
    if let Some(until) = not_after.filter(|until| *until <= now) {
        let why = condition("Issuing").map(|issuing| format!(" ({})", said(issuing))).unwrap_or_default();
        let message = format!("the certificate expired at {until}, and clients reject it{why}; {advice}");
        return Verdict::no(Reason::CertificateExpired, message);
    }
    let ready = condition("Ready");
    match (ready, not_after) {
        (Some(ready), Some(until)) if ready.status == "True" => {
            let overdue = status.renewal_time.as_ref().is_some_and(|renewal| renewal.0 <= now);
            let why = condition("Issuing").map(|issuing| format!(" ({})", said(issuing))).unwrap_or_default();
            let renewal = if overdue {
                format!("; its renewal is due and has not succeeded{why}; {advice}")
            } else {
                String::new()
            };
            Verdict::yes(Reason::CertificateValid, format!("the certificate is valid until {until}{renewal}"))
        }
        (Some(ready), _) if ready.status == "False" => {
            if let Some(issuing) = condition("Issuing").filter(|issuing| issuing.status == "True") {
                let message =
                    format!("cert-manager is issuing the certificate: {}; if this lasts, {advice}", said(issuing));
                return Verdict::no(Reason::CertificatePending, message);
            }
            let why = condition("Issuing").filter(|issuing| issuing.status == "False").unwrap_or(ready);
            let message = format!("cert-manager has not issued the certificate: {}; {advice}", said(why));
            Verdict::no(Reason::CertificateFailed, message)
        }
        _ => pending(),
    }
}

#[cfg(test)]
mod tests;
