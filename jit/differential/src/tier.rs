//! Runs frames one way and notes what is seen of each.

use core::hash::{Hash, Hasher as _};
use std::collections::BTreeMap;
use std::hash::DefaultHasher;
use std::sync::Arc;

use alloy_primitives::map::HashMap;
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use parking_lot::Mutex;
use zvm_jit::compiler::{Compiler, Level};
use zvm_jit::counts::Counts;
use zvm_jit::memory::CodeMemory;
use zvm_jit::run;
use zvm_jit::unit::Unit;
use zvm_runtimes::evm::{Context, FrameRunner, Instructions};
use zvm_runtimes::revm::context_interface::JournalTr as _;
use zvm_runtimes::revm::interpreter::interpreter::EthInterpreter;
use zvm_runtimes::revm::interpreter::interpreter_types::Jumps as _;
use zvm_runtimes::revm::interpreter::{
    FrameInput, InstructionResult, Interpreter, InterpreterAction,
};
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use crate::choices::Choices;

/// How frames are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// By the interpreter: the oracle.
    Interpreter,
    /// Natively.
    Native(Level),
    /// By the interpreter for a random number of instructions whenever a frame starts or goes on, then natively at a
    /// random level: native code is entered wherever it lets itself be entered.
    Mixed,
    /// By the interpreter past a random number of places where native code may be entered, then natively at a random
    /// level by code whose guards fail at random: loops are entered at their headers and frames left in the middle.
    Stressed,
}

impl Tier {
    /// What is compared with the interpreter.
    pub const NATIVE: [Self; 4] = [
        Self::Native(Level::Quick),
        Self::Native(Level::Full),
        Self::Mixed,
        Self::Stressed,
    ];
}

impl core::fmt::Display for Tier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Interpreter => "interpreter",
            Self::Native(Level::Quick) => "quick",
            Self::Native(Level::Full) => "full",
            Self::Mixed => "mixed",
            Self::Stressed => "stressed",
        })
    }
}

/// Why an out-of-gas halt says it ran out of gas. Native code takes the gas of a section at once, so it may find out
/// earlier than the interpreter, and by another instruction; nothing else may differ.
pub type OutOfGas = InstructionResult;

/// How a frame was left or suspended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It waits for a call or a creation.
    Suspended {
        /// The call.
        input: FrameInput,
        /// Offset in the code where it goes on.
        pc: usize,
        /// Gas left.
        gas: u64,
        /// Gas to be refunded so far.
        refund: i64,
        /// Words on the stack, and a hash of them.
        stack: (usize, u64),
        /// Bytes of memory, and a hash of them.
        memory: (usize, u64),
        /// Changes of the state that could still be undone.
        changes: usize,
    },
    /// It returned or reverted.
    Returned {
        /// How.
        result: InstructionResult,
        /// Output.
        output: Vec<u8>,
        /// Gas left.
        gas: u64,
        /// Gas to be refunded.
        refund: i64,
        /// Changes of the state that could still be undone.
        changes: usize,
    },
    /// It used all its gas; why it says so is in [`Log::out_of_gas`].
    OutOfGas,
    /// It failed otherwise.
    Failed(InstructionResult),
}

/// What is warm: addresses with their slots.
pub type Warm = BTreeMap<Address, Vec<(U256, U256)>>;

/// What was seen of the frames of a transaction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Log {
    /// Each time a frame ended or waited: its depth and how.
    pub frames: Vec<(usize, End)>,
    /// Warm addresses, and warm slots with their values, when the first frame returned or reverted.
    pub warm: Warm,
    /// The kinds of the out-of-gas ends in `frames`.
    pub out_of_gas: Vec<OutOfGas>,
}

/// Units of codes that are called again: those made last, about this many.
const KEPT_UNITS: usize = 4_096;

/// What ran how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Codes compiled.
    pub compiled: u64,
    /// Codes refused.
    pub refused: u64,
    /// Bytes of native code.
    pub native_bytes: u64,
    /// Bytes of the code it was made from.
    pub bytecode_bytes: u64,
    /// Times native code was entered.
    pub entries: u64,
    /// Instructions that native code left to the interpreter.
    pub left: u64,
    /// Times a frame was run without native code.
    pub interpreted: u64,
}

impl core::ops::AddAssign for Statistics {
    fn add_assign(&mut self, other: Self) {
        self.compiled += other.compiled;
        self.refused += other.refused;
        self.native_bytes += other.native_bytes;
        self.bytecode_bytes += other.bytecode_bytes;
        self.entries += other.entries;
        self.left += other.left;
        self.interpreted += other.interpreted;
    }
}

/// By code hash, rules, level, and whether guards fail at random.
type Units = HashMap<(B256, SpecId, Level, bool), Option<Arc<Unit>>>;

/// Bytes of native code, far above what the kept units take.
const MEMORY: usize = 4 << 30;

/// Compiles what runs, and keeps the last of it.
#[derive(Debug)]
pub struct Native {
    compiler: Compiler,
    stressed: Compiler,
    memory: CodeMemory,
    inner: Mutex<(Units, Statistics)>,
}

impl Native {
    /// Compiles by `compiler`.
    pub fn new(compiler: Compiler) -> Self {
        let mut stressed = compiler.clone();
        stressed.set_stress(true);
        Self {
            compiler,
            stressed,
            memory: CodeMemory::new(MEMORY),
            inner: Mutex::default(),
        }
    }

    /// What was compiled and run.
    pub fn statistics(&self) -> Statistics {
        self.inner.lock().1
    }

