#![no_main]

use zvm_fuzz::{properties, write_seeds};

libfuzzer_sys::fuzz_target!(
    init: write_seeds("trie_batches"),
    |bytes: &[u8]| properties::trie_batches(bytes)
);
