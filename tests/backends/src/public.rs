//! Public MCP servers as their registries have them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::{HttpBackend, Launch};

/// The folder of the lists and of our own server file.
const LISTS: &str = env!("CARGO_MANIFEST_DIR");

/// A public MCP server. Its version is pinned.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Public {
    /// npm `@modelcontextprotocol/server-everything`: each feature of the protocol. Over HTTP it listens on all addresses.
    Everything,
    /// npm `@modelcontextprotocol/server-filesystem`: the files of the scratch folder.
    Filesystem,
    /// npm `@modelcontextprotocol/server-memory`: a graph of facts, in `memory.jsonl` of the scratch folder.
    Memory,
    /// npm `@modelcontextprotocol/server-sequential-thinking`: one tool that keeps thoughts.
    SequentialThinking,
    /// PyPI `mcp-server-time`: the time in Europe/Stockholm.
    Time,
    /// PyPI `mcp-server-git`: the repository `repository` in the scratch folder, which has no commit.
    Git,
    /// PyPI `mcp-server-sqlite`: the database `sqlite.db` in the scratch folder.
    Sqlite,
    /// PyPI `mcp-server-calculator`: one tool that evaluates an expression.
    Calculator,
    /// PyPI `fastmcp` with `python/greeter.py`, which returns the caller's assertion.
    Greeter,
}

impl Public {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Everything,
        Self::Filesystem,
        Self::Memory,
        Self::SequentialThinking,
        Self::Time,
        Self::Git,
        Self::Sqlite,
        Self::Calculator,
        Self::Greeter,
    ];

    /// Returns the command line of the server over stdio. Its files are in `scratch`, a folder that exists. The first call
    /// of all processes installs the server, and blocks for up to a minute.
    ///
    /// # Errors
    /// If the server cannot be installed, or `scratch` cannot be written. The message says what is missing.
    pub fn launch(self, scratch: &Path) -> anyhow::Result<Launch> {
        let file = |name: &str| text(&scratch.join(name));
        match self {
            Self::Everything => node("everything", vec!["stdio".to_owned()]),
            Self::Filesystem => node("filesystem", vec![text(scratch)?]),
            Self::Memory => {
                let mut launch = node("memory", Vec::new())?;
                launch.env.push(("MEMORY_FILE_PATH".to_owned(), file("memory.jsonl")?));
                Ok(launch)
            }
            Self::SequentialThinking => node("sequential-thinking", Vec::new()),
            Self::Time => python("servers", &["-m", "mcp_server_time", "--local-timezone", "Europe/Stockholm"]),
            Self::Git => {
                let repository = scratch.join("repository");
                initialize_repository(&repository)?;
                python("servers", &["-m", "mcp_server_git", "-r", &text(&repository)?])
            }
            Self::Sqlite => {
                // The package cannot run as a module.
                script("servers-of-sdk-1", "mcp-server-sqlite", &["--db-path", &file("sqlite.db")?])
            }
            Self::Calculator => python("servers-of-sdk-1", &["-m", "mcp_server_calculator"]),
            Self::Greeter => python("servers", &[GREETER]),
        }
    }

    /// Starts the server over streamable HTTP on a free port, and waits until it accepts connections.
    ///
    /// # Errors
    /// Same as [`Self::launch`]. Also if the server speaks stdio alone, or does not start in 120 seconds.
    pub async fn start_http(self, scratch: &Path) -> anyhow::Result<HttpBackend> {
        HttpBackend::start(scratch, |port| self.launch_http(port)).await
    }

    /// Returns the command line of the server over streamable HTTP at `/mcp`.
    ///
    /// # Errors
    /// Same as [`Self::launch`]. Also if the server speaks stdio alone.
    pub fn launch_http(self, port: u16) -> anyhow::Result<Launch> {
        match self {
            Self::Everything => {
                let mut launch = node("everything", vec!["streamableHttp".to_owned()])?;
                launch.env.push(("PORT".to_owned(), port.to_string()));
                Ok(launch)
            }
            Self::Greeter => python("servers", &[GREETER, &port.to_string()]),
            other => bail!("{other:?} speaks stdio alone"),
        }
    }

    /// Names of all its tools in the order of its list, for a client without capabilities.
    #[must_use]
    pub fn tools(self) -> &'static [&'static str] {
        match self {
            Self::Everything => &[
                "echo",
                "get-annotated-message",
                "get-env",
                "get-resource-links",
                "get-resource-reference",
                "get-structured-content",
                "get-sum",
                "get-tiny-image",
                "gzip-file-as-resource",
                "toggle-simulated-logging",
                "toggle-subscriber-updates",
                "trigger-long-running-operation",
                "simulate-research-query",
            ],
            Self::Filesystem => &[
                "read_file",
                "read_text_file",
                "read_media_file",
                "read_multiple_files",
                "write_file",
                "edit_file",
                "create_directory",
                "list_directory",
                "list_directory_with_sizes",
                "directory_tree",
                "move_file",
                "search_files",
                "get_file_info",
                "list_allowed_directories",
            ],
            Self::Memory => &[
                "create_entities",
                "create_relations",
                "add_observations",
                "delete_entities",
                "delete_observations",
                "delete_relations",
                "read_graph",
                "search_nodes",
                "open_nodes",
            ],
            Self::SequentialThinking => &["sequentialthinking"],
            Self::Time => &["get_current_time", "convert_time"],
            Self::Git => &[
                "git_status",
                "git_diff_unstaged",
                "git_diff_staged",
                "git_diff",
                "git_commit",
                "git_add",
                "git_reset",
                "git_log",
                "git_create_branch",
                "git_checkout",
                "git_show",
                "git_branch",
            ],
            Self::Sqlite => {
                &["read_query", "write_query", "create_table", "list_tables", "describe_table", "append_insight"]
            }
            Self::Calculator => &["calculate"],
            Self::Greeter => &["greet", "slow", "who"],
        }
    }
}

const GREETER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/greeter.py");

fn node(server: &str, mut args: Vec<String>) -> anyhow::Result<Launch> {
    let modules = stock_clients::node_modules(&cache()?, "node", &Path::new(LISTS).join("node"))?;
    let script = modules.join(format!("@modelcontextprotocol/server-{server}/dist/index.js"));
    args.insert(0, text(&script)?);
    Ok(Launch { program: stock_clients::node(&modules)?, args, env: Vec::new() })
}

fn python(list: &str, args: &[&str]) -> anyhow::Result<Launch> {
    let program = stock_clients::python(&cache()?, list, &Path::new(LISTS).join("python").join(list))?;
    Ok(Launch { program, args: args.iter().map(|&arg| arg.to_owned()).collect(), env: Vec::new() })
}

/// A console script of a virtual environment.
fn script(list: &str, name: &str, args: &[&str]) -> anyhow::Result<Launch> {
    let mut launch = python(list, args)?;
    launch.program.set_file_name(name);
    Ok(launch)
}

/// The folder of installed servers. All worktrees share it, as for the programs that are built from Go modules.
fn cache() -> anyhow::Result<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let folder = folder.context("neither XDG_CACHE_HOME nor HOME names a folder to keep the backends in")?;
    Ok(folder.join("mcp-entra/backends"))
}

fn initialize_repository(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let status = Command::new("git").args(["init", "--quiet"]).arg(folder).status().context("git is missing")?;
    ensure!(status.success(), "git init failed");
    Ok(())
}

fn text(path: &Path) -> anyhow::Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}
