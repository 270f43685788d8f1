//! Bytecode as basic blocks.
//!
//! A block starts where control may arrive other than from the instruction before: at the start, at a JUMPDEST that some
//! jump may take, behind a JUMPI, behind a call or creation (where the frame resumes). It ends with the instruction that
//! passes control on.

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
    /// Into the next block.
    Fall,
    /// JUMP, which stands last in the block.
    Jump,
    /// JUMPI, which stands last in the block.
    JumpI,
    /// The last instruction ends or suspends the frame.
    Stop,
    /// The interpreter executes what stands at this pc: nothing native does.
    Leave(usize),
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
}

/// Code as blocks in order of `pc`.
#[derive(Debug)]
pub struct Blocks {
    /// The blocks.
    pub blocks: Vec<BasicBlock>,
    /// Per byte of code one more than the index of the block that a jump there enters, 0 where none may.
    pub jump_map: Box<[u32]>,
    /// The same for entering from outside: every block may be entered.
    pub entries: Box<[u32]>,
}

/// Splits EVM code into blocks under the rules of a fork.
pub fn blocks(code: &[u8], spec: SpecId) -> Blocks {
    let jumpdests = JumpDests::analyse(Isa::Evm, code);
    let mut blocks: Vec<BasicBlock> = Vec::new();
    let mut open: Option<BasicBlock> = None;
    for instruction in disassemble(Isa::Evm, code) {
        let pc = instruction.pc;
        if jumpdests.contains(pc)
            && let Some(block) = open.take()
        {
            blocks.push(block);
        }
        let block = open.get_or_insert_with(|| BasicBlock {
            pc,
            instructions: Vec::new(),
            end: End::Fall,
        });
        let known = instruction.info.filter(|info| native(info.op));
        let Some((info, gas)) =
            known.and_then(|info| Some((info, info.static_gas(Isa::Evm, spec)?)))
        else {
            block.end = End::Leave(pc);
            blocks.extend(open.take());
            continue;
        };
        block.instructions.push(Instruction {
            pc,
            info,
            immediate: instruction.value(),
            gas: gas.into(),
        });
        let end = match info.op {
            Op::Jump => Some(End::Jump),
            Op::JumpI => Some(End::JumpI),
            _ if info.has(Flags::TERMINATES) || info.has(Flags::SUSPENDS) => Some(End::Stop),
            _ => None,
        };
        if let Some(end) = end {
            block.end = end;
            blocks.extend(open.take());
        }
    }
    if let Some(mut block) = open {
        // Behind the code there are zeros: STOP.
        block.end = End::Leave(code.len());
        blocks.push(block);
    }
    let mut jump_map = vec![0; code.len()].into_boxed_slice();
    let mut entries = vec![0; code.len()].into_boxed_slice();
    for (index, block) in (1..).zip(&blocks) {
        if let Some(entry) = entries.get_mut(block.pc) {
            *entry = index;
            if jumpdests.contains(block.pc) {
                jump_map[block.pc] = index;
            }
        }
    }
    Blocks {
        blocks,
        jump_map,
        entries,
    }
}

/// Whether the compiler knows the operation. The others are left to the interpreter where they stand.
fn native(op: Op) -> bool {
    !matches!(
        op,
        Op::DupN | Op::SwapN | Op::Exchange | Op::DupImm | Op::SwapImm | Op::Invalid | Op::SlotNum
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use zvm_runtimes::isa::assemble;

    #[test]
    fn blocks_start_at_jumpdests_behind_jumpi_and_behind_calls() {
        let code = assemble(
            Isa::Evm,
            "PUSH1 1 PUSH1 @end JUMPI PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 CALL POP :end JUMPDEST STOP",
        )
        .unwrap();
        let blocks = blocks(&code, SpecId::OSAKA);
        let starts: Vec<_> = blocks
            .blocks
            .iter()
            .map(|block| (block.pc, block.end))
            .collect();
        assert_eq!(
            starts,
            [
                (0, End::JumpI),
                (5, End::Stop),
                (13, End::Fall),
                (14, End::Stop)
            ]
        );
        assert_eq!(blocks.jump_map[14], 4);
        assert_eq!(blocks.jump_map[13], 0);
        assert_eq!(blocks.entries[13], 3);
    }

    #[test]
    fn what_a_fork_does_not_know_is_left_to_the_interpreter() {
        let code = assemble(Isa::Evm, "PUSH1 1 PUSH0").unwrap();
        let blocks = blocks(&code, SpecId::LONDON);
        assert_eq!(blocks.blocks[0].end, End::Leave(2));
    }
}
