//! State of a pod's containers on the node.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

/// Pod on the node.
#[derive(Debug, Clone, Default)]
pub(super) struct PodState {
    /// True if its address is claimed and its volumes exist.
    pub(super) prepared: bool,
    /// True if it is being deleted, or the node stops.
    pub(super) terminating: bool,
    pub(super) init_containers: Vec<ContainerState>,
    pub(super) containers: Vec<ContainerState>,
}

/// Container of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ContainerState {
    pub(super) name: String,
    /// True for a sidecar: an init container with `restartPolicy: Always`, which runs beside the later containers.
    pub(super) is_sidecar: bool,
    pub(super) image: String,
    /// Id of the image, empty before it exists.
    pub(super) image_id: String,
    pub(super) restarts: i32,
    pub(super) now: Phase,
    /// Last end, if the container runs or waits again.
    pub(super) before: Option<Termination>,
}

/// Phase of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Waiting {
        reason: &'static str,
        message: Option<String>,
    },
    Running {
        id: String,
        since: Timestamp,
        /// True after its startup probe has passed.
        started: bool,
        ready: bool,
    },
    Terminated(Termination),
}

/// End of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Termination {
    pub(super) id: String,
    pub(super) exit_code: i32,
    pub(super) reason: &'static str,
    pub(super) message: Option<String>,
    pub(super) started: Timestamp,
    pub(super) finished: Timestamp,
}

impl Phase {
    pub(super) fn waiting(reason: &'static str) -> Self {
        Self::Waiting { reason, message: None }
    }
}

impl PodState {
    /// Returns the initial state of a pod.
    pub(super) fn new(spec: &PodSpec) -> Self {
        let waiting = |reason| {
            move |container: &Container| ContainerState {
                name: container.name.clone(),
                is_sidecar: is_sidecar(container),
                image: container.image.clone().unwrap_or_default(),
                image_id: String::new(),
                restarts: 0,
                now: Phase::waiting(reason),
                before: None,
            }
        };
        let init_containers = spec.init_containers.as_deref().unwrap_or_default();
        let reason = if init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        Self {
            init_containers: init_containers.iter().map(waiting("PodInitializing")).collect(),
            containers: spec.containers.iter().map(waiting(reason)).collect(),
            ..Self::default()
        }
    }

    /// Returns the container of this name.
    pub(super) fn container(&self, name: &str) -> Option<&ContainerState> {
        let mut all = self.init_containers.iter().chain(&self.containers);
        all.find(|container| container.name == name)
    }

    /// Returns the container of this name, for changes.
    pub(super) fn container_mut(&mut self, name: &str) -> Option<&mut ContainerState> {
        let mut all = self.init_containers.iter_mut().chain(&mut self.containers);
        all.find(|container| container.name == name)
    }
}

/// Returns true for a sidecar.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

impl ContainerState {
    /// Returns true for a running container whose startup probe has passed.
    pub(super) fn is_started(&self) -> bool {
        matches!(self.now, Phase::Running { started: true, .. })
    }

    pub(super) fn is_ready(&self) -> bool {
        matches!(self.now, Phase::Running { ready: true, .. })
    }

    /// Returns true for a container that ended with exit code 0, and is not restarted.
    pub(super) fn has_succeeded(&self) -> bool {
        matches!(&self.now, Phase::Terminated(end) if end.exit_code == 0)
    }
}
