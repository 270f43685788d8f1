//! Codes made to be expensive to compile: compiled within bounds of work and size, or refused before the work.
//!
//! Time is not asserted; `cargo run --release -p zvm-jit --example bombs` prints it.

use zvm_differential::bombs;
use zvm_differential::case::Case;
use zvm_differential::compare::{Comparison, describe};
use zvm_differential::tier::Tier;
use zvm_jit::compiler::{Compiler, Level};
use zvm_runtimes::evm::Fork;

/// Bytes of native code per byte of bytecode.
const GROWTH: usize = 16;

/// Cranelift instructions of one compilation: they decide its time (about half a microsecond each without optimisation,
/// two to four with it) and its memory (about a kilobyte each).
fn most_clif(level: Level) -> usize {
    match level {
        Level::Quick => 150_000,
        Level::Full => 60_000,
    }
}

#[test]
#[ignore = "the compiler does not yet bound its work"]
fn a_bomb_is_compiled_within_the_bounds_or_refused() {
    let compiler = Compiler::new().expect("a known processor");
    let (mut compiled, mut refused) = (0, 0);
    for bomb in bombs::all() {
        for level in [Level::Quick, Level::Full] {
            match compiler.compile(&bomb.code, Fork::LATEST.spec_id(), level) {
                Ok(image) => {
                    compiled += 1;
                    let (size, most) = (image.code().len(), GROWTH * bomb.code.len());
                    assert!(size <= most, "{} {level:?}: {size} > {most}", bomb.name);
                    let (clif, most) = (image.clif(), most_clif(level));
                    assert!(clif <= most, "{} {level:?}: {clif} > {most}", bomb.name);
                }
                Err(_) => refused += 1,
            }
        }
    }
    println!("{compiled} compiled, {refused} refused");
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
