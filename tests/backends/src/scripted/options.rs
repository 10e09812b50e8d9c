//! Options of a scripted backend, and its command lines.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use crate::{HttpBackend, Launch};

/// Revisions that a backend speaks.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Era {
    /// 2024-11-05 to 2025-11-25: `initialize`, and a session over HTTP.
    #[default]
    Legacy,
    /// Only 2026-07-28: `server/discover`, no session.
    Modern,
}

/// Form of answers over HTTP.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Answers {
    /// JSON if the answer is the only message, otherwise events.
    #[default]
    Json,
    /// Events.
    Sse,
}

/// Form of the list of tools.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Listed {
    /// Ordinary tools, in pages.
    #[default]
    Ordinary,
    /// 10,000 tools, in pages.
    Many,
    /// 10,000 tools with long descriptions in one page of some 20 MiB.
    BigPage,
    /// One page that names the same next cursor forever.
    CursorLoop,
    /// No answer at all.
    Silent,
    /// Names with control characters, of 10 KB, empty ones and duplicates, before the ordinary tools.
    BadNames,
}

/// Options of a scripted backend.
#[derive(Args, Clone, Debug, Eq, PartialEq)]
#[group(skip)]
pub struct Options {
    /// Revisions that it speaks.
    #[arg(long, value_enum, default_value_t)]
    pub era: Era,
    /// Form of its answers over HTTP.
    #[arg(long, value_enum, default_value_t)]
    pub answers: Answers,
    /// Form of its list of tools, until a tool changes it.
    #[arg(long, value_enum, default_value_t)]
    pub listed: Listed,
    /// Maximum number of entries on a page of any list.
    #[arg(long, default_value_t = 10)]
    pub page_size: usize,
    /// Milliseconds after its start in which it answers nothing.
    #[arg(long, default_value_t = 0)]
    pub slow_start: u64,
    /// True if it answers GET with 405.
    #[arg(long)]
    pub get_405: bool,
    /// True if it has no sessions over HTTP, although it speaks the legacy era.
    #[arg(long)]
    pub stateless: bool,
    /// True if it never answers `server/discover`.
    #[arg(long)]
    pub silent_discover: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            era: Era::default(),
            answers: Answers::default(),
            listed: Listed::default(),
            page_size: 10,
            slow_start: 0,
            get_405: false,
            stateless: false,
            silent_discover: false,
        }
    }
}

impl Options {
    /// Options of a backend that speaks this era, with the defaults of all others.
    #[must_use]
    pub fn of(era: Era) -> Self {
        Self { era, ..Self::default() }
    }

    /// Returns the command line of the backend over stdio.
    ///
    /// # Errors
    /// If the program has not been built.
    pub fn launch(&self) -> anyhow::Result<Launch> {
        Ok(Launch { program: program()?, args: self.words(), env: Vec::new() })
    }

    /// Starts the backend as a process over streamable HTTP on a free port.
    ///
    /// # Errors
    /// If the program has not been built, or does not start.
    pub async fn start_http(&self, folder: &Path) -> anyhow::Result<HttpBackend> {
        HttpBackend::start(folder, |port| {
            let mut launch = self.launch()?;
            launch.args.extend(["--port".to_owned(), port.to_string()]);
            Ok(launch)
        })
        .await
    }

    fn words(&self) -> Vec<String> {
        let name = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
        let valued = [
            ("--era", name(self.era.to_possible_value())),
            ("--answers", name(self.answers.to_possible_value())),
            ("--listed", name(self.listed.to_possible_value())),
            ("--page-size", Some(self.page_size.to_string())),
            ("--slow-start", Some(self.slow_start.to_string())),
        ];
        let flags =
            [("--get-405", self.get_405), ("--stateless", self.stateless), ("--silent-discover", self.silent_discover)];
        let valued = valued.into_iter().filter_map(|(option, value)| Some(format!("{option}={}", value?)));
        valued.chain(flags.into_iter().filter(|(_, set)| *set).map(|(flag, _)| flag.to_owned())).collect()
    }
}

/// Path of the program beside the running one, or beside the folder of tests. Cargo builds it with this package's
/// tests, and so with those of the workspace.
fn program() -> anyhow::Result<PathBuf> {
    let itself = std::env::current_exe()?;
    let folder = itself.parent().context("a program is in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    let program = folder.join("scripted-backend");
    ensure!(program.is_file(), "{} is missing: `cargo build --workspace --bins` makes it", program.display());
    Ok(program)
}
