//! The processor time and the memory of a process, as Linux tells them in `/proc`.

use std::time::Duration;

use anyhow::Context;

/// Clock ticks of `/proc/<pid>/stat` in a second: the same on every Linux since 2.6.
const TICKS_A_SECOND: u64 = 100;

/// The memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Bytes resident now.
    pub(crate) resident: u64,
    /// Resident bytes that are no pages of the program's file, which the kernel can drop at any time.
    pub(crate) anonymous: u64,
    /// The most bytes that have been resident.
    pub(crate) peak: u64,
}

/// The memory that a process holds.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let bytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    let memory = || Some(Memory { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")?, peak: bytes("VmHWM:")? });
    memory().with_context(|| format!("{path} tells no memory"))
}

/// The processor time that a process has taken since its start.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // The name of the program, in parentheses, may hold anything.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // utime and stime, the 14th and 15th of all.
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>().with_context(|| path)?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}
