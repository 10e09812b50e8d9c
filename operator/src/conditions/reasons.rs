//! Reasons of conditions: stable words for programs. The table in `docs/conditions.md` is generated from this list.

use std::fmt;

/// Defines the enumeration, and makes its documentation available to the program. Each doc comment begins with the
/// condition types that use the reason.
macro_rules! reasons {
    ($($(#[doc = $line:literal])+ $reason:ident,)+) => {
        /// The reason of a condition: a stable word for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Reason {
            $($(#[doc = $line])+ $reason,)+
        }

        /// All reasons with their documentation.
        #[cfg(test)]
        const ALL: &[(Reason, &str)] = &[$((Reason::$reason, concat!($($line),+))),+];
    };
}

reasons! {
    /// Accepted: the spec is valid and allowed. On a mapping: every server that it names exists.
    Accepted,
    /// Accepted: an address in `spec.entra.endpoints` is not allowed by the operator's `--allowed-authority` or
    /// `--allowed-graph`.
    EndpointsNotAllowed,
    /// Accepted: `spec.entra.trustBundle` is set, but the operator runs without `--allow-trust-bundles`.
    TrustBundleNotAllowed,
    /// Accepted: the ConfigMap of `spec.entra.trustBundle` or of the session store's `caBundle`, or the key in it, does
    /// not exist.
    TrustBundleNotFound,
    /// Accepted: `spec.entra.trustBundle`, or the session store's `caBundle`, holds no certificate.
    TrustBundleInvalid,
    /// Accepted: an entry of `spec.graph.tools` matches no built-in tool.
    ToolNotFound,
    /// Accepted: an entry of `spec.graph.tools` matches only tools whose permissions `spec.graph.scopes` lacks.
    GraphScopeMissing,
    /// Accepted: `spec.image` or `spec.backend.image` is not allowed by the operator's `--allowed-image` or
    /// `--allowed-backend-image`.
    ImageNotAllowed,
    /// Accepted: the resource of `spec.backend.identity.onBehalfOf.scope` is this server's own, or the operator's
    /// `--allowed-backend-resource` does not allow it.
    ResourceNotAllowed,
    /// Accepted: the exposure has no TLS, and nothing is exposed without it.
    TlsRequired,
    /// Accepted: an annotation of `spec.exposure.ingress` is not allowed by the operator's `--allowed-ingress-annotation`.
    AnnotationsNotAllowed,
    /// Accepted: a label or annotation of `spec.podTemplate` is not allowed by the operator's `--allowed-pod-label` or
    /// `--allowed-pod-annotation`.
    PodTemplateNotAllowed,
    /// Accepted: `spec.podTemplate.priorityClassName` is not allowed by the operator's `--allowed-priority-class`.
    PriorityClassNotAllowed,
    /// Accepted: `spec.exposure.host` is not allowed by the operator's `--allowed-host`; nothing is exposed.
    HostNotAllowed,
    /// Accepted: `spec.entra.federation.serviceAccountName` names a ServiceAccount that does not exist.
    ServiceAccountNotFound,
    /// Accepted: the ServiceAccount that `spec.entra.federation` names does not allow this McpServer in its annotation
    /// `mcp-entra.dev/allow-server`.
    ServiceAccountNotAllowed,
    /// Accepted: the ServiceAccount that `spec.entra.federation` names has another client id in its annotation for
    /// azure-workload-identity.
    ServiceAccountMismatch,
    /// Accepted: the server would reject the configuration that is built from the spec.
    InvalidConfiguration,
    /// Accepted, Programmed on a mapping: a server that it names does not exist.
    ServerNotFound,
    /// Programmed, Ready on a mapping: its selector matches no server now; the mapping applies to each server that
    /// appears later.
    NoServers,
    /// Accepted on a mapping: a server that it names does not accept tokens of the app registration in
    /// `spec.servers.clientId`.
    ClientIdMismatch,

    /// Programmed: the children are as built. On a mapping: the policy of every bound server contains it.
    Applied,
    /// Programmed: the children are as built, except for pods that wait for the upgrade of other servers.
    UpgradeWaiting,
    /// Programmed: the children are as built, except for pods that are not upgraded: upgraded pods of another server in
    /// the namespace, or of servers in several namespaces, did not become ready.
    UpgradeHalted,
    /// Programmed: the children are as built, but there is no room for the upgraded pods: no node takes them, or the
    /// namespace's ResourceQuota is used up. The older pods keep serving, and upgrades of other servers continue.
    UpgradeNoRoom,
    /// Programmed: the children are as built, but the upgraded pods do not become ready. The older pods keep serving,
    /// and the namespace's other servers are not upgraded.
    UpgradeFailed,
    /// Programmed, Available: the Deployment is paused, so changed pods are not rolled out.
    RollOutPaused,
    /// Programmed: the spec is not accepted, so only the policy is applied, and the other children stay as they are.
    NotAccepted,
    /// Programmed: the McpServer is being deleted. Clients are no longer routed to it, and its pods serve until its
    /// finalizers are removed.
    Deleting,
    /// Programmed, Conflicted: an object that does not belong to the McpServer has the name of a child.
    NotOwned,
    /// Programmed, Exposed, Conflicted: a server in another namespace holds `spec.exposure.host`.
    HostTaken,
    /// Programmed, Exposed, Conflicted: another server on the host holds `spec.exposure.path`, or a path above or below
    /// it.
    PathTaken,
    /// Programmed, Exposed, Conflicted: another server holds `spec.entra.clientId` or one of `spec.entra.audiences`.
    ClientIdTaken,
    /// Programmed: the claims on the host and the client id of the spec are not decided yet.
    OwnershipPending,
    /// Programmed: `spec.suspend` is true, so only the policy is applied.
    Suspended,
    /// Programmed, Exposed, CertificateReady: this cluster does not serve a kind that the spec needs, or the operator is
    /// not allowed to see it.
    KindNotServed,
    /// Programmed: the API server refused a child.
    ApplyFailed,
    /// Programmed: an admission webhook or policy changes a child each time it is applied.
    Overridden,
    /// Programmed on a mapping: the policy of a bound server does not contain it yet.
    Pending,

    /// Available: the desired number of pods is ready.
    PodsReady,
    /// Accepted, Programmed, Available, FederationReady, AuthorizationReady: the operator or the pods have not reported
    /// yet. Available: pods are starting. Programmed: children of a deleted McpServer of the same name still exist.
    Progressing,
    /// Available: `spec.replicas` is 0, or the spec sets no number and the Deployment is scaled to 0.
    ScaledToZero,
    /// Available: an image cannot be pulled.
    ImagePullFailed,
    /// Available: a container of the pod has ended with an error, once or repeatedly.
    CrashLooping,
    /// Available: a container cannot be created.
    ContainerFailed,
    /// Available: no node takes a pod.
    Unschedulable,
    /// Available: a server runs, but reports that it is not ready, and why.
    ServerNotReady,
    /// Available: the namespace's ResourceQuota has no room for the pods.
    QuotaExceeded,
    /// Available: the namespace enforces a Pod Security Standard that the pods do not satisfy.
    PodSecurityViolated,
    /// Available: an admission webhook or policy refuses the pods.
    AdmissionRefused,
    /// Available: the API server refuses to create the pods for another reason.
    PodsRefused,

    /// FederationReady: every ready pod exchanged its token at its last probe.
    ExchangeWorks,
    /// FederationReady: Entra refuses the pods' token, or is unreachable.
    ExchangeFailed,
    /// FederationReady, SessionStoreReady, BackendReady: no probe has finished yet.
    ProbePending,
    /// FederationReady, AuthorizationReady, SessionStoreReady, BackendReady, BackendIsolated: there is no ready pod to
    /// ask.
    NoReadyPods,
    /// FederationReady, AuthorizationReady, SessionStoreReady, BackendReady, BackendIsolated: pods are ready, but their admin
    /// port cannot be reached.
    StatusUnreachable,

    /// AuthorizationReady: every ready pod enforces the compiled policy.
    PolicyEnforced,
    /// AuthorizationReady: a ready pod enforces an older policy.
    PolicyLagging,
    /// AuthorizationReady: a pod cannot read the policy, and enforces the last valid one.
    PolicyUnreadable,
    /// AuthorizationReady: the annotation `mcp-entra.dev/revoke-sessions-before` is not a valid time, so it ends no
    /// session.
    RevocationUnreadable,
    /// AuthorizationReady, Programmed on a mapping: the mappings do not all fit into a ConfigMap.
    PolicyTooLarge,

    /// SessionStoreReady: every ready pod reached the session store at its last probe.
    SessionStoreWorks,
    /// SessionStoreReady: sessions are kept in the memory of the one pod, and end when it restarts.
    SessionsInMemory,
    /// SessionStoreReady: a ready pod cannot use the session store.
    SessionStoreFailed,

    /// BackendReady: every ready pod reached its backend at its last probe.
    BackendWorks,
    /// BackendReady: a ready pod's backend does not answer as an MCP server.
    BackendFailed,
    /// BackendIsolated: in every ready pod, only the server listens on addresses that are reachable from outside the
    /// pod.
    LoopbackOnly,
    /// BackendIsolated: the operator reached a port of a pod that only the pod's own server should reach.
    BackendReached,
    /// BackendIsolated: a process in a pod listens for connections from outside the pod, but the operator cannot reach
    /// it. This holds as long as the cluster enforces NetworkPolicies. It does not keep the server from being Ready.
    BackendUnreached,
    /// BackendIsolated: the operator cannot find out which ports of a pod are reachable from outside. It does not keep
    /// the server from being Ready.
    IsolationUnknown,

    /// Exposed: an ingress controller has set an address.
    AddressAssigned,
    /// Exposed: no ingress controller has set an address yet.
    AddressPending,
    /// Exposed: every Gateway accepts the route.
    RouteAccepted,
    /// Exposed: a Gateway has not answered yet, or its answer is about an older version of the route.
    RoutePending,
    /// Exposed: a Gateway or listener that the spec names does not exist.
    GatewayNotFound,
    /// Exposed: a Gateway does not accept the route or its backend.
    RouteRejected,
    /// Exposed: a Gateway does not accept the server's own listener or its certificate.
    ListenerRejected,

    /// CertificateReady: the certificate is valid now.
    CertificateValid,
    /// CertificateReady, Exposed: cert-manager has not issued the certificate yet.
    CertificatePending,
    /// CertificateReady: cert-manager reports why it cannot issue the certificate.
    CertificateFailed,
    /// CertificateReady: the certificate has expired.
    CertificateExpired,

    /// Ready: all other conditions are good.
    Ready,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The reasons are the names of the variants.
        fmt::Debug::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generated_table_lists_every_reason() {
        let mut rows: Vec<String> = ALL
            .iter()
            .map(|(reason, documentation)| {
                let (types, says) = documentation.trim().split_once(": ").unwrap();
                format!("| `{reason}` | {types} | {} |\n", says.replace('|', "\\|"))
            })
            .collect();
        rows.sort();
        let table = format!("| Reason | Condition | Meaning |\n|---|---|---|\n{}", rows.concat());
        documentation::hold_section("docs/conditions.md", "## Reasons", &table);
    }
}
