//! Namespaces of a node's own, for its network, mounts and processes: whatever runs in them, and whatever it changes of
//! interfaces, routes, packet filters and mounts, is gone with them, however they end.
//!
//! Each is a process, the parent of the next: whoever calls [`enter`]; the keeper, which makes the namespaces and ends
//! them when its standard input closes, because the caller wants it or is gone; the first process inside, which covers
//! what of the machine's files a node would change, and without which the kernel ends every other; and the program.
//! Control groups and files have no namespace that would remove them: the keeper does.

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

/// First arguments by which a program that calls [`enter`] is told which process it is.
pub const KEEPER: &str = "keep-namespaces";
/// See [`KEEPER`].
pub const FIRST: &str = "first-in-namespaces";

/// This very program, also where cargo has meanwhile put another in its file's place.
const OURSELVES: &str = "/proc/self/exe";

/// What begins the name of every control group of ours; the keeper's process id follows.
const CONTROL_GROUP: &str = "mcp-entra-node-";
/// Tells what runs inside the name of its control group.
const GROUP_VARIABLE: &str = "TESTBED_CONTROL_GROUP";
/// Folders of the machine that a node would write to: empty inside, and kept in memory.
const COVERED: [&str; 4] = ["/run", "/var/log", "/var/lib/cni", "/var/lib/kubelet"];
/// What a kubelet sets of the kernel, which no namespace holds: to it they are set already, and the machine's stay.
const KERNEL_SETTINGS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];
/// Between the end of the last process in a control group and the kernel's notice of it, on a busy machine.
const EMPTIED: Duration = Duration::from_secs(20);

/// Between two looks at whether the first process has ended, in milliseconds.
const POLL: u8 = 100;

/// Runs this very program with these arguments in new namespaces, its output being ours, until it ends. `root` alone
/// can.
///
/// # Errors
/// Where namespaces cannot be made; what the keeper says stands on stderr.
pub fn enter(arguments: &[String]) -> anyhow::Result<ExitStatus> {
    ensure_root()?;
    let mut keeper = Command::new(OURSELVES)
        .arg(KEEPER)
        .args(arguments)
        .stdin(Stdio::piped())
        // Out of the terminal's foreground group: Ctrl-C ends us, and our end is what it waits for.
        .process_group(0)
        .spawn()
        .context("start the keeper of the namespaces")?;
    // Held until it has ended.
    let input = keeper.stdin.take();
    let status = keeper.wait().context("wait for the keeper of the namespaces")?;
    drop(input);
    Ok(status)
}

/// Whether namespaces can be made at all.
///
/// # Errors
/// Where we are not root.
pub fn ensure_root() -> anyhow::Result<()> {
    ensure!(Uid::effective().is_root(), "only root can make the namespaces that a real node runs in: run it as root");
    Ok(())
}

/// The keeper: makes the namespaces, runs the first process in them, and removes control groups and files at the end.
///
/// # Errors
/// Where a namespace, a control group or a folder cannot be made.
pub fn keep(arguments: &[String]) -> anyhow::Result<i32> {
    let hierarchies = hierarchies()?;
    remove_stale(&hierarchies);
    let name = format!("{CONTROL_GROUP}{}", std::process::id());
    let groups: Vec<PathBuf> = hierarchies.iter().map(|hierarchy| hierarchy.join(&name)).collect();
    for group in &groups {
        fs::create_dir(group).with_context(|| format!("make the control group {}", group.display()))?;
    }
    // What is killed inside leaves its files here. The name is short, since the path of a socket may have 107 bytes.
    let files =
        tempfile::Builder::new().prefix("mcp-entra-").tempdir().context("make a folder: is TMPDIR writable?")?;
    // For children alone, and before there is a second thread. In the other namespaces we would keep the mounts alive that
    // are to be gone before the files are removed.
    let ended = unshare(CloneFlags::CLONE_NEWPID)
        .context("make a process namespace")
        .and_then(|()| run_first(&name, files.path(), arguments));
    let left: Vec<_> =
        groups.iter().filter_map(|group| remove_group(group).err()).chain(remove_files(files).err()).collect();
    left.iter().for_each(|error| eprintln!("left behind: {error:#}"));
    // What is left behind is a failure, too.
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

/// Waits for its end, and brings it about when our standard input closes. Without a thread: in a process whose children
/// are to be in another process namespace the kernel makes none.
fn until_unwanted(mut first: Child) -> anyhow::Result<ExitStatus> {
    loop {
        if let Some(status) = first.try_wait()? {
            return Ok(status);
        }
        if is_closed(std::io::stdin(), POLL.into())? {
            // With the first, every process of its namespace is killed, before it can be waited for.
            first.kill()?;
            return Ok(first.wait()?);
        }
    }
}

/// Whether the other end is closed, or is so within this time. Nothing is ever written to it.
fn is_closed(input: std::io::Stdin, within: PollTimeout) -> anyhow::Result<bool> {
    let mut files = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    match poll(&mut files, within) {
        Ok(0) | Err(Errno::EINTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(error).context("wait for the standard input's end"),
    }
}

/// The first process inside: covers what a node would change, runs the program, and takes leave of every process that
/// has lost its parent, until the program ends.
///
/// # Errors
/// Where something cannot be mounted or the program does not start.
pub fn first(arguments: &[String]) -> anyhow::Result<i32> {
    // The keeper's own end is ours, and ours everybody's.
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

/// The control group of these namespaces, as a path below where control groups are mounted.
///
/// # Errors
/// Outside namespaces of our own.
pub(crate) fn control_group() -> anyhow::Result<String> {
    std::env::var(GROUP_VARIABLE).context("not in namespaces of our own")
}

/// Puts a file of ours in the place of one of the machine's.
///
/// # Errors
/// Where it cannot be mounted, as outside namespaces of our own.
pub fn replace_file(theirs: &str, ours: &Path) -> anyhow::Result<()> {
    let none = None::<&str>;
    // A link into what is covered, such as systemd's /etc/resolv.conf, leads nowhere now.
    if let (false, Ok(target)) = (Path::new(theirs).exists(), fs::read_link(theirs)) {
        let target = Path::new(theirs).parent().unwrap_or(Path::new("/")).join(target);
        fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
        fs::write(&target, "").with_context(|| format!("make {}", target.display()))?;
    }
    mount(Some(ours), theirs, none, MsFlags::MS_BIND, none).with_context(|| format!("replace {theirs}"))
}

/// Where control groups are mounted: one folder (version 2) or one for each controller.
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
    ensure!(!found.is_empty(), "no control groups are mounted: containers need them");
    Ok(found)
}

/// Those of keepers that were killed themselves.
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

/// The files of a control group are the kernel's, and go with it.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

/// Follows no link.
fn remove_files(files: TempDir) -> anyhow::Result<()> {
    let folder = files.path().to_owned();
    files.close().with_context(|| format!("remove {}", folder.display()))
}
