//! Structured random programs: a deterministic function from decisions to code.
//!
//! The generator keeps count of the stack, so that most programs run long, and sometimes ignores the count, so that
//! some do not. Loops have counters, functions return to where they were called from, memory is written before it is
//! read: what contracts do, with operands where operations change their mind.

mod expression;
mod flow;
mod statement;

use alloy_primitives::{Address, U256};
use zvm_runtimes::isa::{Isa, OpInfo};
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use crate::asm::Item;
use crate::choices::Choices;

/// Least and most items of small, middling and large programs, without functions.
const BUDGET: [(u64, u64); 3] = [(4, 24), (16, 60), (50, 240)];

/// A program for `spec`.
///
/// `addresses` are those it calls, all with one byte; `initcodes` those it creates from, at most 32 bytes each.
pub fn program(
    choices: &mut Choices<'_>,
    spec: SpecId,
    addresses: &[u8],
    initcodes: &[Vec<u8>],
) -> Vec<Item> {
    let size = choices.weighted(&[11, 7, 1]);
    let (low, high) = BUDGET[size];
    let budget = choices.between(low, high) as usize;
    let mut generator = Generator {
        choices,
        spec,
        addresses,
        initcodes,
        items: Vec::new(),
        height: 0,
        floor: 0,
        labels: 0,
        budget,
        nesting: 0,
        functions: Vec::new(),
        callable: 0,
    };
    generator.program();
    generator.items
}

#[derive(Clone, Copy)]
struct Function {
    label: u16,
    arguments: usize,
    results: usize,
    called: bool,
}

struct Generator<'g, 'c> {
    choices: &'g mut Choices<'c>,
    spec: SpecId,
    addresses: &'g [u8],
    initcodes: &'g [Vec<u8>],
    items: Vec<Item>,
    /// Words believed to be on the stack.
    height: usize,
    /// Words at the bottom that statements leave alone: loop counters, return addresses.
    floor: usize,
    labels: u16,
    /// Items that may still be added.
    budget: usize,
    nesting: usize,
    functions: Vec<Function>,
    /// The first function that may be called from here.
    callable: usize,
}

impl Generator<'_, '_> {
    fn program(&mut self) {
        for _ in 0..self.choices.weighted(&[4, 4, 2, 1]) {
            let label = self.label();
            let function = Function {
                label,
                arguments: self.choices.below(4) as usize,
                results: self.choices.below(3) as usize,
                called: false,
            };
            self.functions.push(function);
        }
        for _ in 0..self.choices.weighted(&[2, 2, 3, 3, 2, 1, 1, 1]) {
            self.expression(1);
        }
        if self.choices.chance(1, 60) {
            self.deep_stack();
        }
        while self.budget > 0 && !self.choices.exhausted() {
            self.statement();
        }
        self.ending();
        self.bodies();
        if self.choices.chance(1, 25) {
            // A push that the end of the code cuts off.
            let size = self.choices.between(1, 32);
            let kept = self.choices.below(size);
            let mut bytes = vec![0x5f + size as u8];
            bytes.extend((0..kept).map(|_| self.choices.below(256) as u8));
            self.items.push(Item::Raw(bytes));
        }
    }

    /// The functions. One calls only those behind it, recursion is one in twelve.
    fn bodies(&mut self) {
        for index in 0..self.functions.len() {
            let Function {
                label,
                arguments,
                results,
                called,
            } = self.functions[index];
            if !called {
                continue;
            }
            self.callable = if self.choices.chance(1, 12) {
                index
            } else {
                index + 1
            };
            self.items.push(Item::Label(label));
            // On the stack: the return address and the arguments.
            self.height = 1 + arguments;
            self.floor = 1;
            self.budget = self.choices.between(1, 10) as usize;
            while self.budget > 0 && !self.choices.exhausted() {
                self.statement();
            }
            self.level(1 + results);
            if results > 1 && self.choices.chance(1, 2) {
                self.op(0x90);
            }
            if results > 0 {
                self.op(0x8f + results as u8);
            }
            self.op(0x56);
        }
    }

    fn label(&mut self) -> u16 {
        self.labels += 1;
        self.labels
    }

    fn push(&mut self, word: U256) {
        let word_size = word.byte_len() as u8;
        // Compilers also emit pushes wider than they need be.
        let size = if self.choices.chance(1, 12) {
            self.choices.between(word_size.into(), 32) as u8
        } else {
            word_size
        };
        let size = if size == 0 && !self.active(0x5f) {
            1
        } else {
            size
        };
        self.items.push(Item::Push(size, word));
        self.spend();
        self.height += 1;
    }

    fn small(&mut self, number: u64) {
        self.push(U256::from(number));
    }

    fn target(&mut self, label: u16) {
        let size = if self.choices.chance(1, 16) { 3 } else { 2 };
        self.items.push(Item::PushLabel(size, label));
        self.spend();
        self.height += 1;
    }

    fn place(&mut self, label: u16) {
        self.items.push(Item::Label(label));
        self.spend();
    }

    fn spend(&mut self) {
        self.budget = self.budget.saturating_sub(1);
    }

    fn info(byte: u8) -> Option<&'static OpInfo> {
        Isa::Evm.op(byte)
    }

    fn active(&self, byte: u8) -> bool {
        Self::info(byte).is_some_and(|info| info.static_gas(Isa::Evm, self.spec).is_some())
    }

    /// An opcode; where the fork does not have it, something that moves the stack alike.
    fn op(&mut self, byte: u8) {
        let Some(info) = Self::info(byte) else {
            self.items.push(Item::Raw(vec![byte]));
            return;
        };
        let (inputs, outputs) = (usize::from(info.inputs), usize::from(info.outputs));
        if self.active(byte) || self.choices.chance(1, 40) {
            self.items.push(Item::Op(byte));
            self.spend();
            self.height = self.height.saturating_sub(inputs) + outputs;
            return;
        }
        for _ in outputs..inputs {
            self.op(0x50);
        }
        for _ in inputs..outputs {
            self.items.push(Item::Push(1, U256::ZERO));
            self.height += 1;
        }
    }

    /// Brings the stack to a height.
    fn level(&mut self, height: usize) {
        while self.height > height {
            self.op(0x50);
        }
        while self.height < height {
            self.leaf();
        }
    }

    /// Pushes an address that is worth calling.
    fn address(&mut self) {
        if self.choices.chance(1, 20) {
            self.expression(1);
            return;
        }
        let last = self.choices.pick(self.addresses);
        if self.choices.chance(1, 10) {
            // Bits above the address are to be ignored.
            let dirty = U256::from(self.choices.any()) << 192;
            self.push(dirty | U256::from(last));
        } else if self.choices.chance(1, 4) {
            let address = Address::with_last_byte(last);
            let word = U256::from_be_slice(address.as_slice());
            self.items.push(Item::Push(20, word));
            self.height += 1;
        } else {
            self.small(last.into());
        }
    }
}
