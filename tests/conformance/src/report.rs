//! Table of all scenarios, and its totals.

use std::collections::BTreeMap;
use std::fmt;

use crate::results::{ExpectedFailures, Requirements, Results, Verdict};

/// Verdicts of all scenarios.
pub(crate) struct Report<'a> {
    expected: &'a ExpectedFailures,
    revisions: Vec<Revision>,
    /// Cells of the table: by scenario, and by revision.
    table: BTreeMap<String, BTreeMap<String, &'static str>>,
    /// Lines about failures, warnings, and skipped checks.
    failures: Vec<String>,
    warnings: Vec<String>,
    skipped: Vec<String>,
    /// Line for each revision about scenarios that are not scored.
    not_scored: Vec<String>,
}

/// Counts of a revision.
struct Revision {
    name: String,
    passed: usize,
    scored: usize,
    expected: usize,
    also_passed: usize,
    also: usize,
}

impl<'a> Report<'a> {
    /// An empty report.
    pub(crate) fn new(expected: &'a ExpectedFailures) -> Self {
        let (revisions, table) = (Vec::new(), BTreeMap::new());
        Self { expected, revisions, table, failures: vec![], warnings: vec![], skipped: vec![], not_scored: vec![] }
    }

    /// Adds the results of a revision. `also` are scenarios that count although they are not scored.
    pub(crate) fn add(&mut self, revision: &str, requirements: &Requirements, also: &[&str], results: &Results) {
        let scored: Vec<&str> = requirements.server.iter().map(String::as_str).collect();
        for (scenario, _) in self.expected.of(revision).filter(|(scenario, _)| !scored.contains(scenario)) {
            self.failures.push(format!("{revision} {scenario}: it is expected to fail, but not scored"));
        }
        let count = |verdicts: &[Verdict], of: &Verdict| verdicts.iter().filter(|verdict| *verdict == of).count();
        let verdicts = self.judge(revision, &scored, results);
        let also_verdicts = self.judge(revision, also, results);
        self.revisions.push(Revision {
            name: revision.to_owned(),
            passed: count(&verdicts, &Verdict::Passed),
            scored: verdicts.len(),
            expected: count(&verdicts, &Verdict::ExpectedFailure),
            also_passed: count(&also_verdicts, &Verdict::Passed),
            also: also_verdicts.len(),
        });
        let rest = requirements.not_scored().filter(|(scenario, _)| !also.contains(scenario));
        let rest: Vec<String> = rest
            .map(|(scenario, reason)| {
                let word = word(&results.verdict(scenario, revision, self.expected));
                format!("{scenario} ({reason}) {word}")
            })
            .collect();
        self.not_scored.push(format!("{revision}: {}", rest.join(", ")));
    }

    /// Returns a line for each reason of expected failures.
    fn reasons(&self) -> Vec<String> {
        let mut reasons: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for revision in &self.revisions {
            for (scenario, reason) in self.expected.of(&revision.name) {
                reasons.entry((&revision.name, reason)).or_default().push(scenario);
            }
        }
        let line =
            |((revision, reason), scenarios): (_, Vec<&str>)| format!("{revision} {}: {reason}", scenarios.join(", "));
        reasons.into_iter().map(line).collect()
    }

