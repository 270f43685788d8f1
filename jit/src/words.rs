//! 256-bit words as Cranelift values.
//!
//! A word is four limbs, least significant first, each known or a value. What is known costs nothing until it is used,
//! and operations on known limbs are done here: a mask of an address keeps two limbs, clears one and drops one. Wide
//! additions, subtractions and comparisons are two 128-bit ones, for which Cranelift emits add with carry;
//! multiplications are 64-bit ones widened to 128.

use alloy_primitives::U256;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder as _, MemFlagsData, Value, types};
use cranelift_frontend::FunctionBuilder;

use crate::abi::Pure;

/// 64 bits of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limb {
    /// Known.
    Known(u64),
    /// Computed.
    Value(Value),
}

use Limb::Known;

const ZERO: Limb = Known(0);

/// A word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(pub [Limb; 4]);

impl Word {
    /// A known word.
    pub fn known(word: U256) -> Self {
        Self(word.as_limbs().map(Known))
    }

    /// A word of one limb.
    pub fn small(limb: Value) -> Self {
        Self([Limb::Value(limb), ZERO, ZERO, ZERO])
    }

    /// The word without the limbs that `bits` do not need.
    pub fn narrow(mut self, bits: usize) -> Self {
        for limb in &mut self.0[limbs_for(bits)..] {
            *limb = ZERO;
        }
        self
    }

    /// How many limbs are not known to be zero, at least one.
    pub fn limbs(self) -> usize {
        self.0.iter().rposition(|limb| *limb != ZERO).unwrap_or(0) + 1
    }

    fn as_known(self) -> Option<U256> {
        let mut limbs = [0; 4];
        for (to, limb) in limbs.iter_mut().zip(self.0) {
            let Known(limb) = limb else { return None };
            *to = limb;
        }
        Some(U256::from_limbs(limbs))
    }
}

/// How many limbs hold this many bits; at least one.
pub fn limbs_for(bits: usize) -> usize {
    bits.div_ceil(64).clamp(1, 4)
}

/// Emits operations on words.
pub struct Words<'b, 'f> {
    /// Where to.
    pub builder: &'b mut FunctionBuilder<'f>,
}

impl Words<'_, '_> {
    /// The limb in a register.
    pub fn value(&mut self, limb: Limb) -> Value {
        match limb {
            Known(limb) => self.builder.ins().iconst(types::I64, limb as i64),
            Limb::Value(value) => value,
        }
    }

    /// The lowest limb in a register.
    pub fn low(&mut self, word: Word) -> Value {
        self.value(word.0[0])
    }

    /// Reads the limbs that `bits` need, from least to most significant.
    pub fn load(&mut self, address: Value, offset: i32, bits: usize) -> Word {
        let mut limbs = [ZERO; 4];
        for (index, limb) in limbs.iter_mut().take(limbs_for(bits)).enumerate() {
            let flags = MemFlagsData::trusted();
            let at = offset + 8 * index as i32;
            *limb = Limb::Value(self.builder.ins().load(types::I64, flags, address, at));
        }
        Word(limbs)
    }

    /// Writes a word with limbs from least to most significant.
    pub fn store(&mut self, word: Word, address: Value, offset: i32) {
        for (index, limb) in word.0.into_iter().enumerate() {
            let limb = self.value(limb);
            let at = offset + 8 * index as i32;
            self.builder
                .ins()
                .store(MemFlagsData::trusted(), limb, address, at);
        }
    }

    /// Copies 32 bytes between places on the stack, by vector registers.
    pub fn copy(&mut self, address: Value, from: i32, to: i32) {
        for half in [0, 16] {
            let flags = MemFlagsData::trusted();
            let part = self
                .builder
                .ins()
                .load(types::I8X16, flags, address, from + half);
            self.builder.ins().store(flags, part, address, to + half);
        }
    }

    /// Reads 32 big-endian bytes.
    pub fn load_bytes(&mut self, address: Value, at: i32) -> Word {
        let flags = unaligned();
        Word([24, 16, 8, 0].map(|offset| {
            let limb = self
                .builder
                .ins()
                .load(types::I64, flags, address, at + offset);
            Limb::Value(self.builder.ins().bswap(limb))
        }))
    }

