//! What is known of one code.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use alloy_primitives::B256;
use parking_lot::Mutex;
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use super::cache::Held;
use super::policy::Times;
use super::queue::Rank;
use crate::compiler::Level;
use crate::profile::Profile;

/// What native code depends on, besides the engine itself: the code, and the rules of the fork with its own gas costs.
/// A chain with other gas costs is not run natively at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// Keccak-256 of the code.
    pub hash: B256,
    /// The fork.
    pub spec: SpecId,
}

/// How far a code has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Interpreted, counted.
    Cold,
    /// Waits for a compilation, or is being compiled.
    Waiting(Level),
    /// Runs natively.
    Ready,
    /// Runs natively and will not be compiled at a higher level.
    Final,
    /// Stays with the interpreter.
    Refused,
}

/// One code under one fork.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) key: Key,
    /// Gas burnt in the interpreter.
    pub(super) interpreted: AtomicU64,
    /// Gas burnt natively since the level was reached, halved as the cache ages.
    pub(super) native: AtomicU64,
    pub(super) times: Times,
    /// Whether it was asked if the unit is stored, which is done once.
    pub(super) looked: AtomicBool,
    /// What the interpreter saw of it, and which assumptions failed. Small and bounded; made when it is nearly hot.
    pub(super) profile: Mutex<Option<Box<Profile>>>,
    /// How often it was compiled again for the jumps in its profile.
    pub(super) again: AtomicU32,
    /// How often it was watched.
    pub(super) watched: AtomicU32,
    pub(super) state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) stage: Stage,
    /// Place in the queue while it waits there.
    pub(super) rank: Option<Rank>,
    pub(super) unit: Option<Arc<Held>>,
}

impl Record {
    pub(super) fn new(key: Key) -> Self {
        Self {
            key,
            interpreted: AtomicU64::new(0),
            native: AtomicU64::new(0),
            times: Times::default(),
            looked: AtomicBool::new(false),
            profile: Mutex::new(None),
            again: AtomicU32::new(0),
            watched: AtomicU32::new(0),
            state: Mutex::new(State {
                stage: Stage::Cold,
                rank: None,
                unit: None,
            }),
        }
    }

    /// Adds gas and returns the sum.
    pub(super) fn burn(counter: &AtomicU64, gas: u64) -> u64 {
        counter
            .fetch_add(gas, Ordering::Relaxed)
            .saturating_add(gas)
    }
}
