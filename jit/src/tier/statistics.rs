//! Counters: what ran how, and what the tiers hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use parking_lot::Mutex;
use serde::Serialize;

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
    /// Instructions that native code left to the interpreter.
    left: Counter;
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
    /// Compilations that wait.
    queue: Gauge;
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
    pub(super) entries: Count,
    pub(super) left: Count,
    pub(super) interpreted: Count,
    pub(super) native: Count,
    pub(super) picked_up: Count,
    pub(super) interpreted_gas: Count,
    pub(super) native_gas: Count,
}

/// A number that one thread adds to.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    /// Adds without a locked instruction, which is right for a single writer.
    pub(super) fn add(&self, more: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }
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
            let get = |count: &Count| count.0.load(Ordering::Relaxed);
            sum.entries += get(&counters.entries);
            sum.left += get(&counters.left);
            sum.interpreted += get(&counters.interpreted);
            sum.native += get(&counters.native);
            sum.picked_up += get(&counters.picked_up);
            sum.interpreted_gas += get(&counters.interpreted_gas);
            sum.native_gas += get(&counters.native_gas);
        }
    }
}
