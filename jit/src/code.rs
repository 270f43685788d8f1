//! Bytecode as basic blocks.
//!
//! A block starts where control may arrive other than from the instruction before: at the start, at a JUMPDEST that
//! the code names somewhere, behind a JUMPI, behind a call or creation (where the frame resumes). It ends with the
//! instruction that passes control on. A jump to a JUMPDEST that no block starts with is possible and leaves to the
//! interpreter there; so nothing here has to be certain.
//!
//! Each block comes with what it does to the stack, by slots: slot 0 is the first one pushed in the block, slot -1
//! what was on top before.

use core::fmt;

use alloy_primitives::U256;
use zvm_runtimes::isa::{Flags, Isa, JumpDests, Op, OpInfo, disassemble};
use zvm_runtimes::revm::primitives::hardfork::SpecId;

/// An instruction that native code executes itself or by a call back.
#[derive(Debug, Clone, Copy)]
pub struct Instruction {
    /// Offset in the code.
    pub pc: usize,
    /// What it does.
    pub info: &'static OpInfo,
    /// Its immediate.
    pub immediate: U256,
    /// Static gas under the fork.
    pub gas: u64,
}

/// How a block passes control on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Into the block at the next index.
    Fall,
    /// JUMP, which stands last in the block, to the block if the block itself says where.
    Jump(Option<usize>),
    /// JUMPI, which stands last in the block; where it does not jump the next index follows.
    JumpI(Option<usize>),
    /// The last instruction ends or suspends the frame.
    Stop,
    /// What stands at this pc ends the frame by an error, or is the end of the code.
    Halt(usize),
    /// The interpreter goes on at this pc: nothing native knows what stands there.
    Leave(usize),
}

/// Where the word in a slot comes from at the end of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It was in this slot before.
    Slot(i32),
    /// Pushed by the instruction at this index of the block.
    Push(usize),
    /// Computed.
    Other,
}

/// A basic block.
#[derive(Debug, Clone)]
pub struct BasicBlock {
    /// Offset of its first instruction.
    pub pc: usize,
    /// Its instructions.
    pub instructions: Vec<Instruction>,
    /// How it ends.
    pub end: End,
    /// Words below its start that it needs.
    pub needs: i32,
    /// Words above its start that it reaches.
    pub grows: i32,
    /// Words by which the stack is higher behind it.
    pub delta: i32,
    /// Slots that hold something else behind it, up to the height there.
    pub changed: Vec<i32>,
    /// Slots whose word before it an instruction other than a move takes.
    pub read: Vec<i32>,
}

/// Code as blocks in order of `pc`.
#[derive(Debug)]
pub struct Blocks {
    /// The blocks.
    pub blocks: Vec<BasicBlock>,
    /// Per block: the frame may arrive there from outside (start, behind calls, by a computed jump).
    pub entered: Vec<bool>,
    /// Where jumps may go, in order of pc.
    pub jumpdests: Vec<usize>,
}

impl Blocks {
    /// The block that starts at `pc`.
    pub fn at(&self, pc: usize) -> Option<usize> {
        self.blocks.binary_search_by_key(&pc, |block| block.pc).ok()
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (block, entered)) in self.blocks.iter().zip(&self.entered).enumerate() {
            let entered = if *entered { " entered" } else { "" };
            writeln!(
                f,
                "b{index} pc {}{entered} needs {} grows {} delta {} changes {:?} reads {:?}",
                block.pc, block.needs, block.grows, block.delta, block.changed, block.read
            )?;
            for instruction in &block.instructions {
                write!(
                    f,
                    "  {} {}",
                    instruction.pc,
                    instruction.info.mnemonic(Isa::Evm)
                )?;
                if instruction.info.immediate > 0 {
                    write!(f, " {:#x}", instruction.immediate)?;
                }
                writeln!(f, " gas {}", instruction.gas)?;
            }
            match block.end {
                End::Fall => writeln!(f, "  fall")?,
                End::Jump(Some(target)) => writeln!(f, "  jump b{target}")?,
                End::Jump(None) => writeln!(f, "  jump computed")?,
                End::JumpI(Some(target)) => writeln!(f, "  branch b{target}")?,
                End::JumpI(None) => writeln!(f, "  branch computed")?,
                End::Stop => writeln!(f, "  stop")?,
                End::Halt(pc) => writeln!(f, "  halt at {pc}")?,
                End::Leave(pc) => writeln!(f, "  leave at {pc}")?,
            }
        }
        Ok(())
    }
}

/// Splits EVM code into blocks under the rules of a fork.
pub fn blocks(code: &[u8], spec: SpecId) -> Blocks {
    blocks_with(code, spec, &[])
}

