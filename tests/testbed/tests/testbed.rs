//! Tests of the testbed. They are one binary, so that they share one control plane.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy.toml allows them in tests, but does not recognise helper functions of tests"
)]

mod backend;
mod certificate_manager;
mod control_plane;
mod definitions;
mod edge;
mod gateway;
mod network_policy;
mod node;
mod pod_proxy;
mod pod_tunnels;
mod pods;
mod programs;
mod rolling_update;
mod sidecars;
mod supervisor;
mod workload_identity_webhook;

use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use testbed::control_plane::ControlPlane;
use testbed::shared::Shared;
use testbed::supervisor::Supervisor;

const SUPERVISOR: &str = env!("CARGO_BIN_EXE_testbed-supervisor");

/// Control plane of this binary.
fn control_plane() -> &'static ControlPlane {
    static CONTROL_PLANE: Shared<ControlPlane> = Shared::new();
    CONTROL_PLANE
        .get_or_start(async || {
            let begun = Instant::now();
            let plane = ControlPlane::start(&Supervisor::start_program(Path::new(SUPERVISOR))?).await?;
            println!("the control plane took {:?} to start", begun.elapsed());
            Ok(plane)
        })
        .unwrap()
}

/// Creates a namespace on the shared control plane.
async fn namespace() -> String {
    let namespaces: Api<Namespace> = Api::all(control_plane().client().unwrap());
    let new: Namespace =
        serde_json::from_value(serde_json::json!({ "metadata": { "generateName": "test-" } })).unwrap();
    namespaces.create(&PostParams::default(), &new).await.unwrap().metadata.name.unwrap()
}

/// Polls until the condition holds. After a minute, it fails the test with the awaited condition.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "waited too long until {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
