//! `entra-emulator`: the emulator as a separate program.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use clap::Parser;
use entra_emulator::{Configuration, EntraEmulator};
use tokio::signal::unix::{SignalKind, signal};

/// Microsoft Entra ID and Graph over HTTPS on this machine.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Tenants, apps, users and groups, as YAML.
    #[arg(long)]
    config: PathBuf,
    /// Address that the authority listens on; Graph listens on the same address and a free port.
    #[arg(long, default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    // Created before anything that a signal must clean up.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let emulator = EntraEmulator::start(Configuration::read(&arguments.config)?, arguments.listen).await?;
    let folder = tempfile::Builder::new().prefix("entra-emulator-").tempdir()?;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, emulator.ca_pem())?;
    writeln!(
        std::io::stdout(),
        "entra-emulator ready: authority={authority} graph={graph} control={authority}/_control ca={ca}",
        authority = emulator.authority(),
        graph = emulator.graph(),
        ca = ca.display(),
    )?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    folder.close()?;
    Ok(())
}
