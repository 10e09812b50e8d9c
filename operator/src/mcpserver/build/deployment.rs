//! The Deployment: the server's pods, with the projected service account token that is their only credential to Entra.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment},
        core::v1::{
            Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, HTTPGetAction, KeyToPath, Lifecycle,
            LifecycleHandler, PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ProjectedVolumeSource,
            SeccompProfile, SecurityContext, ServiceAccountTokenProjection, SleepAction, Volume, VolumeMount,
            VolumeProjection,
        },
    },
    apimachinery::pkg::{apis::meta::v1::LabelSelector, util::intstr::IntOrString},
};
use mcp_entra_crds::Injection;
use mcp_entra_policy::{CONFIGURATION_KEY, POLICY_KEY};
use sha2::{Digest, Sha256};

use super::{pod_template_additions, resources};
use crate::{
    fleet::RollOut,
    mcpserver::validate::{Validated, workload::Scale},
    objects::{
        child::ChildKind,
        config_map_edition::Mounted,
        names::{
            CONFIGURATION_HASH, CONFIGURATION_VOLUME, POLICY_VOLUME, REQUESTED_HASH, ROLL_OUT, SERVER_UID,
            TEMPLATE_HASH,
        },
        trust_bundle::Trust,
    },
};

/// Name of the server's container.
const CONTAINER: &str = "server";
/// Name of the port with the MCP endpoint.
pub(super) const HTTP_PORT_NAME: &str = "http";
const HTTP_PORT: i32 = 8080;
/// The port with health, metrics and status; in no Service.
pub(crate) const ADMIN_PORT: u16 = 8081;
pub(super) const ADMIN_PORT_NAME: &str = "admin";

/// Value of `maxUnavailable` while pods mount a policy that they are no longer told of: all of them are deleted at once.
pub(crate) const MOVING: &str = "100%";

const CONFIGURATION_FOLDER: &str = "/etc/mcp-entra/config";
const POLICY_FOLDER: &str = "/etc/mcp-entra/policy";
const TRUST_FOLDER: &str = "/etc/mcp-entra/trust";
const IDENTITY_FOLDER: &str = "/var/run/secrets/mcp-entra";
const IDENTITY_FILE: &str = "azure-identity-token";

/// The user of the image; any other than root would do.
const USER: i64 = 65532;
/// Time for endpoints to notice that a pod is leaving, before it is told.
const LEAVE_SECONDS: i64 = 5;
/// The whole time for a pod's end: the sleep above, the server's own drain, and its running requests.
const TERMINATION_SECONDS: i64 = 40;

pub(super) fn deployment(server: &Validated, mounted: Mounted) -> Result<Deployment, serde_json::Error> {
    let template = template(server, mounted);
    let mut metadata = server.owner.child_metadata(ChildKind::Deployment);
    metadata.annotations = Some(BTreeMap::from([
        (TEMPLATE_HASH.to_owned(), template_hash(server, mounted)?),
        (REQUESTED_HASH.to_owned(), server.requested_hash.as_str().to_owned()),
        (ROLL_OUT.to_owned(), RollOut::Requested.as_str().to_owned()),
        (SERVER_UID.to_owned(), server.pods_uid.clone()),
    ]));
    Ok(Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            replicas: match &server.workload.scale {
                Scale::Fixed(replicas) => Some(*replicas),
                // Naming a number would fight the autoscaler, or whatever else scales the Deployment.
                Scale::Auto(_) | Scale::External => None,
            },
            selector: LabelSelector { match_labels: Some(server.owner.selector()), match_expressions: None },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(match mounted.is_moving {
                        true => IntOrString::String(MOVING.to_owned()),
                        false => IntOrString::Int(0),
                    }),
                }),
            }),
            progress_deadline_seconds: Some(server.roll_out_deadline_seconds),
            template,
            ..DeploymentSpec::default()
        }),
        status: None,
    })
}

/// Hash of the pod template: another one is another roll-out. Another edition of the policy is none: pods that mount the
/// one before wait for no turn.
///
/// # Errors
/// If it cannot be written as JSON, which no template refuses.
pub(crate) fn template_hash(server: &Validated, mounted: Mounted) -> Result<String, serde_json::Error> {
    let template = template(server, mounted.with_first_policy());
    let mut digits = hex::encode(Sha256::digest(serde_json::to_string(&template)?));
    digits.truncate(16);
    Ok(digits)
}

fn template(server: &Validated, mounted: Mounted) -> PodTemplateSpec {
    let own = BTreeMap::from([
        (CONFIGURATION_HASH.to_owned(), configuration_hash(server)),
        (SERVER_UID.to_owned(), server.pods_uid.clone()),
    ]);
    PodTemplateSpec {
        metadata: Some(pod_template_additions::metadata(server, own)),
        spec: Some(pod_template_additions::place(pod(server, mounted), &server.owner, &server.workload.template)),
    }
}

/// Hash of what the server reads once, at its start. The policy is not in it: that is reloaded live.
pub(crate) fn configuration_hash(server: &Validated) -> String {
    let mut hash = Sha256::new();
    hash.update(&server.configuration);
    if let Some(trust) = &server.trust {
        hash.update([0]);
        hash.update(&trust.certificates);
    }
    if server.workload.injection == Injection::Webhook {
        // Webhooks look at the ServiceAccount when a pod is created, and not again.
        hash.update(server.workload.token_expiration_seconds.to_le_bytes());
    }
    let mut digits = hex::encode(hash.finalize());
    digits.truncate(16);
    digits
}

