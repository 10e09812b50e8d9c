//! Common code of the testbed's controllers: watches, and statuses.

mod conditions;
mod statuses;
mod watching;

pub(crate) use conditions::{Problem, Verdict, conditions};
pub(crate) use statuses::Statuses;
pub(crate) use watching::{follow, is_synced};
