//! The containers of a backend: a sidecar with its image, and, where it speaks over stdio, one before it that puts the shim in
//! place. Neither has a token, or a volume of the server's.

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
    objects::names::{BACKEND, INSTALL_SHIM},
};

/// The annotation by which azure-workload-identity's webhook leaves containers alone: names with semicolons between.
pub(super) const SKIP_CONTAINERS: &str = "azure.workload.identity/skip-containers";

const SHIM_VOLUME: &str = "backend-shim";
const SHIM_FOLDER: &str = "/run/mcp-entra/shim";
/// The shim in the server's image.
const SHIM_PROGRAM: &str = "/mcp-entra-shim";

const SOCKET_VOLUME: &str = "backend-socket";
const SOCKET_FOLDER: &str = "/run/mcp-entra/backend";
const SOCKET: &str = "/run/mcp-entra/backend/backend.sock";

/// The most processes of a backend in a pod: twice the sessions that the server keeps, since those which it has ended take
/// their time.
const PROCESSES: &str = "128";
/// Size of each folder that the backend may write to.
const WRITABLE_SIZE: &str = "256Mi";

const BACKEND_RESOURCES: Defaults =
    Defaults { requests: [("cpu", "50m"), ("memory", "128Mi")], limits: [("memory", "512Mi")] };
const SHIM_RESOURCES: Defaults =
    Defaults { requests: [("cpu", "10m"), ("memory", "16Mi")], limits: [("memory", "64Mi")] };

/// Returns the containers that start before the server's, in their order.
pub(super) fn init_containers(server: &Validated) -> Option<Vec<Container>> {
    let backend = server.backend.as_ref()?;
    let install = (backend.transport == Transport::Stdio).then(|| install_shim(server));
    Some(install.into_iter().chain([sidecar(backend)]).collect())
}

/// Names of the containers that get no token of Entra's, as azure-workload-identity's webhook reads them.
pub(super) fn skipped(backend: &Backend) -> String {
    match backend.transport {
        Transport::Stdio => format!("{BACKEND};{INSTALL_SHIM}"),
        Transport::StreamableHttp => BACKEND.to_owned(),
    }
}

/// Returns the volumes of the backend, which the server does not mount.
pub(super) fn volumes(backend: &Backend) -> Vec<Volume> {
    let shim = is_stdio(backend).then(|| empty(SHIM_VOLUME.to_owned(), "10Mi", None));
    let writable = (0..backend.writable_dirs.len()).map(|index| empty(writable_volume(index), WRITABLE_SIZE, None));
    shim.into_iter().chain(writable).collect()
}

/// Returns the volume with the socket that joins backend and server, with the folder that both mount it at.
pub(super) fn socket_volume(backend: &Backend) -> Option<(&'static str, Volume)> {
    is_stdio(backend).then(|| (SOCKET_FOLDER, empty(SOCKET_VOLUME.to_owned(), "1Mi", Some("Memory".to_owned()))))
}

/// The server's arguments about the backend.
pub(super) fn arguments(backend: &Backend) -> Vec<String> {
    match is_stdio(backend) {
        true => vec!["--backend-socket".to_owned(), SOCKET.to_owned()],
        false => Vec::new(),
    }
}

fn is_stdio(backend: &Backend) -> bool {
    backend.transport == Transport::Stdio
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
        // Starts before the server and ends after it, which can answer open calls meanwhile. No startup probe: it would hold
        // the server back, which says itself that its backend does not answer.
        restart_policy: Some("Always".to_owned()),
        env: (!environment.is_empty()).then_some(environment),
        resources: Some(resources::requirements(backend.resources.as_ref(), &BACKEND_RESOURCES)),
        security_context: Some(restricted(backend.run_as_user)),
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: (!mounts.is_empty()).then_some(mounts),
        ..Container::default()
    }
}

/// The variables of the spec. Programs that find no home write beside themselves, where nothing can be written.
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
        // False is what is absent where it is stored.
        read_only: is_read_only.then_some(true),
        ..VolumeMount::default()
    }
}

fn empty(name: String, size: &str, medium: Option<String>) -> Volume {
    let source = EmptyDirVolumeSource { medium, size_limit: Some(Quantity(size.to_owned())) };
    Volume { name, empty_dir: Some(source), ..Volume::default() }
}

/// The rights of a container: none.
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
