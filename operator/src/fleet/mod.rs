//! Upgrades of the fleet: a new operator version that builds other pods replaces those of a bounded number of servers at
//! a time, and stops where they do not come up. Pure.

mod progress;
mod requested;
mod turns;

pub(crate) use progress::{Progress, progress};
pub(crate) use requested::{RequestedHash, requested_hash};
pub(crate) use turns::{Held, Member, Next, Turns, turn};

use crate::objects::views::ChildView;

/// The annotation of a Deployment with the hash of its pod template as built.
pub(crate) const TEMPLATE_HASH: &str = "mcp-entra.dev/template-hash";
/// The annotation of a Deployment with the hash of what its McpServer's author asked of the pods.
pub(crate) const REQUESTED_HASH: &str = "mcp-entra.dev/requested-hash";
/// The annotation of a Deployment that says who wanted its newest roll-out.
pub(crate) const ROLL_OUT: &str = "mcp-entra.dev/roll-out";

/// Who wanted a roll-out.
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
