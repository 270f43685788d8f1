//! Operations on words while they are translated: known words are computed, ranges follow, and an operation becomes
//! the cheapest one that gives the same word.

use alloy_primitives::U256;
use zvm_runtimes::isa::Op;

use crate::abi::Pure;
use crate::ir::{Binary, Def, Region, Statement, Unary, Value};

/// Where values are made: a region and the block under construction.
pub struct Folder<'a> {
    /// The region.
    pub region: &'a mut Region,
    /// The block's statements.
    pub statements: &'a mut Vec<Statement>,
    /// Known words made before: equal words are one value.
    pub constants: &'a mut std::collections::HashMap<U256, Value>,
}

/// Operations in line, with their number of operands.
pub fn in_line(op: Op) -> Option<(Binary, bool)> {
    // The flag says that the first operand must be known.
    Some(match op {
        Op::Add => (Binary::Add, false),
        Op::Sub => (Binary::Sub, false),
        Op::And => (Binary::And, false),
        Op::Or => (Binary::Or, false),
        Op::Xor => (Binary::Xor, false),
        Op::Eq => (Binary::Eq, false),
        Op::Lt => (Binary::Lt, false),
        Op::Gt => (Binary::Gt, false),
        Op::SLt => (Binary::SLt, false),
        Op::SGt => (Binary::SGt, false),
        Op::Shl => (Binary::Shl, true),
        Op::Shr => (Binary::Shr, true),
        Op::Sar => (Binary::Sar, true),
        Op::Byte => (Binary::Byte, true),
        Op::SignExtend => (Binary::SignExtend, true),
        _ => return None,
    })
}

/// Operations by Rust.
pub fn by_rust(op: Op) -> Option<Pure> {
    Some(match op {
        Op::Mul => Pure::Mul,
        Op::Div => Pure::Div,
        Op::SDiv => Pure::SDiv,
        Op::Mod => Pure::Mod,
        Op::SMod => Pure::SMod,
        Op::AddMod => Pure::AddMod,
        Op::MulMod => Pure::MulMod,
        Op::Shl => Pure::Shl,
        Op::Shr => Pure::Shr,
        Op::Sar => Pure::Sar,
        Op::Byte => Pure::Byte,
        Op::SignExtend => Pure::SignExtend,
        Op::Clz => Pure::Clz,
        _ => return None,
    })
}

/// How many bits the result of an operation by Rust can have, its operands having `bits`, the first first.
pub fn bits_by_rust(pure: Pure, bits: [usize; 3]) -> usize {
    match pure {
        Pure::Byte => 8,
        Pure::Clz => 9,
        Pure::Div => bits[0],
        Pure::Shr => bits[1],
        Pure::Mod => bits[0].min(bits[1]),
        Pure::AddMod | Pure::MulMod => bits[2],
        Pure::Mul => (bits[0] + bits[1]).min(256),
        // A word that is not negative stays so.
        Pure::Sar if bits[1] < 256 => bits[1],
        _ => 256,
    }
}

