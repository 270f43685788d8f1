use super::*;

use alloy_consensus::Transaction as _;
use alloy_primitives::B256;
use parking_lot::RwLockWriteGuard;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use alloy_consensus::{SignableTransaction, Signed, TxEip4844, TxLegacy};
use alloy_primitives::{Signature, TxKind, U256};
use secp256k1::{Message, SECP256K1, SecretKey};
use zvm_runtimes::evm::BlobParams;
use zvm_storage::{Batch, MemoryStore, Snapshot, Store, TableStats};

use crate::chain_spec::ChainSpec;
use crate::genesis::Genesis;
use crate::ingress::Senders;
use crate::requests::HISTORY_STORAGE;
use crate::transaction::{self, Tx};

/// Long enough for the slowest machine: these waits end with what they wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store whose commits can be made to fail and to wait.
#[derive(Default)]
struct Fragile {
    inner: MemoryStore,
    broken: AtomicBool,
    /// Commits wait while it is locked.
    gate: RwLock<()>,
}

impl Fragile {
    /// Commits wait until this is dropped.
    fn close(&self) -> RwLockWriteGuard<'_, ()> {
        self.gate.write()
    }
}

impl Store for Fragile {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.inner.snapshot()
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        let _open = self.gate.read();
        if self.broken.load(Ordering::SeqCst) {
            return Err(StoreError::DiskFull {
                path: "/full".into(),
            });
        }
        self.inner.commit(batch)
    }

    fn stats(&self) -> Result<Vec<TableStats>, StoreError> {
        self.inner.stats()
    }
}

fn key() -> SecretKey {
    SecretKey::from_byte_array([7; 32]).unwrap()
}

fn transfer(nonce: u64, gas_price: u128) -> Tx {
    sign(TxLegacy {
        gas_limit: 21_000,
        ..legacy(nonce, gas_price)
    })
}

fn legacy(nonce: u64, gas_price: u128) -> TxLegacy {
    TxLegacy {
        chain_id: Some(31337),
        nonce,
        gas_price,
        to: TxKind::Call(Address::repeat_byte(9)),
        value: U256::from(1),
        ..TxLegacy::default()
    }
}

fn blobs(count: usize) -> Tx {
    sign(TxEip4844 {
        chain_id: 31337,
        gas_limit: 21_000,
        max_fee_per_gas: 2_000_000_000,
        max_fee_per_blob_gas: 2_000_000_000,
        blob_versioned_hashes: vec![B256::repeat_byte(1); count],
        ..TxEip4844::default()
    })
}

fn sign<T>(tx: T) -> Tx
where
    T: SignableTransaction<Signature>,
    Tx: From<Signed<T>>,
{
    let message = Message::from_digest(tx.signature_hash().0);
    let (parity, rs) = SECP256K1
        .sign_ecdsa_recoverable(message, &key())
        .serialize_compact();
    let word = |at: usize| U256::from_be_slice(&rs[at..at + 32]);
    tx.into_signed(Signature::new(word(0), word(32), i32::from(parity) == 1))
        .into()
}

fn start(settings: NodeSettings) -> (Arc<Fragile>, Arc<Node>, Receiver<Notice>) {
    start_with(settings, |_| {})
}

fn start_with(
    settings: NodeSettings,
    change: impl FnOnce(&mut Genesis),
) -> (Arc<Fragile>, Arc<Node>, Receiver<Notice>) {
    let genesis = genesis_with(change);
    let store = Arc::new(Fragile::default());
    let chain = Chain::open(Arc::clone(&store) as Arc<dyn Store>, &genesis).unwrap();
    let node = Node::start(Arc::new(chain), settings).unwrap();
    let (notices, received) = channel();
    node.listen(Box::new(move |notice| drop(notices.send(notice.clone()))));
    (store, node, received)
}

fn genesis_with(change: impl FnOnce(&mut Genesis)) -> Genesis {
    let sender = transaction::recover(&transfer(0, 0)).unwrap();
    let mut genesis = Genesis::development(
        31337,
        30_000_000,
        &[sender],
        U256::from(10).pow(U256::from(20)),
    );
    change(&mut genesis);
    genesis
}

