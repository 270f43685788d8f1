#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zvm_fuzz::properties::block_decode(bytes));
