use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{SignableTransaction, TxEip1559, TxLegacy};
use alloy_primitives::{Bytes, Signature, TxKind, address};
use secp256k1::{Message, SECP256K1, SecretKey};
use zvm_storage::{
    JournaledOptions, JournaledStore, LmdbOptions, LmdbStore, MemoryStore, Table, Visitor,
};

use super::*;
use crate::executor::IntermediateRoots;
use crate::view::state_diff;
use zvm_runtimes::evm::{BlockState, ReadError};

use crate::builder::Skipped;
use crate::transaction;

const CHAIN_ID: u64 = 31337;

fn key(index: u8) -> SecretKey {
    SecretKey::from_byte_array([index; 32]).unwrap()
}

fn address_of(key: &SecretKey) -> Address {
    let public = key.public_key(SECP256K1).serialize_uncompressed();
    Address::from_raw_public_key(&public[1..])
}

fn sign<T: SignableTransaction<Signature>>(key: &SecretKey, tx: T) -> Recovered<Tx>
where
    Tx: From<alloy_consensus::Signed<T>>,
{
    let message = Message::from_digest(tx.signature_hash().0);
    let (recovery, rs) = SECP256K1
        .sign_ecdsa_recoverable(message, key)
        .serialize_compact();
    let signature = Signature::from_bytes_and_parity(&rs, i32::from(recovery) == 1);
    Recovered::new_unchecked(Tx::from(tx.into_signed(signature)), address_of(key))
}

fn transfer(key: &SecretKey, nonce: u64, to: Address, value: u64) -> Recovered<Tx> {
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(to),
        value: U256::from(value),
        ..TxEip1559::default()
    };
    sign(key, tx)
}

/// Deploys code that stores the block number in slot 0 when called, and logs once.
fn deployment(key: &SecretKey, nonce: u64) -> Recovered<Tx> {
    // NUMBER PUSH0 SSTORE PUSH0 PUSH0 LOG0 STOP, returned by PUSH7 … MSTORE, RETURN(25, 7).
    let init = Bytes::from_static(&[
        0x66, 0x43, 0x5f, 0x55, 0x5f, 0x5f, 0xa0, 0x00, 0x5f, 0x52, 0x60, 0x07, 0x60, 0x19, 0xf3,
    ]);
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 200_000,
        max_fee_per_gas: 2_000_000_000,
        to: TxKind::Create,
        input: init,
        ..TxEip1559::default()
    };
    sign(key, tx)
}

fn genesis() -> Genesis {
    let accounts = [address_of(&key(1)), address_of(&key(2))];
    Genesis::development(
        CHAIN_ID,
        30_000_000,
        &accounts,
        U256::from(10).pow(U256::from(22)),
    )
}

#[derive(Default)]
struct Queue {
    offered: VecDeque<Recovered<Tx>>,
    skipped: Vec<String>,
}

impl Queue {
    fn of(transactions: impl IntoIterator<Item = Recovered<Tx>>) -> Self {
        Self {
            offered: transactions.into_iter().collect(),
            skipped: Vec::new(),
        }
    }
}

impl TransactionSource for Queue {
    fn next(&mut self, _: u64) -> Option<Recovered<Tx>> {
        self.offered.pop_front()
    }
    fn skipped(&mut self, _: Recovered<Tx>, why: Skipped) {
        self.skipped.push(why.to_string());
    }
}

fn template(timestamp: u64) -> BlockTemplate {
    BlockTemplate {
        timestamp,
        gas_limit: 30_000_000,
        beneficiary: address!("00000000000000000000000000000000000000cb"),
        ..BlockTemplate::default()
    }
}

fn memory_chain() -> Chain {
    Chain::open(Arc::new(MemoryStore::new()), &genesis()).unwrap()
}

/// A block with a deployment, a call of what was deployed, and a transfer.
fn sample_block(chain: &Chain) -> Imported {
    let contract = address_of(&key(1)).create(0);
    let call = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce: 1,
        gas_limit: 100_000,
        max_fee_per_gas: 2_000_000_000,
        to: TxKind::Call(contract),
        ..TxEip1559::default()
    };
    let mut queue = Queue::of([
        deployment(&key(1), 0),
        sign(&key(1), call),
        transfer(
            &key(2),
            0,
            address!("00000000000000000000000000000000000000aa"),
            5,
        ),
    ]);
    let built = chain.build(&template(10), &mut queue).unwrap();
    assert_eq!(queue.skipped, Vec::<String>::new());
    assert_eq!(built.receipts.len(), 3);
    built
}

