//! `cargo e2e-local`: tests local mode of the server, and sign-in to a remote server, with third-party MCP clients,
//! Chromium and gnome-keyring. Entra and Graph are emulated.

mod browser;
mod cases;
mod keyring;
mod messages;
mod remote;
mod rmcp_session;
mod session;
mod tools;
mod world;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::Parser;
use e2e::report::{Evidence, tell};
use entra_emulator::{Configuration, EntraEmulator};
use futures::StreamExt;
use futures::stream;

use cases::{CASES, Case};
use tools::Tools;
use world::{Lane, World};

/// Tests local mode with third-party MCP clients, in Chromium, with gnome-keyring.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Play only the cases whose sentence contains this.
    only: Option<String>,
    /// Run a session of rmcp with this server, as the cases start it.
    #[arg(long, hide = true)]
    rmcp: Option<String>,
}

/// Number of parallel cases. Each mostly waits for programs to start.
const AT_ONCE: usize = 3;
/// Exit code that a shell expects of a program ended by Ctrl-C.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(server) = &arguments.rmcp {
        return match rmcp_session::serve(server).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("rmcp: {error:#}");
                ExitCode::FAILURE
            }
        };
    }
    tokio::select! {
        played = all_pass(&arguments) => match played {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("e2e-local: {error:#}");
                ExitCode::FAILURE
            }
        },
        // All processes end with this program, and their folders are removed.
        _ = tokio::signal::ctrl_c() => ExitCode::from(INTERRUPTED),
    }
}

async fn all_pass(arguments: &Arguments) -> anyhow::Result<bool> {
    let start = Instant::now();
    println!("mcp-entra-server local: real clients, a real browser and a real keyring; Entra and Graph are emulated.");
    let tools = tokio::task::spawn_blocking(Tools::install).await??;
    let emulator = EntraEmulator::start(Configuration::default(), ([127, 0, 0, 1], 0).into()).await?;
    let lane = Lane::new(tools, emulator)?;
    println!("Everything runs after {:.1?}.\n", start.elapsed());

    let only = arguments.only.as_deref().unwrap_or_default();
    let chosen = |case: &&Case| case.title.contains(only);
    let (alone, together): (Vec<&Case>, Vec<&Case>) = CASES.iter().filter(chosen).partition(|case| !case.is_remote);
    let count = alone.len() + together.len();
    let mut numbers = 1..;
    let mut passed = 0;
    for case in alone {
        let place = (numbers.next().unwrap_or_default(), count);
        passed += usize::from(tell(place, case.title, play(case, &lane)).await);
    }
    let lane = &lane;
    let timed = |case| async move {
        let start = Instant::now();
        let played = play(case, lane).await;
        (case, played.map(|evidence| [vec![format!("took {:.1?}", start.elapsed())], evidence].concat()))
    };
    let mut playing = pin!(stream::iter(together.into_iter().map(timed)).buffer_unordered(AT_ONCE));
    while let Some((case, played)) = playing.next().await {
        let place = (numbers.next().unwrap_or_default(), count);
        passed += usize::from(tell(place, case.title, async { played }).await);
    }
    println!("\ne2e-local: {passed} of {count} cases passed in {:.0} s", start.elapsed().as_secs_f64());
    Ok(passed == count && passed > 0)
}

/// Plays a case in its own world, and checks that every line of the server's output is a message.
async fn play(case: &Case, lane: &Lane) -> anyhow::Result<Evidence> {
    let mut world = World::new(lane).await?;
    let played = (case.play)(&mut world).await;
    let printed = messages::check(&world.stdout()?).context("the server's standard output");
    let log = world.stderr()?;
    let told = |error| anyhow!("{error:#}\nserver and clients logged:\n{log}");
    played.and_then(|evidence| printed.map(|_| evidence)).map_err(told)
}
