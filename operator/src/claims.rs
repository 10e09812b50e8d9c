//! Claims: which of several servers keeps a host, a path on it, or a client id that they name. Pure.
//!
//! The older server keeps what a younger one names, too, whether or not the older is served: so two servers decide it
//! between them, and what becomes of a third changes nothing.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use mcp_entra_crds::{Entra, Exposure, McpServer};

use crate::{conditions::Reason, owner::Owner};

/// What a server holds that has lost nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Whether it is the oldest server of its host: the metadata at the host's root (RFC 9728 §3.1) is its own.
    pub(crate) root: bool,
    /// The older server whose listener serves this host at the same Gateway: a Gateway takes one listener a host.
    pub(crate) listener_of: Option<Owner>,
}

/// What an older server keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Host,
    Path,
    ClientId,
}

impl Lost {
    pub(crate) fn reason(self) -> Reason {
        match self {
            Self::Host => Reason::HostTaken,
            Self::Path => Reason::PathTaken,
            Self::ClientId => Reason::ClientIdTaken,
        }
    }

    /// What to do next. Of the other server it says nothing: that may be another team's.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Host => {
                "spec.exposure.host is taken; only the policy is applied, and nothing is exposed: name another host"
            }
            Self::Path => {
                "spec.exposure.path, or one above or below it, is taken on this host; only the policy is applied, and nothing is exposed: name another path or another host"
            }
            Self::ClientId => {
                "spec.entra.clientId is taken, for one of spec.entra.requiredScopes or more, so each of two servers would accept the other's tokens; only the policy is applied, and nothing is exposed: name another app registration, or scopes that are required nowhere else"
            }
        }
    }
}

/// Whether a server holds what it claims, beside all servers.
pub(crate) fn held<'a>(
    server: &McpServer,
    all: impl IntoIterator<Item = &'a McpServer, IntoIter: Clone>,
) -> Result<Held, Lost> {
    let all = all.into_iter();
    let on_host = lost(server, all.clone())?;
    let mut carriers = on_host.iter().filter(|other| share_listener(server, other));
    let carrier = carriers.find(|other| lost(other, all.clone()).is_ok());
    Ok(Held { root: on_host.is_empty(), listener_of: carrier.and_then(|carrier| Owner::of(carrier).ok()) })
}

/// What a server has lost, or the older servers beside it on its host, the oldest first.
fn lost<'a>(server: &McpServer, all: impl Iterator<Item = &'a McpServer>) -> Result<Vec<&'a McpServer>, Lost> {
    let mut older: Vec<&McpServer> =
        all.filter(|other| are_rivals(server, other)).filter(|other| is_older(other, server)).collect();
    older.sort_by_key(|other| age(other));
    let on_host: Vec<&McpServer> = older.iter().copied().filter(|other| share_host(server, other)).collect();
    // The owner is the oldest: where it is of this namespace, younger servers of others have lost the host.
    if on_host.first().is_some_and(|owner| owner.namespace() != server.namespace()) {
        return Err(Lost::Host);
    }
    if on_host.iter().any(|other| other.namespace() == server.namespace() && share_path(server, other)) {
        return Err(Lost::Path);
    }
    if older.iter().any(|other| share_client_id(server, other) && share_scope(server, other)) {
        return Err(Lost::ClientId);
    }
    Ok(on_host)
}

/// Whether both, beside one another on a host, bring a listener of their own to one Gateway.
fn share_listener(one: &McpServer, other: &McpServer) -> bool {
    let gateway = |server: &McpServer| {
        let exposure = server.spec.exposure.as_ref()?;
        let own = exposure.tls.terminated_by_gateway.is_none();
        let parent = exposure.gateway.as_ref().filter(|_| own)?.parent_refs.first()?;
        Some((parent.namespace.clone().or_else(|| server.namespace()), parent.name.clone()))
    };
    one.namespace() == other.namespace() && gateway(one).is_some() && gateway(one) == gateway(other)
}

/// Whether what becomes of the one may depend on the other.
pub(crate) fn are_rivals(one: &McpServer, other: &McpServer) -> bool {
    share_host(one, other) || share_client_id(one, other)
}

/// Whether a server was there first, and still is.
fn is_older(one: &McpServer, other: &McpServer) -> bool {
    one.metadata.deletion_timestamp.is_none() && age(one) < age(other)
}

/// Orders servers, the oldest first.
fn age(server: &McpServer) -> (Option<Time>, Option<String>, String) {
    (server.creation_timestamp(), server.namespace(), server.name_any())
}

fn exposures<'a>(one: &'a McpServer, other: &'a McpServer) -> Option<(&'a Exposure, &'a Exposure)> {
    one.spec.exposure.as_ref().zip(other.spec.exposure.as_ref())
}

fn share_host(one: &McpServer, other: &McpServer) -> bool {
    exposures(one, other).is_some_and(|(one, other)| one.host == other.host)
}

