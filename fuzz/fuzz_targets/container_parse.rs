#![no_main]

use zvm_fuzz::{properties, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds("container_parse"),
    |bytes: &[u8]| properties::container_parse(bytes)
);
