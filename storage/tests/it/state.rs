use crate::{dump, open};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::EMPTY_ROOT_HASH;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::borrow::Cow;
use std::collections::BTreeMap;
use zvm_storage::{
    AccountChange, AccountInfo, Batch, Layered, MemoryStore, RootTask, Snapshot, StateDiff, Store,
    StoreError, Table, Visitor, apply_state, has_storage, read_account, read_code, read_slot,
    rebuild_root, state_root, state_root_of,
};

pub(crate) type Model = BTreeMap<Address, (AccountInfo, BTreeMap<U256, U256>)>;

pub(crate) fn write_to(model: &mut Model, diff: &StateDiff) {
    for (address, change) in &diff.accounts {
        let Some(info) = change.info else {
            model.remove(address);
            continue;
        };
        let (old, slots) = model.entry(*address).or_default();
        *old = info;
        if change.wipe_storage {
            slots.clear();
        }
        for (slot, value) in &change.slots {
            match value.is_zero() {
                true => slots.remove(slot),
                false => slots.insert(*slot, *value),
            };
        }
    }
}

fn root_of(model: &Model) -> B256 {
    state_root_of(
        model
            .iter()
            .map(|(address, (info, slots))| (*address, *info, slots.clone())),
    )
}

fn commit(store: &dyn Store, diff: &StateDiff) -> B256 {
    let mut batch = Batch::new();
    let root = apply_state(store.snapshot().unwrap().as_ref(), diff, &mut batch).unwrap();
    store.commit(&batch).unwrap();
    root
}

fn infos() -> impl Strategy<Value = AccountInfo> {
    let code_hash = prop_oneof![Just(KECCAK256_EMPTY), Just(keccak256(b"code"))];
    (0..3_u64, 0..4_u64, code_hash).prop_map(|(nonce, balance, code_hash)| AccountInfo {
        nonce,
        balance: U256::from(balance) << 100,
        code_hash,
    })
}

pub(crate) fn diffs() -> impl Strategy<Value = StateDiff> {
    let value = prop_oneof![
        2 => Just(U256::ZERO),
        2 => (1..3_u64).prop_map(U256::from),
        1 => Just(U256::MAX),
    ];
    let slots = btree_map((0..40_u64).prop_map(U256::from), value, 0..12);
    let change = (
        proptest::option::weighted(0.8, infos()),
        proptest::bool::weighted(0.2),
        slots,
    )
        .prop_map(|(info, wipe_storage, slots)| AccountChange {
            info,
            wipe_storage,
            slots,
        });
    let address = (0..24_u8).prop_map(Address::with_last_byte);
    btree_map(address, change, 0..10).prop_map(|accounts| StateDiff {
        accounts,
        codes: BTreeMap::new(),
    })
}

