//! Tests with other users and processes: modes, links, locks, and processes that end in the middle.

use std::env;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use secrecy::ExposeSecret;

use super::fixtures::{Place, fabrikam, owner, tokens};
use super::{ON_DISK, all, kept};
use crate::stdio::store::{LockPurpose, StoreError, StoreKind, TokenStore};

/// Variable with the folder, for a test that runs again as a child process.
const FOLDER: &str = "STORE_OF_PARENT";

/// A wait that no healthy run reaches.
const LONG: Duration = Duration::from_secs(60);

/// Returns a command that runs this test in its own process.
fn child(test: &str, place: &Place) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", &format!("stdio::store::tests::processes::{test}")]);
    command.env(FOLDER, place.path()).stdout(Stdio::piped());
    command
}

/// Returns the parent's store, in a child process.
fn store_of_parent() -> Option<TokenStore> {
    let folder = PathBuf::from(env::var_os(FOLDER)?);
    Some(TokenStore::new(StoreKind::File, folder, owner()))
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn files_and_folders_are_accessible_only_to_their_owner() {
    for kind in ON_DISK {
        let place = Place::new();
        let store = place.store(kind);
        let _lock = store.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap().unwrap();
        store.write(&tokens("own")).await.unwrap();
        assert_eq!((mode(&place.path()), mode(place.path().parent().unwrap())), (0o700, 0o700));
        for name in place.files().keys() {
            assert_eq!(mode(&place.path().join(name)), 0o600, "{name}");
        }
    }
}

#[tokio::test]
async fn a_file_that_others_may_use_is_refused_until_a_sign_in_replaces_it() {
    for kind in ON_DISK {
        let place = Place::new();
        let store = place.store(kind);
        store.write(&tokens("old")).await.unwrap();
        for refused in [0o644, 0o640, 0o660, 0o602] {
            fs::set_permissions(store.files.tokens(), Permissions::from_mode(refused)).unwrap();
            for error in [store.read().await.map(drop).unwrap_err(), store.write(&tokens("new")).await.unwrap_err()] {
                assert!(matches!(error, StoreError::Insecure { .. }), "{refused:o}: {error}");
                assert!(error.to_string().contains(&format!("mode {refused:o}")), "{error}");
            }
        }
        fs::set_permissions(store.files.tokens(), Permissions::from_mode(0o600)).unwrap();
        assert_eq!(kept(&store).await, Some(all(&tokens("old"))));
        fs::set_permissions(store.files.tokens(), Permissions::from_mode(0o644)).unwrap();
        store.replace(&tokens("new")).await.unwrap();
        assert_eq!(mode(store.files.tokens()), 0o600);
    }
}

#[tokio::test]
async fn a_folder_in_which_others_may_replace_files_is_refused() {
    let place = Place::new();
    let store = place.store(StoreKind::File);
    fs::create_dir_all(place.path()).unwrap();
    for refused in [0o770, 0o777, 0o1777] {
        fs::set_permissions(place.path(), Permissions::from_mode(refused)).unwrap();
        let errors = [
            store.write(&tokens("new")).await.unwrap_err(),
            store.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap_err(),
            store.describe().await.unwrap_err(),
        ];
        assert!(errors.iter().all(|error| matches!(error, StoreError::Insecure { .. })), "{errors:?}");
    }
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    store.write(&tokens("new")).await.unwrap();
}

#[tokio::test]
async fn a_symbolic_link_is_not_followed() {
    let (place, elsewhere) = (Place::new(), Place::new());
    let (store, target) = (place.store(StoreKind::File), elsewhere.store(StoreKind::File));
    target.write(&tokens("target")).await.unwrap();
    fs::create_dir_all(place.path()).unwrap();
    symlink(target.files.tokens(), store.files.tokens()).unwrap();
    let error = store.read().await.unwrap_err();
    assert!(matches!(error, StoreError::Insecure { .. }), "{error}");
    assert!(error.to_string().contains("symbolic link"), "{error}");
    store.replace(&tokens("new")).await.unwrap();
    assert_eq!(kept(&store).await, Some(all(&tokens("new"))));
    assert_eq!(kept(&target).await, Some(all(&tokens("target"))));
}

#[tokio::test]
async fn a_link_in_place_of_a_lock_is_not_followed() {
    let place = Place::new();
    let store = place.store(StoreKind::File);
    fs::create_dir_all(place.path()).unwrap();
    let target = place.folder.path().join("target");
    let (_, lock) = store.files.open_lock(LockPurpose::Tokens).unwrap();
    fs::remove_file(&lock).unwrap();
    symlink(&target, &lock).unwrap();
    store.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap_err();
    assert!(!target.exists());
}

#[tokio::test]
async fn a_lock_excludes_only_its_purpose_and_client_until_it_is_dropped() {
    for kind in ON_DISK {
        let place = Place::new();
        let (one, other) = (place.store(kind), place.store(kind));
        let held = one.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap().unwrap();
        assert!(other.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap().is_none());
        assert!(other.lock(LockPurpose::SignIn, Duration::ZERO).await.unwrap().is_some());
        let elsewhere = place.store_of(kind, fabrikam());
        assert!(elsewhere.lock(LockPurpose::Tokens, Duration::ZERO).await.unwrap().is_some());
        // A process that a concurrent test starts may hold a copy of the file for a moment, so both wait.
        let (waited, ()) = tokio::join!(other.lock(LockPurpose::Tokens, LONG), async { drop(held) });
        assert!(waited.unwrap().is_some());
        assert!(one.lock(LockPurpose::Tokens, LONG).await.unwrap().is_some());
    }
}

#[test]
fn a_lock_is_free_once_its_process_is_killed() {
    if let Some(store) = store_of_parent() {
        let _lock = run(store.lock(LockPurpose::Tokens, LONG)).unwrap().unwrap();
        println!("\nheld");
        std::io::stdin().read_line(&mut String::new()).unwrap();
        return;
    }
    let place = Place::new();
    let mut child = child("a_lock_is_free_once_its_process_is_killed", &place).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));
    let store = place.store(StoreKind::File);
    assert!(run(store.lock(LockPurpose::Tokens, Duration::ZERO)).unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(run(store.lock(LockPurpose::Tokens, Duration::ZERO)).unwrap().is_some());
}

