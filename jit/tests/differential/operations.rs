//! Every arithmetic operation at both levels on edge values, for every pair of operand widths that the compiler can
//! know, and with a known word on either side, against wide arithmetic written here.

use alloy_primitives::{I256, U256, U512};
use zvm_differential::asm::{Item, assemble};
use zvm_differential::case::Case;
use zvm_differential::compare::Runner;
use zvm_differential::tier::Tier;
use zvm_jit::compiler::{Compiler, Level};
use zvm_runtimes::revm::context::result::ExecutionResult;

struct Operation {
    name: &'static str,
    byte: u8,
    arity: usize,
    /// Operands in order of popping.
    expected: fn([U256; 3]) -> U256,
}

fn flag(flag: bool) -> U256 {
    U256::from(flag)
}

fn signed(word: U256) -> I256 {
    I256::from_raw(word)
}

/// Shifts of 256 and more leave nothing.
fn by(word: U256) -> Option<usize> {
    usize::try_from(word).ok().filter(|by| *by < 256)
}

fn wide(word: U256) -> U512 {
    U512::from(word)
}

fn sign_extend([at, word, _]: [U256; 3]) -> U256 {
    match u64::try_from(at) {
        Ok(at) if at < 31 => {
            let unused = 248 - 8 * at as usize;
            (word << unused).arithmetic_shr(unused)
        }
        _ => word,
    }
}

#[rustfmt::skip]
const OPERATIONS: &[Operation] = &[
    Operation { name: "ADD", byte: 0x01, arity: 2, expected: |[a, b, _]| a.wrapping_add(b) },
    Operation { name: "MUL", byte: 0x02, arity: 2, expected: |[a, b, _]| a.wrapping_mul(b) },
    Operation { name: "SUB", byte: 0x03, arity: 2, expected: |[a, b, _]| a.wrapping_sub(b) },
    Operation { name: "DIV", byte: 0x04, arity: 2, expected: |[a, b, _]| a.checked_div(b).unwrap_or_default() },
    Operation { name: "SDIV", byte: 0x05, arity: 2, expected: |[a, b, _]| {
        if b.is_zero() { b } else { signed(a).wrapping_div(signed(b)).into_raw() }
    } },
    Operation { name: "MOD", byte: 0x06, arity: 2, expected: |[a, b, _]| a.checked_rem(b).unwrap_or_default() },
    Operation { name: "SMOD", byte: 0x07, arity: 2, expected: |[a, b, _]| {
        if b.is_zero() { b } else { signed(a).wrapping_rem(signed(b)).into_raw() }
    } },
    Operation { name: "ADDMOD", byte: 0x08, arity: 3, expected: |[a, b, c]| {
        if c.is_zero() { c } else { ((wide(a) + wide(b)) % wide(c)).to() }
    } },
    Operation { name: "MULMOD", byte: 0x09, arity: 3, expected: |[a, b, c]| {
        if c.is_zero() { c } else { ((wide(a) * wide(b)) % wide(c)).to() }
    } },
    Operation { name: "EXP", byte: 0x0a, arity: 2, expected: |[a, b, _]| a.pow(b) },
    Operation { name: "SIGNEXTEND", byte: 0x0b, arity: 2, expected: sign_extend },
    Operation { name: "LT", byte: 0x10, arity: 2, expected: |[a, b, _]| flag(a < b) },
    Operation { name: "GT", byte: 0x11, arity: 2, expected: |[a, b, _]| flag(a > b) },
    Operation { name: "SLT", byte: 0x12, arity: 2, expected: |[a, b, _]| flag(signed(a) < signed(b)) },
    Operation { name: "SGT", byte: 0x13, arity: 2, expected: |[a, b, _]| flag(signed(a) > signed(b)) },
    Operation { name: "EQ", byte: 0x14, arity: 2, expected: |[a, b, _]| flag(a == b) },
    Operation { name: "ISZERO", byte: 0x15, arity: 1, expected: |[a, ..]| flag(a.is_zero()) },
    Operation { name: "AND", byte: 0x16, arity: 2, expected: |[a, b, _]| a & b },
    Operation { name: "OR", byte: 0x17, arity: 2, expected: |[a, b, _]| a | b },
    Operation { name: "XOR", byte: 0x18, arity: 2, expected: |[a, b, _]| a ^ b },
    Operation { name: "NOT", byte: 0x19, arity: 1, expected: |[a, ..]| !a },
    Operation { name: "BYTE", byte: 0x1a, arity: 2, expected: |[a, b, _]| {
        if a < U256::from(32) { U256::from(b.to_be_bytes::<32>()[a.to::<usize>()]) } else { U256::ZERO }
    } },
    Operation { name: "SHL", byte: 0x1b, arity: 2, expected: |[a, b, _]| by(a).map_or(U256::ZERO, |by| b << by) },
    Operation { name: "SHR", byte: 0x1c, arity: 2, expected: |[a, b, _]| by(a).map_or(U256::ZERO, |by| b >> by) },
    Operation { name: "SAR", byte: 0x1d, arity: 2, expected: |[a, b, _]| match by(a) {
        Some(by) => b.arithmetic_shr(by),
        None if signed(b).is_negative() => U256::MAX,
        None => U256::ZERO,
    } },
    Operation { name: "CLZ", byte: 0x1e, arity: 1, expected: |[a, ..]| U256::from(256 - a.bit_len()) },
];

