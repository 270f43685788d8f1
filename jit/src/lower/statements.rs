//! What happens within a block: statements and the words they compute.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block as ClifBlock, BlockArg, InstBuilder as _, MemFlagsData, Value as ClifValue, types,
};

use super::{Computed, Lowering};
use crate::abi::offset;
use crate::ir::{self, Binary, Def, Statement, Unary, Write};
use crate::words::{Limb, Word};

impl Lowering<'_> {
    pub(super) fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Let(value) => self.define(*value),
            Statement::Gas(gas) => {
                let short =
                    self.builder
                        .ins()
                        .icmp_imm_u(IntCC::UnsignedLessThan, self.gas, *gas as i64);
                let enough = self.builder.create_block();
                self.builder
                    .ins()
                    .brif(short, self.shared.out_of_gas, &[], enough, &[]);
                self.builder.switch_to_block(enough);
                self.gas = self.builder.ins().iadd_imm_s(self.gas, -(*gas as i64));
            }
            Statement::Write(write) => self.write(write),
            Statement::Memory { offset, length } => self.check_memory(*offset, *length),
            Statement::MStore(offset, word) => {
                let (address, at) = self.address(*offset);
                let word = self.word(*word);
                self.words().store_bytes(word, address, at);
            }
            Statement::MStore8(offset, word) => {
                let (address, at) = self.address(*offset);
                let word = self.word(*word);
                let byte = self.words().low(word);
                self.builder
                    .ins()
                    .istore8(MemFlagsData::trusted(), byte, address, at);
            }
            Statement::Pure { pure, slot } => {
                let place = self.at(*slot);
                let function = self.field(offset::pure(*pure));
                self.builder
                    .ins()
                    .call_indirect(self.shared.compute, function, &[place]);
            }
            Statement::Env { env, slot } => {
                let which = self.number(*env as u64);
                self.call_write(offset::ENVIRONMENT, *slot, which);
            }
            Statement::CallData { offset, slot } => {
                let word = self.word(*offset);
                let at = self.words().saturated(word);
                self.call_write(offset::CALLDATA, *slot, at);
            }
            Statement::Call {
                helper,
                pc,
                height,
                ends,
            } => {
                self.count_call();
                let sp = self.at(*height);
                let pc = self.number(*pc as u64);
                let function = self.field(offset::execute(*helper));
                let args = [self.frame, sp, self.gas, pc];
                if *ends {
                    self.builder
                        .ins()
                        .call_indirect(self.shared.execute, function, &args);
                    self.builder.ins().jump(self.shared.done, &[]);
                } else {
                    let next = self.builder.create_block();
                    self.execute(function, &args, next, false);
                }
            }
        }
    }

    /// Calls what may end the frame, and goes on in `next` with the gas that is left, as its parameter if it has one.
    pub(super) fn execute(
        &mut self,
        function: ClifValue,
        args: &[ClifValue],
        next: ClifBlock,
        passes: bool,
    ) {
        let call = self
            .builder
            .ins()
            .call_indirect(self.shared.execute, function, args);
        let left = self.builder.inst_results(call)[0];
        let ended = self
            .builder
            .ins()
            .icmp_imm_s(IntCC::SignedLessThan, left, 0);
        let passed = [BlockArg::from(left)];
        let passed = if passes { &passed[..] } else { &[] };
        self.builder
            .ins()
            .brif(ended, self.shared.done, &[], next, passed);
        if !passes {
            self.builder.switch_to_block(next);
            self.gas = left;
        }
    }

    pub(super) fn call_write(&mut self, offset: i32, slot: i32, argument: ClifValue) {
        let place = self.at(slot);
        let function = self.field(offset);
        let args = [self.frame, place, argument];
        self.builder
            .ins()
            .call_indirect(self.shared.write, function, &args);
    }

    pub(super) fn write(&mut self, write: &Write) {
        let base = self.base;
        match write.copy {
            Some(from) => self.words().copy(base, from * 32, write.slot * 32),
            None => {
                let word = self.word(write.value);
                self.words().store(word, base, write.slot * 32);
            }
        }
    }

    pub(super) fn check_memory(&mut self, at: ir::Value, length: u64) {
        let word = self.word(at);
        // An offset beyond 64 bits is passed on as the largest: nothing can hold it.
        let first = self.words().saturated(word);
        let limit = if length == 1 {
            offset::MEMORY_LEN
        } else {
            offset::MEMORY_WORDS
        };
        let limit = self.field(limit);
        let inside = self
            .builder
            .ins()
            .icmp(IntCC::UnsignedLessThan, first, limit);
        let (grow, next) = (self.cold(), self.builder.create_block());
        self.builder.append_block_param(next, types::I64);
        let passed = [BlockArg::from(self.gas)];
        self.builder.ins().brif(inside, next, &passed, grow, &[]);
        self.builder.switch_to_block(grow);
        let length = self.number(length);
        let function = self.field(offset::EXPAND);
        let args = [self.frame, first, length, self.gas];
        self.execute(function, &args, next, true);
        self.builder.switch_to_block(next);
        self.gas = self.builder.block_params(next)[0];
    }

    /// The address of a place in memory that was checked, with a constant to add.
    pub(super) fn address(&mut self, at: ir::Value) -> (ClifValue, i32) {
        let memory = self.field(offset::MEMORY);
        if let Some(known) = self.region.constant(at)
            && let Ok(known) = i32::try_from(known)
        {
            return (memory, known);
        }
        let word = self.word(at);
        let low = self.words().low(word);
        (self.builder.ins().iadd(memory, low), 0)
    }

    pub(super) fn set(&mut self, value: ir::Value, computed: Computed) {
        self.words[value.0 as usize] = Some(computed);
    }

    /// Not zero if the word is.
    pub(super) fn condition(&mut self, value: ir::Value) -> ClifValue {
        if let Some(Computed::Flag(flag)) = self.words[value.0 as usize] {
            return flag;
        }
        let word = self.word(value);
        self.words().any(word)
    }

    pub(super) fn word(&mut self, value: ir::Value) -> Word {
        match (self.words[value.0 as usize], self.region.definition(value)) {
            (Some(Computed::Word(word)), _) => word,
            (Some(Computed::Flag(flag)), _) => self.words().flag(flag),
            (None, Def::Const(word)) => Word::known(word),
            (None, Def::Narrow(of)) => self.word(of).narrow(self.region.bits(value)),
            (None, _) => unreachable!("words are defined before they are used"),
        }
    }

    pub(super) fn define(&mut self, value: ir::Value) {
        let bits = self.region.bits(value);
        let word = match self.region.definition(value) {
            Def::Const(_) | Def::Narrow(_) | Def::Param => return,
            Def::Slot(slot) => {
                let base = self.base;
                self.words().load(base, slot * 32, bits)
            }
            Def::Gas => Word::small(self.gas),
            Def::Field(field) => Word::small(self.field(offset::field(field))),
            Def::MLoad(offset) => {
                let (address, at) = self.address(offset);
                self.words().load_bytes(address, at)
            }
            Def::Unary(Unary::Not, x) => {
                let x = self.word(x);
                self.words().not(x)
            }
            Def::Unary(Unary::IsZero, x) => {
                let flag = match self.words[x.0 as usize] {
                    Some(Computed::Flag(flag)) => {
                        self.builder.ins().icmp_imm_s(IntCC::Equal, flag, 0)
                    }
                    _ => {
                        let x = self.word(x);
                        self.words().is_zero(x)
                    }
                };
                return self.set(value, Computed::Flag(flag));
            }
            Def::Binary(binary, x, y) => match self.binary(binary, x, y, bits) {
                Computed::Word(word) => word,
                flag @ Computed::Flag(_) => return self.set(value, flag),
            },
        };
        self.set(value, Computed::Word(word.narrow(bits)));
    }

    pub(super) fn binary(
        &mut self,
        binary: Binary,
        x: ir::Value,
        y: ir::Value,
        bits: usize,
    ) -> Computed {
        let by = self
            .region
            .constant(x)
            .map_or(0, |by| by.saturating_to::<usize>());
        let (a, b) = (self.word(x), self.word(y));
        let narrow = a.limbs().max(b.limbs()) == 1;
        let mut words = self.words();
        Computed::Word(match binary {
            Binary::Add if narrow && bits > 64 => {
                let (sum, carry) = words.add_small(a, b);
                let carry = words.flag(carry);
                Word([sum.0[0], carry.0[0], Limb::Known(0), Limb::Known(0)])
            }
            Binary::Add => words.add(a, b, bits),
            Binary::Sub if narrow => {
                let (difference, borrow) = words.sub_small(a, b);
                // All bits above are the borrow.
                let above = words.all_ones_if(borrow);
                Word([difference.0[0], above, above, above])
            }
            Binary::Sub => words.sub(a, b),
            Binary::Mul => words.mul(a, b, bits),
            Binary::And => words.and(a, b),
            Binary::Or => words.or(a, b),
            Binary::Xor => words.xor(a, b),
            Binary::Shl => words.shift_left(b, by, bits),
            Binary::Shr => words.shift_right(b, by, false),
            Binary::Sar => words.shift_right(b, by, true),
            Binary::Byte => words.byte(b, by),
            Binary::SignExtend => words.sign_extend(b, by),
            Binary::Div64 => words.divide_small(a, b, false),
            Binary::Mod64 => words.divide_small(a, b, true),
            Binary::Eq => return Computed::Flag(words.equal(a, b)),
            Binary::Lt => return Computed::Flag(words.less(a, b, false)),
            Binary::Gt => return Computed::Flag(words.less(b, a, false)),
            Binary::SLt => return Computed::Flag(words.less(a, b, true)),
            Binary::SGt => return Computed::Flag(words.less(b, a, true)),
        })
    }
}
