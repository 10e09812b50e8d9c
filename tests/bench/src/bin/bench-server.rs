//! `cargo bench-server`: measures mcp-entra-server beside other MCP servers. It builds the release program, installs
//! the others, and runs all of them with an emulated Entra. It prints a table of figures.

use std::path::{Path, PathBuf};

use anyhow::Context;
use bench::server::{Bench, PeerArguments, Size, run_bare, run_fixed_caller, run_load};
use clap::{Parser, Subcommand};
use testbed::programs::release_program;
use tokio::runtime::Runtime;

/// Measures mcp-entra-server beside other MCP servers, and prints a table of figures.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    size: Size,
    /// Another mcp-entra-server program to measure in the same run, such as one of an older version. Repeatable.
    #[arg(long)]
    program: Vec<PathBuf>,
}

/// Processes that the bench starts itself.
#[derive(Subcommand)]
enum Part {
    /// Sends requests.
    #[command(hide = true)]
    Load,
    /// Serves as bare rmcp.
    #[command(hide = true)]
    Bare(PeerArguments),
    /// Serves as rmcp with the same client of Graph.
    #[command(hide = true)]
    SameClient(PeerArguments),
}

fn main() -> anyhow::Result<()> {
    let Arguments { part, size, program } = Arguments::parse();
    match part {
        Some(Part::Load) => run_load(),
        Some(Part::Bare(arguments)) => Runtime::new()?.block_on(run_bare(&arguments)),
        Some(Part::SameClient(arguments)) => Runtime::new()?.block_on(run_fixed_caller(&arguments)),
        None => measure(size, program),
    }
}

fn measure(size: Size, mut programs: Vec<PathBuf>) -> anyhow::Result<()> {
    let built = release_program("mcp-entra-server", "mcp-entra-server")?;
    let target = built.ancestors().nth(2).map(Path::to_owned).context("the target folder")?;
    programs.push(built);
    let shim = size.forwards().then(|| release_program("mcp-entra-shim", "mcp-entra-shim")).transpose()?;
    let bench = Bench::prepare(size, &programs, shim, &target.join("tmp"))?;
    Runtime::new()?.block_on(async {
        let figures = tokio::select! {
            figures = bench.run(&|line| eprintln!("bench: {line}")) => figures?,
            // The servers end with the values that are dropped here.
            signal = tokio::signal::ctrl_c() => return Ok(signal?),
        };
        print!("{figures}");
        Ok(())
    })
}
