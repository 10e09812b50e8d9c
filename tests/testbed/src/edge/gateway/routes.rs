//! Attachments of HTTPRoutes, and the resulting rules: a pure function of the cluster's objects.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::networking::v1::{IngressServiceBackend, ServiceBackendPort};
use kube::ResourceExt;

use super::Objects;
use super::kinds::{BackendRef, GROUP, HTTPRoute, ParentRef, RouteMatch, RouteRule};
use super::listeners::{Listener, Parent};
use crate::controller::Problem;
use crate::edge::ingresses::{port_name, targets};
use crate::edge::table::{Backend, Host, Path, Rule};

/// Route at one of its parents.
pub(super) struct Attachment {
    pub(super) route: Arc<HTTPRoute>,
    pub(super) parent_ref: ParentRef,
    pub(super) accepted: Result<(), Problem>,
    pub(super) resolved: Result<(), Problem>,
    /// Indices of the parent, and of its listeners that the route attaches to.
    pub(super) parent: usize,
    pub(super) listeners: Vec<usize>,
}

/// Returns every attachment to one of `parents`, accepted or not, with older routes first.
pub(super) fn attachments(parents: &[Parent], objects: &Objects) -> Vec<Attachment> {
    let mut routes = objects.routes.clone();
    routes.sort_by_key(|route| (route.creation_timestamp(), route.namespace(), route.name_any()));
    let mut found = Vec::new();
    for route in routes {
        let own = route.namespace().unwrap_or_default();
        let resolved = resolved(&route, &own, objects);
        for parent_ref in &route.spec.parent_refs {
            let named = parents.iter().position(|parent| is_named(parent, parent_ref, &own));
            let Some((position, parent)) = named.and_then(|at| Some((at, parents.get(at)?))) else { continue };
            let attached = attach(&route, &own, parent_ref, parent, objects);
            let (accepted, listeners) = match attached {
                Ok(listeners) => (Ok(()), listeners),
                Err(problem) => (Err(problem), Vec::new()),
            };
            found.push(Attachment {
                route: Arc::clone(&route),
                parent_ref: parent_ref.clone(),
                accepted,
                resolved: resolved.clone(),
                parent: position,
                listeners,
            });
        }
    }
    found
}

fn is_named(parent: &Parent, reference: &ParentRef, own: &str) -> bool {
    let object = &reference.object;
    let owner = &parent.owner;
    object.is(GROUP, owner.kind(), (GROUP, "Gateway"))
        && object.name == owner.name()
        && object.namespace(own) == owner.namespace()
}

/// Returns the listeners that accept the route, or the reason why none does.
fn attach(
    route: &HTTPRoute,
    own: &str,
    reference: &ParentRef,
    parent: &Parent,
    objects: &Objects,
) -> Result<Vec<usize>, Problem> {
    if let Some(what) = unsupported(route) {
        return Err(("UnsupportedValue", format!("the testbed's edge does not support {what}")));
    }
    let theirs = parent.owner.namespace();
    let whose = format!("{} {theirs}/{}", parent.owner.kind(), parent.owner.name());
    let mut left: Vec<(usize, &Listener)> = parent.listeners.iter().enumerate().collect();
    left.retain(|(_, listener)| {
        reference.section_name.as_ref().is_none_or(|name| *name == listener.spec.name)
            && reference.port.is_none_or(|port| port == listener.spec.port)
    });
    if left.is_empty() {
        return Err(("NoMatchingParent", format!("this parentRef names no listener of {whose}")));
    }
    left.retain(|(_, listener)| listener.allows(&theirs, own, objects));
    if left.is_empty() {
        let why = format!("no listener of {whose} allows HTTPRoutes of namespace {own}: see its allowedRoutes");
        return Err(("NotAllowedByListeners", why));
    }
    left.retain(|(_, listener)| !hosts(listener, route).is_empty());
    if left.is_empty() {
        return Err(("NoMatchingListenerHostname", format!("no listener of {whose} has any of the route's hostnames")));
    }
    Ok(left.into_iter().map(|(position, _)| position).collect())
}

fn hosts(listener: &Listener, route: &HTTPRoute) -> Vec<Host> {
    let theirs = listener.host();
    if route.spec.hostnames.is_empty() {
        return vec![theirs];
    }
    let ours = route.spec.hostnames.iter().map(|hostname| Host::of_gateway(Some(hostname)));
    ours.filter_map(|ours| theirs.intersection(&ours)).collect()
}

fn unsupported(route: &HTTPRoute) -> Option<&'static str> {
    for rule in &route.spec.rules {
        if !rule.filters.is_empty() {
            return Some("filters");
        }
        for found in &rule.matches {
            if found.method.is_some() || !found.headers.is_empty() || !found.query_params.is_empty() {
                return Some("matches by method, headers or query parameters");
            }
            if found.path.as_ref().is_some_and(|path| path.kind.as_deref() == Some("RegularExpression")) {
                return Some("paths as regular expressions");
            }
        }
    }
    None
}

