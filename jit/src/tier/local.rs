//! What a thread remembers, so that a frame finds its code's native code without a lock, a shared counter or a reference
//! count.
//!
//! A table with one slot for each value of some bits of the code hash. A slot remembers the record and the unit of one
//! code until another takes its place; the generation of the cache says when the unit must be looked up again. Gas is
//! summed up in the slot and added to the shared record in portions.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use zvm_runtimes::revm::context_interface::cfg::GasParams;
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use super::cache::Held;
use super::policy::{self, Fails};
use super::record::{Key, Record, Stage};
use super::shared::Shared;
use super::statistics::Counters;
use crate::counts::Interpreted;
use crate::run::Ran;

/// Slots of a thread. A block calls some hundred distinct codes.
const SLOTS: usize = 512;
/// Portions in which native gas is reported.
const NATIVE_PORTION: u64 = 1 << 16;

thread_local! {
    /// The memory of the last tiers this thread ran frames for.
    pub(super) static LOCAL: Cell<Option<Box<Local>>> = const { Cell::new(None) };
}

#[derive(Debug)]
pub(super) struct Local {
    owner: u64,
    evictions: u64,
    /// The fork and the place of the gas costs that were found to be the fork's own.
    params: (SpecId, usize),
    slots: Box<[Slot]>,
    counters: Arc<Counters>,
    /// Counts frames, for what is done every so often.
    pub(super) tick: u32,
}

#[derive(Debug)]
pub(super) struct Slot {
    key: Key,
    /// [`super::cache::Cache::generation`] when `held` was looked up.
    generation: u64,
    /// `None` as long as the code has burnt less on this thread than a portion, and no thread has made it hot: most codes
    /// of a block never do, and are not worth a record.
    pub(super) record: Option<Arc<Record>>,
    pub(super) held: Option<Arc<Held>>,
    /// Gas not yet reported, interpreted or native as `held` says.
    gas: u64,
    /// From how much on it is to be reported.
    portion: u64,
    new: bool,
    /// Whether the next slice of the interpreter is to be watched.
    pub(super) watch: bool,
    /// Runs of frames with the unit, those in which something taken for granted about a loop was not so, and those for
    /// which native code did nothing.
    pub(super) frames: u32,
    assumed: u32,
    useless: u32,
}

impl Slot {
    const EMPTY: Self = Self {
        key: Key {
            hash: alloy_primitives::B256::ZERO,
            spec: SpecId::FRONTIER,
        },
        generation: 0,
        record: None,
        held: None,
        gas: 0,
        portion: u64::MAX,
        new: true,
        watch: false,
        frames: 0,
        assumed: 0,
        useless: 0,
    };

    /// Adds what is not reported to the record, without asking what follows from it.
    fn settle(&mut self, shared: &Shared) {
        let gas = std::mem::take(&mut self.gas);
        if gas == 0 {
            return;
        }
        let native = self.held.is_some();
        if let Some(record) = self.record(shared) {
            let counter = if native {
                &record.native
            } else {
                &record.interpreted
            };
            counter.fetch_add(gas, Ordering::Relaxed);
        }
    }

    /// The code's record. `None`: there is no room for it.
    pub(super) fn record(&mut self, shared: &Shared) -> Option<&Arc<Record>> {
        if self.record.is_none() {
            self.record = shared.profiles.find_or_add(&self.key);
        }
        self.record.as_ref()
    }

    #[cold]
    fn give_to(&mut self, shared: &Shared, key: &Key) {
        self.settle(shared);
        *self = Self {
            key: *key,
            ..Self::EMPTY
        };
    }

    pub(super) const fn key(&self) -> &Key {
        &self.key
    }

    /// Whether this is the first frame since the slot was given to the code, or since the code lost its unit.
    pub(super) fn is_new(&mut self) -> bool {
        std::mem::take(&mut self.new)
    }

    /// Why there is no native code.
    pub(super) fn without(&self) -> Interpreted {
        match self.portion {
            u64::MAX => Interpreted::Refused,
            _ => Interpreted::Cold,
        }
    }

    /// Counts a run of a frame in which native code failed: at a loop header, at a jump, or because it did nothing. What is
    /// to become of the unit, if that happens often.
    pub(super) fn failed(&mut self, ran: &Ran) -> Option<Fails> {
        let reason = match (ran.failed, ran.missed) {
            (Some(header), _) => Some(Fails::Assumption(header)),
            (None, Some(_)) => Some(Fails::Missed),
            (None, None) => None,
        };
        self.assumed += u32::from(reason.is_some());
        self.useless += u32::from(ran.is_useless());
        let often = policy::fails(self.frames, self.assumed, self.useless, reason);
        if often.is_some() || self.frames > policy::FORGET {
            (self.frames, self.assumed, self.useless) = (0, 0, 0);
        }
        often
    }

