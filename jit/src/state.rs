//! What is known of the stack and the memory at one place in a region.

use crate::ir::{Region, Value, Write};

/// Where the word of a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// On the stack, with how many bits it can have.
    Stack(u16),
    /// A value; `clean` says that it is on the stack, too.
    Value {
        /// The word.
        value: Value,
        /// The stack holds it.
        clean: bool,
    },
}

impl Slot {
    /// How many bits the word can have.
    pub fn bits(self, region: &Region) -> usize {
        match self {
            Self::Stack(bits) => bits.into(),
            Self::Value { value, .. } => region.bits(value),
        }
    }

    /// Whether the stack does not hold the word.
    pub fn is_dirty(self) -> bool {
        matches!(self, Self::Value { clean: false, .. })
    }

    /// The value.
    pub fn value(self) -> Option<Value> {
        match self {
            Self::Stack(_) => None,
            Self::Value { value, .. } => Some(value),
        }
    }
}

/// The state between two instructions.
#[derive(Debug, Clone, Default)]
pub struct State {
    /// The slot of the first entry.
    low: i32,
    /// Slots from `low` upwards; what is not there is on the stack.
    entries: Vec<Slot>,
    /// Height of the stack, relative to the region's root.
    pub height: i32,
    /// Bytes that memory has at least.
    pub memory: u64,
    /// Words that memory holds, by offset.
    pub words: Vec<(u64, Value)>,
}

impl State {
    /// Everything on the stack, of this height.
    pub fn at(height: i32) -> Self {
        Self {
            height,
            ..Self::default()
        }
    }

    /// The lowest slot that may not be on the stack.
    pub fn low(&self) -> i32 {
        self.low.min(self.height)
    }

    /// Where a slot's word is.
    pub fn get(&self, slot: i32) -> Slot {
        usize::try_from(slot - self.low)
            .ok()
            .and_then(|index| self.entries.get(index))
            .copied()
            .unwrap_or(Slot::Stack(256))
    }

    /// Says where a slot's word is.
    pub fn set(&mut self, slot: i32, entry: Slot) {
        if self.entries.is_empty() {
            self.low = slot;
        }
        while slot < self.low {
            // Grows by doubling: a walk down a deep stack stays linear.
            let more = self
                .entries
                .len()
                .clamp(4, 64)
                .max((self.low - slot) as usize);
            let mut entries = vec![Slot::Stack(256); more];
            entries.append(&mut self.entries);
            self.entries = entries;
            self.low -= more as i32;
        }
        let index = (slot - self.low) as usize;
        if index >= self.entries.len() {
            self.entries.resize(index + 1, Slot::Stack(256));
        }
        self.entries[index] = entry;
    }

    /// Lowers the stack.
    pub fn drop_to(&mut self, height: i32) {
        self.height = height;
        let keep = usize::try_from(height - self.low).unwrap_or(0);
        self.entries.truncate(keep);
    }

    /// Puts `refined` in the place of a value.
    pub fn replace(&mut self, value: Value, refined: Value) {
        for entry in &mut self.entries {
            if let Slot::Value { value: held, .. } = entry
                && *held == value
            {
                *held = refined;
            }
        }
    }

    /// How the word of a dirty slot gets to the stack.
    pub fn write(&self, slot: i32, region: &Region) -> Option<Write> {
        let Slot::Value {
            value,
            clean: false,
        } = self.get(slot)
        else {
            return None;
        };
        let copy = (region.bits(value) > 64 && region.constant(value).is_none())
            .then(|| {
                let held = Slot::Value { value, clean: true };
                let index = self.entries.iter().position(|entry| *entry == held)?;
                Some(self.low + index as i32)
            })
            .flatten();
        Some(Write { slot, value, copy })
    }

    /// How everything gets to the stack.
    pub fn writes(&self, region: &Region) -> Vec<Write> {
        (self.low()..self.height)
            .filter_map(|slot| self.write(slot, region))
            .collect()
    }
}
