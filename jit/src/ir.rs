//! Words in static single assignment form, one block at a time.
//!
//! The EVM stack of a block is a window over the interpreter's stack: a slot is loaded when it is first read, moves
//! (DUP, SWAP, POP, PUSH) cost nothing, and what changed is written back where somebody else may look: before a call
//! back and at the end of the block. Slots are counted from the stack's top at the block's start: slot 0 is the first
//! one pushed, slot -1 what was on top.
//!
//! Every value carries how many bits it can have. Operations on known words are done here.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use zvm_runtimes::isa::Op;

use crate::abi::Pure;
use crate::code::{BasicBlock, Blocks, End, Instruction};

/// A word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(pub u32);

/// What a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Def {
    /// A known word.
    Const(U256),
    /// Read from the stack.
    Slot(i32),
    /// One operand.
    Unary(Unary, Value),
    /// Two operands, the first was on top.
    Binary(Binary, Value, Value),
    /// By Rust, operands in order of popping.
    Pure(Pure, [Value; 3]),
    /// 32 bytes of memory.
    MLoad(Value),
    /// Size of the memory in bytes.
    MSize,
    /// Gas left.
    Gas,
}

/// Operations on one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unary {
    /// a == 0
    IsZero,
    /// ~a
    Not,
}

/// Operations on two words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the EVM's names")]
pub enum Binary {
    Add,
    Sub,
    Mul,
    And,
    Or,
    Xor,
    Eq,
    Lt,
    Gt,
    SLt,
    SGt,
    /// b << a, a known
    Shl,
    /// b >> a, a known
    Shr,
    /// a / b, both within 64 bits
    Div64,
    /// a % b, both within 64 bits
    Mod64,
}

/// What the interpreter needs to go on from within a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// Where.
    pub pc: usize,
    /// Static gas of this and the later instructions of the section, already taken.
    pub gas: u64,
    /// Slots whose value is not yet on the stack.
    pub dirty: Vec<(i32, Value)>,
    /// Height of the stack.
    pub height: i32,
}

/// What happens in a block, in order.
#[derive(Debug, Clone)]
pub enum Statement {
    /// Takes the static gas of what follows up to the next section; without enough the interpreter goes on at `resume`.
    Section {
        /// Gas.
        gas: u64,
        /// Where the interpreter goes on.
        resume: Resume,
    },
    /// Computes a word.
    Let(Value),
    /// Makes sure that memory holds `length` bytes at `offset`.
    Memory {
        /// First byte.
        offset: Value,
        /// Bytes.
        length: u64,
        /// Where the interpreter goes on if that cannot be.
        resume: Resume,
    },
    /// Stores a word, memory being large enough.
    MStore(Value, Value),
    /// Stores a byte, memory being large enough.
    MStore8(Value, Value),
    /// Writes slots.
    Flush(Vec<(i32, Value)>),
    /// Calls the interpreter's instruction at `pc`; the stack is written up to `height`.
    Step {
        /// Offset of the instruction.
        pc: usize,
        /// Height before it.
        height: i32,
        /// It ends the block: nothing follows.
        ends: bool,
    },
}

/// How a block passes control on.
#[derive(Debug, Clone)]
pub enum Terminator {
    /// To a block, the stack being written.
    Goto {
        /// Index.
        target: usize,
        /// Height of the stack.
        height: i32,
    },
    /// To one of two blocks.
    If {
        /// Not zero.
        condition: Value,
        /// Index.
        then: usize,
        /// Index.
        otherwise: usize,
        /// Height of the stack.
        height: i32,
    },
    /// To the block that the top of the stack names; the stack is written with all operands.
    Jump {
        /// Target pc.
        target: Value,
        /// For JUMPI: not zero, and the block if it is.
        condition: Option<(Value, usize)>,
        /// Offset of the jump.
        pc: usize,
        /// Height of the stack with the operands.
        height: i32,
        /// Operands.
        operands: i32,
        /// Static gas that the jump has taken and the interpreter takes again.
        gas: u64,
    },
    /// The interpreter goes on.
    Leave(Resume),
    /// The last step ended the frame.
    End,
}

