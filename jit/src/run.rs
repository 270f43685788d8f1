//! Runs a frame: natively where there is code for it, by the interpreter where there is not.

use core::cell::UnsafeCell;
use core::ptr;

use alloy_primitives::{Address, U256};
use zvm_runtimes::evm::{self, Context, Instructions, sload_warm};
use zvm_runtimes::revm::interpreter::interpreter::EthInterpreter;
use zvm_runtimes::revm::interpreter::interpreter_types::{
    InputsTr as _, Jumps as _, LoopControl as _, MemoryTr as _, ReturnData as _,
};
use zvm_runtimes::revm::interpreter::{
    CallInput, Host as _, InstructionContext, InstructionResult, Interpreter,
};

use crate::abi::{DONE, Env, HELPERS, Halted, Helper, Leave, NativeFrame};
use crate::counts::{Counts, Interpreted};
use crate::pure;
use crate::unit::Unit;

/// What the calls back work on. Native code never looks inside.
struct Host<'h, 'a> {
    interpreter: *mut Interpreter<EthInterpreter>,
    context: *mut Context<'a>,
    instructions: &'h Instructions<'a>,
}

const EXECUTE: [crate::abi::Execute; HELPERS] = {
    let mut table: [crate::abi::Execute; HELPERS] = [step; HELPERS];
    table[Helper::SLoad as usize] = sload;
    table[Helper::Keccak256 as usize] = keccak256;
    table
};

/// Entries that left at once, after which the rest of the frame is not worth trying: a loop's words are not as the code
/// takes them to be.
const FRUITLESS: u32 = 8;

struct Slot(UnsafeCell<NativeFrame>);

thread_local! {
    /// A frame never runs within another on a thread: calls between contracts return to the handler's loop first. So
    /// one native frame a thread is enough, and its tables are filled once.
    static FRAME: Slot = const {
        Slot(UnsafeCell::new(NativeFrame {
            stack: ptr::null_mut(),
            sp: ptr::null_mut(),
            gas: 0,
            pc: 0,
            memory: ptr::null_mut(),
            memory_len: 0,
            memory_words: 0,
            calldata_len: 0,
            returndata_len: 0,
            entries: ptr::null(),
            stress: u64::MAX,
            executed: 0,
            called: 0,
            execute: EXECUTE,
            expand,
            halt,
            environment,
            calldata,
            pure: pure::FUNCTIONS,
            host: ptr::null_mut(),
        }))
    };
}

/// How native code did in a frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ran {
    /// Times it was entered.
    pub entered: u32,
    /// Times it left again at once.
    pub fruitless: u32,
    /// The loop header at which something taken for granted about a loop was last not so.
    pub failed: Option<usize>,
    /// Where a computed jump last went that has no entry.
    pub missed: Option<usize>,
}

impl Ran {
    /// Whether entering was for nothing.
    pub fn is_useless(&self) -> bool {
        self.entered > 0 && self.fruitless == self.entered
    }
}

/// Runs the frame until it ends or waits for a call: the interpreter then has its next action.
#[inline]
pub fn run<'a>(
    unit: &Unit,
    interpreter: &mut Interpreter<EthInterpreter>,
    context: &mut Context<'a>,
    instructions: &Instructions<'a>,
    counts: &Counts,
) -> Ran {
    let pc = interpreter.bytecode.pc();
    let before = interpreter.gas.remaining();
    let mut ran = Ran::default();
    let mut why = Interpreted::Between;
    if let Some(entry) = unit.entry_at(pc)
        && is_countable(before)
    {
        counts.entries.add(1);
        ran.entered = 1;
        let Some(leave) = enter(unit, entry, interpreter, context, instructions) else {
            return ran;
        };
        why = left(leave, interpreter, (pc, before), counts, &mut ran);
    }
    go_on(
        unit,
        interpreter,
        context,
        instructions,
        counts,
        &mut ran,
        why,
    );
    ran
}

/// Native code counts gas in signed numbers.
#[inline]
const fn is_countable(gas: u64) -> bool {
    gas <= i64::MAX as u64
}

/// Counts that native code, entered with this pc and gas, has left.
fn left(
    leave: Leave,
    interpreter: &Interpreter<EthInterpreter>,
    (pc, gas): (usize, u64),
    counts: &Counts,
    ran: &mut Ran,
) -> Interpreted {
    counts.leaves[leave as usize].add(1);
    let left_at = interpreter.bytecode.pc();
    if matches!(leave, Leave::Loop | Leave::Width) {
        ran.failed = Some(left_at);
    }
    if leave == Leave::Jump {
        ran.missed = Some(left_at);
    }
    ran.fruitless += u32::from(left_at == pc && interpreter.gas.remaining() == gas);
    leave.into()
}

