//! Division of 256-bit words, by the number of limbs that the operands have.
//!
//! Most divisors of contracts fit one limb (a scale, a fee, a denominator) or two. One step divides two limbs by one: an
//! instruction on x86-64, the compiler's library elsewhere.

use alloy_primitives::U256;

/// Quotient and remainder of `high · 2^64 + low` by `divisor`; `high < divisor`.
#[inline(always)]
fn step(high: u64, low: u64, divisor: u64) -> (u64, u64) {
    debug_assert!(high < divisor);
    #[cfg(target_arch = "x86_64")]
    {
        let (quotient, rest);
        // SAFETY: the quotient is below 2^64 because `high < divisor`, so the instruction does not trap; it changes nothing
        // but the two registers and the flags.
        unsafe {
            core::arch::asm!(
                "div {divisor}",
                divisor = in(reg) divisor,
                inout("rax") low => quotient,
                inout("rdx") high => rest,
                options(pure, nomem, nostack),
            );
        }
        (quotient, rest)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let dividend = u128::from(high) << 64 | u128::from(low);
        let divisor = u128::from(divisor);
        ((dividend / divisor) as u64, (dividend % divisor) as u64)
    }
}

/// Limbs up to the highest that is not zero.
#[inline(always)]
fn limbs(word: &[u64; 4]) -> usize {
    match word {
        [_, 0, 0, 0] => 1,
        [_, _, 0, 0] => 2,
        [_, _, _, 0] => 3,
        _ => 4,
    }
}

/// Quotient and remainder; both zero for a divisor of zero, as DIV and MOD have it.
#[inline]
pub(crate) fn div_rem(dividend: U256, divisor: U256) -> (U256, U256) {
    let (a, b) = (*dividend.as_limbs(), *divisor.as_limbs());
    match (limbs(&a), limbs(&b)) {
        (_, 1) if b[0] == 0 => (U256::ZERO, U256::ZERO),
        (1, 1) => (U256::from(a[0] / b[0]), U256::from(a[0] % b[0])),
        (length, 1) => by_one(a, length, b[0]),
        (m, n) if m < n => (U256::ZERO, dividend),
        (2, 2) => two_by_two(a, b),
        (m, n) => long(a, m, b, n),
    }
}

#[inline]
fn by_one(mut a: [u64; 4], length: usize, divisor: u64) -> (U256, U256) {
    let mut rest = 0;
    for limb in a[..length].iter_mut().rev() {
        (*limb, rest) = step(rest, *limb, divisor);
    }
    (U256::from_limbs(a), U256::from(rest))
}

/// Both have two limbs, so the quotient has one. Estimated from the divisor's upper 64 bits it is at most one too small.
#[inline]
fn two_by_two(a: [u64; 4], b: [u64; 4]) -> (U256, U256) {
    let word = |limbs: [u64; 4]| u128::from(limbs[1]) << 64 | u128::from(limbs[0]);
    let (a, b) = (word(a), word(b));
    let shift = b.leading_zeros();
    let top = ((b << shift) >> 64) as u64;
    let half = a >> 1;
    let (estimate, _) = step((half >> 64) as u64, half as u64, top);
    let mut quotient = (estimate >> (63 - shift)).saturating_sub(1);
    let mut rest = a - u128::from(quotient) * b;
    if rest >= b {
        quotient += 1;
        rest -= b;
    }
    (U256::from(quotient), U256::from(rest))
}

