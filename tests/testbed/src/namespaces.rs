//! Namespaces of a node, for its network, mounts and processes. The processes in them, and their changes to interfaces,
//! routes, packet filters and mounts, end with the namespaces, however those end.
//!
//! There is a chain of processes, each the parent of the next. The first is the caller of [`enter`]. The second is the
//! keeper: it makes the namespaces, and ends them when its standard input closes. The third is the first process
//! inside: it covers the machine's files that a node would change, and the kernel ends all other processes with it. The
//! last is the program. No namespace removes control groups and files: the keeper does.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, Uid};
use tempfile::TempDir;

/// First argument of the keeper. It selects the role of a process of a program that calls [`enter`].
pub const KEEPER: &str = "keep-namespaces";
/// First argument of the first process inside. See [`KEEPER`].
pub const FIRST: &str = "first-in-namespaces";

/// This very program, even if cargo has replaced its file meanwhile.
const OURSELVES: &str = "/proc/self/exe";

/// Prefix of the names of our control groups. The keeper's process id follows.
const CONTROL_GROUP: &str = "mcp-entra-node-";
/// Environment variable with the name of the control group, for processes inside.
const GROUP_VARIABLE: &str = "TESTBED_CONTROL_GROUP";
/// Folders of the machine that a node would write to. Inside they are empty and in memory.
const COVERED: [&str; 4] = ["/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet"];
/// Kernel settings that a kubelet changes, and that no namespace covers. The kubelet finds its values, and the
/// machine's values stay.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];
/// Limit of the time between the end of the last process in a control group and the kernel's notice of it, on a busy
/// machine.
const EMPTIED: Duration = Duration::from_secs(20);

/// Interval between two checks of the first process, in milliseconds.
const POLL: u8 = 100;

/// Runs this very program with these arguments in new namespaces until it ends. It shares our output. Only `root` can
/// call it.
///
/// # Errors
/// If namespaces cannot be made. The keeper's output is on stderr.
pub fn enter(arguments: &[String]) -> anyhow::Result<ExitStatus> {
    ensure_root()?;
    let mut keeper = Command::new(OURSELVES)
        .arg(KEEPER)
        .args(arguments)
        .stdin(Stdio::piped())
        // Out of the terminal's foreground group: Ctrl-C ends us, and the keeper waits for our end.
        .process_group(0)
        .spawn()
        .context("start the keeper of the namespaces")?;
    // Open until the keeper has ended.
    let input = keeper.stdin.take();
    let status = keeper.wait().context("wait for the keeper of the namespaces")?;
    drop(input);
    Ok(status)
}

/// Returns whether namespaces can be made.
///
/// # Errors
/// If we are not root.
pub fn ensure_root() -> anyhow::Result<()> {
    ensure!(Uid::effective().is_root(), "only root can make the namespaces of a real node: run it as root");
    Ok(())
}

/// Keeper: makes the namespaces, runs the first process in them, and removes control groups and files at the end.
///
/// # Errors
/// If a namespace, a control group or a folder cannot be made.
pub fn keep(arguments: &[String]) -> anyhow::Result<i32> {
    let hierarchies = hierarchies()?;
    remove_stale(&hierarchies);
    let name = format!("{CONTROL_GROUP}{}", std::process::id());
    let groups: Vec<PathBuf> = hierarchies.iter().map(|hierarchy| hierarchy.join(&name)).collect();
    for group in &groups {
        fs::create_dir(group).with_context(|| format!("make the control group {}", group.display()))?;
    }
    // Processes that are killed inside leave their files here. The name is short, since the path of a socket has at
    // most 107 bytes.
    let files =
        tempfile::Builder::new().prefix("mcp-entra-").tempdir().context("make a folder: is TMPDIR writable?")?;
    // For children only, and before there is a second thread. In the other namespaces, the keeper would keep the mounts
    // alive, which must be gone before the files are removed.
    let ended = unshare(CloneFlags::CLONE_NEWPID)
        .context("make a process namespace")
        .and_then(|()| run_first(&name, files.path(), arguments));
    let left: Vec<_> =
        groups.iter().filter_map(|group| remove_group(group).err()).chain(remove_files(files).err()).collect();
    left.iter().for_each(|error| eprintln!("left behind: {error:#}"));
    // Remaining control groups or files are a failure, too.
    ended.map(|code| code.max(i32::from(!left.is_empty())))
}