/// Runs the frame from where native code left it, or could not be entered. `why`: that the interpreter goes on.
#[inline(never)]
fn go_on<'a>(
    unit: &Unit,
    interpreter: &mut Interpreter<EthInterpreter>,
    context: &mut Context<'a>,
    instructions: &Instructions<'a>,
    counts: &Counts,
    ran: &mut Ran,
    mut why: Interpreted,
) {
    while ran.fruitless < FRUITLESS && is_countable(interpreter.gas.remaining()) {
        // What native code left to the interpreter, or what lies between two entries.
        counts.stepped(why, 1);
        let table = instructions.instruction_table();
        if let Err(result) = interpreter.step(table, instructions.gas_table(), context) {
            return finish(interpreter, result);
        }
        let pc = interpreter.bytecode.pc();
        if let Some(entry) = unit.entry_at(pc) {
            counts.entries.add(1);
            ran.entered += 1;
            let gas = interpreter.gas.remaining();
            let Some(leave) = enter(unit, entry, interpreter, context, instructions) else {
                return;
            };
            why = left(leave, interpreter, (pc, gas), counts, ran);
        }
    }
    why = if ran.fruitless < FRUITLESS {
        Interpreted::Gas
    } else {
        Interpreted::Fruitless
    };
    counts.stepped(why, interpret_counted(interpreter, context, instructions));
}

/// Runs the frame by the interpreter alone.
pub fn interpret<'a>(
    interpreter: &mut Interpreter<EthInterpreter>,
    context: &mut Context<'a>,
    instructions: &Instructions<'a>,
) {
    let (table, gas) = (instructions.instruction_table(), instructions.gas_table());
    let result = loop {
        if let Err(result) = interpreter.step(table, gas, context) {
            break result;
        }
    };
    finish(interpreter, result);
}

/// As [`interpret`]. How many instructions that were.
pub fn interpret_counted<'a>(
    interpreter: &mut Interpreter<EthInterpreter>,
    context: &mut Context<'a>,
    instructions: &Instructions<'a>,
) -> u64 {
    let (table, gas) = (instructions.instruction_table(), instructions.gas_table());
    let mut steps = 1;
    let result = loop {
        if let Err(result) = interpreter.step(table, gas, context) {
            break result;
        }
        steps += 1;
    };
    finish(interpreter, result);
    steps
}

/// Instructions that code compiled to count them has executed on this thread since the last time, and how many of them
/// by a call back.
pub fn executed() -> (u64, u64) {
    FRAME.with(|slot| {
        let frame = slot.0.get();
        // SAFETY: no frame runs on this thread: its caller is not called by native code.
        unsafe {
            let counts = ((*frame).executed, (*frame).called);
            ((*frame).executed, (*frame).called) = (0, 0);
            counts
        }
    })
}

/// From now on the guards of stressed code on this thread fail once every so many times, beginning with the `first`.
pub fn stress(first: u64) {
    // SAFETY: no frame runs on this thread: its caller is not called by native code.
    FRAME.with(|slot| unsafe { (*slot.0.get()).stress = first });
}

/// Gives the interpreter its action where the instruction that ended its loop has not.
pub fn finish(interpreter: &mut Interpreter<EthInterpreter>, result: InstructionResult) {
    if interpreter.bytecode.action().is_none() {
        interpreter.halt(result);
    }
}

/// Enters native code and comes back with the interpreter in the state that native code left. Why it left; `None`: the
/// frame has ended or waits.
#[inline(always)]
fn enter<'a>(
    unit: &Unit,
    entry: u32,
    interpreter: &mut Interpreter<EthInterpreter>,
    context: &mut Context<'a>,
    instructions: &Instructions<'a>,
) -> Option<Leave> {
    let stack = interpreter.stack.data_mut();
    // Native code writes up to the 1024th word.
    if stack.capacity() < 1024 {
        stack.reserve_exact(1024 - stack.len());
    }
    let bottom = stack.as_mut_ptr();
    // SAFETY: the length is within the capacity.
    let sp = unsafe { bottom.add(stack.len()) };
    let gas = interpreter.gas.remaining();
    let calldata_len = match &interpreter.input.input {
        CallInput::Bytes(bytes) => bytes.len(),
        CallInput::SharedBuffer(range) => range.len(),
    } as u64;
    let returndata_len = interpreter.return_data.buffer().len() as u64;
    let mut host = Host {
        interpreter,
        context,
        instructions,
    };
    let frame = FRAME.with(|slot| slot.0.get());
    // SAFETY: the frame is this thread's, which runs this function and so has not ended, and nobody else on it uses it
    // until native code is back: frames do not nest (see `FRAME`), and the calls back only use the pointer that native
    // code gives them.
    unsafe {
        (*frame).stack = bottom;
        (*frame).sp = sp;
        (*frame).calldata_len = calldata_len;
        (*frame).returndata_len = returndata_len;
        (*frame).entries = unit.entries().as_ptr();
        (*frame).host = (&raw mut host).cast();
        sync_memory(&mut *frame, &mut *host.interpreter);
    }
    // SAFETY: the unit is alive, the entry is one of its own; stack, memory and table are those of the interpreter and
    // the unit and outlive the call; the calls back keep the pointers current.
    let exit = unsafe { (unit.entry())(frame, sp, gas, u64::from(entry)) };
    if exit == DONE {
        return None;
    }
    // SAFETY: native code is back, and left a height within the checked bounds with every word below written.
    unsafe {
        let (sp, gas, written) = ((*frame).sp, (*frame).gas, (*frame).pc);
        let (pc, leave) = Leave::read(written);
        sync_interpreter(&*frame, sp, gas, pc as u64, &mut *host.interpreter);
        Some(leave)
    }
}