/// As [`blocks`], with these places as targets of computed jumps, where they are JUMPDESTs.
pub fn blocks_with(code: &[u8], spec: SpecId, places: &[usize]) -> Blocks {
    let jumpdests = JumpDests::analyse(Isa::Evm, code);
    let instructions: Vec<_> = disassemble(Isa::Evm, code).collect();
    let mut named = vec![false; code.len()];
    for place in places {
        if let Some(name) = named.get_mut(*place) {
            *name = true;
        }
    }
    for instruction in &instructions {
        if instruction
            .info
            .is_some_and(|info| matches!(info.op, Op::Push(_)))
            && let Some(name) = usize::try_from(instruction.value())
                .ok()
                .and_then(|pc| named.get_mut(pc))
        {
            *name = true;
        }
    }
    let mut blocks: Vec<BasicBlock> = Vec::new();
    let mut open: Option<BasicBlock> = None;
    let mut behind_call = false;
    let mut entered = Vec::new();
    for instruction in instructions {
        let pc = instruction.pc;
        if jumpdests.contains(pc)
            && named[pc]
            && let Some(block) = open.take()
        {
            blocks.push(block);
        }
        let block = open.get_or_insert_with(|| {
            entered.push(blocks.is_empty() || behind_call);
            behind_call = false;
            BasicBlock {
                pc,
                instructions: Vec::new(),
                end: End::Fall,
                needs: 0,
                grows: 0,
                delta: 0,
                changed: Vec::new(),
                read: Vec::new(),
            }
        });
        let known = instruction.info.filter(|info| native(info.op));
        let Some((info, gas)) =
            known.and_then(|info| Some((info, info.static_gas(Isa::Evm, spec)?)))
        else {
            // What another fork knows may cost static gas even where it is not active: the interpreter has the order.
            let exists = instruction.info.is_some_and(|info| info.op != Op::Invalid);
            block.end = if exists {
                End::Leave(pc)
            } else {
                End::Halt(pc)
            };
            blocks.extend(open.take());
            continue;
        };
        block.instructions.push(Instruction {
            pc,
            info,
            immediate: instruction.value(),
            gas: gas.into(),
        });
        let suspends = info.has(Flags::SUSPENDS);
        let end = match info.op {
            Op::Jump => Some(End::Jump(None)),
            Op::JumpI => Some(End::JumpI(None)),
            _ if info.has(Flags::TERMINATES) || suspends => Some(End::Stop),
            _ => None,
        };
        if let Some(end) = end {
            block.end = end;
            behind_call = suspends;
            blocks.extend(open.take());
        }
    }
    if let Some(mut block) = open {
        // Behind the code there are zeros: STOP.
        block.end = End::Halt(code.len());
        blocks.push(block);
    }
    let mut blocks = Blocks {
        blocks,
        entered,
        jumpdests: (0..code.len())
            .filter(|pc| jumpdests.contains(*pc))
            .collect(),
    };
    for index in 0..blocks.blocks.len() {
        walk(&mut blocks, index);
    }
    for place in places {
        if blocks.jumpdests.binary_search(place).is_ok()
            && let Some(index) = blocks.at(*place)
        {
            blocks.entered[index] = true;
        }
    }
    blocks
}

/// Whether the compiler knows the operation. The others are left to the interpreter where they stand.
fn native(op: Op) -> bool {
    !matches!(
        op,
        Op::DupN | Op::SwapN | Op::Exchange | Op::DupImm | Op::SwapImm | Op::Invalid | Op::SlotNum
    )
}

/// The stack of a block under construction.
#[derive(Default)]
struct Stack {
    below: Vec<Source>,
    above: Vec<Source>,
    height: i32,
}

impl Stack {
    fn slot(&mut self, slot: i32) -> &mut Source {
        if slot >= 0 {
            let index = slot as usize;
            if index >= self.above.len() {
                self.above.resize(index + 1, Source::Other);
            }
            return &mut self.above[index];
        }
        let index = (-1 - slot) as usize;
        while self.below.len() <= index {
            self.below.push(Source::Slot(-1 - self.below.len() as i32));
        }
        &mut self.below[index]
    }
}

