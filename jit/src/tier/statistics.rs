//! Counters: what ran how, and what the tiers hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use parking_lot::Mutex;
use serde::Serialize;

use crate::abi::LEAVES;
use crate::counts::{Count, Counts, REASONS};

/// Makes a struct of numbers whose fields can be walked with their names.
macro_rules! statistics {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ident;)+) => {
        /// What ran how since the start, and what is held now.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
        pub struct Statistics {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Statistics {
            /// Every number with its name, what it is, and whether it only grows.
            pub fn fields(&self) -> impl Iterator<Item = Field> {
                [$(Field {
                    name: stringify!($name),
                    help: concat!($($doc),+).trim_ascii(),
                    kind: Kind::$kind,
                    value: self.$name,
                }),+].into_iter()
            }
        }
    };
}

/// One number of the [`Statistics`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// As the struct calls it.
    pub name: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// The number.
    pub value: u64,
}

/// How a number moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It is what there is now.
    Gauge,
}

statistics! {
    /// Times native code was entered.
    entries: Counter;
    /// Instructions that the interpreter executed in frames that have native code.
    left: Counter;
    /// Native code left: a jump to a JUMPDEST that it has no entry for.
    left_jump: Counter;
    /// Native code left: the stack was too low or too high for a region.
    left_stack: Counter;
    /// Native code left: a loop was entered with other words, or less memory, than it takes for granted.
    left_loop: Counter;
    /// Native code left: a word in a loop got wider than it was taken to be.
    left_width: Counter;
    /// Native code left: an instruction that is not compiled, or not active.
    left_opcode: Counter;
    /// Runs of a frame with native code that ended with a call or creation.
    suspended: Counter;
    /// Runs of a frame with native code that ran out of gas.
    out_of_gas: Counter;
    /// Runs of a frame with native code that failed otherwise.
    failed: Counter;
    /// Instructions that native code executed, if they are counted.
    native_instructions: Counter;
    /// Those of them that native code had executed by a call of the interpreter's own function or one like it.
    called_instructions: Counter;
    /// Instructions that the interpreter executed, if they are counted: the sum of those below.
    interpreted_instructions: Counter;
    /// Instructions interpreted after a jump to a JUMPDEST without an entry.
    steps_jump: Counter;
    /// Instructions interpreted after the stack was too low or too high.
    steps_stack: Counter;
    /// Instructions interpreted after a loop was entered with unexpected words.
    steps_loop: Counter;
    /// Instructions interpreted after a word in a loop got wide.
    steps_width: Counter;
    /// Instructions interpreted that are not compiled, up to the next entry.
    steps_opcode: Counter;
    /// Instructions interpreted up to the first entry.
    steps_between: Counter;
    /// Instructions interpreted because native code left at once too often.
    steps_fruitless: Counter;
    /// Instructions interpreted because there was more gas than native code can count.
    steps_gas_limit: Counter;
    /// Instructions interpreted before there was native code, if they are counted.
    steps_cold: Counter;
    /// Instructions interpreted of codes that are not compiled for good, if they are counted.
    steps_refused: Counter;
    /// Instructions interpreted of initcode and of empty code, if they are counted.
    steps_initcode: Counter;
    /// Instructions interpreted on a chain with gas costs of its own, if they are counted.
    steps_rules: Counter;
    /// Instructions interpreted of codes that have no record, if they are counted.
    steps_unknown: Counter;
    /// Runs of a frame, each until it ended or called, that began in the interpreter.
    interpreted: Counter;
    /// Runs of a frame, each until it ended or called, that began with native code at hand.
    native: Counter;
    /// Runs of a frame that were picked up by native code on the way.
    picked_up: Counter;
    /// Gas burnt in the interpreter, as far as it is counted.
    interpreted_gas: Counter;
    /// Gas burnt by frames with native code.
    native_gas: Counter;
    /// Compilations.
    compiled: Counter;
    /// Compilations at the quick level.
    compiled_quick: Counter;
    /// Compilations at the full level.
    compiled_full: Counter;
    /// Units that were stored.
    loaded: Counter;
    /// Microseconds spent on compilations at the quick level.
    compile_quick_us: Counter;
    /// Microseconds spent on compilations at the full level.
    compile_full_us: Counter;
    /// Compilations refused, for whatever reason.
    refused: Counter;
    /// Refused: nothing to compile.
    refused_empty: Counter;
    /// Refused: above the bounds of a compilation.
    refused_too_large: Counter;
    /// Refused: by the code generator.
    refused_backend: Counter;
    /// Refused: the compiler panicked.
    refused_panic: Counter;
    /// Codes given back to the interpreter because it was faster.
    slower: Counter;
    /// Codes compiled again without an assumption that often failed, or with entries that computed jumps often missed.
    distrusted: Counter;
    /// Codes given back to the interpreter because native code mostly left at once.
    given_up: Counter;
    /// Slices of the interpreter that were watched for a profile.
    watched: Counter;
    /// Compilations that wait.
    queue: Gauge;
    /// Compilations under way in the background.
    compiling: Gauge;
    /// Compilations dropped because the queue was full.
    dropped: Counter;
    /// Compiled codes dropped at once because others are worth more, or threads still hold what was evicted.
    no_room: Counter;
    /// Units evicted.
    evicted: Counter;
    /// Codes compiled now.
    units: Gauge;
    /// Bytes of native code and its tables, with what was evicted and is still run.
    native_bytes: Gauge;
    /// Bytes of the code it was made from.
    bytecode_bytes: Gauge;
    /// Codes whose gas is counted.
    profiles: Gauge;
}