/// Knuth's algorithm D (The Art of Computer Programming, 4.3.1): `m` limbs by `n`, `m >= n >= 2`.
fn long(a: [u64; 4], m: usize, b: [u64; 4], n: usize) -> (U256, U256) {
    let shift = b[n - 1].leading_zeros();
    let shifted =
        |high: u64, low: u64| ((u128::from(high) << 64 | u128::from(low)) << shift >> 64) as u64;
    // The divisor's highest bit is set; the dividend has a limb more.
    let mut v = [0u64; 4];
    let mut u = [0u64; 5];
    for index in (0..4).rev() {
        v[index] = shifted(b[index], if index > 0 { b[index - 1] } else { 0 });
        u[index] = shifted(a[index], if index > 0 { a[index - 1] } else { 0 });
    }
    u[m] = shifted(if m < 4 { a[m] } else { 0 }, a[m - 1]);
    let mut quotient = [0u64; 4];
    for j in (0..=m - n).rev() {
        let (high, low, next) = (u[j + n], u[j + n - 1], u[j + n - 2]);
        let (mut digit, mut rest) = if high >= v[n - 1] {
            (u64::MAX, u128::from(low) + u128::from(v[n - 1]))
        } else {
            let (digit, rest) = step(high, low, v[n - 1]);
            (digit, u128::from(rest))
        };
        while rest >> 64 == 0
            && u128::from(digit) * u128::from(v[n - 2]) > (rest << 64 | u128::from(next))
        {
            digit -= 1;
            rest += u128::from(v[n - 1]);
        }
        let (mut carry, mut borrow) = (0u64, false);
        for i in 0..n {
            let product = u128::from(digit) * u128::from(v[i]) + u128::from(carry);
            carry = (product >> 64) as u64;
            (u[i + j], borrow) = u[i + j].borrowing_sub(product as u64, borrow);
        }
        (u[j + n], borrow) = u[j + n].borrowing_sub(carry, borrow);
        if borrow {
            digit -= 1;
            let mut carry = false;
            for i in 0..n {
                (u[i + j], carry) = u[i + j].carrying_add(v[i], carry);
            }
            u[j + n] = u[j + n].wrapping_add(u64::from(carry));
        }
        quotient[j] = digit;
    }
    let mut rest = [0u64; 4];
    for index in 0..n {
        let high = u128::from(u[index + 1]) << 64 | u128::from(u[index]);
        rest[index] = (high >> shift) as u64;
    }
    (U256::from_limbs(quotient), U256::from_limbs(rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(a: U256, b: U256) {
        let expected = if b.is_zero() {
            (U256::ZERO, U256::ZERO)
        } else {
            a.div_rem(b)
        };
        assert_eq!(div_rem(a, b), expected, "{a:#x} by {b:#x}");
    }

    /// Limbs that make estimates wrong: none, one, all bits, the highest, and their neighbours.
    const LIMBS: [u64; 8] = [
        0,
        1,
        2,
        u64::MAX,
        u64::MAX - 1,
        1 << 63,
        (1 << 63) - 1,
        (1 << 63) + 1,
    ];

    #[test]
    fn every_pair_of_edge_limbs_divides_as_ruint_does() {
        let words = |limbs: &'static [u64]| {
            limbs.iter().flat_map(move |a| {
                limbs.iter().flat_map(move |b| {
                    limbs
                        .iter()
                        .flat_map(move |c| limbs.iter().map(move |d| [*a, *b, *c, *d]))
                })
            })
        };
        let mut checked = 0u64;
        for a in words(&LIMBS) {
            for b in words(&[0, 1, u64::MAX, 1 << 63, (1 << 63) - 1]) {
                check(U256::from_limbs(a), U256::from_limbs(b));
                checked += 1;
            }
        }
        assert_eq!(checked, 8u64.pow(4) * 5u64.pow(4));
    }

    fn word() -> impl Strategy<Value = U256> {
        (any::<[u64; 4]>(), 0usize..256, 0usize..3).prop_map(|(limbs, shift, kind)| {
            let word = U256::from_limbs(limbs) >> shift;
            match kind {
                0 => word,
                1 => (U256::from(1) << shift).wrapping_sub(U256::from(limbs[0] % 3)),
                _ => word | (U256::MAX << (255 - shift)),
            }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn words_of_every_pair_of_widths_divide_as_ruint_does(a in word(), b in word()) {
            check(a, b);
            check(a.wrapping_mul(b), b);
            check(a.wrapping_mul(b).wrapping_sub(U256::from(1)), b);
        }
    }
}
