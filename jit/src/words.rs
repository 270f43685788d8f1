//! 256-bit words as Cranelift values.
//!
//! A word is up to four limbs, least significant first; limbs that are not there are zero. Wide additions, subtractions
//! and comparisons are two 128-bit ones, for which Cranelift emits add with carry; multiplications are 64-bit ones
//! widened to 128.

use alloy_primitives::U256;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder as _, MemFlagsData, Value, types};
use cranelift_frontend::FunctionBuilder;

/// A word: its non-zero limbs.
#[derive(Debug, Clone, Copy)]
pub struct Word {
    limbs: [Option<Value>; 4],
}

/// Emits operations on words.
pub struct Words<'b, 'f> {
    /// Where to.
    pub builder: &'b mut FunctionBuilder<'f>,
}

/// How many limbs hold this many bits; at least one.
pub fn limbs_for(bits: u16) -> usize {
    usize::from(bits.div_ceil(64)).clamp(1, 4)
}

impl Words<'_, '_> {
    fn number(&mut self, limb: u64) -> Value {
        self.builder.ins().iconst(types::I64, limb as i64)
    }

    /// A known word.
    pub fn constant(&mut self, word: U256) -> Word {
        let mut limbs = [None; 4];
        let count = limbs_for(word.bit_len() as u16);
        for (to, limb) in limbs.iter_mut().zip(word.as_limbs()).take(count) {
            *to = Some(self.number(*limb));
        }
        Word { limbs }
    }

    /// A word of one limb.
    pub fn small(&self, limb: Value) -> Word {
        Word {
            limbs: [Some(limb), None, None, None],
        }
    }

    /// A limb, zero if it is not there.
    pub fn limb(&mut self, word: Word, index: usize) -> Value {
        match word.limbs[index] {
            Some(limb) => limb,
            None => self.number(0),
        }
    }

    /// Limbs there.
    pub fn count(word: Word) -> usize {
        word.limbs.iter().flatten().count()
    }

    /// Keeps the limbs that `bits` need.
    pub fn narrow(word: Word, bits: u16) -> Word {
        let mut limbs = word.limbs;
        for limb in &mut limbs[limbs_for(bits)..] {
            *limb = None;
        }
        Word { limbs }
    }

    /// Reads a word with limbs from least to most significant.
    pub fn load(&mut self, address: Value, offset: i32, bits: u16) -> Word {
        let mut limbs = [None; 4];
        for (index, limb) in limbs.iter_mut().take(limbs_for(bits)).enumerate() {
            let flags = MemFlagsData::trusted();
            *limb = Some(self.builder.ins().load(
                types::I64,
                flags,
                address,
                offset + 8 * index as i32,
            ));
        }
        Word { limbs }
    }

    /// Writes a word with limbs from least to most significant.
    pub fn store(&mut self, word: Word, address: Value, offset: i32) {
        for index in 0..4 {
            let limb = self.limb(word, index);
            self.builder.ins().store(
                MemFlagsData::trusted(),
                limb,
                address,
                offset + 8 * index as i32,
            );
        }
    }

    /// Reads 32 big-endian bytes.
    pub fn load_bytes(&mut self, address: Value) -> Word {
        let flags = unaligned();
        let limbs = [24, 16, 8, 0].map(|offset| {
            let limb = self.builder.ins().load(types::I64, flags, address, offset);
            Some(self.builder.ins().bswap(limb))
        });
        Word { limbs }
    }

    /// Writes 32 big-endian bytes.
    pub fn store_bytes(&mut self, word: Word, address: Value) {
        let flags = unaligned();
        for (index, offset) in [24, 16, 8, 0].into_iter().enumerate() {
            let limb = match word.limbs[index] {
                Some(limb) => self.builder.ins().bswap(limb),
                None => self.number(0),
            };
            self.builder.ins().store(flags, limb, address, offset);
        }
    }

