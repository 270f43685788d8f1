//! Runs a frame: natively where there is code for it, by the interpreter where there is not.

use alloy_primitives::U256;
use zvm_runtimes::evm::{Context, Instructions};
use zvm_runtimes::revm::interpreter::interpreter::EthInterpreter;
use zvm_runtimes::revm::interpreter::interpreter_types::{Jumps as _, LoopControl as _};
use zvm_runtimes::revm::interpreter::{
    Host as _, InstructionContext, InstructionResult, Interpreter, InterpreterAction, num_words,
};

use crate::abi::{DONE, NativeFrame};
use crate::pure;
use crate::unit::Unit;

/// What the calls back work on. Native code never looks inside.
struct Host<'h, 'a> {
    interpreter: *mut Interpreter<EthInterpreter>,
    context: *mut Context<'a>,
    instructions: &'h Instructions<'a>,
}

/// Counts of what ran how.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Times native code was entered.
    pub entries: u64,
    /// Instructions that the interpreter executed because native code left before them.
    pub left: u64,
}

/// Runs the frame until it ends or waits for a call.
pub fn run<'a>(
    unit: &Unit,
    interpreter: &mut Interpreter<EthInterpreter>,
    context: &mut Context<'a>,
    instructions: &Instructions<'a>,
    counts: &mut Counts,
) -> InterpreterAction {
    loop {
        if let Some(entry) = unit.entry_at(interpreter.bytecode.pc()) {
            counts.entries += 1;
            if enter(unit, entry, interpreter, context, instructions) == DONE {
                return interpreter.take_next_action();
            }
        }
        // What native code left to the interpreter, or what lies between two blocks.
        counts.left += 1;
        let table = instructions.instruction_table();
        if let Err(result) = interpreter.step(table, instructions.gas_table(), context) {
            return finish(interpreter, result);
        }
    }
}

/// The action that an instruction ended the interpreter's loop with.
pub fn finish(
    interpreter: &mut Interpreter<EthInterpreter>,
    result: InstructionResult,
) -> InterpreterAction {
    if interpreter.bytecode.action().is_none() {
        interpreter.halt(result);
    }
    interpreter.take_next_action()
}

/// Enters native code and comes back with the interpreter in the state that native code left.
fn enter<'a>(
    unit: &Unit,
    entry: u32,
    interpreter: &mut Interpreter<EthInterpreter>,
    context: &mut Context<'a>,
    instructions: &Instructions<'a>,
) -> i64 {
    let stack = interpreter.stack.data_mut();
    // Native code writes up to the 1024th word.
    if stack.capacity() < 1024 {
        stack.reserve_exact(1024 - stack.len());
    }
    let bottom = stack.as_mut_ptr();
    // SAFETY: the length is within the capacity.
    let sp = unsafe { bottom.add(stack.len()) };
    let gas = interpreter.gas.remaining();
    let mut host = Host {
        interpreter,
        context,
        instructions,
    };
    let mut frame = NativeFrame {
        stack: bottom,
        sp,
        gas,
        pc: 0,
        memory: core::ptr::null_mut(),
        memory_len: 0,
        jump_map: unit.jump_map().as_ptr(),
        step,
        expand,
        pure: pure::FUNCTIONS,
        words: [U256::ZERO; 3],
        host: (&raw mut host).cast(),
    };
    // SAFETY: `interpreter` is borrowed exclusively by this function, which touches it only through `host` until native
    // code is back.
    unsafe { sync_memory(&mut frame, &mut *host.interpreter) };
    // SAFETY: the unit is alive, the entry is one of its own; stack, memory and jump map are those of the interpreter
    // and the unit and outlive the call; the calls back keep the pointers current.
    let exit = unsafe { (unit.entry())(&raw mut frame, sp, gas, u64::from(entry)) };
    if exit != DONE {
        // SAFETY: as above; native code is back.
        let interpreter = unsafe { &mut *host.interpreter };
        // SAFETY: native code leaves a height within the checked bounds, and has written every word below it.
        unsafe { sync_interpreter(&frame, interpreter) };
        interpreter.bytecode.absolute_jump(frame.pc as usize);
    }
    exit
}