    /// Writes 32 big-endian bytes.
    pub fn store_bytes(&mut self, word: Word, address: Value, at: i32) {
        for (limb, offset) in word.0.into_iter().zip([24, 16, 8, 0]) {
            let limb = match limb {
                Known(limb) => self.value(Known(limb.swap_bytes())),
                Limb::Value(value) => self.builder.ins().bswap(value),
            };
            self.builder
                .ins()
                .store(unaligned(), limb, address, at + offset);
        }
    }

    fn half(&mut self, word: Word, high: bool) -> Value {
        let at = 2 * usize::from(high);
        let (low, high) = (self.value(word.0[at]), self.value(word.0[at + 1]));
        self.builder.ins().iconcat(low, high)
    }

    fn split(&mut self, half: Value) -> [Limb; 2] {
        let (low, high) = self.builder.ins().isplit(half);
        [Limb::Value(low), Limb::Value(high)]
    }

    fn join(&mut self, low: Value, high: Value) -> Word {
        let ([a, b], [c, d]) = (self.split(low), self.split(high));
        Word([a, b, c, d])
    }

    /// a + b, of which `bits` are wanted.
    pub fn add(&mut self, a: Word, b: Word, bits: usize) -> Word {
        if bits <= 64 {
            let (x, y) = (self.low(a), self.low(b));
            return Word::small(self.builder.ins().iadd(x, y));
        }
        let (x, y) = (self.half(a, false), self.half(b, false));
        if bits <= 128 {
            let sum = self.builder.ins().iadd(x, y);
            let [low, high] = self.split(sum);
            return Word([low, high, ZERO, ZERO]);
        }
        let (low, carry) = self.builder.ins().uadd_overflow(x, y);
        let carry = self.builder.ins().uextend(types::I128, carry);
        let (x, y) = (self.half(a, true), self.half(b, true));
        let high = self.builder.ins().iadd(x, y);
        let high = self.builder.ins().iadd(high, carry);
        self.join(low, high)
    }

    /// a - b.
    pub fn sub(&mut self, a: Word, b: Word) -> Word {
        let (x, y) = (self.half(a, false), self.half(b, false));
        let low = self.builder.ins().isub(x, y);
        let borrow = self.builder.ins().icmp(IntCC::UnsignedLessThan, x, y);
        let borrow = self.builder.ins().uextend(types::I128, borrow);
        let (x, y) = (self.half(a, true), self.half(b, true));
        let high = self.builder.ins().isub(x, y);
        let high = self.builder.ins().isub(high, borrow);
        self.join(low, high)
    }

    /// a - b of one limb each, and a flag that is set where b is larger.
    pub fn sub_small(&mut self, a: Word, b: Word) -> (Word, Value) {
        let (x, y) = (self.low(a), self.low(b));
        let borrow = self.builder.ins().icmp(IntCC::UnsignedLessThan, x, y);
        (Word::small(self.builder.ins().isub(x, y)), borrow)
    }

    /// a + b of one limb each, and a flag that is set where that needs more than one.
    pub fn add_small(&mut self, a: Word, b: Word) -> (Word, Value) {
        let (x, y) = (self.low(a), self.low(b));
        let sum = self.builder.ins().iadd(x, y);
        let carry = self.builder.ins().icmp(IntCC::UnsignedLessThan, sum, x);
        (Word::small(sum), carry)
    }

    /// All bits of a limb if the flag is set, none otherwise.
    pub fn all_ones_if(&mut self, flag: Value) -> Limb {
        let flag = self.builder.ins().uextend(types::I64, flag);
        Limb::Value(self.builder.ins().ineg(flag))
    }

    /// a * b, of which `bits` are wanted.
    pub fn mul(&mut self, a: Word, b: Word, bits: usize) -> Word {
        let wanted = limbs_for(bits);
        let mut result = [ZERO; 4];
        for (i, x) in a.0.into_iter().enumerate() {
            if x == ZERO {
                continue;
            }
            let mut carry = ZERO;
            let mut factors = b.0.into_iter().take(b.limbs());
            for (at, place) in result.iter_mut().enumerate().take(wanted).skip(i) {
                let Some(y) = factors.next() else {
                    // Behind the last limb of b no row before has written.
                    *place = carry;
                    break;
                };
                if at + 1 == wanted {
                    // The top limb: what is carried out of it is not wanted.
                    let product = self.mul_limb(x, y);
                    let sum = self.add_limb(product, *place);
                    *place = self.add_limb(sum, carry);
                    break;
                }
                let parts = [*place, carry];
                if y == ZERO && parts.contains(&ZERO) {
                    *place = self.add_limb(parts[0], parts[1]);
                    carry = ZERO;
                    continue;
                }
                let (wide_x, wide_y) = (self.wide(x), self.wide(y));
                let mut sum = self.builder.ins().imul(wide_x, wide_y);
                for part in parts {
                    if part != ZERO {
                        let part = self.wide(part);
                        sum = self.builder.ins().iadd(sum, part);
                    }
                }
                [*place, carry] = self.split(sum);
            }
        }
        Word(result)
    }

