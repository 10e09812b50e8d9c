//! The table of forwarded calls, as plain text.

use std::fmt::Write as _;

use super::Compared;
use crate::server::Kind;
use crate::server::figures::Figures;
use crate::server::servers::Server;
use crate::server::table::memory;

/// The table of these servers with one worker, each named by its backend.
pub(super) fn table(servers: &[Server], connections: usize, compared: &Compared) -> String {
    let mut text = format!("{:<36}", "forwarded tools/call, 1 worker");
    let columns = ["requests/s", "alone", "time ms", "alone", "× alone", "CPU µs", "own core", "load core"];
    columns.iter().for_each(|column| _ = write!(text, "{column:>11}"));
    text.push('\n');
    for (index, server) in servers.iter().enumerate() {
        let figures = |figures: &Figures| figures.closed(index, Kind::Call);
        let Some((alone, closed)) = figures(&compared.alone).zip(figures(&compared.forwarded)) else { continue };
        let time = |rate: f64| u32::try_from(connections).map_or(f64::NAN, f64::from) * 1e3 / rate;
        _ = write!(text, "  {:<34}{:>11.0}{:>11.0}", server.name, closed.rate, alone.rate);
        _ = write!(text, "{:>11.2}{:>11.2}{:>11.2}", time(closed.rate), time(alone.rate), alone.rate / closed.rate);
        let own = closed.rate * closed.cpu / 1e6;
        _ = writeln!(text, "{:>11.1}{:>10.0}%{:>10.0}%", closed.cpu, own * 100.0, closed.load * 100.0);
    }
    memory(&mut text, servers, &compared.forwarded);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::figures::Closed;

    #[test]
    fn a_row_has_the_time_of_a_forwarded_call_beside_that_of_a_direct_call() {
        let mut compared = Compared::default();
        compared.forwarded.note(0, Kind::Call, Closed { rate: 1_600.0, cpu: 100.0, load: 0.25 });
        compared.alone.note(0, Kind::Call, Closed { rate: 2_000.0, cpu: 0.0, load: 0.3 });
        let table = table(&[Server::forwarding("program".into(), "backend", None)], 32, &compared);
        let row = table.lines().nth(1).unwrap_or_default().split_whitespace();
        let expected = ["backend", "1600", "2000", "20.00", "16.00", "1.25", "100.0", "16%", "25%"];
        assert_eq!(Vec::from_iter(row), expected, "{table}");
    }
}
