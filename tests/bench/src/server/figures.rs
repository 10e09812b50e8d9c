//! The figures of a run as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Kind;

/// The processor time of a request, by program and kind of request.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    programs: Vec<PathBuf>,
    /// The means of each turn, by the program's index and the kind.
    turns: BTreeMap<(usize, Kind), Vec<Duration>>,
}

impl Figures {
    pub(super) fn of(programs: &[PathBuf]) -> Self {
        Self { programs: programs.to_vec(), turns: BTreeMap::new() }
    }

    /// Notes the mean of a turn.
    pub(super) fn note(&mut self, program: usize, kind: Kind, mean: Duration) {
        self.turns.entry((program, kind)).or_default().push(mean);
    }

    /// The median of the turns' means, in microseconds.
    fn median(&self, program: usize, kind: Kind) -> f64 {
        let mut turns = self.turns.get(&(program, kind)).cloned().unwrap_or_default();
        turns.sort_unstable();
        turns.get(turns.len() / 2).map_or(0.0, |median| median.as_secs_f64() * 1e6)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Processor time of a request (median of the turns, µs) and its ratio to the first program:")?;
        for (index, program) in self.programs.iter().enumerate() {
            writeln!(f, "{}", program.display())?;
            for (kind, name) in [
                (Kind::List, "tools/list"),
                (Kind::Refused, "tools/call, not granted"),
                (Kind::Call, "tools/call, without Graph"),
            ] {
                let (median, first) = (self.median(index, kind), self.median(0, kind));
                writeln!(f, "  {name:<26} {median:>7.1}  {:>5.2}", median / first)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_the_median_of_each_program_and_its_ratio_to_the_first() {
        let mut figures = Figures::of(&["before".into(), "after".into()]);
        for (program, means) in [(0, [100, 900, 200]), (1, [90, 100, 110])] {
            means.iter().for_each(|mean| figures.note(program, Kind::List, Duration::from_micros(*mean)));
        }
        let table = figures.to_string();
        let lists: Vec<&str> = table.lines().filter(|line| line.contains("tools/list")).collect();
        assert!(lists[0].ends_with("200.0   1.00") && lists[1].ends_with("100.0   0.50"), "{table}");
    }
}
