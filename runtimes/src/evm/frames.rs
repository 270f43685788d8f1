//! The loop over the frames of a transaction.
//!
//! revm's loop passes every call and every result through four functions, copies them at each, keeps what was asked for
//! beside what it became, and looks every callee up among the precompiles. Here a message call between contracts goes
//! from the interpreter's action into the callee's frame, and its result from the action into the caller's stack, memory
//! and gas. Everything else (creations, precompiles, the first frame, EIP-8037's state gas) goes revm's way, which alone
//! has those rules.

use core::marker::PhantomData;

use alloy_primitives::{Bytes, U256};
use revm::context::result::{EVMError, HaltReason, InvalidTransaction};
use revm::context::{BlockEnv, Evm, FrameStack, TxEnv};
use revm::context_interface::context::take_error;
use revm::context_interface::{Cfg as _, JournalTr as _, Transaction as _};
use revm::handler::evm::{ContextDbError, FrameInitResult};
use revm::handler::{
    CallFrame, EthFrame, EthPrecompiles, EvmTr, FrameData, FrameInitOrResult, FrameResult, Handler,
    ItemOrResult, handle_reservoir_remaining_gas, post_execution, pre_execution,
};
use revm::interpreter::interpreter::{EthInterpreter, ExtBytecode, InputsImpl};
use revm::interpreter::interpreter_action::FrameInit;
use revm::interpreter::interpreter_types::ReturnData as _;
use revm::interpreter::{
    CallInputs, CallValue, FrameInput, Gas, InitialAndFloorGas, InstructionResult,
    InterpreterAction, InterpreterResult,
};
use revm::primitives::constants::CALL_STACK_LIMIT;
use revm::primitives::hardfork::SpecId;
use revm::primitives::short_address;

use super::machine::{Context, FrameRunner, Instructions};
use super::state::ReadError;

pub(super) type Frame = EthFrame<EthInterpreter>;
pub(super) type MachineEvm<'a, I> = Evm<Context<'a>, I, Instructions<'a>, EthPrecompiles, Frame>;
pub(super) type EvmError = EVMError<ReadError, InvalidTransaction>;

/// revm's machine with the frames run by the loop of this module, natively where `runner` does so.
pub(super) struct Frames<'m, 'a> {
    pub(super) evm: &'m mut MachineEvm<'a, ()>,
    pub(super) runner: Option<&'m dyn FrameRunner>,
    /// Set once frames were nested deeper than [`KEPT_DEPTH`].
    pub(super) deep: &'m mut bool,
}

/// Frames that are worth keeping for later transactions: 32 KiB of stack each.
const KEPT_DEPTH: usize = 64;

impl<'a> Frames<'_, 'a> {
    /// Runs the current frame until it ends or asks for another.
    #[inline]
    fn run(&mut self) -> InterpreterAction {
        let frame = self.evm.frame_stack.get();
        let (context, instructions) = (&mut self.evm.ctx, &self.evm.instruction);
        match self.runner {
            Some(runner) => {
                runner.run(&mut frame.interpreter, context, instructions);
                frame.interpreter.take_next_action()
            }
            None => frame.interpreter.run_plain(
                instructions.instruction_table(),
                instructions.gas_table(),
                context,
            ),
        }
    }

    /// Begins a message call of the current frame: the callee's frame becomes the current one, or the call has ended at once.
    #[inline]
    fn call(&mut self, inputs: Box<CallInputs>) -> Result<(), EvmError> {
        let Evm {
            ctx, frame_stack, ..
        } = &mut *self.evm;
        let caller = frame_stack.get();
        let depth = caller.depth + 1;
        *self.deep |= depth >= KEPT_DEPTH;
        let inputs = *inputs;
        let checkpoint = ctx.journaled_state.checkpoint();
        let mut refused = None;
        if let CallValue::Transfer(value) = inputs.value {
            refused = ctx
                .journaled_state
                .transfer_loaded(inputs.caller, inputs.target_address, value)
                .map(InstructionResult::from);
        }
        let (hash, bytecode) = inputs.known_bytecode;
        if refused.is_some() || bytecode.is_empty() {
            match refused {
                Some(_) => ctx.journaled_state.checkpoint_revert(checkpoint),
                None => ctx.journaled_state.checkpoint_commit(),
            }
            let result = InterpreterResult::new(
                refused.unwrap_or(InstructionResult::Stop),
                Bytes::new(),
                Gas::new_with_regular_gas_and_reservoir(inputs.gas_limit, inputs.reservoir),
            );
            return finish(ctx, caller, result, inputs.return_memory_offset);
        }
        let memory = caller.interpreter.memory.new_child_context();
        let spec = ctx.cfg.spec;
        let mut next = frame_stack.get_next();
        next.get(EthFrame::invalid).clear(
            FrameData::Call(CallFrame {
                return_memory_range: inputs.return_memory_offset,
            }),
            // Only inspectors and state gas ask what a frame was made from; neither comes this way.
            FrameInput::Empty,
            depth,
            memory,
            ExtBytecode::new_with_hash(bytecode, hash),
            InputsImpl {
                target_address: inputs.target_address,
                caller_address: inputs.caller,
                bytecode_address: Some(inputs.bytecode_address),
                input: inputs.input,
                call_value: inputs.value.get(),
                depth,
            },
            inputs.is_static,
            spec,
            inputs.gas_limit,
            inputs.reservoir,
            checkpoint,
        );
        let token = next.consume();
        // SAFETY: the token is that of the frame above the current one, which was given out by `get_next` and made by
        // `get`.
        unsafe { frame_stack.push(token) };
        Ok(())
    }

    /// Ends the message call that the current frame runs, which is not the first.
    #[inline]
    fn end_call(&mut self, result: InterpreterResult) -> Result<(), EvmError> {
        let Evm {
            ctx, frame_stack, ..
        } = &mut *self.evm;
        let frame = frame_stack.get();
        if result.is_ok() {
            ctx.journaled_state.checkpoint_commit();
        } else {
            ctx.journaled_state.checkpoint_revert(frame.checkpoint);
        }
        let range = match &frame.data {
            FrameData::Call(frame) => frame.return_memory_range.clone(),
            FrameData::Create(_) => 0..0,
        };
        frame_stack.pop();
        let caller = frame_stack.get();
        caller.interpreter.memory.free_child_context();
        finish(ctx, caller, result, range)
    }
}

