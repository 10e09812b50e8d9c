//! Report of a step: its title, verdict, time and evidence.

use std::future::Future;
use std::io::Write;
use std::time::Instant;

/// Evidence of a step, in lines.
pub type Evidence = Vec<String>;

/// Plays a numbered step, and prints its title, its time, and its evidence. Returns true if it passed.
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
