//! Requests without a token: every sign-in begins with one, and anybody can send any number. They are counted by address in
//! memory, and one line a minute tells how many there were.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::line::Line;

/// Time that one line stands for.
const PERIOD: Duration = Duration::from_secs(60);

/// Addresses that are counted in one period. Requests from others are counted without theirs.
const MOST_ADDRESSES: usize = 10_000;

/// The reason of the line.
pub(super) const REASON: &str = "token_missing";

/// A request without a token.
pub(super) struct Request {
    pub(super) request_id: String,
    /// The client's address; none where a proxy hides it.
    pub(super) address: Option<IpAddr>,
    pub(super) status: Option<u16>,
    pub(super) latency: Duration,
}

/// The requests without a token since the last line.
#[derive(Default)]
pub(super) struct Tokenless {
    counted: Option<Counted>,
}

struct Counted {
    since: Instant,
    requests: u64,
    by_address: HashMap<Option<IpAddr>, u64>,
    latest: Request,
}

/// The numbers of a line, without any address.
pub(super) struct Summary {
    latest: Request,
    requests: u64,
    addresses: u64,
    most: u64,
}

impl Tokenless {
    pub(super) fn count(&mut self, request: Request, now: Instant) {
        let address = request.address;
        let counted = match &mut self.counted {
            Some(counted) => {
                counted.latest = request;
                counted
            }
            None => {
                let by_address = HashMap::new();
                self.counted.insert(Counted { since: now, requests: 0, by_address, latest: request })
            }
        };
        counted.requests += 1;
        if counted.by_address.len() < MOST_ADDRESSES || counted.by_address.contains_key(&address) {
            *counted.by_address.entry(address).or_default() += 1;
        }
    }

    /// Time until the next line is due; none while there is nothing to tell.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.counted.as_ref().map(|counted| PERIOD.saturating_sub(now.duration_since(counted.since)))
    }

    /// The numbers of the line that is due, or of the last one.
    pub(super) fn take(&mut self, now: Instant, is_last: bool) -> Option<Summary> {
        let is_due = is_last || self.wait(now).is_some_and(|wait| wait.is_zero());
        let Counted { requests, by_address, latest, .. } = self.counted.take_if(|_| is_due)?;
        let addresses = u64::try_from(by_address.len()).unwrap_or(u64::MAX);
        let most = by_address.into_values().max().unwrap_or_default();
        Some(Summary { latest, requests, addresses, most })
    }
}

impl Summary {
    /// The line, with the id and status of the latest request.
    pub(super) fn line<'a>(&'a self, server: &'a str) -> Line<'a> {
        let Request { request_id, status, latency, .. } = &self.latest;
        Line {
            count: Some(self.requests),
            addresses: Some(self.addresses),
            most_of_one_address: Some(self.most),
            ..Line::refused(request_id, server, REASON, *status, *latency)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(id: u32, address: Option<[u8; 4]>) -> Request {
        let address = address.map(IpAddr::from);
        Request { request_id: id.to_string(), address, status: Some(401), latency: Duration::ZERO }
    }

    fn told(summary: Option<Summary>) -> Option<(u64, u64, u64, String)> {
        summary.map(|Summary { latest, requests, addresses, most }| (requests, addresses, most, latest.request_id))
    }

    #[test]
    fn requests_without_a_token_are_told_of_once_a_minute_with_their_number() {
        let (mut tokenless, start) = (Tokenless::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(tokenless.wait(at(0)), None, "nothing is due while there is nothing to tell");
        tokenless.count(request(1, Some([192, 0, 2, 1])), at(0));
        tokenless.count(request(2, Some([192, 0, 2, 1])), at(1));
        tokenless.count(request(3, None), at(59));
        assert_eq!(told(tokenless.take(at(59), false)), None);
        assert_eq!(tokenless.wait(at(59)), Some(Duration::from_secs(1)));
        assert_eq!(told(tokenless.take(at(60), false)), Some((3, 2, 2, "3".to_owned())));
        assert_eq!(told(tokenless.take(at(200), false)), None, "a minute without any has no line");
        tokenless.count(request(4, None), at(201));
        assert_eq!(
            told(tokenless.take(at(202), true)),
            Some((1, 1, 1, "4".to_owned())),
            "the last one waits for nothing"
        );
    }

    #[test]
    fn memory_for_addresses_is_bounded_and_no_request_goes_uncounted() {
        let (mut tokenless, now) = (Tokenless::default(), Instant::now());
        let all = u32::try_from(MOST_ADDRESSES).unwrap() + 500;
        for id in 0..all {
            tokenless.count(request(id, Some(id.to_be_bytes())), now);
        }
        tokenless.count(request(all, Some([0, 0, 0, 0])), now);
        let (requests, addresses, most, _) = told(tokenless.take(now, true)).unwrap();
        assert_eq!((requests, addresses, most), (u64::from(all) + 1, u64::try_from(MOST_ADDRESSES).unwrap(), 2));
    }
}