/// Transfers to new accounts, deployments, and calls of what was deployed: gas for several pieces of the root.
fn large_queue() -> Queue {
    let transfers = (0..200_u8).map(|index| {
        let to = Address::repeat_byte(index.wrapping_add(1));
        transfer(&key(2), u64::from(index), to, 1)
    });
    let deployments = (0..100).map(|nonce| deployment(&key(1), nonce));
    let calls = (0..60).map(|index| {
        let call = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: 100 + index,
            gas_limit: 100_000,
            max_fee_per_gas: 2_000_000_000,
            to: TxKind::Call(address_of(&key(1)).create(index)),
            ..TxEip1559::default()
        };
        sign(&key(1), call)
    });
    Queue::of(deployments.chain(transfers).chain(calls))
}

/// Blocks of that size have their roots computed while they execute.
#[test]
fn the_root_of_a_large_block_is_that_of_its_flat_state() {
    let folder = tempfile::tempdir().unwrap();
    let options = LmdbOptions {
        map_size: 1 << 28,
        ..LmdbOptions::new(folder.path())
    };
    let lmdb = Chain::open(Arc::new(LmdbStore::open(options).unwrap()), &genesis()).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build();
    pool.unwrap().install(|| {
        let producer = memory_chain();
        let mut queue = large_queue();
        let built = producer.build(&template(10), &mut queue).unwrap();
        assert_eq!(queue.skipped, Vec::<String>::new());
        assert!(built.block.header.gas_used > 3 * crate::roots::GAS_OF_A_PIECE);
        let mut invalid = built.block.clone();
        let last = invalid.body.transactions.len() - 1;
        invalid.body.transactions.swap(last - 1, last);
        invalid.header.transactions_root =
            alloy_consensus::proofs::calculate_transaction_root(&invalid.body.transactions);
        let error = lmdb.import(invalid).unwrap_err();
        assert!(matches!(error, ChainError::Execution(_)), "{error}");
        let imported = lmdb.import(built.block).unwrap();
        assert_eq!(imported.hash, built.hash);
        for chain in [&producer, &lmdb] {
            let snapshot = chain.snapshot().unwrap();
            let rebuilt = zvm_storage::rebuild_root(&*snapshot).unwrap();
            assert_eq!(rebuilt, imported.block.header.state_root);
            let stored = zvm_storage::state_root(&*snapshot).unwrap();
            assert_eq!(stored, rebuilt);
        }
    });
}

#[test]
fn a_built_block_imports_on_another_chain_with_the_same_hash_and_receipts() {
    let (producer, follower) = (memory_chain(), memory_chain());
    let built = sample_block(&producer);
    let imported = follower
        .import_rlp(&alloy_rlp::encode(&built.block))
        .unwrap();
    assert_eq!(imported.hash, built.hash);
    assert_eq!(imported.receipts, built.receipts);
    assert_eq!(imported.senders, built.senders);
    assert!(built.receipts.iter().all(|receipt| receipt.success));
    assert_eq!(built.receipts[1].logs.len(), 1);
    let snapshot = follower.snapshot().unwrap();
    let slot = zvm_storage::read_slot(&*snapshot, &address_of(&key(1)).create(0), &U256::ZERO);
    assert_eq!(slot.unwrap(), U256::from(1));
    assert_eq!(
        zvm_storage::rebuild_root(&*snapshot).unwrap(),
        built.block.header.state_root
    );
}

