//! The interpreter's instruction table: revm's, with the entries that have a faster way to the same result.

use alloy_primitives::KECCAK256_EMPTY;
use revm::bytecode::opcode::KECCAK256;
use revm::context_interface::Host;
use revm::handler::instructions::EthInstructions;
use revm::interpreter::interpreter::{EthInterpreter, resize_memory};
use revm::interpreter::{
    Instruction, InstructionContext, InstructionExecResult, as_usize_or_fail, gas, popn_top,
};
use revm::primitives::hardfork::SpecId;

use super::keccak::keccak256;
use super::machine::{Context, Instructions};

/// The table of `spec`.
pub(super) fn instructions<'a>(spec: SpecId) -> Instructions<'a> {
    let mut instructions = EthInstructions::new_mainnet_with_spec(spec);
    instructions.instruction_table_mut()[usize::from(KECCAK256)] = Instruction::new(hash);
    instructions
}

/// KECCAK256: gas, growth of memory and errors in revm's order.
fn hash<'a>(context: InstructionContext<'_, Context<'a>, EthInterpreter>) -> InstructionExecResult {
    popn_top!([offset], top, context.interpreter);
    let len = as_usize_or_fail!(context.interpreter, *top);
    gas!(
        context.interpreter,
        context.host.gas_params().keccak256_cost(len)
    );
    let hash = if len == 0 {
        KECCAK256_EMPTY
    } else {
        let from = as_usize_or_fail!(context.interpreter, offset);
        resize_memory(
            &mut context.interpreter.gas,
            &mut context.interpreter.memory,
            context.host.gas_params(),
            from,
            len,
        )?;
        keccak256(context.interpreter.memory.slice_len(from, len).as_ref())
    };
    *top = hash.into();
    Ok(())
}
