//! What holds for any bytes from outside, and valid inputs to start from.
//!
//! The libFuzzer targets evolve bytes for hours; the engine's tests compile these same files and try the seeds, and the
//! seeds changed at random, on every run.

pub mod properties;
pub mod seeds;
