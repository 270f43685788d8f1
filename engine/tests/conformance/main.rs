//! The external test sets, run whole or by a stable sample, and counted: a set that shrinks fails.

mod loose_files;
mod set;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::thread;

use alloy_primitives::keccak256;
use serde::de::IgnoredAny;
use set::Set;
use zvm_engine::fixtures::blocktest;
use zvm_engine::fixtures::runner::{self, Workers};
use zvm_engine::fixtures::statetest::{self, StateTestOptions};
use zvm_engine::fixtures::vectors;
use zvm_engine::parallel::Parallel;

fn workers() -> Workers<'static> {
    Workers {
        threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        ..Workers::default()
    }
}

macro_rules! state_sets {
    ($($test:ident: $archive:literal, $executed:literal;)*) => {$(
        #[test]
        fn $test() {
            Set { archive: $archive, executed: $executed }
                .check(|path| statetest::run(&[path], StateTestOptions::default(), workers()));
        }
    )*};
}

state_sets! {
    every_state_test_of_ethereum_tests_passes: "ethtests-GeneralStateTests", 16_308;
    every_state_test_of_eest_passes: "eest-v5.4.0-state_tests", 24_063;
    every_legacy_state_test_to_cancun_passes: "legacy-Cancun-GeneralStateTests", 73_026;
    every_legacy_state_test_to_petersburg_passes: "legacy-Constantinople-GeneralStateTests", 13_525;
}

macro_rules! vector_sets {
    ($($test:ident: $archive:literal, $executed:literal;)*) => {$(
        #[test]
        fn $test() {
            Set { archive: $archive, executed: $executed }.check(|path| vectors::run(&[path], workers()));
        }
    )*};
}

vector_sets! {
    every_precompile_vector_passes: "precompile-vectors", 1_813;
    every_transaction_test_passes: "ethtests-TransactionTests", 1_733;
    every_small_vector_of_ethereum_tests_passes: "ethtests-small-by-case", 3_568;
    every_difficulty_test_passes: "ethtests-DifficultyTests", 14_642;
    every_legacy_vm_test_passes: "legacy-VMTests", 433;
}

macro_rules! block_sets {
    ($($test:ident: $archive:literal, $executed:literal;)*) => {$(
        #[test]
        fn $test() {
            Set { archive: $archive, executed: $executed }
                .check(|path| runner::run(&[path], &["json"], workers(), &|entry, report| {
                    blocktest::run_file(entry, None, &parallel(), report);
                }));
        }
    )*};
}

block_sets! {
    every_block_test_of_eest_passes: "eest-v5.4.0-blockchain_tests", 4_568;
    every_static_block_test_of_eest_passes: "eest-v5.4.0-blockchain_tests-static", 11_290;
    every_block_test_of_ethereum_tests_passes: "ethtests-BlockchainTests", 417;
    every_legacy_block_test_to_cancun_passes: "legacy-Cancun-BlockchainTests", 1_885;
    every_legacy_block_test_to_petersburg_passes: "legacy-Constantinople-BlockchainTests", 1_182;
}

/// How the blocks are executed: in order, or by as many workers as `ZVM_BLOCK_THREADS` says.
fn parallel() -> Parallel {
    let threads = std::env::var("ZVM_BLOCK_THREADS").map_or(1, |text| text.parse().unwrap());
    Parallel {
        least: 1,
        ..Parallel::with_workers(NonZeroUsize::new(threads).unwrap())
    }
}

/// The same blocks spread over four workers.
#[test]
fn every_static_block_test_of_eest_passes_on_four_workers() {
    let parallel = Parallel {
        least: 1,
        ..Parallel::with_workers(NonZeroUsize::new(4).unwrap())
    };
    Set {
        archive: "eest-v5.4.0-blockchain_tests-static",
        executed: 11_290,
    }
    .check(|path| {
        runner::run(&[path], &["json"], workers(), &|entry, report| {
            blocktest::run_file(entry, None, &parallel, report);
        })
    });
}

/// Whether a file is in the sample: one in four, by a hash of its path inside the archive.
fn in_sample(path: &str) -> bool {
    let inside = path.rsplit(':').next().unwrap_or(path);
    keccak256(inside)[0].is_multiple_of(4)
}

/// The whole set takes more than a minute of processor time; `ZVM_ALL_FIXTURES=1` runs all of it.
#[test]
fn a_sample_of_the_heavy_blocks_of_eest_passes() {
    let all = std::env::var_os("ZVM_ALL_FIXTURES").is_some_and(|value| value == "1");
    let set = Set {
        archive: "eest-benchmark-v0.0.7",
        executed: if all { 231 } else { 77 },
    };
    set.check(|path| {
        runner::run(&[path], &["json"], workers(), &|entry, report| {
            if all || in_sample(&entry.path) {
                blocktest::run_file(entry, None, &parallel(), report);
            } else {
                let cases = serde_json::from_slice::<HashMap<&str, IgnoredAny>>(&entry.bytes);
                report.skip("outside of the sample", cases.unwrap().len() as u64);
            }
        })
    });
}
