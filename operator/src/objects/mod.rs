//! Objects as the operator reads them: owners, child kinds, views, and words of other controllers.

pub(crate) mod child;
pub(crate) mod foreign;
pub(crate) mod owner;
pub(crate) mod views;
pub(crate) mod watched;
