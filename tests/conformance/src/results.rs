//! Results of the suite, and the verdict on each scenario.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::Value;

/// Check that validates every message with the schema. It cannot be an expected failure.
const WIRE_SCHEMA: &str = "wire-schema-valid";

/// The scenarios of a revision.
#[derive(Debug, Deserialize)]
pub(crate) struct Requirements {
    /// Scenarios that a server must pass.
    pub(crate) server: Vec<String>,
    /// Scenarios that are run but not scored.
    not_scored: Vec<NotScored>,
}

#[derive(Debug, Deserialize)]
struct NotScored {
    scenario: String,
    leg: String,
    reason: String,
}

/// Expected failures: the reason of each, by revision and scenario.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct ExpectedFailures(BTreeMap<String, BTreeMap<String, String>>);

/// Checks of each scenario that has run.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<String, Vec<Check>>);

/// A check of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Check {
    id: String,
    name: String,
    status: Status,
    #[serde(default)]
    error_message: Option<String>,
    #[serde(default)]
    details: Value,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "UPPERCASE")]
enum Status {
    Success,
    Failure,
    Warning,
    Skipped,
    Info,
}

/// Verdict on a scenario.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No check failed.
    Passed,
    /// It failed, as expected.
    ExpectedFailure,
    /// These checks failed.
    Failed(Vec<String>),
    /// It passed although it is expected to fail.
    UnexpectedPass,
    /// It has no result, or every check was skipped.
    Missing,
}

impl Requirements {
    /// The requirements in this document.
    ///
    /// # Errors
    /// If it is none, or requires nothing of servers.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let requirements: Self = serde_yaml::from_str(text)?;
        ensure!(!requirements.server.is_empty(), "nothing is required of servers");
        Ok(requirements)
    }

    /// Server scenarios that are not scored, with the reasons.
    pub(crate) fn not_scored(&self) -> impl Iterator<Item = (&str, &str)> {
        let server = self.not_scored.iter().filter(|entry| entry.leg == "server");
        server.map(|entry| (entry.scenario.as_str(), entry.reason.as_str()))
    }
}

impl ExpectedFailures {
    /// The failures in this document.
    ///
    /// # Errors
    /// If it is none, or a reason is empty.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let failures: Self = serde_yaml::from_str(text)?;
        let mut reasons = failures.0.values().flat_map(BTreeMap::values);
        ensure!(!reasons.any(|reason| reason.trim().is_empty()), "an expected failure has no reason");
        Ok(failures)
    }

    /// Failures of this revision: scenarios with their reasons.
    pub(crate) fn of(&self, revision: &str) -> impl Iterator<Item = (&str, &str)> {
        let failures = self.0.get(revision).into_iter().flatten();
        failures.map(|(scenario, reason)| (scenario.as_str(), reason.trim()))
    }

    fn has(&self, revision: &str, scenario: &str) -> bool {
        self.0.get(revision).is_some_and(|failures| failures.contains_key(scenario))
    }
}

impl Results {
    /// Reads the results in a folder that the suite has written.
    ///
    /// # Errors
    /// If a file is not of the form that the pinned suite writes.
    pub(crate) fn read(folder: &Path) -> anyhow::Result<Self> {
        let mut results = Self::default();
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().into_string().ok().context("the name of a result is UTF-8")?;
            let scenario = scenario(&name).with_context(|| format!("{name} is not the name of a result"))?;
            // An aborted scenario has an empty folder: it is missing.
            let Ok(text) = std::fs::read(entry.path().join("checks.json")) else { continue };
            let checks = serde_json::from_slice(&text).with_context(|| format!("checks of {name}"))?;
            results.0.insert(scenario.to_owned(), checks);
        }
        Ok(results)
    }

    /// True if no scenario has run.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the verdict on a scored scenario.
    pub(crate) fn verdict(&self, scenario: &str, revision: &str, expected: &ExpectedFailures) -> Verdict {
        let checks = self.0.get(scenario).map(Vec::as_slice).unwrap_or_default();
        if checks.iter().all(|check| matches!(check.status, Status::Skipped | Status::Info)) {
            return Verdict::Missing;
        }
        let failed = checks.iter().filter(|check| check.status == Status::Failure);
        let is_expected = expected.has(revision, scenario);
        let unexpected: Vec<String> =
            failed.clone().filter(|check| !is_expected || check.id == WIRE_SCHEMA).map(Check::told).collect();
        match (unexpected.is_empty(), is_expected) {
            (false, _) => Verdict::Failed(unexpected),
            (true, false) => Verdict::Passed,
            (true, true) if failed.count() == 0 => Verdict::UnexpectedPass,
            (true, true) => Verdict::ExpectedFailure,
        }
    }

    /// The warnings of a scenario.
    pub(crate) fn warnings(&self, scenario: &str) -> Vec<String> {
        self.told(scenario, Status::Warning)
    }

    /// The checks of a scenario that were skipped.
    pub(crate) fn skipped(&self, scenario: &str) -> Vec<String> {
        self.told(scenario, Status::Skipped)
    }

    fn told(&self, scenario: &str, status: Status) -> Vec<String> {
        let checks = self.0.get(scenario).into_iter().flatten();
        checks.filter(|check| check.status == status).map(Check::told).collect()
    }
}

