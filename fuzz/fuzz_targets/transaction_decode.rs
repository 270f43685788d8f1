#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zvm_fuzz::properties::transaction_decode(bytes));
