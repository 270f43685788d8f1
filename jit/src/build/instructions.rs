//! What happens within a block.

use alloy_primitives::U256;
use zvm_runtimes::isa::{Flags, Op};

use super::Builder;
use crate::abi::{Env, Field, Helper, Leave, Pure};
use crate::code::{BasicBlock, End, Instruction};
use crate::compiler::Level;
use crate::fold;
use crate::ir::{Def, Statement, Target, Terminator, Unary, Value};
use crate::state::Slot;

impl Builder<'_> {
    pub(super) fn block(&mut self, block: &BasicBlock, index: usize) -> Terminator {
        for (position, instruction) in block.instructions.iter().enumerate() {
            self.charge(instruction);
            let last = position + 1 == block.instructions.len();
            match block.end {
                End::Jump(target) if last => return self.jump(target),
                End::JumpI(target) if last => return self.jump_if(target, index),
                End::Stop if last => {
                    self.call(instruction, Helper::Step, true);
                    return Terminator::End;
                }
                _ => self.instruction(instruction),
            }
        }
        let state = core::mem::take(&mut self.state);
        match block.end {
            End::Leave(pc) => {
                Terminator::Goto(self.outward(Target::Leave(pc, Leave::Opcode), &state))
            }
            End::Halt(pc) => {
                self.statements.push(Statement::Call {
                    helper: Helper::Step,
                    pc,
                    height: state.height,
                    ends: true,
                });
                Terminator::End
            }
            _ => Terminator::Goto(self.edge(index + 1, state, false)),
        }
    }

    /// Adds the instruction's static gas to the open section.
    pub(super) fn charge(&mut self, instruction: &Instruction) {
        if instruction.gas == 0 {
            return;
        }
        let at = *self.section.get_or_insert_with(|| {
            self.statements.push(Statement::Gas(0));
            self.statements.len() - 1
        });
        if let Statement::Gas(gas) = &mut self.statements[at] {
            *gas += instruction.gas;
        }
    }

    pub(super) fn read(&mut self, slot: i32) -> Value {
        match self.state.get(slot) {
            Slot::Value { value, .. } => value,
            Slot::Stack(bits) => {
                let value = self.fold().define(Def::Slot(slot), bits.into());
                self.state.set(slot, Slot::Value { value, clean: true });
                value
            }
        }
    }

    pub(super) fn write(&mut self, slot: i32, value: Value) {
        let clean = false;
        self.state.set(slot, Slot::Value { value, clean });
    }

    pub(super) fn push(&mut self, value: Value) {
        self.write(self.state.height, value);
        self.state.height += 1;
    }

    pub(super) fn pop(&mut self) -> Value {
        let top = self.state.height - 1;
        let value = self.read(top);
        self.state.drop_to(top);
        value
    }

    /// What is pushed lies on the stack already.
    pub(super) fn pushed(&mut self, bits: u16) {
        self.state.set(self.state.height, Slot::Stack(bits));
        self.state.height += 1;
    }

    pub(super) fn write_slot(&mut self, slot: i32) {
        if let Some(write) = self.state.write(slot, &self.region) {
            self.statements.push(Statement::Write(write));
            let (value, clean) = (write.value, true);
            self.state.set(slot, Slot::Value { value, clean });
        }
    }

    pub(super) fn known_at(&self, slot: i32) -> Option<U256> {
        self.region.constant(self.state.get(slot).value()?)
    }

    pub(super) fn instruction(&mut self, instruction: &Instruction) {
        let op = instruction.info.op;
        let top = self.state.height - 1;
        match op {
            Op::JumpDest => {}
            Op::Push(_) => self.push_known(instruction.immediate),
            Op::Pc => self.push_known(U256::from(instruction.pc)),
            Op::CodeSize => self.push_known(U256::from(self.code_len)),
            Op::Pop => self.state.drop_to(top),
            Op::Dup(n) => {
                let value = self.read(top + 1 - i32::from(n));
                self.push(value);
            }
            Op::Swap(n) => {
                let other = top - i32::from(n);
                let (a, b) = (self.read(top), self.read(other));
                self.write(top, b);
                self.write(other, a);
            }
            Op::Gas => {
                self.section = None;
                self.push_defined(Def::Gas, 64);
            }
            Op::MSize => self.push_defined(Def::Field(Field::MSize), 64),
            Op::CallDataSize => self.push_defined(Def::Field(Field::CallDataSize), 64),
            Op::ReturnDataSize => self.push_defined(Def::Field(Field::ReturnDataSize), 64),
            Op::Address => self.environment(Env::Address, 160),
            Op::Caller => self.environment(Env::Caller, 160),
            Op::CallValue => self.environment(Env::CallValue, 256),
            Op::CallDataLoad => {
                let offset = self.pop();
                let slot = self.state.height;
                self.statements.push(Statement::CallData { offset, slot });
                self.pushed(256);
            }
            Op::MLoad => self.mload(),
            Op::MStore => self.mstore(),
            Op::MStore8 => {
                let offset = self.pop();
                let offset = self.memory(offset, 1);
                let word = self.pop();
                self.state.words.clear();
                self.statements.push(Statement::MStore8(offset, word));
            }
            Op::IsZero | Op::Not => {
                let x = self.pop();
                let unary = if op == Op::Not {
                    Unary::Not
                } else {
                    Unary::IsZero
                };
                let value = self.fold().unary(unary, x);
                self.push(value);
            }
            _ => match (fold::in_line(op), fold::by_rust(op)) {
                (Some((binary, first_known)), _)
                    if !first_known || self.known_at(top).is_some() =>
                {
                    let (x, y) = (self.pop(), self.pop());
                    let value = self.fold().binary(binary, x, y);
                    self.push(value);
                }
                (_, Some(pure)) => self.pure(pure),
                _ => {
                    let helper = match op {
                        Op::SLoad => Helper::SLoad,
                        Op::Keccak256 => Helper::Keccak256,
                        _ => Helper::Step,
                    };
                    self.call(instruction, helper, false);
                }
            },
        }
    }

    pub(super) fn push_known(&mut self, word: U256) {
        let value = self.fold().constant(word);
        self.push(value);
    }

    pub(super) fn push_defined(&mut self, definition: Def, bits: usize) {
        let value = self.fold().define(definition, bits);
        self.push(value);
    }

    pub(super) fn environment(&mut self, env: Env, bits: u16) {
        let slot = self.state.height;
        self.statements.push(Statement::Env { env, slot });
        self.pushed(bits);
    }

    /// An operation by Rust, or in line where the words allow it.
    pub(super) fn pure(&mut self, pure: Pure) {
        let count = pure.operands() as i32;
        let top = self.state.height - 1;
        let slots = [top, top - 1, top - 2];
        let known = slots.map(|slot| self.known_at(slot));
        let bits = slots.map(|slot| self.state.get(slot).bits(&self.region));
        if known[..count as usize].iter().all(Option::is_some) {
            let mut words = known.map(Option::unwrap_or_default);
            crate::pure::evaluate(pure, &mut words);
            self.state.drop_to(top + 1 - count);
            return self.push_known(words[0]);
        }
        if matches!(pure, Pure::Mul | Pure::Div | Pure::Mod) {
            let operands = [Some(self.read(top)), Some(self.read(top - 1))];
            // A product of two wide words is 60 instructions of Cranelift.
            let limit = match (self.options.level, self.in_loop) {
                (Level::Full, true) => 16,
                (Level::Full, false) => 4,
                (Level::Quick, _) => 2,
            };
            let (bits, first) = ([bits[0], bits[1]], top - 1);
            if let Some(value) = self.fold().cheaper(pure, operands, bits, limit) {
                self.state.drop_to(first);
                return self.push(value);
            }
        }
        for slot in slots.into_iter().take(count as usize) {
            self.write_slot(slot);
        }
        let slot = top + 1 - count;
        self.statements.push(Statement::Pure { pure, slot });
        self.state.drop_to(slot);
        self.pushed(fold::bits_by_rust(pure, bits) as u16);
    }

    /// Makes sure of memory at an offset, and returns the offset, which is then known to be small.
    pub(super) fn memory(&mut self, offset: Value, length: u64) -> Value {
        let known = self
            .region
            .constant(offset)
            .and_then(|offset| u64::try_from(offset).ok())
            .and_then(|offset| offset.checked_add(length))
            .filter(|end| *end <= 1 << 32);
        if let Some(end) = known {
            if end > self.state.memory {
                self.statements.push(Statement::Memory { offset, length });
                self.state.memory = end.next_multiple_of(32);
            }
            return offset;
        }
        self.statements.push(Statement::Memory { offset, length });
        if self.region.bits(offset) <= 64 || self.region.constant(offset).is_some() {
            return offset;
        }
        let narrow = self.region.push(Def::Narrow(offset), 64);
        self.state.replace(offset, narrow);
        narrow
    }

    pub(super) fn known_offset(&self, offset: Value) -> Option<u64> {
        self.region
            .constant(offset)
            .and_then(|offset| u64::try_from(offset).ok())
    }

    pub(super) fn mload(&mut self) {
        let offset = self.pop();
        let offset = self.memory(offset, 32);
        let known = self.known_offset(offset);
        let held = self
            .state
            .words
            .iter()
            .find(|(at, _)| Some(*at) == known)
            .map(|(_, value)| *value);
        let value = match held {
            Some(value) => value,
            None => self.fold().define(Def::MLoad(offset), 256),
        };
        if let (None, Some(at)) = (held, known) {
            self.state.words.push((at, value));
        }
        self.push(value);
    }

    pub(super) fn mstore(&mut self) {
        let offset = self.pop();
        let offset = self.memory(offset, 32);
        let word = self.pop();
        match self.known_offset(offset) {
            Some(at) => {
                self.state.words.retain(|(held, _)| held.abs_diff(at) >= 32);
                self.state.words.push((at, word));
            }
            None => self.state.words.clear(),
        }
        self.statements.push(Statement::MStore(offset, word));
    }

    /// An instruction by Rust.
    pub(super) fn call(&mut self, instruction: &Instruction, helper: Helper, ends: bool) {
        self.section = None;
        let info = instruction.info;
        let height = self.state.height;
        let operands = height - i32::from(info.inputs);
        let first = if info.has(Flags::SUSPENDS) {
            // The frame goes on from the stack.
            self.state.low()
        } else {
            operands
        };
        for slot in first..height {
            self.write_slot(slot);
        }
        self.statements.push(Statement::Call {
            helper,
            pc: instruction.pc,
            height,
            ends,
        });
        self.state.drop_to(operands);
        for _ in 0..info.outputs {
            self.pushed(result_bits(info.op));
        }
        if !keeps_memory(info.op) {
            self.state.words.clear();
        }
    }
}

/// How many bits the result of an instruction by Rust can have.
fn result_bits(op: Op) -> u16 {
    match op {
        Op::Origin | Op::Coinbase => 160,
        Op::ExtCodeSize | Op::GasLimit => 64,
        _ => 256,
    }
}

/// Whether an instruction leaves the words in memory as they are.
fn keeps_memory(op: Op) -> bool {
    !matches!(
        op,
        Op::CallDataCopy | Op::CodeCopy | Op::ExtCodeCopy | Op::ReturnDataCopy | Op::MCopy
    )
}
