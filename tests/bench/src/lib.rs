//! Measurements of the programs from outside: time, requests, processor time and memory. Figures are printed and compared
//! by people; only counts that are promised are asserted, since they are the same on every machine.

pub mod operator;
mod process;
pub mod server;
mod until;