    fn wide(&mut self, limb: Limb) -> Value {
        let limb = self.value(limb);
        self.builder.ins().uextend(types::I128, limb)
    }

    fn mul_limb(&mut self, x: Limb, y: Limb) -> Limb {
        if x == ZERO || y == ZERO {
            return ZERO;
        }
        let (x, y) = (self.value(x), self.value(y));
        Limb::Value(self.builder.ins().imul(x, y))
    }

    fn add_limb(&mut self, x: Limb, y: Limb) -> Limb {
        match (x, y) {
            (ZERO, other) | (other, ZERO) => other,
            (x, y) => {
                let (x, y) = (self.value(x), self.value(y));
                Limb::Value(self.builder.ins().iadd(x, y))
            }
        }
    }

    fn each(
        &mut self,
        a: Word,
        b: Word,
        mut operation: impl FnMut(&mut Self, Limb, Limb) -> Limb,
    ) -> Word {
        let mut limbs = [ZERO; 4];
        for (to, (x, y)) in limbs.iter_mut().zip(a.0.into_iter().zip(b.0)) {
            *to = operation(self, x, y);
        }
        Word(limbs)
    }

    /// a & b
    pub fn and(&mut self, a: Word, b: Word) -> Word {
        self.each(a, b, |words, x, y| match (x, y) {
            (Known(x), Known(y)) => Known(x & y),
            (Known(0), _) | (_, Known(0)) => ZERO,
            (Known(u64::MAX), other) | (other, Known(u64::MAX)) => other,
            (x, y) => {
                let (x, y) = (words.value(x), words.value(y));
                Limb::Value(words.builder.ins().band(x, y))
            }
        })
    }

    /// a | b
    pub fn or(&mut self, a: Word, b: Word) -> Word {
        self.each(a, b, |words, x, y| match (x, y) {
            (Known(x), Known(y)) => Known(x | y),
            (Known(0), other) | (other, Known(0)) => other,
            (Known(u64::MAX), _) | (_, Known(u64::MAX)) => Known(u64::MAX),
            (x, y) => {
                let (x, y) = (words.value(x), words.value(y));
                Limb::Value(words.builder.ins().bor(x, y))
            }
        })
    }

    /// a ^ b
    pub fn xor(&mut self, a: Word, b: Word) -> Word {
        self.each(a, b, |words, x, y| match (x, y) {
            (Known(x), Known(y)) => Known(x ^ y),
            (Known(0), other) | (other, Known(0)) => other,
            (x, y) => {
                let (x, y) = (words.value(x), words.value(y));
                Limb::Value(words.builder.ins().bxor(x, y))
            }
        })
    }

    /// !a
    pub fn not(&mut self, a: Word) -> Word {
        Word(a.0.map(|limb| match limb {
            Known(limb) => Known(!limb),
            Limb::Value(value) => Limb::Value(self.builder.ins().bnot(value)),
        }))
    }

    /// Some limbs in one value, zero if all of them are; none if they are known to be.
    fn union(&mut self, limbs: &[Limb]) -> Option<Value> {
        let mut all = None;
        let mut last = ZERO;
        for limb in limbs.iter().filter(|limb| **limb != ZERO) {
            if core::mem::replace(&mut last, *limb) == *limb {
                continue;
            }
            let limb = self.value(*limb);
            all = Some(match all {
                Some(before) => self.builder.ins().bor(before, limb),
                None => limb,
            });
        }
        all
    }

    /// Not zero if the word is not.
    pub fn any(&mut self, a: Word) -> Value {
        match self.union(&a.0) {
            Some(all) => all,
            None => self.value(ZERO),
        }
    }

