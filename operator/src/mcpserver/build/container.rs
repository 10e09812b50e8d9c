//! Builds the server's container: arguments, environment, ports, probes and security context.

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, ContainerPort, EnvVar, HTTPGetAction, Lifecycle, LifecycleHandler, Probe,
        SecurityContext, SleepAction, VolumeMount,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use mcp_entra_policy::{CONFIGURATION_KEY, POLICY_KEY};

use super::{
    backend, resources,
    volumes::{
        CONFIGURATION_FOLDER, POLICY_FOLDER, TRUST_FOLDER, projects_token, sign_in_variables, token_path, volumes,
    },
};
use crate::{mcpserver::validate::Validated, objects::config_map_edition::Mounted};

/// The name of the server's container.
const CONTAINER: &str = "server";
/// The name of the port with the MCP endpoint.
pub(super) const HTTP_PORT_NAME: &str = "http";
const HTTP_PORT: i32 = 8080;
/// The port with health, metrics and status. No Service contains it.
pub(crate) const ADMIN_PORT: u16 = 8081;
pub(super) const ADMIN_PORT_NAME: &str = "admin";

/// Time for endpoints to stop routing to a leaving pod, before it receives SIGTERM.
const PRE_STOP_SECONDS: i64 = 5;

pub(super) fn container(server: &Validated, mounted: Mounted) -> Container {
    Container {
        name: CONTAINER.to_owned(),
        image: Some(server.image.clone()),
        args: Some(arguments(server)),
        // The operator would own an empty list.
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
                sleep: Some(SleepAction { seconds: PRE_STOP_SECONDS }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        resources: Some(resources::requirements(server.workload.template.resources.as_ref(), &resources::SERVER)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            ..SecurityContext::default()
        }),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(
            volumes(server, mounted)
                .into_iter()
                .map(|(folder, volume)| VolumeMount {
                    name: volume.name,
                    // Not a subPath: the kubelet does not update those.
                    mount_path: folder.to_owned(),
                    read_only: Some(true),
                    ..VolumeMount::default()
                })
                .collect(),
        ),
        ..Container::default()
    }
}

/// Returns the addresses that the server listens on: that of the MCP endpoint, and that of [`ADMIN_PORT`].
pub(super) fn addresses() -> [String; 2] {
    [format!("[::]:{HTTP_PORT}"), format!("[::]:{ADMIN_PORT}")]
}

fn arguments(server: &Validated) -> Vec<String> {
    let [listen, admin_listen] = addresses();
    let mut arguments = vec![
        "serve".to_owned(),
        "--config".to_owned(),
        format!("{CONFIGURATION_FOLDER}/{CONFIGURATION_KEY}"),
        "--policy".to_owned(),
        format!("{POLICY_FOLDER}/{POLICY_KEY}"),
        "--listen".to_owned(),
        listen,
        "--admin-listen".to_owned(),
        admin_listen,
    ];
    if let Some(trust) = &server.trust {
        arguments.extend(["--trust-bundle".to_owned(), format!("{TRUST_FOLDER}/{}", trust.key)]);
    }
    arguments.extend(server.backend.iter().flat_map(backend::arguments));
    arguments
}

fn environment(server: &Validated) -> Vec<EnvVar> {
    let variable =
        |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() };
    let own = projects_token(server).then(|| variable("AZURE_FEDERATED_TOKEN_FILE", &token_path()));
    let given = server.workload.template.env.iter().map(|given| variable(&given.name, &given.value));
    let sign_in = server.sign_in.as_ref().map(sign_in_variables).unwrap_or_default();
    own.into_iter().chain(sign_in).chain(given).collect()
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
