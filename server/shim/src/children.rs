//! Children of this process: those that it started, and those that it adopted.
//!
//! An ended process keeps its id until its parent reaps it. Only this module and the owners of started children reap.
//! Therefore a signal to an id found here never reaches another process.

use std::fs;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getpid};

/// Returns whether a child has ended, and leaves it unreaped.
pub(crate) fn has_ended(child: Pid) -> bool {
    let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    // The library does not know the number of each signal, and fails for a child that an unknown one has killed.
    !matches!(waitid(Id::Pid(child), peek), Ok(WaitStatus::StillAlive))
}

/// Sends a signal to a group, whose leader is an unreaped child.
pub(crate) fn signal_group(leader: Pid, signal: Signal) {
    // It fails only if the group is empty.
    let _ = killpg(leader, signal);
}

/// Sends a signal to an unreaped child.
pub(crate) fn signal_one(child: Pid, signal: Signal) {
    let _ = kill(child, signal);
}

/// Reaps all ended children without an owner.
pub(crate) fn reap_others(has_owner: impl Fn(Pid) -> bool) {
    for child in all().into_iter().filter(|child| !has_owner(*child)) {
        let _ = waitpid(child, Some(WaitPidFlag::WNOHANG));
    }
}

/// Sends SIGKILL to each child without an owner, and reaps those that have ended. Returns the number of the others:
/// after the end of one of them, its own children may be adopted.
pub(crate) fn kill_others(has_owner: impl Fn(Pid) -> bool) -> usize {
    let mut left = 0;
    for child in all().into_iter().filter(|child| !has_owner(*child)) {
        signal_one(child, Signal::SIGKILL);
        if matches!(waitpid(child, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive)) {
            left += 1;
        }
    }
    left
}

/// Returns every unreaped child. Reads the process table, which is in memory.
fn all() -> Vec<Pid> {
    let own = getpid();
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Pid::from_raw))
        .filter(|process| parent(*process) == Some(own))
        .collect()
}

fn parent(process: Pid) -> Option<Pid> {
    parse_parent(&fs::read(format!("/proc/{process}/stat")).ok()?)
}

/// Reads the fourth field of `/proc/<pid>/stat` (proc_pid_stat(5)). The second is the program's name in parentheses,
/// which may contain any characters.
fn parse_parent(stat: &[u8]) -> Option<Pid> {
    let stat = String::from_utf8_lossy(stat);
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_read_with_any_program_name() {
        assert_eq!(parse_parent(b"12 (cat) S 7 12 12 0 -1"), Some(Pid::from_raw(7)));
        assert_eq!(parse_parent(b"12 (a) Z 1 (\xff) S 7 12 12 0 -1"), Some(Pid::from_raw(7)));
        assert_eq!(parse_parent(b"12"), None);
    }
}