    fn halves(&mut self, word: Word) -> (Value, Value) {
        let limbs = [0, 1, 2, 3].map(|index| self.limb(word, index));
        let low = self.builder.ins().iconcat(limbs[0], limbs[1]);
        let high = self.builder.ins().iconcat(limbs[2], limbs[3]);
        (low, high)
    }

    fn half(&mut self, word: Word) -> Value {
        let (low, high) = (self.limb(word, 0), self.limb(word, 1));
        self.builder.ins().iconcat(low, high)
    }

    fn join(&mut self, low: Value, high: Option<Value>) -> Word {
        let (a, b) = self.builder.ins().isplit(low);
        let (c, d) = match high {
            Some(high) => {
                let (c, d) = self.builder.ins().isplit(high);
                (Some(c), Some(d))
            }
            None => (None, None),
        };
        Word {
            limbs: [Some(a), Some(b), c, d],
        }
    }

    /// a + b, of which `bits` are wanted.
    pub fn add(&mut self, a: Word, b: Word, bits: u16) -> Word {
        if bits <= 64 {
            let (x, y) = (self.limb(a, 0), self.limb(b, 0));
            let sum = self.builder.ins().iadd(x, y);
            return self.small(sum);
        }
        if bits <= 128 {
            let (x, y) = (self.half(a), self.half(b));
            let sum = self.builder.ins().iadd(x, y);
            return self.join(sum, None);
        }
        let ((a_low, a_high), (b_low, b_high)) = (self.halves(a), self.halves(b));
        let (low, carry) = self.builder.ins().uadd_overflow(a_low, b_low);
        let carry = self.builder.ins().uextend(types::I128, carry);
        let high = self.builder.ins().iadd(a_high, b_high);
        let high = self.builder.ins().iadd(high, carry);
        self.join(low, Some(high))
    }

    /// a - b.
    pub fn sub(&mut self, a: Word, b: Word) -> Word {
        let ((a_low, a_high), (b_low, b_high)) = (self.halves(a), self.halves(b));
        let low = self.builder.ins().isub(a_low, b_low);
        let borrow = self
            .builder
            .ins()
            .icmp(IntCC::UnsignedLessThan, a_low, b_low);
        let borrow = self.builder.ins().uextend(types::I128, borrow);
        let high = self.builder.ins().isub(a_high, b_high);
        let high = self.builder.ins().isub(high, borrow);
        self.join(low, Some(high))
    }

    /// a * b, of which `bits` are wanted.
    pub fn mul(&mut self, a: Word, b: Word, bits: u16) -> Word {
        let wanted = limbs_for(bits);
        if wanted == 1 {
            let (x, y) = (self.limb(a, 0), self.limb(b, 0));
            let product = self.builder.ins().imul(x, y);
            return self.small(product);
        }
        let mut result: [Option<Value>; 4] = [None; 4];
        for i in 0..4 {
            let Some(x) = a.limbs[i] else { continue };
            let mut carry: Option<Value> = None;
            for j in 0..4 {
                let at = i + j;
                if at >= wanted {
                    break;
                }
                let Some(y) = b.limbs[j] else {
                    // Nothing left to multiply: the carry is what remains of the row.
                    if let Some(carry) = carry.take() {
                        result[at] = Some(match result[at] {
                            Some(before) => self.builder.ins().iadd(before, carry),
                            None => carry,
                        });
                    }
                    break;
                };
                if at + 1 == wanted {
                    // The top limb: what is carried out of it is not wanted.
                    let mut sum = self.builder.ins().imul(x, y);
                    for part in [result[at], carry].into_iter().flatten() {
                        sum = self.builder.ins().iadd(sum, part);
                    }
                    result[at] = Some(sum);
                    break;
                }
                let (wide_x, wide_y) = (
                    self.builder.ins().uextend(types::I128, x),
                    self.builder.ins().uextend(types::I128, y),
                );
                let mut sum = self.builder.ins().imul(wide_x, wide_y);
                for part in [result[at], carry].into_iter().flatten() {
                    let part = self.builder.ins().uextend(types::I128, part);
                    sum = self.builder.ins().iadd(sum, part);
                }
                let (low, high) = self.builder.ins().isplit(sum);
                result[at] = Some(low);
                carry = Some(high);
            }
        }
        for limb in result.iter_mut().take(wanted) {
            if limb.is_none() {
                *limb = Some(self.number(0));
            }
        }
        Word { limbs: result }
    }

