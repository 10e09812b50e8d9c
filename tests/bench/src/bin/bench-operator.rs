//! `cargo bench-operator`: measures the operator with a thousand servers. It builds the release program, and runs it
//! under its own service account on a real control plane with a stub node. It prints a table of figures.

use std::process::ExitCode;

use bench::operator::{Size, measure};
use clap::Parser;
use testbed::programs::release_program;
use testbed::supervisor::Supervisor;

/// Measures mcp-entra-operator on a real control plane, and prints a table of figures.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    size: Size,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let Arguments { size } = Arguments::parse();
    let program = tokio::task::spawn_blocking(|| release_program("mcp-entra-operator", "mcp-entra-operator")).await??;
    let supervisor = tokio::task::spawn_blocking(|| release_program("testbed", "testbed-supervisor")).await??;
    let supervisor = Supervisor::start_program(&supervisor)?;
    let figures = tokio::select! {
        figures = measure(&size, &program, supervisor, &|line| eprintln!("bench: {line}")) => figures?,
        // The supervisor sees our end of the pipe close, and ends everything that runs.
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::FAILURE),
    };
    print!("{figures}");
    let broken = figures.broken_promises();
    broken.iter().for_each(|promise| eprintln!("bench: {promise}"));
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