/// # Safety
/// `sp` lies within the stack that `frame.stack` begins. Words below it that nobody has written are read by nobody.
#[inline(always)]
unsafe fn sync_interpreter(
    frame: &NativeFrame,
    sp: *mut U256,
    gas: u64,
    pc: u64,
    interpreter: &mut Interpreter<EthInterpreter>,
) {
    // SAFETY: both point into the same allocation.
    let height = unsafe { sp.offset_from_unsigned(frame.stack) };
    // SAFETY: as the caller promises; words have no invalid values.
    unsafe { interpreter.stack.data_mut().set_len(height) };
    interpreter.gas.tracker_mut().set_remaining(gas);
    interpreter.bytecode.absolute_jump(pc as usize);
}

/// # Safety
/// The frame's memory is not used otherwise while native code runs.
#[inline(always)]
unsafe fn sync_memory(frame: &mut NativeFrame, interpreter: &mut Interpreter<EthInterpreter>) {
    let mut memory = interpreter.memory.context_memory_mut();
    frame.memory = memory.as_mut_ptr();
    frame.memory_len = memory.len() as u64;
    frame.memory_words = frame.memory_len.saturating_sub(31);
}

/// The frame's interpreter and context.
///
/// # Safety
/// Called by native code that [`enter`] entered with this frame; the references are dropped before it goes on.
#[inline(always)]
unsafe fn open<'f>(
    frame: *mut NativeFrame,
) -> (
    &'f mut NativeFrame,
    &'f mut Interpreter<EthInterpreter>,
    &'f mut Context<'f>,
    &'f Instructions<'f>,
) {
    // SAFETY: `enter` waits, and borrowed all of them exclusively; native code does not use the frame during a call.
    unsafe {
        let frame = &mut *frame;
        let host = &mut *frame.host.cast::<Host<'f, 'f>>();
        (
            frame,
            &mut *host.interpreter,
            &mut *host.context,
            host.instructions,
        )
    }
}

/// Executes the instruction at `pc` by the interpreter's function; its static gas is taken already.
///
/// # Safety
/// As [`open`].
unsafe extern "C" fn step(frame: *mut NativeFrame, sp: *mut U256, gas: u64, pc: u64) -> i64 {
    // SAFETY: as the caller promises.
    let (frame, interpreter, context, instructions) = unsafe { open(frame) };
    // SAFETY: native code wrote the operands below `sp` before it called.
    unsafe { sync_interpreter(frame, sp, gas, pc, interpreter) };
    let opcode = interpreter.bytecode.opcode();
    interpreter.bytecode.relative_jump(1);
    let instruction = instructions.instruction_table()[usize::from(opcode)];
    if let Err(result) = instruction.execute(InstructionContext {
        interpreter,
        host: context,
    }) {
        if interpreter.bytecode.action().is_none() {
            interpreter.halt(result);
        }
        return -1;
    }
    // SAFETY: native code reads the pointer again before it uses memory.
    unsafe { sync_memory(frame, interpreter) };
    interpreter.gas.remaining() as i64
}

/// SLOAD.
///
/// # Safety
/// As [`open`].
unsafe extern "C" fn sload(frame: *mut NativeFrame, sp: *mut U256, gas: u64, pc: u64) -> i64 {
    {
        // SAFETY: as the caller promises.
        let (_, interpreter, context, _) = unsafe { open(frame) };
        // SAFETY: the operand lies below `sp`.
        let slot = unsafe { pure::read_word(sp.sub(1)) };
        if let Some(value) = sload_warm(context, &interpreter.input.target_address, &slot) {
            // SAFETY: the result takes the operand's place.
            unsafe { sp.sub(1).write(value) };
            return gas as i64;
        }
    }
    // SAFETY: as the caller promises.
    unsafe { step(frame, sp, gas, pc) }
}

