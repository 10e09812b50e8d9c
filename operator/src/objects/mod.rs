//! Objects as the operator reads and names them: owners, child kinds, views, and words of other controllers.

pub(crate) mod child;
pub(crate) mod drift;
pub(crate) mod edition;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod foreign;
pub(crate) mod full_name;
pub(crate) mod names;
pub(crate) mod owner;
pub(crate) mod seen;
pub(crate) mod statuses;
pub(crate) mod trust;
pub(crate) mod views;
pub(crate) mod watched;
