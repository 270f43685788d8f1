#![no_main]

use zvm_fuzz::{properties, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds("genesis_json"),
    |bytes: &[u8]| properties::genesis_json(bytes)
);
