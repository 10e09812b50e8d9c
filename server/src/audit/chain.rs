//! The hash chain of the audit log. Each line has its own hash and the hash of the line before, so that changed,
//! removed or moved lines are detected.
//!
//! A line ends in `"chain":{…},"hash":"…"}`. The hash is the SHA-256 of the line without its last member, byte for
//! byte. `chain` has the run of the pod, the number of the line, and the hash of the line before.
//!
//! A chain cannot show that its end was cut off, or that somebody rewrote all of it. To detect this, keep its newest
//! hash where nobody can change it, and pass it to the verification ([`runs`]).

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Longest line that is verified, in bytes. Lines of the audit log are shorter than 2 KiB.
const LONGEST_LINE: u64 = 64 * 1024;
/// Most chains in one verification. Each chain is one run of one pod.
const MOST_CHAINS: usize = 100_000;

/// The chain of one run of the server.
pub(super) struct Chain {
    run: String,
    sequence: u64,
    previous_hash: Option<String>,
}

/// The members that the chain adds to a line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Link {
    run: String,
    sequence: u64,
    previous_hash: Option<String>,
}

#[derive(Deserialize)]
struct Chained {
    chain: Link,
    hash: String,
}

impl Chain {
    pub(super) fn begin() -> Self {
        Self { run: Uuid::new_v4().to_string(), sequence: 0, previous_hash: None }
    }

    /// Returns the id of the run.
    pub(super) fn run(&self) -> &str {
        &self.run
    }

    /// Returns the number of lines so far.
    pub(super) fn length(&self) -> u64 {
        self.sequence
    }

    /// Adds link and hash to a line (a JSON object).
    pub(super) fn append(&mut self, line: &str) -> String {
        self.sequence += 1;
        let link = Link { run: self.run.clone(), sequence: self.sequence, previous_hash: self.previous_hash.take() };
        let link = serde_json::to_string(&link).unwrap_or_default();
        let hashed = format!("{},\"chain\":{link}}}", line.strip_suffix('}').unwrap_or(line));
        let hash = hash(&hashed);
        let whole = with_hash(&hashed, &hash);
        self.previous_hash = Some(hash);
        whole
    }
}

fn hash(line: &str) -> String {
    hex::encode(Sha256::digest(line))
}

fn with_hash(line: &str, hash: &str) -> String {
    format!("{},\"hash\":\"{hash}\"}}", line.strip_suffix('}').unwrap_or(line))
}

/// The state of verifying one chain.
#[derive(Default)]
struct Found {
    first: u64,
    last: u64,
    last_hash: String,
    problems: Vec<String>,
}

/// The result of a verification. The worst is last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verified {
    /// Every run is complete from its first line, and nothing was changed.
    Whole,
    /// Nothing was changed, but the beginning of a run is missing: the log was rotated or cut.
    Incomplete,
    /// Lines were changed, removed, moved or added, or a run is missing.
    Broken,
}

/// Expected runs by id: numbers of lines, each with the line's hash if it is known.
pub type Runs = BTreeMap<String, Known>;
type Known = BTreeMap<u64, Option<String>>;