/// Where operations change their mind, within so many limbs.
fn edges(limbs: usize) -> Vec<U256> {
    let bits = 64 * limbs;
    let two_to = |bit: usize| U256::ONE << bit;
    let most = U256::MAX >> (256 - bits);
    let mut edges: Vec<U256> = [
        0u64, 1, 2, 3, 7, 8, 15, 30, 31, 32, 63, 64, 65, 127, 128, 191, 192, 255, 256, 257,
    ]
    .map(U256::from)
    .to_vec();
    edges.extend([
        two_to(bits - 1),
        two_to(bits - 1) - U256::ONE,
        two_to(bits - 1) + U256::ONE,
        two_to(bits - 64),
        two_to(bits - 32),
        two_to(bits - 64).wrapping_sub(U256::ONE),
        most,
        most - U256::ONE,
        most - two_to(bits / 2),
        most / U256::from(3),
        U256::from_limbs([0, u64::MAX, 0, u64::MAX]) & most,
        U256::from_limbs([
            0xfedc_ba98_7654_3210,
            0x0f1e_2d3c_4b5a_6978,
            0x8796_a5b4_c3d2_e1f0,
            0x7654_3210_fedc_ba98,
        ]) & most,
    ]);
    edges.sort_unstable();
    edges.dedup();
    edges
}

/// Where an operand comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand {
    /// Calldata, cut down to so many limbs so that the compiler knows it.
    Limbs(usize),
    /// The same, cut down by a shift: the word's high limbs.
    High(usize),
    /// A literal.
    Known(U256),
}

/// How the result is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// As a word.
    Word,
    /// By a branch.
    Branch,
    /// By a branch that asks for the opposite.
    OppositeBranch,
}

const LOOP: u16 = 0;

/// Reads rows of `unknown` words of calldata each, and returns the results: those of all `forms` a row.
fn program(forms: &[(u8, Vec<Operand>, Use)], unknown: usize) -> Vec<u8> {
    let op = Item::Op;
    let small = |number: usize| Item::push(U256::from(number));
    // On the stack: where in memory the next result goes, and where in calldata the row begins.
    let mut items = vec![small(0), small(0), Item::Label(LOOP)];
    let mut label = LOOP;
    for (byte, operands, usage) in forms {
        let mut read = unknown;
        for (height, operand) in (0..).zip(operands.iter().rev()) {
            match operand {
                Operand::Known(word) => items.push(Item::push(*word)),
                Operand::Limbs(limbs) | Operand::High(limbs) => {
                    read -= 1;
                    items.extend([op(0x80 + height), small(32 * read), op(0x01), op(0x35)]);
                    if let Operand::High(_) = operand {
                        items.extend([small(256 - 64 * limbs), op(0x1c)]);
                    } else if *limbs < 4 {
                        items.extend([Item::push(U256::MAX >> (256 - 64 * limbs)), op(0x16)]);
                    }
                }
            }
        }
        items.push(op(*byte));
        if *usage != Use::Word {
            if *usage == Use::OppositeBranch {
                items.push(op(0x15));
            }
            let (yes, join) = (label + 1, label + 2);
            label += 2;
            let (no, one) = if *usage == Use::Branch {
                (0, 1)
            } else {
                (1, 0)
            };
            items.extend([
                Item::target(yes),
                op(0x57),
                small(no),
                Item::target(join),
                op(0x56),
            ]);
            items.extend([Item::Label(yes), small(one), Item::Label(join)]);
        }
        // DUP3 MSTORE; the place moves on.
        items.extend([op(0x82), op(0x52), op(0x90), small(32), op(0x01), op(0x90)]);
    }
    items.extend([
        small(32 * unknown),
        op(0x01),
        op(0x80),
        op(0x36),
        op(0x11),
        Item::target(LOOP),
        op(0x57),
    ]);
    items.extend([op(0x59), small(0), op(0xf3)]);
    assemble(&items)
}

