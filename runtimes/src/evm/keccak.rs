//! Keccak-256 as contracts use it: the same short inputs again and again.
//!
//! A memo keeps the hashes of 64-byte inputs: the slots of mappings (`keccak256(key . slot)`). Everything else, and what
//! the memo lacks, is hashed by the library, whose assembly was the fastest of what was measured (`docs/host-path.md`).
//! 32-byte inputs are left out: chains of hashes never repeat one.

use core::cell::RefCell;

use alloy_primitives::B256;

/// Entries of the memo: about 100 KiB a thread, within a processor's second-level cache.
const ENTRIES: usize = 1 << 10;

#[derive(Clone, Copy)]
struct Entry {
    input: [u64; 8],
    hash: B256,
}

thread_local! {
    /// Direct-mapped: an input has one place, and the entry there is compared in full. Empty until the first use: most
    /// threads never hash.
    static MEMO: RefCell<Vec<Entry>> = const { RefCell::new(Vec::new()) };
}

/// The hash of `input`.
#[inline]
pub fn keccak256(input: &[u8]) -> B256 {
    match input.try_into() {
        Ok(pair) => memoised(pair),
        Err(_) => alloy_primitives::keccak256(input),
    }
}

fn memoised(input: &[u8; 64]) -> B256 {
    let mut words = [0; 8];
    for (word, bytes) in words.iter_mut().zip(input.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    MEMO.with_borrow_mut(|memo| {
        if memo.is_empty() {
            // Every entry is a true pair, so none needs a mark that it is taken.
            let entry = Entry {
                input: [0; 8],
                hash: alloy_primitives::keccak256([0; 64]),
            };
            memo.resize(ENTRIES, entry);
        }
        let entry = &mut memo[place(&words)];
        if entry.input != words {
            *entry = Entry {
                input: words,
                hash: alloy_primitives::keccak256(input),
            };
        }
        entry.hash
    })
}

/// Whoever aims many inputs at one place gains nothing: a miss costs the hash and a copy.
fn place(words: &[u64; 8]) -> usize {
    let mix = |left: u64, right: u64| {
        let product = u128::from(left) * u128::from(right);
        (product as u64) ^ ((product >> 64) as u64)
    };
    let [a, b, c, d, e, f, g, h] = *words;
    let first = mix(a ^ 0x9e37_79b9_7f4a_7c15, b ^ 0xbf58_476d_1ce4_e5b9);
    let second = mix(c ^ 0x94d0_49bb_1331_11eb, d ^ 0xd6e8_feb8_6659_fd93);
    let third = mix(e ^ 0xa076_1d64_78bd_642f, f ^ 0xe703_7ed1_a0b4_28db);
    let fourth = mix(g ^ 0x8ebc_6af0_9c88_c6e3, h ^ 0x5899_65cc_7537_4cc3);
    let mixed = mix(first ^ third, second ^ fourth.rotate_left(32));
    (mixed >> (u64::BITS - ENTRIES.ilog2())) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_hashes_as_the_library_does() {
        let bytes: Vec<u8> = (0..300u32)
            .map(|index| ((index * index) >> 3) as u8)
            .collect();
        for length in 0..=bytes.len() {
            let input = &bytes[..length];
            assert_eq!(
                keccak256(input),
                alloy_primitives::keccak256(input),
                "{length}"
            );
        }
    }

    #[test]
    fn a_memoised_hash_is_the_hash_whatever_shares_its_place() {
        // Each asked for twice in a row, and again after many others.
        let mut input = [0u8; 64];
        for round in 0..2 {
            for index in 0..4 * ENTRIES as u64 {
                input[24..32].copy_from_slice(&index.to_be_bytes());
                input[63] = (index % 3) as u8;
                let expected = alloy_primitives::keccak256(input);
                assert_eq!(keccak256(&input), expected, "{round} {index}");
                assert_eq!(keccak256(&input), expected, "{round} {index}");
            }
        }
    }

    #[test]
    fn mapping_slots_of_neighbouring_keys_spread_over_the_memo() {
        let mut taken = vec![false; ENTRIES];
        for key in 0..ENTRIES as u64 {
            let mut words = [0; 8];
            words[3] = key.swap_bytes();
            words[7] = 2u64.swap_bytes();
            taken[place(&words)] = true;
        }
        // A random function reaches 1 - 1/e of the places.
        assert!(taken.iter().filter(|taken| **taken).count() > ENTRIES / 2);
    }
}