#[test]
fn a_block_is_refused_if_any_field_of_its_header_is_changed() {
    type Change = fn(&mut Header);
    let changes: [(&str, Change); 19] = [
        ("parentHash", |h| h.parent_hash.0[0] ^= 1),
        ("sha3Uncles", |h| h.ommers_hash.0[0] ^= 1),
        ("miner", |h| h.beneficiary.0[0] ^= 1),
        ("stateRoot", |h| h.state_root.0[0] ^= 1),
        ("transactionsRoot", |h| h.transactions_root.0[0] ^= 1),
        ("receiptsRoot", |h| h.receipts_root.0[0] ^= 1),
        ("logsBloom", |h| h.logs_bloom.0[0] ^= 1),
        ("difficulty", |h| h.difficulty = U256::from(1)),
        ("number", |h| h.number += 1),
        ("gasLimit", |h| h.gas_limit += h.gas_limit / 1024),
        ("gasUsed", |h| h.gas_used += 1),
        ("timestamp", |h| h.timestamp = 0),
        ("extraData", |h| h.extra_data = vec![0; 33].into()),
        ("nonce", |h| h.nonce.0[0] = 1),
        ("baseFeePerGas", |h| h.base_fee_per_gas = Some(1)),
        ("withdrawalsRoot", |h| h.withdrawals_root = None),
        ("blobGasUsed", |h| h.blob_gas_used = Some(131_072)),
        ("excessBlobGas", |h| h.excess_blob_gas = Some(1)),
        ("requestsHash", |h| h.requests_hash = Some(B256::ZERO)),
    ];
    let block = sample_block(&memory_chain()).block;
    let follower = memory_chain();
    let before = follower.head().hash;
    for (field, change) in changes {
        let mut changed = block.clone();
        change(&mut changed.header);
        let refused = follower.import(changed);
        assert!(refused.is_err(), "{field} may be anything");
        assert_eq!(follower.head().hash, before, "{field} moved the head");
    }
    // The beacon root is an input, not an outcome: another one gives another state.
    let mut changed = block.clone();
    changed.header.parent_beacon_block_root = Some(B256::repeat_byte(1));
    assert!(matches!(
        follower.import(changed),
        Err(ChainError::Outcome {
            field: "stateRoot",
            ..
        })
    ));
    assert!(follower.import(block).is_ok());
}

#[test]
fn a_block_whose_transactions_were_exchanged_or_dropped_is_refused() {
    let block = sample_block(&memory_chain()).block;
    let follower = memory_chain();
    let mut exchanged = block.clone();
    exchanged.body.transactions.swap(1, 2);
    assert!(follower.import(exchanged.clone()).is_err());
    exchanged.header.transactions_root =
        alloy_consensus::proofs::calculate_transaction_root(&exchanged.body.transactions);
    assert!(follower.import(exchanged).is_err());
    let mut dropped = block;
    dropped.body.transactions.pop();
    assert!(follower.import(dropped).is_err());
}

#[test]
fn a_transaction_that_is_not_valid_is_left_out_with_its_reason_and_the_rest_goes_in() {
    let chain = memory_chain();
    let poor = key(3);
    let to = address!("00000000000000000000000000000000000000aa");
    let mut queue = Queue::of([
        transfer(&poor, 0, to, 1),
        transfer(&key(1), 1, to, 1),
        transfer(&key(1), 0, to, 1),
        transfer(&key(1), 0, to, 1),
        transfer(&key(1), 1, to, 1),
    ]);
    let built = chain.build(&template(1), &mut queue).unwrap();
    assert_eq!(built.block.body.transactions.len(), 2);
    assert_eq!(queue.skipped.len(), 3);
    assert!(
        queue.skipped[0].starts_with("not now"),
        "{}",
        queue.skipped[0]
    );
    assert!(
        queue.skipped[1].starts_with("not now"),
        "{}",
        queue.skipped[1]
    );
    assert!(
        queue.skipped[2].starts_with("never"),
        "{}",
        queue.skipped[2]
    );
    assert!(memory_chain().import(built.block).is_ok());
}

#[test]
fn a_transaction_that_does_not_fit_the_block_leaves_no_trace() {
    let chain = memory_chain();
    let big = |nonce| {
        let tx = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: 16_000_000,
            max_fee_per_gas: 2_000_000_000,
            // INVALID burns everything it is given.
            input: Bytes::from_static(&[0xfe]),
            to: TxKind::Create,
            ..TxEip1559::default()
        };
        sign(&key(1), tx)
    };
    let mut queue = Queue::of([big(0), big(1)]);
    let built = chain.build(&template(1), &mut queue).unwrap();
    assert_eq!(built.block.header.gas_used, 16_000_000);
    assert_eq!(queue.skipped.len(), 1);
    let sender = address_of(&key(1));
    let account = zvm_storage::read_account(&*chain.snapshot().unwrap(), &sender);
    assert_eq!(account.unwrap().unwrap().nonce, 1);
    assert!(memory_chain().import(built.block).is_ok());
}