struct Harness {
    runners: [(Level, Runner); 2],
    programs: u64,
    results: u64,
}

impl Harness {
    fn new() -> Self {
        let compiler = Compiler::new().expect("a known processor");
        Self {
            runners: [Level::Quick, Level::Full]
                .map(|level| (level, Runner::new(Tier::Native(level), compiler.clone()))),
            programs: 0,
            results: 0,
        }
    }

    /// Runs `rows` through `forms` and compares every result.
    fn check(&mut self, forms: &[(&Operation, Vec<Operand>, Use)], rows: &[Vec<U256>]) {
        let unknown = rows[0].len();
        let shapes: Vec<_> = forms
            .iter()
            .map(|(operation, operands, usage)| (operation.byte, operands.clone(), *usage))
            .collect();
        let mut case = Case::of_code(&program(&shapes, unknown), 14_000_000);
        // The calldata's price has to fit the limit of a transaction (EIP-7825).
        for rows in rows.chunks(2_000 / unknown) {
            case.calldata = rows
                .iter()
                .flatten()
                .flat_map(|word| word.to_be_bytes::<32>())
                .collect();
            case.gas = 16_000_000 - case.intrinsic_gas();
            for (level, runner) in &self.runners {
                let result = runner.observe(&case).result;
                let Ok(ExecutionResult::Success { output, .. }) = result else {
                    panic!("{level:?} {shapes:?}: {result:?}");
                };
                let mut found = output.data().chunks(32).map(U256::from_be_slice);
                for row in rows {
                    for (operation, operands, usage) in forms {
                        let mut unknown = row.iter();
                        let mut words = [U256::ZERO; 3];
                        for (word, operand) in words.iter_mut().zip(operands) {
                            *word = match operand {
                                Operand::Known(word) => *word,
                                Operand::Limbs(limbs) => {
                                    *unknown.next().expect("a word")
                                        & (U256::MAX >> (256 - 64 * limbs))
                                }
                                Operand::High(limbs) => {
                                    *unknown.next().expect("a word") >> (256 - 64 * limbs)
                                }
                            };
                        }
                        let mut expected = (operation.expected)(words);
                        if *usage != Use::Word {
                            expected = flag(!expected.is_zero());
                        }
                        assert_eq!(
                            found.next(),
                            Some(expected),
                            "{level:?}: {} of {words:x?} as {operands:?} used by {usage:?}",
                            operation.name
                        );
                        self.results += 1;
                    }
                }
                assert_eq!(found.next(), None);
            }
        }
        self.programs += 1;
    }

    /// Everything ran natively.
    fn finish(self, name: &str) {
        for (level, runner) in &self.runners {
            let statistics = runner.statistics();
            assert_eq!(statistics.refused + statistics.interpreted, 0, "{level:?}");
            assert_eq!(statistics.compiled, self.programs, "{level:?}");
        }
        println!(
            "{name}: {} results of {} programs at two levels",
            self.results, self.programs
        );
    }
}

/// All rows of operands of the given widths; of three operands a third each, so that there are not too many.
fn rows(limbs: &[usize]) -> Vec<Vec<U256>> {
    let thin = if limbs.len() > 2 { 3 } else { 1 };
    let mut rows = vec![Vec::new()];
    for limbs in limbs {
        rows = rows
            .iter()
            .flat_map(|row| {
                let edges = edges(*limbs).into_iter().skip(row.len()).step_by(thin);
                edges.map(move |edge| [row.as_slice(), &[edge]].concat())
            })
            .collect();
    }
    rows
}

fn usages(operation: &Operation) -> &'static [Use] {
    // Comparisons, and operations whose result asked for zero is a shorter question.
    if matches!(operation.byte, 0x03 | 0x10..=0x18) {
        &[Use::Word, Use::Branch, Use::OppositeBranch]
    } else {
        &[Use::Word]
    }
}

#[test]
fn operations_on_words_of_every_pair_of_widths_agree_with_wide_arithmetic() {
    let mut harness = Harness::new();
    for operation in OPERATIONS.iter().filter(|operation| operation.arity <= 2) {
        for a in 1..=4 {
            for b in 1..=if operation.arity == 2 { 4 } else { 1 } {
                let limbs = &[a, b][..operation.arity];
                let operands: Vec<_> = limbs.iter().map(|limbs| Operand::Limbs(*limbs)).collect();
                let forms: Vec<_> = usages(operation)
                    .iter()
                    .map(|usage| (operation, operands.clone(), *usage))
                    .collect();
                harness.check(&forms, &rows(limbs));
            }
        }
    }
    harness.finish("pairs of widths");
}

