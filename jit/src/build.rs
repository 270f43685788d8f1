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

mod ends;
mod instructions;
mod meet;

use std::collections::{HashMap, HashSet};

use alloy_primitives::U256;

use crate::abi::Leave;
use crate::code::Blocks;
use crate::compiler::Level;
use crate::flow::Flow;
use crate::fold::Folder;
use crate::ir::{Block, Function, Region, Statement, Target, Terminator, Value};
use crate::profile::Profile;
use crate::state::State;

/// Wide words that a block takes in registers: more would be spilled.
const WIDE: usize = 4;
/// Words that the stack has room for.
const STACK: i32 = 1024;
/// Translations of a region until every parameter of a loop is taken to be wide.
const ROUNDS: usize = 6;

/// How to translate.
#[derive(Debug, Clone, Copy)]
pub struct Options<'p> {
    /// How much code may be made in line.
    pub level: Level,
    /// Every guard also fails by the frame's counter.
    pub stress: bool,
    /// What was seen of the code.
    pub profile: Option<&'p Profile>,
}

/// Translates all regions.
pub fn translate(code: &Blocks, flow: &Flow, code_len: usize, options: Options<'_>) -> Function {
    let regions = (0..flow.regions.len())
        .map(|index| region(code, flow, code_len, options, index))
        .collect();
    Function { regions }
}

fn region(
    code: &Blocks,
    flow: &Flow,
    code_len: usize,
    options: Options<'_>,
    index: usize,
) -> Region {
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
    options: Options<'a>,
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
        options: Options<'a>,
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
            terminator: Terminator::Goto(self.outward(Target::Leave(pc, Leave::Stack), &state)),
        };
        self.region.blocks.push((root, block));
    }
}
