//! Requests of the operator to the API server, by purpose. Pure functions.

use std::collections::BTreeMap;

use testbed::control_plane::AuditEvent;

/// Requests of the operator in a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests(Vec<AuditEvent>);

/// Namespace with the claims of servers on hosts and client ids.
const OPERATOR_NAMESPACE: &str = "mcp-entra-system";

/// Purpose of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Purpose {
    Read,
    Claim,
    Child,
    ServerStatus,
    MappingStatus,
    Event,
    Pod,
    Lease,
}

impl Purpose {
    pub(super) const ALL: [Self; 8] = [
        Self::Read,
        Self::Claim,
        Self::Child,
        Self::ServerStatus,
        Self::MappingStatus,
        Self::Event,
        Self::Pod,
        Self::Lease,
    ];

    /// Name in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Read => "reads",
            Self::Claim => "writes of claims",
            Self::Child => "writes of children",
            Self::ServerStatus => "writes of servers' status",
            Self::MappingStatus => "writes of mappings' status",
            Self::Event => "events",
            Self::Pod => "nudges of pods",
            Self::Lease => "writes of the lease",
        }
    }

    fn of(request: &AuditEvent) -> Self {
        match (request.resource.as_str(), request.subresource.as_deref()) {
            _ if !request.is_write() => Self::Read,
            ("mcpservers", Some("status")) => Self::ServerStatus,
            ("mcprolemappings" | "clustermcprolemappings", Some("status")) => Self::MappingStatus,
            ("events", None) => Self::Event,
            ("pods", None) => Self::Pod,
            ("leases", None) => Self::Lease,
            ("configmaps", None) if request.namespace.as_deref() == Some(OPERATOR_NAMESPACE) => Self::Claim,
            _ => Self::Child,
        }
    }
}

impl Requests {
    pub(super) fn new(requests: Vec<AuditEvent>) -> Self {
        Self(requests)
    }

    /// Returns the number of requests with a purpose.
    pub(super) fn count(&self, purpose: Purpose) -> usize {
        self.of(purpose).count()
    }

    /// Returns the number of writes, without those of the lease.
    pub(super) fn writes(&self) -> usize {
        self.0.iter().filter(|request| request.is_write() && Purpose::of(request) != Purpose::Lease).count()
    }

    /// Returns the number of objects by number of writes, for a purpose.
    pub(super) fn objects_by_writes(&self, purpose: Purpose) -> BTreeMap<usize, usize> {
        let mut writes = BTreeMap::<_, usize>::new();
        for request in self.of(purpose) {
            *writes.entry((&request.resource, &request.namespace, &request.name)).or_default() += 1;
        }
        let mut objects = BTreeMap::new();
        writes.into_values().for_each(|count| *objects.entry(count).or_default() += 1);
        objects
    }

    /// Returns every kind of request of a purpose, the most frequent first: verb, resource and answer.
    pub(super) fn kinds(&self, purpose: Purpose) -> Vec<(String, usize)> {
        let mut kinds = BTreeMap::<_, usize>::new();
        for AuditEvent { verb, resource, code, .. } in self.of(purpose) {
            *kinds.entry(format!("{verb} {resource} {code}")).or_default() += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        kinds
    }

    fn of(&self, purpose: Purpose) -> impl Iterator<Item = &AuditEvent> {
        self.0.iter().filter(move |request| Purpose::of(request) == purpose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mk_request(verb: &str, resource: &str, subresource: Option<&str>, name: &str) -> AuditEvent {
        AuditEvent {
            verb: verb.to_owned(),
            group: String::new(),
            resource: resource.to_owned(),
            subresource: subresource.map(str::to_owned),
            namespace: Some("team".to_owned()),
            name: Some(name.to_owned()),
            code: 200,
            user: String::new(),
        }
    }

    #[test]
    fn the_lease_does_not_count_as_a_write_and_every_other_change_does() {
        let write = |resource, subresource| Requests(vec![mk_request("patch", resource, subresource, "a")]).writes();
        assert_eq!(write("leases", None), 0);
        assert_eq!(write("mcpservers", Some("status")), 1);
        assert_eq!(write("unheard-of", None), 1);
        assert_eq!(Requests(vec![mk_request("get", "configmaps", None, "a")]).writes(), 0);
    }

    #[test]
    fn one_object_with_two_writes_differs_from_two_objects_with_one_write() {
        let mk = |names: &[&str]| {
            Requests(names.iter().map(|name| mk_request("patch", "services", None, name)).collect())
                .objects_by_writes(Purpose::Child)
        };
        assert_eq!(mk(&["a", "b"]), BTreeMap::from([(1, 2)]));
        assert_eq!(mk(&["a", "a"]), BTreeMap::from([(2, 1)]));
    }
}
