//! The product's stories on the testbed: what `cargo demo` and `cargo e2e-node` play in a row, and the tests one by one.

pub mod laptop;
pub mod report;
pub mod story;
