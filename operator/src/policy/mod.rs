//! The policy of a server: selects the mappings that are about it, and compiles them.

pub(crate) mod binding;
pub(crate) mod compile;
pub(crate) mod offered;
pub(crate) mod revocation;
pub(crate) mod written_policies;