fn check(store: &dyn Store, model: &Model, root: B256) {
    let snapshot = store.snapshot().unwrap();
    let snapshot = snapshot.as_ref();
    assert_eq!(rebuild_root(snapshot).unwrap(), root);
    assert_eq!(state_root(snapshot).unwrap(), root);
    assert_eq!(root_of(model), root);
    for address in (0..24_u8).map(Address::with_last_byte) {
        let account = model.get(&address);
        let info = read_account(snapshot, &address).unwrap();
        assert_eq!(info, account.map(|(info, _)| *info));
        let slots = account.map(|(_, slots)| slots.clone()).unwrap_or_default();
        assert_eq!(has_storage(snapshot, &address).unwrap(), !slots.is_empty());
        for slot in (0..40).map(U256::from) {
            let expected = slots.get(&slot).copied().unwrap_or_default();
            assert_eq!(read_slot(snapshot, &address, &slot).unwrap(), expected);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_incremental_root_is_that_of_a_rebuild_after_every_commit(diffs in vec(diffs(), 1..8)) {
        let store = MemoryStore::new();
        let mut model = Model::new();
        for diff in diffs {
            write_to(&mut model, &diff);
            let root = commit(&store, &diff);
            check(&store, &model, root);
            // Records left behind would show here: the same state made at once has no history.
            let at_once = MemoryStore::new();
            let accounts = model.iter().map(|(address, (info, slots))| {
                (*address, AccountChange { info: Some(*info), wipe_storage: false, slots: slots.clone() })
            });
            commit(&at_once, &StateDiff { accounts: accounts.collect(), codes: BTreeMap::new() });
            prop_assert_eq!(dump(&store), dump(&at_once));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_stores_hold_identical_tables_after_the_same_diffs(diffs in vec(diffs(), 1..6)) {
        let folder = tempfile::tempdir().unwrap();
        let lmdb = open(folder.path());
        let memory = MemoryStore::new();
        let mut model = Model::new();
        for diff in diffs {
            write_to(&mut model, &diff);
            let root = commit(&lmdb, &diff);
            prop_assert_eq!(root, commit(&memory, &diff));
            check(&lmdb, &model, root);
            prop_assert_eq!(dump(&lmdb), dump(&memory));
        }
    }

    #[test]
    fn two_diffs_in_one_batch_are_as_two_commits(first in diffs(), second in diffs()) {
        let twice = MemoryStore::new();
        commit(&twice, &first);
        let expected = commit(&twice, &second);
        let once = MemoryStore::new();
        let mut batch = Batch::new();
        {
            let base = once.snapshot().unwrap();
            apply_state(base.as_ref(), &first, &mut batch).unwrap();
            let mut later = Batch::new();
            let root = apply_state(&Layered::new(base.as_ref(), &batch), &second, &mut later).unwrap();
            prop_assert_eq!(root, expected);
            batch.append(later);
        }
        once.commit(&batch).unwrap();
        prop_assert_eq!(dump(&once), dump(&twice));
    }
}

fn change(info: AccountInfo, slots: impl IntoIterator<Item = (u64, u64)>) -> AccountChange {
    AccountChange {
        info: Some(info),
        wipe_storage: false,
        slots: slots
            .into_iter()
            .map(|(slot, value)| (U256::from(slot), U256::from(value)))
            .collect(),
    }
}

fn one(address: Address, change: AccountChange) -> StateDiff {
    StateDiff {
        accounts: [(address, change)].into(),
        codes: BTreeMap::new(),
    }
}

#[test]
fn an_empty_state_has_the_root_of_the_empty_trie() {
    let store = MemoryStore::new();
    assert_eq!(commit(&store, &StateDiff::default()), EMPTY_ROOT_HASH);
    check(&store, &Model::new(), EMPTY_ROOT_HASH);
}

#[test]
fn an_account_that_is_removed_leaves_no_entry() {
    let store = MemoryStore::new();
    let address = Address::repeat_byte(7);
    let info = AccountInfo::default();
    commit(&store, &one(address, change(info, (1..50).map(|n| (n, n)))));
    let root = commit(&store, &one(address, AccountChange::default()));
    assert_eq!(root, EMPTY_ROOT_HASH);
    assert_eq!(dump(&store), []);
}

#[test]
fn a_change_of_the_account_alone_keeps_its_storage() {
    let store = MemoryStore::new();
    let address = Address::repeat_byte(7);
    commit(
        &store,
        &one(address, change(AccountInfo::default(), [(1, 5)])),
    );
    let richer = AccountInfo {
        balance: U256::from(9),
        ..AccountInfo::default()
    };
    let root = commit(&store, &one(address, change(richer, [])));
    let slots = [(U256::from(1), U256::from(5))];
    assert_eq!(root, state_root_of([(address, richer, slots)]));
}

#[test]
fn codes_are_found_by_hash_and_no_code_without_a_look_up() {
    let store = MemoryStore::new();
    let code = Bytes::from_static(b"\x60\x00");
    let hash = keccak256(&code);
    let diff = StateDiff {
        accounts: BTreeMap::new(),
        codes: [(hash, code.clone()), (KECCAK256_EMPTY, Bytes::new())].into(),
    };
    commit(&store, &diff);
    let snapshot = store.snapshot().unwrap();
    assert_eq!(read_code(snapshot.as_ref(), &hash).unwrap(), Some(code));
    let none = read_code(snapshot.as_ref(), &KECCAK256_EMPTY).unwrap();
    assert_eq!(none, Some(Bytes::new()));
    assert_eq!(read_code(snapshot.as_ref(), &B256::ZERO).unwrap(), None);
    assert_eq!(store.stats().unwrap()[Table::Codes.index()].entries, 1);
}

#[test]
fn entries_of_a_wrong_form_are_errors_and_never_a_panic() {
    let address = Address::repeat_byte(7);
    let slot = [address.as_slice(), &[0; 32]].concat();
    let good = MemoryStore::new();
    let info = AccountInfo::default();
    let diff = one(address, change(info, (0..40).map(|n| (n, n + 1))));
    commit(&good, &diff);
    let spoil = |table: Table, key: &[u8], value: &[u8]| {
        let store = good.fork();
        let mut batch = Batch::new();
        batch.put(table, key, value);
        store.commit(&batch).unwrap();
        store
    };
    let again = one(address, change(info, (0..40).map(|n| (n, 0))));
    let bad_values: [&[u8]; 5] = [&[], &[0], &[0xff; 3], &[0, 64], &[1, 200, 1]];
    for (table, key) in [
        (Table::Accounts, address.to_vec()),
        (Table::AccountTrie, vec![0]),
        (Table::StorageTrie, address.to_vec()),
    ] {
        for value in bad_values {
            let store = spoil(table, &key, value);
            let snapshot = store.snapshot().unwrap();
            let result = apply_state(snapshot.as_ref(), &again, &mut Batch::new());
            assert!(
                matches!(result, Err(StoreError::Corrupt { .. })),
                "{table} {value:?}: {result:?}"
            );
        }
    }
    for value in [&[][..], &[0], &[1; 33]] {
        let store = spoil(Table::Storage, &slot, value);
        let snapshot = store.snapshot().unwrap();
        read_slot(snapshot.as_ref(), &address, &U256::ZERO).unwrap_err();
        rebuild_root(snapshot.as_ref()).unwrap_err();
    }
    for (table, key) in [
        (Table::Storage, &[1; 52][..]),
        (Table::Storage, &[1; 3]),
        (Table::Accounts, &[1; 3]),
    ] {
        let store = spoil(table, key, &[0, 1]);
        let snapshot = store.snapshot().unwrap();
        let error = rebuild_root(snapshot.as_ref()).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
    }
}

/// Diffs that are large enough to be worked on by several threads: many accounts, and one with many slots.
fn large_diffs() -> impl Strategy<Value = StateDiff> {
    let value = prop_oneof![1 => Just(U256::ZERO), 3 => (1..9_u64).prop_map(U256::from)];
    let slots = btree_map((0..400_u64).prop_map(U256::from), value.clone(), 0..300);
    let few = btree_map((0..40_u64).prop_map(U256::from), value, 0..3);
    let change = |slots| {
        let info = proptest::option::weighted(0.9, infos());
        (info, proptest::bool::weighted(0.1), slots)
    };
    let make = |(info, wipe_storage, slots)| AccountChange {
        info,
        wipe_storage,
        slots,
    };
    let address = (0..400_u16).prop_map(|n| Address::left_padding_from(&n.to_be_bytes()));
    let many = btree_map(address, change(few.boxed()).prop_map(make), 0..400);
    let largest = change(slots.boxed()).prop_map(make);
    (many, largest).prop_map(|(mut accounts, largest)| {
        accounts.insert(Address::repeat_byte(7), largest);
        StateDiff {
            accounts,
            codes: BTreeMap::new(),
        }
    })
}

/// A snapshot without forks: what is applied on it is applied by one thread.
struct Unforked<'a>(&'a dyn Snapshot);

impl Snapshot for Unforked<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        self.0.scan(table, from, visit)
    }
}

fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap()
}