/// Parses the expected runs. Each line has the id of a run and the number of its lines, as in the metric
/// `mcp_entra_server_audit_chain_lines`, and optionally the hash of the last of these lines.
pub fn runs(text: &str) -> Result<Runs, String> {
    let mut runs = Runs::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut words = line.split_whitespace();
        let (run, lines) = (words.next(), words.next().and_then(|lines| lines.parse().ok()));
        let hash = words.next().map(str::to_owned);
        let (Some(run), Some(lines), None, true) = (run, lines, words.next(), hash.as_deref().is_none_or(is_hash))
        else {
            let number = number + 1;
            return Err(format!(
                "line {number} must be the id of a run, the number of its lines, and optionally the hash of the last line"
            ));
        };
        let known = runs.entry(run.to_owned()).or_default().entry(lines).or_default();
        match (&known, hash) {
            (Some(one), Some(other)) if *one != other => {
                return Err(format!("line {} has a different hash for the same line number", number + 1));
            }
            (_, None) => {}
            (_, hash) => *known = hash,
        }
    }
    Ok(runs)
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Verifies every chain in these lines. Lines of several pods may be mixed, but each pod's lines must be in order.
/// Reports each chain, and each of `runs` that is missing.
pub fn verify(lines: &mut dyn BufRead, runs: &Runs, report: &mut dyn Write) -> io::Result<Verified> {
    let mut chains: BTreeMap<String, Found> = BTreeMap::new();
    let nothing_known = Known::new();
    let known_of = |run: &str| runs.get(run).unwrap_or(&nothing_known);
    let mut unchained = 0_u64;
    let mut number = 0_u64;
    loop {
        let mut line = Vec::new();
        if lines.take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\r', '\n']);
        match serde_json::from_str::<Chained>(line) {
            Ok(chained) if chains.len() < MOST_CHAINS || chains.contains_key(&chained.chain.run) => {
                let known = known_of(&chained.chain.run);
                chains.entry(chained.chain.run.clone()).or_default().follow(number, line, chained, known);
            }
            Ok(_) | Err(_) => unchained += 1,
        }
    }
    let mut worst = Verified::Whole;
    for (run, found) in &mut chains {
        found.expect(known_of(run));
        let (verified, text) = found.conclude();
        worst = worst.max(verified);
        let word = match verified {
            Verified::Whole => "ok  ",
            Verified::Incomplete => "PART",
            Verified::Broken => "FAIL",
        };
        writeln!(report, "{word}  run {run}: {text}")?;
    }
    let lengths = runs.iter().filter_map(|(run, known)| Some((run, known.last_key_value()?.0)));
    let mut failures: Vec<String> = lengths
        .filter(|(run, lines)| **lines > 0 && !chains.contains_key(*run))
        .map(|(run, lines)| format!("run {run}: all {lines} lines are missing"))
        .collect();
    if unchained > 0 {
        failures.push(format!(
            "{unchained} lines belong to no chain: they were changed, or written without audit.hashChain"
        ));
    }
    if number == 0 {
        failures.push("the input has no lines".to_owned());
    }
    for failure in failures {
        worst = Verified::Broken;
        writeln!(report, "FAIL  {failure}")?;
    }
    Ok(worst)
}

impl Found {
    fn follow(&mut self, number: u64, line: &str, chained: Chained, known: &Known) {
        let Chained { chain, hash: claimed } = chained;
        let ending = format!(",\"hash\":\"{claimed}\"}}");
        let hashed = line.strip_suffix(ending.as_str()).map(|line| format!("{line}}}"));
        if hashed.is_none_or(|hashed| hash(&hashed) != claimed) {
            self.problem(format!("line {number} was changed"));
        }
        let sequence = chain.sequence;
        if sequence == 0 || chain.previous_hash.is_none() != (sequence == 1) {
            self.problem(format!(
                "line {number} is number {sequence} of the run, but its link does not fit that number"
            ));
        }
        let continues = match self.last {
            // A missing beginning is reported at the end.
            0 => true,
            last => sequence.checked_sub(1) == Some(last) && chain.previous_hash.as_ref() == Some(&self.last_hash),
        };
        if !continues {
            let last = self.last;
            self.problem(format!("line {number} is number {sequence} of the run and does not continue number {last}"));
        }
        if known.get(&sequence).and_then(Option::as_ref).is_some_and(|hash| *hash != claimed) {
            self.problem(format!(
                "line {number} is number {sequence} of the run, but its hash differs from the known one"
            ));
        }
        if self.first == 0 {
            self.first = sequence;
        }
        (self.last, self.last_hash) = (sequence, claimed);
    }

    /// Compares the chain with the expected number of lines and the known hashes.
    fn expect(&mut self, known: &Known) {
        if let Some(lines) = known.keys().next_back().filter(|lines| **lines > self.last) {
            let from = self.last.saturating_add(1);
            self.problem(format!("its end is missing: lines {from} to {lines}"));
        }
        for (lines, _) in known.range(1..self.first.max(1)).filter(|(_, hash)| hash.is_some()) {
            self.problem(format!("line {lines}, whose hash is known, is missing: add the older files of the log"));
        }
    }

