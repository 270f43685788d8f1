//! Random programs: a stable sample of what `soak` tries by the million.

use std::path::PathBuf;

use zvm_differential::case::Case;
use zvm_differential::choices::{Choices, mix};
use zvm_differential::compare::{Comparison, describe};
use zvm_differential::minimise::minimise;
use zvm_differential::real::Codes;

/// The contracts in `../shared`, or none where they may be left out.
fn contracts(folder: &str) -> Option<Codes> {
    let set = |name, value| std::env::var(name).is_ok_and(|found| found == value);
    if set("ZVM_WITHOUT_FIXTURES", "1") && !set("CI", "true") {
        return None;
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(folder);
    let codes = Codes::read(&path).expect("the test data in ../shared");
    assert!(codes.len() > 20, "{} contracts", codes.len());
    Some(codes)
}

/// Fails with the smallest program that still differs.
fn check(comparison: &mut Comparison, name: &str, case: &Case) {
    if let Err(difference) = comparison.check(case) {
        let small = minimise(case, 4_000, |case| comparison.check(case).is_err());
        let again = comparison.check(&small).err();
        panic!(
            "{name}: {difference}\nmade smaller: {}\n{}",
            again.map_or_else(String::new, |difference| difference.to_string()),
            describe(&small)
        );
    }
}

/// What is printed of a comparison, and that most of it ran natively.
fn finish(name: &str, comparison: &Comparison) {
    let statistics = comparison.statistics();
    println!(
        "{name}: {} transactions, {} codes compiled, {} refused, {} frames without native code, allowed differences {:?}",
        comparison.executed,
        statistics.compiled,
        statistics.refused,
        statistics.interpreted,
        comparison.kinds
    );
    assert!(statistics.refused * 100 <= statistics.compiled);
    assert!(statistics.interpreted * 20 <= statistics.entries);
}

fn sample(name: &str, count: u64, mut case: impl FnMut(u64, &mut Choices<'_>) -> Case) {
    let mut comparison = Comparison::new().expect("a known processor");
    for index in 0..count {
        let mut choices = Choices::from_seed(mix(index));
        let case = case(index, &mut choices);
        check(&mut comparison, &format!("{name} {index}"), &case);
    }
    finish(name, &comparison);
}

#[test]
fn structured_random_programs_do_the_same_natively() {
    sample("structured", 1_500, |_, choices| Case::structured(choices));
}

#[test]
fn random_bytes_do_the_same_natively() {
    sample("random bytes", 400, |_, choices| {
        let length = choices.between(1, 80);
        let bytes: Vec<u8> = (0..length).map(|_| choices.below(256) as u8).collect();
        let case = Case::of_code(&bytes, 0);
        Case::around(choices, case.items, case.fork)
    });
}

/// What the fuzzer does: decisions from bytes that end.
#[test]
fn programs_from_a_fuzzers_bytes_do_the_same_natively() {
    sample("from bytes", 300, |_, choices| {
        let length = choices.between(0, 300);
        let bytes: Vec<u8> = (0..length).map(|_| choices.below(256) as u8).collect();
        Case::structured(&mut Choices::from_bytes(&bytes))
    });
}

#[test]
fn parts_of_contracts_with_changes_do_the_same_natively() {
    let Some(codes) = contracts("corpus") else {
        return;
    };
    sample("parts of the corpus", 500, |_, choices| codes.case(choices));
    let Some(codes) = contracts("blocks") else {
        return;
    };
    sample("parts of mainnet contracts", 500, |_, choices| {
        codes.case(choices)
    });
}

#[test]
fn whole_contracts_with_changes_do_the_same_natively() {
    let Some(codes) = contracts("corpus") else {
        return;
    };
    let codes = codes.up_to(3_600);
    sample(
        "whole contracts",
        3 * codes.len() as u64,
        |index, choices| codes.whole(choices, index as usize),
    );
}

/// The first place where gas runs out, and every other, at every limit up to what a program uses.
#[test]
fn every_gas_limit_up_to_what_is_used_ends_the_same_way() {
    let mut comparison = Comparison::new().expect("a known processor");
    let (mut swept, mut limits) = (0, 0);
    for index in 0.. {
        let mut case = Case::structured(&mut Choices::from_seed(mix(1 << 32 | index)));
        case.gas = case.gas.min(2_000 + 40 * (index % 64));
        match comparison.sweep(&case, 2_500) {
            Ok(count) => limits += count,
            Err(difference) => panic!("{difference}\n{}", describe(&case)),
        }
        swept += 1;
        if swept == 60 {
            break;
        }
    }
    println!("{swept} programs at {limits} gas limits");
    assert!(limits > 60 * 500);
    finish("sweeps", &comparison);
}