    /// Limb by limb.
    pub fn and(&mut self, a: Word, b: Word) -> Word {
        let mut limbs = [None; 4];
        for (index, limb) in limbs.iter_mut().enumerate() {
            if let (Some(x), Some(y)) = (a.limbs[index], b.limbs[index]) {
                *limb = Some(self.builder.ins().band(x, y));
            }
        }
        Word { limbs }
    }

    /// Limb by limb.
    pub fn or(&mut self, a: Word, b: Word) -> Word {
        self.either(a, b, |builder, x, y| builder.ins().bor(x, y))
    }

    /// Limb by limb.
    pub fn xor(&mut self, a: Word, b: Word) -> Word {
        self.either(a, b, |builder, x, y| builder.ins().bxor(x, y))
    }

    fn either(
        &mut self,
        a: Word,
        b: Word,
        operation: fn(&mut FunctionBuilder<'_>, Value, Value) -> Value,
    ) -> Word {
        let mut limbs = [None; 4];
        for (index, limb) in limbs.iter_mut().enumerate() {
            *limb = match (a.limbs[index], b.limbs[index]) {
                (Some(x), Some(y)) => Some(operation(self.builder, x, y)),
                (one, other) => one.or(other),
            };
        }
        Word { limbs }
    }

    /// !a
    pub fn not(&mut self, a: Word) -> Word {
        let limbs = [0, 1, 2, 3].map(|index| {
            let limb = self.limb(a, index);
            Some(self.builder.ins().bnot(limb))
        });
        Word { limbs }
    }

    /// All limbs in one: zero if the word is.
    pub fn any(&mut self, a: Word) -> Value {
        let mut all = self.limb(a, 0);
        for limb in a.limbs.into_iter().skip(1).flatten() {
            all = self.builder.ins().bor(all, limb);
        }
        all
    }

    /// The limbs above the lowest in one; none if there are none.
    pub fn above(&mut self, a: Word) -> Option<Value> {
        let mut all = None;
        for limb in a.limbs.into_iter().skip(1).flatten() {
            all = Some(match all {
                Some(before) => self.builder.ins().bor(before, limb),
                None => limb,
            });
        }
        all
    }

    /// 1 or 0 as a word.
    pub fn flag(&mut self, flag: Value) -> Word {
        let limb = self.builder.ins().uextend(types::I64, flag);
        self.small(limb)
    }

    /// a == 0
    pub fn is_zero(&mut self, a: Word) -> Value {
        let any = self.any(a);
        self.builder.ins().icmp_imm_s(IntCC::Equal, any, 0)
    }

    /// a == b
    pub fn equal(&mut self, a: Word, b: Word) -> Value {
        if Self::count(a) == 1 && Self::count(b) == 1 {
            let (x, y) = (self.limb(a, 0), self.limb(b, 0));
            return self.builder.ins().icmp(IntCC::Equal, x, y);
        }
        let difference = self.xor(a, b);
        self.is_zero(difference)
    }

    /// a < b, unsigned or signed.
    pub fn less(&mut self, a: Word, b: Word, signed: bool) -> Value {
        let wide = Self::count(a).max(Self::count(b));
        // Words of less than four limbs are not negative.
        let signed = signed && wide == 4;
        if wide == 1 {
            let (x, y) = (self.limb(a, 0), self.limb(b, 0));
            return self.builder.ins().icmp(IntCC::UnsignedLessThan, x, y);
        }
        if wide == 2 {
            let (x, y) = (self.half(a), self.half(b));
            return self.builder.ins().icmp(IntCC::UnsignedLessThan, x, y);
        }
        let ((a_low, a_high), (b_low, b_high)) = (self.halves(a), self.halves(b));
        let compare = if signed {
            IntCC::SignedLessThan
        } else {
            IntCC::UnsignedLessThan
        };
        let high = self.builder.ins().icmp(compare, a_high, b_high);
        let same = self.builder.ins().icmp(IntCC::Equal, a_high, b_high);
        let low = self
            .builder
            .ins()
            .icmp(IntCC::UnsignedLessThan, a_low, b_low);
        let low = self.builder.ins().band(same, low);
        self.builder.ins().bor(high, low)
    }

    /// a << by, `by` below 256, of which `bits` are wanted.
    pub fn shift_left(&mut self, a: Word, by: usize, bits: u16) -> Word {
        let (limbs, rest) = (by / 64, by % 64);
        let mut result = [None; 4];
        for (index, limb) in result
            .iter_mut()
            .enumerate()
            .take(limbs_for(bits))
            .skip(limbs)
        {
            let from = index - limbs;
            let upper = a.limbs[from].map(|x| self.shift(x, rest, true));
            let lower = match from.checked_sub(1) {
                Some(from) if rest > 0 => a.limbs[from].map(|x| self.shift(x, 64 - rest, false)),
                _ => None,
            };
            *limb = self.combine(upper, lower);
        }
        self.filled(result)
    }

    /// a >> by, `by` below 256.
    pub fn shift_right(&mut self, a: Word, by: usize) -> Word {
        let (limbs, rest) = (by / 64, by % 64);
        let mut result = [None; 4];
        for (index, limb) in result.iter_mut().enumerate().take(4 - limbs) {
            let from = index + limbs;
            let lower = a.limbs[from].map(|x| self.shift(x, rest, false));
            let upper = match a.limbs.get(from + 1) {
                Some(Some(x)) if rest > 0 => Some(self.shift(*x, 64 - rest, true)),
                _ => None,
            };
            *limb = self.combine(upper, lower);
        }
        self.filled(result)
    }

    fn shift(&mut self, limb: Value, by: usize, left: bool) -> Value {
        match (by, left) {
            (0, _) => limb,
            (by, true) => self.builder.ins().ishl_imm_u(limb, by as i64),
            (by, false) => self.builder.ins().ushr_imm_u(limb, by as i64),
        }
    }

    fn combine(&mut self, upper: Option<Value>, lower: Option<Value>) -> Option<Value> {
        match (upper, lower) {
            (Some(upper), Some(lower)) => Some(self.builder.ins().bor(upper, lower)),
            (one, other) => one.or(other),
        }
    }

    /// No gaps below the highest limb, and at least one limb.
    fn filled(&mut self, mut limbs: [Option<Value>; 4]) -> Word {
        let top = limbs.iter().rposition(Option::is_some).unwrap_or(0);
        for limb in limbs.iter_mut().take(top + 1) {
            if limb.is_none() {
                *limb = Some(self.number(0));
            }
        }
        Word { limbs }
    }

    /// a / b or a % b of one limb each; zero where b is.
    pub fn divide_small(&mut self, a: Word, b: Word, remainder: bool) -> Word {
        let (x, y) = (self.limb(a, 0), self.limb(b, 0));
        // The processor traps on zero: divide by one and drop the result.
        let zero = self.builder.ins().icmp_imm_s(IntCC::Equal, y, 0);
        let one = self.number(1);
        let divisor = self.builder.ins().select(zero, one, y);
        let result = if remainder {
            self.builder.ins().urem(x, divisor)
        } else {
            self.builder.ins().udiv(x, divisor)
        };
        let nothing = self.number(0);
        let result = self.builder.ins().select(zero, nothing, result);
        self.small(result)
    }
}

/// EVM memory is not aligned.
fn unaligned() -> MemFlagsData {
    let mut flags = MemFlagsData::new();
    flags.set_notrap();
    flags
}
