//! Which code runs natively.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_primitives::{B256, KECCAK256_EMPTY};
use parking_lot::RwLock;
use zvm_runtimes::evm::{Context, FrameRunner, Instructions};
use zvm_runtimes::revm::interpreter::interpreter::EthInterpreter;
use zvm_runtimes::revm::interpreter::{Interpreter, InterpreterAction};
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use crate::compiler::{Compiler, Level, Refused};
use crate::memory::CodeMemory;
use crate::perf;
use crate::run::{Counts, run};
use crate::unit::Unit;

/// What became of a code.
type Outcome = Result<Arc<Unit>, Refused>;

/// Bytes of native code at most: nothing is evicted here.
const MEMORY: usize = 4 << 30;

/// Compiles every code before its first instruction. Initcode, which runs once, stays with the interpreter.
#[derive(Debug)]
pub struct Eager {
    compiler: Compiler,
    level: Level,
    memory: CodeMemory,
    units: RwLock<HashMap<(B256, SpecId), Outcome>>,
    native: AtomicU64,
    left: AtomicU64,
    interpreted: AtomicU64,
}

/// What ran how, since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Times native code was entered.
    pub entries: u64,
    /// Instructions that native code left to the interpreter.
    pub left: u64,
    /// Frames that ran in the interpreter alone.
    pub interpreted: u64,
    /// Codes compiled.
    pub compiled: u64,
    /// Codes refused.
    pub refused: u64,
    /// Bytes of native code.
    pub native_bytes: u64,
    /// Bytes of the code it was made from.
    pub bytecode_bytes: u64,
}

impl Eager {
    /// Compiles at `level`.
    pub fn new(compiler: Compiler, level: Level) -> Self {
        Self {
            compiler,
            level,
            memory: CodeMemory::new(MEMORY),
            units: RwLock::default(),
            native: AtomicU64::new(0),
            left: AtomicU64::new(0),
            interpreted: AtomicU64::new(0),
        }
    }

    fn unit(
        &self,
        hash: B256,
        interpreter: &Interpreter<EthInterpreter>,
        spec: SpecId,
    ) -> Option<Arc<Unit>> {
        if let Some(outcome) = self.units.read().get(&(hash, spec)) {
            return outcome.as_ref().ok().cloned();
        }
        let code = interpreter.bytecode.original_byte_slice();
        let outcome = self
            .compiler
            .compile(code, spec, self.level)
            .and_then(|image| {
                Unit::load(image, &self.memory).map_err(|error| Refused::Backend(error.to_string()))
            })
            .inspect(|unit| perf::register(unit, &hash))
            .map(Arc::new);
        let unit = outcome.as_ref().ok().cloned();
        if let Err(refused) = &outcome {
            tracing::debug!(%hash, %refused, "code stays with the interpreter");
        }
        self.units.write().insert((hash, spec), outcome);
        unit
    }

    /// What ran how.
    pub fn statistics(&self) -> Statistics {
        let units = self.units.read();
        let mut statistics = Statistics {
            entries: self.native.load(Ordering::Relaxed),
            left: self.left.load(Ordering::Relaxed),
            interpreted: self.interpreted.load(Ordering::Relaxed),
            ..Statistics::default()
        };
        for outcome in units.values() {
            match outcome {
                Ok(unit) => {
                    statistics.compiled += 1;
                    statistics.native_bytes += unit.size() as u64;
                    statistics.bytecode_bytes += unit.bytecode() as u64;
                }
                Err(_) => statistics.refused += 1,
            }
        }
        statistics
    }
}

impl FrameRunner for Eager {
    fn run<'a>(
        &self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) -> InterpreterAction {
        let hash = interpreter
            .bytecode
            .hash()
            .filter(|hash| *hash != KECCAK256_EMPTY && *hash != B256::ZERO);
        let unit = hash.and_then(|hash| self.unit(hash, interpreter, context.cfg.spec));
        let Some(unit) = unit else {
            self.interpreted.fetch_add(1, Ordering::Relaxed);
            return interpreter.run_plain(
                instructions.instruction_table(),
                instructions.gas_table(),
                context,
            );
        };
        let mut counts = Counts::default();
        let action = run(&unit, interpreter, context, instructions, &mut counts);
        self.native.fetch_add(counts.entries, Ordering::Relaxed);
        self.left.fetch_add(counts.left, Ordering::Relaxed);
        action
    }
}