fn resolved(route: &HTTPRoute, own: &str, objects: &Objects) -> Result<(), Problem> {
    let mut references = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    references.try_for_each(|reference| service(reference, own, objects).map(drop))
}

/// Returns the Service of a reference, which must be in the route's namespace.
fn service(reference: &BackendRef, own: &str, objects: &Objects) -> Result<IngressServiceBackend, Problem> {
    let object = &reference.object;
    if !object.is("", "Service", ("", "Service")) {
        return Err(("InvalidKind", format!("backend {} is not a Service", object.name)));
    }
    let (theirs, name) = (object.namespace(own), &object.name);
    if theirs != own {
        let why =
            format!("Service {theirs}/{name} is in another namespace, and the testbed's edge ignores ReferenceGrants");
        return Err(("RefNotPermitted", why));
    }
    let mut services = objects.services.iter();
    let service =
        services.find(|service| service.namespace().as_deref() == Some(own) && service.name_any() == object.name);
    let service = service.ok_or_else(|| ("BackendNotFound", format!("there is no Service {own}/{name}")))?;
    let port = ServiceBackendPort { name: None, number: reference.port };
    let backend = IngressServiceBackend { name: name.clone(), port: Some(port) };
    match port_name(service, &backend) {
        Some(_) => Ok(backend),
        None => {
            let port = reference.port.map(|port| port.to_string()).unwrap_or_default();
            Err(("BackendNotFound", format!("Service {own}/{name} has no port {port:?}")))
        }
    }
}

/// Returns the rules of accepted routes at working listeners.
pub(super) fn rules(attachments: &[Attachment], parents: &[Parent], objects: &Objects) -> Vec<Rule> {
    let mut found = Vec::new();
    for attachment in attachments {
        let listeners = attachment.listeners.iter().filter_map(|at| parents.get(attachment.parent)?.listeners.get(*at));
        for listener in listeners.filter(|listener| listener.problem().is_none()) {
            for host in hosts(listener, &attachment.route) {
                found.extend(rules_of(&attachment.route, &host, objects));
            }
        }
    }
    found
}

fn rules_of(route: &HTTPRoute, host: &Host, objects: &Objects) -> Vec<Rule> {
    let own = route.namespace().unwrap_or_default();
    let everything = [RouteMatch::default()];
    let mut found = Vec::new();
    for rule in &route.spec.rules {
        let matches = if rule.matches.is_empty() { &everything[..] } else { &rule.matches };
        for matched in matches {
            let path = matched.path.as_ref();
            let value = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
            let is_exact = path.and_then(|path| path.kind.as_deref()) == Some("Exact");
            let backend = backend(route, rule, &own, objects);
            found.push(Rule { host: host.clone(), path: Path::new(value, is_exact), backend });
        }
    }
    found
}

/// Returns the target of a rule: the ready endpoints of all its Services with a weight.
fn backend(route: &HTTPRoute, rule: &RouteRule, own: &str, objects: &Objects) -> Backend {
    let weighed = rule.backend_refs.iter().filter(|reference| reference.weight != Some(0));
    let services: Vec<_> = weighed.filter_map(|reference| service(reference, own, objects).ok()).collect();
    let described = services.first().map(|service| {
        let port = service.port.as_ref().and_then(|port| port.number).unwrap_or_default();
        format!("{own}/{}:{port}", service.name)
    });
    Backend {
        route: format!("HTTPRoute {own}/{}", route.name_any()),
        service: described,
        targets: services
            .iter()
            .flat_map(|service| targets(own, service, &objects.services, &objects.slices))
            .collect(),
        limit: rule.timeouts.as_ref().and_then(|timeouts| duration(timeouts.request.as_deref()?)),
    }
}

/// Parses a duration of Gateway API, such as `1h30m` or `500ms`. Zero means no limit and results in `None`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while let Some(end) = rest.find(|letter: char| !letter.is_ascii_digit()) {
        let (number, unit) = rest.split_at(end);
        let number: u64 = number.parse().ok()?;
        let length = unit.find(|letter: char| letter.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, next) = unit.split_at(length);
        total += match unit {
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return None,
        };
        rest = next;
    }
    (!total.is_zero()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_and_zero_is_no_limit() {
        assert_eq!(duration("1h30m"), Some(Duration::from_secs(5400)));
        assert_eq!(duration("1s500ms"), Some(Duration::from_millis(1500)));
        for none in ["0s", "0h0ms", "", "soon"] {
            assert_eq!(duration(none), None, "{none:?}");
        }
    }
}