/// Gives a call's result to the frame that asked for it.
#[inline]
fn finish(
    context: &mut Context<'_>,
    caller: &mut Frame,
    mut result: InterpreterResult,
    range: core::ops::Range<usize>,
) -> Result<(), EvmError> {
    take_error::<EvmError, _>(&mut context.error)?;
    let interpreter = &mut caller.interpreter;
    let length = range.len().min(result.output.len());
    // The call took its arguments off the stack, so there is room.
    let _ = interpreter.stack.push(U256::from(result.is_ok()));
    if length > 0 && result.result.is_ok_or_revert() {
        interpreter
            .memory
            .set(range.start, &result.output[..length]);
    }
    interpreter.return_data.set_buffer(result.output);
    handle_reservoir_remaining_gas(
        result.result,
        interpreter.gas.tracker_mut(),
        result.gas.tracker_mut(),
    );
    Ok(())
}

/// Whether a call is an ordinary one, which [`Frames::call`] knows: the callee is no precompile (all of which have short
/// addresses), the depth is allowed, and no state gas hangs on it.
#[inline]
fn is_ordinary(caller: &Frame, inputs: &CallInputs) -> bool {
    short_address(&inputs.bytecode_address).is_none()
        && caller.depth < CALL_STACK_LIMIT as usize
        && !inputs.charged_new_account_state_gas
}

/// Whether a frame came from [`Frames::call`] and has ended as it can there.
#[inline]
fn ends_ordinarily(frame: &Frame, result: &InterpreterResult) -> bool {
    matches!(frame.input, FrameInput::Empty)
        && result.result != InstructionResult::FatalExternalError
}

/// What a transaction pays to the beneficiary: from London on all but the base fee (EIP-1559).
fn fee(tx: &TxEnv, block: &BlockEnv, spec: SpecId, gas: &Gas) -> U256 {
    let base_fee = u128::from(block.basefee);
    let mut price = tx.effective_gas_price(base_fee);
    if spec >= SpecId::LONDON {
        price = price.saturating_sub(base_fee);
    }
    let used = gas.used().saturating_sub(gas.reservoir());
    U256::from(price) * U256::from(used)
}

/// revm's handler with the loop over frames replaced.
pub(super) struct FrameLoop<'m, 'a>(PhantomData<Frames<'m, 'a>>);

impl FrameLoop<'_, '_> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'m, 'a> Handler for FrameLoop<'m, 'a> {
    type Evm = Frames<'m, 'a>;
    type Error = EvmError;
    type HaltReason = HaltReason;

    /// Before its turn a transaction says what it asked of its sender.
    #[inline]
    fn validate_against_state_and_deduct_caller(
        &self,
        evm: &mut Self::Evm,
        _: &mut InitialAndFloorGas,
    ) -> Result<(), EvmError> {
        let ctx = &mut evm.evm.ctx;
        if !ctx.journaled_state.is_early() {
            return pre_execution::validate_against_state_and_deduct_caller(ctx);
        }
        ctx.journaled_state.set_fees(true);
        let paid = pre_execution::validate_against_state_and_deduct_caller::<_, EvmError>(ctx);
        ctx.journaled_state.set_fees(false);
        paid?;
        let checked = !ctx.cfg.is_balance_check_disabled() && !ctx.cfg.is_fee_charge_disabled();
        let spending = ctx.tx.max_balance_spending().ok().filter(|_| checked);
        ctx.journaled_state.saw_payer(&ctx.tx.caller, spending);
        Ok(())
    }

