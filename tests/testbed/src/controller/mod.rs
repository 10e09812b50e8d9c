//! What the controllers that the testbed plays have in common: how they watch, and how they say what they found.

mod conditions;
mod statuses;
mod watching;

pub(crate) use conditions::{Problem, Verdict, conditions};
pub(crate) use statuses::Statuses;
pub(crate) use watching::{follow, is_synced};