/// The hashes of the transactions of the next blocks, until `count` have come.
fn included(notices: &Receiver<Notice>, count: usize) -> Vec<B256> {
    let mut hashes = Vec::new();
    while hashes.len() < count {
        if let Notice::Block(block) = notices.recv_timeout(PATIENCE).expect("a block") {
            hashes.extend(block.block.body.transactions.iter().map(|tx| *tx.hash()));
        }
    }
    hashes
}

#[test]
fn what_the_pool_takes_is_in_a_block_in_nonce_order_whatever_the_order_of_arrival() {
    let (store, node, notices) = start(NodeSettings::default());
    let mut expected: Vec<_> = (0..20)
        .map(|nonce| *transfer(nonce, 2_000_000_000).hash())
        .collect();
    for nonce in [3, 1, 2, 0].into_iter().chain((4..20).rev()) {
        node.submit(transfer(nonce, 2_000_000_000)).unwrap();
    }
    assert_eq!(included(&notices, 20), expected);
    // A notice comes when the block is durable.
    let snapshot = store.snapshot().unwrap();
    let last = expected.pop().unwrap();
    assert!(
        zvm_storage::transaction_location(&*snapshot, &last)
            .unwrap()
            .is_some()
    );
    assert_eq!(node.pool().status().ready, 0);
    node.stop();
}

#[test]
fn refusals_speak_the_words_of_geth() {
    let (_, node, notices) = start(NodeSettings::default());
    node.submit(transfer(0, 2_000_000_000)).unwrap();
    included(&notices, 1);
    let text = |tx| node.submit(tx).unwrap_err().to_string();
    assert!(text(transfer(0, 2_000_000_000)).starts_with("nonce too low"));
    assert!(
        text(transfer(1, u128::from(u64::MAX)))
            .starts_with("insufficient funds for gas * price + value")
    );
    let malformed = node.submit_raw(&Bytes::from_static(&[0xc0])).unwrap_err();
    assert!(matches!(malformed, SubmitError::Malformed(_)));
    node.stop();
}

#[test]
fn a_block_time_makes_blocks_without_transactions_too() {
    let (_, node, notices) = start(NodeSettings {
        block_time: Some(Duration::from_millis(10)),
        ..NodeSettings::default()
    });
    let mut empty = 0;
    while empty < 3 {
        if let Notice::Block(block) = notices.recv_timeout(PATIENCE).unwrap() {
            empty += usize::from(block.block.body.transactions.is_empty());
        }
    }
    node.stop();
}

#[test]
fn a_store_that_fails_ends_the_intake_with_its_reason() {
    let (store, node, notices) = start(NodeSettings::default());
    store.broken.store(true, Ordering::SeqCst);
    node.submit(transfer(0, 2_000_000_000)).unwrap();
    loop {
        match notices.recv_timeout(PATIENCE).expect("a notice") {
            Notice::Failed(reason) => {
                assert!(reason.contains("no space left"), "{reason}");
                break;
            }
            Notice::Block(_) => panic!("a block on a broken store"),
            Notice::Pending(_) => {}
        }
    }
    let refused = node
        .submit(transfer(1, 2_000_000_000))
        .unwrap_err()
        .to_string();
    assert!(refused.contains("no space left"), "{refused}");
    assert_eq!(node.chain().head().header.number, 0);
    node.stop();
}

#[test]
fn a_stopped_node_takes_nothing() {
    let (_, node, _) = start(NodeSettings::default());
    node.stop();
    assert!(matches!(
        node.submit(transfer(0, 2_000_000_000)),
        Err(SubmitError::Stopped(_))
    ));
}

#[test]
fn a_pending_notice_has_the_transaction_even_when_a_block_has_it_already() {
    let (_, node, notices) = start(NodeSettings::default());
    let mut sent = Vec::new();
    for nonce in 0..20 {
        sent.push(node.submit(transfer(nonce, 2_000_000_000)).unwrap());
        // Nothing waits any more when the notice is looked at.
        while node.pool().status().ready > 0 {
            std::thread::yield_now();
        }
    }
    node.stop();
    let told: Vec<_> = notices
        .try_iter()
        .filter_map(|notice| match notice {
            Notice::Pending(pooled) => Some((pooled.hash, pooled.tx.nonce())),
            _ => None,
        })
        .collect();
    assert_eq!(told, sent.into_iter().zip(0..20).collect::<Vec<_>>());
}

