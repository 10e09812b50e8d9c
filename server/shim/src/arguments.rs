//! Arguments of the program.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt};

use crate::serve;
use crate::supervise::Backend;

/// Text of `--help`.
pub const USAGE: &str = "\
Runs inside the container of an MCP server that speaks over standard input and output.

mcp-entra-shim serve --socket PATH --max-processes N [--patience-ms N] -- COMMAND [ARGUMENT...]
    Listen on a Unix socket, and start the command for each connection. The connection is the command's standard
    input and output. Logs, and the command's standard error, go to standard error.
      --socket         the socket to create; its folder must be writable
      --max-processes  maximum number of connections at the same time
      --patience-ms    time in milliseconds from the end of the command's input to SIGTERM, and from there to SIGKILL
                       (default: 3000)

mcp-entra-shim install DIRECTORY
    Copy this program into a directory.

mcp-entra-shim hold ADDRESS...
    Keep these addresses with TCP ports, such as [::]:8080, until SIGTERM, and listen on none. Other programs of the
    same user can listen on them with SO_REUSEPORT; programs of other users cannot take them.

mcp-entra-shim supervise [--patience-ms N] -- COMMAND [ARGUMENT...]
    Start the command for the connection that is standard input. `serve` starts this.
";

/// Default patience: the specification's advice to clients of stdio servers.
const PATIENCE: Duration = Duration::from_secs(3);

/// Task of the program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Arguments {
    /// Listen until SIGTERM or SIGINT.
    Serve(serve::Options),
    /// Start the command for one connection, which is standard input.
    Supervise(Backend),
    /// Copy the program into this directory.
    Install(PathBuf),
    /// Hold the ports of these addresses until SIGTERM or SIGINT. There is at least one.
    Hold(Vec<SocketAddr>),
    /// Print [`USAGE`].
    Help,
    /// Print the version.
    Version,
}

/// Reads the arguments.
///
/// # Errors
/// If they are incomplete or not understood. The message names the argument.
pub fn parse(mut parser: Parser) -> Result<Arguments, lexopt::Error> {
    let Some(first) = parser.next()? else { return Err("name a subcommand: serve, install or hold".into()) };
    match first {
        Arg::Long("help") | Arg::Short('h') => Ok(Arguments::Help),
        Arg::Long("version") | Arg::Short('V') => Ok(Arguments::Version),
        Arg::Value(name) if name == "serve" => parse_serve(parser),
        Arg::Value(name) if name == "supervise" => {
            let (options, command) = parse_options(parser)?;
            refuse(options.socket.is_some(), "--socket")?;
            refuse(options.max_processes.is_some(), "--max-processes")?;
            Ok(Arguments::Supervise(Backend { command, patience: options.patience }))
        }
        Arg::Value(name) if name == "install" => {
            let folder = parser.value()?.into();
            parser.next()?.map_or(Ok(Arguments::Install(folder)), |more| Err(more.unexpected()))
        }
        Arg::Value(name) if name == "hold" => parse_hold(parser),
        other => Err(other.unexpected()),
    }
}

fn parse_hold(mut parser: Parser) -> Result<Arguments, lexopt::Error> {
    let mut addresses = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Value(address) => addresses.push(address.parse()?),
            other => return Err(other.unexpected()),
        }
    }
    if addresses.is_empty() { Err("name an address to hold".into()) } else { Ok(Arguments::Hold(addresses)) }
}

fn parse_serve(parser: Parser) -> Result<Arguments, lexopt::Error> {
    let (options, command) = parse_options(parser)?;
    Ok(Arguments::Serve(serve::Options {
        socket: options.socket.ok_or("--socket is missing")?,
        max_processes: options.max_processes.ok_or("--max-processes is missing")?,
        backend: Backend { command, patience: options.patience },
    }))
}

fn refuse(given: bool, option: &str) -> Result<(), lexopt::Error> {
    if given { Err(format!("{option} is not an option of this subcommand").into()) } else { Ok(()) }
}

struct Options {
    socket: Option<PathBuf>,
    max_processes: Option<NonZeroUsize>,
    patience: Duration,
}

/// Reads the options, and the command after them.
fn parse_options(mut parser: Parser) -> Result<(Options, Vec<OsString>), lexopt::Error> {
    let mut options = Options { socket: None, max_processes: None, patience: PATIENCE };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("socket") => options.socket = Some(parser.value()?.into()),
            Arg::Long("max-processes") => options.max_processes = Some(parser.value()?.parse()?),
            Arg::Long("patience-ms") => {
                options.patience = Duration::from_millis(parser.value()?.parse::<u32>()?.into())
            }
            Arg::Value(program) => {
                let command = std::iter::once(program).chain(parser.raw_args()?).collect();
                return Ok((options, command));
            }
            other => return Err(other.unexpected()),
        }
    }
    Err("name the command after --".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Arguments, String> {
        parse(Parser::from_args(arguments)).map_err(|error| error.to_string())
    }

    #[test]
    fn everything_after_the_two_dashes_is_the_command() {
        let options = ["serve", "--socket=/s", "--max-processes", "2", "--patience-ms", "9"];
        let arguments = parsed(&[&options[..], &["--", "-run", "--socket", "--", "x"]].concat());
        let command = ["-run", "--socket", "--", "x"].map(OsString::from).to_vec();
        let expected = serve::Options {
            socket: "/s".into(),
            max_processes: NonZeroUsize::new(2).unwrap(),
            backend: Backend { command, patience: Duration::from_millis(9) },
        };
        assert_eq!(arguments, Ok(Arguments::Serve(expected)));
    }

    #[test]
    fn processes_have_three_seconds_to_end_by_default() {
        let Ok(Arguments::Supervise(backend)) = parsed(&["supervise", "--", "cat"]) else { panic!("not understood") };
        assert_eq!(backend.patience, Duration::from_secs(3));
    }

    #[test]
    fn the_program_installs_into_exactly_one_directory() {
        assert_eq!(parsed(&["install", "/shim"]), Ok(Arguments::Install("/shim".into())));
        assert!(parsed(&["install", "/shim", "/other"]).is_err());
        assert!(parsed(&["install"]).is_err());
    }

    #[test]
    fn each_address_to_hold_has_a_port() {
        let expected = ["[::]:8080", "127.0.0.1:8081"].map(|address| address.parse().unwrap());
        assert_eq!(parsed(&["hold", "[::]:8080", "127.0.0.1:8081"]), Ok(Arguments::Hold(expected.into())));
        for refused in [&["hold"][..], &["hold", "8080"], &["hold", "[::]"], &["hold", "--reuse", "[::]:8080"]] {
            assert!(parsed(refused).is_err(), "{refused:?}");
        }
    }

    #[test]
    fn incomplete_arguments_are_refused_by_name() {
        for (arguments, named) in [
            (&["serve", "--socket", "/s", "--", "cat"][..], "--max-processes"),
            (&["serve", "--max-processes", "1", "--", "cat"], "--socket"),
            (&["serve", "--socket", "/s", "--max-processes", "0", "--", "cat"], "zero"),
            (&["serve", "--socket", "/s", "--max-processes", "1"], "command after --"),
            (&["supervise", "--socket", "/s", "--", "cat"], "--socket"),
            (&["serve", "--verbose"], "--verbose"),
            (&["start"], "start"),
            (&[], "subcommand"),
        ] {
            let refusal = parsed(arguments).unwrap_err();
            assert!(refusal.contains(named), "{arguments:?}: {refusal}");
        }
    }
}
