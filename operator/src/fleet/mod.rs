//! Upgrades of the fleet: a new operator version that builds other pods replaces those of a bounded number of servers at
//! a time, and stops where they do not come up. Pure.

mod progress;
mod requested_hash;
mod turns;

pub(crate) use progress::{Progress, progress};
pub(crate) use requested_hash::{ReadOnce, RequestedHash, requested_hash};
pub(crate) use turns::{Member, Next, Turns, Waits, turn};

use crate::objects::{names::ROLL_OUT, views::ChildView};

/// The party that wanted a roll-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RollOut {
    /// The author of the McpServer, or nobody: there is nothing yet that works.
    Requested,
    /// The operator, of itself.
    Upgrade,
}

impl RollOut {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Upgrade => "upgrade",
        }
    }

    fn of(deployment: &ChildView) -> Self {
        match deployment.annotation(ROLL_OUT) {
            Some(value) if value == Self::Upgrade.as_str() => Self::Upgrade,
            _ => Self::Requested,
        }
    }
}
