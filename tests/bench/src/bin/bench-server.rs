//! `cargo bench-server`: the processor time that the server takes for a request. It builds the release program, runs it
//! before an emulated Entra, and prints a table of figures; beside another program, in turns, if one is named.

use std::path::PathBuf;

use bench::server::{Load, measure};
use clap::Parser;
use testbed::programs::release_program;

/// Measures mcp-entra-server, and prints a table of figures.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    load: Load,
    /// Another mcp-entra-server program to measure in the same run, such as one of an older version. Repeatable; ratios
    /// are to the first.
    #[arg(long)]
    against: Vec<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { load, against } = Arguments::parse();
    let built = tokio::task::spawn_blocking(|| release_program("mcp-entra-server", "mcp-entra-server")).await??;
    let programs: Vec<PathBuf> = against.into_iter().chain([built]).collect();
    let figures = measure(&load, &programs, &|line| eprintln!("bench: {line}")).await?;
    print!("{figures}");
    Ok(())
}
