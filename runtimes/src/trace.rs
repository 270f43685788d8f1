//! EIP-3155 traces: one JSON object a line for each step, then a summary.
//!
//! Field names, their order and their notation are those of geth's `evm --json`, so that two clients' traces can be
//! compared line by line: gas and stack items are minimal hex, `op`, `pc`, `memSize`, `depth` and `refund` are
//! numbers, the depth of the first frame is 1. Memory, stack and gas are those before the step; `gasCost` is all the
//! step charged, for a call or create including the gas it forwarded. A step that fails carries `error`, and its
//! `gasCost` is what was charged until then, which is all that was left when the gas ran out.

use crate::isa::Isa;
use alloy_primitives::{Address, B256, Bytes, U256, hex};
use revm::{
    Inspector,
    context_interface::{ContextTr, JournalTr},
    interpreter::{
        CallInputs, CallOutcome, CreateInputs, CreateOutcome, InstructionResult, Interpreter,
        InterpreterResult, InterpreterTypes,
        interpreter_types::{InputsTr, Jumps, LoopControl, MemoryTr, ReturnData, StackTr},
    },
};
use serde::{Serialize, Serializer};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    io::{self, Write},
};

const SLOAD: u8 = 0x54;
const SSTORE: u8 = 0x55;

/// What a trace contains beyond the fields every line has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceOptions {
    /// `memory`: all of the frame's memory. Traces grow with the square of the program.
    pub memory: bool,
    /// `storage`: at SLOAD and SSTORE, the slots of the account that were touched so far.
    pub storage: bool,
    /// `returnData`: the output of the frame's last call.
    pub return_data: bool,
}

/// An inspector that writes an EIP-3155 trace.
///
/// Works with any context. Errors of the writer cannot reach revm: the first one is kept, nothing is written after
/// it, and [`Tracer::finish`] returns it.
#[derive(Debug)]
pub struct Tracer<W> {
    writer: W,
    options: TraceOptions,
    error: Option<io::Error>,
    line: Vec<u8>,
    pending: Option<Pending>,
    stack: Vec<U256>,
    /// Refunds of the frames under way, from the first one on: revm counts them by frame, the trace by transaction.
    refunds: Vec<i64>,
    storage: HashMap<Address, BTreeMap<B256, B256>>,
}

/// A step that has begun, without its stack, which lies in the tracer's buffer.
#[derive(Debug)]
struct Pending {
    pc: usize,
    op: u8,
    gas: u64,
    memory_size: usize,
    memory: Option<String>,
    return_data: Option<Bytes>,
    depth: usize,
    refund: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    pc: usize,
    op: u8,
    #[serde(serialize_with = "quantity")]
    gas: u64,
    #[serde(serialize_with = "quantity")]
    gas_cost: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    mem_size: usize,
    stack: &'a [U256],
    #[serde(skip_serializing_if = "Option::is_none")]
    return_data: Option<Bytes>,
    depth: usize,
    refund: u64,
    op_name: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    storage: Option<&'a BTreeMap<B256, B256>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    output: String,
    #[serde(serialize_with = "quantity")]
    gas_used: u64,
    pass: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
}

fn quantity<S: Serializer>(n: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{n:#x}"))
}

impl<W: Write> Tracer<W> {
    /// A tracer that writes to `writer`, a line at a time: give it a buffered one.
    pub fn new(writer: W, options: TraceOptions) -> Self {
        Self {
            writer,
            options,
            error: None,
            line: Vec::new(),
            pending: None,
            stack: Vec::new(),
            refunds: Vec::new(),
            storage: HashMap::new(),
        }
    }

    /// Flushes the trace and returns the writer.
    ///
    /// # Errors
    ///
    /// The first error of the writer since the tracer was made; the trace ends before the line that failed.
    pub fn finish(mut self) -> io::Result<W> {
        match self.error.take() {
            Some(error) => Err(error),
            None => self.writer.flush().map(|()| self.writer),
        }
    }

    /// Whether the writer failed, so that a long run can be given up.
    pub const fn failed(&self) -> bool {
        self.error.is_some()
    }

    fn write(&mut self, value: &impl Serialize) {
        if self.error.is_some() {
            return;
        }
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, value)
            .map_err(io::Error::from)
            .and_then(|()| {
                self.line.push(b'\n');
                self.writer.write_all(&self.line)
            });
        self.error = written.err();
    }

    fn frame_end(&mut self, depth: usize, result: &InterpreterResult) {
        // A frame that ended before its first instruction leaves a step without an end.
        self.pending = None;
        if depth > 0 {
            return;
        }
        // What is left after a failure is lost to the caller, so all of it counts as used.
        let gas = &result.gas;
        let gas_used = if result.result.is_halt() {
            gas.limit()
        } else {
            gas.limit().saturating_sub(gas.remaining())
        };
        self.write(&Summary {
            output: hex::encode(&result.output),
            gas_used,
            pass: result.result.is_ok(),
            error: failure(result.result),
        });
        self.refunds.clear();
        self.storage.clear();
    }
}

