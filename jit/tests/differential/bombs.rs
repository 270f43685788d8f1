//! Codes made to be expensive to compile: compiled within bounds of work and size, or refused before the work.
//!
//! Time is not asserted; `cargo run --release -p zvm-jit --example bombs` prints it.

use zvm_differential::bombs;
use zvm_differential::case::Case;
use zvm_differential::compare::{Comparison, describe};
use zvm_differential::tier::Tier;
use zvm_jit::compiler::{Compiler, Level, Limits, Refused};
use zvm_runtimes::evm::Fork;

#[test]
fn a_bomb_is_compiled_within_the_bounds_or_refused() {
    let compiler = Compiler::new().expect("a known processor");
    let (mut compiled, mut refused) = (0, 0);
    for bomb in bombs::all() {
        for level in [Level::Quick, Level::Full] {
            let limits = Limits::of(level);
            match compiler.compile(&bomb.code, Fork::LATEST.spec_id(), level) {
                Ok(image) => {
                    compiled += 1;
                    let most = Limits::FREE + limits.growth * bomb.code.len();
                    let size = image.code().len();
                    assert!(size <= most, "{} {level:?}: {size} > {most}", bomb.name);
                    let clif = image.clif();
                    assert!(clif <= limits.clif, "{} {level:?}: {clif}", bomb.name);
                }
                // Before the work, by an estimate or a count; never after it.
                Err(Refused::TooLarge { what, .. }) => {
                    refused += 1;
                    assert_ne!(what, "bytes", "{} {level:?}", bomb.name);
                }
                Err(other) => panic!("{} {level:?}: {other}", bomb.name),
            }
        }
    }
    println!("{compiled} compiled, {refused} refused");
    assert!(compiled > 20 && refused > 5);
}

#[test]
fn a_bomb_does_the_same_natively() {
    let compiler = Compiler::new().expect("a known processor");
    let tiers = [Tier::Native(Level::Quick), Tier::Native(Level::Full)];
    for bomb in bombs::all() {
        let mut comparison = Comparison::with(compiler.clone(), &tiers);
        for (gas, calldata) in [(300_000, vec![0x11; 64]), (5_000, vec![0; 64])] {
            let mut case = Case::of_code(&bomb.code, gas);
            case.calldata = calldata;
            if let Err(difference) = comparison.check(&case) {
                panic!("{}: {difference}\n{}", bomb.name, describe(&case));
            }
        }
    }
}
