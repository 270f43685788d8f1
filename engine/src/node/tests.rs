use super::*;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};

use alloy_consensus::{SignableTransaction, Signed, TxEip4844, TxLegacy};
use alloy_primitives::{Signature, TxKind, U256};
use secp256k1::{Message, SECP256K1, SecretKey};
use zvm_runtimes::evm::BlobParams;
use zvm_storage::{Batch, MemoryStore, Snapshot, Store, TableStats};

use crate::chain_spec::ChainSpec;
use crate::genesis::Genesis;

/// Long enough for the slowest machine: these waits end with what they wait for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store whose commits can be made to fail.
#[derive(Default)]
struct Fragile {
    inner: MemoryStore,
    broken: AtomicBool,
}

impl Store for Fragile {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.inner.snapshot()
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
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
    let sender = transaction::recover(&transfer(0, 0)).unwrap();
    let mut genesis = Genesis::development(
        31337,
        30_000_000,
        &[sender],
        U256::from(10).pow(U256::from(20)),
    );
    change(&mut genesis);
    let store = Arc::new(Fragile::default());
    let chain = Chain::open(Arc::clone(&store) as Arc<dyn Store>, &genesis).unwrap();
    let node = Node::start(Arc::new(chain), settings).unwrap();
    let (notices, received) = channel();
    node.listen(Box::new(move |notice| drop(notices.send(notice.clone()))));
    (store, node, received)
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
    let malformed = node.submit_raw(&[0xc0]).unwrap_err();
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