impl<CTX, INTR, W> Inspector<CTX, INTR> for Tracer<W>
where
    CTX: ContextTr,
    INTR: InterpreterTypes,
    W: Write,
{
    fn step(&mut self, interp: &mut Interpreter<INTR>, _: &mut CTX) {
        let depth = interp.input.depth() + 1;
        self.refunds.resize(depth, 0);
        self.refunds[depth - 1] = interp.gas.refunded();
        self.stack.clear();
        self.stack.extend_from_slice(interp.stack.data());
        let memory_size = interp.memory.size();
        self.pending = Some(Pending {
            pc: interp.bytecode.pc(),
            op: interp.bytecode.opcode(),
            gas: interp.gas.remaining(),
            memory_size,
            memory: self
                .options
                .memory
                .then(|| hex::encode_prefixed(&*interp.memory.slice(0..memory_size))),
            return_data: self
                .options
                .return_data
                .then(|| interp.return_data.buffer().clone()),
            depth,
            refund: u64::try_from(self.refunds.iter().sum::<i64>()).unwrap_or(0),
        });
    }

    fn step_end(&mut self, interp: &mut Interpreter<INTR>, _: &mut CTX) {
        let Some(step) = self.pending.take() else {
            return;
        };
        let result = interp.bytecode.instruction_result();
        let error = result.and_then(failure);
        let account = interp.input.target_address();
        let touches_storage =
            self.options.storage && error.is_none() && matches!(step.op, SLOAD | SSTORE);
        if touches_storage {
            let value = match (step.op, self.stack.as_slice()) {
                (SSTORE, [.., value, _]) => Some(*value),
                _ => interp.stack.data().last().copied(),
            };
            if let (Some(slot), Some(value)) = (self.stack.last(), value) {
                self.storage
                    .entry(account)
                    .or_default()
                    .insert(B256::from(*slot), B256::from(value));
            }
        }
        // How much of a cost that could not be paid was deducted depends on where it was noticed; what counts is that
        // nothing is left.
        let gas_cost = match result {
            Some(result) if is_out_of_gas(result) => step.gas,
            _ => step.gas.saturating_sub(interp.gas.remaining()),
        };
        // Taken out for the time of the call, as the line borrows them.
        let (stack, storage) = (
            std::mem::take(&mut self.stack),
            std::mem::take(&mut self.storage),
        );
        self.write(&Step {
            pc: step.pc,
            op: step.op,
            gas: step.gas,
            gas_cost,
            memory: step.memory,
            mem_size: step.memory_size,
            stack: &stack,
            return_data: step.return_data,
            depth: step.depth,
            refund: step.refund,
            op_name: op_name(step.op),
            storage: if touches_storage {
                storage.get(&account)
            } else {
                None
            },
            error,
        });
        (self.stack, self.storage) = (stack, storage);
    }

    fn call_end(&mut self, context: &mut CTX, _: &CallInputs, outcome: &mut CallOutcome) {
        self.frame_end(context.journal().depth(), &outcome.result);
    }

    fn create_end(&mut self, context: &mut CTX, _: &CreateInputs, outcome: &mut CreateOutcome) {
        self.frame_end(context.journal().depth(), &outcome.result);
    }
}

/// Writes the line with the state root that ends the trace of a transaction of a state test, as geth prints it.
///
/// # Errors
///
/// Those of the writer.
pub fn write_state_root(writer: &mut impl Write, root: B256) -> io::Result<()> {
    writeln!(writer, "{{\"stateRoot\": \"{root}\"}}")
}

fn op_name(op: u8) -> Cow<'static, str> {
    match Isa::Evm.op(op) {
        Some(info) => Cow::Borrowed(info.mnemonic(Isa::Evm)),
        None => Cow::Owned(format!("opcode {op:#x} not defined")),
    }
}

const fn is_out_of_gas(result: InstructionResult) -> bool {
    use InstructionResult as R;
    matches!(
        result,
        R::OutOfGas
            | R::MemoryOOG
            | R::MemoryLimitOOG
            | R::PrecompileOOG
            | R::ReentrancySentryOOG
            | R::InvalidOperandOOG
    )
}

/// The text geth has for a failure, `None` for what is none.
const fn failure(result: InstructionResult) -> Option<&'static str> {
    use InstructionResult as R;
    Some(match result {
        R::Stop | R::Return | R::SelfDestruct | R::Suspend => return None,
        R::Revert => "execution reverted",
        R::CallTooDeep => "max call depth exceeded",
        R::OutOfFunds => "insufficient balance for transfer",
        R::OutOfGas
        | R::MemoryOOG
        | R::MemoryLimitOOG
        | R::PrecompileOOG
        | R::ReentrancySentryOOG => "out of gas",
        R::InvalidOperandOOG => "gas uint64 overflow",
        R::OpcodeNotFound | R::InvalidFEOpcode | R::NotActivated => "invalid opcode",
        R::InvalidImmediateEncoding => "invalid immediate",
        R::CallNotAllowedInsideStatic | R::StateChangeDuringStaticCall => "write protection",
        R::InvalidJump => "invalid jump destination",
        R::StackUnderflow => "stack underflow",
        R::StackOverflow => "stack limit reached 1024",
        R::OutOfOffset => "return data out of bounds",
        R::CreateCollision => "contract address collision",
        R::OverflowPayment => "balance overflow",
        R::PrecompileError => "precompile failed",
        R::NonceOverflow => "nonce uint64 overflow",
        R::CreateContractSizeLimit => "max code size exceeded",
        R::CreateContractStartingWithEF => "invalid code: must not begin with 0xef",
        R::CreateInitCodeSizeLimit => "max initcode size exceeded",
        R::CreateInitCodeStartingEF00 | R::InvalidEOFInitCode => "invalid init code",
        R::InvalidExtDelegateCallTarget => "invalid delegate call target",
        R::FatalExternalError => "state access failed",
    })
}