#[test]
fn reopening_a_chain_in_a_folder_continues_where_it_stopped() {
    let state = |path: &std::path::Path| LmdbOptions {
        map_size: 64 << 20,
        ..LmdbOptions::new(path)
    };
    let lmdb = |path: &std::path::Path| {
        let store = LmdbStore::open(state(path)).unwrap();
        Chain::open(Arc::new(store), &genesis()).unwrap()
    };
    // One merges all the time, one never: then all is replayed.
    let journaled = |path: &std::path::Path, seconds| {
        let store = JournaledStore::open(JournaledOptions {
            state: state(path),
            merge_interval: std::time::Duration::from_secs(seconds),
            ..JournaledOptions::new(path)
        });
        Chain::open(Arc::new(store.unwrap()), &genesis()).unwrap()
    };
    continues_where_it_stopped(lmdb);
    continues_where_it_stopped(|path| journaled(path, 0));
    continues_where_it_stopped(|path| journaled(path, 3600));
}

fn continues_where_it_stopped(open: impl Fn(&std::path::Path) -> Chain) {
    let folder = tempfile::tempdir().unwrap();
    let open = || open(folder.path());
    let chain = open();
    let built = sample_block(&chain);
    drop(chain);
    let chain = open();
    assert_eq!(chain.head().hash, built.hash);
    let snapshot = chain.snapshot().unwrap();
    assert_eq!(
        zvm_storage::receipts(&*snapshot, 1).unwrap().unwrap(),
        built.receipts
    );
    let hash = built.block.body.transactions[2].tx_hash();
    let location = zvm_storage::transaction_location(&*snapshot, hash)
        .unwrap()
        .unwrap();
    assert_eq!((location.block, location.index), (1, 2));
    drop(snapshot);
    let to = address!("00000000000000000000000000000000000000aa");
    let mut queue = Queue::of([transfer(&key(1), 2, to, 7)]);
    let next = chain.build(&template(20), &mut queue).unwrap();
    assert_eq!(next.block.header.number, 2);
    assert_eq!(next.block.header.parent_hash, built.hash);
}

#[test]
fn a_store_with_another_genesis_is_refused_by_name() {
    let store = Arc::new(MemoryStore::new());
    Chain::open(store.clone(), &genesis()).unwrap();
    let other = Genesis::development(CHAIN_ID, 30_000_000, &[], U256::ZERO);
    let refused = Chain::open(store, &other);
    assert!(matches!(refused, Err(ChainError::OtherGenesis { .. })));
}

#[test]
fn a_snapshot_sees_one_block_while_others_are_added() {
    let chain = memory_chain();
    let before = chain.snapshot().unwrap();
    sample_block(&chain);
    assert_eq!(zvm_storage::head(&*before).unwrap().unwrap().0, 0);
    assert!(
        before
            .get(Table::Receipts, &1u64.to_be_bytes())
            .unwrap()
            .is_none()
    );
    assert_eq!(
        zvm_storage::head(&*chain.snapshot().unwrap())
            .unwrap()
            .unwrap()
            .0,
        1
    );
}

#[test]
fn history_and_beacon_root_contracts_are_fed_by_every_block() {
    let chain = memory_chain();
    let beacon_root = B256::repeat_byte(7);
    let template = BlockTemplate {
        parent_beacon_block_root: beacon_root,
        ..template(12)
    };
    let genesis_hash = chain.head().hash;
    chain.build(&template, &mut Queue::default()).unwrap();
    let snapshot = chain.snapshot().unwrap();
    let slot = |address, slot: u64| {
        zvm_storage::read_slot(&*snapshot, &address, &U256::from(slot)).unwrap()
    };
    // EIP-2935: the parent's hash lies at its number modulo 8191. EIP-4788: timestamp and root in two rings of 8191.
    assert_eq!(
        slot(crate::requests::HISTORY_STORAGE, 0),
        U256::from_be_bytes(genesis_hash.0)
    );
    assert_eq!(slot(crate::requests::BEACON_ROOTS, 12), U256::from(12));
    assert_eq!(
        slot(crate::requests::BEACON_ROOTS, 12 + 8191),
        U256::from_be_bytes(beacon_root.0)
    );
}

