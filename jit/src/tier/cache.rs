//! The units that are in use: bounded in bytes and number, the least useful evicted while others run them.
//!
//! A unit is worth the gas it ran, halved each time the cache makes room, per byte. Evicting takes it from the cache and
//! its record; its memory is given back when the last thread that runs it has left it. What is evicted and still run
//! counts as used memory, so that the budget is one of memory and not of good intentions.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::record::{Key, Record, Stage};
use crate::unit::Unit;

/// A unit with its weight in the books, which are right as long as it lives.
#[derive(Debug)]
pub(super) struct Held {
    unit: Unit,
    bytes: usize,
    books: Arc<AtomicUsize>,
}

impl Held {
    fn new(unit: Unit, books: &Arc<AtomicUsize>) -> Self {
        let bytes = footprint(&unit);
        books.fetch_add(bytes, Ordering::Relaxed);
        Self {
            unit,
            bytes,
            books: Arc::clone(books),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.books.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl Deref for Held {
    type Target = Unit;

    fn deref(&self) -> &Unit {
        &self.unit
    }
}

/// Bytes of native code and of the tables beside it.
fn footprint(unit: &Unit) -> usize {
    unit.size() + size_of_val(unit.entries()) + size_of_val(unit.symbols())
}

#[derive(Debug)]
pub(super) struct Cache {
    memory: usize,
    units: usize,
    inner: Mutex<HashMap<Key, Entry>>,
    books: Arc<AtomicUsize>,
    bytecode: AtomicUsize,
    /// Grows with every change of any record's unit.
    generation: AtomicU64,
    /// Grows with every eviction.
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Entry {
    record: Arc<Record>,
    held: Arc<Held>,
    /// Gas it is worth, as of the last time room was made.
    worth: u64,
}

impl Entry {
    /// Gas a MiB.
    fn weight(&self) -> u64 {
        let gas = self
            .worth
            .saturating_add(self.record.native.load(Ordering::Relaxed));
        u64::try_from((u128::from(gas) << 20) / self.held.bytes.max(1) as u128).unwrap_or(u64::MAX)
    }
}

impl Cache {
    pub(super) fn new(memory: usize, units: usize) -> Self {
        Self {
            memory,
            units: units.max(1),
            inner: Mutex::default(),
            books: Arc::default(),
            bytecode: AtomicUsize::new(0),
            generation: AtomicU64::new(1),
            evicted: AtomicU64::new(0),
        }
    }

    /// Changes when a thread that remembers units should look again.
    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A record's stage has changed so that threads should count otherwise.
    pub(super) fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Changes when a thread that remembers units should let go of those it does not run.
    pub(super) fn evictions(&self) -> u64 {
        self.evicted.load(Ordering::Acquire)
    }

    /// Puts a unit in use in place of the one the record has. `worth`: the gas that made it be compiled, which stands for
    /// what it will run. False, and the record as it was, if there is no room.
    pub(super) fn insert(
        &self,
        record: &Arc<Record>,
        unit: Unit,
        stage: Stage,
        worth: u64,
    ) -> bool {
        let bytecode = unit.bytecode();
        let held = Arc::new(Held::new(unit, &self.books));
        // Records change their unit under this lock only, so that they and the cache agree.
        let mut inner = self.inner.lock();
        let entry = Entry {
            record: Arc::clone(record),
            held: Arc::clone(&held),
            worth,
        };
        let former = inner.insert(record.key, entry);
        if former.is_none() {
            self.bytecode.fetch_add(bytecode, Ordering::Relaxed);
        }
        if !self.make_room(&mut inner, &record.key) {
            match former {
                Some(former) => drop(inner.insert(record.key, former)),
                None => {
                    inner.remove(&record.key);
                    self.bytecode.fetch_sub(bytecode, Ordering::Relaxed);
                }
            }
            return false;
        }
        let mut state = record.state.lock();
        let former = state.unit.replace(held);
        state.stage = stage;
        drop(state);
        drop(former);
        self.changed();
        true
    }

    /// Makes room until the bounds hold. Never at the cost of `new`, which has just burnt what compiling costs and cannot
    /// have run yet. False: there is no room for it alone, or what was evicted before and is still run leaves none.
    fn make_room(&self, inner: &mut HashMap<Key, Entry>, new: &Key) -> bool {
        if self.bytes() <= self.memory && inner.len() <= self.units {
            return true;
        }
        let alone = inner.get(new).map_or(0, |entry| entry.held.bytes);
        if alone > self.memory {
            return false;
        }
        self.free_eighth(inner, Some(new));
        self.bytes() <= self.memory && inner.len() <= self.units
    }

    /// Evicts the least useful of all but `keep` until an eighth is free, and ages the others: sorting all for every
    /// unit would cost as much as compiling some.
    fn free_eighth(&self, inner: &mut HashMap<Key, Entry>, keep: Option<&Key>) {
        let memory = self.memory - self.memory / 8;
        let units = self.units - self.units / 8;
        let mut by_weight: Vec<(u64, Key)> = inner
            .iter()
            .filter(|(key, _)| Some(*key) != keep)
            .map(|(key, entry)| (entry.weight(), *key))
            .collect();
        by_weight.sort_unstable_by_key(|(weight, _)| *weight);
        let mut bytes: usize = inner.values().map(|entry| entry.held.bytes).sum();
        for (_, key) in by_weight {
            if bytes <= memory && inner.len() <= units {
                break;
            }
            if let Some(entry) = inner.remove(&key) {
                bytes -= entry.held.bytes;
                self.evict(entry);
            }
        }
        for entry in inner.values_mut() {
            let native = entry.record.native.swap(0, Ordering::Relaxed);
            entry.worth = entry.worth.saturating_add(native) / 2;
        }
    }

    /// Frees memory although the bounds hold: what is free may lie in pieces too small.
    pub(super) fn shrink(&self) {
        self.free_eighth(&mut self.inner.lock(), None);
    }

    fn evict(&self, entry: Entry) {
        self.bytecode
            .fetch_sub(entry.held.bytecode(), Ordering::Relaxed);
        let mut state = entry.record.state.lock();
        let unit = state.unit.take();
        // What waits for the full level will be compiled all the same.
        if !matches!(state.stage, Stage::Waiting(_)) {
            state.stage = Stage::Cold;
        }
        drop(state);
        // It must earn its place anew.
        entry.record.interpreted.store(0, Ordering::Relaxed);
        entry.record.native.store(0, Ordering::Relaxed);
        drop(unit);
        self.evicted.fetch_add(1, Ordering::Release);
        self.changed();
    }

    /// Takes a code's unit out of use for good.
    pub(super) fn refuse(&self, record: &Record) {
        let mut inner = self.inner.lock();
        let entry = inner.remove(&record.key);
        if let Some(entry) = &entry {
            self.bytecode
                .fetch_sub(entry.held.bytecode(), Ordering::Relaxed);
        }
        let mut state = record.state.lock();
        let unit = state.unit.take();
        state.stage = Stage::Refused;
        drop(state);
        drop(inner);
        drop((entry, unit));
        self.evicted.fetch_add(1, Ordering::Release);
        self.changed();
    }

    pub(super) fn len(&self) -> usize {
        self.inner.lock().len()
    }

    /// Bytes that units take, with those evicted and still run.
    pub(super) fn bytes(&self) -> usize {
        self.books.load(Ordering::Relaxed)
    }

    /// Bytes of the code of those in use.
    pub(super) fn bytecode(&self) -> usize {
        self.bytecode.load(Ordering::Relaxed)
    }
}
