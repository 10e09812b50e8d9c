//! Cores of the bench's processes, chosen so that none of them slows the measured server.

use std::thread;

use anyhow::{Context, anyhow};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// Maximum number of workers of a server.
pub(super) const MOST_WORKERS: usize = 2;

/// Cores of a measurement, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cores {
    /// Cores of the server: one for each worker.
    pub(super) server: Vec<usize>,
    /// Core of the load.
    pub(super) load: usize,
    /// Core of this process with Entra and Graph.
    pub(super) graph: usize,
}

impl Cores {
    /// Chooses the cores for a server with this number of workers from the available ones.
    ///
    /// With three cores, load and Graph share one. With two cores, two workers share them with both.
    ///
    /// # Errors
    /// If there is one core alone.
    pub(super) fn plan(available: &[usize], workers: usize) -> anyhow::Result<Self> {
        let last = available.last().copied().filter(|_| available.len() > 1);
        let load = last.context("one core for the server and another for the load are needed")?;
        let free = available.get(MOST_WORKERS..).unwrap_or_default();
        Ok(Self {
            server: available.iter().copied().take(workers).collect(),
            load,
            graph: free.first().copied().unwrap_or(load),
        })
    }
}

/// Returns the cores of this thread.
///
/// # Errors
/// If the system does not tell.
pub(super) fn available() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Restricts this thread, and all threads and processes that it starts later, to these cores.
///
/// # Errors
/// If the system does not allow it.
pub(super) fn pin(cores: &[usize]) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core).context("the number of a core")?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("sched_setaffinity")
}

/// Starts a process on these cores. It inherits them from the thread that starts it.
pub(super) fn spawn_on(on: &[usize], mut command: Command) -> anyhow::Result<Child> {
    let runtime = Handle::current();
    let spawn = || {
        let _runtime = runtime.enter();
        pin(on)?;
        Ok(command.spawn()?)
    };
    thread::scope(|scope| scope.spawn(spawn).join().map_err(|_| anyhow!("the thread that starts it panicked")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_has_its_own_core_if_enough_cores_exist() {
        let plan = |available: &[usize], workers| {
            let Cores { server, load, graph } = Cores::plan(available, workers).unwrap();
            (server, load, graph)
        };
        assert_eq!(plan(&[0, 1], 1), (vec![0], 1, 1));
        assert_eq!(plan(&[0, 1], 2), (vec![0, 1], 1, 1));
        assert_eq!(plan(&[4, 5, 7], 2), (vec![4, 5], 7, 7));
        assert_eq!(plan(&[0, 1, 2, 3], 2), (vec![0, 1], 3, 2));
        assert_eq!(plan(&[0, 1, 2, 3, 4, 5, 6, 7], 1), (vec![0], 7, 2));
        assert!(Cores::plan(&[0], 1).is_err());
    }
}
