//! The properties that the fuzzers attack, tried on their seeds and on seeds changed at random.

#[path = "../../fuzz/src/properties.rs"]
mod properties;
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

use proptest::prelude::*;
use proptest::sample::Index;

/// One change to an input.
#[derive(Debug, Clone)]
enum Change {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, u8),
    Remove(Index),
    Cut(Index),
    /// Repeats what lies between two places.
    Repeat(Index, Index),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        2 => any::<Index>().prop_map(Change::Remove),
        1 => any::<Index>().prop_map(Change::Cut),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Repeat(from, to)),
    ]
}

fn apply(change: &Change, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = |index: &Index| index.index(bytes.len());
    match change {
        Change::Set(index, byte) => {
            let at = at(index);
            bytes[at] = *byte;
        }
        Change::Flip(index, bit) => {
            let at = at(index);
            bytes[at] ^= 1 << bit;
        }
        Change::Insert(index, byte) => bytes.insert(at(index), *byte),
        Change::Remove(index) => {
            bytes.remove(at(index));
        }
        Change::Cut(index) => bytes.truncate(at(index)),
        Change::Repeat(from, to) => {
            let (from, to) = (at(from), at(to));
            let part = bytes[from.min(to)..from.max(to)].to_vec();
            bytes.extend(part);
        }
    }
}

/// Seeds as they are, seeds with a few changes, and bytes from nothing.
fn inputs(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let seeds = seeds::of(target);
    assert!(!seeds.is_empty(), "{target} has seeds");
    let changed = (
        prop::sample::select(seeds),
        prop::collection::vec(change(), 0..5),
    )
        .prop_map(|(mut bytes, changes)| {
            changes.iter().for_each(|change| apply(change, &mut bytes));
            bytes
        });
    prop_oneof![
        4 => changed,
        1 => prop::collection::vec(any::<u8>(), 0..300),
    ]
}

macro_rules! properties {
    ($($test:ident: $target:ident, $cases:literal;)*) => {$(
        proptest! {
            #![proptest_config(ProptestConfig::with_cases($cases))]
            #[test]
            fn $test(bytes in inputs(stringify!($target))) {
                properties::$target(&bytes);
            }
        }
    )*};
}

properties! {
    bytes_are_the_encoding_of_a_transaction_or_refused: transaction_decode, 2_000;
    a_block_becomes_the_head_or_leaves_the_chain_as_it_was: block_decode, 500;
    bytes_are_the_encoding_of_a_container_or_refused: container_parse, 4_000;
    a_genesis_file_opens_a_chain_that_grows_or_is_refused: genesis_json, 1_000;
    the_incremental_root_is_that_of_a_rebuild: trie_batches, 500;
    any_code_ends_within_its_gas_and_creates_no_wei: evm_bytecode, 2_000;
}

#[test]
fn every_seed_holds_its_property() {
    for (target, property) in [
        (
            "transaction_decode",
            properties::transaction_decode as fn(&[u8]),
        ),
        ("block_decode", properties::block_decode),
        ("container_parse", properties::container_parse),
        ("genesis_json", properties::genesis_json),
        ("trie_batches", properties::trie_batches),
        ("evm_bytecode", properties::evm_bytecode),
    ] {
        let seeds = seeds::of(target);
        assert!(!seeds.is_empty(), "{target} has seeds");
        seeds.iter().for_each(|seed| property(seed));
    }
}
