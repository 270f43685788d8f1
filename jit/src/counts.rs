//! What ran how: counted by each thread for itself.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::abi::{LEAVES, Leave};

/// A number that one thread adds to and anyone reads.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds without a locked instruction, which is right for a single writer.
    #[inline]
    pub fn add(&self, more: u64) {
        let sum = self.0.load(Ordering::Relaxed).wrapping_add(more);
        self.0.store(sum, Ordering::Relaxed);
    }

    /// The sum.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Why the interpreter executed an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Interpreted {
    /// Behind [`Leave::Jump`].
    Jump,
    /// Behind [`Leave::Stack`].
    Stack,
    /// Behind [`Leave::Loop`].
    Loop,
    /// Behind [`Leave::Width`].
    Width,
    /// Behind [`Leave::Opcode`].
    Opcode,
    /// There is native code, and the frame came to the interpreter between two places where it may be entered.
    Between,
    /// Native code left the frame at once so often that it was not entered again.
    Fruitless,
    /// The frame has more gas than native code can count.
    Gas,
    /// There is no native code yet.
    Cold,
    /// There will be none.
    Refused,
    /// Initcode, which runs once, or no code at all.
    Initcode,
    /// The chain has gas costs of its own.
    Rules,
    /// The code is not counted, or not the one that its hash names.
    Unknown,
}

/// Number of [`Interpreted`]s.
pub const REASONS: usize = 13;

impl From<Leave> for Interpreted {
    fn from(leave: Leave) -> Self {
        match leave {
            Leave::Jump => Self::Jump,
            Leave::Stack => Self::Stack,
            Leave::Loop => Self::Loop,
            Leave::Width => Self::Width,
            Leave::Opcode => Self::Opcode,
        }
    }
}

/// How a thread's frames with native code went.
#[derive(Debug, Default)]
pub struct Counts {
    /// Times native code was entered.
    pub entries: Count,
    /// Times it left to the interpreter, by [`Leave`].
    pub leaves: [Count; LEAVES],
    /// Instructions of the interpreter, by [`Interpreted`].
    pub steps: [Count; REASONS],
}

impl Counts {
    /// Counts instructions of the interpreter.
    #[inline]
    pub fn stepped(&self, why: Interpreted, steps: u64) {
        self.steps[why as usize].add(steps);
    }

    /// Instructions that the interpreter executed in frames that have native code.
    pub fn left(&self) -> u64 {
        let behind = &self.steps[..=Interpreted::Gas as usize];
        behind.iter().map(Count::get).sum()
    }
}
