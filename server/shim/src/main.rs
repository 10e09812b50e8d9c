//! Program `mcp-entra-shim`: reads its arguments and starts the library.

use std::fmt::Display;
use std::process::ExitCode;

use mcp_entra_shim::arguments::{Arguments, USAGE, parse};
use mcp_entra_shim::log::{Log, SHIM};
use mcp_entra_shim::{hold, install, serve, supervise};

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()) {
        Ok(arguments) => run(arguments).map_or_else(|error| failed(&format!("{error:#}")), |()| ExitCode::SUCCESS),
        Err(error) => failed(&format!("{error}; see --help")),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    // One thread, and another for the log, since the threads of a pod are limited.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments {
        Arguments::Serve(options) => logged(|log| runtime.block_on(serve::serve(&options, log))),
        Arguments::Supervise(backend) => logged(|log| runtime.block_on(supervise::supervise(&backend, log))),
        Arguments::Hold(addresses) => logged(|log| runtime.block_on(hold::hold(&addresses, log))),
        Arguments::Install(folder) => install::install(&folder),
        Arguments::Help => {
            print!("{USAGE}");
            Ok(())
        }
        Arguments::Version => {
            println!("{SHIM} {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
    }
}

/// Runs the task with a log, and writes its last lines afterwards.
fn logged(run: impl FnOnce(&Log) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let (log, writer) = Log::to_stderr()?;
    let ended = run(&log);
    drop(log);
    writer.finish();
    ended
}

fn failed(why: &impl Display) -> ExitCode {
    eprintln!("{SHIM}: {why}");
    ExitCode::FAILURE
}
