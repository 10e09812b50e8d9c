//! The figures of a run, by server and kind of request.

use std::collections::BTreeMap;

use super::Kind;
use super::statistics::median;
use crate::process::Memory;

/// Figures of all servers with the same number of workers.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// By the index of the server.
    closed: BTreeMap<(usize, Kind), Vec<Closed>>,
    open: BTreeMap<(usize, Kind), Vec<f64>>,
    memory: BTreeMap<usize, MemoryOfServer>,
}

/// One turn, in which each connection sends a request after each answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closed {
    /// Answers per second.
    pub(super) rate: f64,
    /// Processor time of the server per request, in microseconds.
    pub(super) cpu: f64,
    /// Share of time in which the load, and the processes on the same core, used the core, 0 to 1.
    pub(super) load: f64,
}

/// Memory of a server.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemoryOfServer {
    /// After the start.
    pub(super) idle: Memory,
    /// After all requests.
    pub(super) after: Memory,
}

impl Figures {
    /// Records a turn.
    pub(super) fn note(&mut self, server: usize, kind: Kind, turn: Closed) {
        self.closed.entry((server, kind)).or_default().push(turn);
    }

    /// Records the 99th percentile of the latency of a turn at a fixed rate, in microseconds.
    pub(super) fn note_latency(&mut self, server: usize, kind: Kind, p99: f64) {
        self.open.entry((server, kind)).or_default().push(p99);
    }

    /// Records the memory of a server.
    pub(super) fn note_memory(&mut self, server: usize, memory: MemoryOfServer) {
        self.memory.insert(server, memory);
    }

    /// Returns the medians of the turns, of each figure separately.
    pub(super) fn closed(&self, server: usize, kind: Kind) -> Option<Closed> {
        let turns = self.closed.get(&(server, kind))?;
        let of = |figure: fn(&Closed) -> f64| median(turns.iter().map(figure));
        Some(Closed { rate: of(|turn| turn.rate)?, cpu: of(|turn| turn.cpu)?, load: of(|turn| turn.load)? })
    }

    /// Returns the median of the 99th percentiles, in microseconds.
    pub(super) fn p99(&self, server: usize, kind: Kind) -> Option<f64> {
        median(self.open.get(&(server, kind))?.iter().copied())
    }

    /// The memory of a server.
    pub(super) fn memory(&self, server: usize) -> Option<MemoryOfServer> {
        self.memory.get(&server).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_is_the_median_of_its_own_turns() {
        let mut figures = Figures::default();
        for (rate, cpu, load) in [(100.0, 9.0, 0.5), (900.0, 1.0, 0.1), (200.0, 5.0, 0.9)] {
            figures.note(0, Kind::List, Closed { rate, cpu, load });
        }
        let Closed { rate, cpu, load } = figures.closed(0, Kind::List).unwrap();
        assert_eq!((rate, cpu, load), (200.0, 5.0, 0.5));
        assert!(figures.closed(0, Kind::Call).is_none() && figures.closed(1, Kind::List).is_none());
    }
}