#[test]
fn operations_on_three_words_of_every_width_agree_with_wide_arithmetic() {
    let mut harness = Harness::new();
    for operation in OPERATIONS.iter().filter(|operation| operation.arity == 3) {
        for shape in 0..64usize {
            let limbs = [shape % 4 + 1, shape / 4 % 4 + 1, shape / 16 + 1];
            let operands = limbs.map(Operand::Limbs).to_vec();
            harness.check(&[(operation, operands, Use::Word)], &rows(&limbs));
        }
    }
    harness.finish("triples of widths");
}

#[test]
fn operations_on_words_narrowed_by_a_shift_agree_with_wide_arithmetic() {
    let mut harness = Harness::new();
    for operation in OPERATIONS.iter().filter(|operation| operation.arity == 2) {
        for (a, b) in [(1, 1), (1, 2), (2, 1), (2, 2), (3, 3)] {
            let operands = vec![Operand::High(a), Operand::High(b)];
            let shift = |row: Vec<U256>| vec![row[0] << (256 - 64 * a), row[1] << (256 - 64 * b)];
            let rows: Vec<_> = rows(&[a, b]).into_iter().map(shift).collect();
            harness.check(&[(operation, operands, Use::Word)], &rows);
        }
    }
    harness.finish("narrowed by a shift");
}

/// Literals at which a compiler takes another way.
fn literals() -> Vec<U256> {
    let mut words: Vec<U256> = [
        0u64,
        1,
        2,
        3,
        7,
        8,
        10,
        31,
        32,
        63,
        64,
        65,
        128,
        191,
        255,
        256,
        u64::MAX,
    ]
    .map(U256::from)
    .to_vec();
    for bit in [64usize, 127, 128, 192, 255] {
        words.extend([U256::ONE << bit, (U256::ONE << bit) - U256::ONE]);
    }
    words.extend([
        U256::MAX,
        U256::MAX - U256::from(1),
        U256::MAX << 64,
        U256::MAX << 5,
    ]);
    words
}

#[test]
fn operations_with_a_literal_on_either_side_agree_with_wide_arithmetic() {
    let mut harness = Harness::new();
    for operation in OPERATIONS.iter().filter(|operation| operation.arity == 2) {
        for limbs in 1..=4 {
            for literals in literals().chunks(4) {
                let forms: Vec<_> = literals
                    .iter()
                    .flat_map(|literal| {
                        let (known, limbs) = (Operand::Known(*literal), Operand::Limbs(limbs));
                        let usage = usages(operation).last().copied().unwrap_or(Use::Word);
                        [
                            (operation, vec![known, limbs], Use::Word),
                            (operation, vec![limbs, known], usage),
                        ]
                    })
                    .collect();
                harness.check(&forms, &rows(&[limbs]));
            }
        }
    }
    harness.finish("one literal");
}

#[test]
fn three_operands_with_literals_agree_with_wide_arithmetic() {
    let mut harness = Harness::new();
    for operation in OPERATIONS.iter().filter(|operation| operation.arity == 3) {
        for literals in literals().chunks(3) {
            let forms: Vec<_> = literals
                .iter()
                .flat_map(|literal| {
                    let (known, wide) = (Operand::Known(*literal), Operand::Limbs(4));
                    let narrow = Operand::Limbs(2);
                    [
                        (operation, vec![wide, narrow, known], Use::Word),
                        (operation, vec![known, wide, narrow], Use::Word),
                        (operation, vec![narrow, known, wide], Use::Word),
                    ]
                })
                .collect();
            harness.check(&forms, &rows(&[4, 4]));
        }
    }
    harness.finish("three operands with a literal");
}

/// Operations on literals alone are done by the compiler.
#[test]
fn operations_on_literals_agree_with_wide_arithmetic() {
    let mut harness = Harness::new();
    for operation in OPERATIONS {
        let literals = literals();
        let mut forms = Vec::new();
        for (index, a) in literals.iter().enumerate() {
            for b in literals.iter().skip(index % 3).step_by(3) {
                let c = literals[(index * 7) % literals.len()];
                let known: Vec<_> = [*a, *b, c].map(Operand::Known)[..operation.arity].to_vec();
                forms.push((operation, known, Use::Word));
            }
        }
        // A row whose word nobody reads: the loop turns once.
        for forms in forms.chunks(40) {
            harness.check(forms, &[vec![U256::ZERO]]);
        }
    }
    harness.finish("literals alone");
}