/// Counts of one thread. Only that thread writes, so that no two share a cache line; anyone reads.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct Counters {
    pub(super) counts: Counts,
    pub(super) interpreted: Count,
    pub(super) native: Count,
    pub(super) picked_up: Count,
    pub(super) interpreted_gas: Count,
    pub(super) native_gas: Count,
    pub(super) suspended: Count,
    pub(super) out_of_gas: Count,
    pub(super) failed: Count,
    pub(super) native_instructions: Count,
    pub(super) called_instructions: Count,
    pub(super) watched: Count,
}

/// The counts of all threads.
#[derive(Debug, Default)]
pub(super) struct Threads(Mutex<Vec<Arc<Counters>>>);

impl Threads {
    /// Counters for the calling thread. Those of a thread that has ended are used on, so that there are never more than
    /// threads at one time.
    pub(super) fn join(&self) -> Arc<Counters> {
        let mut all = self.0.lock();
        if let Some(free) = all.iter().find(|counters| Arc::strong_count(counters) == 1) {
            // What the thread counted last was written before it let go.
            fence(Ordering::Acquire);
            return Arc::clone(free);
        }
        let counters = Arc::new(Counters::default());
        all.push(Arc::clone(&counters));
        counters
    }

    pub(super) fn add_to(&self, sum: &mut Statistics) {
        for counters in self.0.lock().iter() {
            sum.entries += counters.counts.entries.get();
            sum.left += counters.counts.left();
            for (to, from) in sum.leaves().into_iter().zip(&counters.counts.leaves) {
                *to += from.get();
            }
            for (to, from) in sum.steps().into_iter().zip(&counters.counts.steps) {
                *to += from.get();
            }
            sum.interpreted += counters.interpreted.get();
            sum.native += counters.native.get();
            sum.picked_up += counters.picked_up.get();
            sum.interpreted_gas += counters.interpreted_gas.get();
            sum.native_gas += counters.native_gas.get();
            sum.suspended += counters.suspended.get();
            sum.out_of_gas += counters.out_of_gas.get();
            sum.failed += counters.failed.get();
            sum.native_instructions += counters.native_instructions.get();
            sum.called_instructions += counters.called_instructions.get();
            sum.watched += counters.watched.get();
        }
    }
}

impl Statistics {
    /// By [`crate::abi::Leave`].
    fn leaves(&mut self) -> [&mut u64; LEAVES] {
        [
            &mut self.left_jump,
            &mut self.left_stack,
            &mut self.left_loop,
            &mut self.left_width,
            &mut self.left_opcode,
        ]
    }

    /// By [`crate::counts::Interpreted`].
    fn steps(&mut self) -> [&mut u64; REASONS] {
        [
            &mut self.steps_jump,
            &mut self.steps_stack,
            &mut self.steps_loop,
            &mut self.steps_width,
            &mut self.steps_opcode,
            &mut self.steps_between,
            &mut self.steps_fruitless,
            &mut self.steps_gas_limit,
            &mut self.steps_cold,
            &mut self.steps_refused,
            &mut self.steps_initcode,
            &mut self.steps_rules,
            &mut self.steps_unknown,
        ]
    }

    /// Adds what was counted apart, and sums up all of the interpreter's instructions.
    pub(super) fn sum_up(&mut self, apart: &[AtomicU64; REASONS]) {
        let mut sum = 0;
        for (to, from) in self.steps().into_iter().zip(apart) {
            *to += from.load(Ordering::Relaxed);
            sum += *to;
        }
        self.interpreted_instructions = sum;
    }

    /// The part of all instructions that native code executed, from 0 to 1. `None`: they are not counted, or there were
    /// none.
    pub fn native_share(&self) -> Option<f64> {
        let all = self.native_instructions + self.interpreted_instructions;
        (self.native_instructions > 0).then(|| self.native_instructions as f64 / all as f64)
    }
}
