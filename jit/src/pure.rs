//! Operations that native code leaves to Rust: no access to the frame, no gas, no failure.

use alloy_primitives::U256;

use crate::abi::{Compute, PURE, Pure};

/// Operands in order of popping; the result replaces the first.
pub type Words = [U256; 3];

/// All pure operations in the order of [`Pure`].
pub const FUNCTIONS: [Compute; PURE] = [
    native::<{ Pure::Div as usize }>,
    native::<{ Pure::SDiv as usize }>,
    native::<{ Pure::Mod as usize }>,
    native::<{ Pure::SMod as usize }>,
    native::<{ Pure::AddMod as usize }>,
    native::<{ Pure::MulMod as usize }>,
    native::<{ Pure::Shl as usize }>,
    native::<{ Pure::Shr as usize }>,
    native::<{ Pure::Sar as usize }>,
    native::<{ Pure::Byte as usize }>,
    native::<{ Pure::SignExtend as usize }>,
    native::<{ Pure::Clz as usize }>,
    native::<{ Pure::Mul as usize }>,
];

const OPERATIONS: [Pure; PURE] = [
    Pure::Div,
    Pure::SDiv,
    Pure::Mod,
    Pure::SMod,
    Pure::AddMod,
    Pure::MulMod,
    Pure::Shl,
    Pure::Shr,
    Pure::Sar,
    Pure::Byte,
    Pure::SignExtend,
    Pure::Clz,
    Pure::Mul,
];

/// Reads a word that native code may just have written, limb by limb as it did: a wider load would have to wait until the
/// stores have reached the cache.
///
/// # Safety
/// `word` can be read.
#[inline(always)]
pub unsafe fn read_word(word: *const U256) -> U256 {
    let limbs = word.cast::<u64>();
    // SAFETY: as the caller promises; a word is four limbs.
    U256::from_limbs([0, 1, 2, 3].map(|index| unsafe { limbs.add(index).read_volatile() }))
}

/// Operands lie on the stack, the first on top; the result replaces the lowest.
///
/// # Safety
/// `lowest` points to as many words as the operation takes, which nobody else uses during the call.
unsafe extern "C" fn native<const OPERATION: usize>(lowest: *mut U256) {
    let operation = OPERATIONS[OPERATION];
    let count = operation.operands();
    let mut words = [U256::ZERO; 3];
    for (index, word) in words.iter_mut().enumerate().take(count) {
        // SAFETY: as the caller promises.
        *word = unsafe { read_word(lowest.add(count - 1 - index)) };
    }
    evaluate(operation, &mut words);
    // SAFETY: as the caller promises.
    unsafe { lowest.write(words[0]) };
}

/// Computes one operation.
#[inline(always)]
pub fn evaluate(operation: Pure, words: &mut Words) {
    let [a, b, c] = *words;
    words[0] = match operation {
        Pure::Div => divide(a, b),
        Pure::Mod => remainder(a, b),
        Pure::SDiv => signed(a, b, true),
        Pure::SMod => signed(a, b, false),
        Pure::AddMod => a.add_mod(b, c),
        Pure::MulMod => mul_mod(a, b, c),
        Pure::Shl => small(a).map_or(U256::ZERO, |by| b << by),
        Pure::Shr => small(a).map_or(U256::ZERO, |by| b >> by),
        Pure::Sar => small(a).map_or_else(
            || if b.bit(255) { U256::MAX } else { U256::ZERO },
            |by| b.arithmetic_shr(by),
        ),
        Pure::Byte => U256::from(if a < U256::from(32) {
            b.byte(31 - a.to::<usize>())
        } else {
            0
        }),
        Pure::SignExtend => sign_extend(a, b),
        Pure::Clz => U256::from(a.leading_zeros()),
        Pure::Mul => a.wrapping_mul(b),
    };
}

fn small(by: U256) -> Option<usize> {
    (by < U256::from(256)).then(|| by.to())
}