#[test]
fn a_transaction_with_more_blobs_than_a_block_may_have_is_refused() {
    let (_, node, notices) = start_with(NodeSettings::default(), |genesis| {
        genesis.spec = ChainSpec::at(Fork::Osaka, 31337);
        let params = BlobParams {
            max: 3,
            ..genesis.spec.blob_params(Fork::Osaka).unwrap()
        };
        genesis.spec.set_blob_params(Fork::Osaka, params);
    });
    assert_eq!(
        node.submit(blobs(4)).unwrap_err().to_string(),
        "too many blobs in transaction: have 4, permitted 3"
    );
    assert_eq!(
        node.submit(blobs(7)).unwrap_err().to_string(),
        "too many blobs in transaction: have 7, permitted 6"
    );
    let hash = node.submit(blobs(3)).unwrap();
    assert_eq!(included(&notices, 1), [hash]);
    node.stop();
}

#[test]
fn on_demand_no_block_is_made_of_what_cannot_be_included() {
    // The next block is smaller than the head and than this transaction, which no later block has room for either.
    let settings = NodeSettings {
        gas_limit: Some(5_000_000),
        ..NodeSettings::default()
    };
    let (_, node, notices) = start_with(settings, |genesis| {
        genesis.header.gas_limit = 10_000_000;
    });
    let too_large = sign(TxLegacy {
        gas_limit: 10_000_000,
        ..legacy(0, 2_000_000_000)
    });
    let dropped = node.submit(too_large).unwrap();
    while node.pool().get(&dropped).is_some() {
        std::thread::yield_now();
    }
    assert_eq!(node.chain().head().header.number, 0);
    // The sender is not blocked.
    let hash = node.submit(transfer(0, 2_000_000_000)).unwrap();
    assert_eq!(included(&notices, 1), [hash]);
    node.stop();
    assert_eq!(node.chain().head().header.number, 1);
}

#[test]
fn on_demand_a_fee_cap_below_the_next_base_fee_is_refused() {
    let (_, node, _) = start(NodeSettings::default());
    let base_fee = node.next_block(&node.chain().head()).base_fee;
    let text = |tx| node.submit(tx).unwrap_err().to_string();
    assert!(
        text(transfer(0, u128::from(base_fee) - 1))
            .starts_with("max fee per gas less than block base fee")
    );
    node.submit(transfer(0, u128::from(base_fee))).unwrap();
    node.stop();
    // With a block time the base fee falls from block to block, and the transaction waits for that.
    let (_, node, _) = start(NodeSettings {
        block_time: Some(Duration::from_secs(3600)),
        ..NodeSettings::default()
    });
    node.submit(transfer(0, u128::from(base_fee) - 1)).unwrap();
    node.stop();
}

/// Bytes of a transaction.
fn raw(tx: &Tx) -> Bytes {
    transaction::encode(tx)
}

/// Waits until all that waits is in blocks that are not durable.
fn until_all_in_flight(node: &Node) {
    while node.pool().has_next() {
        std::thread::yield_now();
    }
}

/// Keeps, under its number, the hash of the block before as `BLOCKHASH` gives it, and under the complement of the number
/// as the contract of EIP-2935 gives it.
fn hash_keeper() -> Bytes {
    let mut code = vec![
        0x60, 0x01, 0x43, 0x03, 0x80, 0x40, 0x43, 0x55, 0x60, 0x00, 0x52,
    ];
    code.extend([0x60, 0x20, 0x60, 0x00, 0x60, 0x20, 0x60, 0x00, 0x73]);
    code.extend(HISTORY_STORAGE);
    code.extend([0x5a, 0xfa, 0x50, 0x60, 0x00, 0x51, 0x43, 0x19, 0x55, 0x00]);
    code.into()
}

const KEEPER: Address = Address::repeat_byte(0x77);

fn with_keeper(genesis: &mut Genesis) {
    let code = hash_keeper();
    let code_hash = alloy_primitives::keccak256(&code);
    genesis.state.codes.insert(code_hash, code);
    let keeper = genesis.state.accounts.entry(KEEPER).or_default();
    keeper.info = Some(zvm_storage::AccountInfo {
        nonce: 1,
        balance: U256::ZERO,
        code_hash,
    });
}