impl Check {
    fn told(&self) -> String {
        let detail = || self.details.get("message").and_then(Value::as_str);
        let text = self.error_message.as_deref().or_else(detail).unwrap_or(&self.name);
        format!("{}: {text}", self.id)
    }
}

/// The scenario of a result's folder: `server-SCENARIO-2026-07-28T10-11-12-131Z`.
fn scenario(folder: &str) -> Option<&str> {
    const TIME: usize = "-2026-07-28T10-11-12-131Z".len();
    let named = folder.strip_prefix("server-")?;
    let (scenario, time) = named.split_at_checked(named.len().checked_sub(TIME)?)?;
    (time.starts_with('-') && time.ends_with('Z') && !scenario.is_empty()).then_some(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVISION: &str = "2025-11-25";

    fn results(checks: &[(&str, &str)]) -> (tempfile::TempDir, Results) {
        let folder = tempfile::tempdir().unwrap();
        let result = folder.path().join("server-tools-list-2026-07-28T10-11-12-131Z");
        std::fs::create_dir(&result).unwrap();
        let check = |(id, status): &(&str, &str)| {
            let (name, time) = ("A", "2026-07-28T10:11:12.131Z");
            serde_json::json!({ "id": id, "name": name, "description": "", "status": status, "timestamp": time,
                "errorMessage": "It is so.", "details": {} })
        };
        let checks: Vec<_> = checks.iter().map(check).collect();
        std::fs::write(result.join("checks.json"), serde_json::to_vec(&checks).unwrap()).unwrap();
        let results = Results::read(folder.path()).unwrap();
        (folder, results)
    }

    fn verdict(checks: &[(&str, &str)], expected: &str) -> Verdict {
        let expected = ExpectedFailures::parse(&format!("{REVISION}: {{ {expected} }}")).unwrap();
        results(checks).1.verdict("tools-list", REVISION, &expected)
    }

    #[test]
    fn a_scenario_passes_if_no_check_fails() {
        let checks = [("a", "SUCCESS"), ("b", "WARNING"), ("c", "SKIPPED"), ("d", "INFO")];
        assert_eq!(verdict(&checks, "other: reason"), Verdict::Passed);
        let failed = [("a", "SUCCESS"), ("b", "FAILURE")];
        assert_eq!(verdict(&failed, "other: reason"), Verdict::Failed(vec!["b: It is so.".to_owned()]));
    }

    #[test]
    fn a_failure_is_expected_only_for_its_scenario_and_revision() {
        let failed = [("a", "SUCCESS"), ("b", "FAILURE")];
        assert_eq!(verdict(&failed, "tools-list: reason"), Verdict::ExpectedFailure);
        let expected = ExpectedFailures::parse("2026-07-28: { tools-list: reason }").unwrap();
        let unexpected = results(&failed).1.verdict("tools-list", REVISION, &expected);
        assert_eq!(unexpected, Verdict::Failed(vec!["b: It is so.".to_owned()]));
    }

    #[test]
    fn an_expected_failure_that_passes_is_unexpected() {
        assert_eq!(verdict(&[("a", "SUCCESS"), ("b", "WARNING")], "tools-list: reason"), Verdict::UnexpectedPass);
    }

    #[test]
    fn an_expected_failure_does_not_excuse_a_message_that_violates_the_schema() {
        let failed = [("a", "FAILURE"), (WIRE_SCHEMA, "FAILURE")];
        let unexpected = Verdict::Failed(vec![format!("{WIRE_SCHEMA}: It is so.")]);
        assert_eq!(verdict(&failed, "tools-list: reason"), unexpected);
    }

    #[test]
    fn a_scenario_without_checks_is_missing_even_if_it_is_expected_to_fail() {
        let expected = ExpectedFailures::parse("2025-11-25: { ping: reason, tools-list: reason }").unwrap();
        assert_eq!(results(&[("a", "SUCCESS")]).1.verdict("ping", REVISION, &expected), Verdict::Missing);
        assert_eq!(verdict(&[], "tools-list: reason"), Verdict::Missing);
        assert_eq!(verdict(&[("a", "SKIPPED"), ("b", "INFO")], "other: reason"), Verdict::Missing);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("server-tools-list-2026-07-28T10-11-12-131Z")).unwrap();
        let broken_off = Results::read(folder.path()).unwrap();
        assert_eq!(broken_off.verdict("tools-list", REVISION, &expected), Verdict::Missing);
    }

    #[test]
    fn a_result_of_another_form_is_refused() {
        for name in ["tools-list", "server-2026-07-28T10-11-12-131Z", "server-tools-list"] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::create_dir(folder.path().join(name)).unwrap();
            assert!(Results::read(folder.path()).is_err(), "{name}");
        }
        let (folder, _) = results(&[("a", "SUCCESS")]);
        let checks = folder.path().join("server-tools-list-2026-07-28T10-11-12-131Z/checks.json");
        std::fs::write(checks, r#"[{ "id": "a", "name": "A", "status": "NEW" }]"#).unwrap();
        assert!(Results::read(folder.path()).is_err());
    }

    #[test]
    fn warnings_and_skipped_checks_are_reported_with_their_messages() {
        let (_folder, results) = results(&[("a", "SUCCESS"), ("b", "WARNING"), ("c", "SKIPPED")]);
        assert_eq!(results.warnings("tools-list"), ["b: It is so."]);
        assert_eq!(results.skipped("tools-list"), ["c: It is so."]);
    }

    #[test]
    fn requirements_are_the_scenarios_for_servers() {
        let requirements = Requirements::parse(
            "server: [ping]\nclient: [a]\nnot_scored:\n\
             - { scenario: b, leg: client, reason: pending }\n- { scenario: c, leg: server, reason: extension }",
        )
        .unwrap();
        assert_eq!(requirements.server, ["ping"]);
        assert_eq!(requirements.not_scored().collect::<Vec<_>>(), [("c", "extension")]);
        assert!(Requirements::parse("server: []\nnot_scored: []").is_err());
    }

    #[test]
    fn the_documentation_names_the_suite_and_the_failures_that_are_expected() {
        let file = |name: &str| {
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)).unwrap()
        };
        let documented = file("docs/conformance.md");
        let expected = ExpectedFailures::parse(crate::EXPECTED_FAILURES).unwrap();
        let named = documented.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(named, expected.0.values().map(BTreeMap::len).sum::<usize>());
        for scenario in expected.0.values().flat_map(BTreeMap::keys) {
            assert!(documented.contains(&format!("| `{scenario}` |")), "{scenario}");
        }
        let pinned = file("tests/clients/node/package.json");
        let suite = pinned.lines().find(|line| line.contains("@modelcontextprotocol/conformance")).unwrap();
        let version = suite.split('"').nth(3).unwrap();
        assert!(documented.contains(&format!("`@modelcontextprotocol/conformance` {version}")), "{version}");
    }

    #[test]
    fn an_expected_failure_has_a_reason() {
        assert!(ExpectedFailures::parse("2025-11-25: { ping: ' ' }").is_err());
    }
}