    /// Counts gas. How much the record is to be told of, once there is enough.
    #[inline]
    pub(super) fn count(&mut self, gas: u64) -> Option<u64> {
        self.gas = self.gas.saturating_add(gas);
        (self.gas >= self.portion).then(|| std::mem::take(&mut self.gas))
    }

    /// Looks the unit up again if any has changed. `size`: of the code.
    #[inline]
    pub(super) fn refresh(&mut self, shared: &Shared, size: usize) {
        let generation = shared.cache.generation();
        if generation != self.generation {
            self.look_up(shared, generation, size);
        }
    }

    #[cold]
    fn look_up(&mut self, shared: &Shared, generation: u64, size: usize) {
        if self.record.is_none() {
            self.record = shared.profiles.find(&self.key);
        }
        let (held, stage) = match &self.record {
            Some(record) => {
                let state = record.state.lock();
                (state.unit.clone(), state.stage)
            }
            None => (None, Stage::Cold),
        };
        if held.is_some() != self.held.is_some() {
            self.settle(shared);
        }
        self.portion = match (stage, &held) {
            (Stage::Refused, _) => u64::MAX,
            (_, Some(_)) => shared
                .settings
                .threshold
                .map_or(NATIVE_PORTION, |gas| gas.clamp(1, NATIVE_PORTION)),
            (_, None) => {
                let threshold =
                    shared
                        .rates
                        .threshold(&shared.settings, crate::compiler::Level::Quick, size);
                (threshold / 16).max(1)
            }
        };
        self.new |= self.held.is_some() && held.is_none();
        (self.frames, self.assumed, self.useless) = (0, 0, 0);
        self.held = held;
        self.generation = generation;
    }
}

impl Local {
    fn new(shared: &Shared) -> Box<Self> {
        Box::new(Self {
            owner: shared.id,
            evictions: 0,
            params: (SpecId::FRONTIER, 0),
            slots: (0..SLOTS).map(|_| Slot::EMPTY).collect(),
            counters: shared.threads.join(),
            tick: 0,
        })
    }

    /// What this thread remembers of `shared`: what it remembered last, or something new.
    #[inline]
    pub(super) fn of(place: Option<Box<Self>>, shared: &Shared) -> Box<Self> {
        match place {
            Some(local) if local.owner == shared.id => local,
            other => Self::replace(other, shared),
        }
    }

    #[cold]
    fn replace(other: Option<Box<Self>>, shared: &Shared) -> Box<Self> {
        drop(other);
        Self::new(shared)
    }

    /// Whether the gas costs are those of the fork on Ethereum's main network, for which native code is made.
    #[inline]
    pub(super) fn is_mainnet(&mut self, spec: SpecId, params: &GasParams) -> bool {
        let place = std::ptr::from_ref(params.table()).addr();
        self.params == (spec, place) || self.check_params(spec, params, place)
    }

    #[cold]
    fn check_params(&mut self, spec: SpecId, params: &GasParams, place: usize) -> bool {
        let mainnet = GasParams::new_spec(spec);
        // The table of the main network stays where it is for ever: another place may hold another table next time.
        if std::ptr::eq(mainnet.table(), params.table()) {
            self.params = (spec, place);
        }
        mainnet == *params
    }

    /// The slot of a code, and the thread's counters. `size`: of the code.
    #[inline]
    pub(super) fn slot(
        &mut self,
        shared: &Shared,
        key: &Key,
        size: usize,
    ) -> (&mut Slot, &Counters) {
        let evictions = shared.cache.evictions();
        if evictions != self.evictions {
            self.let_go(shared, evictions);
        }
        let at = usize::from(u16::from_le_bytes([key.hash[0], key.hash[1]])) % SLOTS;
        let slot = &mut self.slots[at];
        if slot.key != *key {
            slot.give_to(shared, key);
        }
        slot.refresh(shared, size);
        (slot, &*self.counters)
    }

    /// Lets go of all units, so that those evicted are freed; the others are found again.
    #[cold]
    fn let_go(&mut self, shared: &Shared, evictions: u64) {
        for slot in &mut self.slots {
            if slot.held.is_some() {
                slot.settle(shared);
                slot.held = None;
                slot.generation = 0;
                slot.new = true;
            }
        }
        self.evictions = evictions;
    }
}
