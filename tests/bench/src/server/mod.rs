//! The server's bench: the processor time that a request takes, for one program or for two in turns.

mod figures;
mod program;
mod requests;
mod tenant;

use std::path::PathBuf;

use anyhow::ensure;
use clap::Args;

pub use figures::Figures;

use program::Program;
use requests::Client;
use tenant::BenchTenant;

/// How much is measured.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Requests of each kind that a program answers in one turn.
    #[arg(long, default_value_t = 20_000)]
    pub requests: u32,
    /// Turns of each program.
    #[arg(long, default_value_t = 5)]
    pub turns: u32,
    /// Connections over which they come.
    #[arg(long, default_value_t = 8)]
    pub connections: u32,
}

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `tools/list` of a caller who may call every tool.
    List,
    /// `tools/call` of a caller to whom nothing is granted.
    Refused,
    /// `tools/call` with arguments that the tool does not take: all of a call but the request to Graph.
    Call,
}

impl Kind {
    const ALL: [Self; 3] = [Self::List, Self::Refused, Self::Call];
}

/// Measures these programs in turns, so that all of them meet the same machine.
///
/// # Errors
/// If a program does not start, or an answer is not the expected one.
pub async fn measure(load: &Load, programs: &[PathBuf], say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Figures> {
    ensure!(load.requests > 0 && load.turns > 0 && load.connections > 0, "at least one of each is measured");
    let tenant = BenchTenant::start().await?;
    let mut running = Vec::new();
    for path in programs {
        say(&format!("starting {}", path.display()));
        running.push(Program::start(path, &tenant).await?);
    }
    let mut figures = Figures::of(programs);
    for turn in 0..=load.turns {
        for (index, program) in running.iter().enumerate() {
            for kind in Kind::ALL {
                let client = Client::new(program, &tenant, kind)?;
                let before = program.cpu()?;
                client.send(load.requests, load.connections).await?;
                let taken = program.cpu()?.saturating_sub(before);
                // The first turn fills caches.
                if turn > 0 {
                    figures.note(index, kind, taken / load.requests);
                }
            }
        }
        say(&format!("turn {turn} of {}", load.turns));
    }
    Ok(figures)
}