fn call_keeper(nonce: u64) -> Tx {
    sign(TxLegacy {
        to: TxKind::Call(KEEPER),
        value: U256::ZERO,
        gas_limit: 200_000,
        ..legacy(nonce, 2_000_000_000)
    })
}

#[test]
fn blocks_execute_while_those_before_them_are_not_durable_and_others_reach_the_same_roots() {
    let senders = Arc::new(Senders::default());
    let settings = NodeSettings {
        // Each transaction may get a block of its own.
        in_flight: 8,
        ..NodeSettings::default()
    };
    let (store, node, notices) = start_with(settings, with_keeper);
    let mut nonce = 0;
    let mut expected = 0;
    for _ in 0..20 {
        let closed = store.close();
        let head = node.chain().head().header.number;
        for _ in 0..3 {
            node.submit(transfer(nonce, 2_000_000_000)).unwrap();
            node.submit(call_keeper(nonce + 1)).unwrap();
            nonce += 2;
            until_all_in_flight(&node);
        }
        expected += 6;
        // Executed, still waiting for whoever asks, and not acknowledged.
        assert_eq!(node.pool().status().ready, 6);
        assert_eq!(node.chain().head().header.number, head);
        assert!(
            !notices
                .try_iter()
                .any(|notice| matches!(notice, Notice::Block(_)))
        );
        drop(closed);
        let mut seen = 0;
        while seen < 6 {
            if let Notice::Block(block) = notices.recv_timeout(PATIENCE).unwrap() {
                seen += block.block.body.transactions.len();
            }
        }
    }
    node.stop();
    // Whoever executes the blocks one after the other finds what their headers say.
    let genesis = genesis_with(with_keeper);
    let follower = Chain::open(Arc::new(MemoryStore::new()), &genesis)
        .unwrap()
        .with_senders(senders);
    let snapshot = store.snapshot().unwrap();
    let head = node.chain().head();
    let mut included = 0;
    let mut before = node.chain().genesis_hash();
    for number in 1..=head.header.number {
        let (hash, header) = zvm_storage::sealed_header(&*snapshot, number)
            .unwrap()
            .unwrap();
        let body = zvm_storage::body(&*snapshot, number).unwrap().unwrap();
        included += body.transactions.len();
        let keeps = body.transactions.iter().any(|tx| tx.to() == Some(KEEPER));
        follower
            .import(crate::chain::TxBlock { header, body })
            .unwrap();
        for slot in [U256::from(number), !U256::from(number)] {
            let kept = zvm_storage::read_slot(&*snapshot, &KEEPER, &slot).unwrap();
            let hash = if keeps { before } else { B256::ZERO };
            assert_eq!(kept, U256::from_be_bytes(hash.0), "block {number}");
        }
        before = hash;
    }
    assert_eq!(follower.head().hash, head.hash);
    assert_eq!(included, expected);
}

#[test]
fn what_was_in_flight_when_the_store_failed_was_never_acknowledged() {
    let settings = NodeSettings {
        in_flight: 3,
        ..NodeSettings::default()
    };
    let (store, node, notices) = start(settings);
    let closed = store.close();
    for nonce in 0..3 {
        node.submit(transfer(nonce, 2_000_000_000)).unwrap();
        until_all_in_flight(&node);
    }
    store.broken.store(true, Ordering::SeqCst);
    drop(closed);
    let mut failures = 0;
    loop {
        match notices.recv_timeout(PATIENCE).expect("a notice") {
            Notice::Failed(reason) => {
                assert!(reason.contains("no space left"), "{reason}");
                failures += 1;
                break;
            }
            Notice::Block(_) => panic!("a block on a broken store"),
            Notice::Pending(_) => {}
        }
    }
    node.stop();
    failures += notices
        .try_iter()
        .filter(|notice| matches!(notice, Notice::Failed(_)))
        .count();
    assert_eq!((failures, node.chain().head().header.number), (1, 0));
}

