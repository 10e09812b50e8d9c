//! Key epochs: random secrets from which the keys of each purpose are derived.
