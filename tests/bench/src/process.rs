//! Processor time and memory of a process, from Linux's `/proc`.

use std::time::Duration;

use anyhow::Context;

/// Clock ticks of `/proc/<pid>/stat` per second. It is the same on every Linux since 2.6.
const TICKS_A_SECOND: u64 = 100;

/// The memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Bytes that are resident now.
    pub(crate) resident: u64,
    /// Resident bytes without pages of the program's file, which the kernel can drop at any time.
    pub(crate) anonymous: u64,
    /// Maximum of resident bytes.
    pub(crate) peak: u64,
}

/// Returns the memory of a process.
pub(crate) fn memory(pid: u32) -> anyhow::Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let bytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    let memory = || Some(Memory { resident: bytes("VmRSS:")?, anonymous: bytes("RssAnon:")?, peak: bytes("VmHWM:")? });
    memory().with_context(|| format!("{path} has no memory figures"))
}

/// Returns the processor time of a process since its start.
pub(crate) fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    // utime and stime, the 14th and 15th field.
    let ticks = fields(&stat).skip(11).take(2).map(str::parse::<u64>);
    let ticks = ticks.sum::<Result<u64, _>>().with_context(|| path)?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_A_SECOND))
}

/// Returns a process and its descendants, itself first.
pub(crate) fn family(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Some processes end meanwhile.
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{child}/stat")) else { continue };
        parents
            .extend(fields(&stat).nth(1).and_then(|parent| parent.parse::<u32>().ok()).map(|parent| (parent, child)));
    }
    let (mut family, mut looked_at) = (vec![pid], 0);
    while let Some(parent) = family.get(looked_at).copied() {
        family.extend(parents.iter().filter(|(of, _)| *of == parent).map(|(_, child)| *child));
        looked_at += 1;
    }
    Ok(family)
}

/// Returns the fields of `/proc/<pid>/stat` from the third on. The name of the program before them, in parentheses, may
/// contain anything.
fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit(')').next().unwrap_or_default().split_whitespace()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::family;

    #[test]
    fn the_family_of_a_process_contains_only_its_descendants() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let own = family(std::process::id()).unwrap();
        assert_eq!(own.first(), Some(&std::process::id()));
        assert!(own.contains(&child.id()));
        assert_eq!(family(child.id()).unwrap(), [child.id()]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
