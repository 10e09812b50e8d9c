//! Objects as the operator reads and names them: owners, child kinds, views, and texts of other controllers.

pub(crate) mod child;
pub(crate) mod config_map_edition;
pub(crate) mod drift;
#[cfg(test)]
pub(crate) mod fixtures;
pub(crate) mod full_name;
pub(crate) mod names;
pub(crate) mod observed_child;
pub(crate) mod owner;
pub(crate) mod status_views;
pub(crate) mod trust_bundle;
pub(crate) mod untrusted_text;
pub(crate) mod views;
pub(crate) mod watched;
