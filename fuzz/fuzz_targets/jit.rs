#![no_main]

use zvm_differential::property;
use zvm_fuzz::write_seeds;

libfuzzer_sys::fuzz_target!(
    init: write_seeds("jit"),
    |bytes: &[u8]| property::native_code_does_what_the_interpreter_does(bytes)
);
