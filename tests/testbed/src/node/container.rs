//! Lifecycle of one container: planned, started, probed, restarted with back-off, ended gracefully.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container;
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::plan::{self, Process, Surroundings};
use super::pod::PodContext;
use super::probes::{Finding, Prober, Purpose};
use super::sources::{Sources, of_environment};
use super::state::{Phase, Termination};
use super::user;
use super::{Image, Severity};
use crate::supervisor::{Child, Command, ExitStatus};

/// Interval between checks for missing requirements of a container.
const CONFIGURATION_RETRY: Duration = Duration::from_secs(2);
/// Delay between an image's first failed pull and the back-off.
const IMAGE_RETRY: Duration = Duration::from_secs(1);
/// Time for which a failed start is shown, before the first restart.
const START_RETRY: Duration = Duration::from_secs(1);
/// Minimum time to stop a container, even if others have used up the grace period of the pod.
pub(super) const LEAST_GRACE: Duration = Duration::from_secs(2);
/// Reason of the end of a container that did not start.
const START_ERROR: &str = "StartError";
/// Maximum size of a log in a termination message, as in a kubelet.
const MESSAGE_BYTES: usize = 2048;
const MESSAGE_LINES: usize = 80;

/// Restart rule of a container that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

impl Restart {
    pub(super) fn of(policy: Option<&str>) -> Self {
        match policy {
            Some("OnFailure") => Self::OnFailure,
            Some("Never") => Self::Never,
            _ => Self::Always,
        }
    }

    /// Rule of an init container, which is finished after its success.
    pub(super) fn of_init(self) -> Self {
        if self == Self::Always { Self::OnFailure } else { self }
    }

