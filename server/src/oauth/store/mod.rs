//! The store of sessions and sign-ins, which all replicas share.
