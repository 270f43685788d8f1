//! Words in static single assignment form.
//!
//! A value is a word computed once in a region. Slots of the interpreter's stack are counted from the stack's top at
//! the region's root: slot 0 is the first one pushed there, slot -1 what was on top. Where a value must be seen by
//! others (the interpreter, another region) it is written to its slot; everywhere else it stays in registers.
//!
//! The text form of a function ([`core::fmt::Display`]) is what `zvm jit explain` prints and golden tests compare.

use core::fmt;

use alloy_primitives::U256;

use crate::abi::{Env, Field, Helper, Leave, Pure};

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
    /// Passed to a block.
    Param,
    /// The same word, known to be smaller.
    Narrow(Value),
    /// One operand.
    Unary(Unary, Value),
    /// Two operands, the first was on top.
    Binary(Binary, Value, Value),
    /// 32 bytes of memory.
    MLoad(Value),
    /// A field of the frame.
    Field(Field),
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
    /// Signed b >> a, a known
    Sar,
    /// Byte a of b, a known
    Byte,
    /// b with the sign of its byte a extended, a known and below 31
    SignExtend,
    /// a / b, both within 64 bits
    Div64,
    /// a % b, both within 64 bits
    Mod64,
}

/// A value that goes to its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// Where to.
    pub slot: i32,
    /// What.
    pub value: Value,
    /// Another slot that holds the same word: it is copied from there.
    pub copy: Option<i32>,
}

/// What happens in a block, in order.
#[derive(Debug, Clone)]
pub enum Statement {
    /// Takes the static gas of what follows up to the next such statement. Without enough the frame ends: nothing in
    /// between can be seen by anybody.
    Gas(u64),
    /// Computes a word.
    Let(Value),
    /// Writes a slot.
    Write(Write),
    /// Makes sure that memory holds `length` bytes (1 or 32) at the offset, or ends the frame.
    Memory {
        /// First byte.
        offset: Value,
        /// Bytes.
        length: u64,
    },
    /// Stores a word, memory being large enough.
    MStore(Value, Value),
    /// Stores a byte, memory being large enough.
    MStore8(Value, Value),
    /// An operation by Rust on words that lie on the stack, the result being left in the lowest slot.
    Pure {
        /// Which.
        pure: Pure,
        /// The lowest operand's slot.
        slot: i32,
    },
    /// A word about the call or the block, written to a slot.
    Env {
        /// Which.
        env: Env,
        /// Where to.
        slot: i32,
    },
    /// A word of the call's data, written to a slot.
    CallData {
        /// First byte.
        offset: Value,
        /// Where to.
        slot: i32,
    },
    /// An instruction by Rust: its operands lie on the stack up to `height`, its results too.
    Call {
        /// Who executes it.
        helper: Helper,
        /// Offset of the instruction.
        pc: usize,
        /// Height before it.
        height: i32,
        /// The frame ends or waits behind it: nothing follows.
        ends: bool,
    },
}

/// Where an edge goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A block of the region.
    Block(usize),
    /// A root, or a loop header from outside: every word is on the stack.
    Root(usize),
    /// The interpreter, at this pc, for this reason.
    Leave(usize, Leave),
    /// A jump to where none may go ends the frame.
    InvalidJump,
}

/// A way from a block.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Where to.
    pub target: Target,
    /// Height of the stack there, relative to the region's root.
    pub height: i32,
    /// What goes to the stack on the way.
    pub writes: Vec<Write>,
    /// What the block takes.
    pub args: Vec<Value>,
    /// Arguments that must be words of one limb; where one is not, all of `escape` is written and the interpreter goes
    /// on at the target.
    pub guards: Vec<Value>,
    /// See `guards`.
    pub escape: Vec<Write>,
}

/// How a block passes control on.
#[derive(Debug, Clone)]
pub enum Terminator {
    /// One way.
    Goto(Edge),
    /// One of two ways.
    If {
        /// Not zero.
        condition: Value,
        /// Where it is not zero.
        then: Edge,
        /// Where it is.
        otherwise: Edge,
    },
    /// To the block that a word names.
    Jump {
        /// Target pc.
        target: Value,
        /// For JUMPI: not zero, and the way if it is.
        condition: Option<(Value, Edge)>,
        /// What goes to the stack before the jump.
        writes: Vec<Write>,
        /// Height of the stack behind it.
        height: i32,
    },
    /// The last statement ended the frame.
    End,
}

