//! The charts, rendered and installed by real Helm on a real API server that all tests of this binary share. Each test has
//! a namespace and a release of its own.

mod rendering;
