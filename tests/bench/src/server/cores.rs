//! The cores that processes of the bench run on, so that none of them slows the server that is measured.

use std::thread;

use anyhow::{Context, anyhow};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

/// Most workers of a server.
pub(super) const MOST_WORKERS: usize = 2;

/// The cores of a measurement, by number.
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
    /// The cores for a server with so many workers, out of those that are available.
    ///
    /// Load and Graph share a core where there are three, and two workers share theirs with both where there are two.
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

/// The cores that this thread may run on.
///
/// # Errors
/// If the system does not tell.
pub(super) fn available() -> anyhow::Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
    Ok((0..CpuSet::count()).filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Keeps this thread, and all threads and processes that it starts from now on, on these cores.
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

/// Starts a process on these cores: it has those of the thread that starts it.
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
    fn the_load_has_a_core_of_its_own_wherever_there_is_one() {
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