/// How a frame enters a loop from outside.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    /// Parameters in order, with the slot each is read from.
    pub params: Vec<(i32, Value)>,
    /// Slots that must hold a known word.
    pub consts: Vec<(i32, Value)>,
    /// Bytes of memory there must be.
    pub memory: u64,
}

/// A block.
#[derive(Debug)]
pub struct Block {
    /// Offset of its first instruction.
    pub pc: usize,
    /// Height of the stack before it, relative to the region's root.
    pub height: i32,
    /// Words it takes.
    pub params: Vec<Value>,
    /// For loop headers: the way in from outside.
    pub entry: Option<Entry>,
    /// Number of edges within the region that arrive.
    pub arrivals: usize,
    /// What happens.
    pub statements: Vec<Statement>,
    /// How it ends.
    pub terminator: Terminator,
}

/// Blocks that pass words in registers.
#[derive(Debug, Default)]
pub struct Region {
    /// Words below the root that must be there.
    pub needs: i32,
    /// Words above the root for which there must be room.
    pub grows: i32,
    /// The blocks, in an order in which all ways but those of loops go forward.
    pub blocks: Vec<(usize, Block)>,
    /// Words by index.
    pub definitions: Vec<Def>,
    /// How many bits each can have.
    pub bits: Vec<u16>,
}

impl Region {
    /// What a word is.
    pub fn definition(&self, value: Value) -> Def {
        self.definitions[value.0 as usize]
    }

    /// How many bits a word can have.
    pub fn bits(&self, value: Value) -> usize {
        self.bits[value.0 as usize].into()
    }

    /// The word, if it is known.
    pub fn constant(&self, value: Value) -> Option<U256> {
        match self.definition(value) {
            Def::Const(word) => Some(word),
            Def::Narrow(of) => self.constant(of),
            _ => None,
        }
    }

    /// Adds a word.
    pub fn push(&mut self, definition: Def, bits: usize) -> Value {
        self.definitions.push(definition);
        self.bits.push(bits.min(256) as u16);
        Value((self.definitions.len() - 1) as u32)
    }

    /// About how many instructions and blocks of Cranelift's intermediate code lowering makes.
    fn cost(&self) -> (usize, usize) {
        let (mut instructions, mut blocks) = (4, 2);
        for (_, block) in &self.blocks {
            blocks += 1;
            instructions += 2;
            if let Some(entry) = &block.entry {
                instructions += 8 + 6 * (entry.params.len() + entry.consts.len());
            }
            for statement in &block.statements {
                let (more, split) = self.cost_of(statement);
                instructions += more;
                blocks += split;
            }
            let edge = |edge: &Edge| {
                let stacked = edge.writes.len() + edge.escape.len();
                (3 + 6 * stacked + edge.args.len(), usize::from(stacked > 0))
            };
            let edges = match &block.terminator {
                Terminator::Goto(one) => vec![edge(one)],
                Terminator::If {
                    then, otherwise, ..
                } => vec![edge(then), edge(otherwise)],
                Terminator::Jump {
                    condition, writes, ..
                } => {
                    let mut edges = vec![(8 + 6 * writes.len(), 1)];
                    edges.extend(condition.as_ref().map(|(_, one)| edge(one)));
                    edges
                }
                Terminator::End => Vec::new(),
            };
            for (more, split) in edges {
                instructions += more;
                blocks += split;
            }
        }
        (instructions, blocks)
    }

