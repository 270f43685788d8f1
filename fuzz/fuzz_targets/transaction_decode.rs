#![no_main]

use zvm_fuzz::{properties, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds("transaction_decode"),
    |bytes: &[u8]| properties::transaction_decode(bytes)
);