    fn judge(&mut self, revision: &str, scenarios: &[&str], results: &Results) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for scenario in scenarios {
            let verdict = results.verdict(scenario, revision, self.expected);
            let words = self.table.entry((*scenario).to_owned()).or_default();
            let warnings = results.warnings(scenario);
            let is_warned = verdict == Verdict::Passed && !warnings.is_empty();
            words.insert(revision.to_owned(), if is_warned { "passed, warned" } else { word(&verdict) });
            let lines = match &verdict {
                Verdict::Passed | Verdict::ExpectedFailure => vec![],
                Verdict::Failed(checks) => checks.clone(),
                Verdict::UnexpectedPass => vec!["it passes: take it out of the expected failures".to_owned()],
                Verdict::Missing => vec!["the suite has no result of it".to_owned()],
            };
            self.failures.extend(lines.into_iter().map(|line| format!("{revision} {scenario}: {line}")));
            self.warnings.extend(warnings.iter().map(|line| format!("{revision} {scenario}: {line}")));
            let skipped = results.skipped(scenario).into_iter();
            self.skipped.extend(skipped.map(|line| format!("{revision} {scenario}: {line}")));
            verdicts.push(verdict);
        }
        verdicts
    }

    /// True if there are no unexpected results.
    pub(crate) fn is_good(&self) -> bool {
        self.failures.is_empty() && !self.revisions.is_empty()
    }

    /// Returns the counts in a line.
    pub(crate) fn summary(&self) -> String {
        let line = |revision: &Revision| {
            let Revision { name, passed, scored, expected, .. } = revision;
            match expected {
                0 => format!("{passed} of {scored} scenarios of {name}"),
                _ => format!("{passed} of {scored} of {name} ({expected} expected to fail)"),
            }
        };
        let mut lines: Vec<String> = self.revisions.iter().map(line).collect();
        let sum = |count: fn(&Revision) -> usize| -> usize { self.revisions.iter().map(count).sum() };
        let (passed, also) = (sum(|revision| revision.also_passed), sum(|revision| revision.also));
        if also > 0 {
            lines.push(format!("{passed} of {also} about headers"));
        }
        format!("conformance: {}", lines.join(", "))
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.table.keys().map(String::len).max().unwrap_or_default();
        let row = |f: &mut fmt::Formatter<'_>, first: &str, cells: &[&str]| {
            let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:<18}")).collect();
            writeln!(f, "{}", format!("{first:<width$}  {}", cells.concat()).trim_end())
        };
        let revisions: Vec<&str> = self.revisions.iter().map(|revision| revision.name.as_str()).collect();
        row(f, "scenario", &revisions)?;
        for (scenario, words) in &self.table {
            let cells: Vec<&str> =
                revisions.iter().map(|revision| words.get(*revision).copied().unwrap_or("-")).collect();
            row(f, scenario, &cells)?;
        }
        for (title, lines) in [
            ("Expected to fail", &self.reasons()),
            ("Not scored", &self.not_scored),
            ("Warnings", &self.warnings),
            ("Skipped checks", &self.skipped),
            ("FAILED", &self.failures),
        ] {
            if !lines.is_empty() {
                writeln!(f, "\n{title}:\n  {}", lines.join("\n  "))?;
            }
        }
        writeln!(f)
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::ExpectedFailure => "expected failure",
        Verdict::Failed(_) => "FAILED",
        Verdict::UnexpectedPass => "UNEXPECTED PASS",
        Verdict::Missing => "MISSING",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_that_is_missing_fails_the_run() {
        let expected = ExpectedFailures::parse("{}").unwrap();
        let requirements = Requirements::parse("server: [ping, tools-list]\nnot_scored: []").unwrap();
        let mut report = Report::new(&expected);
        report.add("2026-07-28", &requirements, &[], &Results::default());
        assert!(!report.is_good());
        assert_eq!(report.summary(), "conformance: 0 of 2 scenarios of 2026-07-28");
        assert!(report.to_string().contains("2026-07-28 ping: the suite has no result of it"), "{report}");
    }

    #[test]
    fn an_expected_failure_of_a_scenario_that_is_not_scored_fails_the_run() {
        let expected = ExpectedFailures::parse("2026-07-28: { pong: reason }").unwrap();
        let requirements = Requirements::parse("server: [ping]\nnot_scored: []").unwrap();
        let mut report = Report::new(&expected);
        report.add("2026-07-28", &requirements, &[], &Results::default());
        assert!(report.to_string().contains("2026-07-28 pong: it is expected to fail, but not scored"), "{report}");
    }
}