    fn cost_of(&self, statement: &Statement) -> (usize, usize) {
        match statement {
            Statement::Gas(_) => (4, 1),
            Statement::Let(value) => {
                let limbs = self.bits(*value).div_ceil(64).max(1);
                let instructions = match self.definition(*value) {
                    Def::Const(_) | Def::Narrow(_) | Def::Param | Def::Gas => 0,
                    Def::Slot(_) => limbs,
                    Def::Field(_) => 1,
                    Def::MLoad(_) => 10,
                    Def::Unary(..) => 4,
                    Def::Binary(Binary::Mul, x, y) => {
                        let limbs = |value: Value| self.bits(value).div_ceil(64).max(1);
                        6 * limbs(x) * limbs(y)
                    }
                    Def::Binary(..) => 2 * limbs,
                };
                (instructions, 0)
            }
            Statement::Write(write) if write.copy.is_some() => (4, 0),
            Statement::Write(_) => (7, 0),
            Statement::Memory { .. } => (15, 2),
            Statement::MStore(..) => (10, 0),
            Statement::MStore8(..) => (3, 0),
            Statement::Pure { .. } => (3, 0),
            Statement::Env { .. } | Statement::CallData { .. } => (5, 0),
            Statement::Call { .. } => (6, 1),
        }
    }
}

/// A code's regions in order of their roots.
#[derive(Debug, Default)]
pub struct Function {
    /// The regions.
    pub regions: Vec<Region>,
}

impl Function {
    /// About how many instructions and blocks of Cranelift's intermediate code lowering makes.
    pub fn cost(&self) -> (usize, usize) {
        self.regions
            .iter()
            .map(Region::cost)
            .fold((40, 12), |(a, b), (c, d)| (a + c, b + d))
    }
}

/// A word by its name, a known one by its number.
struct Shown<'a>(&'a Region, Value);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.definition(self.1) {
            Def::Const(word) => write!(f, "{word:#x}"),
            Def::Narrow(of) => write!(f, "{}:{}", Shown(self.0, of), self.0.bits(self.1)),
            _ => write!(f, "v{}", self.1.0),
        }
    }
}

