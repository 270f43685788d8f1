#![no_main]

use zvm_fuzz::{properties, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds("block_decode"),
    |bytes: &[u8]| properties::block_decode(bytes)
);
