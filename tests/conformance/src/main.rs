//! `cargo conformance`: runs the public conformance suite of MCP against the server's own stages, behind an emulated
//! Entra.

mod fixtures;
mod proxy;
mod report;
mod results;
mod server;
mod suite;

use std::process::ExitCode;
use std::time::Instant;

use report::Report;
use results::ExpectedFailures;
use server::Server;
use suite::Suite;

/// Revisions, the newest first.
const REVISIONS: [&str; 2] = ["2026-07-28", "2025-11-25"];
/// Scenarios that this server must pass although the suite does not score them, at the newest revision.
const ALSO_REQUIRED: [&str; 2] = ["http-header-validation", "http-custom-header-server-validation"];
/// Expected failures.
const EXPECTED_FAILURES: &str = include_str!("../expected-failures.yaml");

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<bool> {
    let start = Instant::now();
    let expected = ExpectedFailures::parse(EXPECTED_FAILURES)?;
    let suite = tokio::task::spawn_blocking(Suite::install).await??;
    let server = Server::start().await?;
    server.is_authenticated().await?;
    println!("Everything runs after {:.1?}; a request without a token is refused.", start.elapsed());

    let runs = REVISIONS.map(|revision| suite.run(revision, &server.url));
    let results = futures::future::try_join_all(runs).await?;
    let mut report = Report::new(&expected);
    for (revision, results) in REVISIONS.iter().zip(&results) {
        let also: &[&str] = if *revision == REVISIONS[0] { &ALSO_REQUIRED } else { &[] };
        report.add(revision, &suite.requirements(revision)?, also, results);
    }
    print!("{report}");
    println!("It took {:.0} s.", start.elapsed().as_secs_f64());
    println!("{}", report.summary());
    Ok(report.is_good())
}
