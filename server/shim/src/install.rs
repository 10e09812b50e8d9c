//! Copies the program into a directory, for containers whose image has no copy command.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::log::SHIM;

/// All users may run the copy, since the user of a backend's container is not known.
const MODE: u32 = 0o755;

/// Copies the program into a directory atomically, and runs the copy once to check that it works.
///
/// # Errors
/// If the directory cannot be written, or programs in it cannot be run. The message says what to change.
pub fn install(directory: &Path) -> anyhow::Result<()> {
    let (program, partial) = (directory.join(SHIM), directory.join(format!(".{SHIM}.new")));
    copy(&partial).and_then(|()| fs::rename(&partial, &program)).with_context(|| {
        format!(
            "cannot write {}; mount an emptyDir there, not read-only, and give the pod an fsGroup",
            program.display()
        )
    })?;
    run(&program).with_context(|| {
        format!(
            "cannot run {}; if this node mounts emptyDirs noexec, let the McpServer run on other nodes, or use a backend \
             with spec.backend.transport: StreamableHttp",
            program.display()
        )
    })
}

fn copy(target: &Path) -> io::Result<()> {
    let mut own = File::open("/proc/self/exe")?;
    let mut copy = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(target)?;
    io::copy(&mut own, &mut copy)?;
    // The umask may have removed some of the mode.
    copy.set_permissions(Permissions::from_mode(MODE))
}

fn run(program: &Path) -> anyhow::Result<()> {
    let status = Command::new(program).arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).status()?;
    ensure!(status.success(), "{status}");
    Ok(())
}
