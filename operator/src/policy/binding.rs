//! Bindings of mappings to servers. Mappings of both kinds are treated alike. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use kube::core::{Selector, SelectorExt};
use mcp_entra_crds::{
    ClusterMcpRoleMapping, ClusterMcpRoleMappingSpec, Deny, Entra, Grant, McpRoleMapping, McpRoleMappingStatus,
    McpServer, ServerSelection,
};
use mcp_entra_policy::{MappingReference, Registration};

use crate::policy::revocation::{compromised_keys, revoke_sessions_before};

/// Labels of an object.
pub(crate) type Labels = BTreeMap<String, String>;

/// A mapping of either kind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping<'a> {
    pub(crate) metadata: &'a ObjectMeta,
    /// The selected namespaces; none means the mapping's own namespace.
    namespaces: Option<&'a LabelSelector>,
    pub(crate) servers: &'a ServerSelection,
    pub(crate) grants: &'a [Grant],
    pub(crate) deny: &'a [Deny],
    pub(crate) status: Option<&'a McpRoleMappingStatus>,
}

impl<'a> From<&'a McpRoleMapping> for Mapping<'a> {
    fn from(mapping: &'a McpRoleMapping) -> Self {
        let McpRoleMapping { metadata, spec, status } = mapping;
        let (servers, grants) = (&spec.servers, &spec.grants);
        Self { metadata, namespaces: None, servers, grants, deny: &[], status: status.as_ref() }
    }
}

impl<'a> From<&'a ClusterMcpRoleMapping> for Mapping<'a> {
    fn from(mapping: &'a ClusterMcpRoleMapping) -> Self {
        let ClusterMcpRoleMapping { metadata, spec, status } = mapping;
        let (servers, grants, deny) = (&spec.servers, &spec.grants, &spec.deny);
        Self { metadata, namespaces: Some(&spec.namespace_selector), servers, grants, deny, status: status.as_ref() }
    }
}

/// Returns a cluster mapping that stands for an unreadable one. The worst case is assumed: it denies everything to
/// everyone.
pub(crate) fn unreadable_as_deny(metadata: ObjectMeta) -> ClusterMcpRoleMapping {
    let all = || vec!["*".to_owned()];
    let deny = Deny { name: "unreadable".to_owned(), to: None, tools: all(), prompts: all(), resources: all() };
    let servers = ServerSelection { selector: Some(LabelSelector::default()), ..ServerSelection::default() };
    let spec = ClusterMcpRoleMappingSpec {
        namespace_selector: LabelSelector::default(),
        servers,
        grants: Vec::new(),
        deny: vec![deny],
    };
    ClusterMcpRoleMapping { metadata, spec, status: None }
}

/// The fields of a server that mappings select by.
#[derive(Clone, Debug)]
pub(crate) struct Target<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    labels: &'a Labels,
    /// The Entra settings, which decide whose tokens are accepted; none if the server is unreadable.
    entra: Option<&'a Entra>,
    /// The labels of the namespace; none as long as they are unknown.
    namespace_labels: Option<&'a Labels>,
    /// Seconds since 1970. Sessions that began before have ended.
    pub(crate) revoke_sessions_before: Option<i64>,
    /// The last reported compromise of the server's keys.
    pub(crate) compromised_keys: Option<String>,
}

impl<'a> Target<'a> {
    /// Returns the target for a server in a namespace with these labels.
    pub(crate) fn of(server: &'a McpServer, namespace_labels: Option<&'a Labels>) -> Self {
        let target = Self { entra: Some(&server.spec.entra), ..Self::unreadable(&server.metadata, namespace_labels) };
        match server.spec.authorization_server {
            Some(_) => target,
            // An older server rejects a policy with fields that it does not know.
            None => Self { revoke_sessions_before: None, compromised_keys: None, ..target },
        }
    }

    /// Returns the target for a server of which only the metadata is readable.
    pub(crate) fn unreadable(metadata: &'a ObjectMeta, namespace_labels: Option<&'a Labels>) -> Self {
        static NONE: Labels = Labels::new();
        Self {
            namespace: metadata.namespace.as_deref().unwrap_or_default(),
            name: metadata.name.as_deref().unwrap_or_default(),
            labels: metadata.labels.as_ref().unwrap_or(&NONE),
            entra: None,
            namespace_labels,
            // An invalid time ends no session, and a condition reports it.
            revoke_sessions_before: revoke_sessions_before(metadata).unwrap_or_default(),
            compromised_keys: compromised_keys(metadata),
        }
    }
}

/// The answer to whether a mapping binds a server. An unknown answer applies denies but no grants, as for unknown
/// groups of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Bound {
    No,
    Unknown,
    Yes,
}

