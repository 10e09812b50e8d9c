//! Measurements of the programs from outside: time, requests, processor time and memory. Figures are printed for people
//! to compare. Only promised counts are asserted, since they are equal on every machine.

pub mod operator;
mod process;
pub mod server;
mod until;
