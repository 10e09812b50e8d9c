//! The program `mcp-entra-operator`.
//!
//! `run` reconciles, and `check` tests an installed operator. `render` prints the objects that would be applied, and
//! `preview` the tools that callers may use. `pin` prints the digests of a backend's tools, and `crds` the definitions
//! of the kinds.

mod telemetry;

use std::io::Write;

use anyhow::Context;
use clap::{Parser, Subcommand};
use mcp_entra_operator::{CheckOptions, Options, PinOptions, PreviewOptions, RenderArguments};
use tokio::signal::unix::SignalKind;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{LogFormat, Telemetry};

/// Reconciles McpServers into running MCP servers behind Microsoft Entra ID.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reconcile until SIGTERM or Ctrl-C. The cluster comes from KUBECONFIG, or from the pod's service account.
    Run {
        #[command(flatten)]
        options: Box<Options>,
        /// Format of the logs on standard error. The default is text on a terminal and JSON elsewhere. RUST_LOG selects
        /// the log lines.
        #[arg(long, value_enum)]
        log_format: Option<LogFormat>,
    },
    /// Check an installed operator with its own account: it can see all objects that it needs, and a replica leads.
    Check(CheckOptions),
    /// Print every child of the McpServers in the given manifests as it would be applied. It needs no cluster.
    Render(Box<RenderArguments>),
    /// Print the tools that a caller gets from a server, and the mapping that grants or denies each.
    Preview(PreviewOptions),
    /// Print the digests of the tools that a server's backend offers now, for `spec.backend`.
    Pin(PinOptions),
    /// Print the CustomResourceDefinitions, for `kubectl apply --server-side -f -`.
    Crds,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Run { options, log_format } => {
            choose_cryptography();
            let telemetry = Telemetry::start(log_format)?;
            let ended = runtime()?.block_on(reconcile(*options));
            telemetry.end();
            ended
        }
        Command::Check(options) => {
            choose_cryptography();
            let told = runtime()?.block_on(mcp_entra_operator::check(&options))?;
            Ok(std::io::stdout().lock().write_all(told.as_bytes())?)
        }
        Command::Preview(options) => {
            choose_cryptography();
            let table = runtime()?.block_on(mcp_entra_operator::preview(&options))?;
            Ok(std::io::stdout().lock().write_all(table.as_bytes())?)
        }
        Command::Pin(options) => {
            choose_cryptography();
            let fragment = runtime()?.block_on(mcp_entra_operator::pin(&options))?;
            Ok(std::io::stdout().lock().write_all(fragment.as_bytes())?)
        }
        Command::Render(arguments) => {
            Ok(write!(std::io::stdout().lock(), "{}", mcp_entra_operator::render(&arguments)?)?)
        }
        Command::Crds => print_definitions(),
    }
}

/// Builds the runtime. All controllers are one task on the calling thread; one worker thread serves connections and the
/// lease. More threads would only cost memory: large nodes would start dozens of idle ones.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()
}

/// Selects the TLS provider. With a second one among the dependencies, rustls would refuse to choose.
fn choose_cryptography() {
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
}

async fn reconcile(options: Options) -> anyhow::Result<()> {
    let config = kube::Config::infer()
        .await
        .context("no cluster to reconcile: set KUBECONFIG, or run in a pod with a mounted service account token")?;
    let listener = mcp_entra_operator::listen(options.listen)
        .with_context(|| format!("cannot listen on {}; choose another address with --listen", options.listen))?;
    tracing::info!(address = %listener.local_addr()?, "serving /healthz, /readyz and /metrics");
    let shutdown = CancellationToken::new();
    tokio::spawn(cancel_on_signal(shutdown.clone()));
    Ok(mcp_entra_operator::run(config, options, listener, shutdown).await?)
}

async fn cancel_on_signal(shutdown: CancellationToken) {
    match tokio::signal::unix::signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        },
        Err(error) => {
            tracing::error!(%error, "cannot listen for SIGTERM; only Ctrl-C ends the operator gracefully");
            tokio::signal::ctrl_c().await.ok();
        }
    }
    tracing::info!("draining: running reconciles finish, no new one starts");
    shutdown.cancel();
}

fn print_definitions() -> anyhow::Result<()> {
    let mut output = std::io::stdout().lock();
    for definition in mcp_entra_crds::custom_resource_definitions()? {
        writeln!(output, "---\n{}", mcp_entra_crds::definition_yaml(&definition)?.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    #[test]
    fn commands_and_flags_in_the_documentation_exist() {
        Arguments::command().debug_assert();
        let mut seen = 0;
        for block in documentation::pages().iter().flat_map(documentation::Page::blocks) {
            for call in block.calls("mcp-entra-operator") {
                match Arguments::try_parse_from(&call) {
                    // What the chart or the environment gives may be left out.
                    Err(error) if error.kind() != ErrorKind::MissingRequiredArgument => {
                        panic!("{}: {call:?}: {error}", block.place)
                    }
                    _ => seen += 1,
                }
            }
        }
        assert!(seen >= 3, "only {seen} calls were seen");
    }
}