#[test]
fn processes_that_hold_the_lock_in_turn_lose_no_write() {
    const TURNS: usize = 20;
    if let Some(store) = store_of_parent() {
        for _ in 0..TURNS {
            run(async {
                let _lock = store.lock(LockPurpose::Tokens, LONG).await.unwrap().unwrap();
                let before = store.read().await.unwrap().unwrap();
                store.write(&tokens(&format!("{}+", before.refresh_token.expose_secret()))).await.unwrap();
            });
        }
        return;
    }
    let place = Place::new();
    let store = place.store(StoreKind::File);
    run(store.write(&tokens(""))).unwrap();
    let start = || child("processes_that_hold_the_lock_in_turn_lose_no_write", &place).spawn().unwrap();
    for mut child in [start(), start()] {
        assert!(child.wait().unwrap().success());
    }
    let last = run(store.read()).unwrap().unwrap();
    assert_eq!(last.refresh_token.expose_secret(), "+".repeat(2 * TURNS));
}

/// Limits this process to files of a few bytes, like a full disk.
fn fill_disk() {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, 1000, 1000).unwrap();
}

#[test]
fn a_full_disk_leaves_the_old_tokens() {
    if let Some(store) = store_of_parent() {
        // Otherwise the signal would kill this process instead of failing the call.
        SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
        fill_disk();
        let error = run(store.write(&tokens(&"n".repeat(6000)))).unwrap_err();
        assert!(matches!(error, StoreError::Io { .. }), "{error}");
        return;
    }
    let place = Place::new();
    let store = place.store(StoreKind::File);
    run(store.write(&tokens("old"))).unwrap();
    let output = child("a_full_disk_leaves_the_old_tokens", &place).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(run(kept(&store)), Some(all(&tokens("old"))));
    assert_eq!(place.files().len(), 1);
}

#[test]
fn a_killed_writer_leaves_the_old_tokens_and_the_next_writer_removes_its_file() {
    if let Some(store) = store_of_parent() {
        fill_disk();
        run(store.write(&tokens(&"n".repeat(6000)))).unwrap();
        return;
    }
    for tidies_up in ["write", "delete"] {
        let place = Place::new();
        let store = place.store(StoreKind::File);
        run(store.write(&tokens("old"))).unwrap();
        let name = "a_killed_writer_leaves_the_old_tokens_and_the_next_writer_removes_its_file";
        let output = child(name, &place).output().unwrap();
        assert_eq!(output.status.signal(), Some(Signal::SIGXFSZ as i32), "{output:?}");
        assert_eq!(run(kept(&store)), Some(all(&tokens("old"))));
        assert_eq!(place.files().len(), 2);
        // Neighbours: an unfinished file of another client, and a file with another extension.
        let other = place.store_of(StoreKind::File, fabrikam());
        let neighbours = [other.files.tokens().with_extension("1.tmp"), store.files.tokens().with_extension("1.bak")];
        for neighbour in &neighbours {
            fs::write(neighbour, "").unwrap();
        }
        match tidies_up {
            "write" => run(store.write(&tokens("new"))).unwrap(),
            _ => assert!(run(store.delete()).unwrap()),
        }
        assert!(neighbours.iter().all(|neighbour| neighbour.exists()));
        assert_eq!(place.files().len(), neighbours.len() + usize::from(tidies_up == "write"), "{tidies_up}");
    }
}
