//! Blocks to words: one region at a time.
//!
//! Within a block, moves (DUP, SWAP, POP, PUSH) cost nothing. A block with one way in goes on with the state of the
//! block before it. Where ways join, a slot that differs becomes a parameter if it is narrow, and goes to the stack if
//! it is wide. A loop header is entered from outside, too, so nothing from before the loop may be used in it but by
//! its slots: those that the loop changes become parameters, the others are left on the stack, where reading them costs
//! little.
//!
//! How wide a parameter of a loop is, is first assumed from what enters the loop, then checked at the loop's end: a
//! counter that only a small constant is added to is guarded there (the interpreter goes on if it needs a second limb);
//! anything else that got wider makes the region be translated again.

use std::collections::{HashMap, HashSet};

use alloy_primitives::U256;
use zvm_runtimes::isa::{Flags, Op};

use crate::abi::{Env, Field, Helper, Pure};
use crate::code::{BasicBlock, Blocks, End, Instruction};
use crate::compiler::Level;
use crate::flow::Flow;
use crate::fold::{self, Folder};
use crate::ir::{
    Binary, Block, Def, Edge, Entry, Function, Region, Statement, Target, Terminator, Unary, Value,
};
use crate::state::{Slot, State};

/// Wide words that a block takes in registers: more would be spilled.
const WIDE: usize = 4;
/// Words that the stack has room for.
const STACK: i32 = 1024;
/// Translations of a region until every parameter of a loop is taken to be wide.
const ROUNDS: usize = 6;

/// How to translate.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How much code may be made in line.
    pub level: Level,
    /// Every guard also fails by the frame's counter.
    pub stress: bool,
}

/// Translates all regions.
pub fn translate(code: &Blocks, flow: &Flow, code_len: usize, options: Options) -> Function {
    let regions = (0..flow.regions.len())
        .map(|index| region(code, flow, code_len, options, index))
        .collect();
    Function { regions }
}

fn region(code: &Blocks, flow: &Flow, code_len: usize, options: Options, index: usize) -> Region {
    let (mut wide, mut counters) = (HashSet::new(), HashSet::new());
    for round in 0.. {
        let mut builder = Builder::new(code, flow, code_len, options, index);
        (builder.wide, builder.counters) = (wide, counters);
        builder.all_wide = round == ROUNDS;
        builder.translate();
        let again = !builder.wider.is_empty() || !builder.counting.is_empty();
        if !again || builder.all_wide && builder.wider.is_empty() {
            return builder.region;
        }
        (wide, counters) = (builder.wide, builder.counters);
        wide.extend(builder.wider);
        counters.extend(builder.counting);
    }
    unreachable!("nothing gets wider than wide")
}

/// One way into a block that is not yet translated.
struct Arrival {
    /// Position of the block it comes from.
    from: usize,
    /// Its first or second edge.
    second: bool,
    state: State,
}

/// What a loop header does with a slot.
#[derive(Clone, Copy)]
enum Kept {
    Param(Value),
    /// Known, and on the stack if so.
    Known(bool),
    Stack,
}

struct Builder<'a> {
    code: &'a Blocks,
    flow: &'a Flow,
    code_len: usize,
    options: Options,
    index: usize,
    region: Region,
    constants: HashMap<U256, Value>,
    arrivals: HashMap<usize, Vec<Arrival>>,
    headers: HashMap<usize, Vec<(i32, Kept)>>,
    /// Slots that instructions of the region read.
    read: HashSet<i32>,
    /// Parameters (header, slot) that are wide, as found before and in this translation.
    wide: HashSet<(usize, i32)>,
    wider: HashSet<(usize, i32)>,
    /// Wide parameters that a turn of their loop only adds a small constant to, as found before and in this translation.
    counters: HashSet<(usize, i32)>,
    counting: HashSet<(usize, i32)>,
    all_wide: bool,
    // The block under construction.
    statements: Vec<Statement>,
    state: State,
    /// The statement that takes the gas of what follows.
    section: Option<usize>,
    in_loop: bool,
}

