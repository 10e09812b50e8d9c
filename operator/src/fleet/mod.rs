//! Upgrades of the fleet. After an upgrade of the operator changes the pods, a bounded number of servers replaces its
//! pods at the same time. Upgrades stop when new pods do not become ready. Pure.

mod progress;
mod requested_hash;
mod turns;

pub(crate) use progress::{Progress, progress};
pub(crate) use requested_hash::{ReadOnce, RequestedHash, requested_hash};
pub(crate) use turns::{Member, Next, Turns, Waits, turn};

use crate::objects::{names::ROLL_OUT, views::ChildView};

/// The origin of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RollOut {
    /// The McpServer's author asked for it, or no pod works yet.
    Requested,
    /// The operator itself asked for it.
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
