//! Requests without a verified principal. Anybody can cause any number of them, so only the first few of each reason
//! in a minute get their own lines. The others are counted by address and summarised in one line per
//! minute and reason.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::line::{Decision, Line};

/// Shortest period that a summary covers.
pub(super) const PERIOD: Duration = Duration::from_secs(60);

/// Refusals of one reason that get their own lines in a period. Every sign-in begins with a request without a token,
/// so those are only counted.
const OWN_LINES: u32 = 20;
const ONLY_COUNTED: &str = "token_missing";

/// Most addresses that are counted for one reason in a period. Requests from further addresses count only in the
/// total.
const MOST_ADDRESSES: usize = 1_000;

/// A request without a principal.
pub(super) struct Request {
    pub(super) request_id: String,
    pub(super) decision: Decision,
    /// The client's address, or none if a proxy hides it.
    pub(super) address: Option<IpAddr>,
    pub(super) status: Option<u16>,
    pub(super) latency: Duration,
}

/// The refusals of the current period, by reason. There are few reasons, and none comes from outside.
#[derive(Default)]
pub(super) struct Anonymous(HashMap<&'static str, Refusals>);

struct Refusals {
    since: Instant,
    own_lines: u32,
    counted: Option<Counted>,
}

struct Counted {
    requests: u64,
    by_address: HashMap<Option<IpAddr>, u64>,
    latest: Request,
}

/// A summary of counted refusals, without addresses.
pub(super) struct Summary {
    reason: &'static str,
    latest: Request,
    requests: u64,
    addresses: u64,
    most: u64,
}

impl Anonymous {
    /// Returns true if the next refusal of this reason gets its own line, and counts that line.
    pub(super) fn has_own_line(&mut self, reason: &'static str, now: Instant) -> bool {
        if reason == ONLY_COUNTED {
            return false;
        }
        let refusals = self.refusals(reason, now);
        let is_early = refusals.own_lines < OWN_LINES;
        refusals.own_lines += u32::from(is_early);
        is_early
    }

    /// Counts a refusal without its own line.
    pub(super) fn count(&mut self, reason: &'static str, request: Request, now: Instant) {
        let address = request.address;
        let refusals = self.refusals(reason, now);
        let counted = match &mut refusals.counted {
            Some(counted) => {
                counted.latest = request;
                counted
            }
            None => refusals.counted.insert(Counted { requests: 0, by_address: HashMap::new(), latest: request }),
        };
        counted.requests += 1;
        if counted.by_address.len() < MOST_ADDRESSES || counted.by_address.contains_key(&address) {
            *counted.by_address.entry(address).or_default() += 1;
        }
    }

    fn refusals(&mut self, reason: &'static str, now: Instant) -> &mut Refusals {
        self.0.entry(reason).or_insert(Refusals { since: now, own_lines: 0, counted: None })
    }

    /// Returns the time until the next period ends, or none if no period runs.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.0.values().map(|refusals| refusals.wait(now)).min()
    }

    /// Ends the periods that are over, or all if `is_last`. Returns a summary for each with counted refusals.
    pub(super) fn take(&mut self, now: Instant, is_last: bool) -> Vec<Summary> {
        let over = self.0.extract_if(|_, refusals| is_last || refusals.wait(now).is_zero());
        over.filter_map(|(reason, refusals)| {
            let Counted { requests, by_address, latest } = refusals.counted?;
            let addresses = u64::try_from(by_address.len()).unwrap_or(u64::MAX);
            let most = by_address.into_values().max().unwrap_or_default();
            Some(Summary { reason, latest, requests, addresses, most })
        })
        .collect()
    }
}

impl Refusals {
    fn wait(&self, now: Instant) -> Duration {
        PERIOD.saturating_sub(now.duration_since(self.since))
    }
}

