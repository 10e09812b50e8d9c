//! Builds the containers of a backend: a sidecar with its image, a sidecar that holds the server's ports, and for stdio
//! an init container that installs the shim. None has a token or a volume of the server.

use k8s_openapi::{
    api::core::v1::{
        Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, SecretKeySelector, SecurityContext,
        Volume, VolumeMount,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use mcp_entra_crds::{Backend, BackendVariable, Transport};

use super::resources::{self, Defaults};
use crate::{
    mcpserver::validate::Validated,
    objects::names::{BACKEND, HOLD_PORTS, INSTALL_SHIM},
};

/// The annotation that excludes containers from azure-workload-identity's webhook: their names, separated by
/// semicolons.
pub(super) const SKIP_CONTAINERS: &str = "azure.workload.identity/skip-containers";

const SHIM_VOLUME: &str = "backend-shim";
const SHIM_FOLDER: &str = "/run/mcp-entra/shim";
/// The shim in the server's image.
const SHIM_PROGRAM: &str = "/mcp-entra-shim";

const SOCKET_VOLUME: &str = "backend-socket";
const SOCKET_FOLDER: &str = "/run/mcp-entra/backend";
const SOCKET: &str = "/run/mcp-entra/backend/backend.sock";

/// The most processes of a backend in a pod: twice the sessions that the server keeps, because processes of ended
/// sessions take time to exit.
const PROCESSES: &str = "128";
/// The size of each folder that the backend may write to.
const WRITABLE_SIZE: &str = "256Mi";

const BACKEND_RESOURCES: Defaults =
    Defaults { requests: [("cpu", "50m"), ("memory", "128Mi")], limits: [("memory", "512Mi")] };
const SHIM_RESOURCES: Defaults =
    Defaults { requests: [("cpu", "10m"), ("memory", "16Mi")], limits: [("memory", "64Mi")] };
/// The limit has room for the start of the container, which counts.
const HOLDER_RESOURCES: Defaults =
    Defaults { requests: [("cpu", "1m"), ("memory", "4Mi")], limits: [("memory", "64Mi")] };

/// Returns the init containers in their order. `addresses` are those that the server listens on.
pub(super) fn init_containers(server: &Validated, addresses: [String; 2]) -> Option<Vec<Container>> {
    let backend = server.backend.as_ref()?;
    let install = (backend.transport == Transport::Stdio).then(|| install_shim(server));
    Some([hold_ports(server, addresses)].into_iter().chain(install).chain([sidecar(backend)]).collect())
}

/// Returns the names of containers without an Entra token, in the format of azure-workload-identity's webhook.
pub(super) fn skipped(backend: &Backend) -> String {
    match backend.transport {
        Transport::Stdio => format!("{HOLD_PORTS};{INSTALL_SHIM};{BACKEND}"),
        Transport::StreamableHttp => format!("{HOLD_PORTS};{BACKEND}"),
    }
}

/// Returns the backend's own volumes.
pub(super) fn volumes(backend: &Backend) -> Vec<Volume> {
    let shim = is_stdio(backend).then(|| empty(SHIM_VOLUME.to_owned(), "10Mi", None));
    let writable = (0..backend.writable_dirs.len()).map(|index| empty(writable_volume(index), WRITABLE_SIZE, None));
    shim.into_iter().chain(writable).collect()
}

/// Returns the volume with the socket between backend and server, and the folder where both mount it.
pub(super) fn socket_volume(backend: &Backend) -> Option<(&'static str, Volume)> {
    is_stdio(backend).then(|| (SOCKET_FOLDER, empty(SOCKET_VOLUME.to_owned(), "1Mi", Some("Memory".to_owned()))))
}

/// Returns the server's arguments for the backend.
pub(super) fn arguments(backend: &Backend) -> Vec<String> {
    match is_stdio(backend) {
        true => vec!["--backend-socket".to_owned(), SOCKET.to_owned()],
        false => Vec::new(),
    }
}

fn is_stdio(backend: &Backend) -> bool {
    backend.transport == Transport::Stdio
}

/// Returns the sidecar that keeps the server's ports from the backend while the server restarts. It starts first and
/// ends last, as the server's user.
fn hold_ports(server: &Validated, addresses: [String; 2]) -> Container {
    Container {
        name: HOLD_PORTS.to_owned(),
        image: Some(server.image.clone()),
        command: Some([SHIM_PROGRAM, "hold"].map(str::to_owned).into_iter().chain(addresses).collect()),
        restart_policy: Some("Always".to_owned()),
        resources: Some(resources::requirements(None, &HOLDER_RESOURCES)),
        security_context: Some(restricted(None)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        ..Container::default()
    }
}

fn install_shim(server: &Validated) -> Container {
    Container {
        name: INSTALL_SHIM.to_owned(),
        image: Some(server.image.clone()),
        command: Some([SHIM_PROGRAM, "install", SHIM_FOLDER].map(str::to_owned).into()),
        resources: Some(resources::requirements(None, &SHIM_RESOURCES)),
        security_context: Some(restricted(None)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(vec![mount(SHIM_VOLUME, SHIM_FOLDER, false)]),
        ..Container::default()
    }
}

fn sidecar(backend: &Backend) -> Container {
    let own = |strings: &[String]| (!strings.is_empty()).then(|| strings.to_vec());
    let (command, args) = match backend.transport {
        Transport::Stdio => {
            let shim = format!("{SHIM_FOLDER}{SHIM_PROGRAM}");
            let command = [&shim, "serve", "--socket", SOCKET, "--max-processes", PROCESSES, "--"].map(str::to_owned);
            (Some(command.into()), Some(backend.command.iter().chain(&backend.args).cloned().collect()))
        }
        Transport::StreamableHttp => (own(&backend.command), own(&backend.args)),
    };
    let environment = environment(backend);
    let mounts = mounts(backend);
    Container {
        name: BACKEND.to_owned(),
        image: Some(backend.image.clone()),
        command,
        args,
        // A sidecar starts before the server and ends after it, so that it can answer open calls. A startup probe would
        // delay the server, which reports by itself that its backend does not answer.
        restart_policy: Some("Always".to_owned()),
        env: (!environment.is_empty()).then_some(environment),
        resources: Some(resources::requirements(backend.resources.as_ref(), &BACKEND_RESOURCES)),
        security_context: Some(restricted(Some(backend.run_as_user.unwrap_or(Backend::DEFAULT_USER)))),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..Container::default()
    }
}

/// Returns the variables of the spec, and a home. Programs without a home write to their own folder, which is
/// read-only.
fn environment(backend: &Backend) -> Vec<EnvVar> {
    let has_home = backend.env.iter().any(|variable| variable.name == "HOME");
    let home = backend.writable_dirs.first().filter(|_| !has_home);
    let home = home.map(|folder| EnvVar { name: "HOME".to_owned(), value: Some(folder.clone()), value_from: None });
    home.into_iter().chain(backend.env.iter().map(variable)).collect()
}

fn variable(BackendVariable { name, value, value_from }: &BackendVariable) -> EnvVar {
    let secret = value_from.as_ref().map(|source| EnvVarSource {
        secret_key_ref: Some(SecretKeySelector {
            name: source.secret_key_ref.name.clone(),
            key: source.secret_key_ref.key.clone(),
            optional: None,
        }),
        ..EnvVarSource::default()
    });
    EnvVar { name: name.clone(), value: value.clone().filter(|value| !value.is_empty()), value_from: secret }
}

fn mounts(backend: &Backend) -> Vec<VolumeMount> {
    let stdio = [mount(SHIM_VOLUME, SHIM_FOLDER, true), mount(SOCKET_VOLUME, SOCKET_FOLDER, false)];
    let writable = backend.writable_dirs.iter().enumerate();
    let writable = writable.map(|(index, folder)| mount(&writable_volume(index), folder, false));
    stdio.into_iter().filter(|_| is_stdio(backend)).chain(writable).collect()
}

fn writable_volume(index: usize) -> String {
    format!("backend-writable-{index}")
}

fn mount(volume: &str, folder: &str, is_read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: folder.to_owned(),
        // The API server stores false as an absent field.
        read_only: is_read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn empty(name: String, size: &str, medium: Option<String>) -> Volume {
    let source = EmptyDirVolumeSource { medium, size_limit: Some(Quantity(size.to_owned())) };
    Volume { name, empty_dir: Some(source), ..Volume::default() }
}

/// Returns a security context without any privileges.
fn restricted(user: Option<i64>) -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: user,
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        ..SecurityContext::default()
    }
}