/// A block.
#[derive(Debug)]
pub struct Block {
    /// Offset of its first instruction.
    pub pc: usize,
    /// Words below the start that it reads.
    pub needs: i32,
    /// Words above the start that it reaches.
    pub grows: i32,
    /// What happens.
    pub statements: Vec<Statement>,
    /// How it ends.
    pub terminator: Terminator,
}

/// A code's blocks and words.
#[derive(Debug, Default)]
pub struct Function {
    /// Words by index.
    pub definitions: Vec<Def>,
    /// How many bits each can have.
    pub bits: Vec<u16>,
    /// Blocks in order of pc.
    pub blocks: Vec<Block>,
}

impl Function {
    /// What a word is.
    pub fn definition(&self, value: Value) -> Def {
        self.definitions[value.0 as usize]
    }

    /// How many bits a word can have.
    pub fn bits(&self, value: Value) -> u16 {
        self.bits[value.0 as usize]
    }

    /// The word, if it is known.
    pub fn constant(&self, value: Value) -> Option<U256> {
        match self.definition(value) {
            Def::Const(word) => Some(word),
            _ => None,
        }
    }

    fn push(&mut self, definition: Def, bits: u16) -> Value {
        self.definitions.push(definition);
        self.bits.push(bits);
        Value((self.definitions.len() - 1) as u32)
    }
}

/// Translates blocks.
pub fn translate(code: &Blocks) -> Function {
    let mut function = Function::default();
    for (index, block) in code.blocks.iter().enumerate() {
        let built = Builder::new(&mut function, code, index).block(block);
        function.blocks.push(built);
    }
    function
}

struct Builder<'a> {
    function: &'a mut Function,
    code: &'a Blocks,
    index: usize,
    statements: Vec<Statement>,
    /// Values of slots, where known.
    slots: BTreeMap<i32, Value>,
    /// Slots whose value is not on the stack.
    dirty: BTreeMap<i32, Value>,
    height: i32,
    needs: i32,
    grows: i32,
    /// Where the statement of the open section stands, and its gas so far.
    section: Option<(usize, u64)>,
}

impl<'a> Builder<'a> {
    fn new(function: &'a mut Function, code: &'a Blocks, index: usize) -> Self {
        Self {
            function,
            code,
            index,
            statements: Vec::new(),
            slots: BTreeMap::new(),
            dirty: BTreeMap::new(),
            height: 0,
            needs: 0,
            grows: 0,
            section: None,
        }
    }

    fn block(mut self, block: &BasicBlock) -> Block {
        let mut terminator = None;
        for (position, instruction) in block.instructions.iter().enumerate() {
            let info = instruction.info;
            self.needs = self.needs.max(i32::from(info.inputs) - self.height);
            let after = self.height - i32::from(info.inputs) + i32::from(info.outputs);
            self.grows = self.grows.max(after);
            self.charge(instruction);
            let last = position + 1 == block.instructions.len();
            if last && matches!(block.end, End::Jump | End::JumpI) {
                terminator = Some(self.jump(instruction, block.end == End::JumpI));
            } else {
                self.instruction(instruction, last && block.end == End::Stop);
            }
        }
        let terminator = terminator.unwrap_or_else(|| self.end(block));
        Block {
            pc: block.pc,
            needs: self.needs,
            grows: self.grows,
            statements: self.statements,
            terminator,
        }
    }

    fn end(&mut self, block: &BasicBlock) -> Terminator {
        self.close_section();
        match block.end {
            End::Stop => Terminator::End,
            End::Leave(pc) => Terminator::Leave(self.resume(pc, 0)),
            _ => {
                self.flush();
                Terminator::Goto {
                    target: self.index + 1,
                    height: self.height,
                }
            }
        }
    }