/// KECCAK256.
///
/// # Safety
/// As [`open`].
unsafe extern "C" fn keccak256(frame: *mut NativeFrame, sp: *mut U256, gas: u64, pc: u64) -> i64 {
    {
        // SAFETY: as the caller promises.
        let (frame, _, context, _) = unsafe { open(frame) };
        // SAFETY: the operands lie below `sp`.
        let (offset, length) = unsafe { (pure::read_word(sp.sub(1)), pure::read_word(sp.sub(2))) };
        // Memory is there, and gas is enough: what else may be is for the interpreter.
        if let (Ok(from), Ok(count)) = (usize::try_from(offset), usize::try_from(length))
            && let Some(end) = from.checked_add(count)
            && end as u64 <= frame.memory_len
            && count > 0
        {
            let cost = context.gas_params().keccak256_cost(count);
            if cost <= gas {
                // SAFETY: the range lies within the frame's memory, which nobody changes during the call.
                let input = unsafe { core::slice::from_raw_parts(frame.memory.add(from), count) };
                let hash = evm::keccak256(input).into();
                // SAFETY: the result takes the lower operand's place.
                unsafe { sp.sub(2).write(hash) };
                return (gas - cost) as i64;
            }
        }
    }
    // SAFETY: as the caller promises.
    unsafe { step(frame, sp, gas, pc) }
}

/// Grows memory, or ends the frame.
///
/// # Safety
/// As [`open`].
unsafe extern "C" fn expand(frame: *mut NativeFrame, offset: u64, length: u64, gas: u64) -> i64 {
    // SAFETY: as the caller promises.
    let (frame, interpreter, context, _) = unsafe { open(frame) };
    interpreter.gas.tracker_mut().set_remaining(gas);
    // An offset that no machine's memory can hold costs more than any gas; revm calls it an invalid operand.
    let offset = usize::try_from(offset).unwrap_or(usize::MAX);
    let result = if offset == usize::MAX {
        Err(InstructionResult::InvalidOperandOOG)
    } else {
        interpreter.resize_memory(context.gas_params(), offset, length as usize)
    };
    if let Err(result) = result {
        interpreter.halt(result);
        return -1;
    }
    // SAFETY: native code reads the pointer again before it uses memory.
    unsafe { sync_memory(frame, interpreter) };
    interpreter.gas.remaining() as i64
}

/// Ends the frame by an error.
///
/// # Safety
/// As [`open`].
unsafe extern "C" fn halt(frame: *mut NativeFrame, reason: u64) {
    // SAFETY: as the caller promises.
    let (_, interpreter, _, _) = unsafe { open(frame) };
    if reason == Halted::OutOfGas as u64 {
        interpreter.halt_oog();
    } else {
        interpreter.halt(InstructionResult::InvalidJump);
    }
}

/// Writes a word about the call.
///
/// # Safety
/// As [`open`]; `place` is a word of the stack.
unsafe extern "C" fn environment(frame: *mut NativeFrame, place: *mut U256, which: u64) {
    // SAFETY: as the caller promises.
    let (_, interpreter, _, _) = unsafe { open(frame) };
    let address = |address: Address| U256::from_be_bytes(address.into_word().0);
    let word = if which == Env::Address as u64 {
        address(interpreter.input.target_address())
    } else if which == Env::Caller as u64 {
        address(interpreter.input.caller_address())
    } else {
        interpreter.input.call_value()
    };
    // SAFETY: as the caller promises.
    unsafe { place.write(word) };
}

/// Writes a word of the call's data, zeros where there is none.
///
/// # Safety
/// As [`environment`].
unsafe extern "C" fn calldata(frame: *mut NativeFrame, place: *mut U256, offset: u64) {
    // SAFETY: as the caller promises.
    let (_, interpreter, _, _) = unsafe { open(frame) };
    let mut bytes = [0; 32];
    let mut copy = |data: &[u8]| {
        if let Some(data) = usize::try_from(offset).ok().and_then(|at| data.get(at..)) {
            let count = data.len().min(32);
            bytes[..count].copy_from_slice(&data[..count]);
        }
    };
    match &interpreter.input.input {
        CallInput::Bytes(data) => copy(data),
        CallInput::SharedBuffer(range) => copy(&interpreter.memory.global_slice(range.clone())),
    }
    // SAFETY: as the caller promises.
    unsafe { place.write(U256::from_be_bytes(bytes)) };
}
