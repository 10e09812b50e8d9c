//! The reasons that conditions give: stable words for programs. What stands here stands in `docs/conditions.md`, too.

use std::fmt;

/// Makes the enumeration, and its documentation available to the program: each begins with the types of condition that
/// give the reason.
macro_rules! reasons {
    ($($(#[doc = $line:literal])+ $reason:ident,)+) => {
        /// The reason of a condition: a stable word for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Reason {
            $($(#[doc = $line])+ $reason,)+
        }

        /// Every reason with its documentation.
        #[cfg(test)]
        const ALL: &[(Reason, &str)] = &[$((Reason::$reason, concat!($($line),+))),+];
    };
}

reasons! {
    /// Accepted: the spec is valid and allowed here; of a mapping: every named server exists.
    Accepted,
    /// Accepted: `spec.entra.endpoints` names an address that the operator's `--allowed-authority` or `--allowed-graph`
    /// does not.
    EndpointsNotAllowed,
    /// Accepted: `spec.entra.trustBundle` is set, and the operator runs without `--allow-trust-bundles`.
    TrustBundleNotAllowed,
    /// Accepted: the trust bundle's ConfigMap or its key does not exist.
    TrustBundleNotFound,
    /// Accepted: the trust bundle holds no certificate.
    TrustBundleInvalid,
    /// Accepted: an entry of `spec.graph.tools` matches no built-in tool.
    ToolNotFound,
    /// Accepted: an entry of `spec.graph.tools` matches only tools whose permissions `spec.graph.scopes` lacks.
    GraphScopeMissing,
    /// Accepted: `spec.image` or `spec.backend.image` is not allowed by the operator's `--allowed-image` or
    /// `--allowed-backend-image`.
    ImageNotAllowed,
    /// Accepted: the resource of `spec.backend.identity.onBehalfOf.scope` is this server's own, or not allowed by the
    /// operator's `--allowed-backend-resource`.
    ResourceNotAllowed,
    /// Accepted: nothing is exposed without TLS.
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
    /// Accepted: the ServiceAccount that `spec.entra.federation` names does not allow this McpServer by its annotation `mcp-entra.dev/allow-server`.
    ServiceAccountNotAllowed,
    /// Accepted: the ServiceAccount that `spec.entra.federation` names tells azure-workload-identity another client id.
    ServiceAccountMismatch,
    /// Accepted: the server would refuse the configuration that follows from the spec.
    InvalidConfiguration,
    /// Accepted, Programmed of a mapping: a server that it names does not exist.
    ServerNotFound,
    /// Programmed, Ready of a mapping: its selector binds no server now; it is to hold for each that comes.
    NoServers,
    /// Accepted of a mapping: a server that it names accepts no tokens of the app registration `spec.servers.clientId`.
    ClientIdMismatch,

    /// Programmed: the children are as built.
    Applied,
    /// Programmed: the children are as built, but for pods that wait until other servers have been upgraded.
    UpgradeWaiting,
    /// Programmed: the children are as built, but for pods that are not upgraded, since another server of the namespace,
    /// or servers of several namespaces, did not come up.
    UpgradeHalted,
    /// Programmed: the children are as built, and the upgraded pods find no room: no node takes them, or the namespace's
    /// ResourceQuota does not allow them. The older pods serve, and other servers are upgraded meanwhile.
    UpgradeNoRoom,
    /// Programmed: the children are as built, and the upgraded pods do not come up. The older pods serve, and the other
    /// servers of the namespace are not upgraded.
    UpgradeFailed,
    /// Programmed, Available: somebody has paused the Deployment, so no changed pod is rolled out.
    RollOutPaused,
    /// Programmed, Available: the spec is not accepted, so the children are left as they are.
    NotAccepted,
    /// Programmed: the McpServer is being deleted; nothing leads clients to it, and its pods serve until its finalizers are gone.
    Deleting,
    /// Programmed, Conflicted: a child's name is somebody else's object.
    NotOwned,
    /// Programmed, Exposed, Conflicted: another namespace holds `spec.exposure.host`.
    HostTaken,
    /// Programmed, Exposed, Conflicted: another server of the host holds `spec.exposure.path`, or one above or below it.
    PathTaken,
    /// Programmed, Exposed, Conflicted: another server holds `spec.entra.clientId` or one of `spec.entra.audiences`.
    ClientIdTaken,
    /// Programmed: it is being decided who holds the host and the client id that the spec names.
    OwnershipPending,
    /// Programmed: `spec.suspend` is true, so nothing but the policy is applied.
    Suspended,
    /// Programmed, Exposed: this cluster does not serve a kind that the spec asks for, or does not show it to the operator.
    KindNotServed,
    /// Programmed: the API server refused a child.
    ApplyFailed,
    /// Programmed: an admission webhook or policy changes a child, whenever it is applied.
    Overridden,
    /// Programmed of a mapping: a bound server's policy does not hold it yet.
    Pending,

    /// Available: as many pods are ready as there should be.
    PodsReady,
    /// Available: pods are on their way; Programmed: the children of a deleted namesake are about to go.
    Progressing,
    /// Available: `spec.replicas` is 0, or somebody has scaled a Deployment to 0 whose number the spec does not give.
    ScaledToZero,
    /// Available: an image cannot be pulled.
    ImagePullFailed,
    /// Available: the server ends again and again.
    CrashLooping,
    /// Available: a container cannot be created.
    ContainerFailed,
    /// Available: no node takes a pod.
    Unschedulable,
    /// Available: a server runs and says itself why it is not ready.
    ServerNotReady,
    /// Available: the namespace's ResourceQuota has no room for the pods.
    QuotaExceeded,
    /// Available: the namespace enforces a Pod Security Standard that the pods do not satisfy.
    PodSecurityViolated,
    /// Available: an admission webhook or policy refuses the pods.
    AdmissionRefused,
    /// Available: pods are refused at their creation for another reason.
    PodsRefused,

    /// FederationReady: every ready pod exchanged its token at its last probe.
    ExchangeWorks,
    /// FederationReady: Entra refuses the pods' token, or is out of reach.
    ExchangeFailed,
    /// FederationReady, SessionStoreReady, BackendReady: no probe has ended yet.
    ProbePending,
    /// FederationReady, AuthorizationReady, SessionStoreReady, BackendReady, BackendIsolated: there is no pod that could be
    /// asked.
    NoReadyPods,
    /// FederationReady, AuthorizationReady, SessionStoreReady, BackendReady, BackendIsolated: pods are ready, but their admin
    /// port cannot be reached.
    StatusUnreachable,

    /// AuthorizationReady: every ready pod enforces the compiled policy.
    PolicyEnforced,
    /// AuthorizationReady: a ready pod enforces an older policy.
    PolicyLagging,
    /// AuthorizationReady: a pod cannot read the policy, and enforces the last good one.
    PolicyUnreadable,
    /// AuthorizationReady: the annotation `mcp-entra.dev/revoke-sessions-before` is no time, and ends no session.
    RevocationUnreadable,
    /// AuthorizationReady, Programmed of a mapping: not all mappings fit into a ConfigMap.
    PolicyTooLarge,

    /// SessionStoreReady: every ready pod reached the session store at its last probe.
    SessionStoreWorks,
    /// SessionStoreReady: sessions are kept in the memory of the one pod, and a restart of it ends them.
    SessionsInMemory,
    /// SessionStoreReady: a ready pod cannot use the session store.
    SessionStoreFailed,

    /// BackendReady: every ready pod reached its backend at its last probe.
    BackendWorks,
    /// BackendReady: a ready pod's backend does not answer as an MCP server.
    BackendFailed,
    /// BackendIsolated: nothing in the ready pods but the servers listens for others than the pod itself.
    LoopbackOnly,
    /// BackendIsolated: the operator reached a port of a pod that only the server in it should reach.
    BackendReached,
    /// BackendIsolated: the operator cannot reach what listens in a pod for others. That holds while the cluster enforces
    /// NetworkPolicies, and does not keep the server from being Ready.
    BackendUnreached,
    /// BackendIsolated: it cannot be seen, or not be tried, what others reach of a pod. That does not keep the server from
    /// being Ready.
    IsolationUnknown,

    /// Exposed: an ingress controller has announced an address.
    AddressAssigned,
    /// Exposed: no ingress controller has announced an address.
    AddressPending,
    /// Exposed: every Gateway accepts the route.
    RouteAccepted,
    /// Exposed: a Gateway has not answered yet, or what it answers is about to change.
    RoutePending,
    /// Exposed: a Gateway, or a listener, that the spec names does not exist.
    GatewayNotFound,
    /// Exposed: a Gateway does not accept the route, or not what it leads to.
    RouteRejected,
    /// Exposed: a Gateway does not accept the server's own listener, or not its certificate.
    ListenerRejected,

    /// CertificateReady: the certificate is valid now.
    CertificateValid,
    /// CertificateReady, Exposed: cert-manager has issued none yet.
    CertificatePending,
    /// CertificateReady: cert-manager says why there is none.
    CertificateFailed,
    /// CertificateReady: the certificate has expired.
    CertificateExpired,

    /// Ready: all of the above.
    Ready,
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The variants' names are the words.
        fmt::Debug::fmt(self, formatter)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// The table of `docs/conditions.md`.
    fn table() -> String {
        let mut rows: Vec<String> = ALL
            .iter()
            .map(|(reason, documentation)| {
                let (types, says) = documentation.trim().split_once(": ").unwrap();
                format!("| `{reason}` | {types} | {} |\n", says.replace('|', "\\|"))
            })
            .collect();
        rows.sort();
        format!("| Reason | Of | Says |\n|---|---|---|\n{}", rows.concat())
    }

    #[test]
    fn every_reason_stands_in_the_documentation_and_no_other() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conditions.md");
        let page = std::fs::read_to_string(&file).unwrap();
        let (before, _) = page.split_once("| Reason |").unwrap();
        let expected = format!("{before}{}", table());
        if std::env::var_os("REGENERATE").is_some() {
            std::fs::write(&file, &expected).unwrap();
            return;
        }
        assert!(
            page == expected,
            "docs/conditions.md is not what the code says; run: REGENERATE=1 cargo test -p mcp-entra-operator --lib every_reason"
        );
    }
}