/// Follows the words through a block: what it needs, changes and reads, where it jumps, and which places in the code
/// it leaves on the stack for others to jump to.
fn walk(blocks: &mut Blocks, index: usize) {
    let mut stack = Stack::default();
    let (mut needs, mut grows, mut read) = (0, 0, Vec::new());
    let mut target = None;
    let mut stored = Vec::new();
    let block = &blocks.blocks[index];
    for (position, instruction) in block.instructions.iter().enumerate() {
        let info = instruction.info;
        needs = needs.max(i32::from(info.inputs) - stack.height);
        let top = stack.height - 1;
        match info.op {
            Op::Push(_) => *stack.slot(top + 1) = Source::Push(position),
            Op::Dup(n) => *stack.slot(top + 1) = *stack.slot(top + 1 - i32::from(n)),
            Op::Swap(n) => {
                let (a, b) = (*stack.slot(top), *stack.slot(top - i32::from(n)));
                *stack.slot(top) = b;
                *stack.slot(top - i32::from(n)) = a;
            }
            Op::Pop => {}
            _ => {
                for input in 0..i32::from(info.inputs) {
                    let source = *stack.slot(top - input);
                    if let Source::Slot(slot) = source {
                        read.push(slot);
                    }
                    if info.op == Op::MStore && input == 1 {
                        stored.push(source);
                    }
                }
                if matches!(info.op, Op::Jump | Op::JumpI)
                    && let Source::Push(pushed) = *stack.slot(top)
                {
                    target = Some(block.instructions[pushed].immediate);
                }
                let bottom = top + 1 - i32::from(info.inputs);
                for output in 0..i32::from(info.outputs) {
                    *stack.slot(bottom + output) = Source::Other;
                }
            }
        }
        stack.height += i32::from(info.outputs) - i32::from(info.inputs);
        grows = grows.max(stack.height);
    }
    let changed: Vec<i32> = (-(stack.below.len() as i32)..stack.height.max(0))
        .filter(|slot| *slot < stack.height && *stack.slot(*slot) != Source::Slot(*slot))
        .collect();
    let left = changed
        .iter()
        .map(|slot| *stack.slot(*slot))
        .collect::<Vec<_>>();
    read.sort_unstable();
    read.dedup();
    let names: Vec<usize> = left
        .into_iter()
        .chain(stored)
        .filter_map(|source| match source {
            Source::Push(pushed) => usize::try_from(block.instructions[pushed].immediate).ok(),
            _ => None,
        })
        .collect();
    let target = target
        .and_then(|target| usize::try_from(target).ok())
        .filter(|pc| blocks.jumpdests.binary_search(pc).is_ok())
        .and_then(|pc| blocks.at(pc));
    for pc in names {
        if blocks.jumpdests.binary_search(&pc).is_ok()
            && let Some(name) = blocks.at(pc)
        {
            blocks.entered[name] = true;
        }
    }
    let block = &mut blocks.blocks[index];
    block.end = match block.end {
        End::Jump(_) => End::Jump(target),
        End::JumpI(_) => End::JumpI(target),
        end => end,
    };
    block.needs = needs;
    block.grows = grows;
    block.delta = stack.height;
    block.changed = changed;
    block.read = read;
}

#[cfg(test)]
mod tests {
    use super::*;
    use zvm_runtimes::isa::assemble;

    fn blocks_of(text: &str, spec: SpecId) -> Blocks {
        blocks(&assemble(Isa::Evm, text).unwrap(), spec)
    }

    #[test]
    fn blocks_start_at_named_jumpdests_behind_jumpi_and_behind_calls() {
        let blocks = blocks_of(
            "PUSH1 1 PUSH1 @end JUMPI JUMPDEST PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 CALL POP :end JUMPDEST STOP",
            SpecId::OSAKA,
        );
        let starts: Vec<_> = blocks
            .blocks
            .iter()
            .map(|block| (block.pc, block.end))
            .collect();
        assert_eq!(
            starts,
            [
                (0, End::JumpI(Some(3))),
                (5, End::Stop),
                (14, End::Fall),
                (15, End::Stop)
            ]
        );
        // The jump is direct, so nobody else arrives at the end.
        assert_eq!(blocks.entered, [true, false, true, false]);
    }

    #[test]
    fn a_place_left_on_the_stack_may_be_entered() {
        let blocks = blocks_of(
            "PUSH1 @back PUSH1 @sub JUMP :back JUMPDEST STOP :sub JUMPDEST JUMP",
            SpecId::OSAKA,
        );
        assert_eq!(blocks.entered, [true, true, false]);
        assert_eq!(blocks.blocks[2].end, End::Jump(None));
    }

    #[test]
    fn a_place_that_computed_jumps_were_seen_to_go_to_is_entered_if_one_may_jump_there() {
        let code = assemble(Isa::Evm, "PUSH1 3 PUSH1 5 ADD JUMP STOP STOP JUMPDEST STOP").unwrap();
        let starts = |places: &[usize]| {
            let blocks = blocks_with(&code, SpecId::OSAKA, places);
            let starts = blocks.blocks.iter().zip(&blocks.entered);
            let entered = starts.filter(|(_, entered)| **entered);
            entered.map(|(block, _)| block.pc).collect::<Vec<_>>()
        };
        assert_eq!(starts(&[]), [0]);
        assert_eq!(starts(&[8, 7, 1_000]), [0, 8]);
    }

    #[test]
    fn a_block_says_what_it_changes_and_reads() {
        let blocks = blocks_of("DUP2 ADD SWAP2 POP SWAP1 SWAP1", SpecId::OSAKA);
        let block = &blocks.blocks[0];
        assert_eq!((block.needs, block.grows, block.delta), (3, 1, -1));
        assert_eq!(block.changed, [-3]);
        assert_eq!(block.read, [-2, -1]);
    }

    #[test]
    fn what_a_fork_does_not_know_is_left_to_the_interpreter() {
        let blocks = blocks_of("PUSH1 1 PUSH0", SpecId::LONDON);
        assert_eq!(blocks.blocks[0].end, End::Leave(2));
        let blocks = blocks_of("PUSH1 1 INVALID", SpecId::LONDON);
        assert_eq!(blocks.blocks[0].end, End::Halt(2));
    }
}
