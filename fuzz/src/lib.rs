//! What holds for any bytes from outside, and valid inputs to start from.
//!
//! The libFuzzer targets evolve bytes for hours; the engine's tests compile [`properties`] and [`seeds`] too and try the
//! seeds, and the seeds changed at random, on every run.

pub mod properties;
pub mod seeds;

use std::path::PathBuf;

/// Writes the seeds of `target` into the folder that the environment variable `ZVM_SEEDS` names, if it is set.
///
/// A target calls this before libFuzzer reads its corpus.
///
/// # Panics
/// A file cannot be written.
pub fn write_seeds(target: &str) {
    let Some(folder) = std::env::var_os("ZVM_SEEDS").map(PathBuf::from) else {
        return;
    };
    // The compiler's property and seeds stand beside its other tests.
    let seeds = match target {
        "jit" => zvm_differential::property::seeds(),
        _ => seeds::of(target),
    };
    for (index, seed) in seeds.iter().enumerate() {
        let path = folder.join(format!("seed-{index:02}"));
        std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
