//! Policy of a server: selects the mappings that bind it, and compiles them.

pub(crate) mod binding;
pub(crate) mod compile;
pub(crate) mod offered;
pub(crate) mod revocation;
pub(crate) mod written_policies;
