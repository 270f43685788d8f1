use super::{Change, Node, NodeSource, update};
use crate::rebuild::trie_root;
use crate::{StoreError, Table};
use alloy_primitives::B256;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// A trie in a map, which notes what is read.
#[derive(Default)]
struct MapTrie {
    records: BTreeMap<Nibbles, Vec<u8>>,
    read: RefCell<Vec<Nibbles>>,
}

impl NodeSource for MapTrie {
    fn node(&self, path: &Nibbles) -> Result<Option<Node>, StoreError> {
        self.read.borrow_mut().push(*path);
        let record = self.records.get(path);
        Ok(record.map(|record| Node::from_record(record).unwrap()))
    }

    fn missing(&self, path: &Nibbles) -> StoreError {
        StoreError::corrupt(Table::StorageTrie, &path.to_vec(), "missing")
    }
}

type Writes = Vec<(B256, Option<Vec<u8>>)>;

impl MapTrie {
    fn apply(&mut self, writes: &Writes) -> B256 {
        // The last write of a key counts, as in a batch.
        let last: BTreeMap<_, _> = writes.iter().cloned().collect();
        let changes = last
            .iter()
            .map(|(key, value)| Change::new(key, value.clone()));
        let changed = update(self, changes.collect()).unwrap();
        let read = self.read.take();
        let distinct: BTreeSet<_> = read.iter().collect();
        assert_eq!(distinct.len(), read.len(), "a node was read twice");
        let written: BTreeSet<_> = changed.records.iter().map(|(path, _)| path).collect();
        assert_eq!(
            written.len(),
            changed.records.len(),
            "a record was written twice"
        );
        for (path, record) in changed.records {
            match record {
                Some(record) => self.records.insert(path, record),
                None => self.records.remove(&path),
            };
        }
        changed.root
    }
}

fn write_to(model: &mut BTreeMap<B256, Vec<u8>>, writes: &Writes) {
    for (key, value) in writes {
        match value {
            Some(value) => model.insert(*key, value.clone()),
            None => model.remove(key),
        };
    }
}

/// Keys that part at the first, at middle and at the last nibbles, so that nodes stand at every depth and short ones
/// inside their parents.
fn keys() -> impl Strategy<Value = B256> {
    let byte = prop_oneof![Just(0x00), Just(0x01), Just(0x10), Just(0x11), Just(0xff)];
    let places = prop_oneof![Just(0), Just(1), Just(15), Just(30), Just(31)];
    vec((places, byte), 0..4).prop_map(|bytes| {
        let mut key = B256::ZERO;
        for (place, byte) in bytes {
            key[place] = byte;
        }
        key
    })
}

/// Deletes, values of one byte and longer ones, as RLP items of a storage trie are.
fn values() -> impl Strategy<Value = Option<Vec<u8>>> {
    prop_oneof![
        2 => Just(None),
        2 => (1..0x80_u8).prop_map(|byte| Some(vec![byte])),
        1 => (any::<u8>(), 20..60_usize).prop_map(|(byte, length)| Some(vec![byte; length])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_merged_trie_has_the_root_and_the_records_of_one_built_at_once(
        rounds in vec(vec((keys(), values()), 0..12), 1..8),
    ) {
        let mut trie = MapTrie::default();
        let mut model = BTreeMap::new();
        for writes in rounds {
            write_to(&mut model, &writes);
            let root = trie.apply(&writes);
            let leaves: Vec<_> = model.clone().into_iter().collect();
            let mut at_once = MapTrie::default();
            let whole = leaves.iter().map(|(key, value)| (*key, Some(value.clone())));
            prop_assert_eq!(at_once.apply(&whole.collect()), root);
            prop_assert_eq!(&trie.records, &at_once.records);
            prop_assert_eq!(root, trie_root(leaves));
        }
    }

    #[test]
    fn a_record_of_any_bytes_is_refused_or_reads_back_as_written(bytes in vec(any::<u8>(), 0..80), kind in 0..2_u8) {
        let record = [&[kind][..], &bytes].concat();
        if let Ok(node) = Node::from_record(&record) {
            prop_assert_eq!(Node::from_record(&node.record()).unwrap(), node);
        }
    }
}

#[test]
fn no_change_writes_no_record_and_reads_only_the_path_of_the_key() {
    let mut trie = MapTrie::default();
    let all: Writes = (0..=255_u8)
        .map(|byte| (B256::repeat_byte(byte), Some(vec![byte; 40])))
        .collect();
    let root = trie.apply(&all);
    let same = vec![Change::new(&B256::repeat_byte(7), Some(vec![7; 40]))];
    let changed = update(&trie, same).unwrap();
    assert_eq!((changed.root, changed.records.len()), (root, 0));
    assert_eq!(trie.read.take().len(), 3);
    let absent = vec![Change::new(&B256::with_last_byte(1), None)];
    let changed = update(&trie, absent).unwrap();
    assert_eq!((changed.root, changed.records.len()), (root, 0));
}

#[test]
fn the_cost_of_a_change_does_not_grow_with_the_trie() {
    let reads_and_writes = |count: u32| {
        let mut trie = MapTrie::default();
        let key = |number: u32| alloy_primitives::keccak256(number.to_be_bytes());
        let all = (0..count).map(|number| (key(number), Some(vec![1; 40])));
        trie.apply(&all.collect());
        let change = vec![Change::new(&key(count / 2), Some(vec![2; 40]))];
        let written = update(&trie, change).unwrap().records.len();
        assert_eq!(trie.read.take().len(), written);
        written
    };
    // A level of the trie is a factor of 16 in keys.
    assert!(reads_and_writes(20) <= 4);
    assert!(reads_and_writes(20_000) <= 8);
}

#[test]
fn a_node_that_its_parent_names_and_no_record_holds_is_an_error() {
    let mut trie = MapTrie::default();
    let all: Writes = (0..4_u8)
        .map(|byte| (B256::repeat_byte(byte << 4), Some(vec![byte; 40])))
        .collect();
    assert_ne!(trie.apply(&all), EMPTY_ROOT_HASH);
    trie.records.remove(&Nibbles::from_nibbles([1]));
    let change = vec![Change::new(&B256::repeat_byte(0x10), None)];
    let error = update(&trie, change).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}
