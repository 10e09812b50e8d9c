//! Order in which a pod's containers start and end. Init containers run one after another, each to its end. A sidecar
//! among them only has to start, and runs beside all later containers. After the pod's other containers have ended for
//! good, sidecars are stopped in reverse order.

use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Container, PodSpec};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::container::{self, LEAST_GRACE, Restart, unless_stopped};
use super::pod::{End, PodContext};
use super::state::{ContainerState, is_sidecar};

/// Start and stop of a sidecar. Its task holds the only receiver of the stop.
struct Sidecar<'a> {
    name: &'a str,
    turn: CancellationToken,
    end: End,
}

/// Runs the containers of a pod until all of them have ended for good.
pub(super) async fn run(pod: &PodContext, spec: &PodSpec) {
    let sidecars = spec.init_containers.iter().flatten().filter(|one| is_sidecar(one));
    let (sidecars, running): (Vec<_>, Vec<_>) = sidecars.map(|one| sidecar(pod, one)).unzip();
    let others = async {
        let mut others = pin!(run_others(pod, spec, &sidecars));
        let since = tokio::select! {
            biased;
            since = stopped(pod) => {
                others.await;
                since
            }
            () = &mut others => Instant::now(),
        };
        for sidecar in sidecars.iter().rev() {
            stop(pod, &sidecar.end, since).await;
        }
    };
    tokio::join!(others, join_all(running));
}

/// Sidecar, and its run from its start to its end.
fn sidecar<'a>(pod: &'a PodContext, container: &'a Container) -> (Sidecar<'a>, impl Future<Output = ()> + 'a) {
    let (end, stop) = watch::channel(None);
    let turn = CancellationToken::new();
    let run = {
        let turn = turn.clone();
        async move {
            if unless_stopped(&stop, turn.cancelled()).await.is_some() {
                container::run(pod, container, Restart::Always, stop).await;
            }
        }
    };
    (Sidecar { name: &container.name, turn, end }, run)
}

/// Starts the containers in order, and returns when all except the sidecars have ended for good.
async fn run_others(pod: &PodContext, spec: &PodSpec, sidecars: &[Sidecar<'_>]) {
    let restart = Restart::of(spec.restart_policy.as_deref());
    let mut sidecars = sidecars.iter();
    for one in spec.init_containers.iter().flatten() {
        let done = if is_sidecar(one) {
            let Some(sidecar) = sidecars.next() else { return };
            sidecar.turn.cancel();
            let started = pod.until(sidecar.name, ContainerState::is_started);
            unless_stopped(&pod.stop(), started).await.is_some()
        } else {
            container::run(pod, one, restart.of_init(), pod.stop()).await;
            pod.is(&one.name, ContainerState::has_succeeded)
        };
        if !done {
            return;
        }
    }
    join_all(spec.containers.iter().map(|one| container::run(pod, one, restart, pod.stop()))).await;
}

/// Returns when the pod has to stop.
async fn stopped(pod: &PodContext) -> Instant {
    unless_stopped(&pod.stop(), pending::<()>()).await;
    Instant::now()
}

/// Stops a sidecar within the rest of the pod's grace period, and returns when it has ended.
async fn stop(pod: &PodContext, sidecar: &End, since: Instant) {
    let mut stop = pod.stop();
    loop {
        let grace = stop.borrow_and_update().unwrap_or_else(|| pod.grace());
        sidecar.send_replace(Some(left(grace, since.elapsed())));
        tokio::select! {
            () = sidecar.closed() => return,
            // The sender lives as long as the pod.
            _ = stop.changed() => {}
        }
    }
}

/// Returns the rest of a grace period, but at least the minimum of a kubelet. Without a grace period it returns zero.
fn left(grace: Duration, elapsed: Duration) -> Duration {
    if grace.is_zero() { grace } else { grace.saturating_sub(elapsed).max(LEAST_GRACE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_gets_the_rest_of_the_grace_period_and_at_least_two_seconds_unless_it_is_zero() {
        let left = |grace, elapsed| left(Duration::from_secs(grace), Duration::from_secs(elapsed)).as_secs();
        assert_eq!([left(30, 10), left(30, 29), left(1, 5), left(0, 0), left(0, 5)], [20, 2, 2, 0, 0]);
    }
}