    /// Adds the instruction's static gas to the open section.
    fn charge(&mut self, instruction: &Instruction) {
        let (at, before) = match self.section {
            Some(section) => section,
            None => {
                let resume = self.resume(instruction.pc, 0);
                self.statements.push(Statement::Section { gas: 0, resume });
                (self.statements.len() - 1, 0)
            }
        };
        let total = before + instruction.gas;
        if let Statement::Section { gas, .. } = &mut self.statements[at] {
            *gas = total;
        }
        self.section = Some((at, total));
    }

    /// Ends the open section: what follows has dynamic gas or reads gas.
    fn close_section(&mut self) {
        let Some((at, total)) = self.section.take() else {
            return;
        };
        for statement in &mut self.statements[at + 1..] {
            if let Statement::Memory { resume, .. } = statement {
                // So far `gas` is what the section had taken before the instruction.
                resume.gas = total - resume.gas;
            }
        }
    }

    fn resume(&self, pc: usize, gas: u64) -> Resume {
        let dirty = self
            .dirty
            .iter()
            .map(|(slot, value)| (*slot, *value))
            .collect();
        Resume {
            pc,
            gas,
            dirty,
            height: self.height,
        }
    }

    fn flush(&mut self) {
        if !self.dirty.is_empty() {
            self.statements.push(Statement::Flush(
                core::mem::take(&mut self.dirty).into_iter().collect(),
            ));
        }
    }

    fn read(&mut self, slot: i32) -> Value {
        if let Some(value) = self.slots.get(&slot) {
            return *value;
        }
        let value = self.define(Def::Slot(slot), 256);
        self.slots.insert(slot, value);
        value
    }

    fn write(&mut self, slot: i32, value: Value) {
        self.slots.insert(slot, value);
        self.dirty.insert(slot, value);
    }

    fn push(&mut self, value: Value) {
        self.write(self.height, value);
        self.height += 1;
    }

    fn pop(&mut self) -> Value {
        self.height -= 1;
        let value = self.read(self.height);
        self.slots.remove(&self.height);
        self.dirty.remove(&self.height);
        value
    }

    fn define(&mut self, definition: Def, bits: u16) -> Value {
        let value = self.function.push(definition, bits);
        if !matches!(definition, Def::Const(_)) {
            self.statements.push(Statement::Let(value));
        }
        value
    }

    fn constant(&mut self, word: U256) -> Value {
        self.define(Def::Const(word), word.bit_len() as u16)
    }

    fn instruction(&mut self, instruction: &Instruction, ends: bool) {
        match instruction.info.op {
            Op::JumpDest => {}
            Op::Push(_) => {
                let value = self.constant(instruction.immediate);
                self.push(value);
            }
            Op::Pop => {
                // Not read: an unread slot costs nothing.
                self.height -= 1;
                self.slots.remove(&self.height);
                self.dirty.remove(&self.height);
            }
            Op::Dup(n) => {
                let value = self.read(self.height - i32::from(n));
                self.push(value);
            }
            Op::Swap(n) => {
                let (top, other) = (self.height - 1, self.height - 1 - i32::from(n));
                let (a, b) = (self.read(top), self.read(other));
                self.write(top, b);
                self.write(other, a);
            }
            Op::Pc => {
                let value = self.constant(U256::from(instruction.pc));
                self.push(value);
            }
            Op::MSize => {
                let value = self.define(Def::MSize, 64);
                self.push(value);
            }
            Op::Gas => {
                self.close_section();
                let value = self.define(Def::Gas, 64);
                self.push(value);
            }
            Op::MLoad => {
                let offset = self.pop_for_memory(instruction, 32, &[]);
                let value = self.define(Def::MLoad(offset), 256);
                self.push(value);
            }
            Op::MStore => {
                let offset = self.pop_for_memory(instruction, 32, &[1]);
                let word = self.pop();
                self.statements.push(Statement::MStore(offset, word));
            }
            Op::MStore8 => {
                let offset = self.pop_for_memory(instruction, 1, &[1]);
                let word = self.pop();
                self.statements.push(Statement::MStore8(offset, word));
            }
            op => match arithmetic(op) {
                Some((arity, fold)) if !ends => {
                    let operands = [(); 3].map(|()| None::<Value>);
                    let mut operands = operands;
                    for operand in operands.iter_mut().take(arity) {
                        *operand = Some(self.pop());
                    }
                    let zero = operands[0].unwrap_or(Value(0));
                    let value = fold(self, operands.map(|operand| operand.unwrap_or(zero)));
                    self.push(value);
                }
                _ => self.step(instruction, ends),
            },
        }
    }