/// Whether one path is the other or lies below it, by whole elements, as an Ingress matches prefixes.
fn share_path(one: &McpServer, other: &McpServer) -> bool {
    exposures(one, other)
        .is_some_and(|(one, other)| one.path.split('/').zip(other.path.split('/')).all(|(one, other)| one == other))
}

/// Whether tokens for the one could be taken for tokens for the other.
fn share_client_id(one: &McpServer, other: &McpServer) -> bool {
    let (one, other) = (&one.spec.entra, &other.spec.entra);
    one.tenant_id == other.tenant_id && audiences(one).any(|audience| audiences(other).any(|theirs| theirs == audience))
}

/// What a token may be for to be accepted. That `api://` stands before it or not makes no difference.
fn audiences(entra: &Entra) -> impl Iterator<Item = &str> {
    let all = std::iter::once(&entra.client_id).chain(&entra.audiences);
    all.map(|audience| audience.strip_prefix("api://").unwrap_or(audience))
}

fn share_scope(one: &McpServer, other: &McpServer) -> bool {
    one.spec.entra.required_scopes.iter().any(|scope| other.spec.entra.required_scopes.contains(scope))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::validate::tests::mk_server;

    /// A server created in that second, with a host and client id of its own until a test says otherwise.
    fn mk(second: i64, namespace: &str, name: &str, change: impl FnOnce(&mut McpServer)) -> McpServer {
        let mut server = mk_server();
        server.metadata.creation_timestamp = Some(Time(Timestamp::from_second(second).unwrap()));
        server.metadata.namespace = Some(namespace.into());
        server.metadata.name = Some(name.into());
        server.spec.exposure.as_mut().unwrap().host = format!("{name}.{namespace}.example");
        server.spec.entra.client_id = format!("{namespace}/{name}");
        change(&mut server);
        server
    }

    fn on(host: &str, path: &str) -> impl FnOnce(&mut McpServer) {
        move |server| {
            let exposure = server.spec.exposure.as_mut().unwrap();
            (exposure.host, exposure.path) = (host.into(), path.into());
        }
    }

    fn of_app(scopes: &[&str]) -> impl FnOnce(&mut McpServer) {
        move |server| {
            server.spec.entra.client_id = "app".into();
            server.spec.entra.required_scopes = scopes.iter().map(|scope| (*scope).to_owned()).collect();
        }
    }

    /// What becomes of each of the servers, in whatever order they are shown.
    fn all_held<const N: usize>(servers: [McpServer; N]) -> [Result<Held, Lost>; N] {
        let forwards = servers.each_ref().map(|server| held(server, &servers));
        assert_eq!(forwards, servers.each_ref().map(|server| held(server, servers.iter().rev())));
        forwards
    }

    const ROOT: Result<Held, Lost> = Ok(Held { root: true, listener_of: None });
    const BESIDE: Result<Held, Lost> = Ok(Held { root: false, listener_of: None });

    #[test]
    fn servers_that_share_nothing_hold_what_they_claim() {
        assert_eq!(all_held([mk(1, "a", "one", |_| {}), mk(2, "b", "two", |_| {})]), [ROOT, ROOT]);
    }

    #[test]
    fn a_host_belongs_to_the_namespace_of_its_oldest_server_whatever_the_path() {
        let servers = [
            mk(3, "a", "late", on("h", "/late")),
            mk(1, "b", "first", on("h", "/mcp")),
            mk(2, "b", "next", on("h", "/n")),
        ];
        assert_eq!(all_held(servers), [Err(Lost::Host), ROOT, BESIDE]);
        // One that lost the host long ago takes no path from those that own it.
        let servers = [
            mk(1, "b", "first", on("h", "/mcp")),
            mk(2, "a", "lost", on("h", "/x")),
            mk(3, "b", "last", on("h", "/x")),
        ];
        assert_eq!(all_held(servers), [ROOT, Err(Lost::Host), BESIDE]);
    }

    #[test]
    fn within_a_namespace_the_older_keeps_a_path_and_what_lies_above_and_below_it() {
        for (older, younger, expected) in [
            ("/mcp", "/mcp", Err(Lost::Path)),
            ("/mcp", "/mcp/x", Err(Lost::Path)),
            ("/mcp/x", "/mcp", Err(Lost::Path)),
            ("/mcp", "/mcpx", BESIDE),
            ("/mcp/x", "/mcp/y", BESIDE),
        ] {
            let servers = [mk(1, "a", "older", on("h", older)), mk(2, "a", "younger", on("h", younger))];
            assert_eq!(all_held(servers), [ROOT, expected], "{older} {younger}");
        }
    }

    fn at_gateway(host: &str, path: &str, gateway: &str) -> impl FnOnce(&mut McpServer) {
        let exposure = serde_json::json!({"host": host, "path": path, "tls": {"issuerRef": {"name": "ca"}},
            "gateway": {"parentRefs": [{"name": gateway, "namespace": "infra"}]}});
        move |server| server.spec.exposure = Some(serde_json::from_value(exposure).unwrap())
    }

    #[test]
    fn a_younger_server_of_a_host_comes_in_by_the_listener_of_the_oldest_that_has_one_at_the_same_gateway() {
        let carrier = |servers: [McpServer; 3]| {
            let [_, _, last] = all_held(servers);
            last.unwrap().listener_of.map(|owner| owner.name)
        };
        let last = || mk(3, "a", "last", at_gateway("h", "/last", "shared"));
        let first = mk(1, "a", "first", at_gateway("h", "/first", "shared"));
        let next = mk(2, "a", "next", at_gateway("h", "/next", "shared"));
        assert_eq!(carrier([first.clone(), next.clone(), last()]).as_deref(), Some("first"));
        // One that is not served itself has no listener to share.
        let mut lost = next;
        lost.spec.exposure.as_mut().unwrap().path = "/first/below".into();
        assert_eq!(carrier([mk(1, "a", "first", on("h", "/first")), lost, last()]), None);
        let elsewhere = mk(1, "a", "first", at_gateway("h", "/first", "another"));
        assert_eq!(carrier([elsewhere, mk(2, "a", "next", at_gateway("i", "/next", "shared")), last()]), None);
    }

    #[test]
    fn of_two_that_are_equally_old_namespace_and_then_name_decide() {
        let servers = [mk(1, "b", "a", on("h", "/mcp")), mk(1, "a", "b", on("h", "/mcp"))];
        assert_eq!(all_held(servers), [Err(Lost::Host), ROOT]);
        let servers = [mk(1, "a", "b", on("h", "/mcp")), mk(1, "a", "a", on("h", "/mcp"))];
        assert_eq!(all_held(servers), [Err(Lost::Path), ROOT]);
    }

    #[test]
    fn a_client_id_is_shared_only_between_servers_that_require_disjoint_scopes() {
        let shared = |older: &[&str], younger: &[&str]| {
            all_held([mk(1, "a", "older", of_app(older)), mk(2, "b", "younger", of_app(younger))])
        };
        assert_eq!(shared(&["read", "write"], &["admin", "write"]), [ROOT, Err(Lost::ClientId)]);
        assert_eq!(shared(&["read"], &["write"]), [ROOT, ROOT]);
        let mut elsewhere = mk(2, "b", "younger", of_app(&["read"]));
        elsewhere.spec.entra.tenant_id = "another".into();
        assert_eq!(all_held([mk(1, "a", "older", of_app(&["read"])), elsewhere]), [ROOT, ROOT]);
    }

    #[test]
    fn an_audience_that_is_anothers_client_id_is_shared_like_a_client_id() {
        let mut own = mk(2, "b", "younger", of_app(&["read"]));
        own.spec.entra.client_id = "other".into();
        for audience in ["app", "api://app"] {
            own.spec.entra.audiences = vec![audience.into()];
            assert_eq!(
                all_held([mk(1, "a", "older", of_app(&["read"])), own.clone()])[1],
                Err(Lost::ClientId),
                "{audience}"
            );
        }
        own.spec.entra.audiences = vec!["api://another".into()];
        assert_eq!(all_held([mk(1, "a", "older", of_app(&["read"])), own])[1], ROOT);
    }

    #[test]
    fn a_server_that_is_not_exposed_claims_no_host_and_yet_a_client_id() {
        let hidden = |server: &mut McpServer| server.spec.exposure = None;
        let mut older = mk(1, "a", "older", of_app(&["read"]));
        hidden(&mut older);
        let younger = mk(2, "b", "younger", of_app(&["read"]));
        assert_eq!(all_held([older, younger])[1], Err(Lost::ClientId));
        let [_, younger] = all_held([mk(1, "a", "older", hidden), mk(2, "b", "younger", on("h", "/mcp"))]);
        assert_eq!(younger, ROOT);
    }

    #[test]
    fn a_server_that_is_being_deleted_claims_nothing() {
        let mut leaving = mk(1, "a", "older", on("h", "/mcp"));
        leaving.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert_eq!(all_held([leaving, mk(2, "b", "younger", on("h", "/mcp"))])[1], ROOT);
    }

    #[test]
    fn rivals_share_a_host_or_a_client_id() {
        let one = mk(1, "a", "one", on("h", "/mcp"));
        assert!(are_rivals(&one, &mk(2, "b", "two", on("h", "/other"))));
        assert!(are_rivals(&mk(1, "a", "one", of_app(&["read"])), &mk(2, "b", "two", of_app(&["write"]))));
        assert!(!are_rivals(&one, &mk(2, "b", "two", on("i", "/mcp"))));
    }
}
