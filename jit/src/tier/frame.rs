//! One frame: in the interpreter by slices until there is native code for it, then natively.

use std::time::Instant;

use zvm_runtimes::evm::{Context, Instructions};
use zvm_runtimes::revm::interpreter::interpreter::EthInterpreter;
use zvm_runtimes::revm::interpreter::{
    FrameInput, InstructionResult, Interpreter, InterpreterAction,
};

use super::local::{Local, Slot};
use super::policy::Ran;
use super::record::Key;
use super::shared::Shared;
use super::statistics::Counters;
use crate::compiler::Level;
use crate::counts::Interpreted;
use crate::run;

/// Instructions of a slice that are watched for a profile.
const WATCHED: u32 = 512;
/// One frame in so many is timed.
const SAMPLE: u32 = 16;

/// Executes at most `steps` instructions. How many were executed; an error is the end of the frame or a call.
fn steps<'a>(
    interpreter: &mut Interpreter<EthInterpreter>,
    context: &mut Context<'a>,
    instructions: &Instructions<'a>,
    steps: u32,
) -> (u32, Result<(), InstructionResult>) {
    let (table, gas) = (instructions.instruction_table(), instructions.gas_table());
    for step in 0..steps {
        if let Err(end) = interpreter.step(table, gas, context) {
            return (step + 1, Err(end));
        }
    }
    (steps, Ok(()))
}

/// Gas that the frame itself burnt: what a call takes along is burnt by another, and a failure takes all there is without
/// executing anything for it.
#[inline]
fn burnt(before: u64, interpreter: &Interpreter<EthInterpreter>) -> u64 {
    let gone = before.saturating_sub(interpreter.gas.remaining());
    let Some(action) = &interpreter.bytecode.action else {
        return gone;
    };
    match action {
        InterpreterAction::NewFrame(FrameInput::Call(call)) => gone.saturating_sub(call.gas_limit),
        InterpreterAction::NewFrame(FrameInput::Create(create)) => {
            gone.saturating_sub(create.gas_limit())
        }
        InterpreterAction::NewFrame(FrameInput::Empty) => gone,
        InterpreterAction::Return(result) if result.result.is_ok_or_revert() => gone,
        InterpreterAction::Return(_) => 0,
    }
}

impl Shared {
    /// Runs a frame of the code `key` until it ends or calls.
    ///
    /// The way through here and [`run::run`] into native code is one function without calls: entering must not cost more
    /// than a short frame does.
    #[inline]
    pub(super) fn run<'a>(
        &self,
        local: &mut Local,
        key: &Key,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        let size = interpreter.bytecode.len();
        local.tick = local.tick.wrapping_add(1);
        let sampled = local.tick.is_multiple_of(SAMPLE);
        let (slot, counters) = local.slot(self, key, size);
        if slot.is_new() {
            self.meet(slot, interpreter);
        }
        let start = (sampled && slot.record.is_some()).then(Instant::now);
        let mut frame = Frame {
            shared: self,
            slot,
            counters,
            start,
        };
        if frame.slot.held.is_some() {
            counters.native.add(1);
            frame.natively(interpreter, context, instructions)
        } else {
            counters.interpreted.add(1);
            frame.interpreted(interpreter, context, instructions)
        }
    }
}

impl Shared {
    /// Asks for the native code of a slot that is new to its code.
    #[cold]
    fn meet(&self, slot: &mut Slot, interpreter: &Interpreter<EthInterpreter>) {
        let eager = self.settings.eager;
        let code = || interpreter.bytecode.original_bytes();
        if eager.is_none() && slot.record.is_none() && !self.is_stored(slot.key()) {
            return;
        }
        let Some(record) = slot.record(self) else {
            return;
        };
        match eager {
            Some(level) => self.compile_cold(record, level, code()),
            None => self.look(record, code),
        }
        slot.refresh(self, interpreter.bytecode.len());
    }
}

/// A frame under way.
struct Frame<'r> {
    shared: &'r Shared,
    slot: &'r mut Slot,
    counters: &'r Counters,
    /// When it began, if it is timed.
    start: Option<Instant>,
}