    #[inline]
    fn reimburse_caller(
        &self,
        evm: &mut Self::Evm,
        result: &mut FrameResult,
    ) -> Result<(), EvmError> {
        let ctx = &mut evm.evm.ctx;
        ctx.journaled_state.set_fees(true);
        let paid = post_execution::reimburse_caller(ctx, result.gas(), U256::ZERO);
        ctx.journaled_state.set_fees(false);
        paid.map_err(EVMError::Database)
    }

    /// Before its turn a transaction that has nothing else to do with the beneficiary leaves its fee beside the state.
    #[inline]
    fn reward_beneficiary(
        &self,
        evm: &mut Self::Evm,
        result: &mut FrameResult,
    ) -> Result<(), EvmError> {
        let ctx = &mut evm.evm.ctx;
        let journal = &mut ctx.journaled_state;
        if journal.is_early()
            && !ctx.cfg.is_fee_charge_disabled()
            && !journal.came_across(&ctx.block.beneficiary)
        {
            journal.set_fee(fee(&ctx.tx, &ctx.block, ctx.cfg.spec, result.gas()));
            return Ok(());
        }
        journal.set_fees(true);
        let paid = post_execution::reward_beneficiary(ctx, result.gas());
        ctx.journaled_state.set_fees(false);
        paid.map_err(EVMError::Database)
    }

    fn run_exec_loop(
        &mut self,
        evm: &mut Self::Evm,
        first: FrameInit,
    ) -> Result<FrameResult, EvmError> {
        if let ItemOrResult::Result(result) = evm.frame_init(first)? {
            return Ok(result);
        }
        loop {
            let action = evm.run();
            let frame = evm.evm.frame_stack.get();
            let next = match action {
                InterpreterAction::NewFrame(FrameInput::Call(inputs))
                    if is_ordinary(frame, &inputs) =>
                {
                    evm.call(inputs)?;
                    continue;
                }
                InterpreterAction::Return(result) if ends_ordinarily(frame, &result) => {
                    evm.end_call(result)?;
                    continue;
                }
                other => frame.process_next_action::<_, EvmError>(&mut evm.evm.ctx, other)?,
            };
            let result = match next {
                ItemOrResult::Item(init) => match evm.frame_init(init)? {
                    ItemOrResult::Item(_) => continue,
                    ItemOrResult::Result(result) => result,
                },
                ItemOrResult::Result(result) => {
                    evm.evm.frame_stack.get().set_finished(true);
                    result
                }
            };
            if let Some(result) = evm.frame_return_result(result)? {
                return Ok(result);
            }
        }
    }
}

impl<'a> EvmTr for Frames<'_, 'a> {
    type Context = Context<'a>;
    type Instructions = Instructions<'a>;
    type Precompiles = EthPrecompiles;
    type Frame = Frame;

    fn all(
        &self,
    ) -> (
        &Context<'a>,
        &Instructions<'a>,
        &EthPrecompiles,
        &FrameStack<Frame>,
    ) {
        self.evm.all()
    }

    fn all_mut(
        &mut self,
    ) -> (
        &mut Context<'a>,
        &mut Instructions<'a>,
        &mut EthPrecompiles,
        &mut FrameStack<Frame>,
    ) {
        self.evm.all_mut()
    }

    fn frame_init(
        &mut self,
        input: FrameInit,
    ) -> Result<FrameInitResult<'_, Frame>, ContextDbError<Context<'a>>> {
        self.evm.frame_init(input)
    }

    fn frame_run(&mut self) -> Result<FrameInitOrResult<Frame>, ContextDbError<Context<'a>>> {
        let action = self.run();
        let frame = self.evm.frame_stack.get();
        let next = frame
            .process_next_action::<_, ContextDbError<Context<'a>>>(&mut self.evm.ctx, action)?;
        if next.is_result() {
            frame.set_finished(true);
        }
        Ok(next)
    }

    fn frame_return_result(
        &mut self,
        result: FrameResult,
    ) -> Result<Option<FrameResult>, ContextDbError<Context<'a>>> {
        self.evm.frame_return_result(result)
    }
}

#[cfg(test)]
mod tests {
    use revm::handler::EthPrecompiles;
    use revm::primitives::short_address;

    use crate::evm::Fork;

    #[test]
    fn every_precompile_has_a_short_address() {
        for fork in Fork::all() {
            let precompiles = EthPrecompiles::new(fork.spec_id());
            assert!(!precompiles.warm_addresses().is_empty());
            for address in precompiles.warm_addresses() {
                assert!(short_address(address).is_some(), "{fork:?} {address}");
            }
        }
    }
}
