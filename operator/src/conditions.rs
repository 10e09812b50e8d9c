//! Conditions: the reasons that there are, and how verdicts become `status.conditions`. Pure.

use std::fmt;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use mcp_entra_crds::ConditionType;

/// The reason of a condition: a stable word for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
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
    /// Accepted: `spec.image` is not allowed by the operator's `--allowed-image`.
    ImageNotAllowed,
    /// Accepted: nothing is exposed without TLS.
    TlsRequired,
    /// Accepted: an annotation of `spec.exposure.ingress` is not allowed by the operator's `--allowed-ingress-annotation`.
    AnnotationsNotAllowed,
    /// Accepted: the server would refuse the configuration that follows from the spec.
    InvalidConfiguration,
    /// Accepted, Programmed of a mapping: a server that it names does not exist.
    ServerNotFound,

    /// Programmed: the children are as built.
    Applied,
    /// Programmed: the children are as built, but for pods that wait until other servers have been upgraded.
    UpgradeWaiting,
    /// Programmed: the children are as built, but for pods that are not upgraded, since another server did not come up.
    UpgradeHalted,
    /// Programmed, Available: the spec is not accepted, so the children are left as they are.
    NotAccepted,
    /// Programmed, Conflicted: a child's name is somebody else's object.
    NotOwned,
    /// Programmed, Exposed, Conflicted: `spec.exposure.host` belongs to another namespace, that of its oldest server.
    HostTaken,
    /// Programmed, Exposed, Conflicted: an older server of the host has `spec.exposure.path`, or one above or below it.
    PathTaken,
    /// Programmed, Exposed, Conflicted: an older server has `spec.entra.clientId` and one of its required scopes.
    ClientIdTaken,
    /// Programmed: `spec.suspend` is true, so nothing but the policy is applied.
    Suspended,
    /// Programmed, Exposed: this cluster does not serve a kind that the spec asks for.
    KindNotServed,
    /// Programmed: the API server refused a child.
    ApplyFailed,
    /// Programmed of a mapping: a bound server's policy does not hold it yet.
    Pending,

    /// Available: as many pods are ready as there should be.
    PodsReady,
    /// Available: pods are on their way; Programmed: the children of a deleted namesake are about to go.
    Progressing,
    /// Available: `spec.replicas` is 0.
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
    /// FederationReady: no probe has ended yet.
    ProbePending,
    /// FederationReady, AuthorizationReady: there is no pod that could be asked.
    NoReadyPods,
    /// FederationReady, AuthorizationReady: pods are ready, but their admin port cannot be reached.
    StatusUnreachable,

    /// AuthorizationReady: every ready pod enforces the compiled policy.
    PolicyEnforced,
    /// AuthorizationReady: a ready pod enforces an older policy.
    PolicyLagging,
    /// AuthorizationReady: a pod cannot read the policy, and enforces the last good one.
    PolicyUnreadable,
    /// AuthorizationReady, Programmed of a mapping: not all mappings fit into a ConfigMap.
    PolicyTooLarge,

    /// Exposed: an ingress controller has announced an address.
    AddressAssigned,
    /// Exposed: no ingress controller has announced an address.
    AddressPending,
    /// Exposed: every Gateway accepts the route.
    RouteAccepted,
    /// Exposed: a Gateway has not answered yet.
    RoutePending,
    /// Exposed: a Gateway does not accept the route, or not what it leads to.
    RouteRejected,
    /// Exposed: a Gateway does not accept the server's own listener, or not its certificate.
    ListenerRejected,

    /// CertificateReady: the certificate is valid now.
    CertificateValid,
    /// CertificateReady: cert-manager has issued none yet.
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

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    True,
    False,
    Unknown,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// What is so, why, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) state: State,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl Verdict {
    pub(crate) fn yes(reason: Reason, message: impl Into<String>) -> Self {
        Self { state: State::True, reason: reason.to_string(), message: message.into() }
    }

    pub(crate) fn no(reason: Reason, message: impl Into<String>) -> Self {
        Self { state: State::False, reason: reason.to_string(), message: message.into() }
    }

    pub(crate) fn unknown(reason: Reason, message: impl Into<String>) -> Self {
        Self { state: State::Unknown, reason: reason.to_string(), message: message.into() }
    }

    /// What stood there before, if anything did.
    pub(crate) fn before(previous: &[Condition], type_: ConditionType) -> Option<Self> {
        let condition = previous.iter().find(|condition| condition.type_ == type_.as_str())?;
        let state = match condition.status.as_str() {
            "True" => State::True,
            "False" => State::False,
            _ => State::Unknown,
        };
        Some(Self { state, reason: condition.reason.clone(), message: condition.message.clone() })
    }
}

