//! The program `mcp-entra-server`: reads its arguments, starts the library and waits for the stop signal.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mcp_entra_server::audit::chain::{self, Verified};
use mcp_entra_server::entra::FederatedToken;
use mcp_entra_server::signals::StopSignals;
use mcp_entra_server::stdio::arguments::{LocalArguments, Mode};
use mcp_entra_server::stdio::machine_policy::{self, MachinePolicy};
use mcp_entra_server::stdio::{self, client_config};
use mcp_entra_server::{check, environment, oauth, open_files, serve, telemetry};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A hint for a person who starts `local` in a terminal instead of an MCP client.
const AT_A_TERMINAL: &str = "This waits for an MCP client. To set one up, run it with --sign-in and --print-config.";

/// An MCP server that authenticates with Microsoft Entra ID and calls Microsoft Graph as the signed-in user, without
/// a client secret. `serve` authenticates with the projected service account token in AZURE_FEDERATED_TOKEN_FILE,
/// `local` with a person's sign-in.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve MCP over HTTP until SIGTERM or SIGINT. Audit lines go to standard output, logs to standard error.
    Serve {
        #[command(flatten)]
        files: Files,
        /// Address of the MCP endpoint. `[::]` accepts IPv4 connections, too. Without IPv6 it becomes `0.0.0.0`.
        #[arg(long, env = "MCP_ENTRA_LISTEN", default_value = "[::]:8080")]
        listen: SocketAddr,
        /// Address of /healthz, /readyz, /status and /metrics. Never expose it.
        #[arg(long, env = "MCP_ENTRA_ADMIN_LISTEN", default_value = "[::]:8081")]
        admin_listen: SocketAddr,
        /// Seconds for which requests are still accepted after the stop signal, so that load balancers notice.
        #[arg(long, env = "MCP_ENTRA_DRAIN_SECONDS", default_value_t = 5)]
        drain_seconds: u16,
        /// Unix socket of a backend over stdio (`backend` in the configuration). The shim of the backend creates it.
        #[arg(long, env = "MCP_ENTRA_BACKEND_SOCKET")]
        backend_socket: Option<PathBuf>,
        #[command(flatten)]
        oauth: OAuthFiles,
    },
    /// Serve MCP over standard input and output for the person who starts it, as a child process of their MCP client.
    Local {
        #[command(flatten)]
        arguments: LocalArguments,
    },
    /// Verify the hash chains of an audit log (`spec.audit.hashChain`) from standard input. Exit code 0: every run is
    /// complete; 3: the beginning of a run is missing; 1: lines were changed, removed, moved or added, or the input
    /// cannot be read.
    VerifyAudit {
        /// File with the expected runs. Each line has the id of a run and the number of its lines, as in the metric
        /// mcp_entra_server_audit_chain_lines. An optional third word is the hash of the last of these lines.
        #[arg(long)]
        runs: Option<PathBuf>,
    },
    /// Test the configuration against the real Entra and Graph, and report line by line. Exit code 0: everything
    /// works.
    Check {
        #[command(flatten)]
        files: Files,
    },
}

#[derive(Args)]
struct OAuthFiles {
    /// Folder with the keys of the authorization server, one numbered file for each key.
    #[arg(long, env = "MCP_ENTRA_OAUTH_KEYS")]
    oauth_keys: Option<PathBuf>,
    /// File with the password of the session store. It is read at each connection.
    #[arg(long, env = "MCP_ENTRA_SESSION_STORE_PASSWORD")]
    session_store_password: Option<PathBuf>,
    /// CA certificates (PEM) to trust for the session store, besides the system's.
    #[arg(long, env = "MCP_ENTRA_SESSION_STORE_CA")]
    session_store_ca: Option<PathBuf>,
}

