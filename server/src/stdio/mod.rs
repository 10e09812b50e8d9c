//! Local mode: the server as a child process of an MCP client, over standard input and output, for one person.
//!
//! The person signs in once, as a user of a public client. It needs no secret and no cluster.
//!
//! | File | Holds |
//! |---|---|
//! | [`arguments`], [`settings`] | command-line arguments and settings |
//! | [`machine_policy`] | the bounds that an administrator sets |
//! | `local` | the connected parts |
//! | `modes` | the modes of the program: serve, sign in, sign out |
//! | `connection` | messages: read, judged, answered |
//! | `offer` | the tools, and sign-ins during a call |
//! | `session` | the person's tokens, renewed without interaction |
//! | `sign_in` | the way to Entra and back |
//! | [`store`] | the stored tokens |
//! | `doctor` | the report of what works |
//! | [`client_config`] | the configuration for an MCP client |

pub mod arguments;
pub mod client_config;
mod connection;
mod doctor;
mod local;
pub mod machine_policy;
mod modes;
mod offer;
mod session;
pub mod settings;
mod sign_in;
pub mod store;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tracing_subscriber::filter::LevelFilter;

use self::arguments::Mode;
use self::local::Local;
use self::settings::Settings;
use self::store::StoreKind;
use crate::telemetry;

/// Runs local mode in every mode except [`Mode::PrintConfig`].
///
/// # Errors
/// If it cannot start, or the mode fails.
pub async fn run(mode: Mode, settings: Settings) -> anyhow::Result<ExitCode> {
    // Dropped last, so that the last log lines are written.
    let _log = match settings.log_file.as_deref() {
        Some(path) => telemetry::log_to(open(path, "--log-file")?, level(mode)),
        None => telemetry::log_to(std::io::stderr(), level(mode)),
    };
    // The memory store keeps nothing between starts, so a sign-out concerns the default store.
    let store = if mode == Mode::SignOut { StoreKind::default() } else { settings.store };
    let local = Local::new(Settings { store, ..settings })?;
    let mut out = std::io::stdout();
    let is_well = match mode {
        Mode::Serve => modes::serve(local).await.map(|()| true),
        Mode::SignIn => modes::sign_in(&local, &mut out).await.map(|()| true),
        Mode::SignOut => modes::sign_out(&local, &mut out).await.map(|()| true),
        Mode::Doctor => Ok(doctor::examine(&local, &mut out).await?),
        Mode::PrintConfig(_) => Ok(true),
    };
    Ok(if is_well? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Default log level of a mode. Modes for a terminal report errors themselves.
fn level(mode: Mode) -> LevelFilter {
    match mode {
        Mode::Serve => LevelFilter::INFO,
        Mode::SignIn | Mode::SignOut | Mode::Doctor | Mode::PrintConfig(_) => LevelFilter::OFF,
    }
}

/// Opens this file, or standard error. Standard output belongs to the protocol.
fn file(path: Option<&Path>, option: &'static str) -> anyhow::Result<Box<dyn Write + Send>> {
    Ok(match path {
        Some(path) => Box::new(open(path, option)?),
        None => Box::new(std::io::stderr()),
    })
}

fn open(path: &Path, option: &'static str) -> anyhow::Result<File> {
    let file = File::options().append(true).create(true).open(path);
    file.with_context(|| format!("cannot write to {}; choose another {option}", path.display()))
}