    /// Pops the offset and checks memory, in a state from which the interpreter can execute the instruction. `reads` are
    /// further operands, counted from the top, that must be read before the check: code behind it may not come back.
    fn pop_for_memory(&mut self, instruction: &Instruction, length: u64, reads: &[i32]) -> Value {
        for below in reads {
            self.read(self.height - 1 - below);
        }
        let offset = self.read(self.height - 1);
        let taken = self.section.map_or(0, |section| section.1) - instruction.gas;
        let resume = self.resume(instruction.pc, taken);
        self.statements.push(Statement::Memory {
            offset,
            length,
            resume,
        });
        self.pop()
    }

    fn step(&mut self, instruction: &Instruction, ends: bool) {
        self.close_section();
        self.flush();
        self.statements.push(Statement::Step {
            pc: instruction.pc,
            height: self.height,
            ends,
        });
        let info = instruction.info;
        self.height -= i32::from(info.inputs);
        // What lay above is gone, what is pushed is on the stack.
        self.slots.retain(|slot, _| *slot < self.height);
        self.height += i32::from(info.outputs);
    }

    fn jump(&mut self, instruction: &Instruction, conditional: bool) -> Terminator {
        let target = self.read(self.height - 1);
        let condition = conditional.then(|| self.read(self.height - 2));
        self.close_section();
        let operands = if conditional { 2 } else { 1 };
        let known = self
            .function
            .constant(target)
            .map(|word| usize::try_from(word).unwrap_or(usize::MAX));
        let block = known.map(|pc| self.code.jump_map.get(pc).copied().unwrap_or(0));
        let next = self.index + 1;
        match (block, condition) {
            (Some(block), None) if block > 0 => {
                self.pop();
                self.flush();
                Terminator::Goto {
                    target: block as usize - 1,
                    height: self.height,
                }
            }
            (Some(block), Some(condition)) if block > 0 && next < self.code.blocks.len() => {
                self.pop();
                self.pop();
                self.flush();
                let then = block as usize - 1;
                match self.function.constant(condition) {
                    Some(word) => {
                        let target = if word.is_zero() { next } else { then };
                        Terminator::Goto {
                            target,
                            height: self.height,
                        }
                    }
                    None => Terminator::If {
                        condition,
                        then,
                        otherwise: next,
                        height: self.height,
                    },
                }
            }
            (None, condition) if condition.is_none() || next < self.code.blocks.len() => {
                self.flush();
                Terminator::Jump {
                    target,
                    condition: condition.map(|condition| (condition, next)),
                    pc: instruction.pc,
                    height: self.height,
                    operands,
                    gas: instruction.gas,
                }
            }
            // A jump to where none may, or a JUMPI at the end of the code: the interpreter knows.
            _ => Terminator::Leave(self.resume(instruction.pc, instruction.gas)),
        }
    }
}

