//! The hash chain of the audit log: each line carries the hash of the one before it and its own, so that a line that was
//! changed, taken out or moved shows.
//!
//! A line ends in `"chain":{…},"hash":"…"}`. Its hash is the SHA-256 of the line without its last member, byte for byte;
//! `chain` names the pod's run, counts its lines and repeats the hash of the line before. A chain cannot show that its end
//! was cut off, nor that somebody wrote all of it anew: for that, keep its newest hash where nobody can change it.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Longest line that is verified, in bytes. Lines of the audit log have less than 2 KiB.
const LONGEST_LINE: u64 = 64 * 1024;
/// Most chains that are followed: each is one run of one pod.
const MOST_CHAINS: usize = 100_000;

/// The chain of one run of the server.
pub(super) struct Chain {
    run: String,
    sequence: u64,
    previous_hash: Option<String>,
}

/// The members that a chained line has besides.
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

    /// The line (a JSON object) with its link and hash.
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

/// What was found in one chain.
#[derive(Default)]
struct Found {
    first: u64,
    last: u64,
    last_hash: String,
    problems: Vec<String>,
}

/// Verifies every chain in these lines, which may be those of many pods in any mixture, each pod's in its order. Writes a
/// line for each chain, and says whether all hold.
pub fn verify(lines: &mut dyn BufRead, report: &mut dyn Write) -> io::Result<bool> {
    let mut chains: BTreeMap<String, Found> = BTreeMap::new();
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
                chains.entry(chained.chain.run.clone()).or_default().follow(number, line, chained);
            }
            Ok(_) | Err(_) => unchained += 1,
        }
    }
    for (run, found) in &chains {
        let Found { first, last, last_hash, problems } = found;
        match problems.as_slice() {
            [] => writeln!(report, "ok    run {run}: lines {first} to {last}, the last one's hash is {last_hash}")?,
            problems => writeln!(report, "FAIL  run {run}: {}", problems.join("; "))?,
        }
    }
    if unchained > 0 {
        writeln!(
            report,
            "FAIL  {unchained} lines are in no chain: changed ones, or not of a log with audit.hashChain"
        )?;
    }
    if number == 0 {
        writeln!(report, "FAIL  there are no lines")?;
    }
    Ok(number > 0 && unchained == 0 && chains.values().all(|found| found.problems.is_empty()))
}

impl Found {
    fn follow(&mut self, number: u64, line: &str, chained: Chained) {
        let Chained { chain, hash: claimed } = chained;
        let ending = format!(",\"hash\":\"{claimed}\"}}");
        let hashed = line.strip_suffix(ending.as_str()).map(|line| format!("{line}}}"));
        if hashed.is_none_or(|hashed| hash(&hashed) != claimed) {
            self.problem(format!("line {number} was changed"));
        }
        let continues = match self.last {
            // A log that was rotated begins in the middle of a chain.
            0 => true,
            last => chain.sequence == last + 1 && chain.previous_hash.as_ref() == Some(&self.last_hash),
        };
        if !continues {
            let (last, sequence) = (self.last, chain.sequence);
            self.problem(format!("line {number} is number {sequence} of the run and does not continue number {last}"));
        }
        if self.first == 0 {
            self.first = chain.sequence;
        }
        (self.last, self.last_hash) = (chain.sequence, claimed);
    }

    /// The first few are enough to look for what happened.
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

    fn verified(lines: &[String]) -> (bool, String) {
        let mut report = Vec::new();
        let all = verify(&mut lines.join("\n").as_bytes(), &mut report).unwrap();
        (all, String::from_utf8(report).unwrap())
    }

    #[test]
    fn chains_of_several_pods_hold_in_any_mixture_and_from_any_line_on() {
        let (one, two) = (log(3), log(2));
        let mixed = [&one[0], &two[0], &one[1], &one[2], &two[1]].map(String::clone);
        let (all, report) = verified(&mixed);
        assert!(all, "{report}");
        assert_eq!(report.lines().count(), 2);
        assert!(report.contains("lines 1 to 3") && report.contains("lines 1 to 2"), "{report}");
        assert!(verified(&one[1..]).0);
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
            let (all, report) = verified(&lines);
            assert!(!all && report.contains("FAIL"), "{name}: {report}");
        }
        assert!(verified(&whole).0);
        assert!(!verified(&[]).0);
    }
}
