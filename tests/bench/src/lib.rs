//! What the programs take: time, requests and memory, measured from outside on the testbed's real control plane. Figures
//! are printed and compared by people; only counts that are promised are asserted, since they are the same on every
//! machine.

pub mod operator;
