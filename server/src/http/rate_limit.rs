//! Rate limits: two limits, in neither of which one caller can use up another's budget.
//!
//! Before authentication, a limit by address: a client that sends many invalid tokens must pause. Valid tokens do not
//! count and always pass, so that others at the same address are not blocked. The limit does not apply behind a proxy
//! that the configuration does not name, because it would block all clients for one.
//!
//! After authentication, a limit by principal: each user and each application by itself has its own budget.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderValue, StatusCode, header};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use mcp_entra_policy::Rate;
use moka::sync::Cache;
use secrecy::ExposeSecret;

use super::Gate;
use super::answer::{self, Refusal};
use super::bearer::Bearer;
use super::client_address::ClientAddress;
use crate::token::Principal;

/// Invalid tokens from one address: the burst and the number per minute. A browser with many clients whose tokens
/// expired stays far below.
const REFUSED_TOKENS: Rate = Rate { requests: 60, per_seconds: 60 };

/// Most addresses and most principals in memory. A forgotten one starts with a new budget.
const REMEMBERED: u64 = 20_000;

/// The budgets of all callers.
pub struct RateLimits {
    addresses: Budgets<IpAddr>,
    /// By object id: all principals are of one tenant.
    principals: Budgets<String>,
}

impl RateLimits {
    /// Returns limits with this rate for each principal.
    pub fn new(per_user: Rate) -> Self {
        Self { addresses: Budgets::new(REFUSED_TOKENS), principals: Budgets::new(per_user) }
    }
}

/// Budgets by key. Each is created on first use.
pub(crate) struct Budgets<K> {
    rate: Rate,
    of: Cache<K, Arc<Budget>>,
}

struct Budget {
    limiter: DefaultDirectRateLimiter,
    used_up_until: Mutex<Option<Instant>>,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Budgets<K> {
    pub(crate) fn new(rate: Rate) -> Self {
        // An unused budget is full again after this time, like a new one.
        let idle = Duration::from_secs(u64::from(rate.per_seconds) + 1);
        Self { rate, of: Cache::builder().max_capacity(REMEMBERED).time_to_idle(idle).build() }
    }

    /// Takes one from the budget, or returns the time to wait.
    pub(crate) fn draw(&self, key: K) -> Result<(), Duration> {
        let budget = self.of.get_with(key, || Arc::new(Budget::new(self.rate)));
        budget.draw()
    }

    /// Returns the time to wait if the budget is empty. Takes nothing.
    fn wait(&self, key: &K) -> Option<Duration> {
        let until = *self.of.get(key)?.used_up_until.lock().unwrap_or_else(PoisonError::into_inner);
        until?.checked_duration_since(Instant::now()).filter(|wait| !wait.is_zero())
    }
}

impl Budget {
    fn new(rate: Rate) -> Self {
        let requests = NonZeroU32::new(rate.requests).unwrap_or(NonZeroU32::MIN);
        let each = Duration::from_secs(rate.per_seconds.max(1).into()) / requests.get();
        let quota =
            Quota::with_period(each.max(Duration::from_nanos(1))).unwrap_or_else(|| Quota::per_second(requests));
        Self { limiter: RateLimiter::direct(quota.allow_burst(requests)), used_up_until: Mutex::new(None) }
    }

    fn draw(&self) -> Result<(), Duration> {
        self.limiter.check().map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            *self.used_up_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + wait);
            wait
        })
    }
}

/// Refuses an address that has sent too many invalid tokens.
pub(super) async fn by_address(gate: &Gate, address: ClientAddress, Bearer(token): &Bearer) -> Result<(), Refusal> {
    let ClientAddress::Client(address) = address else { return Ok(()) };
    match gate.rate_limits.addresses.wait(&address) {
        Some(wait) if gate.tokens.validate(token.expose_secret()).await.is_err() => {
            Err(too_many("address_rate_limited", wait, "too many invalid tokens came from this address"))
        }
        _ => Ok(()),
    }
}

/// Counts an invalid token of this address.
pub(super) fn count_refused_token(gate: &Gate, address: ClientAddress) {
    if let ClientAddress::Client(address) = address {
        let _ = gate.rate_limits.addresses.draw(address);
    }
}

/// Refuses a principal that exceeds the configured rate.
pub(super) fn by_principal(gate: &Gate, principal: &Principal) -> Result<(), Refusal> {
    gate.rate_limits.principals.draw(principal.object_id().to_owned()).map_err(|wait| {
        let Rate { requests, per_seconds } = gate.configuration.rate_limit.per_user;
        too_many("rate_limited", wait, &format!("more than {requests} requests in {per_seconds} s"))
    })
}

fn too_many(reason: &'static str, wait: Duration, why: &str) -> Refusal {
    // Rounded up, so that a client that returns on the second is accepted.
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    let text = format!("{why}; try again in {seconds} s");
    let mut response = answer::problem(StatusCode::TOO_MANY_REQUESTS, &text);
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Refusal::new(reason, response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_used_up_and_says_how_long_to_wait() {
        let budgets = Budgets::new(Rate { requests: 2, per_seconds: 3600 });
        assert_eq!((budgets.draw("a"), budgets.draw("a")), (Ok(()), Ok(())));
        let wait = budgets.draw("a").unwrap_err();
        assert!(wait > Duration::from_secs(1790) && wait <= Duration::from_secs(1800), "{wait:?}");
        assert!(budgets.wait(&"a").is_some());
    }

    #[test]
    fn each_caller_has_its_own_budget() {
        let budgets = Budgets::new(Rate { requests: 1, per_seconds: 3600 });
        assert!(budgets.draw("a").is_ok() && budgets.draw("a").is_err());
        assert_eq!(budgets.wait(&"b"), None);
        assert_eq!(budgets.draw("b"), Ok(()));
    }
}