#[test]
fn a_block_built_where_only_few_headers_are_valid_imports() {
    let proof_of_work = Genesis::from_json(
        br#"{"config": {"chainId": 7, "homesteadBlock": 0}, "gasLimit": "0x1388", "difficulty": "0x20000", "alloc": {}}"#,
    )
    .unwrap();
    let london_later = Genesis::from_json(
        br#"{"config": {"chainId": 7, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
             "byzantiumBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0, "berlinBlock": 0, "londonBlock": 1},
             "gasLimit": "0x1388", "difficulty": "0x20000", "alloc": {}}"#,
    )
    .unwrap();
    for genesis in [proof_of_work, london_later] {
        let open = || Chain::open(Arc::new(MemoryStore::new()), &genesis).unwrap();
        let (producer, follower) = (open(), open());
        for gas_limit in [0, u64::MAX, 30_000_000] {
            let template = BlockTemplate {
                gas_limit,
                ..template(1)
            };
            let built = producer.build(&template, &mut Queue::default()).unwrap();
            let imported = follower.import(built.block).unwrap();
            assert_eq!(imported.hash, built.hash);
        }
    }
}

#[test]
fn a_block_that_is_not_canonically_encoded_is_refused() {
    let built = sample_block(&memory_chain());
    let canonical = alloy_rlp::encode(&built.block);
    assert!(decode_block(&canonical).is_ok());
    // The string header of the first transaction, which is typed, made longer by one than the bytes it heads.
    let encoded = transaction::encode(&built.block.body.transactions[0]);
    let at = canonical
        .windows(encoded.len())
        .position(|window| window == &encoded[..])
        .unwrap();
    let mut wrong = canonical.clone();
    wrong[at - 1] ^= 1;
    assert!(decode_block(&wrong).is_err());
    assert!(decode_block(&[&canonical[..], &[0]].concat()).is_err());
}

#[test]
fn a_block_of_more_bytes_than_a_block_may_have_does_not_become_the_head() {
    let gas_limit = 200_000_000;
    let open = || {
        let rich = U256::from(10).pow(U256::from(22));
        let genesis = Genesis::development(CHAIN_ID, gas_limit, &[address_of(&key(1))], rich);
        Chain::open(Arc::new(MemoryStore::new()), &genesis).unwrap()
    };
    let offer = |transactions| {
        Queue::of((0..transactions).map(|nonce| {
            let tx = TxEip1559 {
                chain_id: CHAIN_ID,
                nonce,
                gas_limit: 16_500_000,
                max_fee_per_gas: 2_000_000_000,
                to: TxKind::Call(Address::repeat_byte(0xaa)),
                input: vec![0; 1_600_000].into(),
                ..TxEip1559::default()
            };
            sign(&key(1), tx)
        }))
    };
    let template = BlockTemplate {
        gas_limit,
        ..template(1)
    };
    let chain = open();
    let before = chain.head().hash;
    let refused = chain.build(&template, &mut offer(6));
    assert!(
        matches!(
            refused,
            Err(ChainError::Header(HeaderError::BlockTooLarge(_)))
        ),
        "{refused:?}"
    );
    assert_eq!(chain.head().hash, before);
    let built = chain.build(&template, &mut offer(5)).unwrap();
    assert_eq!(built.block.body.transactions.len(), 5);
    assert!(open().import(built.block).is_ok());
}

/// Code that stores the second word of its input under the first, and destroys itself if there is no input.
const WRITER: &str = "3660065733ff5b6020356000355500";

/// A chain before Byzantium with [`WRITER`] at `0xaa…`, whose slot 1 is 5.
fn proof_of_work_chain(fork_block: &str) -> Chain {
    let json = format!(
        r#"{{"config": {{"chainId": 7, "homesteadBlock": 0{fork_block}}}, "gasLimit": "0x1c9c380", "difficulty": "0x20000",
            "alloc": {{"{}": {{"balance": "0xffffffffffffffffff"}},
                      "{}": {{"balance": "0x1", "code": "0x{}", "storage": {{"0x1": "0x5"}}}}}}}}"#,
        address_of(&key(1)),
        Address::repeat_byte(0xaa),
        WRITER,
    );
    let genesis = Genesis::from_json(json.as_bytes()).unwrap();
    Chain::open(Arc::new(MemoryStore::new()), &genesis).unwrap()
}

