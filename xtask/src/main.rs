//! `cargo xtask`: the chores of this repository.

mod ci;
mod generate;
mod images;
mod tools;

use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};

/// Tasks of this repository.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Write the files that code generates: definitions, schemas, values and tables
    Generate {
        /// Fail where a file is not what the code generates, and write nothing
        #[arg(long)]
        check: bool,
    },
    /// Make the container images of the operator and the server as OCI archives in `target/images`
    Image(images::Arguments),
    /// Run the checks that decide whether a change lands, or one lane of them
    Ci {
        /// The lane; every lane if absent
        lane: Option<ci::Lane>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().chore {
        Chore::Generate { check } => generate::run(check),
        Chore::Image(arguments) => images::run(&arguments),
        Chore::Ci { lane } => ci::run(lane),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the cargo that runs this program.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command and waits for its end.
///
/// # Errors
/// If it cannot be started, or fails.
fn execute(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_owned();
    let status = command.status().with_context(|| format!("start {}", name.display()))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