impl Summary {
    /// Returns the summary line, with the id and status of the latest request.
    pub(super) fn line<'a>(&'a self, server: &'a str) -> Line<'a> {
        let Request { request_id, decision, status, latency, .. } = &self.latest;
        Line {
            decision: *decision,
            count: Some(self.requests),
            addresses: Some(self.addresses),
            most_of_one_address: Some(self.most),
            ..Line::refused(request_id, server, self.reason, *status, *latency)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u32, address: Option<[u8; 4]>) -> Request {
        let address = address.map(IpAddr::from);
        Request {
            request_id: id.to_string(),
            decision: Decision::Refused,
            address,
            status: Some(401),
            latency: Duration::ZERO,
        }
    }

    /// Returns the numbers of requests, of addresses, and of requests from the most frequent address; and the latest
    /// request.
    fn told(summaries: Vec<Summary>) -> Vec<(u64, u64, u64, String)> {
        let numbers = |summary: Summary| {
            let Summary { latest, requests, addresses, most, .. } = summary;
            (requests, addresses, most, latest.request_id)
        };
        summaries.into_iter().map(numbers).collect()
    }

    #[test]
    fn requests_without_a_token_are_reported_once_a_minute_with_their_number() {
        let (mut anonymous, start) = (Anonymous::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(anonymous.wait(at(0)), None, "nothing is due while there is nothing to tell");
        for (id, address, seconds) in [(1, Some([192, 0, 2, 1]), 0), (2, Some([192, 0, 2, 1]), 1), (3, None, 59)] {
            assert!(!anonymous.has_own_line(ONLY_COUNTED, at(seconds)));
            anonymous.count(ONLY_COUNTED, request(id, address), at(seconds));
        }
        assert_eq!(told(anonymous.take(at(59), false)), []);
        assert_eq!(anonymous.wait(at(59)), Some(Duration::from_secs(1)));
        assert_eq!(told(anonymous.take(at(60), false)), [(3, 2, 2, "3".to_owned())]);
        assert_eq!(told(anonymous.take(at(200), false)), [], "a minute without any has no line");
        anonymous.count(ONLY_COUNTED, request(4, None), at(201));
        let last = told(anonymous.take(at(202), true));
        assert_eq!(last, [(1, 1, 1, "4".to_owned())], "the last one waits for nothing");
    }

    #[test]
    fn the_first_few_refusals_of_each_reason_in_a_minute_have_lines_of_their_own() {
        let (mut anonymous, start) = (Anonymous::default(), Instant::now());
        for minute in 0..2 {
            let now = start + minute * PERIOD;
            for reason in ["expired", "malformed_authorization"] {
                let own = (0..100).filter(|_| anonymous.has_own_line(reason, now)).count();
                assert_eq!(own, OWN_LINES as usize, "{reason}");
            }
            assert!(anonymous.take(now + PERIOD, false).is_empty(), "nothing was only counted");
        }
    }

    #[test]
    fn a_summary_has_the_decision_of_its_requests() {
        let (mut anonymous, now) = (Anonymous::default(), Instant::now());
        anonymous.count("client_registered", Request { decision: Decision::Allowed, ..request(1, None) }, now);
        anonymous.count("expired", request(2, None), now);
        let mut lines = anonymous.take(now, true);
        lines.sort_by_key(|summary| summary.reason);
        let decisions: Vec<_> = lines.iter().map(|summary| summary.line("team/graph").decision.name()).collect();
        assert_eq!(decisions, ["allowed", "refused"]);
    }

    #[test]
    fn memory_for_addresses_is_bounded_and_no_request_goes_uncounted() {
        let (mut anonymous, now) = (Anonymous::default(), Instant::now());
        let all = u32::try_from(MOST_ADDRESSES).unwrap() + 500;
        for id in 0..all {
            anonymous.count("expired", request(id, Some(id.to_be_bytes())), now);
        }
        anonymous.count("expired", request(all, Some([0, 0, 0, 0])), now);
        let (requests, addresses, most, _) = told(anonymous.take(now, true)).remove(0);
        assert_eq!((requests, addresses, most), (u64::from(all) + 1, u64::try_from(MOST_ADDRESSES).unwrap(), 2));
    }
}
