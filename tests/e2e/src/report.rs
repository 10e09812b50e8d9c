//! The report of a step: its title, its verdict, its time and the evidence it leaves.

use std::future::Future;
use std::io::Write;
use std::time::Instant;

/// Evidence that a step leaves, a line each.
pub type Evidence = Vec<String>;

/// Plays something that has a place among others, and prints its title, its time, and what it saw. Returns true if it
/// passed.
pub async fn tell(
    (number, of): (usize, usize),
    title: &str,
    play: impl Future<Output = anyhow::Result<Evidence>>,
) -> bool {
    print!("[{number:>2}/{of}] {title} … ");
    let _ = std::io::stdout().flush();
    let start = Instant::now();
    let played = play.await;
    let (verdict, lines) = match &played {
        Ok(evidence) => ("ok", evidence.clone()),
        Err(error) => ("FAILED", format!("{error:#}").lines().map(str::to_owned).collect()),
    };
    println!("{verdict} ({:.1} s)", start.elapsed().as_secs_f64());
    lines.iter().for_each(|line| println!("        {line}"));
    played.is_ok()
}
