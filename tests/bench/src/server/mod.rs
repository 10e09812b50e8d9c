//! Benchmark of the server: requests per second of mcp-entra-server and its peers, their processor time and memory, and
//! the latency of their clients.
//!
//! Every server is a separate process on its own cores, and so is the load (`cores`). Entra is the emulator, and Graph
//! one static answer, both in this process. All servers run at the same time. They are measured in turns, so that the
//! machine is the same for all of them. Figures are medians of the turns.
//!
//! Calls that mcp-entra-server forwards to another MCP server are measured beside direct calls to that server
//! (`forwarded`).
//!
//! Standard output of each server is `/dev/null`, including the audit lines of mcp-entra-server: it writes them, but
//! they are not stored. Logs are at `warn`, and its rate limit is too high to be reached.

mod cores;
mod figures;
mod forwarded;
mod graph;
mod handshake;
mod load;
mod machine;
mod peers;
mod program;
mod requests;
mod servers;
mod shim;
mod statistics;
mod table;
mod tenant;
mod turns;

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::Args;

pub use load::run as run_load;
pub use peers::{PeerArguments, run_bare, run_fixed_caller};
pub use requests::Kind;
pub use servers::Peer;

use program::Program;
use requests::Tokens;
use servers::Server;
use tenant::BenchTenant;

/// Size of the measurement.
#[derive(Args, Clone, Debug)]
pub struct Size {
    /// Seconds for each kind of request of a server in one turn
    #[arg(long, default_value_t = 3.0)]
    pub seconds: f64,
    /// Turns of each server. One more turn before them, which fills caches, is not counted
    #[arg(long, default_value_t = 3)]
    pub turns: u32,
    /// Connections of the load
    #[arg(long, default_value_t = 32)]
    pub connections: usize,
    /// Workers of each server, and its cores. Repeatable; one and two by default
    #[arg(long, default_values_t = [1, 2])]
    pub workers: Vec<u8>,
    /// Servers to measure. Repeatable; all by default
    #[arg(long)]
    pub only: Vec<Peer>,
    /// Kinds of request to measure. Repeatable; all by default
    #[arg(long)]
    pub kind: Vec<Kind>,
    /// Measure only calls that are forwarded to another MCP server. Without `--only` and `--kind` they are always
    /// measured
    #[arg(long, conflicts_with_all = ["only", "kind"])]
    pub forwarded: bool,
}

impl Size {
    /// Returns whether forwarded calls are measured.
    #[must_use]
    pub fn forwards(&self) -> bool {
        self.only.is_empty() && self.kind.is_empty()
    }

    fn has(&self, peer: Peer) -> bool {
        !self.forwarded && self.only.is_empty() || self.only.contains(&peer)
    }

    fn kinds(&self) -> Vec<Kind> {
        let all = [Kind::List, Kind::Call, Kind::Flood, Kind::UsersList, Kind::UsersCall];
        all.into_iter().filter(|kind| self.kind.is_empty() || self.kind.contains(kind)).collect()
    }
}

/// A prepared measurement: everything is installed, and this thread stays on the core of Entra and Graph.
pub struct Bench {
    size: Size,
    servers: Vec<Server>,
    /// Server whose tools the peers list.
    definitions: Server,
    /// Programs of forwarded calls.
    forwarded: Option<forwarded::Programs>,
    available: Vec<usize>,
}

impl Bench {
    /// Prepares a measurement of these programs of mcp-entra-server, and of the peers. The last program forwards calls,
    /// with this shim, which [`Size::forwards`] needs. Blocks until all are installed. Call it before the start of a
    /// runtime, so that all its threads stay on the same core.
    ///
    /// # Errors
    /// If a peer cannot be installed, or there is one core alone.
    pub fn prepare(size: Size, programs: &[PathBuf], shim: Option<PathBuf>, cache: &Path) -> anyhow::Result<Self> {
        ensure!(size.seconds > 0.0 && size.turns > 0 && size.connections > 0, "at least one of each is measured");
        let possible = 1..=cores::MOST_WORKERS;
        ensure!(
            size.workers.iter().all(|workers| possible.contains(&usize::from(*workers))),
            "one worker or two are measured"
        );
        let name = |program: &PathBuf| match programs.len() {
            1 => "mcp-entra-server".to_owned(),
            _ => program.display().to_string(),
        };
        let ours = programs.iter().filter(|_| size.has(Peer::Ours));
        let mut servers = Vec::from_iter(ours.map(|program| Server::ours(program.clone(), name(program))));
        for (peer, name) in [(Peer::Bare, "bare rmcp"), (Peer::SameClient, "rmcp, same Graph client")] {
            servers.extend(size.has(peer).then(|| Server::rmcp(peer, name)).transpose()?);
        }
        servers.extend(size.has(Peer::Fastmcp).then(|| Server::fastmcp(cache)).transpose()?);
        servers.extend(size.has(Peer::Typescript).then(|| Server::typescript(cache)).transpose()?);
        let definitions = programs.last().context("a program of mcp-entra-server is needed")?;
        let forwarded = shim.map(|shim| forwarded::Programs::install(definitions.clone(), shim)).transpose()?;
        let definitions = Server::ours(definitions.clone(), name(definitions));
        let available = cores::available()?;
        cores::pin(&[cores::Cores::plan(&available, 1)?.graph])?;
        Ok(Self { size, servers, definitions, forwarded, available })
    }

    /// Runs the measurement, and returns the tables.
    ///
    /// # Errors
    /// If a server does not start, or an answer is not the expected one.
    pub async fn run(&self, say: &(dyn Fn(&str) + Sync)) -> anyhow::Result<String> {
        let tenant = BenchTenant::start().await?;
        let tokens = Tokens::sign(&tenant)?;
        let mut text = machine::describe(&self.available, &self.servers).await?;
        text.push_str(&format!("{} connections, tokens of {} bytes\n", self.size.connections, tokens.length()));
        if !self.size.forwarded {
            self.run_beside_peers((&tenant, &tokens), &mut text, say).await?;
        }
        if let Some(programs) = &self.forwarded {
            say("starting backends");
            text.push('\n');
            text.push_str(&forwarded::measure(self, programs, &tenant, say).await?);
        }
        Ok(text)
    }

    async fn run_beside_peers(
        &self,
        (tenant, tokens): (&BenchTenant, &Tokens),
        text: &mut String,
        say: &(dyn Fn(&str) + Sync),
    ) -> anyhow::Result<()> {
        let definitions = Program::start(&self.definitions, tenant, &self.available).await?;
        tenant.tell_peers(definitions.tools(tenant).await?)?;
        drop(definitions);
        for workers in &self.size.workers {
            say(&format!("starting servers with {workers} worker(s)"));
            let cores = cores::Cores::plan(&self.available, usize::from(*workers))?;
            let figures = turns::measure(self, (tenant, tokens), &cores, say).await?;
            text.push('\n');
            text.push_str(&table::table(&self.servers, &self.size.kinds(), *workers, &figures));
        }
        Ok(())
    }
}