impl Region {
    fn show(&self, value: Value) -> Shown<'_> {
        Shown(self, value)
    }

    fn show_definition(&self, f: &mut fmt::Formatter<'_>, value: Value) -> fmt::Result {
        match self.definition(value) {
            Def::Const(word) => write!(f, "{word:#x}")?,
            Def::Slot(slot) => write!(f, "slot {slot}")?,
            Def::Param => write!(f, "param")?,
            Def::Narrow(of) => write!(f, "narrow {}", self.show(of))?,
            Def::Unary(unary, x) => write!(f, "{} {}", name(&unary), self.show(x))?,
            Def::Binary(binary, x, y) => {
                write!(f, "{} {} {}", name(&binary), self.show(x), self.show(y))?;
            }
            Def::MLoad(offset) => write!(f, "mload {}", self.show(offset))?,
            Def::Field(field) => write!(f, "{}", name(&field))?,
            Def::Gas => write!(f, "gas")?,
        }
        match self.bits(value) {
            256 => Ok(()),
            bits => write!(f, " : {bits}"),
        }
    }

    fn show_edge(&self, f: &mut fmt::Formatter<'_>, edge: &Edge) -> fmt::Result {
        match edge.target {
            Target::Block(block) => write!(f, "b{block}")?,
            Target::Root(block) => write!(f, "root b{block} at {}", edge.height)?,
            Target::Leave(pc, _) => write!(f, "leave {pc} at {}", edge.height)?,
            Target::InvalidJump => write!(f, "invalid")?,
        }
        for (index, arg) in edge.args.iter().enumerate() {
            let open = if index == 0 { "(" } else { ", " };
            let guard = if edge.guards.contains(arg) { "?" } else { "" };
            write!(f, "{open}{}{guard}", self.show(*arg))?;
        }
        if !edge.args.is_empty() {
            write!(f, ")")?;
        }
        self.show_writes(f, &edge.writes)
    }

    fn show_writes(&self, f: &mut fmt::Formatter<'_>, writes: &[Write]) -> fmt::Result {
        for (index, write) in writes.iter().enumerate() {
            let open = if index == 0 { " [" } else { ", " };
            write!(f, "{open}{}={}", write.slot, self.show(write.value))?;
        }
        if writes.is_empty() {
            Ok(())
        } else {
            write!(f, "]")
        }
    }

    fn show_statement(&self, f: &mut fmt::Formatter<'_>, statement: &Statement) -> fmt::Result {
        match statement {
            Statement::Gas(gas) => write!(f, "gas {gas}"),
            Statement::Let(value) => {
                write!(f, "v{} = ", value.0)?;
                self.show_definition(f, *value)
            }
            Statement::Write(Write {
                slot,
                value,
                copy: None,
            }) => write!(f, "slot {slot} = {}", self.show(*value)),
            Statement::Write(Write {
                slot,
                copy: Some(from),
                ..
            }) => write!(f, "slot {slot} = slot {from}"),
            Statement::Memory { offset, length } => {
                write!(f, "memory {} {length}", self.show(*offset))
            }
            Statement::MStore(offset, word) => {
                write!(f, "mstore {} {}", self.show(*offset), self.show(*word))
            }
            Statement::MStore8(offset, word) => {
                write!(f, "mstore8 {} {}", self.show(*offset), self.show(*word))
            }
            Statement::Pure { pure, slot } => {
                write!(f, "slot {slot} = {} on the stack", name(pure))
            }
            Statement::Env { env, slot } => write!(f, "slot {slot} = {}", name(env)),
            Statement::CallData { offset, slot } => {
                write!(f, "slot {slot} = calldata {}", self.show(*offset))
            }
            Statement::Call {
                helper,
                pc,
                height,
                ends,
            } => {
                let ends = if *ends { " ends" } else { "" };
                write!(f, "call {} {pc} at {height}{ends}", name(helper))
            }
        }
    }

    fn show_terminator(&self, f: &mut fmt::Formatter<'_>, terminator: &Terminator) -> fmt::Result {
        match terminator {
            Terminator::Goto(edge) => {
                write!(f, "goto ")?;
                self.show_edge(f, edge)
            }
            Terminator::If {
                condition,
                then,
                otherwise,
            } => {
                write!(f, "if {} goto ", self.show(*condition))?;
                self.show_edge(f, then)?;
                write!(f, " else ")?;
                self.show_edge(f, otherwise)
            }
            Terminator::Jump {
                target,
                condition,
                writes,
                height,
            } => {
                if let Some((condition, _)) = condition {
                    write!(f, "if {} ", self.show(*condition))?;
                }
                write!(f, "jump {} at {height}", self.show(*target))?;
                self.show_writes(f, writes)?;
                if let Some((_, edge)) = condition {
                    write!(f, " else ")?;
                    self.show_edge(f, edge)?;
                }
                Ok(())
            }
            Terminator::End => write!(f, "end"),
        }
    }
}

/// A variant's name in the text form.
fn name(variant: &impl fmt::Debug) -> String {
    format!("{variant:?}").to_lowercase()
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root = self.blocks.first().map_or(0, |(index, _)| *index);
        writeln!(
            f,
            "region b{root} needs {} grows {}",
            self.needs, self.grows
        )?;
        for (index, block) in &self.blocks {
            write!(f, "b{index} pc {} height {}", block.pc, block.height)?;
            for (position, param) in block.params.iter().enumerate() {
                let open = if position == 0 { " (" } else { ", " };
                write!(f, "{open}v{} : {}", param.0, self.bits(*param))?;
            }
            writeln!(f, "{}", if block.params.is_empty() { "" } else { ")" })?;
            if let Some(entry) = &block.entry {
                write!(f, "  enter memory {}", entry.memory)?;
                for (slot, value) in &entry.params {
                    write!(f, ", v{} = slot {slot}", value.0)?;
                }
                for (slot, value) in &entry.consts {
                    write!(f, ", slot {slot} is {}", self.show(*value))?;
                }
                writeln!(f)?;
            }
            for statement in &block.statements {
                write!(f, "  ")?;
                self.show_statement(f, statement)?;
                writeln!(f)?;
            }
            write!(f, "  ")?;
            self.show_terminator(f, &block.terminator)?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for region in &self.regions {
            write!(f, "{region}")?;
        }
        Ok(())
    }
}
