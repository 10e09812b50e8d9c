//! Tests of clients.

mod redirects;
