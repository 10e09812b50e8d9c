//! One testbed for a whole test binary.

use std::future::Future;
use std::sync::OnceLock;

use anyhow::{Context, anyhow};

/// Shared value that is slow to start, on its own tokio runtime: every `#[tokio::test]` has another runtime, which ends
/// with the test. It is never dropped. The supervisor ends the processes when the test process ends.
///
/// ```no_run
/// # use testbed::{control_plane::ControlPlane, shared::Shared, supervisor::Supervisor};
/// static CONTROL_PLANE: Shared<ControlPlane> = Shared::new();
///
/// fn control_plane() -> anyhow::Result<&'static ControlPlane> {
///     CONTROL_PLANE.get_or_start(async || ControlPlane::start(&Supervisor::start()?).await)
/// }
/// ```
pub struct Shared<T>(OnceLock<Result<T, String>>);

impl<T: Send + Sync + 'static> Shared<T> {
    /// Creates a value that is not started.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the started value. The first caller starts it. The others wait and block their threads.
    ///
    /// # Errors
    /// Returns the error of `start` to every caller: it is not tried again.
    pub fn get_or_start<F, R>(&'static self, start: F) -> anyhow::Result<&'static T>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Future<Output = anyhow::Result<T>>,
    {
        let started = self.0.get_or_init(|| on_own_runtime(start).map_err(|error| format!("{error:#}")));
        started.as_ref().map_err(|error| anyhow!("{error}"))
    }
}

impl<T: Send + Sync + 'static> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts the value on a thread whose runtime continues for its remaining tasks.
fn on_own_runtime<T, F, R>(start: F) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = anyhow::Result<T>>,
{
    let (sender, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(sender.send(Err(error.into()))),
        };
        runtime.block_on(async {
            if sender.send(start().await).is_ok() {
                std::future::pending().await
            }
        })
    });
    started.recv().context("it panicked during its start")?
}