impl From<bool> for Bound {
    fn from(is_bound: bool) -> Self {
        if is_bound { Self::Yes } else { Self::No }
    }
}

impl<'a> Mapping<'a> {
    /// Returns the mapping with another status.
    pub(crate) fn with_status(self, status: &'a McpRoleMappingStatus) -> Self {
        Self { status: Some(status), ..self }
    }
}

impl Mapping<'_> {
    /// Returns whether the mapping binds the server, as far as that is known. A mapping that is being deleted binds
    /// none.
    ///
    /// Denies bind regardless of the server's app registration. The compiled policy pins them to theirs, and pods may
    /// still accept tokens of a registration that their server no longer names.
    pub(crate) fn binds(&self, server: &Target<'_>) -> Bound {
        if self.metadata.deletion_timestamp.is_some() {
            return Bound::No;
        }
        match self.selects(server).min(self.is_meant_for(server).max(Bound::Unknown)) {
            Bound::Unknown if self.deny.is_empty() => Bound::No,
            bound => bound,
        }
    }

    /// Returns whether the mapping selects the server, by namespace and by name or labels.
    pub(crate) fn selects(&self, server: &Target<'_>) -> Bound {
        let in_namespace = match self.namespaces {
            None => (self.metadata.namespace.as_deref() == Some(server.namespace)).into(),
            Some(selector) => matches(selector, server.namespace_labels),
        };
        let chosen = match (&self.servers.names, &self.servers.selector) {
            (Some(names), _) => names.iter().any(|name| name == server.name).into(),
            (None, Some(selector)) => matches(selector, Some(server.labels)),
            (None, None) => Bound::No,
        };
        in_namespace.min(chosen)
    }

    /// Returns whether the server accepts tokens of the mapping's app registration. It is unknown for an audience that
    /// proves no registration.
    pub(crate) fn is_meant_for(&self, server: &Target<'_>) -> Bound {
        let Some(pinned) = self.registration() else { return Bound::Yes };
        let Some(entra) = server.entra else { return Bound::Unknown };
        let accepted = std::iter::once(&entra.client_id).chain(&entra.audiences);
        let is_pinned = |audience: &String| match Registration::proven_by(audience) {
            Registration::Known(registration) => (registration == pinned).into(),
            Registration::Unknown => Bound::Unknown,
        };
        accepted.map(is_pinned).max().unwrap_or(Bound::No)
    }

    /// Returns the app registration to which the mapping is restricted, if there is one.
    pub(crate) fn registration(&self) -> Option<&str> {
        self.servers.client_id.as_deref()
    }

    /// Returns the mapping's reference for decisions.
    pub(crate) fn reference(&self) -> MappingReference {
        MappingReference { namespace: self.metadata.namespace.clone(), name: self.name().to_owned() }
    }

    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// Returns the mapping's name for messages about a server.
    pub(crate) fn title(&self) -> String {
        match self.metadata.namespace {
            Some(_) => self.name().to_owned(),
            None => format!("ClusterMcpRoleMapping {}", self.name()),
        }
    }

    /// Returns the sort key that puts the oldest mapping first.
    pub(crate) fn age(&self) -> (Option<&Time>, Option<&str>, &str) {
        (self.metadata.creation_timestamp.as_ref(), self.metadata.namespace.as_deref(), self.name())
    }
}

fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> Bound {
    if *selector == LabelSelector::default() {
        return Bound::Yes;
    }
    // The schema admits only selectors that can be used.
    match (Selector::try_from(selector.clone()), labels) {
        (Ok(selector), Some(labels)) => selector.matches(labels).into(),
        _ => Bound::Unknown,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::objects::fixtures::mk_server;

    /// A cluster mapping for the namespaces of a selector.
    pub(crate) fn mk_cluster_mapping(name: &str, namespaces: Value, servers: Value) -> ClusterMcpRoleMapping {
        serde_json::from_value(json!({
            "apiVersion": "mcp-entra.dev/v1alpha1",
            "kind": "ClusterMcpRoleMapping",
            "metadata": {"name": name, "uid": format!("uid-{name}"), "generation": 1},
            "spec": {
                "namespaceSelector": namespaces,
                "servers": servers,
                "deny": [{"name": "no-mail", "tools": ["list_my_messages"]}],
            },
        }))
        .unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn bound(namespaces: Value, servers: Value, namespace_labels: Option<&Labels>) -> Bound {
        let mut server = mk_server();
        server.metadata.labels = Some(labels(&[("team", "a")]));
        Mapping::from(&mk_cluster_mapping("m", namespaces, servers)).binds(&Target::of(&server, namespace_labels))
    }

    #[test]
    fn a_pin_is_unknown_for_a_server_that_cannot_be_read() {
        let server = mk_server();
        let mapping =
            mk_cluster_mapping("m", json!({}), json!({"selector": {}, "clientId": server.spec.entra.client_id}));
        let unreadable = Target::unreadable(&server.metadata, None);
        assert_eq!(Mapping::from(&mapping).binds(&unreadable), Bound::Unknown, "it grants nothing, and denies");
        let mapping = mk_cluster_mapping("m", json!({}), json!({"selector": {}}));
        assert_eq!(Mapping::from(&mapping).binds(&unreadable), Bound::Yes);
    }

    #[test]
    fn a_cluster_mapping_binds_the_chosen_servers_of_the_namespaces_that_its_selector_matches() {
        let production = labels(&[("stage", "production")]);
        let selector = || json!({"matchLabels": {"stage": "production"}});
        let graph = || json!({"names": ["graph"]});
        assert_eq!(bound(selector(), graph(), Some(&production)), Bound::Yes);
        assert_eq!(bound(selector(), graph(), Some(&labels(&[("stage", "test")]))), Bound::No);
        assert_eq!(bound(selector(), json!({"names": ["graphs"]}), Some(&production)), Bound::No);
        assert_eq!(bound(json!({}), graph(), Some(&Labels::new())), Bound::Yes);
        let expression = json!({"matchExpressions": [{"key": "stage", "operator": "NotIn", "values": ["test"]}]});
        assert_eq!(bound(expression.clone(), graph(), Some(&production)), Bound::Yes);
        assert_eq!(bound(expression, graph(), Some(&labels(&[("stage", "test")]))), Bound::No);
    }

    #[test]
    fn a_selection_by_unknown_namespace_labels_is_unknown() {
        assert_eq!(bound(json!({"matchLabels": {"a": "b"}}), json!({"names": ["graph"]}), None), Bound::Unknown);
        assert_eq!(bound(json!({"matchLabels": {"a": "b"}}), json!({"names": ["other"]}), None), Bound::No);
        assert_eq!(bound(json!({}), json!({"names": ["graph"]}), None), Bound::Yes);
    }

    #[test]
    fn servers_are_chosen_by_their_labels_too() {
        let by = |selector: Value| bound(json!({}), json!({ "selector": selector }), None);
        assert_eq!(by(json!({"matchLabels": {"team": "a"}})), Bound::Yes);
        assert_eq!(by(json!({"matchLabels": {"team": "b"}})), Bound::No);
        assert_eq!(by(json!({})), Bound::Yes);
    }

    #[test]
    fn a_pinned_mapping_binds_only_servers_that_accept_tokens_of_its_registration() {
        const OTHER: &str = "77aa0000-0000-0000-0000-000000000000";
        let own = mk_server().spec.entra.client_id;
        let uri = format!("api://{OTHER}");
        let table = [
            (own.as_str(), vec![], Bound::Yes),
            (OTHER, vec![], Bound::No),
            (OTHER, vec![OTHER], Bound::Yes),
            (OTHER, vec![&uri], Bound::Yes),
            (OTHER, vec!["77aa0000-0000-0000-0000-000000000001"], Bound::No),
            (OTHER, vec!["https://graph.mcp.contoso.com/mcp"], Bound::Unknown),
            (OTHER, vec!["https://graph.mcp.contoso.com/mcp", OTHER], Bound::Yes),
        ];
        for (pinned, audiences, meant) in table {
            let mut server = mk_server();
            server.spec.entra.audiences = audiences.iter().map(|audience| (*audience).to_owned()).collect();
            let mut mapping = mk_cluster_mapping("m", json!({}), json!({"names": ["graph"], "clientId": pinned}));
            let binds = |mapping: &ClusterMcpRoleMapping| Mapping::from(mapping).binds(&Target::of(&server, None));
            assert_eq!(Mapping::from(&mapping).is_meant_for(&Target::of(&server, None)), meant, "{audiences:?}");
            // A deny binds in any case: pods may still accept tokens of a former registration.
            assert_eq!(binds(&mapping), meant.max(Bound::Unknown), "{audiences:?}");
            mapping.spec.deny.clear();
            let without_denies = if meant == Bound::Yes { Bound::Yes } else { Bound::No };
            assert_eq!(binds(&mapping), without_denies, "{audiences:?}");
        }
    }

    #[test]
    fn a_mapping_that_is_being_deleted_binds_nothing() {
        let mut mapping = mk_cluster_mapping("m", json!({}), json!({"selector": {}}));
        mapping.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(Mapping::from(&mapping).binds(&Target::of(&mk_server(), None)), Bound::No);
    }
}
