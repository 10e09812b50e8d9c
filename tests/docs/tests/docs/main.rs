//! README and docs are true as far as that can be seen without a cluster: links resolve, manifests and values parse, and
//! commands name what exists. The programs' own tests parse the commands that call them; the kinds' tests have a real API
//! server judge the manifests.
#![cfg(test)] // clippy does not see otherwise that the functions tests share are of tests too

mod commands;
mod links;
mod manifests;
