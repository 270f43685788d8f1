//! What all threads share: from the gas that a code burns to the unit that it runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use alloy_primitives::Bytes;
use parking_lot::Mutex;
use rustix::time::{ClockId, clock_gettime};
use zvm_runtimes::evm::{Context, Instructions};
use zvm_runtimes::revm::interpreter::Interpreter;
use zvm_runtimes::revm::interpreter::interpreter::EthInterpreter;

use super::cache::Cache;
use super::policy::{Fails, Rates};
use super::profiles::Profiles;
use super::queue::{Job, Pushed, Queue};
use super::record::{Key, Record, Stage};
use super::settings::Settings;
use super::source::{Made, Request, Source};
use super::statistics::{Statistics, Threads};
use crate::compiler::{Level, Refused};
use crate::counts::{Interpreted, REASONS};
use crate::run;

#[derive(Debug)]
pub(super) struct Shared {
    /// Tells this one from others in what threads remember.
    pub(super) id: u64,
    pub(super) settings: Settings,
    source: Box<dyn Source>,
    pub(super) profiles: Profiles,
    pub(super) queue: Queue,
    pub(super) cache: Cache,
    pub(super) rates: Rates,
    pub(super) threads: Threads,
    outcomes: Outcomes,
    /// Instructions of frames whose codes have no record, by [`Interpreted`], if they are counted.
    apart: [AtomicU64; REASONS],
    /// Locks by code hash for what is compiled before its first instruction.
    eager: [Mutex<()>; EAGER],
}

const EAGER: usize = 64;
/// How often a code is compiled again for jumps that it has no entry for; each time it gets all that were seen.
const AGAIN: u32 = 8;
/// How often a code is watched.
const WATCHES: u32 = 4;

/// Counts of what happens rarely.
#[derive(Debug, Default)]
struct Outcomes {
    compiled: [AtomicU64; 2],
    compile_ns: [AtomicU64; 2],
    loaded: AtomicU64,
    empty: AtomicU64,
    too_large: AtomicU64,
    backend: AtomicU64,
    panic: AtomicU64,
    slower: AtomicU64,
    distrusted: AtomicU64,
    given_up: AtomicU64,
    dropped: AtomicU64,
    no_room: AtomicU64,
}

fn add(counter: &AtomicU64, more: u64) {
    counter.fetch_add(more, Ordering::Relaxed);
}

/// Processor time of the calling thread: what a compilation costs, however often the thread had to wait.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