    /// Not zero if a limb above the lowest is not; none if they are known to be zero.
    pub fn above(&mut self, a: Word) -> Option<Value> {
        self.union(&a.0[1..])
    }

    /// Not zero if the word is no signed number of 64 bits; none if it is known to be one.
    pub fn above_sign(&mut self, a: Word) -> Option<Value> {
        if let Known(low) = a.0[0] {
            let fill = ((low as i64) >> 63) as u64;
            if a.0[1..].iter().all(|limb| *limb == Known(fill)) {
                return None;
            }
        }
        let low = self.low(a);
        let fill = Limb::Value(self.builder.ins().sshr_imm_u(low, 63));
        let sign = Word([ZERO, fill, fill, fill]);
        let above = Word([ZERO, a.0[1], a.0[2], a.0[3]]);
        let difference = self.xor(sign, above);
        self.above(difference)
    }

    /// An operation on numbers of 64 bits: signed ones for a product and a signed quotient. The divisor is not zero, and
    /// a signed quotient fits.
    pub fn small(&mut self, pure: Pure, a: Word, b: Word) -> Word {
        let (x, y) = (self.low(a), self.low(b));
        let ins = self.builder.ins();
        let (low, high) = match pure {
            Pure::Mul => {
                let low = ins.imul(x, y);
                (low, Some(self.builder.ins().smulhi(x, y)))
            }
            Pure::SDiv => (ins.sdiv(x, y), None),
            Pure::Mod => return Word::small(ins.urem(x, y)),
            _ => return Word::small(ins.udiv(x, y)),
        };
        let fill = Limb::Value(self.builder.ins().sshr_imm_u(high.unwrap_or(low), 63));
        let high = high.map_or(fill, Limb::Value);
        Word([Limb::Value(low), high, fill, fill])
    }

    /// The lowest limb, or the largest number where the word needs more than one.
    pub fn saturated(&mut self, a: Word) -> Value {
        let low = self.low(a);
        match self.above(a) {
            Some(above) => {
                let most = self.value(Known(u64::MAX));
                self.builder.ins().select(above, most, low)
            }
            None => low,
        }
    }

    /// 1 or 0 as a word.
    pub fn flag(&mut self, flag: Value) -> Word {
        Word::small(self.builder.ins().uextend(types::I64, flag))
    }

    /// a == 0
    pub fn is_zero(&mut self, a: Word) -> Value {
        let any = self.any(a);
        self.builder.ins().icmp_imm_s(IntCC::Equal, any, 0)
    }

    /// a == b
    pub fn equal(&mut self, a: Word, b: Word) -> Value {
        if a.limbs().max(b.limbs()) == 1 {
            let (x, y) = (self.low(a), self.low(b));
            return self.builder.ins().icmp(IntCC::Equal, x, y);
        }
        let difference = self.xor(a, b);
        self.is_zero(difference)
    }

    /// a < b
    pub fn less(&mut self, a: Word, b: Word, signed: bool) -> Value {
        let wide = a.limbs().max(b.limbs());
        // A word with fewer than four limbs is not negative.
        if wide == 1 {
            let (x, y) = (self.low(a), self.low(b));
            return self.builder.ins().icmp(IntCC::UnsignedLessThan, x, y);
        }
        let (a_low, b_low) = (self.half(a, false), self.half(b, false));
        let low = self
            .builder
            .ins()
            .icmp(IntCC::UnsignedLessThan, a_low, b_low);
        if wide == 2 {
            return low;
        }
        let (a_high, b_high) = (self.half(a, true), self.half(b, true));
        let compare = if signed {
            IntCC::SignedLessThan
        } else {
            IntCC::UnsignedLessThan
        };
        let high = self.builder.ins().icmp(compare, a_high, b_high);
        let same = self.builder.ins().icmp(IntCC::Equal, a_high, b_high);
        let low = self.builder.ins().band(same, low);
        self.builder.ins().bor(high, low)
    }

    /// Bits `by..` of two limbs, the upper and the lower.
    fn funnel(&mut self, upper: Limb, lower: Limb, by: usize) -> Limb {
        if by == 0 {
            return lower;
        }
        let lower = match lower {
            Known(limb) => Known(limb >> by),
            Limb::Value(x) => Limb::Value(self.builder.ins().ushr_imm_u(x, by as i64)),
        };
        let upper = match upper {
            Known(limb) => Known(limb << (64 - by)),
            Limb::Value(x) => Limb::Value(self.builder.ins().ishl_imm_u(x, 64 - by as i64)),
        };
        match (upper, lower) {
            (ZERO, other) | (other, ZERO) => other,
            (Known(x), Known(y)) => Known(x | y),
            (x, y) => {
                let (x, y) = (self.value(x), self.value(y));
                Limb::Value(self.builder.ins().bor(x, y))
            }
        }
    }