/// # Safety
/// `frame.sp` lies within the stack that `frame.stack` begins, and every word below it is written.
unsafe fn sync_interpreter(frame: &NativeFrame, interpreter: &mut Interpreter<EthInterpreter>) {
    // SAFETY: both point into the same allocation.
    let height = unsafe { frame.sp.offset_from_unsigned(frame.stack) };
    // SAFETY: as the caller promises; words have no invalid values.
    unsafe { interpreter.stack.data_mut().set_len(height) };
    interpreter.gas.tracker_mut().set_remaining(frame.gas);
}

/// # Safety
/// The frame's memory is not used otherwise while native code runs.
unsafe fn sync_memory(frame: &mut NativeFrame, interpreter: &mut Interpreter<EthInterpreter>) {
    let mut memory = interpreter.memory.context_memory_mut();
    frame.memory = memory.as_mut_ptr();
    frame.memory_len = memory.len() as u64;
}

/// Executes the instruction at the frame's pc by the interpreter's function; its static gas is taken already.
///
/// # Safety
/// Called by native code that [`enter`] entered with this frame.
unsafe extern "C" fn step(frame: *mut NativeFrame) -> u64 {
    // SAFETY: the frame is that of `enter`, which waits; native code does not use it during the call.
    let frame = unsafe { &mut *frame };
    // SAFETY: `enter` put it there and keeps it alive; the lifetimes are those of its arguments.
    let host = unsafe { &mut *frame.host.cast::<Host<'_, '_>>() };
    // SAFETY: `enter` borrows both exclusively and waits.
    let (interpreter, context) = unsafe { (&mut *host.interpreter, &mut *host.context) };
    // SAFETY: native code wrote the stack up to `sp` before it called.
    unsafe { sync_interpreter(frame, interpreter) };
    interpreter.bytecode.absolute_jump(frame.pc as usize);
    let opcode = interpreter.bytecode.opcode();
    interpreter.bytecode.relative_jump(1);
    let instruction = host.instructions.instruction_table()[usize::from(opcode)];
    if let Err(result) = instruction.execute(InstructionContext {
        interpreter,
        host: context,
    }) {
        if interpreter.bytecode.action().is_none() {
            interpreter.halt(result);
        }
        return 1;
    }
    let height = interpreter.stack.len();
    // SAFETY: the height is within the stack.
    frame.sp = unsafe { frame.stack.add(height) };
    frame.gas = interpreter.gas.remaining();
    // SAFETY: native code reads the pointer again before it uses memory.
    unsafe { sync_memory(frame, interpreter) };
    0
}

/// Grows memory if gas and limit allow; otherwise nothing is changed and the interpreter finds the error.
///
/// # Safety
/// As [`step`].
unsafe extern "C" fn expand(frame: *mut NativeFrame, offset: u64, length: u64) -> u64 {
    // SAFETY: as in `step`.
    let frame = unsafe { &mut *frame };
    // SAFETY: as in `step`.
    let host = unsafe { &mut *frame.host.cast::<Host<'_, '_>>() };
    // SAFETY: as in `step`.
    let (interpreter, context) = unsafe { (&mut *host.interpreter, &mut *host.context) };
    let Some(end) = offset
        .checked_add(length)
        .and_then(|end| usize::try_from(end).ok())
    else {
        return 0;
    };
    // Far above any gas: the cost below would overflow.
    if end > 1 << 40 {
        return 0;
    }
    let words = num_words(end);
    let params = context.gas_params();
    let memory = *interpreter.gas.memory();
    if words > memory.words_num {
        let cost = params
            .memory_cost(words)
            .saturating_sub(memory.expansion_cost);
        if cost > frame.gas {
            return 0;
        }
    }
    interpreter.gas.tracker_mut().set_remaining(frame.gas);
    if interpreter
        .resize_memory(context.gas_params(), offset as usize, length as usize)
        .is_err()
    {
        return 0;
    }
    frame.gas = interpreter.gas.remaining();
    // SAFETY: as in `step`.
    unsafe { sync_memory(frame, interpreter) };
    1
}