    fn unit(
        &self,
        interpreter: &Interpreter<EthInterpreter>,
        spec: SpecId,
        level: Level,
        stressed: bool,
    ) -> Option<Arc<Unit>> {
        let hash = interpreter
            .bytecode
            .hash()
            .filter(|hash| *hash != KECCAK256_EMPTY && *hash != B256::ZERO)?;
        let (units, statistics) = &mut *self.inner.lock();
        if units.len() > KEPT_UNITS {
            units.clear();
        }
        units
            .entry((hash, spec, level, stressed))
            .or_insert_with(|| {
                let code = interpreter.bytecode.original_byte_slice();
                let compiler = if stressed {
                    &self.stressed
                } else {
                    &self.compiler
                };
                let image = compiler.compile(code, spec, level).ok();
                let unit = image.map(|image| {
                    let unit = Unit::load(image, &self.memory);
                    Arc::new(unit.expect("room for the units that are kept"))
                });
                match &unit {
                    Some(unit) => {
                        statistics.compiled += 1;
                        statistics.native_bytes += unit.size() as u64;
                        statistics.bytecode_bytes += unit.bytecode() as u64;
                    }
                    None => statistics.refused += 1,
                }
                unit
            })
            .clone()
    }
}

/// Runs frames by a tier and notes what is seen.
#[derive(Debug)]
pub struct Recorder {
    tier: Tier,
    native: Arc<Native>,
    log: Mutex<(Log, Choices<'static>)>,
}

impl Recorder {
    /// Runs frames by `tier`, natively by the units of `native`.
    pub fn new(tier: Tier, native: Arc<Native>) -> Self {
        Self {
            tier,
            native,
            log: Mutex::new((Log::default(), Choices::from_seed(0))),
        }
    }

    /// What was seen since it was asked last. Random decisions are those of the first transaction again.
    pub fn take(&self) -> Log {
        let (log, choices) = &mut *self.log.lock();
        *choices = Choices::from_seed(0);
        core::mem::take(log)
    }

    fn frame<'a>(
        &self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        let (table, gas_table) = (instructions.instruction_table(), instructions.gas_table());
        let level = match self.tier {
            Tier::Interpreter => return run::interpret(interpreter, context, instructions),
            Tier::Native(level) => level,
            Tier::Mixed | Tier::Stressed => self.log.lock().1.pick(&[Level::Quick, Level::Full]),
        };
        let stressed = self.tier == Tier::Stressed;
        let unit = self
            .native
            .unit(interpreter, context.cfg.spec, level, stressed);
        let Some(unit) = unit else {
            self.native.inner.lock().1.interpreted += 1;
            return run::interpret(interpreter, context, instructions);
        };
        // How many instructions, or entries, the interpreter passes first.
        let mut passes = match self.tier {
            Tier::Mixed => self.log.lock().1.below(40),
            Tier::Stressed => self.log.lock().1.below(5),
            _ => 0,
        };
        while passes > 0 {
            if !stressed || unit.entry_at(interpreter.bytecode.pc()).is_some() {
                passes -= 1;
            }
            if let Err(result) = interpreter.step(table, gas_table, context) {
                return run::finish(interpreter, result);
            }
        }
        if stressed {
            run::stress(self.log.lock().1.between(1, 16));
        }
        let counts = Counts::default();
        run::run(&unit, interpreter, context, instructions, &counts);
        let statistics = &mut self.native.inner.lock().1;
        statistics.entries += counts.entries.get();
        statistics.left += counts.left();
    }

    fn note(&self, interpreter: &Interpreter<EthInterpreter>, context: &Context<'_>) {
        let Some(action) = &interpreter.bytecode.action else {
            unreachable!("a frame ends or waits with an action");
        };
        let log = &mut self.log.lock().0;
        let journal = &context.journaled_state;
        let end = match action {
            InterpreterAction::NewFrame(input) => {
                let memory = interpreter.memory.context_memory();
                let stack = interpreter.stack.data();
                End::Suspended {
                    input: input.clone(),
                    pc: interpreter.bytecode.pc(),
                    gas: interpreter.gas.remaining(),
                    refund: interpreter.gas.refunded(),
                    stack: (stack.len(), hash(stack)),
                    memory: (memory.len(), hash(&*memory)),
                    changes: journal.changes(),
                }
            }
            InterpreterAction::Return(result) if result.result.is_ok_or_revert() => {
                if journal.depth() == 1 {
                    log.warm = warm(context);
                }
                End::Returned {
                    result: result.result,
                    output: result.output.to_vec(),
                    gas: result.gas.remaining(),
                    refund: result.gas.refunded(),
                    changes: journal.changes(),
                }
            }
            InterpreterAction::Return(result) => match result.result {
                InstructionResult::OutOfGas
                | InstructionResult::MemoryOOG
                | InstructionResult::MemoryLimitOOG
                | InstructionResult::InvalidOperandOOG
                | InstructionResult::ReentrancySentryOOG => {
                    log.out_of_gas.push(result.result);
                    End::OutOfGas
                }
                other => End::Failed(other),
            },
        };
        log.frames.push((journal.depth(), end));
    }
}

/// The same in every process, unlike that of a hash table.
fn hash<T: Hash + ?Sized>(value: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn warm(context: &Context<'_>) -> Warm {
    context.journaled_state.warm().collect()
}

impl FrameRunner for Recorder {
    fn run<'a>(
        &self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        self.frame(interpreter, context, instructions);
        self.note(interpreter, context);
    }
}
