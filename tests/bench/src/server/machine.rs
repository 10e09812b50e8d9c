//! Description of the machine and the versions in a run.

use std::fs;

use super::servers::Server;

/// Lock file of the workspace, which has the version of rmcp in this program.
const LOCK: &str = include_str!("../../../../Cargo.lock");

/// Lines about the machine and the versions of all peers.
pub(super) async fn describe(cores: &[usize], servers: &[Server]) -> anyhow::Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let mut versions = vec![format!("rmcp {}", locked(LOCK, "rmcp").unwrap_or("unknown"))];
    for server in servers {
        versions.extend(server.version().await?);
    }
    Ok(format!("{} cores, {model}, Linux {}\n{}\n", cores.len(), kernel.trim(), versions.join("\n")))
}

/// Version of a package in a lock file.
fn locked<'a>(lock: &'a str, name: &str) -> Option<&'a str> {
    let (_, package) = lock.split_once(&format!("\nname = \"{name}\"\nversion = \""))?;
    package.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::{LOCK, locked};

    #[test]
    fn the_version_is_that_of_the_package_with_exactly_this_name() {
        let lock = "[[package]]\nname = \"rmcp-macros\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \"rmcp\"\nversion = \"3.11.0\"\n";
        assert_eq!(locked(lock, "rmcp"), Some("3.11.0"));
        assert_eq!(locked(lock, "cmcp"), None);
        assert!(locked(LOCK, "rmcp").is_some());
    }
}