#[test]
fn no_signature_is_recovered_twice_between_the_bytes_and_the_import_of_the_own_blocks() {
    let (store, node, notices) = start(NodeSettings::default());
    let senders = Arc::clone(node.chain().senders());
    let transactions: Vec<_> = (0..60)
        .map(|nonce| transfer(nonce, 2_000_000_000))
        .collect();
    let bytes: Vec<_> = transactions.iter().map(raw).collect();
    // One by one, as single requests and as those of a JSON-RPC batch come; some of them twice.
    for bytes in &bytes[..10] {
        node.submit_raw(bytes).unwrap();
        assert!(node.submit_raw(bytes).is_err());
    }
    for tx in &transactions[10..20] {
        node.submit(tx.clone()).unwrap();
    }
    // In batches, with what is known already and what stands in the batch twice.
    let answers = node.submit_batch(&[&bytes[5..], &bytes[40..]].concat());
    let taken = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!(taken, 40);
    assert_eq!(included(&notices, 60).len(), 60);
    node.stop();
    let follower = Chain::open(Arc::new(MemoryStore::new()), &genesis_with(|_| {}))
        .unwrap()
        .with_senders(Arc::clone(&senders));
    let snapshot = store.snapshot().unwrap();
    for number in 1..=node.chain().head().header.number {
        let header = zvm_storage::header(&*snapshot, number).unwrap().unwrap();
        let body = zvm_storage::body(&*snapshot, number).unwrap().unwrap();
        follower
            .import(crate::chain::TxBlock { header, body })
            .unwrap();
    }
    assert_eq!(follower.head().hash, node.chain().head().hash);
    assert_eq!(senders.recovered(), 60);
}

#[test]
fn a_batch_answers_each_of_its_transactions_in_its_place() {
    let (_, node, _) = start(NodeSettings::default());
    let batch = [
        raw(&transfer(1, 2_000_000_000)),
        Bytes::from_static(&[0xc0]),
        raw(&transfer(0, 2_000_000_000)),
        raw(&transfer(0, 2_000_000_000)),
        vec![0; (128 << 10) + 1].into(),
        raw(&sign(TxLegacy {
            gas_limit: 100,
            ..legacy(2, 2_000_000_000)
        })),
    ];
    let answers = node.submit_batch(&batch);
    assert_eq!(
        answers[0].as_ref().ok(),
        Some(transfer(1, 2_000_000_000).hash())
    );
    assert!(matches!(answers[1], Err(SubmitError::Malformed(_))));
    assert_eq!(
        answers[2].as_ref().ok(),
        Some(transfer(0, 2_000_000_000).hash())
    );
    assert!(matches!(
        answers[3],
        Err(SubmitError::Refused(Refusal::Known))
    ));
    assert!(matches!(
        answers[4],
        Err(SubmitError::Refused(Refusal::Oversized { .. }))
    ));
    assert!(matches!(
        answers[5],
        Err(SubmitError::Refused(Refusal::IntrinsicGas { .. }))
    ));
    assert_eq!(answers.len(), batch.len());
    node.stop();
}

#[test]
fn another_contract_in_the_place_of_that_of_eip_2935_is_called_with_the_hash_in_every_block() {
    // Puts what it is called with under the number of the block.
    let code = Bytes::from_static(&[0x5f, 0x35, 0x43, 0x55, 0x00]);
    let change = |genesis: &mut Genesis| {
        let code_hash = alloy_primitives::keccak256(&code);
        genesis.state.codes.insert(code_hash, code.clone());
        let history = genesis.state.accounts.get_mut(&HISTORY_STORAGE).unwrap();
        history.info.as_mut().unwrap().code_hash = code_hash;
    };
    let (store, node, notices) = start_with(NodeSettings::default(), change);
    for nonce in 0..20 {
        node.submit(transfer(nonce, 2_000_000_000)).unwrap();
    }
    assert_eq!(included(&notices, 20).len(), 20);
    node.stop();
    let follower = Chain::open(Arc::new(MemoryStore::new()), &genesis_with(change)).unwrap();
    let snapshot = store.snapshot().unwrap();
    for number in 1..=node.chain().head().header.number {
        let header = zvm_storage::header(&*snapshot, number).unwrap().unwrap();
        let body = zvm_storage::body(&*snapshot, number).unwrap().unwrap();
        let parent = header.parent_hash;
        follower
            .import(crate::chain::TxBlock { header, body })
            .unwrap();
        let kept = zvm_storage::read_slot(&*snapshot, &HISTORY_STORAGE, &U256::from(number));
        assert_eq!(kept.unwrap(), U256::from_be_bytes(parent.0));
    }
    assert_eq!(follower.head().hash, node.chain().head().hash);
}
