//! Listeners of our Gateways and of the ListenerSets that they allow, and the problems of each.

use std::collections::HashSet;
use std::sync::Arc;

use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use rustls::sign::CertifiedKey;

use super::kinds::{GROUP, Gateway, ListenerSet, ListenerSpec, Namespaces, ObjectKind};
use super::{CONTROLLER, Objects};
use crate::controller::Problem;
use crate::edge::certificates;
use crate::edge::table::Host;

/// Gateway or ListenerSet of our class.
#[derive(Clone)]
pub(super) enum Owner {
    Gateway(Arc<Gateway>),
    ListenerSet(Arc<ListenerSet>),
}

/// Gateway or ListenerSet with its listeners.
pub(super) struct Parent {
    pub(super) owner: Owner,
    /// Reason why a ListenerSet is refused. It then has no listeners.
    pub(super) refused: Option<Problem>,
    pub(super) listeners: Vec<Listener>,
}

/// Listener, with its problems.
pub(super) struct Listener {
    pub(super) spec: ListenerSpec,
    pub(super) accepted: Result<(), Problem>,
    pub(super) conflict: Option<Problem>,
    pub(super) certificate: Result<Arc<CertifiedKey>, Problem>,
}

impl Owner {
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Gateway(_) => "Gateway",
            Self::ListenerSet(_) => "ListenerSet",
        }
    }

    pub(super) fn namespace(&self) -> String {
        match self {
            Self::Gateway(gateway) => gateway.namespace(),
            Self::ListenerSet(set) => set.namespace(),
        }
        .unwrap_or_default()
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Gateway(gateway) => gateway.name_any(),
            Self::ListenerSet(set) => set.name_any(),
        }
    }
}

impl Listener {
    pub(super) fn host(&self) -> Host {
        Host::of_gateway(self.spec.hostname.as_deref())
    }

    /// Returns the problem that prevents serving, if any.
    pub(super) fn problem(&self) -> Option<&Problem> {
        self.accepted.as_ref().err().or(self.conflict.as_ref()).or(self.certificate.as_ref().err())
    }

    /// Returns whether `allowedRoutes` accepts HTTPRoutes of this namespace.
    pub(super) fn allows(&self, own: &str, namespace: &str, objects: &Objects) -> bool {
        let allowed = self.spec.allowed_routes.clone().unwrap_or_default();
        let http_route =
            |kind: &ObjectKind| kind.kind == "HTTPRoute" && kind.group.as_deref().unwrap_or(GROUP) == GROUP;
        allowed.kinds.is_none_or(|kinds| kinds.iter().any(http_route))
            && are_allowed(allowed.namespaces.as_ref(), "Same", own, namespace, objects)
    }
}

/// Returns every Gateway of our classes, and every ListenerSet that names one of them, in order of precedence.
pub(super) fn parents(objects: &Objects) -> Vec<Parent> {
    let classes: HashSet<String> = objects
        .classes
        .iter()
        .filter(|class| class.spec.controller_name == CONTROLLER)
        .map(|class| class.name_any())
        .collect();
    let mut gateways = objects.gateways.clone();
    gateways.retain(|gateway| classes.contains(&gateway.spec.gateway_class_name));
    gateways.sort_by_key(|gateway| (gateway.namespace(), gateway.name_any()));
    let mut sets = objects.sets.clone();
    sets.sort_by_key(|set| (set.creation_timestamp(), set.namespace(), set.name_any()));
    gateways.iter().flat_map(|gateway| with_sets(gateway, &sets, objects)).collect()
}

fn with_sets(gateway: &Arc<Gateway>, sets: &[Arc<ListenerSet>], objects: &Objects) -> Vec<Parent> {
    let (namespace, name) = (gateway.namespace().unwrap_or_default(), gateway.name_any());
    let mut taken = HashSet::new();
    let own = Owner::Gateway(Arc::clone(gateway));
    let listeners = checked(&namespace, &gateway.spec.listeners, &mut taken, objects);
    let mut found = vec![Parent { owner: own, refused: None, listeners }];
    for set in sets {
        let own = set.namespace().unwrap_or_default();
        let parent = &set.spec.parent_ref;
        if !(parent.is(GROUP, "Gateway", (GROUP, "Gateway"))
            && parent.name == name
            && parent.namespace(&own) == namespace)
        {
            continue;
        }
        let allowed = gateway.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
        let (refused, listeners) = if are_allowed(allowed, "None", &namespace, &own, objects) {
            (None, checked(&own, &set.spec.listeners, &mut taken, objects))
        } else {
            let why = format!(
                "Gateway {namespace}/{name} allows no ListenerSets of namespace {own}: see its spec.allowedListeners"
            );
            (Some(("NotAllowed", why)), Vec::new())
        };
        found.push(Parent { owner: Owner::ListenerSet(Arc::clone(set)), refused, listeners });
    }
    found
}

/// Returns whether an object in `namespace` may attach to an object in `own`.
fn are_allowed(allowed: Option<&Namespaces>, default: &str, own: &str, namespace: &str, objects: &Objects) -> bool {
    let from = allowed.and_then(|allowed| allowed.from.as_deref()).unwrap_or(default);
    match from {
        "All" => true,
        "Same" => own == namespace,
        "Selector" => {
            let selector = allowed.and_then(|allowed| allowed.selector.clone());
            let known = objects.namespaces.iter().find(|known| known.name_any() == namespace);
            match (selector.map(Selector::try_from), known) {
                (Some(Ok(selector)), Some(known)) => selector.matches(known.labels()),
                _ => false,
            }
        }
        _ => false,
    }
}

fn checked(
    namespace: &str,
    specs: &[ListenerSpec],
    taken: &mut HashSet<(u16, Option<String>)>,
    objects: &Objects,
) -> Vec<Listener> {
    let mut found = Vec::new();
    for spec in specs {
        let accepted = match spec.protocol.as_str() {
            "HTTPS" => Ok(()),
            other => Err(("UnsupportedProtocol", format!("the testbed's edge only serves HTTPS, not {other}"))),
        };
        let hostname = spec.hostname.as_ref().map(|hostname| hostname.to_ascii_lowercase());
        let is_first = accepted.is_err() || taken.insert((spec.port, hostname));
        let conflict = (!is_first).then(|| {
            ("HostnameConflict", "another listener of this Gateway has the same port and hostname".to_owned())
        });
        // A listener without TLS needs no certificate.
        let certificate = certificate(namespace, spec, objects);
        found.push(Listener { spec: spec.clone(), accepted, conflict, certificate });
    }
    found
}

fn certificate(namespace: &str, spec: &ListenerSpec, objects: &Objects) -> Result<Arc<CertifiedKey>, Problem> {
    let reference = spec.tls.iter().flat_map(|tls| &tls.certificate_refs).next();
    let invalid = |why: String| ("InvalidCertificateRef", why);
    let reference = reference.ok_or_else(|| invalid("the listener names no certificate".to_owned()))?;
    if !reference.is("", "Secret", ("", "Secret")) {
        return Err(invalid("a certificateRef must name a Secret".to_owned()));
    }
    let (theirs, name) = (reference.namespace(namespace), &reference.name);
    if theirs != namespace {
        let why =
            format!("Secret {theirs}/{name} is in another namespace, and the testbed's edge ignores ReferenceGrants");
        return Err(("RefNotPermitted", why));
    }
    certificates::find(namespace, name, &objects.secrets).map_err(invalid)
}