/// Both within 128 bits are divided by the processor and its library.
fn divide(a: U256, b: U256) -> U256 {
    match (u128::try_from(a), u128::try_from(b)) {
        (Ok(a), Ok(b)) => U256::from(a.checked_div(b).unwrap_or(0)),
        _ => a.checked_div(b).unwrap_or_default(),
    }
}

fn remainder(a: U256, b: U256) -> U256 {
    match (u128::try_from(a), u128::try_from(b)) {
        (Ok(a), Ok(b)) => U256::from(a.checked_rem(b).unwrap_or(0)),
        _ => a.checked_rem(b).unwrap_or_default(),
    }
}

/// The word as a signed number of 64 bits, if it is one.
fn small_signed(word: U256) -> Option<i64> {
    let [low, rest @ ..] = *word.as_limbs();
    let above = ((low as i64) >> 63) as u64;
    (rest == [above; 3]).then_some(low as i64)
}

#[inline(always)]
fn signed(a: U256, b: U256, quotient: bool) -> U256 {
    // Fixed-point numbers of 64 bits are what most signed divisions are about; one instruction of the processor.
    if let (Some(x), Some(y)) = (small_signed(a), small_signed(b)) {
        let result = if quotient {
            x.checked_div(y)
        } else {
            x.checked_rem(y)
        };
        if let Some(result) = result {
            let above = (result >> 63) as u64;
            return U256::from_limbs([result as u64, above, above, above]);
        }
    }
    signed_wide(a, b, quotient)
}

fn signed_wide(a: U256, b: U256, quotient: bool) -> U256 {
    let (negative_a, negative_b) = (a.bit(255), b.bit(255));
    let magnitude = |word: U256, negative: bool| if negative { word.wrapping_neg() } else { word };
    let (x, y) = (magnitude(a, negative_a), magnitude(b, negative_b));
    if quotient {
        magnitude(divide(x, y), negative_a != negative_b)
    } else {
        magnitude(remainder(x, y), negative_a)
    }
}

fn mul_mod(a: U256, b: U256, c: U256) -> U256 {
    if c.is_zero() {
        U256::ZERO
    } else {
        a.mul_mod(b, c)
    }
}

fn sign_extend(a: U256, b: U256) -> U256 {
    if a >= U256::from(31) {
        return b;
    }
    let bit = 8 * a.to::<usize>() + 7;
    let mask = (U256::from(1) << bit) - U256::from(1);
    if b.bit(bit) { b | !mask } else { b & mask }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{I256, U512};
    use proptest::prelude::*;

    fn word() -> impl Strategy<Value = U256> {
        let edge = (0usize..256, any::<bool>(), any::<bool>()).prop_map(|(bit, minus, negate)| {
            let word = (U256::from(1) << bit).wrapping_sub(U256::from(minus));
            if negate { word.wrapping_neg() } else { word }
        });
        prop_oneof![
            any::<[u64; 4]>().prop_map(U256::from_limbs),
            edge,
            (0u64..300).prop_map(U256::from)
        ]
    }

    proptest! {
        #[test]
        fn signed_and_modular_operations_agree_with_wider_and_signed_integers(a in word(), b in word(), c in word()) {
            let run = |operation, words: [U256; 3]| { let mut words = words; evaluate(operation, &mut words); words[0] };
            let (x, y) = (I256::from_raw(a), I256::from_raw(b));
            let quotient = if b.is_zero() { I256::ZERO } else { x.wrapping_div(y) };
            let rest = if b.is_zero() { I256::ZERO } else { x.wrapping_rem(y) };
            prop_assert_eq!(run(Pure::SDiv, [a, b, c]), quotient.into_raw());
            prop_assert_eq!(run(Pure::SMod, [a, b, c]), rest.into_raw());
            let wide = |product: U512| if c.is_zero() { U256::ZERO } else { (product % U512::from(c)).to() };
            prop_assert_eq!(run(Pure::AddMod, [a, b, c]), wide(U512::from(a) + U512::from(b)));
            prop_assert_eq!(run(Pure::MulMod, [a, b, c]), wide(U512::from(a) * U512::from(b)));
        }
    }
}