    /// a << by, `by` below 256, of which `bits` are wanted.
    pub fn shift_left(&mut self, a: Word, by: usize, bits: usize) -> Word {
        let (limbs, rest) = (by / 64, by % 64);
        let mut result = [ZERO; 4];
        for (index, limb) in result
            .iter_mut()
            .enumerate()
            .take(limbs_for(bits))
            .skip(limbs)
        {
            let from = index - limbs;
            let lower = from.checked_sub(1).map_or(ZERO, |from| a.0[from]);
            *limb = match rest {
                0 => a.0[from],
                rest => self.funnel(a.0[from], lower, 64 - rest),
            };
        }
        Word(result)
    }

    /// a >> by, `by` below 256; copies of the sign come in from above if `signed`.
    pub fn shift_right(&mut self, a: Word, by: usize, signed: bool) -> Word {
        let (limbs, rest) = (by / 64, by % 64);
        let fill = match (signed, a.0[3]) {
            (false, _) => ZERO,
            (true, Known(top)) => Known(((top as i64) >> 63) as u64),
            (true, Limb::Value(top)) => Limb::Value(self.builder.ins().sshr_imm_u(top, 63)),
        };
        let mut result = [fill; 4];
        for (index, limb) in result.iter_mut().enumerate().take(4 - limbs) {
            let from = index + limbs;
            let upper = a.0.get(from + 1).copied().unwrap_or(fill);
            *limb = match (signed && from == 3, a.0[3]) {
                // The top limb by one arithmetic shift.
                (true, Limb::Value(top)) if rest > 0 => {
                    Limb::Value(self.builder.ins().sshr_imm_u(top, rest as i64))
                }
                _ => self.funnel(upper, a.0[from], rest),
            };
        }
        Word(result)
    }

    /// `a` with the sign of its byte `byte` (below 31, from the least significant) extended.
    pub fn sign_extend(&mut self, a: Word, byte: usize) -> Word {
        let (limb, rest) = (byte / 8, byte % 8);
        let top = self.value(a.0[limb]);
        let by = 56 - 8 * rest as i64;
        let top = match by {
            0 => top,
            by => {
                let up = self.builder.ins().ishl_imm_u(top, by);
                self.builder.ins().sshr_imm_u(up, by)
            }
        };
        let mut limbs = a.0;
        limbs[limb] = Limb::Value(top);
        if limb < 3 {
            let fill = Limb::Value(self.builder.ins().sshr_imm_u(top, 63));
            limbs[limb + 1..].fill(fill);
        }
        Word(limbs)
    }

    /// Byte `byte` (below 32) of a, 0 being the most significant.
    pub fn byte(&mut self, a: Word, byte: usize) -> Word {
        let shifted = self.shift_right(a, 8 * (31 - byte), false);
        self.and(shifted.narrow(64), Word::known(U256::from(0xff)))
    }

    /// a / b or a % b of one limb each; zero where b is.
    pub fn divide_small(&mut self, a: Word, b: Word, remainder: bool) -> Word {
        let (x, y) = (self.low(a), self.low(b));
        if let Some(known) = b.as_known()
            && !known.is_zero()
        {
            return Word::small(self.divide(x, y, remainder));
        }
        // The processor traps on zero: divide by one and drop the result.
        let zero = self.builder.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let one = self.value(Known(1));
        let divisor = self.builder.ins().select(zero, one, y);
        let result = self.divide(x, divisor, remainder);
        let nothing = self.value(ZERO);
        Word::small(self.builder.ins().select(zero, nothing, result))
    }

    fn divide(&mut self, x: Value, y: Value, remainder: bool) -> Value {
        if remainder {
            self.builder.ins().urem(x, y)
        } else {
            self.builder.ins().udiv(x, y)
        }
    }
}

/// EVM memory is not aligned.
fn unaligned() -> MemFlagsData {
    let mut flags = MemFlagsData::new();
    flags.set_notrap();
    flags
}