    fn conclude(&self) -> (Verified, String) {
        let Self { first, last, last_hash, problems } = self;
        let held = format!("lines {first} to {last}, the last one's hash is {last_hash}");
        match problems.as_slice() {
            [] if *first == 1 => (Verified::Whole, held),
            [] => {
                let before = first.saturating_sub(1);
                let missing = format!("its beginning is missing, lines 1 to {before}: add the older files of the log");
                (Verified::Incomplete, format!("{held}; {missing}"))
            }
            problems => (Verified::Broken, problems.join("; ")),
        }
    }

    /// Records a problem, up to a limit. The first few are enough to start an investigation.
    fn problem(&mut self, problem: String) {
        if self.problems.len() < 10 {
            self.problems.push(problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: usize) -> Vec<String> {
        let mut chain = Chain::begin();
        (0..lines).map(|line| chain.append(&format!("{{\"line\":{line}}}"))).collect()
    }

    fn verified(lines: &[String], runs: &Runs) -> (Verified, String) {
        let mut report = Vec::new();
        let verified = verify(&mut lines.join("\n").as_bytes(), runs, &mut report).unwrap();
        (verified, String::from_utf8(report).unwrap())
    }

    #[test]
    fn chains_of_several_pods_hold_in_any_mixture() {
        let (one, two) = (log(3), log(2));
        let mixed = [&one[0], &two[0], &one[1], &one[2], &two[1]].map(String::clone);
        let (verdict, report) = verified(&mixed, &Runs::new());
        assert_eq!(verdict, Verified::Whole, "{report}");
        assert_eq!(report.lines().count(), 2);
        assert!(report.contains("lines 1 to 3") && report.contains("lines 1 to 2"), "{report}");
    }

    #[test]
    fn the_missing_beginning_of_a_run_is_reported_and_is_not_a_change() {
        let (one, two) = (log(5), log(2));
        let (verdict, report) = verified(&[&two[..], &one[3..]].concat(), &Runs::new());
        assert_eq!(verdict, Verified::Incomplete, "{report}");
        assert!(report.contains("PART") && report.contains("lines 1 to 3: add the older files"), "{report}");
        let (verdict, report) = verified(&[&one[3..4], &two[..1]].concat(), &Runs::new());
        assert_eq!(verdict, Verified::Incomplete, "{report}");
    }

    #[test]
    fn a_run_that_is_missing_or_cut_off_shows_where_it_is_known_how_many_lines_it_has() {
        let (one, two) = (log(3), log(2));
        let run = |log: &[String]| serde_json::from_str::<Chained>(&log[0]).unwrap().chain.run;
        let text = format!("{} 3\n\n{} 2\nnot-begun 0\n", run(&one), run(&two));
        let runs = runs(&text).unwrap();
        let of = |lines: &[String]| verified(lines, &runs);
        assert_eq!(of(&[&one[..], &two[..]].concat()).0, Verified::Whole);
        for (lines, told) in [
            (one.clone(), format!("FAIL  run {}: all 2 lines are missing", run(&two))),
            ([&one[..1], &two[..]].concat(), format!("FAIL  run {}: its end is missing: lines 2 to 3", run(&one))),
        ] {
            let (verdict, report) = of(&lines);
            assert_eq!(verdict, Verified::Broken);
            assert!(report.contains(&told), "{report}");
        }
        let later = [&one[..], &two[..], &log(1)[..]].concat();
        assert_eq!(of(&later).0, Verified::Whole, "a run that is newer than the numbers");
        let (hash, other) = ("a".repeat(64), "b".repeat(64));
        let wrong = ["run", "run x", "run 1 2", "run -1", &format!("run 1 {hash} 1")].map(str::to_owned);
        for wrong in
            wrong.into_iter().chain([format!("run 1 {}", &hash[1..]), format!("run 1 {}", hash.to_uppercase())])
        {
            assert!(super::runs(&wrong).unwrap_err().starts_with("line 1 "), "{wrong}");
        }
        assert!(super::runs(&format!("run 1 {hash}\nrun 1\nrun 1 {other}")).unwrap_err().starts_with("line 3 "));
    }

    #[test]
    fn a_rewritten_log_is_detected_by_a_known_hash() {
        let (whole, chained) = (log(4), |line: &String| serde_json::from_str::<Chained>(line).unwrap());
        let run = chained(&whole[0]).chain.run;
        let mut forged = Chain { run: run.clone(), sequence: 0, previous_hash: None };
        let forged: Vec<String> = (0..4).map(|line| forged.append(&format!("{{\"forged\":{line}}}"))).collect();
        let number_alone = runs(&format!("{run} 4")).unwrap();
        assert_eq!(verified(&forged, &number_alone).0, Verified::Whole, "a number alone does not show it");
        for known in 1..=4 {
            let text = format!("{run} {known} {}\n{run} {known}\n{run} 4", chained(&whole[known - 1]).hash);
            let runs = runs(&text).unwrap();
            assert_eq!(verified(&whole, &runs).0, Verified::Whole);
            let (verdict, report) = verified(&forged, &runs);
            let told = format!("number {known} of the run, but its hash differs from the known one");
            assert!(verdict == Verified::Broken && report.contains(&told), "{report}");
            let (verdict, report) = verified(&forged[known..], &runs);
            assert!(verdict == Verified::Broken && report.contains("missing"), "{report}");
        }
    }

    #[test]
    fn a_line_is_linked_exactly_if_it_is_not_the_first() {
        let link = |sequence, previous_hash: Option<&str>| {
            let previous_hash = previous_hash.map(str::to_owned);
            let link = Link { run: "run".to_owned(), sequence, previous_hash };
            let hashed = format!("{{\"chain\":{}}}", serde_json::to_string(&link).unwrap());
            with_hash(&hashed, &hash(&hashed))
        };
        for (line, verdict) in [
            (link(1, None), Verified::Whole),
            (link(2, Some("before")), Verified::Incomplete),
            (link(1, Some("before")), Verified::Broken),
            (link(2, None), Verified::Broken),
            (link(0, None), Verified::Broken),
            (link(0, Some("before")), Verified::Broken),
            (link(u64::MAX, Some("before")), Verified::Incomplete),
        ] {
            assert_eq!(verified(std::slice::from_ref(&line), &Runs::new()).0, verdict, "{line}");
        }
        let after_the_largest = [link(u64::MAX, Some("before")), link(0, None)];
        assert_eq!(verified(&after_the_largest, &Runs::new()).0, Verified::Broken);
    }

    #[test]
    fn a_line_that_was_changed_taken_out_moved_or_added_shows() {
        let whole = log(4);
        let mut changed = whole.clone();
        changed[1] = changed[1].replace("\"line\":1", "\"line\":9");
        let mut moved = whole.clone();
        moved.swap(1, 2);
        let mut taken_out = whole.clone();
        taken_out.remove(2);
        let mut twice = whole.clone();
        twice.insert(1, whole[0].clone());
        let mut rehashed = whole.clone();
        rehashed[1] = {
            let line = rehashed[1].replace("\"line\":1", "\"line\":9");
            let hashed = format!("{}}}", line.rsplit_once(",\"hash\"").unwrap().0);
            with_hash(&hashed, &hash(&hashed))
        };
        let mut without = whole.clone();
        without.insert(2, "{\"line\":7}".to_owned());
        for (name, lines) in [
            ("changed", changed),
            ("moved", moved),
            ("taken out", taken_out),
            ("twice", twice),
            ("rehashed", rehashed),
            ("unchained", without),
        ] {
            let (verdict, report) = verified(&lines, &Runs::new());
            assert!(verdict == Verified::Broken && report.contains("FAIL"), "{name}: {report}");
        }
        assert_eq!(verified(&whole, &Runs::new()).0, Verified::Whole);
        assert_eq!(verified(&[], &Runs::new()).0, Verified::Broken);
    }
}
