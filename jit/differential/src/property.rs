//! The property that fuzzers attack: whatever the bytes say, native code does what the interpreter does.

use std::cell::RefCell;

use crate::case::Case;
use crate::choices::{Choices, mix};
use crate::compare::{Comparison, describe};
use zvm_runtimes::evm::Fork;

/// Bytes that choose what surrounds a program given as code.
const SURROUNDINGS: usize = 16;

thread_local! {
    static COMPARISON: RefCell<Option<Comparison>> = const { RefCell::new(None) };
}

/// The case that bytes stand for: three in four are decisions of the generator, the others code as it is.
pub fn case(bytes: &[u8]) -> Case {
    match bytes.split_first() {
        Some((kind, rest)) if kind % 4 == 3 => {
            let (surroundings, code) = rest.split_at(rest.len().min(SURROUNDINGS));
            let items = Case::of_code(code, 0).items;
            Case::around(&mut Choices::from_bytes(surroundings), items, Fork::LATEST)
        }
        Some((_, rest)) => Case::structured(&mut Choices::from_bytes(rest)),
        None => Case::of_code(&[], 0),
    }
}

/// Executes the case by the interpreter and natively.
///
/// # Panics
/// They differ, or this processor has no compiler.
pub fn native_code_does_what_the_interpreter_does(bytes: &[u8]) {
    let case = case(bytes);
    COMPARISON.with_borrow_mut(|comparison| {
        let comparison =
            comparison.get_or_insert_with(|| Comparison::new().expect("a known processor"));
        if let Err(difference) = comparison.check(&case) {
            panic!("{difference}\n{}", describe(&case));
        }
    });
}

/// Inputs to start from.
pub fn seeds() -> Vec<Vec<u8>> {
    (0..24)
        .map(|seed| {
            let mut choices = Choices::from_seed(mix(seed));
            let length = 40 + 20 * seed;
            let mut bytes = vec![0];
            bytes.extend((0..length).map(|_| choices.below(256) as u8));
            bytes
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_hold_and_are_programs_of_some_length() {
        for seed in seeds() {
            assert!(case(&seed).code().len() > 8);
            native_code_does_what_the_interpreter_does(&seed);
        }
        native_code_does_what_the_interpreter_does(&[]);
        native_code_does_what_the_interpreter_does(&[3; 40]);
    }
}
