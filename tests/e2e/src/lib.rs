//! The story of the product, as tests on the testbed: `tests/e2e`. There is nothing here to use.
