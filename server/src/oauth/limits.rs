//! Rate limits of requests that cost this server or Entra something.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mcp_entra_policy::Rate;
use moka::sync::Cache;
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::addresses::Endpoint;
use crate::http::client_address::ClientAddress;
use crate::http::rate_limit::Budgets;

/// Requests from one address that store or seal something. An office full of people stays far below.
const OF_ADDRESS: Rate = Rate { requests: 60, per_seconds: 60 };
/// The same for all unknown addresses behind a proxy together.
const OF_UNKNOWN: Rate = Rate { requests: 600, per_seconds: 60 };
/// All other requests from one address. An office full of clients with ten-minute tokens stays below.
const ALL_OF_ADDRESS: Rate = Rate { requests: 1200, per_seconds: 60 };
/// The same for all unknown addresses together.
const ALL_OF_UNKNOWN: Rate = Rate { requests: 12_000, per_seconds: 60 };
/// Refreshes of one session at Entra. A client needs one in ten minutes.
const REFRESHES: Rate = Rate { requests: 10, per_seconds: 60 };
/// Most sessions that are refreshed at the same time.
const TURNS: u64 = 10_000;

/// The budgets.
pub(super) struct Limits {
    registrations: ByAddress,
    decisions: ByAddress,
    others: ByAddress,
    refreshes: Budgets<String>,
    turns: Cache<String, Arc<Mutex<()>>>,
}

/// A budget for each address. All unknown addresses share one.
struct ByAddress {
    of_address: Budgets<IpAddr>,
    of_unknown: Budgets<()>,
}

/// The refusal for an empty budget.
pub(super) struct Refused {
    /// Time until the budget allows a request.
    pub(super) wait: Duration,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            registrations: ByAddress::new(OF_ADDRESS, OF_UNKNOWN),
            decisions: ByAddress::new(OF_ADDRESS, OF_UNKNOWN),
            others: ByAddress::new(ALL_OF_ADDRESS, ALL_OF_UNKNOWN),
            refreshes: Budgets::new(REFRESHES),
            turns: Cache::builder().max_capacity(TURNS).time_to_idle(Duration::from_secs(60)).build(),
        }
    }

    /// Takes a request to this endpoint from the budget of this address.
    pub(super) fn draw(&self, endpoint: Endpoint, address: ClientAddress) -> Result<(), Refused> {
        match endpoint {
            Endpoint::Register => self.registrations.draw(address),
            _ => self.others.draw(address),
        }
    }

    /// Takes a sign-in that is about to be stored from the budget of this address.
    pub(super) fn decide(&self, address: ClientAddress) -> Result<(), Refused> {
        self.decisions.draw(address)
    }

    /// Takes a refresh at Entra from the budget of this session.
    pub(super) fn refresh(&self, session: &str) -> Result<(), Refused> {
        self.refreshes.draw(session.to_owned()).map_err(|wait| Refused { wait })
    }

    /// Waits for the session's turn. Of concurrent requests, only the first asks Entra.
    pub(super) async fn turn(&self, session: &str) -> OwnedMutexGuard<()> {
        let turn = self.turns.get_with_by_ref(session, Arc::default);
        turn.lock_owned().await
    }
}

impl ByAddress {
    fn new(of_address: Rate, of_unknown: Rate) -> Self {
        Self { of_address: Budgets::new(of_address), of_unknown: Budgets::new(of_unknown) }
    }

    fn draw(&self, address: ClientAddress) -> Result<(), Refused> {
        let drawn = match address {
            ClientAddress::Client(address) => self.of_address.draw(address),
            ClientAddress::BehindProxy => self.of_unknown.draw(()),
        };
        drawn.map_err(|wait| Refused { wait })
    }
}
