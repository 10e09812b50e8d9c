//! The table of a run, as plain text.
//!
//! Ratios compare the requests for the same processor time. On a quiet machine, those of `requests/s` are equal. On
//! other machines, these stay valid while a server waits for its core.

use std::fmt::Write as _;

use super::Kind;
use super::figures::{Figures, MemoryOfServer};
use super::servers::{Peer, Server};

/// Usage of its core from which on the load limits the result, 0 to 1.
const SATURATED: f64 = 0.9;
/// Usage of its cores below which a server under full load waits for something else, 0 to 1.
const IDLE: f64 = 0.8;

/// The table for one number of workers.
pub(super) fn table(servers: &[Server], kinds: &[Kind], workers: u8, figures: &Figures) -> String {
    let mut text = format!("{workers} worker{}\n", if workers == 1 { "" } else { "s" });
    let columns = ["requests/s", "CPU µs", "own core", "load core", "p99 µs", "÷ bare", "÷ same", "÷ FastMCP"];
    for kind in kinds {
        _ = write!(text, "\n{:<36}", kind.name());
        columns.iter().for_each(|column| _ = write!(text, "{column:>11}"));
        text.push('\n');
        for (index, server) in servers.iter().enumerate() {
            row(&mut text, (index, server), (servers, *kind), (workers, figures));
        }
    }
    memory(&mut text, servers, figures);
    text
}

fn row(
    text: &mut String,
    (index, server): (usize, &Server),
    (servers, kind): (&[Server], Kind),
    (workers, figures): (u8, &Figures),
) {
    let Some(closed) = figures.closed(index, kind) else { return };
    let own = closed.rate * closed.cpu / 1e6 / f64::from(workers);
    let p99 = figures.p99(index, kind).map_or("-".to_owned(), |p99| format!("{p99:.0}"));
    _ = write!(text, "  {:<34}{:>11.0}{:>11.1}", server.name, closed.rate, closed.cpu);
    _ = write!(text, "{:>10.0}%{:>10.0}%{p99:>11}", own * 100.0, closed.load * 100.0);
    for reference in [Peer::Bare, Peer::SameClient, Peer::Fastmcp] {
        let place = servers.iter().position(|server| server.peer == reference);
        let reference = place.and_then(|place| figures.closed(place, kind));
        let ratio = reference.map_or("-".to_owned(), |reference| format!("{:.2}", reference.cpu / closed.cpu));
        _ = write!(text, "{ratio:>11}");
    }
    // With two workers on two cores, load and server compete for the same core.
    let remark = match () {
        () if closed.load > SATURATED => "  the load is saturated",
        () if own < IDLE && workers == 1 => "  the server lacked work or its core",
        () => "",
    };
    text.push_str(remark);
    text.push('\n');
}

pub(super) fn memory(text: &mut String, servers: &[Server], figures: &Figures) {
    _ = write!(text, "\n{:<36}", "memory, MiB");
    for column in ["idle", "after", "idle anon.", "after anon."] {
        _ = write!(text, "{column:>12}");
    }
    text.push('\n');
    for (index, server) in servers.iter().enumerate() {
        let Some(MemoryOfServer { idle, after }) = figures.memory(index) else { continue };
        _ = write!(text, "  {:<34}", server.name);
        for bytes in [idle.resident, after.resident, idle.anonymous, after.anonymous] {
            _ = write!(text, "{:>12.1}", mebibytes(bytes));
        }
        text.push('\n');
    }
}

/// Exact up to 2^53.
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Memory;
    use crate::server::figures::Closed;

    fn servers() -> Vec<Server> {
        let server = |peer, name: &str| {
            let mut server = Server::ours("program".into(), name.to_owned());
            server.peer = peer;
            server
        };
        vec![server(Peer::Ours, "ours"), server(Peer::Bare, "bare"), server(Peer::Fastmcp, "FastMCP")]
    }

    fn line<'a>(table: &'a str, of: &str) -> Vec<&'a str> {
        let line = table.lines().find(|line| line.trim_start().starts_with(of));
        line.unwrap_or_default().split_whitespace().collect()
    }

    #[test]
    fn a_row_has_the_figures_of_a_server_and_its_ratios_to_the_others() {
        let mut figures = Figures::default();
        for (index, rate) in [20_000.0, 40_000.0, 500.0].into_iter().enumerate() {
            let cpu = 0.95e6 / rate;
            // The last one had half of its core.
            figures.note(
                index,
                Kind::List,
                Closed { rate: if index == 2 { rate / 2.0 } else { rate }, cpu, load: 0.5 },
            );
        }
        figures.note_latency(0, Kind::List, 812.0);
        let memory =
            |resident: u64, anonymous: u64| Memory { resident: resident << 20, anonymous: anonymous << 20, peak: 0 };
        figures.note_memory(0, MemoryOfServer { idle: memory(12, 5), after: memory(18, 9) });
        let table = table(&servers(), &[Kind::List], 1, &figures);
        assert_eq!(
            line(&table, "ours"),
            ["ours", "20000", "47.5", "95%", "50%", "812", "0.50", "-", "40.00"],
            "{table}"
        );
        assert_eq!(line(&table, "bare").get(5..), Some(&["-", "1.00", "-", "80.00"][..]), "{table}");
        let memory = table.lines().last().unwrap_or_default().split_whitespace();
        assert_eq!(Vec::from_iter(memory), ["ours", "12.0", "18.0", "5.0", "9.0"], "{table}");
    }

    #[test]
    fn a_saturated_load_and_an_idle_server_are_reported() {
        let mut figures = Figures::default();
        figures.note(0, Kind::List, Closed { rate: 10_000.0, cpu: 95.0, load: 0.91 });
        figures.note(1, Kind::List, Closed { rate: 10_000.0, cpu: 50.0, load: 0.5 });
        figures.note(2, Kind::List, Closed { rate: 10_000.0, cpu: 95.0, load: 0.9 });
        let table = table(&servers(), &[Kind::List], 1, &figures);
        let told = |of: &str, words: &str| line(&table, of).join(" ").ends_with(words);
        assert!(told("ours", "the load is saturated"), "{table}");
        assert!(told("bare", "the server lacked work or its core"), "{table}");
        assert!(told("FastMCP", "1.00"), "{table}");
    }
}