fn run_first(group: &str, files: &Path, arguments: &[String]) -> anyhow::Result<i32> {
    let first = Command::new(OURSELVES)
        .arg(FIRST)
        .env(GROUP_VARIABLE, group)
        .env("TMPDIR", files)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .context("start the first process of the namespaces")?;
    let status = until_unwanted(first)?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// Waits for the end of the first process, and kills it when our standard input closes. It uses no thread: the kernel
/// makes none in a process whose children are in another process namespace.
fn until_unwanted(mut first: Child) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = first.try_wait()? {
            return Ok(status);
        }
        if is_closed(std::io::stdin(), POLL.into())? {
            // The kernel kills every process of a namespace with the first one, before that can be waited for.
            first.kill()?;
            return Ok(first.wait()?);
        }
    }
}

/// Returns whether the other end of the pipe is closed, or closes within this time. Nothing is ever written to the
/// pipe.
fn is_closed(input: std::io::Stdin, within: PollTimeout) -> anyhow::Result<bool> {
    let mut files = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    match poll(&mut files, within) {
        Ok(0) | Err(Errno::EINTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(error).context("wait for the standard input's end"),
    }
}

/// First process inside: covers the files that a node would change, runs the program, and reaps orphaned processes
/// until the program ends.
///
/// # Errors
/// If something cannot be mounted or the program does not start.
pub fn first(arguments: &[String]) -> anyhow::Result<i32> {
    // This process ends with the keeper, and all others with this process.
    set_pdeathsig(Signal::SIGKILL)?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).context("make mount and network namespaces")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("keep mounts to ourselves")?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), none).context("mount /proc")?;
    for folder in COVERED {
        fs::create_dir_all(folder).with_context(|| format!("make {folder}"))?;
        mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
            .with_context(|| format!("cover {folder}"))?;
    }
    for (setting, value) in KERNEL_SETTINGS {
        let ours = std::env::temp_dir().join(setting.replace('/', "-"));
        fs::write(&ours, value).with_context(|| format!("write {}", ours.display()))?;
        replace_file(&format!("/proc/sys/{setting}"), &ours)?;
    }
    let program = Command::new(OURSELVES).args(arguments).spawn().context("start the program inside")?;
    let program = Pid::from_raw(i32::try_from(program.id())?);
    loop {
        match wait().context("wait for processes")? {
            WaitStatus::Exited(pid, code) if pid == program => return Ok(code),
            WaitStatus::Signaled(pid, signal, _) if pid == program => return Ok(128 + signal as i32),
            _ => {}
        }
    }
}

/// Returns the control group of these namespaces, as a path below the mount of control groups.
///
/// # Errors
/// If the process is not in namespaces of our own.
pub(crate) fn control_group() -> anyhow::Result<String> {
    std::env::var(GROUP_VARIABLE).context("not in namespaces of our own")
}

/// Replaces a file of the machine with one of ours.
///
/// # Errors
/// If it cannot be mounted, as outside namespaces of our own.
pub fn replace_file(theirs: &str, ours: &Path) -> anyhow::Result<()> {
    let none = None::<&str>;
    // A link into a covered folder, such as systemd's /etc/resolv.conf, has no target now.
    if let (false, Ok(target)) = (Path::new(theirs).exists(), fs::read_link(theirs)) {
        let target = Path::new(theirs).parent().unwrap_or(Path::new("/")).join(target);
        fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
        fs::write(&target, "").with_context(|| format!("make {}", target.display()))?;
    }
    mount(Some(ours), theirs, none, MsFlags::MS_BIND, none).with_context(|| format!("replace {theirs}"))
}

/// Mounts of control groups: one folder (version 2), or one for each controller.
fn hierarchies() -> anyhow::Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (folder, kind) = (words.next()?, words.next()?);
            kind.starts_with("cgroup").then(|| folder.into())
        })
        .collect();
    ensure!(!found.is_empty(), "no control groups are mounted, and containers need them");
    Ok(found)
}

/// Removes the files of keepers that were killed themselves.
fn remove_stale(hierarchies: &[PathBuf]) {
    for entry in hierarchies.iter().filter_map(|hierarchy| fs::read_dir(hierarchy).ok()).flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(keeper) = name.strip_prefix(CONTROL_GROUP) {
            let gone = !Path::new("/proc").join(keeper).exists();
            if gone && let Err(error) = remove_group(&entry.path()) {
                eprintln!("left by an earlier run: {error:#}");
            }
        }
    }
}

fn remove_group(folder: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + EMPTIED;
    loop {
        match remove_tree(folder) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                bail!("remove the control group {}: {error}", folder.display());
            }
            _ => return Ok(()),
        }
    }
}

/// The files of a control group belong to the kernel, and are removed with it.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// Does not follow links.
fn remove_files(files: TempDir) -> anyhow::Result<()> {
    let folder = files.path().to_owned();
    files.close().with_context(|| format!("remove {}", folder.display()))
}