/// Adds `Ready`: false by the first verdict that is false, else unknown by the first that is unknown. `Conflicted` does
/// not count: while it is true, `Programmed` is false for the same reason.
pub(crate) fn with_ready(mut verdicts: Vec<(ConditionType, Verdict)>) -> Vec<(ConditionType, Verdict)> {
    let first = |state: State| {
        verdicts
            .iter()
            .find(|(type_, verdict)| *type_ != ConditionType::Conflicted && verdict.state == state)
            .map(|(_, verdict)| verdict.clone())
    };
    let ready = first(State::False)
        .or_else(|| first(State::Unknown))
        .unwrap_or_else(|| Verdict::yes(Reason::Ready, "the server is ready"));
    verdicts.push((ConditionType::Ready, ready));
    verdicts
}

/// The conditions as they are written. The time of the last transition changes with the status alone.
pub(crate) fn conditions(
    previous: &[Condition],
    verdicts: Vec<(ConditionType, Verdict)>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    // Whole seconds, as the API server would store them in a built-in kind.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    verdicts
        .into_iter()
        .map(|(type_, verdict)| {
            let unchanged = previous
                .iter()
                .find(|before| before.type_ == type_.as_str() && before.status == verdict.state.as_str());
            Condition {
                type_: type_.to_string(),
                status: verdict.state.as_str().to_owned(),
                reason: verdict.reason,
                message: verdict.message,
                observed_generation: generation,
                last_transition_time: unchanged.map_or(Time(now), |before| before.last_transition_time.clone()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn verdicts(state: State) -> Vec<(ConditionType, Verdict)> {
        let verdict = Verdict { state, reason: "R".into(), message: "m".into() };
        vec![(ConditionType::Available, verdict)]
    }

    #[test]
    fn the_transition_time_changes_with_the_status_and_with_nothing_else() {
        let first = conditions(&[], verdicts(State::True), Some(1), at(100));
        let mut changed = verdicts(State::True);
        changed[0].1.message = "other".into();
        let second = conditions(&first, changed, Some(2), at(200));
        assert_eq!(second[0].last_transition_time, Time(at(100)));
        assert_eq!((second[0].message.as_str(), second[0].observed_generation), ("other", Some(2)));
        let third = conditions(&second, verdicts(State::Unknown), Some(2), at(300));
        assert_eq!(third[0].last_transition_time, Time(at(300)));
    }

    #[test]
    fn ready_says_what_the_first_failing_condition_says() {
        let ready = |list: &[(ConditionType, Verdict)]| {
            with_ready(list.to_vec()).into_iter().find(|(type_, _)| *type_ == ConditionType::Ready).unwrap().1
        };
        let good = (ConditionType::Accepted, Verdict::yes(Reason::Accepted, ""));
        let open = (ConditionType::FederationReady, Verdict::unknown(Reason::NoReadyPods, "u"));
        let bad = (ConditionType::AuthorizationReady, Verdict::no(Reason::PolicyLagging, "lags"));
        let worse = (ConditionType::Exposed, Verdict::no(Reason::AddressPending, "no address"));
        let conflict = (ConditionType::Conflicted, Verdict::yes(Reason::NotOwned, "taken"));
        assert_eq!(ready(&[good.clone(), conflict]).state, State::True);
        assert_eq!(ready(&[good.clone(), open.clone()]), open.1);
        assert_eq!(ready(&[good, open, bad.clone(), worse]), bad.1);
    }
}
