//! Calls that mcp-entra-server forwards to another MCP server, beside the same direct calls to that server.
//!
//! Over HTTP, both kinds of calls go to the same process of the backend. It runs on the core of Entra and Graph, which
//! has no other work here. Over stdio, mcp-entra-server reaches a process of the backend through the shim. The shim's
//! processor time and memory count as those of mcp-entra-server, and the load has its own process. All calls of a turn
//! are those of one user. Memory is measured after a call of each of [`USERS`].

mod backend;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use stock_backends::Public;

use self::backend::Backend;
use super::cores::Cores;
use super::figures::{Closed, Figures, MemoryOfServer};
use super::program::Program;
use super::servers::Server;
use super::shim::Shim;
use super::tenant::BenchTenant;
use super::turns::{REST, ask, load};
use super::{Bench, Kind, Size};

/// Number of users whose sessions need memory.
const USERS: usize = 100;

/// Programs that forward calls.
pub(super) struct Programs {
    server: PathBuf,
    shim: PathBuf,
}

/// Figures by the index of the backend.
#[derive(Default)]
struct Compared {
    /// The backend without mcp-entra-server. Its processor time is not measured.
    alone: Figures,
    forwarded: Figures,
}

impl Programs {
    /// Prepares these programs. Blocks until the backends are installed.
    pub(super) fn install(server: PathBuf, shim: PathBuf) -> anyhow::Result<Self> {
        for public in [Public::Everything, Public::Greeter] {
            public.launch_http(0)?;
        }
        Ok(Self { server, shim })
    }
}

/// A server with the backend that it forwards calls to.
struct Pair {
    program: Program,
    backend: Backend,
}

/// Starts the backends and a server in front of each, measures them in turns, and returns the table.
pub(super) async fn measure(
    bench: &Bench,
    programs: &Programs,
    tenant: &BenchTenant,
    say: &(dyn Fn(&str) + Sync),
) -> anyhow::Result<String> {
    let (size, cores) = (&bench.size, Cores::plan(&bench.available, 1)?);
    let (mut servers, mut pairs) = (Vec::new(), Vec::new());
    for mut backend in Backend::start_all(&programs.shim, cores.graph).await? {
        tenant.add_backend(backend.name, backend.configuration.clone(), backend.tool)?;
        let socket = backend.shim.as_ref().map(Shim::socket);
        let server = Server::forwarding(programs.server.clone(), backend.name, socket);
        let mut program = Program::start(&server, tenant, &cores.server).await?;
        program.adopt(backend.shim.take());
        servers.push(server);
        pairs.push(Pair { program, backend });
    }
    tokio::time::sleep(REST).await;
    let (mut compared, tokens) = (Compared::default(), tenant.tokens(USERS)?);
    for (index, pair) in pairs.iter().enumerate() {
        let memory = pair.memory(&tokens, size, &cores).await;
        let memory = memory.with_context(|| format!("{USERS} users, {}", pair.backend.name))?;
        compared.forwarded.note_memory(index, memory);
    }
    for turn in 0..=size.turns {
        say(&format!("turn {turn} of {}, forwarded", size.turns));
        for (index, pair) in pairs.iter().enumerate() {
            let turns = pair.turn(tokens.get(..1).context("a token")?, size, &cores).await;
            let (alone, forwarded) = turns.with_context(|| pair.backend.name)?;
            // The first turn fills caches.
            if turn > 0 {
                compared.alone.note(index, Kind::Call, alone);
                compared.forwarded.note(index, Kind::Call, forwarded);
            }
        }
    }
    Ok(table::table(&servers, size.connections, &compared))
}

impl Pair {
    /// Returns the memory of the idle server, and after a call with each of these tokens.
    async fn memory(&self, tokens: &[String], size: &Size, cores: &Cores) -> anyhow::Result<MemoryOfServer> {
        let (idle, mut order) = (self.program.memory()?, self.backend.forwarded(self.program.address, tokens));
        (order.connections, order.at_least) = (size.connections, u64::try_from(tokens.len())?);
        load(&order, cores.load).await?;
        Ok(MemoryOfServer { idle, after: self.program.memory()? })
    }

    /// Measures the backend directly, then the server.
    async fn turn(&self, tokens: &[String], size: &Size, cores: &Cores) -> anyhow::Result<(Closed, Closed)> {
        let mut orders = [self.backend.alone.clone(), self.backend.forwarded(self.program.address, tokens)];
        orders.iter_mut().for_each(|order| (order.connections, order.seconds) = (size.connections, size.seconds));
        let [alone, forwarded] = orders;
        let alone = ask(&|| Ok(Duration::ZERO), &alone, cores).await.context("alone")?;
        Ok((alone, ask(&|| self.program.cpu(), &forwarded, cores).await.context("forwarded")?))
    }
}
