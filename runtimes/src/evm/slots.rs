//! Present values of warm storage slots, found in a few nanoseconds.
//!
//! The journal finds a slot by two hash tables, the account's and the slot's. Contracts read the same few slots again and
//! again, so a direct-mapped cache stands before them. An entry says: since it was made, within this transaction, the slot
//! is warm (EIP-2929) and has this value. Whatever could make that untrue otherwise than by [`WarmSlots::set`] (a revert, the
//! end of the transaction, access to accounts in place) forgets all entries at once, by a number.

use alloy_primitives::{Address, U256};

/// Entries: 24 KiB, within a processor's first-level cache beside what a contract needs.
const ENTRIES: usize = 1 << 8;

#[derive(Debug, Clone, Copy)]
struct Entry {
    slot: U256,
    value: U256,
    address: Address,
    /// Of what [`WarmSlots::era`] was when the entry was made.
    era: u64,
}

/// The cache. Without entries until [`WarmSlots::new`]: the default never has an answer.
#[derive(Debug, Default)]
pub(super) struct WarmSlots {
    entries: Vec<Entry>,
    /// Entries of other eras are forgotten. Zero is no era.
    era: u64,
}

impl WarmSlots {
    /// An empty cache.
    pub(super) fn new() -> Self {
        let nothing = Entry {
            slot: U256::ZERO,
            value: U256::ZERO,
            address: Address::ZERO,
            era: 0,
        };
        Self {
            entries: vec![nothing; ENTRIES],
            era: 1,
        }
    }

    /// The value of a slot that is warm, if it is remembered.
    #[inline]
    pub(super) fn get(&self, address: &Address, slot: &U256) -> Option<U256> {
        let entry = self.entries.get(place(address, slot))?;
        (entry.era == self.era && entry.slot == *slot && entry.address == *address)
            .then_some(entry.value)
    }

    /// Remembers the present value of a slot that is warm.
    #[inline]
    pub(super) fn set(&mut self, address: Address, slot: U256, value: U256) {
        let era = self.era;
        if let Some(entry) = self.entries.get_mut(place(&address, &slot)) {
            *entry = Entry {
                slot,
                value,
                address,
                era,
            };
        }
    }

    /// Forgets everything.
    #[inline]
    pub(super) fn forget(&mut self) {
        // Forgetting a billion times a second it ends in 584 years.
        self.era += 1;
    }
}

/// Mapping slots are hashes, others small numbers: their low limb tells them apart.
#[inline]
fn place(address: &Address, slot: &U256) -> usize {
    let [.., a, b, c, d] = address.0.0;
    let account = u64::from(u32::from_le_bytes([a, b, c, d]));
    let mixed = (slot.as_limbs()[0] ^ account << 20).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - ENTRIES.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_known_by_its_account_and_its_whole_key() {
        let mut slots = WarmSlots::new();
        let (here, there) = (Address::repeat_byte(1), Address::repeat_byte(2));
        let far = U256::from(7) + (U256::from(1) << 200);
        slots.set(here, U256::from(7), U256::from(1));
        assert_eq!(slots.get(&here, &U256::from(7)), Some(U256::from(1)));
        assert_eq!(slots.get(&there, &U256::from(7)), None);
        assert_eq!(slots.get(&here, &far), None);
        slots.set(here, far, U256::from(2));
        assert_eq!(slots.get(&here, &far), Some(U256::from(2)));
        assert_eq!(slots.get(&here, &U256::from(7)), None, "one place");
    }

    #[test]
    fn nothing_is_known_once_it_is_forgotten() {
        let mut slots = WarmSlots::new();
        slots.set(Address::ZERO, U256::ZERO, U256::from(1));
        slots.forget();
        assert_eq!(slots.get(&Address::ZERO, &U256::ZERO), None);
        // An entry that was never set does not answer either.
        assert_eq!(WarmSlots::new().get(&Address::ZERO, &U256::ZERO), None);
        assert_eq!(WarmSlots::default().get(&Address::ZERO, &U256::ZERO), None);
    }
}