/// Executes calls `(to, value, input)` of one sender in a block on top of the head; `to: None` creates.
fn run_with_roots(
    chain: &Chain,
    snapshot: &dyn Snapshot,
    roots: &mut dyn IntermediateRoots,
    calls: &[(Option<Address>, u64, Vec<u8>)],
) {
    let head = chain.head();
    let fork = chain.fork_after(&head, 1);
    assert!(fork < Fork::Byzantium);
    let header = template(1).header(chain.spec(), fork, &head.header, 1);
    let view = StateView::new(snapshot, chain.codes()).with_fork(fork);
    let mut executor = BlockExecutor::new(chain.spec(), fork, &header, &view, Some(roots)).unwrap();
    for (nonce, (to, value, input)) in calls.iter().enumerate() {
        let tx = TxLegacy {
            nonce: nonce as u64,
            gas_limit: 200_000,
            to: to.map_or(TxKind::Create, TxKind::Call),
            value: U256::from(*value),
            input: input.clone().into(),
            ..TxLegacy::default()
        };
        let tx = sign(&key(1), tx);
        let receipt = executor.transact(tx.inner(), tx.signer()).unwrap();
        assert!(receipt.success && receipt.post_state.is_some());
    }
}

/// Checks every root against the one computed from the whole block's changes.
struct CheckedRoots<'a> {
    incremental: SnapshotRoots<'a>,
    checked: usize,
}

impl IntermediateRoots for CheckedRoots<'_> {
    fn root(&mut self, state: &mut BlockState<'_>) -> Result<B256, ReadError> {
        let snapshot = self.incremental.snapshot;
        let whole = zvm_storage::apply_state(snapshot, &state_diff(state), &mut Batch::new());
        let root = self.incremental.root(state)?;
        assert_eq!(root, whole.unwrap(), "after {} transactions", self.checked);
        self.checked += 1;
        Ok(root)
    }
}

#[test]
fn a_root_within_a_block_is_that_of_all_changes_so_far() {
    let written = |slot: u8, value: u8| {
        let mut input = vec![0; 64];
        (input[31], input[63]) = (slot, value);
        input
    };
    for fork_block in [
        "",
        r#", "eip150Block": 0, "eip155Block": 0, "eip158Block": 0"#,
    ] {
        let chain = proof_of_work_chain(fork_block);
        let snapshot = chain.snapshot().unwrap();
        let old = Some(Address::repeat_byte(0xaa));
        let nobody = Some(Address::repeat_byte(0xbb));
        // Stores 4 under 4, then returns the code behind its 16 bytes.
        let mut init = alloy_primitives::hex!("6004600455600f8060106000396000f3").to_vec();
        init.extend(alloy_primitives::hex::decode(WRITER).unwrap());
        let created = |nonce: u64| Some(address_of(&key(1)).create(nonce));
        let calls = [
            (old, 0, written(1, 9)),
            // Back to what it was before the block.
            (old, 0, written(1, 5)),
            (old, 0, written(2, 7)),
            (old, 0, written(2, 0)),
            (old, 3, written(3, 1)),
            (None, 2, init.clone()),
            (created(5), 0, written(4, 0)),
            (created(5), 0, written(5, 5)),
            // The end of an account that had storage before the block, and of one created in it.
            (old, 0, Vec::new()),
            (created(5), 0, Vec::new()),
            (old, 1, Vec::new()),
            (created(5), 1, Vec::new()),
            (nobody, 0, Vec::new()),
            (nobody, 1, Vec::new()),
            (None, 0, init),
            (created(14), 0, written(4, 9)),
        ];
        let mut roots = CheckedRoots {
            incremental: SnapshotRoots::new(&*snapshot),
            checked: 0,
        };
        run_with_roots(&chain, &*snapshot, &mut roots, &calls);
        assert_eq!(roots.checked, calls.len());
    }
}

/// Counts the reads of a snapshot.
struct Counting<'a> {
    below: &'a dyn Snapshot,
    reads: AtomicUsize,
}

impl Snapshot for Counting<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.below.get(table, key)
    }
    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        self.below.scan(table, from, visit)
    }
}

#[test]
fn roots_within_a_block_read_in_proportion_to_its_transactions() {
    let chain = proof_of_work_chain("");
    let snapshot = chain.snapshot().unwrap();
    let reads = |transfers: u8| {
        let counting = Counting {
            below: &*snapshot,
            reads: AtomicUsize::new(0),
        };
        let calls: Vec<_> = (0..transfers)
            .map(|index| (Some(Address::with_last_byte(index + 100)), 1, Vec::new()))
            .collect();
        run_with_roots(
            &chain,
            &*snapshot,
            &mut SnapshotRoots::new(&counting),
            &calls,
        );
        counting.reads.into_inner()
    };
    // Four times as many transactions; from the snapshot alone it would be sixteen times as many reads.
    let (few, many) = (reads(32), reads(128));
    assert!(many < 5 * few, "{few} reads for 32, {many} for 128");
}
