//! Limits of the requests that cost the server something before anybody has signed in.

use std::net::IpAddr;
use std::time::Duration;

use mcp_entra_policy::Rate;

use super::addresses::Endpoint;
use crate::http::client_address::ClientAddress;
use crate::http::rate_limit::Budgets;

/// Registrations, and decisions of people, from one address. An office full of people stays far below.
const OF_ADDRESS: Rate = Rate { requests: 60, per_seconds: 60 };
/// The same from all addresses that are not known, since a proxy hides them.
const OF_UNKNOWN: Rate = Rate { requests: 600, per_seconds: 60 };

/// Budgets by address. One whose address is not known draws on that of all such.
pub(super) struct Limits {
    registrations: Kind,
    decisions: Kind,
}

struct Kind {
    of_address: Budgets<IpAddr>,
    of_unknown: Budgets<()>,
}

/// A refusal: the budget is used up.
pub(super) struct Refused {
    /// Time until there is some again.
    pub(super) wait: Duration,
}

impl Limits {
    pub(super) fn new() -> Self {
        let kind = || Kind { of_address: Budgets::new(OF_ADDRESS), of_unknown: Budgets::new(OF_UNKNOWN) };
        Self { registrations: kind(), decisions: kind() }
    }

    /// Draws on the budget of this address for a request to this endpoint.
    pub(super) fn draw(&self, endpoint: Endpoint, address: ClientAddress) -> Result<(), Refused> {
        let kind = match endpoint {
            Endpoint::Register => &self.registrations,
            // Each stores something.
            Endpoint::Consent | Endpoint::Sessions => &self.decisions,
            _ => return Ok(()),
        };
        let drawn = match address {
            ClientAddress::Client(address) => kind.of_address.draw(address),
            ClientAddress::BehindProxy => kind.of_unknown.draw(()),
        };
        drawn.map_err(|wait| Refused { wait })
    }
}