impl Folder<'_> {
    /// Computes a word here.
    pub fn define(&mut self, definition: Def, bits: usize) -> Value {
        let value = self.region.push(definition, bits);
        self.statements.push(Statement::Let(value));
        value
    }

    /// A known word.
    pub fn constant(&mut self, word: U256) -> Value {
        if let Some(value) = self.constants.get(&word) {
            return *value;
        }
        let value = self.region.push(Def::Const(word), word.bit_len());
        self.constants.insert(word, value);
        value
    }

    /// The word, if it is known.
    pub fn known(&self, value: Value) -> Option<U256> {
        self.region.constant(value)
    }

    fn number(&mut self, number: usize) -> Value {
        self.constant(U256::from(number))
    }

    /// An operation on one word.
    pub fn unary(&mut self, unary: Unary, x: Value) -> Value {
        if let Some(word) = self.known(x) {
            return self.constant(match unary {
                Unary::IsZero => U256::from(word.is_zero()),
                Unary::Not => !word,
            });
        }
        let bits = if unary == Unary::IsZero { 1 } else { 256 };
        self.define(Def::Unary(unary, x), bits)
    }

    /// An operation on two words.
    pub fn binary(&mut self, binary: Binary, x: Value, y: Value) -> Value {
        if let (Some(a), Some(b)) = (self.known(x), self.known(y)) {
            return self.constant(evaluate(binary, a, b));
        }
        if let Some(same) = self.identity(binary, x, y) {
            return same;
        }
        let (a, b) = (self.region.bits(x), self.region.bits(y));
        let by = self
            .known(x)
            .map_or(256, |by| by.saturating_to::<usize>().min(256));
        let bits = match binary {
            Binary::Add => a.max(b) + 1,
            Binary::Mul => a + b,
            Binary::And => a.min(b),
            Binary::Or | Binary::Xor => a.max(b),
            Binary::Eq | Binary::Lt | Binary::Gt | Binary::SLt | Binary::SGt => 1,
            Binary::Shl => b + by,
            Binary::Shr => b - by.min(b),
            Binary::Sar if b < 256 => b - by.min(b),
            Binary::Byte => 8,
            Binary::SignExtend if b < 8 * (by + 1) => b,
            Binary::Sub | Binary::Sar | Binary::SignExtend => 256,
            Binary::Div64 => a,
            Binary::Mod64 => a.min(b),
        };
        self.define(Def::Binary(binary, x, y), bits)
    }

    /// x op y where one operand makes the other, a known word, or a cheaper operation the result.
    fn identity(&mut self, binary: Binary, x: Value, y: Value) -> Option<Value> {
        let (a, b) = (self.known(x), self.known(y));
        let zero = Some(U256::ZERO);
        let (x_bits, y_bits) = (self.region.bits(x), self.region.bits(y));
        Some(match binary {
            Binary::Add | Binary::Or | Binary::Xor if a == zero => y,
            Binary::Add | Binary::Or | Binary::Xor | Binary::Sub if b == zero => x,
            Binary::Mul | Binary::And if a == zero || b == zero => self.constant(U256::ZERO),
            Binary::Mul if a == Some(U256::from(1)) => y,
            Binary::Mul if b == Some(U256::from(1)) => x,
            Binary::Mul if a.is_some_and(is_power) => {
                let by = self.number(a?.trailing_zeros());
                self.binary(Binary::Shl, by, y)
            }
            Binary::Mul if b.is_some_and(is_power) => {
                let by = self.number(b?.trailing_zeros());
                self.binary(Binary::Shl, by, x)
            }
            // A small negative word added: subtracted it has one limb.
            Binary::Add if a.is_some_and(is_negative) => {
                let c = self.constant(a?.wrapping_neg());
                self.binary(Binary::Sub, y, c)
            }
            Binary::Add if b.is_some_and(is_negative) => {
                let c = self.constant(b?.wrapping_neg());
                self.binary(Binary::Sub, x, c)
            }
            Binary::And if covers(a, y_bits) => y,
            Binary::And if covers(b, x_bits) => x,
            Binary::Sub | Binary::Xor if x == y => self.constant(U256::ZERO),
            Binary::And | Binary::Or if x == y => x,
            Binary::Eq if x == y => self.number(1),
            Binary::Lt | Binary::Gt | Binary::SLt | Binary::SGt if x == y => self.number(0),
            Binary::Eq if a == zero => self.unary(Unary::IsZero, y),
            Binary::Eq if b == zero => self.unary(Unary::IsZero, x),
            // 0 < y, x > 0, x < 1, 1 > y
            Binary::Lt if a == zero => self.not_zero(y),
            Binary::Gt if b == zero => self.not_zero(x),
            Binary::Lt if b == Some(U256::from(1)) => self.unary(Unary::IsZero, x),
            Binary::Gt if a == Some(U256::from(1)) => self.unary(Unary::IsZero, y),
            Binary::Shl | Binary::Shr | Binary::Sar if a == zero => y,
            Binary::Shl | Binary::Shr if a.is_some_and(|by| by >= U256::from(256)) => {
                self.constant(U256::ZERO)
            }
            Binary::Sar if a.is_some_and(|by| by >= U256::from(256)) => {
                let by = self.number(255);
                self.binary(Binary::Sar, by, y)
            }
            Binary::Sar if y_bits < 256 => self.binary(Binary::Shr, x, y),
            Binary::Byte if a.is_some_and(|at| at >= U256::from(32)) => self.constant(U256::ZERO),
            Binary::SignExtend if a.is_some_and(|byte| byte >= U256::from(31)) => y,
            _ => return None,
        })
    }

    fn not_zero(&mut self, x: Value) -> Value {
        let zero = self.unary(Unary::IsZero, x);
        self.unary(Unary::IsZero, zero)
    }

    /// An operation that Rust would do, in line, where the words allow it. `inline_mul` is how many products of limbs
    /// a multiplication in line may need.
    pub fn cheaper(
        &mut self,
        pure: Pure,
        operands: [Option<Value>; 2],
        bits: [usize; 2],
        inline_mul: usize,
    ) -> Option<Value> {
        let [x, y] = operands;
        let known =
            |folder: &Self, value: Option<Value>| value.and_then(|value| folder.known(value));
        let (a, b) = (known(self, x), known(self, y));
        match pure {
            Pure::Mul => {
                let limbs = |bits: usize| bits.div_ceil(64).max(1);
                let trivial =
                    |word: Option<U256>| word.is_some_and(|word| word.is_zero() || is_power(word));
                let cost = limbs(bits[0]) * limbs(bits[1]);
                (trivial(a) || trivial(b) || cost <= inline_mul)
                    .then(|| Some(self.binary(Binary::Mul, x?, y?)))?
            }
            Pure::Div | Pure::Mod => {
                let remainder = pure == Pure::Mod;
                if let (Some(a), Some(b)) = (a, b) {
                    let binary = if remainder {
                        Binary::Mod64
                    } else {
                        Binary::Div64
                    };
                    return Some(self.constant(evaluate(binary, a, b)));
                }
                if b == Some(U256::ZERO) {
                    return Some(self.constant(U256::ZERO));
                }
                if let Some(divisor) = b.filter(|divisor| is_power(*divisor)) {
                    return Some(if remainder {
                        let mask = self.constant(divisor - U256::from(1));
                        self.binary(Binary::And, x?, mask)
                    } else {
                        let by = self.number(divisor.trailing_zeros());
                        self.binary(Binary::Shr, by, x?)
                    });
                }
                let narrow = if remainder {
                    Binary::Mod64
                } else {
                    Binary::Div64
                };
                (bits[0] <= 64 && bits[1] <= 64).then(|| Some(self.binary(narrow, x?, y?)))?
            }
            _ => None,
        }
    }
}

