//! Tests of clients.

mod addresses;
mod documents;
mod fetching;
mod fixture;
mod names;
mod redirects;
mod registration;