type Fold = fn(&mut Builder<'_>, [Value; 3]) -> Value;

/// Operations that depend on nothing but their operands, with their number.
fn arithmetic(op: Op) -> Option<(usize, Fold)> {
    Some(match op {
        Op::Add => (2, |b, [x, y, _]| b.binary(Binary::Add, x, y)),
        Op::Sub => (2, |b, [x, y, _]| b.binary(Binary::Sub, x, y)),
        Op::Mul => (2, |b, [x, y, _]| b.binary(Binary::Mul, x, y)),
        Op::And => (2, |b, [x, y, _]| b.binary(Binary::And, x, y)),
        Op::Or => (2, |b, [x, y, _]| b.binary(Binary::Or, x, y)),
        Op::Xor => (2, |b, [x, y, _]| b.binary(Binary::Xor, x, y)),
        Op::Eq => (2, |b, [x, y, _]| b.binary(Binary::Eq, x, y)),
        Op::Lt => (2, |b, [x, y, _]| b.binary(Binary::Lt, x, y)),
        Op::Gt => (2, |b, [x, y, _]| b.binary(Binary::Gt, x, y)),
        Op::SLt => (2, |b, [x, y, _]| b.binary(Binary::SLt, x, y)),
        Op::SGt => (2, |b, [x, y, _]| b.binary(Binary::SGt, x, y)),
        Op::Shl => (2, |b, [x, y, _]| b.shift(Binary::Shl, Pure::Shl, x, y)),
        Op::Shr => (2, |b, [x, y, _]| b.shift(Binary::Shr, Pure::Shr, x, y)),
        Op::Div => (2, |b, [x, y, _]| b.divide(Binary::Div64, Pure::Div, x, y)),
        Op::Mod => (2, |b, [x, y, _]| b.divide(Binary::Mod64, Pure::Mod, x, y)),
        Op::IsZero => (1, |b, [x, _, _]| b.unary(Unary::IsZero, x)),
        Op::Not => (1, |b, [x, _, _]| b.unary(Unary::Not, x)),
        Op::SDiv => (2, |b, [x, y, _]| b.pure(Pure::SDiv, [x, y, x])),
        Op::SMod => (2, |b, [x, y, _]| b.pure(Pure::SMod, [x, y, x])),
        Op::Sar => (2, |b, [x, y, _]| b.pure(Pure::Sar, [x, y, x])),
        Op::Byte => (2, |b, [x, y, _]| b.pure(Pure::Byte, [x, y, x])),
        Op::SignExtend => (2, |b, [x, y, _]| b.pure(Pure::SignExtend, [x, y, x])),
        Op::Clz => (1, |b, [x, _, _]| b.pure(Pure::Clz, [x, x, x])),
        Op::AddMod => (3, |b, operands| b.pure(Pure::AddMod, operands)),
        Op::MulMod => (3, |b, operands| b.pure(Pure::MulMod, operands)),
        _ => return None,
    })
}

impl Builder<'_> {
    fn known(&self, value: Value) -> Option<U256> {
        self.function.constant(value)
    }

    fn unary(&mut self, unary: Unary, x: Value) -> Value {
        if let Some(word) = self.known(x) {
            let word = match unary {
                Unary::IsZero => U256::from(word.is_zero()),
                Unary::Not => !word,
            };
            return self.constant(word);
        }
        let bits = if unary == Unary::IsZero { 1 } else { 256 };
        self.define(Def::Unary(unary, x), bits)
    }

    fn binary(&mut self, binary: Binary, x: Value, y: Value) -> Value {
        if let (Some(a), Some(b)) = (self.known(x), self.known(y)) {
            return self.constant(evaluate(binary, a, b));
        }
        if let Some(same) = self.identity(binary, x, y) {
            return same;
        }
        let (a, b) = (self.function.bits(x), self.function.bits(y));
        let bits = match binary {
            Binary::Add => (a.max(b) + 1).min(256),
            Binary::Mul => (a + b).min(256),
            Binary::Sub => 256,
            Binary::And => a.min(b),
            Binary::Or | Binary::Xor => a.max(b),
            Binary::Eq | Binary::Lt | Binary::Gt | Binary::SLt | Binary::SGt => 1,
            Binary::Shl => {
                let by = self
                    .known(x)
                    .map_or(256, |by| by.saturating_to::<u16>().min(256));
                (b + by).min(256)
            }
            Binary::Shr => {
                b.saturating_sub(self.known(x).map_or(0, |by| by.saturating_to::<u16>()))
            }
            Binary::Div64 => a,
            Binary::Mod64 => a.min(b),
        };
        self.define(Def::Binary(binary, x, y), bits)
    }

    /// x op y where one operand makes the other, or a known word, the result.
    fn identity(&mut self, binary: Binary, x: Value, y: Value) -> Option<Value> {
        let (a, b) = (self.known(x), self.known(y));
        let zero = Some(U256::ZERO);
        match binary {
            Binary::Add | Binary::Or | Binary::Xor if a == zero => Some(y),
            Binary::Add | Binary::Or | Binary::Xor | Binary::Sub if b == zero => Some(x),
            Binary::Mul | Binary::And if a == zero || b == zero => Some(self.constant(U256::ZERO)),
            Binary::Mul if a == Some(U256::from(1)) => Some(y),
            Binary::Mul if b == Some(U256::from(1)) => Some(x),
            Binary::And if covers(a, self.function.bits(y)) => Some(y),
            Binary::And if covers(b, self.function.bits(x)) => Some(x),
            Binary::Sub | Binary::Xor if x == y => Some(self.constant(U256::ZERO)),
            Binary::And | Binary::Or if x == y => Some(x),
            Binary::Eq if a == zero => Some(self.unary(Unary::IsZero, y)),
            Binary::Eq if b == zero => Some(self.unary(Unary::IsZero, x)),
            Binary::Shl | Binary::Shr if a == zero => Some(y),
            Binary::Shl | Binary::Shr if a.is_some_and(|by| by >= U256::from(256)) => {
                Some(self.constant(U256::ZERO))
            }
            _ => None,
        }
    }

    fn shift(&mut self, binary: Binary, pure: Pure, by: Value, word: Value) -> Value {
        if self.known(by).is_some() {
            self.binary(binary, by, word)
        } else {
            self.pure(pure, [by, word, by])
        }
    }

    fn divide(&mut self, narrow: Binary, pure: Pure, x: Value, y: Value) -> Value {
        if let Some(divisor) = self.known(y).filter(|divisor| divisor.count_ones() == 1) {
            if narrow == Binary::Div64 {
                let by = self.constant(U256::from(divisor.trailing_zeros()));
                return self.binary(Binary::Shr, by, x);
            }
            let mask = self.constant(divisor - U256::from(1));
            return self.binary(Binary::And, x, mask);
        }
        if self.function.bits(x) <= 64 && self.function.bits(y) <= 64 {
            return self.binary(narrow, x, y);
        }
        self.pure(pure, [x, y, x])
    }

    fn pure(&mut self, pure: Pure, operands: [Value; 3]) -> Value {
        if let [Some(a), Some(b), Some(c)] = operands.map(|operand| self.known(operand)) {
            let mut words = [a, b, c];
            crate::pure::evaluate(pure, &mut words);
            return self.constant(words[0]);
        }
        let bits = match pure {
            Pure::Byte => 8,
            Pure::Clz => 9,
            Pure::Div | Pure::Shr => self.function.bits(operands[usize::from(pure == Pure::Shr)]),
            Pure::Mod => self
                .function
                .bits(operands[0])
                .min(self.function.bits(operands[1])),
            _ => 256,
        };
        self.define(Def::Pure(pure, operands), bits)
    }
}

/// Whether the mask keeps every one of `bits` low bits.
fn covers(mask: Option<U256>, bits: u16) -> bool {
    mask.is_some_and(|mask| mask.trailing_ones() >= usize::from(bits))
}

fn evaluate(binary: Binary, a: U256, b: U256) -> U256 {
    let signed_less = |a: U256, b: U256| {
        let flip = U256::from(1) << 255;
        (a ^ flip) < (b ^ flip)
    };
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
        Binary::SLt => U256::from(signed_less(a, b)),
        Binary::SGt => U256::from(signed_less(b, a)),
        Binary::Shl => b << a.saturating_to::<usize>(),
        Binary::Shr => b >> a.saturating_to::<usize>(),
        Binary::Div64 => a.checked_div(b).unwrap_or_default(),
        Binary::Mod64 => a.checked_rem(b).unwrap_or_default(),
    }
}