    fn again(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

/// Back-off of the kubelet before a restart: none at first, then 10 s, doubling to 5 min. It is reset after a run of 10
/// min.
#[derive(Debug, Default)]
struct BackOff(Duration);

impl BackOff {
    const FIRST: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_secs(300);
    const FORGOTTEN: Duration = Duration::from_secs(600);

    fn after(&mut self, ran: Duration) -> Duration {
        let wait = if ran >= Self::FORGOTTEN { Duration::ZERO } else { self.0 };
        self.0 = (wait * 2).clamp(Self::FIRST, Self::LONGEST);
        wait
    }
}

/// Stop of the pod, with the time that its processes get: `None` until then. It may be shortened.
pub(super) type Stop = watch::Receiver<Option<Duration>>;

/// Waits for `work`, at most until the pod's stop.
pub(super) async fn unless_stopped<T>(stop: &Stop, work: impl Future<Output = T>) -> Option<T> {
    let mut stop = stop.clone();
    tokio::select! {
        biased;
        // A dropped sender stops the pod.
        _ = stop.wait_for(Option::is_some) => None,
        result = work => Some(result),
    }
}

/// Runs the container until it has ended for good or is stopped. A sidecar is stopped by itself, other containers with
/// their pod. After the stop, nothing is started.
pub(super) async fn run(pod: &PodContext, container: &Container, restart: Restart, stop: Stop) {
    let Some(image) = unless_over(pod, &stop, image(pod, container)).await else {
        return;
    };
    let mut back_off = BackOff::default();
    loop {
        let Some(process) = unless_over(pod, &stop, planned(pod, container, &image)).await else {
            return;
        };
        let begun = Instant::now();
        let end = once(pod, container, process, &stop).await;
        pod.update(&container.name, |state| state.now = Phase::Terminated(end.clone()));
        let is_over = stop.borrow().is_some() || pod.stop().borrow().is_some();
        if is_over || !restart.again(end.exit_code) {
            return;
        }
        let wait = back_off.after(begun.elapsed());
        if unless_over(pod, &stop, hold_back(pod, container, end, wait)).await.is_none() {
            return;
        }
        pod.update(&container.name, |state| state.restarts += 1);
    }
}

/// Waits for `work`, at most until the end of the container or the pod.
async fn unless_over<T>(pod: &PodContext, stop: &Stop, work: impl Future<Output = T>) -> Option<T> {
    unless_stopped(&pod.stop(), unless_stopped(stop, work)).await.flatten()
}

/// Publishes how the container ended, and waits until it may be restarted.
async fn hold_back(pod: &PodContext, container: &Container, end: Termination, wait: Duration) {
    if end.reason == START_ERROR {
        pod.update(&container.name, |state| {
            state.now = Phase::Waiting { reason: "RunContainerError", message: end.message.clone() };
            state.before = Some(end.clone());
        });
        sleep(START_RETRY).await;
    }
    if !wait.is_zero() {
        say_back_off(pod, container, wait);
    }
    pod.update(&container.name, |state| state.before = Some(end));
    sleep(wait).await;
}

fn say_back_off(pod: &PodContext, container: &Container, wait: Duration) {
    let who = format!("{}_{}({})", pod.pod.name_any(), pod.namespace(), pod.uid());
    let name = &container.name;
    let note = format!("Back-off restarting failed container {name} in pod {who}");
    pod.event(Severity::Warning, "BackOff", note);
    pod.update(name, |state| {
        state.now = Phase::Waiting {
            reason: "CrashLoopBackOff",
            message: Some(format!(
                "back-off {} restarting failed container={name} pod={who}",
                minutes_and_seconds(wait)
            )),
        };
    });
}

/// Formats a duration as Go does: `10s`, `2m40s`.
fn minutes_and_seconds(time: Duration) -> String {
    match (time.as_secs() / 60, time.as_secs() % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// Returns the container's image, as soon as it exists.
async fn image(pod: &PodContext, container: &Container) -> Image {
    let reference = container.image.as_deref().unwrap_or_default();
    let mut told = false;
    loop {
        if let Some(image) = pod.node.image(reference) {
            pod.update(&container.name, |state| state.image_id = image.id());
            return image;
        }
        if !std::mem::replace(&mut told, true) {
            say_missing(pod, container, reference).await;
        }
        sleep(IMAGE_RETRY).await;
    }
}

async fn say_missing(pod: &PodContext, container: &Container, image: &str) {
    let error = format!(
        "rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": \
         failed to resolve reference \"{image}\": {image}: not found"
    );
    let wait = |reason, message| {
        pod.update(&container.name, |state| {
            state.now = Phase::Waiting { reason, message: Some(message) };
        });
    };
    pod.event(Severity::Warning, "Failed", format!("Failed to pull image \"{image}\": {error}"));
    wait("ErrImagePull", error.clone());
    sleep(IMAGE_RETRY).await;
    let back_off = format!("Back-off pulling image \"{image}\"");
    pod.event(Severity::Normal, "BackOff", back_off.clone());
    wait("ImagePullBackOff", format!("{back_off}: ErrImagePull: {error}"));
}

/// Plans the process. It tries again until everything that the environment refers to exists.
async fn planned(pod: &PodContext, container: &Container, image: &Image) -> Process {
    loop {
        let references = of_environment(container);
        let outcome = match Sources::fetch(&pod.node.client, &pod.namespace(), references).await {
            Ok(sources) => {
                let (sources, volumes, address) = (&sources, &pod.volumes_folder(), pod.address.listening());
                let surroundings = Surroundings { sources, volumes, address };
                let process = plan::process(&pod.pod, container, image, &surroundings);
                process.map_err(anyhow::Error::from).and_then(|process| {
                    user::verify(&pod.pod, container, &image.user)?;
                    Ok(process)
                })
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(process) => return process,
            Err(error) => {
                pod.event(Severity::Warning, "Failed", format!("Error: {error:#}"));
                pod.update(&container.name, |state| {
                    state.now =
                        Phase::Waiting { reason: "CreateContainerConfigError", message: Some(format!("{error:#}")) };
                });
                sleep(CONFIGURATION_RETRY).await;
            }
        }
    }
}

/// Runs the process once. It ends by itself, by a failed probe, or by the pod's stop.
async fn once(pod: &PodContext, container: &Container, process: Process, stop: &Stop) -> Termination {
    let started = Timestamp::now();
    let id = format!("testbed://{}", Uuid::new_v4().simple());
    let log = pod.next_log(&container.name);
    let child = match start(pod, &process, &log).await {
        Ok(child) => child,
        Err(error) => {
            let message = format!("failed to create containerd task: {error:#}");
            pod.event(Severity::Warning, "Failed", format!("Error: {message}"));
            return Termination {
                id,
                exit_code: 128,
                reason: START_ERROR,
                message: Some(message),
                started,
                finished: Timestamp::now(),
            };
        }
    };
    pod.event(Severity::Normal, "Started", format!("Started container {}", container.name));
    pod.update(&container.name, |state| {
        state.now = Phase::Running { id: id.clone(), since: started, started: false, ready: false };
    });
    let status = until_end(pod, container, &child, stop).await;
    let exit_code = exit_code(status);
    let wants_log = container.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    Termination {
        id,
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { "Error" },
        message: (wants_log && exit_code != 0).then(|| last_words(&log)).flatten(),
        started,
        finished: Timestamp::now(),
    }
}

async fn start(pod: &PodContext, process: &Process, log: &Path) -> anyhow::Result<Child> {
    if let Some(folder) = log.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if let Some(account) = &process.account {
        account.write(&pod.node.server, &pod.namespace())?;
    }
    let mut command =
        Command::new(&process.program, log).args(process.arguments.iter().cloned()).envs(process.environment.clone());
    if let Some(folder) = &process.folder {
        command = command.folder(folder);
    }
    pod.node.supervisor.spawn(command).await
}

async fn until_end(pod: &PodContext, container: &Container, child: &Child, stop: &Stop) -> ExitStatus {
    let name = &container.name;
    let found = |finding| match finding {
        Finding::Started => pod.update(name, |state| {
            if let Phase::Running { started, .. } = &mut state.now {
                *started = true;
            }
        }),
        Finding::Ready(now) => pod.update(name, |state| {
            if let Phase::Running { ready, .. } = &mut state.now {
                *ready = now;
            }
        }),
        Finding::Failed(purpose, why) => {
            pod.event(Severity::Warning, "Unhealthy", format!("{purpose:?} probe failed: {why}"));
        }
    };
    let probed = async {
        match Prober::new(container, pod.address.listening()) {
            Ok(prober) => prober.run(found).await,
            Err(error) => {
                pod.event(Severity::Warning, "Unhealthy", format!("no probe can run: {error:#}"));
                std::future::pending().await
            }
        }
    };
    let failed = tokio::select! {
        status = child.exited() => return status,
        failed = unless_stopped(stop, probed) => failed,
    };
    // The last one of: the grace period of the probe, of the pod after a failed probe, of the deletion.
    let grace = match (&failed, *stop.borrow()) {
        (_, Some(grace)) => grace,
        (Some((_, probe)), None) => probe.termination_grace_period_seconds.map_or(pod.grace(), seconds),
        (None, None) => Duration::ZERO,
    };
    let why = match failed {
        Some((purpose, _)) => format!(
            "Container {name} failed {} probe, will be restarted",
            match purpose {
                Purpose::Startup => "startup",
                Purpose::Readiness => "readiness",
                Purpose::Liveness => "liveness",
            }
        ),
        None => format!("Stopping container {name}"),
    };
    pod.event(Severity::Normal, "Killing", why);
    end(container, child, stop, grace).await
}

/// Ends the process: the preStop sleep, SIGTERM, the rest of the grace period, SIGKILL. Without a grace period, only
/// SIGKILL.
async fn end(container: &Container, child: &Child, stop: &Stop, mut grace: Duration) -> ExitStatus {
    if grace.is_zero() {
        return child.kill().await;
    }
    let pre_stop = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    if let Some(pause) = pre_stop.and_then(|hook| hook.sleep.as_ref()) {
        let pause = seconds(pause.seconds).min(grace);
        tokio::select! {
            status = child.exited() => return status,
            () = shortened(stop, grace) => {}
            () = sleep(pause) => {}
        }
        grace = grace.saturating_sub(pause).max(LEAST_GRACE);
    }
    loop {
        tokio::select! {
            status = child.terminate(grace) => return status,
            () = shortened(stop, grace) => grace = stop.borrow().unwrap_or_default(),
        }
    }
}

/// Waits until the pod has to stop within less than `grace`.
async fn shortened(stop: &Stop, grace: Duration) {
    let mut stop = stop.clone();
    if stop.wait_for(|new| new.is_some_and(|new| new < grace)).await.is_err() {
        std::future::pending().await
    }
}

pub(super) fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
}

/// Exit code as in a container runtime: 128 plus the signal's number after a signal.
fn exit_code(status: ExitStatus) -> i32 {
    let by_signal = status.signal.map(|signal| 128 + signal);
    status.code.or(by_signal).unwrap_or(137)
}

/// Returns the end of a log; `None` if it is empty.
fn last_words(log: &Path) -> Option<String> {
    let content = std::fs::read(log).ok()?;
    let start = content.len().saturating_sub(MESSAGE_BYTES);
    let text = String::from_utf8_lossy(content.get(start..)?);
    let lines: Vec<_> = text.lines().collect();
    let last = lines.get(lines.len().saturating_sub(MESSAGE_LINES)..)?;
    let words = last.join("\n");
    (!words.is_empty()).then_some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_grows_and_is_reset_after_ten_minutes() {
        let mut back_off = BackOff::default();
        let mut after = |ran| back_off.after(Duration::from_secs(ran)).as_secs();
        let waits: Vec<_> = (0..8).map(|_| after(1)).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(after(599), 300);
        assert_eq!(after(600), 0);
        assert_eq!(after(1), 10);
    }

    #[test]
    fn the_restart_policy_decides_by_the_exit_code() {
        for (policy, init, after_success, after_failure) in [
            (Some("Always"), false, true, true),
            (None, false, true, true),
            (Some("OnFailure"), false, false, true),
            (Some("Never"), false, false, false),
            (Some("Always"), true, false, true),
            (Some("Never"), true, false, false),
        ] {
            let restart = Restart::of(policy);
            let restart = if init { restart.of_init() } else { restart };
            assert_eq!((restart.again(0), restart.again(1)), (after_success, after_failure), "{policy:?} {init}");
        }
    }

    #[test]
    fn exit_codes_are_those_of_a_container_runtime() {
        let code = |code, signal| exit_code(ExitStatus { code, signal });
        assert_eq!(code(Some(3), None), 3);
        assert_eq!(code(None, Some(9)), 137);
        assert_eq!(code(None, None), 137);
    }

    #[test]
    fn the_termination_message_is_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(last_words(&log), None);
        let lines: Vec<_> = (0..100).map(|line| format!("line {line}")).collect();
        std::fs::write(&log, lines.join("\n")).unwrap();
        let words = last_words(&log).unwrap();
        assert!(words.starts_with("line 20\n") && words.ends_with("\nline 99"), "{words}");
        std::fs::write(&log, "x".repeat(5000)).unwrap();
        assert_eq!(last_words(&log).unwrap().len(), MESSAGE_BYTES);
    }

    #[test]
    fn durations_are_printed_as_the_kubelet_prints_them() {
        let printed = [10, 60, 160].map(|time| minutes_and_seconds(Duration::from_secs(time)));
        assert_eq!(printed, ["10s", "1m0s", "2m40s"]);
    }
}
