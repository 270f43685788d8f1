//! Workloads that the harness and the criterion benches share.

mod blocks;
mod workload;

pub use blocks::{BlocksReport, BlocksRun, compare_blocks};
pub use workload::{Workload, WorkloadError};

use std::path::PathBuf;

/// The folder with recorded blocks, corpus and conformance sets that lies beside the project.
pub fn shared(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(path)
}
