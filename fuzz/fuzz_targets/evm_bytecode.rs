#![no_main]

use zvm_fuzz::{properties, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds("evm_bytecode"),
    |bytes: &[u8]| properties::evm_bytecode(bytes)
);