impl<'a> Builder<'a> {
    fn new(
        code: &'a Blocks,
        flow: &'a Flow,
        code_len: usize,
        options: Options,
        index: usize,
    ) -> Self {
        let shape = &flow.regions[index];
        let mut read = HashSet::new();
        for block in &shape.blocks {
            let height = flow.place[*block].map_or(0, |(_, height)| height);
            read.extend(code.blocks[*block].read.iter().map(|slot| slot + height));
        }
        Self {
            code,
            flow,
            code_len,
            options,
            index,
            region: Region {
                needs: shape.needs,
                grows: shape.grows,
                ..Region::default()
            },
            constants: HashMap::new(),
            arrivals: HashMap::new(),
            headers: HashMap::new(),
            read,
            wide: HashSet::new(),
            wider: HashSet::new(),
            counters: HashSet::new(),
            counting: HashSet::new(),
            all_wide: false,
            statements: Vec::new(),
            state: State::default(),
            section: None,
            in_loop: false,
        }
    }

    fn fold(&mut self) -> Folder<'_> {
        Folder {
            region: &mut self.region,
            statements: &mut self.statements,
            constants: &mut self.constants,
        }
    }

    fn translate(&mut self) {
        if self.region.grows > STACK || self.region.needs > STACK {
            return self.never_entered();
        }
        let blocks = &self.flow.regions[self.index].blocks;
        for (position, block) in blocks.iter().enumerate() {
            self.in_loop = self.flow.depth[*block] > 0;
            let arrivals = self.arrivals.remove(block).unwrap_or_default();
            let count = arrivals.len();
            let height = self.flow.place[*block].map_or(0, |(_, height)| height);
            let mut params = Vec::new();
            let mut entry = None;
            self.state = if let Some(shape) = &self.flow.loops[*block] {
                let (state, way_in) = self.header(*block, &shape.changed, height, arrivals);
                params.extend(way_in.params.iter().map(|(_, value)| *value));
                entry = Some(way_in);
                state
            } else if position == 0 {
                State::at(0)
            } else {
                let mut arrivals = arrivals;
                match arrivals.len() {
                    // A condition was known, and nobody comes here.
                    0 => continue,
                    1 => arrivals.remove(0).state,
                    _ => self.join(height, arrivals, &mut params),
                }
            };
            self.section = None;
            let basic = &self.code.blocks[*block];
            // The block gets its place now, for loops of a single block.
            self.region.blocks.push((
                *block,
                Block {
                    pc: basic.pc,
                    height,
                    params,
                    entry,
                    arrivals: count,
                    statements: Vec::new(),
                    terminator: Terminator::End,
                },
            ));
            let terminator = self.block(basic, *block);
            let place = self.region.blocks.len() - 1;
            let built = &mut self.region.blocks[place].1;
            built.statements = core::mem::take(&mut self.statements);
            built.terminator = terminator;
        }
    }

    /// No stack has the words or the room that the region needs: its root leaves at once.
    fn never_entered(&mut self) {
        let root = self.flow.regions[self.index].blocks[0];
        let pc = self.code.blocks[root].pc;
        let state = State::at(0);
        let block = Block {
            pc,
            height: 0,
            params: Vec::new(),
            entry: None,
            arrivals: 0,
            statements: Vec::new(),
            terminator: Terminator::Goto(self.outward(Target::Leave(pc), &state)),
        };
        self.region.blocks.push((root, block));
    }

    // Where ways meet.

    fn edge_mut(&mut self, arrival: &Arrival) -> Option<&mut Edge> {
        match &mut self.region.blocks[arrival.from].1.terminator {
            Terminator::Goto(edge) => Some(edge),
            Terminator::If {
                then, otherwise, ..
            } => Some(if arrival.second { otherwise } else { then }),
            Terminator::Jump {
                condition: Some((_, edge)),
                ..
            } => Some(edge),
            Terminator::Jump { .. } | Terminator::End => None,
        }
    }

    /// A slot goes to the stack on every way on which it is not there.
    fn write_back(&mut self, slot: i32, arrivals: &[Arrival]) {
        for arrival in arrivals {
            if let Some(write) = arrival.state.write(slot, &self.region)
                && let Some(edge) = self.edge_mut(arrival)
            {
                edge.writes.push(write);
            }
        }
    }

    /// A slot becomes a parameter; where it has more bits than the parameter, the way is guarded.
    fn pass(&mut self, slot: i32, bits: usize, arrivals: &[Arrival]) -> Value {
        for arrival in arrivals {
            let value = match arrival.state.get(slot) {
                Slot::Value { value, .. } => value,
                Slot::Stack(bits) => {
                    let value = self.region.push(Def::Slot(slot), bits.into());
                    let block = &mut self.region.blocks[arrival.from].1;
                    block.statements.push(Statement::Let(value));
                    value
                }
            };
            let guarded = self.region.bits(value) > bits;
            let escape = guarded.then(|| arrival.state.writes(&self.region));
            if let Some(edge) = self.edge_mut(arrival) {
                edge.args.push(value);
                if let Some(escape) = escape {
                    edge.guards.push(value);
                    edge.escape = escape;
                }
            }
        }
        self.region.push(Def::Param, bits)
    }

    fn join(&mut self, height: i32, arrivals: Vec<Arrival>, params: &mut Vec<Value>) -> State {
        let mut state = State::at(height);
        let states = || arrivals.iter().map(|arrival| &arrival.state);
        let low = states().map(State::low).min().unwrap_or(height);
        let mut wide = 0;
        for slot in low..height {
            let first = arrivals[0].state.get(slot);
            let all = |test: &dyn Fn(Slot) -> bool| states().all(|state| test(state.get(slot)));
            let bits = states()
                .map(|state| state.get(slot).bits(&self.region))
                .max()
                .unwrap_or(256);
            let entry = if let Slot::Value { value, .. } = first
                && all(&|entry| entry.value() == Some(value))
            {
                let clean = all(&|entry| !entry.is_dirty());
                Slot::Value { value, clean }
            } else if all(&|entry| !entry.is_dirty()) {
                Slot::Stack(bits as u16)
            } else if all(&|entry| entry.value().is_some())
                && (bits <= 64 || self.in_loop && wide < WIDE)
            {
                wide += usize::from(bits > 64);
                let value = self.pass(slot, bits, &arrivals);
                params.push(value);
                Slot::Value {
                    value,
                    clean: false,
                }
            } else {
                self.write_back(slot, &arrivals);
                Slot::Stack(bits as u16)
            };
            if entry != Slot::Stack(256) {
                state.set(slot, entry);
            }
        }
        state.memory = states().map(|state| state.memory).min().unwrap_or(0);
        state.words = arrivals[0].state.words.clone();
        state
            .words
            .retain(|word| states().all(|state| state.words.contains(word)));
        state
    }

    fn header(
        &mut self,
        block: usize,
        changed: &[i32],
        height: i32,
        arrivals: Vec<Arrival>,
    ) -> (State, Entry) {
        let mut state = State::at(height);
        let mut entry = Entry::default();
        let mut kept = Vec::new();
        let states = || arrivals.iter().map(|arrival| &arrival.state);
        let low = states()
            .map(State::low)
            .chain(changed.first().copied())
            .chain(self.read.iter().copied())
            .min()
            .unwrap_or(height);
        let mut wide = 0;
        for slot in low..height {
            let read = self.read.contains(&slot);
            let bits = states()
                .map(|state| state.get(slot).bits(&self.region))
                .max()
                .unwrap_or(256);
            let place = (block, slot);
            let narrow = !self.all_wide
                && !self.wide.contains(&place)
                && (bits <= 64
                    || self.counters.contains(&place) && !self.begins_wide(slot, &arrivals));
            let known = arrivals
                .first()
                .and_then(|first| first.state.get(slot).value())
                .filter(|value| {
                    self.region.constant(*value).is_some()
                        && states().all(|state| state.get(slot).value() == Some(*value))
                });
            let keep = if !read {
                Kept::Stack
            } else if changed.binary_search(&slot).is_err() {
                match known {
                    Some(value) => {
                        let clean = states().all(|state| !state.get(slot).is_dirty());
                        state.set(slot, Slot::Value { value, clean });
                        entry.consts.push((slot, value));
                        Kept::Known(clean)
                    }
                    None if narrow && bits <= 64 => Kept::Param(self.pass(slot, 64, &arrivals)),
                    None => Kept::Stack,
                }
            } else if narrow {
                Kept::Param(self.pass(slot, 64, &arrivals))
            } else if wide < WIDE {
                wide += 1;
                Kept::Param(self.pass(slot, 256, &arrivals))
            } else {
                Kept::Stack
            };
            match keep {
                Kept::Param(value) => {
                    entry.params.push((slot, value));
                    let clean = false;
                    state.set(slot, Slot::Value { value, clean });
                }
                Kept::Stack => self.write_back(slot, &arrivals),
                Kept::Known(_) => {}
            }
            kept.push((slot, keep));
        }
        state.memory = states().map(|state| state.memory).min().unwrap_or(0);
        entry.memory = state.memory;
        self.headers.insert(block, kept);
        (state, entry)
    }

    /// The way back to a loop's header.
    fn back_edge(&mut self, block: usize, state: State) -> Edge {
        let mut edge = self.plain(Target::Block(block), &state);
        let kept = self.headers.get(&block).cloned().unwrap_or_default();
        let mut guarded = self.options.stress;
        for (slot, keep) in kept {
            let held = state.get(slot);
            match keep {
                Kept::Stack | Kept::Known(true) => {
                    edge.writes.extend(state.write(slot, &self.region));
                }
                Kept::Known(false) => {}
                Kept::Param(param) => {
                    let value = match held {
                        Slot::Value { value, .. } => value,
                        Slot::Stack(bits) => self.fold().define(Def::Slot(slot), bits.into()),
                    };
                    let place = (block, slot);
                    if self.region.bits(param) > 64
                        && !self.wide.contains(&place)
                        && self.steps(value, param)
                    {
                        self.counting.insert(place);
                    }
                    if self.region.bits(value) > self.region.bits(param) {
                        if self.counts(value) {
                            guarded = true;
                            edge.guards.push(value);
                        } else {
                            self.wider.insert(place);
                        }
                    }
                    edge.args.push(value);
                }
            }
        }
        if guarded {
            edge.escape = state.writes(&self.region);
        }
        edge
    }

    /// Whether a word is one of one limb with a small constant added or subtracted: it will not need a second limb
    /// before the sun burns out.
    fn counts(&self, value: Value) -> bool {
        let Def::Binary(binary @ (Binary::Add | Binary::Sub), x, y) = self.region.definition(value)
        else {
            return false;
        };
        let small = |value: Value| {
            self.region
                .constant(value)
                .is_some_and(|word| word.bit_len() <= 32)
        };
        let narrow = |value: Value| self.region.bits(value) <= 64;
        match binary {
            Binary::Sub => narrow(x) && small(y),
            _ => small(x) && narrow(y) || narrow(x) && small(y),
        }
    }

    /// Whether a slot is known to need more than one limb on some way: a counter that begins below zero, for one.
    fn begins_wide(&self, slot: i32, arrivals: &[Arrival]) -> bool {
        arrivals.iter().any(|arrival| {
            let value = arrival.state.get(slot).value();
            value
                .and_then(|value| self.region.constant(value))
                .is_some_and(|word| word.bit_len() > 64)
        })
    }

    /// Whether a word is another with a small constant added or subtracted.
    fn steps(&self, value: Value, from: Value) -> bool {
        let Def::Binary(binary @ (Binary::Add | Binary::Sub), x, y) = self.region.definition(value)
        else {
            return false;
        };
        let small = |value: Value| {
            self.region
                .constant(value)
                .is_some_and(|word| word.bit_len() <= 32)
        };
        let same =
            |value: Value| value == from || self.region.definition(value) == Def::Narrow(from);
        same(x) && small(y) || binary == Binary::Add && same(y) && small(x)
    }

    fn plain(&self, target: Target, state: &State) -> Edge {
        Edge {
            target,
            height: state.height,
            writes: Vec::new(),
            args: Vec::new(),
            guards: Vec::new(),
            escape: Vec::new(),
        }
    }

    /// A way out of the region.
    fn outward(&self, target: Target, state: &State) -> Edge {
        let mut edge = self.plain(target, state);
        edge.writes = state.writes(&self.region);
        edge
    }

    /// A way that [`crate::flow`] knows.
    fn edge(&mut self, target: usize, state: State, second: bool) -> Edge {
        if target >= self.code.blocks.len() {
            return self.outward(Target::Leave(self.code_len), &state);
        }
        let looped = self.flow.loops[target].is_some();
        let root = self.flow.place[target]
            .is_some_and(|(region, _)| self.flow.regions[region].blocks.first() == Some(&target));
        if self.flow.place[target] == Some((self.index, state.height)) && (!root || looped) {
            if self.headers.contains_key(&target) {
                return self.back_edge(target, state);
            }
            let edge = self.plain(Target::Block(target), &state);
            let from = self.region.blocks.len() - 1;
            self.arrivals.entry(target).or_default().push(Arrival {
                from,
                second,
                state,
            });
            return edge;
        }
        self.outside(target, &state)
    }

    /// A way to a block as anybody from outside its region takes it.
    fn outside(&self, target: usize, state: &State) -> Edge {
        let (root, never) = self.flow.place[target].map_or((false, true), |(region, _)| {
            let region = &self.flow.regions[region];
            let root = region.blocks.first() == Some(&target);
            (root, region.grows > STACK || region.needs > STACK)
        });
        if root || self.flow.loops[target].is_some() && !never {
            return self.outward(Target::Root(target), state);
        }
        self.outward(Target::Leave(self.code.blocks[target].pc), state)
    }

    // Within a block.

    fn block(&mut self, block: &BasicBlock, index: usize) -> Terminator {
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
            End::Leave(pc) => Terminator::Goto(self.outward(Target::Leave(pc), &state)),
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
    fn charge(&mut self, instruction: &Instruction) {
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

    fn read(&mut self, slot: i32) -> Value {
        match self.state.get(slot) {
            Slot::Value { value, .. } => value,
            Slot::Stack(bits) => {
                let value = self.fold().define(Def::Slot(slot), bits.into());
                self.state.set(slot, Slot::Value { value, clean: true });
                value
            }
        }
    }

    fn write(&mut self, slot: i32, value: Value) {
        let clean = false;
        self.state.set(slot, Slot::Value { value, clean });
    }

    fn push(&mut self, value: Value) {
        self.write(self.state.height, value);
        self.state.height += 1;
    }

    fn pop(&mut self) -> Value {
        let top = self.state.height - 1;
        let value = self.read(top);
        self.state.drop_to(top);
        value
    }

    /// What is pushed lies on the stack already.
    fn pushed(&mut self, bits: u16) {
        self.state.set(self.state.height, Slot::Stack(bits));
        self.state.height += 1;
    }

    fn write_slot(&mut self, slot: i32) {
        if let Some(write) = self.state.write(slot, &self.region) {
            self.statements.push(Statement::Write(write));
            let (value, clean) = (write.value, true);
            self.state.set(slot, Slot::Value { value, clean });
        }
    }

    fn known_at(&self, slot: i32) -> Option<U256> {
        self.region.constant(self.state.get(slot).value()?)
    }

    fn instruction(&mut self, instruction: &Instruction) {
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

    fn push_known(&mut self, word: U256) {
        let value = self.fold().constant(word);
        self.push(value);
    }

    fn push_defined(&mut self, definition: Def, bits: usize) {
        let value = self.fold().define(definition, bits);
        self.push(value);
    }

    fn environment(&mut self, env: Env, bits: u16) {
        let slot = self.state.height;
        self.statements.push(Statement::Env { env, slot });
        self.pushed(bits);
    }

    /// An operation by Rust, or in line where the words allow it.
    fn pure(&mut self, pure: Pure) {
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
    fn memory(&mut self, offset: Value, length: u64) -> Value {
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

    fn known_offset(&self, offset: Value) -> Option<u64> {
        self.region
            .constant(offset)
            .and_then(|offset| u64::try_from(offset).ok())
    }

    fn mload(&mut self) {
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

    fn mstore(&mut self) {
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
    fn call(&mut self, instruction: &Instruction, helper: Helper, ends: bool) {
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

    // How a block ends.

    fn jump(&mut self, target: Option<usize>) -> Terminator {
        let word = self.pop();
        let state = core::mem::take(&mut self.state);
        match self.resolve(target, word, state) {
            Ok(edge) => Terminator::Goto(edge),
            Err(state) => Terminator::Jump {
                target: word,
                condition: None,
                writes: state.writes(&self.region),
                height: state.height,
            },
        }
    }

    fn jump_if(&mut self, target: Option<usize>, index: usize) -> Terminator {
        let word = self.pop();
        let condition = self.pop();
        let state = core::mem::take(&mut self.state);
        if let Some(known) = self.region.constant(condition) {
            if known.is_zero() {
                return Terminator::Goto(self.edge(index + 1, state, false));
            }
            return match self.resolve(target, word, state) {
                Ok(edge) => Terminator::Goto(edge),
                Err(state) => Terminator::Jump {
                    target: word,
                    condition: None,
                    writes: state.writes(&self.region),
                    height: state.height,
                },
            };
        }
        let (mut taken, mut passed) = (state.clone(), state);
        self.refine(condition, true, &mut taken);
        self.refine(condition, false, &mut passed);
        match self.resolve(target, word, taken) {
            Ok(then) => {
                let otherwise = self.edge(index + 1, passed, true);
                Terminator::If {
                    condition,
                    then,
                    otherwise,
                }
            }
            Err(taken) => {
                let otherwise = self.edge(index + 1, passed, true);
                Terminator::Jump {
                    target: word,
                    condition: Some((condition, otherwise)),
                    writes: taken.writes(&self.region),
                    height: taken.height,
                }
            }
        }
    }

    /// The edge of a jump, if its target is known; the state back if not.
    fn resolve(&mut self, target: Option<usize>, word: Value, state: State) -> Result<Edge, State> {
        if let Some(target) = target {
            return Ok(self.edge(target, state, false));
        }
        let Some(known) = self.region.constant(word) else {
            return Err(state);
        };
        let jumpdest = usize::try_from(known)
            .ok()
            .filter(|pc| self.code.jumpdests.binary_search(pc).is_ok());
        Ok(match jumpdest {
            None => self.plain(Target::InvalidJump, &state),
            Some(pc) => match self.code.at(pc) {
                Some(block) => self.outside(block, &state),
                None => self.outward(Target::Leave(pc), &state),
            },
        })
    }

    /// What a condition says about the words it compares.
    fn refine(&mut self, condition: Value, holds: bool, state: &mut State) {
        match self.region.definition(condition) {
            Def::Unary(Unary::IsZero, x) => {
                if self.region.bits(x) == 1 {
                    self.refine(x, !holds, state);
                } else if holds {
                    let zero = self.fold().constant(U256::ZERO);
                    state.replace(x, zero);
                }
            }
            Def::Binary(Binary::Lt, a, b) => self.bound(a, b, holds, state),
            Def::Binary(Binary::Gt, a, b) => self.bound(b, a, holds, state),
            Def::Binary(Binary::Eq, a, b) if holds => {
                self.narrow(a, self.region.bits(b), state);
                self.narrow(b, self.region.bits(a), state);
            }
            _ => {}
        }
    }

    /// a < b, or not.
    fn bound(&mut self, a: Value, b: Value, less: bool, state: &mut State) {
        let (small, large) = if less { (a, b) } else { (b, a) };
        self.narrow(small, self.region.bits(large), state);
    }

    fn narrow(&mut self, value: Value, bits: usize, state: &mut State) {
        if bits <= 64 && bits < self.region.bits(value) && self.region.constant(value).is_none() {
            let narrow = self.region.push(Def::Narrow(value), bits);
            state.replace(value, narrow);
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
