//! Builds the pod template: labels and annotations, security context, and scheduling. The operator's labels and
//! annotations override those of the spec.

use k8s_openapi::{
    api::core::v1::{
        LocalObjectReference, PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, TopologySpreadConstraint,
    },
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta},
};
use mcp_entra_crds::{Backend, Injection, PodTemplate, TopologySpread, WhenUnsatisfiable};
use sha2::{Digest, Sha256};

use super::{
    backend,
    container::{addresses, container},
    volumes::volumes,
};
use crate::{
    mcpserver::validate::{Validated, authorization_server::SignIn},
    objects::{
        child::{ChildKind, json_of},
        config_map_edition::Mounted,
        names::{CONFIGURATION_HASH, SERVER_UID},
    },
};

/// The label that makes azure-workload-identity's webhook project a token into a pod.
const USE_WEBHOOK: &str = "azure.workload.identity/use";

/// The user of the image. Any user except root and the backend's would work.
const USER: i64 = Backend::COMPANION_USER;
/// Time for a pod to end: the sleep before SIGTERM, the server's drain, and its running requests.
const TERMINATION_GRACE_PERIOD_SECONDS: i64 = 40;

/// The default topology keys for the spread of pods: nodes and zones.
const SPREAD: [&str; 2] = ["kubernetes.io/hostname", "topology.kubernetes.io/zone"];

pub(super) fn pod_template(server: &Validated, mounted: Mounted) -> PodTemplateSpec {
    PodTemplateSpec { metadata: Some(metadata(server)), spec: Some(pod_spec(server, mounted)) }
}

/// Returns the hash of the pod template. A changed hash means a rollout that waits for its turn. The edition of the
/// policy is left out, because a change of it waits for no turn.
pub(crate) fn template_hash(server: &Validated, mounted: Mounted) -> String {
    let template = pod_template(server, mounted.with_first_policy());
    let mut digits = hex::encode(Sha256::digest(json_of(&template).to_string()));
    digits.truncate(16);
    digits
}

/// Returns the hash of everything that the server reads only at its start. It does not include the policy, which is
/// reloaded at run time.
pub(crate) fn configuration_hash(server: &Validated) -> String {
    let mut hash = Sha256::new();
    hash.update(&server.configuration);
    if let Some(trust) = &server.trust {
        hash.update([0]);
        hash.update(&trust.certificates);
    }
    if let Some(ca) = server.sign_in.as_ref().and_then(SignIn::store_ca) {
        hash.update([1]);
        hash.update(&ca.certificates);
    }
    if server.workload.injection == Injection::Webhook {
        // The webhook reads the ServiceAccount only when a pod is created.
        hash.update(server.workload.token_expiration_seconds.to_le_bytes());
    }
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(16);
    digits
}

fn metadata(server: &Validated) -> ObjectMeta {
    let mut labels = server.workload.template.labels.clone();
    labels.extend(server.owner.labels());
    if server.workload.injection == Injection::Webhook {
        labels.insert(USE_WEBHOOK.to_owned(), "true".to_owned());
    }
    let mut annotations = server.workload.template.annotations.clone();
    annotations.insert(CONFIGURATION_HASH.to_owned(), configuration_hash(server));
    annotations.insert(SERVER_UID.to_owned(), server.pods_uid.clone());
    if let Some(backend) = server.backend.as_ref().filter(|_| server.workload.injection == Injection::Webhook) {
        annotations.insert(backend::SKIP_CONTAINERS.to_owned(), backend::skipped(backend));
    }
    ObjectMeta { labels: Some(labels), annotations: Some(annotations), ..ObjectMeta::default() }
}

fn pod_spec(server: &Validated, mounted: Mounted) -> PodSpec {
    let PodTemplate { node_selector, tolerations, image_pull_secrets, .. } = &server.workload.template;
    let volumes = volumes(server, mounted).into_iter().map(|(_, volume)| volume);
    let pull_secrets = image_pull_secrets.iter().map(|secret| LocalObjectReference { name: secret.name.clone() });
    PodSpec {
        service_account_name: Some(service_account_name(server)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_GRACE_PERIOD_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(server, mounted)],
        init_containers: backend::init_containers(server, addresses()),
        volumes: Some(volumes.chain(server.backend.iter().flat_map(backend::volumes)).collect()),
        // The operator would own an empty list; others can set an absent one.
        node_selector: (!node_selector.is_empty()).then(|| node_selector.clone()),
        tolerations: (!tolerations.is_empty()).then(|| tolerations.clone()),
        affinity: server.workload.template.affinity.clone(),
        topology_spread_constraints: Some(topology_spread_constraints(server)),
        priority_class_name: server.workload.template.priority_class_name.clone(),
        image_pull_secrets: (!image_pull_secrets.is_empty()).then(|| pull_secrets.collect()),
        ..PodSpec::default()
    }
}

/// Returns the ServiceAccount of the pods.
fn service_account_name(server: &Validated) -> String {
    let own = || ChildKind::ServiceAccount.name(&server.owner.name);
    server.workload.existing_account.clone().unwrap_or_else(own)
}

fn topology_spread_constraints(server: &Validated) -> Vec<TopologySpreadConstraint> {
    let given = &server.workload.template.topology_spread_constraints;
    let constraint = |spread: &TopologySpread| TopologySpreadConstraint {
        max_skew: spread.max_skew,
        topology_key: spread.topology_key.clone(),
        when_unsatisfiable: match spread.when_unsatisfiable {
            WhenUnsatisfiable::DoNotSchedule => "DoNotSchedule".to_owned(),
            WhenUnsatisfiable::ScheduleAnyway => "ScheduleAnyway".to_owned(),
        },
        label_selector: Some(LabelSelector { match_labels: Some(server.owner.selector()), match_expressions: None }),
        // Pods of an older version do not count, because they end soon.
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..TopologySpreadConstraint::default()
    };
    if !given.is_empty() {
        return given.iter().map(constraint).collect();
    }
    let anyhow = |topology_key: &str| TopologySpread {
        max_skew: 1,
        topology_key: topology_key.to_owned(),
        when_unsatisfiable: WhenUnsatisfiable::ScheduleAnyway,
    };
    SPREAD.map(|topology_key| constraint(&anyhow(topology_key))).into()
}
