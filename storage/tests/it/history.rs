use crate::chain::Block;
use crate::state::{Model, diffs, write_to};
use crate::{dump, open};
use alloy_consensus::proofs;
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, keccak256};
use alloy_trie::proof::verify_proof;
use alloy_trie::{EMPTY_ROOT_HASH, Nibbles, TrieAccount};
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;
use zvm_storage::{
    AccountChange, AccountInfo, Batch, Deployment, MemoryStore, Retention, Snapshot, StateAt,
    StateDiff, Store, StoreError, Table, account_proof, apply_state, has_storage, head, prune,
    put_block, put_deployment, read_account, read_code, read_slot, rebuild_root, record_changes,
    retained, unwind_block,
};

/// Commits a block with this diff on top of the head, keeping what `retention` says.
pub(crate) fn commit_block(store: &dyn Store, diff: &StateDiff, retention: &Retention) -> B256 {
    let snapshot = store.snapshot().unwrap();
    let head = head(snapshot.as_ref()).unwrap();
    let (number, parent) = head.map_or((0, B256::ZERO), |(number, hash)| (number + 1, hash));
    let mut block = Block::new(number, parent, number % 4);
    let body = &block.body;
    block.header.transactions_root = proofs::calculate_transaction_root(&body.transactions);
    block.header.ommers_hash = proofs::calculate_ommers_root(&body.ommers);
    let withdrawals = body.withdrawals.as_deref().unwrap();
    block.header.withdrawals_root = Some(proofs::calculate_withdrawals_root(withdrawals));
    let mut batch = Batch::new();
    let mut diff = diff.clone();
    let code = keccak256(b"code");
    let uses = |change: &AccountChange| change.info.is_some_and(|info| info.code_hash == code);
    if diff.accounts.values().any(uses) {
        diff.codes.insert(code, Bytes::from_static(b"code"));
    }
    block.header.state_root = apply_state(snapshot.as_ref(), &diff, &mut batch).unwrap();
    let changes = record_changes(snapshot.as_ref(), number, &mut batch).unwrap();
    for (address, code_hash) in changes.deployed {
        let deployment = Deployment {
            block: number,
            format: 0,
            code_hash,
            creation: None,
        };
        put_deployment(&mut batch, &address, &deployment);
    }
    put_block(&mut batch, &block.record()).unwrap();
    prune(snapshot.as_ref(), &mut batch, number, retention, 64).unwrap();
    drop(snapshot);
    store.commit(&batch).unwrap();
    block.header.state_root
}

/// Reads everything the model knows of, and what it knows is not there.
fn check_reads(snapshot: &dyn Snapshot, model: &Model, root: B256) {
    for address in (0..24_u8).map(Address::with_last_byte) {
        let account = model.get(&address);
        let info = read_account(snapshot, &address).unwrap();
        assert_eq!(info, account.map(|(info, _)| *info), "{address}");
        let slots = account.map(|(_, slots)| slots.clone()).unwrap_or_default();
        assert_eq!(has_storage(snapshot, &address).unwrap(), !slots.is_empty());
        for slot in (0..40).map(U256::from) {
            let expected = slots.get(&slot).copied().unwrap_or_default();
            assert_eq!(read_slot(snapshot, &address, &slot).unwrap(), expected);
        }
    }
    // By scans of the flat tables.
    assert_eq!(rebuild_root(snapshot).unwrap(), root);
}

/// Proves accounts and slots, there or not, and has the proofs verified by another implementation.
fn check_proofs(snapshot: &dyn Snapshot, number: u64, model: &Model, root: B256) -> usize {
    let mut verified = 0;
    for address in (0..30_u8).step_by(3).map(Address::with_last_byte) {
        let slots: Vec<U256> = (0..48).step_by(7).map(U256::from).collect();
        let proof = account_proof(snapshot, number, &address, &slots, u64::MAX).unwrap();
        assert_eq!(proof.state_root, root);
        let account = model.get(&address);
        assert_eq!(proof.info, account.map(|(info, _)| *info));
        let value = proof.info.map(|info| {
            let (nonce, balance) = (info.nonce, info.balance);
            alloy_rlp::encode(TrieAccount::new(
                nonce,
                balance,
                proof.storage_root,
                info.code_hash,
            ))
        });
        verify(root, keccak256(address), value, &proof.nodes);
        for proved in &proof.slots {
            let expected = account.and_then(|(_, slots)| slots.get(&proved.slot).copied());
            assert_eq!(proved.value, expected.unwrap_or_default());
            let key = keccak256(proved.slot.to_be_bytes::<32>());
            let value = expected.as_ref().map(alloy_rlp::encode);
            verify(proof.storage_root, key, value, &proved.nodes);
            verified += 1;
        }
        verified += 1;
    }
    verified
}

