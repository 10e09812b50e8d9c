//! Installs the pinned clients: once for each state of their lists, from wherever pip and npm fetch packages here.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

use sha2::{Digest as _, Sha256};

/// The interpreter of a virtual environment with MSAL and azure-identity.
pub(super) static PYTHON: LazyLock<PathBuf> = LazyLock::new(|| {
    let requirements = source("python/requirements.txt");
    let folder = installed("stock-python-clients", &[&requirements], |folder| {
        let needs = "Python 3.10 or newer with its venv module";
        run(Command::new("python3").args(["-m", "venv"]).arg(folder), needs);
        let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--require-hashes", "--requirement"];
        let access = "access to the package index that pip is configured with";
        run(Command::new(folder.join("bin/python")).args(pip).arg(&requirements), access);
    });
    folder.join("bin/python")
});

/// The `node_modules` with MSAL.
pub(super) static NODE_MODULES: LazyLock<PathBuf> = LazyLock::new(|| {
    let lists = ["package.json", "package-lock.json"];
    let sources = lists.map(|list| source(&format!("node/{list}")));
    let folder = installed("stock-node-clients", &[&sources[0], &sources[1]], |folder| {
        fs::create_dir_all(folder).unwrap();
        for (list, source) in lists.iter().zip(&sources) {
            fs::copy(source, folder.join(list)).unwrap();
        }
        let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        let needs = "Node 20 or newer with npm, and access to the registry that npm is configured with";
        run(Command::new("npm").args(npm).current_dir(folder), needs);
    });
    folder.join("node_modules")
});

/// A file of the clients' own folder.
pub(super) fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(path)
}

/// The folder that `install` filled, now or in an earlier run, of this process or another.
fn installed(name: &str, lists: &[&Path], install: impl FnOnce(&Path)) -> PathBuf {
    let mut state = Sha256::new();
    lists.iter().for_each(|list| state.update(fs::read(list).unwrap()));
    let state: String = state.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(cache).unwrap();
    let folder = cache.join(format!("{name}-{state}"));
    // Held until the end of this function; the system lets go of it if the process dies.
    let lock = File::create(folder.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let complete = folder.join("complete");
    if !complete.exists() {
        drop(fs::remove_dir_all(&folder));
        install(&folder);
        File::create(complete).unwrap();
    }
    folder
}

fn run(command: &mut Command, needs: &str) {
    let output = command.output().map_err(|error| format!("{command:?} needs {needs}: {error}")).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed; it needs {needs}:\n{text}");
}