#[test]
fn any_number_of_threads_writes_what_one_writes() {
    let pools = [1, 2, 4, 8].map(pool);
    let ran = std::cell::Cell::new(0);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(24));
    runner
        .run(&vec(large_diffs(), 1..4), |diffs| {
            let folder = tempfile::tempdir().unwrap();
            let lmdb = open(folder.path());
            let memory = MemoryStore::new();
            let stores: [&dyn Store; 2] = [&memory, &lmdb];
            for diff in diffs {
                let mut alone = Batch::new();
                let snapshot = memory.snapshot().unwrap();
                let root = apply_state(&Unforked(&*snapshot), &diff, &mut alone).unwrap();
                for store in stores {
                    for pool in &pools {
                        let mut batch = Batch::new();
                        let again = pool.install(|| {
                            apply_state(&*store.snapshot().unwrap(), &diff, &mut batch)
                        });
                        prop_assert_eq!(again.unwrap(), root);
                        prop_assert_eq!(&batch, &alone);
                    }
                    store.commit(&alone).unwrap();
                }
                ran.set(ran.get() + 1);
            }
            Ok(())
        })
        .unwrap();
    assert!(ran.get() >= 24, "{} diffs", ran.get());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_root_merged_piece_by_piece_leaves_the_state_of_one_merged_at_once(
        before in large_diffs(),
        pieces in vec(large_diffs(), 1..5),
        small in vec(diffs(), 0..4),
    ) {
        let base = MemoryStore::new();
        commit(&base, &before);
        let mut whole = StateDiff::default();
        let snapshot = base.snapshot().unwrap();
        let mut task = RootTask::new(&*snapshot).unwrap().unwrap();
        let last = pieces.len() + small.len() - 1;
        let mut batch = Batch::new();
        let mut root = B256::ZERO;
        let mut pieces = pieces.into_iter().chain(small).enumerate();
        for (index, piece) in pieces.by_ref() {
            whole.append(piece.clone());
            if index == last {
                root = task.finish(&piece, &mut batch).unwrap();
                break;
            }
            let so_far = task.merge(&piece).unwrap();
            prop_assert_eq!(apply_state(&*snapshot, &whole, &mut Batch::new()).unwrap(), so_far);
        }
        let at_once = base.fork();
        prop_assert_eq!(commit(&at_once, &whole), root);
        base.commit(&batch).unwrap();
        prop_assert_eq!(dump(&base), dump(&at_once));
    }
}

#[test]
fn a_fork_shows_the_state_of_its_snapshot_or_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let lmdb = open(folder.path());
    let address = Address::repeat_byte(7);
    let balance = |balance: u64| AccountInfo {
        balance: U256::from(balance),
        ..AccountInfo::default()
    };
    commit(&lmdb, &one(address, change(balance(1), [])));
    let snapshot = lmdb.snapshot().unwrap();
    let fork = snapshot
        .fork()
        .unwrap()
        .expect("nothing was committed since");
    commit(&lmdb, &one(address, change(balance(2), [])));
    assert!(snapshot.fork().unwrap().is_none(), "the state is another");
    // On another thread, beside the snapshot on this one.
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let read = read_account(&*fork, &address).unwrap();
            assert_eq!(read, Some(balance(1)));
        });
        let read = read_account(&*snapshot, &address).unwrap();
        assert_eq!(read, Some(balance(1)));
    });
}
