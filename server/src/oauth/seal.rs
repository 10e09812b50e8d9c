//! Sealed values: authenticated encryption, bound to a purpose and an owner.