fn verify(root: B256, key: B256, value: Option<Vec<u8>>, nodes: &[Bytes]) {
    if root == EMPTY_ROOT_HASH {
        assert!(nodes.is_empty() && value.is_none());
        return;
    }
    verify_proof(root, Nibbles::unpack(key), value, nodes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_past_block_reads_as_it_did_while_it_was_the_head(diffs in vec(diffs(), 2..10)) {
        let store = MemoryStore::new();
        let mut model = Model::new();
        let mut recorded = Vec::new();
        for diff in &diffs {
            write_to(&mut model, diff);
            let root = commit_block(&store, diff, &Retention::ARCHIVE);
            recorded.push((model.clone(), root));
            for (number, (model, root)) in (0..).zip(&recorded) {
                let at = StateAt::new(store.snapshot().unwrap(), number).unwrap();
                check_reads(&at, model, *root);
                prop_assert_eq!(head(&at).unwrap().unwrap().0, number);
            }
        }
        let snapshot = store.snapshot().unwrap();
        let mut verified = 0;
        for (number, (model, root)) in (0..).zip(&recorded) {
            verified += check_proofs(snapshot.as_ref(), number, model, *root);
        }
        prop_assert_eq!(verified, recorded.len() * 10 * 8);
    }

    #[test]
    fn unwinding_gives_the_store_that_never_saw_the_later_blocks(diffs in vec(diffs(), 2..10)) {
        let store = MemoryStore::new();
        let mut dumps = Vec::new();
        for diff in &diffs {
            let mut diff = diff.clone();
            let code = Bytes::from(vec![dumps.len() as u8 / 2; 3]);
            diff.codes.insert(keccak256(&code), code);
            commit_block(&store, &diff, &Retention::ARCHIVE);
            dumps.push(dump(&store));
        }
        while let Some(expected) = dumps.pop() {
            prop_assert_eq!(dump(&store), expected);
            let mut batch = Batch::new();
            let unwound = unwind_block(store.snapshot().unwrap().as_ref(), &mut batch);
            if dumps.is_empty() {
                let refused = matches!(unwound, Err(StoreError::NotRetained { .. }));
                prop_assert!(refused);
                break;
            }
            prop_assert_eq!(unwound.unwrap().number as usize, dumps.len());
            store.commit(&batch).unwrap();
        }
    }

    #[test]
    fn pruning_leaves_what_is_kept_readable_and_nothing_else(
        diffs in vec(diffs(), 4..24), state in 0..6_u64, blocks in 0..6_u64,
    ) {
        let store = MemoryStore::new();
        let retention = Retention { state: Some(state), blocks: Some(blocks) };
        let mut model = Model::new();
        let mut recorded = Vec::new();
        for diff in &diffs {
            write_to(&mut model, diff);
            recorded.push((model.clone(), commit_block(&store, diff, &retention)));
        }
        let snapshot = store.snapshot().unwrap();
        let snapshot = snapshot.as_ref();
        let last = diffs.len() as u64 - 1;
        let kept = retained(snapshot).unwrap();
        prop_assert_eq!((kept.state, kept.blocks), (last.saturating_sub(state), last.saturating_sub(blocks)));
        for (number, (model, root)) in (0..).zip(&recorded) {
            match StateAt::on(snapshot, number) {
                Ok(at) => {
                    prop_assert!(number >= kept.state);
                    check_reads(&at, model, *root);
                    check_proofs(snapshot, number, model, *root);
                }
                Err(error) => {
                    prop_assert!(number < kept.state);
                    let text = error.to_string();
                    let range = format!("blocks {} to {last}", kept.state);
                    prop_assert!(text.contains(&range), "{}", text);
                }
            }
        }
        for (table, key, _) in dump(&store) {
            let block = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
            match table {
                Table::AccountHistory | Table::StorageHistory => {
                    prop_assert!(block(&key[key.len() - 8..]) > kept.state);
                }
                Table::Changes => prop_assert!(block(&key[..8]) > kept.state),
                Table::Bodies | Table::Receipts => {
                    let number = block(&key);
                    prop_assert!(number == 0 || number >= kept.blocks);
                }
                Table::LogPostings => prop_assert!(block(&key[key.len() - 8..]) >= kept.blocks),
                Table::AddressTransactions => prop_assert!(block(&key[21..29]) >= kept.blocks),
                _ => {}
            }
        }
    }
}

/// An account with `slots` slots of value `value`.
fn filled(slots: u64, value: u64) -> StateDiff {
    let info = AccountInfo {
        nonce: value,
        ..AccountInfo::default()
    };
    let change = AccountChange {
        info: Some(info),
        wipe_storage: false,
        slots: (0..slots)
            .map(|slot| (U256::from(slot), U256::from(value)))
            .collect(),
    };
    StateDiff {
        accounts: BTreeMap::from([(Address::with_last_byte(1), change)]),
        codes: BTreeMap::new(),
    }
}

#[test]
fn a_read_at_a_past_block_costs_one_seek_and_one_read_at_most_whatever_the_distance() {
    use std::borrow::Cow;
    use std::cell::Cell;
    use zvm_storage::Visitor;
    struct Counting<'a>(&'a dyn Snapshot, Cell<(usize, usize, usize)>);
    impl Snapshot for Counting<'_> {
        fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
            let (gets, scans, rows) = self.1.get();
            self.1.set((gets + 1, scans, rows));
            self.0.get(table, key)
        }
        fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
            let (gets, scans, rows) = self.1.get();
            self.1.set((gets, scans + 1, rows));
            self.0.scan(table, from, &mut |key, value| {
                let (gets, scans, rows) = self.1.get();
                self.1.set((gets, scans, rows + 1));
                visit(key, value)
            })
        }
    }
    let store = MemoryStore::new();
    for value in 0..300 {
        commit_block(&store, &filled(3, value), &Retention::ARCHIVE);
    }
    let snapshot = store.snapshot().unwrap();
    for number in [0, 1, 150, 298, 299] {
        let counting = Counting(snapshot.as_ref(), Cell::default());
        let at = StateAt::on(&counting, number).unwrap();
        for (slot, expected) in [(1, number), (9, 0)] {
            counting.1.set((0, 0, 0));
            let address = Address::with_last_byte(1);
            let value = read_slot(&at, &address, &U256::from(slot)).unwrap();
            assert_eq!(value, U256::from(expected));
            let (gets, scans, rows) = counting.1.get();
            assert!(gets <= 1 && scans == 1 && rows <= 1, "block {number}");
        }
    }
}