impl Shared {
    pub(super) fn new(source: Box<dyn Source>, settings: Settings) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            source,
            profiles: Profiles::new(settings.profiles),
            queue: Queue::new(settings.queue),
            cache: Cache::new(settings.memory, settings.units),
            rates: Rates::default(),
            threads: Threads::default(),
            outcomes: Outcomes::default(),
            apart: Default::default(),
            eager: [const { Mutex::new(()) }; EAGER],
            settings,
        }
    }

    /// Gas that the interpreter burnt with a code. Whether the code's next slice is to be watched.
    pub(super) fn interpreted(
        &self,
        record: &Arc<Record>,
        gas: u64,
        size: usize,
        code: impl FnOnce() -> Bytes,
    ) -> bool {
        let sum = Record::burn(&record.interpreted, gas);
        let threshold = self.rates.threshold(&self.settings, Level::Quick, size);
        if sum >= threshold {
            self.want(record, Level::Quick, sum, code());
        }
        sum >= threshold / 2 && record.watched.fetch_add(1, Ordering::Relaxed) < WATCHES
    }

    /// Runs a frame by the interpreter alone, without a record of its code.
    pub(super) fn apart<'a>(
        &self,
        why: Interpreted,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        if self.settings.count {
            let steps = run::interpret_counted(interpreter, context, instructions);
            add(&self.apart[why as usize], steps);
        } else {
            run::interpret(interpreter, context, instructions);
        }
    }

    /// A code's unit often fails.
    pub(super) fn fails(
        &self,
        record: &Arc<Record>,
        level: Level,
        fails: Fails,
        code: impl FnOnce() -> Bytes,
    ) {
        match fails {
            Fails::Assumption(header) => {
                let mut profile = record.profile.lock();
                let is_news = profile.get_or_insert_default().distrust(header);
                drop(profile);
                if is_news {
                    add(&self.outcomes.distrusted, 1);
                    let gas = record.native.load(Ordering::Relaxed);
                    self.again(record, level, gas, code());
                }
            }
            Fails::Missed => {
                if record.again.fetch_add(1, Ordering::Relaxed) < AGAIN {
                    add(&self.outcomes.distrusted, 1);
                    let gas = record.native.load(Ordering::Relaxed);
                    self.again(record, level, gas, code());
                }
            }
            Fails::Useless => {
                add(&self.outcomes.given_up, 1);
                self.cache.refuse(record);
            }
        }
    }

    /// Compiles a code in place if it was never tried. If another thread does, waits for it.
    pub(super) fn compile_cold(&self, record: &Arc<Record>, level: Level, code: Bytes) {
        let _one_at_a_time = self.eager[usize::from(record.key.hash[0]) % EAGER].lock();
        let mut state = record.state.lock();
        if state.stage != Stage::Cold {
            return;
        }
        state.stage = Stage::Waiting(level);
        drop(state);
        self.compile(&Job {
            record: Arc::clone(record),
            code,
            level,
        });
    }

    /// Gas that frames with native code burnt.
    pub(super) fn ran(
        &self,
        record: &Arc<Record>,
        level: Level,
        gas: u64,
        size: usize,
        code: impl FnOnce() -> Bytes,
    ) {
        let sum = Record::burn(&record.native, gas);
        self.rates.learn(&record.times, level);
        if record.times.is_slower(level) {
            add(&self.outcomes.slower, 1);
            self.cache.refuse(record);
            return;
        }
        if level == Level::Full || !self.settings.full {
            return;
        }
        if sum >= self.rates.threshold(&self.settings, Level::Full, size) {
            self.want(record, Level::Full, sum, code());
        }
    }

    /// Asks for a code at the level that it has.
    fn again(&self, record: &Arc<Record>, level: Level, gas: u64, code: Bytes) {
        let mut state = record.state.lock();
        if !matches!(state.stage, Stage::Ready | Stage::Final) {
            return;
        }
        // As it is before it is compiled at this level.
        state.stage = match level {
            Level::Quick => Stage::Cold,
            Level::Full => Stage::Ready,
        };
        drop(state);
        self.want(record, level, gas, code);
    }

    /// Asks for a code at a level, because it burnt so much gas.
    fn want(&self, record: &Arc<Record>, level: Level, gas: u64, code: Bytes) {
        let value = self.rates.value(level, gas, code.len());
        let mut state = record.state.lock();
        match (state.stage, level) {
            (Stage::Cold, _) | (Stage::Ready, Level::Full) => {}
            (Stage::Waiting(_), _) => {
                if let Some(rank) = state.rank
                    && value >= rank.0.saturating_mul(2)
                {
                    state.rank = self.queue.move_to(rank, value);
                }
                return;
            }
            _ => return,
        }
        let job = Job {
            record: Arc::clone(record),
            code,
            level,
        };
        if self.settings.threads == 0 {
            state.stage = Stage::Waiting(level);
            drop(state);
            self.compile(&job);
            return;
        }
        match self.queue.push(value, job) {
            Pushed::Waits(rank, displaced) => {
                state.stage = Stage::Waiting(level);
                state.rank = Some(rank);
                // Before another record is touched: whoever holds two could wait for one who holds them in turn.
                drop(state);
                if let Some(displaced) = displaced {
                    add(&self.outcomes.dropped, 1);
                    fall_back(&displaced.record);
                }
            }
            Pushed::Dropped => {
                add(&self.outcomes.dropped, 1);
                if state.unit.is_some() {
                    state.stage = Stage::Ready;
                }
            }
        }
    }

    /// Compiles a code that waits no longer, and puts the unit in use.
    pub(super) fn compile(&self, job: &Job) {
        let Job {
            record,
            code,
            level,
        } = job;
        record.state.lock().rank = None;
        // Copied, for it is small, and threads that execute must not wait for the compiler.
        let profile = record.profile.lock().clone();
        let request = Request {
            key: record.key,
            code,
            level: *level,
            profile: profile.as_deref(),
            count: self.settings.count,
        };
        let start = cpu_time();
        // The compiler keeps nothing between compilations, so that nothing is left half done.
        let made = catch_unwind(AssertUnwindSafe(|| self.source.make(&request)));
        let elapsed = cpu_time().saturating_sub(start);
        let at = *level as usize;
        let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let refused = match made {
            Ok(Ok(Made { unit, stored })) => {
                if stored {
                    add(&self.outcomes.loaded, 1);
                } else {
                    self.rates.compiled(*level, code.len(), elapsed);
                    add(&self.outcomes.compiled[at], 1);
                    add(&self.outcomes.compile_ns[at], ns);
                }
                let worth = record.interpreted.load(Ordering::Relaxed)
                    + record.native.swap(0, Ordering::Relaxed);
                let stage = match level {
                    Level::Quick => Stage::Ready,
                    Level::Full => Stage::Final,
                };
                if !self.cache.insert(record, unit, stage, worth) {
                    self.without_room(record);
                }
                return;
            }
            Ok(Err(Refused::Memory(reason))) => {
                tracing::debug!(%reason, "no memory for native code");
                self.cache.shrink();
                self.without_room(record);
                return;
            }
            Ok(Err(refused)) => {
                add(self.outcomes.refused(&refused), 1);
                refused.to_string()
            }
            Err(_) => {
                add(&self.outcomes.panic, 1);
                "the compiler panicked".to_owned()
            }
        };
        tracing::debug!(code = %record.key.hash, ?level, %refused, "not compiled");
        let mut state = record.state.lock();
        state.stage = match state.unit {
            Some(_) => Stage::Final,
            None => Stage::Refused,
        };
        drop(state);
        self.cache.changed();
    }

    /// There is no room for a code's unit: it has to earn another try.
    fn without_room(&self, record: &Record) {
        add(&self.outcomes.no_room, 1);
        fall_back(record);
        record.interpreted.store(0, Ordering::Relaxed);
        record.native.store(0, Ordering::Relaxed);
    }

    /// Asks for the unit of a code that was never seen before if it is at hand: it need not burn gas for that first.
    pub(super) fn look(&self, record: &Arc<Record>, code: impl FnOnce() -> Bytes) {
        if record.looked.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(level) = self.stored(&record.key) {
            self.want(record, level, u64::MAX, code());
        }
    }

    /// Whether the unit of a code is at hand.
    pub(super) fn is_stored(&self, key: &Key) -> bool {
        self.stored(key).is_some()
    }

    /// The best level at which the unit of a code is at hand.
    fn stored(&self, key: &Key) -> Option<Level> {
        let best = if self.settings.full {
            Level::Full
        } else {
            Level::Quick
        };
        [best, Level::Quick]
            .into_iter()
            .find(|level| self.source.is_stored(key, *level))
    }

    pub(super) fn statistics(&self) -> Statistics {
        let outcomes = &self.outcomes;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [compiled_quick, compiled_full] = outcomes.compiled.each_ref().map(get);
        let [quick_ns, full_ns] = outcomes.compile_ns.each_ref().map(get);
        let mut sum = Statistics {
            compiled: compiled_quick + compiled_full,
            compiled_quick,
            compiled_full,
            loaded: get(&outcomes.loaded),
            compile_quick_us: quick_ns / 1_000,
            compile_full_us: full_ns / 1_000,
            refused_empty: get(&outcomes.empty),
            refused_too_large: get(&outcomes.too_large),
            refused_backend: get(&outcomes.backend),
            refused_panic: get(&outcomes.panic),
            slower: get(&outcomes.slower),
            distrusted: get(&outcomes.distrusted),
            given_up: get(&outcomes.given_up),
            queue: self.queue.len() as u64,
            compiling: self.queue.busy() as u64,
            dropped: get(&outcomes.dropped),
            no_room: get(&outcomes.no_room),
            evicted: self.cache.evictions(),
            units: self.cache.len() as u64,
            native_bytes: self.cache.bytes() as u64,
            bytecode_bytes: self.cache.bytecode() as u64,
            profiles: self.profiles.len() as u64,
            ..Statistics::default()
        };
        sum.refused =
            sum.refused_empty + sum.refused_too_large + sum.refused_backend + sum.refused_panic;
        self.threads.add_to(&mut sum);
        if self.settings.count {
            sum.sum_up(&self.apart);
        }
        sum
    }
}

impl Outcomes {
    fn refused(&self, refused: &Refused) -> &AtomicU64 {
        match refused {
            Refused::Empty => &self.empty,
            Refused::TooLarge { .. } => &self.too_large,
            Refused::Backend(_) | Refused::Memory(_) => &self.backend,
        }
    }
}

/// A code that waits no more and was not compiled is what it was before.
fn fall_back(record: &Record) {
    let mut state = record.state.lock();
    state.rank = None;
    state.stage = match state.unit {
        Some(_) => Stage::Ready,
        None => Stage::Cold,
    };
}