fn is_power(word: U256) -> bool {
    word.count_ones() == 1
}

/// Within 64 bits of zero from below, and not so near to both that nothing is gained.
fn is_negative(word: U256) -> bool {
    word.bit(255) && word.wrapping_neg().bit_len() <= 64
}

/// Whether the mask keeps every one of `bits` low bits.
fn covers(mask: Option<U256>, bits: usize) -> bool {
    mask.is_some_and(|mask| mask.trailing_ones() >= bits)
}

/// Computes an operation on known words.
pub fn evaluate(binary: Binary, a: U256, b: U256) -> U256 {
    let by = |pure: Pure| {
        let mut words = [a, b, U256::ZERO];
        crate::pure::evaluate(pure, &mut words);
        words[0]
    };
    let flip = U256::from(1) << 255;
    match binary {
        Binary::Add => a.wrapping_add(b),
        Binary::Sub => a.wrapping_sub(b),
        Binary::Mul => a.wrapping_mul(b),
        Binary::And => a & b,
        Binary::Or => a | b,
        Binary::Xor => a ^ b,
        Binary::Eq => U256::from(a == b),
        Binary::Lt => U256::from(a < b),
        Binary::Gt => U256::from(a > b),
        Binary::SLt => U256::from((a ^ flip) < (b ^ flip)),
        Binary::SGt => U256::from((a ^ flip) > (b ^ flip)),
        Binary::Shl => by(Pure::Shl),
        Binary::Shr => by(Pure::Shr),
        Binary::Sar => by(Pure::Sar),
        Binary::Byte => by(Pure::Byte),
        Binary::SignExtend => by(Pure::SignExtend),
        Binary::Div64 => by(Pure::Div),
        Binary::Mod64 => by(Pure::Mod),
    }
}
