//! Programs and blocks beside their peers: what the harness `zvm-bench` and the criterion benches share.

mod blocks;
pub mod compute;
pub mod corpus;
pub mod html;
pub mod kernels;
pub mod load;
pub mod outcome;
pub mod parallel;
mod plot;
pub mod sample;
pub mod side;
pub mod storage;
mod workload;

pub use blocks::{
    BlocksReport, BlocksRun, ColdBlock, Spread, TierBlock, TierReport, compare_blocks,
};
pub use workload::Workload;

use std::path::PathBuf;

/// The folder with recorded blocks, corpus and conformance sets that lies beside the project.
pub fn shared(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(path)
}
