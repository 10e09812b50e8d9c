//! The program `mcp-entra-server`: reads its arguments, starts the library, waits for the signal to stop.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use mcp_entra_server::audit::chain::{self, Verified};
use mcp_entra_server::entra::FederatedToken;
use mcp_entra_server::{check, environment, open_files, serve, telemetry};
use tokio::signal::unix::{SignalKind, signal};

/// An MCP server that authenticates with Microsoft Entra ID and reaches Microsoft Graph as the signed-in user, without a
/// client secret: its credential is the projected service account token that AZURE_FEDERATED_TOKEN_FILE names.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve MCP over HTTP, until SIGTERM or SIGINT. Audit lines go to standard output, logs to standard error.
    Serve {
        #[command(flatten)]
        files: Files,
        /// Where to serve MCP. `[::]` takes IPv4 connections, too; without IPv6 it is `0.0.0.0`.
        #[arg(long, env = "MCP_ENTRA_LISTEN", default_value = "[::]:8080")]
        listen: SocketAddr,
        /// Where to serve /healthz, /readyz, /status and /metrics. Never expose it.
        #[arg(long, env = "MCP_ENTRA_ADMIN_LISTEN", default_value = "[::]:8081")]
        admin_listen: SocketAddr,
        /// Seconds to go on accepting requests after the stop was asked for, so that load balancers notice.
        #[arg(long, env = "MCP_ENTRA_DRAIN_SECONDS", default_value_t = 5)]
        drain_seconds: u16,
    },
    /// Verify the hash chains of an audit log (`spec.audit.hashChain`) that comes on standard input. Exit code 0: every run
    /// is whole; 3: the beginning of a run is missing; 1: lines were changed, taken out, moved or added, or the input cannot
    /// be read.
    VerifyAudit {
        /// The runs that there must be: in each line the id of a run and the number of its lines, as the metric
        /// mcp_entra_server_audit_chain_lines counts them. A third word is the hash of the last of these lines.
        #[arg(long)]
        runs: Option<PathBuf>,
    },
    /// Say line by line what of the configuration works against the real Entra and Graph. Exit code 0: all of it.
    Check {
        #[command(flatten)]
        files: Files,
    },
}

#[derive(Args)]
struct Files {
    /// The configuration file (YAML).
    #[arg(long, env = "MCP_ENTRA_CONFIG")]
    config: PathBuf,
    /// The compiled policy (JSON). Read again while the server runs.
    #[arg(long, env = "MCP_ENTRA_POLICY")]
    policy: PathBuf,
    /// CA certificates (PEM) to trust besides the system's.
    #[arg(long, env = "MCP_ENTRA_TRUST_BUNDLE")]
    trust_bundle: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        Command::Serve { files, listen, admin_listen, drain_seconds } => {
            // Dropped last, so that the last lines are written.
            let _log = telemetry::log_to_stderr();
            open_files::raise_limit();
            environment::refuse_secrets(std::env::vars_os().map(|(name, _)| name))?;
            let options = serve::Options {
                config: files.config,
                policy: files.policy,
                trust_bundle: files.trust_bundle,
                listen,
                admin_listen,
                drain: Duration::from_secs(drain_seconds.into()),
            };
            // Before the server listens, so that no signal is missed.
            let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
            let server =
                serve::start(options, FederatedToken::from_environment()?, Box::new(std::io::stdout())).await?;
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            server.shutdown().await;
            Ok(ExitCode::SUCCESS)
        }
        Command::VerifyAudit { runs } => {
            let runs = match runs {
                Some(file) => {
                    let text =
                        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
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
                // 2 means wrong arguments.
                Verified::Incomplete => ExitCode::from(3),
            })
        }
        Command::Check { files } => {
            let inputs = check::Inputs { config: files.config, policy: files.policy, trust_bundle: files.trust_bundle };
            let mut output = std::io::stdout();
            let all_ok = check::check(&inputs, &mut output).await?;
            output.flush()?;
            Ok(if all_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
