//! The interpreter is the oracle, and for single operations wide arithmetic: native code does the same.

mod bombs;
mod operations;
mod programs;
mod traps;