/// The ServiceAccount that the pods run under.
fn account(server: &Validated) -> String {
    let own = || ChildKind::ServiceAccount.name(&server.owner.name);
    server.workload.existing_account.clone().unwrap_or_else(own)
}

/// Whether it is we who project the token; azure-workload-identity's webhook does it where the spec says so.
fn projects(server: &Validated) -> bool {
    server.workload.injection == Injection::Operator
}

fn pod(server: &Validated, mounted: Mounted) -> PodSpec {
    PodSpec {
        service_account_name: Some(account(server)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(TERMINATION_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(server, mounted)],
        volumes: Some(mounts(server, mounted).into_iter().map(|mount| mount.volume).collect()),
        ..PodSpec::default()
    }
}

fn container(server: &Validated, mounted: Mounted) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(server.image.clone()),
        args: Some(arguments(server)),
        // An empty list would be ours to defend.
        env: Some(environment(server)).filter(|variables| !variables.is_empty()),
        ports: Some(vec![
            ContainerPort {
                name: Some(HTTP_PORT_NAME.to_owned()),
                container_port: HTTP_PORT,
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            },
            ContainerPort {
                name: Some(ADMIN_PORT_NAME.to_owned()),
                container_port: ADMIN_PORT.into(),
                protocol: Some("TCP".to_owned()),
                ..ContainerPort::default()
            },
        ]),
        startup_probe: Some(Probe { period_seconds: Some(1), failure_threshold: Some(60), ..probe("/healthz") }),
        readiness_probe: Some(Probe { period_seconds: Some(5), failure_threshold: Some(2), ..probe("/readyz") }),
        liveness_probe: Some(Probe { period_seconds: Some(10), failure_threshold: Some(3), ..probe("/healthz") }),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction { seconds: LEAVE_SECONDS }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(resources::requirements(server.workload.template.resources.as_ref())),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(
            mounts(server, mounted)
                .into_iter()
                .map(|mount| VolumeMount {
                    name: mount.volume.name,
                    // Never by subPath: a kubelet does not refresh those.
                    mount_path: mount.folder.to_owned(),
                    read_only: Some(true),
                    ..VolumeMount::default()
                })
                .collect(),
        ),
        ..Container::default()
    }
}

fn arguments(server: &Validated) -> Vec<String> {
    let mut arguments = vec![
        "serve".to_owned(),
        "--config".to_owned(),
        format!("{CONFIGURATION_FOLDER}/{CONFIGURATION_KEY}"),
        "--policy".to_owned(),
        format!("{POLICY_FOLDER}/{POLICY_KEY}"),
        "--listen".to_owned(),
        format!("[::]:{HTTP_PORT}"),
        "--admin-listen".to_owned(),
        format!("[::]:{ADMIN_PORT}"),
    ];
    if let Some(trust) = &server.trust {
        arguments.extend(["--trust-bundle".to_owned(), format!("{TRUST_FOLDER}/{}", trust.key)]);
    }
    arguments
}

fn environment(server: &Validated) -> Vec<EnvVar> {
    let variable =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() };
    let token_file = format!("{IDENTITY_FOLDER}/{IDENTITY_FILE}");
    let own = projects(server).then(|| variable("AZURE_FEDERATED_TOKEN_FILE", &token_file));
    let given = server.workload.template.env.iter().map(|given| variable(&given.name, &given.value));
    own.into_iter().chain(given).collect()
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN_PORT_NAME.to_owned()),
            scheme: Some("HTTP".to_owned()),
            ..HTTPGetAction::default()
        }),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// A volume and where it is mounted.
struct Mount {
    volume: Volume,
    folder: &'static str,
}

fn mounts(server: &Validated, mounted: Mounted) -> Vec<Mount> {
    // One key each: whatever else stands in a ConfigMap is none of the server's business.
    let config_map = |volume: &str, name: String, key: &str, folder: &'static str| Mount {
        volume: Volume {
            name: volume.to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name,
                items: Some(vec![KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        },
        folder,
    };
    let owner = &server.owner.name;
    let mut mounts = vec![
        config_map(
            CONFIGURATION_VOLUME,
            mounted.name(ChildKind::Configuration, owner),
            CONFIGURATION_KEY,
            CONFIGURATION_FOLDER,
        ),
        config_map(POLICY_VOLUME, mounted.name(ChildKind::Policy, owner), POLICY_KEY, POLICY_FOLDER),
    ];
    if projects(server) {
        mounts.push(Mount { volume: identity(server), folder: IDENTITY_FOLDER });
    }
    let trust = |trust: &Trust| config_map("trust", trust.config_map.clone(), &trust.key, TRUST_FOLDER);
    mounts.extend(server.trust.as_ref().map(trust));
    mounts
}

/// The projected token, under a name of our own so that it never meets the azure-workload-identity webhook's.
fn identity(server: &Validated) -> Volume {
    let token = ServiceAccountTokenProjection {
        audience: Some(server.audience.to_owned()),
        expiration_seconds: Some(server.workload.token_expiration_seconds),
        path: IDENTITY_FILE.to_owned(),
    };
    Volume {
        name: "mcp-entra-identity".to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(vec![VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() }]),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}