#[derive(Args)]
struct Files {
    /// The configuration file (YAML).
    #[arg(long, env = "MCP_ENTRA_CONFIG")]
    config: PathBuf,
    /// The compiled policy (JSON). It is read again while the server runs.
    #[arg(long, env = "MCP_ENTRA_POLICY")]
    policy: PathBuf,
    /// CA certificates (PEM) to trust besides the system's.
    #[arg(long, env = "MCP_ENTRA_TRUST_BUNDLE")]
    trust_bundle: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    let command = Arguments::parse().command;
    let runtime = tokio::runtime::Runtime::new()?;
    let ended = runtime.block_on(run(command));
    // A read of standard input may block a runtime thread forever. Do not wait for it.
    runtime.shutdown_background();
    ended
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { files, listen, admin_listen, drain_seconds, backend_socket, oauth } => {
            let drain = Duration::from_secs(drain_seconds.into());
            let Files { config, policy, trust_bundle } = files;
            let OAuthFiles { oauth_keys: keys, session_store_password: store_password, session_store_ca: store_ca } =
                oauth;
            let oauth = oauth::start::Files { keys, store_password, store_ca };
            let options =
                serve::Options { config, policy, trust_bundle, backend_socket, oauth, listen, admin_listen, drain };
            serve(options).await
        }
        Command::Local { arguments } => local(arguments).await,
        Command::VerifyAudit { runs } => verify_audit(runs),
        Command::Check { files } => {
            let inputs = check::Inputs { config: files.config, policy: files.policy, trust_bundle: files.trust_bundle };
            let mut output = std::io::stdout();
            let all_ok = check::check(&inputs, &mut output).await?;
            output.flush()?;
            Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}

async fn serve(options: serve::Options) -> anyhow::Result<ExitCode> {
    // Dropped last, so that the last log lines are written.
    let _log = telemetry::log_to_stderr();
    open_files::raise_limit();
    environment::refuse_secrets(std::env::vars_os().map(|(name, _)| name))?;
    // Signals are taken before the server listens, so that none is missed.
    let signals = StopSignals::take()?;
    let server = serve::start(options, FederatedToken::from_environment()?, Box::new(std::io::stdout())).await?;
    signals.asked().await;
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

async fn local(arguments: LocalArguments) -> anyhow::Result<ExitCode> {
    environment::refuse_secrets(std::env::vars_os().map(|(name, _)| name))?;
    let mode = arguments.mode();
    let policy = match mode {
        // A machine policy never prevents a sign-out.
        Mode::SignOut => MachinePolicy::default(),
        _ => machine_policy::read(&machine_policy::path())?,
    };
    let settings = arguments.settings(&policy)?;
    match mode {
        Mode::PrintConfig(client) => {
            let program = std::env::current_exe().context("cannot find the path of this program")?;
            let arguments: Vec<String> = std::iter::once("local".to_owned()).chain(settings.arguments()).collect();
            writeln!(std::io::stderr(), "{}", client.place())?;
            writeln!(
                std::io::stdout(),
                "{}",
                client_config::block(client, &program, &arguments, &client_config::desktop())
            )?;
            Ok(ExitCode::SUCCESS)
        }
        mode => {
            if mode == Mode::Serve && std::io::stdin().is_terminal() {
                writeln!(std::io::stderr(), "{AT_A_TERMINAL}")?;
            }
            stdio::run(mode, settings).await
        }
    }
}

fn verify_audit(runs: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    let runs = match runs {
        Some(file) => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            chain::runs(&text).map_err(|error| anyhow::anyhow!("{}: {error}", file.display()))?
        }
        None => chain::Runs::new(),
    };
    let mut output = std::io::stdout();
    let verified = chain::verify(&mut std::io::stdin().lock(), &runs, &mut output)?;
    output.flush()?;
    Ok(match verified {
        Verified::Whole => ExitCode::SUCCESS,
        Verified::Broken => ExitCode::FAILURE,
        // Code 2 means wrong arguments.
        Verified::Incomplete => ExitCode::from(3),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[test]
    fn commands_and_flags_in_the_documentation_exist() {
        Arguments::command().debug_assert();
        let mut seen = 0;
        for block in documentation::pages().iter().flat_map(documentation::Page::blocks) {
            for call in block.calls("mcp-entra-server") {
                match Arguments::try_parse_from(&call) {
                    // What the environment gives may be left out.
                    Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
                        panic!("{}: {call:?}: {error}", block.place)
                    }
                    _ => seen += 1,
                }
            }
        }
        assert!(seen >= 5, "only {seen} calls were seen");
    }
}