#[test]
fn a_step_of_pruning_is_bounded_and_the_steps_end() {
    let store = MemoryStore::new();
    commit_block(&store, &filled(0, 1), &Retention::ARCHIVE);
    for value in 0..4 {
        commit_block(&store, &filled(3_000, value), &Retention::ARCHIVE);
    }
    let retention = Retention {
        state: Some(0),
        blocks: None,
    };
    let (mut steps, mut deleted) = (0, 0);
    loop {
        let mut batch = Batch::new();
        let pruned = prune(
            store.snapshot().unwrap().as_ref(),
            &mut batch,
            4,
            &retention,
            500,
        )
        .unwrap();
        store.commit(&batch).unwrap();
        // A part of the changes table lists fewer than 130 slots.
        assert!(pruned.entries < 500 + 130, "{pruned:?}");
        steps += 1;
        deleted += pruned.entries;
        // From the first step on, whatever still lies there.
        assert_eq!(
            retained(store.snapshot().unwrap().as_ref()).unwrap().state,
            4
        );
        if !pruned.more {
            break;
        }
    }
    // The first block wrote no slots: zero is not stored.
    assert!(steps > 15 && deleted > 3 * 3_000, "{steps} {deleted}");
    let left = dump(&store)
        .into_iter()
        .filter(|(table, _, _)| {
            matches!(
                table,
                Table::AccountHistory | Table::StorageHistory | Table::Changes
            )
        })
        .count();
    assert_eq!(left, 0);
}

#[test]
fn a_proof_that_would_take_back_too_much_is_refused_with_the_limit() {
    let store = MemoryStore::new();
    for value in 0..20 {
        commit_block(&store, &filled(10, value), &Retention::ARCHIVE);
    }
    let snapshot = store.snapshot().unwrap();
    let prove = |number| {
        let address = Address::with_last_byte(1);
        account_proof(snapshot.as_ref(), number, &address, &[U256::ONE], 50)
    };
    assert!(prove(19).is_ok() && prove(18).is_ok());
    let error = prove(2).unwrap_err();
    assert!(
        matches!(
            error,
            StoreError::ProofTooFar {
                number: 2,
                limit: 50
            }
        ),
        "{error}"
    );
}

#[test]
fn past_states_read_the_same_from_lmdb() {
    let folder = tempfile::tempdir().unwrap();
    let lmdb = open(folder.path());
    let memory = MemoryStore::new();
    for value in 0..30 {
        let diff = filled(value % 7 * 5, value);
        commit_block(&lmdb, &diff, &Retention::ARCHIVE);
        commit_block(&memory, &diff, &Retention::ARCHIVE);
    }
    assert_eq!(dump(&lmdb), dump(&memory));
    let (one, other) = (lmdb.snapshot().unwrap(), memory.snapshot().unwrap());
    for number in 0..30 {
        let one = StateAt::on(one.as_ref(), number).unwrap();
        let other = StateAt::on(other.as_ref(), number).unwrap();
        for table in [Table::Accounts, Table::Storage] {
            assert_eq!(crate::rows(&one, table), crate::rows(&other, table));
        }
        let address = Address::with_last_byte(1);
        let account = read_account(&one, &address).unwrap().unwrap();
        assert_eq!(
            (account.nonce, account.code_hash),
            (number, KECCAK256_EMPTY)
        );
        assert_eq!(
            read_code(&one, &KECCAK256_EMPTY).unwrap(),
            Some(Bytes::new())
        );
    }
}