impl Frame<'_> {
    #[inline(never)]
    fn interpreted<'a>(
        &mut self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        let mut before = interpreter.gas.remaining();
        let mut sum = 0;
        loop {
            let (executed, end) = self.slice(interpreter, context, instructions);
            if self.shared.settings.count {
                let why = self.slot.without();
                self.counters.counts.stepped(why, executed.into());
            }
            if let Err(end) = end {
                run::finish(interpreter, end);
                let gas = burnt(before, interpreter);
                self.time(Ran::Interpreted, sum + gas);
                self.count_interpreted(gas, interpreter);
                return;
            }
            let now = interpreter.gas.remaining();
            let gas = before.saturating_sub(now);
            before = now;
            sum += gas;
            self.count_interpreted(gas, interpreter);
            self.slot.refresh(self.shared, interpreter.bytecode.len());
            if self.slot.held.is_some() {
                // Half interpreted, half native: says nothing of either.
                self.start = None;
                self.counters.picked_up.add(1);
                return self.natively(interpreter, context, instructions);
            }
        }
    }

    /// Executes a slice of instructions, and watches the first of them if the code's profile wants it.
    fn slice<'a>(
        &mut self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) -> (u32, Result<(), InstructionResult>) {
        let slice = self.shared.settings.slice;
        // What another thread watches now need not be watched twice.
        if std::mem::take(&mut self.slot.watch)
            && let Some(mut profile) =
                (self.slot.record.as_ref()).and_then(|it| it.profile.try_lock())
        {
            // A watched slice takes longer: it says nothing of the tier.
            self.start = None;
            self.counters.watched.add(1);
            let profile = profile.get_or_insert_default();
            return profile.watch(interpreter, context, instructions, slice.min(WATCHED));
        }
        steps(interpreter, context, instructions, slice)
    }

    #[inline]
    fn natively<'a>(
        &mut self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        // The hash is the state's word. If it lies, native code would be that of another code.
        let size = interpreter.bytecode.len();
        let Some(held) = self
            .slot
            .held
            .as_ref()
            .filter(|held| held.bytecode() == size)
        else {
            let shared = self.shared;
            return shared.apart(Interpreted::Unknown, interpreter, context, instructions);
        };
        let before = interpreter.gas.remaining();
        let counts = &self.counters.counts;
        let ran = run::run(held, interpreter, context, instructions, counts);
        let level = held.level();
        self.ended(interpreter);
        self.slot.frames = self.slot.frames.saturating_add(1);
        if ran.failed.is_some() || ran.missed.is_some() || ran.is_useless() {
            self.failed(ran, level, interpreter);
        }
        let gas = burnt(before, interpreter);
        if self.start.is_some() {
            self.time(level.into(), gas);
        }
        self.counters.native_gas.add(gas);
        if let Some(gas) = self.slot.count(gas)
            && let Some(record) = self.slot.record(self.shared)
        {
            let code = || interpreter.bytecode.original_bytes();
            self.shared.ran(record, level, gas, size, code);
        }
    }

    /// Counts how a frame with native code ended, and what it executed if that is counted.
    #[inline]
    fn ended(&self, interpreter: &Interpreter<EthInterpreter>) {
        match &interpreter.bytecode.action {
            Some(InterpreterAction::NewFrame(_)) => self.counters.suspended.add(1),
            Some(InterpreterAction::Return(result)) if !result.result.is_ok_or_revert() => {
                self.ended_badly(result.result);
            }
            _ => {}
        }
        if self.shared.settings.count {
            let (all, called) = run::executed();
            self.counters.native_instructions.add(all);
            self.counters.called_instructions.add(called);
        }
    }

    #[cold]
    fn ended_badly(&self, result: InstructionResult) {
        let out_of_gas = matches!(
            result,
            InstructionResult::OutOfGas
                | InstructionResult::MemoryOOG
                | InstructionResult::MemoryLimitOOG
                | InstructionResult::PrecompileOOG
                | InstructionResult::InvalidOperandOOG
                | InstructionResult::ReentrancySentryOOG
        );
        let counter = if out_of_gas {
            &self.counters.out_of_gas
        } else {
            &self.counters.failed
        };
        counter.add(1);
    }

    /// Something that native code takes for granted was not so, or it left at once.
    #[cold]
    fn failed(&mut self, ran: run::Ran, level: Level, interpreter: &Interpreter<EthInterpreter>) {
        if let (Some(target), Some(record)) = (ran.missed, &self.slot.record) {
            // All of them, so that the code need not be compiled again for each.
            let mut profile = record.profile.lock();
            profile.get_or_insert_default().miss(target);
        }
        if let Some(often) = self.slot.failed(&ran)
            && let Some(record) = &self.slot.record
        {
            let code = || interpreter.bytecode.original_bytes();
            self.shared.fails(record, level, often, code);
        }
    }

    fn count_interpreted(&mut self, gas: u64, interpreter: &Interpreter<EthInterpreter>) {
        self.counters.interpreted_gas.add(gas);
        if let Some(gas) = self.slot.count(gas)
            && let Some(record) = self.slot.record(self.shared)
        {
            let size = interpreter.bytecode.len();
            let code = || interpreter.bytecode.original_bytes();
            self.slot.watch = self.shared.interpreted(record, gas, size, code);
        }
    }

    /// Notes how long the frame took, if it is timed.
    #[inline(never)]
    fn time(&mut self, ran: Ran, gas: u64) {
        if let (Some(start), Some(record)) = (self.start.take(), &self.slot.record)
            && gas > 0
        {
            record.times.add(ran, start.elapsed(), gas);
        }
    }
}
