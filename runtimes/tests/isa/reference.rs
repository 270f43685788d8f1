//! The printed reference is up to date.

use std::{env, fs, path::Path};
use zvm_runtimes::isa;

#[test]
fn the_printed_reference_is_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/isa.md");
    let expected = isa::reference();
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &expected).expect("docs/isa.md can be written");
    }
    let actual = fs::read_to_string(&path).expect("docs/isa.md can be read");
    assert!(
        actual == expected,
        "docs/isa.md is out of date: run this test with UPDATE=1"
    );
}
