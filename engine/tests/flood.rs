//! A flood of transactions: valid, invalid, repeated, gapped and huge ones.
//!
//! `ZVM_FLOOD` says how many; without it a number that suits a test run. A quarter of them is what the pool may hold.

use std::sync::Arc;
use std::time::Duration;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{SignableTransaction as _, TxEip1559};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, keccak256};
use rayon::prelude::*;
use secp256k1::{Message, SECP256K1, SecretKey};
use zvm_engine::chain::Chain;
use zvm_engine::genesis::Genesis;
use zvm_engine::node::{Node, NodeSettings, SubmitError};
use zvm_engine::pool::{Candidate, Pool, PoolLimits, Refusal, SenderState};
use zvm_engine::transaction;
use zvm_storage::MemoryStore;

const CHAIN_ID: u64 = 31_337;
const BATCH: usize = 256;
/// Bytes that a waiting transaction may take beside its encoding; docs/node.md states it.
const OVERHEAD: usize = 1_536;
/// What the allocator keeps, and what else the process does meanwhile.
const SLACK: usize = 64 << 20;

fn key(index: u64) -> SecretKey {
    SecretKey::from_byte_array(keccak256(index.to_be_bytes()).0).unwrap()
}

fn address(key: &SecretKey) -> Address {
    Address::from_raw_public_key(&key.public_key(SECP256K1).serialize_uncompressed()[1..])
}

fn signed(key: &SecretKey, nonce: u64, tip: u128, input: usize) -> Bytes {
    let tx = TxEip1559 {
        chain_id: CHAIN_ID,
        nonce,
        gas_limit: 21_000 + 40 * input as u64,
        max_fee_per_gas: 2_000_000_000 + tip,
        max_priority_fee_per_gas: tip,
        to: TxKind::Call(Address::repeat_byte(9)),
        input: vec![0; input].into(),
        ..TxEip1559::default()
    };
    let message = Message::from_digest(tx.signature_hash().0);
    let (parity, rs) = SECP256K1
        .sign_ecdsa_recoverable(message, key)
        .serialize_compact();
    let signature = Signature::from_bytes_and_parity(&rs, i32::from(parity) == 1);
    transaction::encode(&tx.into_signed(signature).into())
}

/// What transaction `index` of the flood is.
fn flood(index: u64, senders: u64) -> Bytes {
    let sender = key(index % senders);
    let nonce = index / senders;
    let tip = 1 + u128::from(index % 1_000);
    match index % 16 {
        // Not the bytes of a transaction.
        0 => Bytes::from(keccak256(index.to_be_bytes()).0),
        // A signature that fits another sender, who has nothing.
        1 => {
            let mut bytes = signed(&sender, nonce, tip, 0).to_vec();
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            bytes.into()
        }
        // Huge, and more than huge.
        2 if index % 64 == 2 => signed(&sender, nonce, tip, 100 << 10),
        2 if index % 64 == 18 => signed(&sender, nonce, tip, 200 << 10),
        // Far behind a gap.
        3 | 4 => signed(&sender, 1_000_000 + index, tip, 0),
        _ => signed(&sender, nonce, tip, 0),
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim()
        .split(' ')
        .next()
        .unwrap()
        .parse::<usize>()
        .unwrap()
        << 10
}

#[test]
fn as_many_as_may_wait_take_no_more_memory_than_is_stated() {
    let count = match std::env::var("ZVM_FLOOD") {
        Ok(count) => count.parse().unwrap(),
        Err(_) => 20_000_u64,
    };
    // The fewer first: what is freed is used again, and would not be seen to grow.
    for senders in [count / 100, count] {
        let pool = Pool::new(PoolLimits {
            transactions: usize::try_from(count).unwrap(),
            ..PoolLimits::default()
        });
        let before = resident_bytes();
        for index in 0..count {
            let tx = TxEip1559 {
                nonce: index / senders,
                gas_limit: 21_000,
                max_fee_per_gas: 2_000_000_000,
                max_priority_fee_per_gas: u128::from(index % 1_000),
                to: TxKind::Call(Address::left_padding_from(&index.to_be_bytes())),
                ..TxEip1559::default()
            };
            let tx = tx.into_signed(Signature::test_signature()).into();
            let from = Address::left_padding_from(&(index % senders).to_be_bytes());
            let mut candidate = Candidate::new(Recovered::new_unchecked(tx, from));
            candidate.set_sender(SenderState {
                nonce: 0,
                balance: U256::MAX,
            });
            let mut taken = pool.add(0, vec![candidate]).unwrap();
            taken.pop().unwrap().unwrap();
        }
        let grown = resident_bytes().saturating_sub(before);
        let status = pool.status();
        assert_eq!(status.ready as u64, count);
        eprintln!(
            "{count} of {senders} senders: {grown} bytes, {} each beside {} of its encoding",
            grown.saturating_sub(status.bytes) as u64 / count,
            status.bytes as u64 / count
        );
        assert!(grown <= status.bytes + status.ready * OVERHEAD + SLACK);
    }
}

#[test]
fn a_flood_leaves_the_pool_within_its_bounds_and_the_node_answering() {
    let count: u64 = match std::env::var("ZVM_FLOOD") {
        Ok(count) => count.parse().unwrap(),
        Err(_) => 20_000,
    };
    let senders = (count / 8).max(1);
    let addresses: Vec<_> = (0..senders)
        .into_par_iter()
        .map(|index| address(&key(index)))
        .collect();
    let rich = key(u64::MAX);
    let genesis = Genesis::development(
        CHAIN_ID,
        60_000_000,
        &[&addresses[..], &[address(&rich)]].concat(),
        U256::from(10).pow(U256::from(20)),
    );
    drop(addresses);
    let chain = Chain::open(Arc::new(MemoryStore::new()), &genesis).unwrap();
    drop(genesis);
    let limits = PoolLimits {
        transactions: usize::try_from(count / 4).unwrap(),
        bytes: 64 << 20,
        ..PoolLimits::default()
    };
    let settings = NodeSettings {
        // No block makes room.
        block_time: Some(Duration::from_secs(86_400)),
        pool: limits,
        ..NodeSettings::default()
    };
    let node = Node::start(Arc::new(chain), settings).unwrap();
    let before = resident_bytes();
    let (mut taken, mut refused, mut most) = (0, 0, 0);
    let mut sent = 0;
    while sent < count {
        let mut batch: Vec<_> = (sent..(sent + BATCH as u64).min(count))
            .into_par_iter()
            .map(|index| flood(index, senders))
            .collect();
        sent += batch.len() as u64;
        // Twice in the batch, and now and then the whole batch again.
        batch.push(batch[batch.len() / 2].clone());
        let answers = node.submit_batch(&batch);
        assert_eq!(answers.len(), batch.len());
        taken += answers.iter().filter(|answer| answer.is_ok()).count();
        refused += answers.iter().filter(|answer| answer.is_err()).count();
        if sent % (16 * BATCH as u64) == 0 {
            for answer in node.submit_batch(&batch) {
                assert!(!matches!(
                    answer,
                    Err(SubmitError::Store(_) | SubmitError::Stopped(_))
                ));
            }
        }
        let status = node.pool().status();
        assert!(
            status.ready + status.held <= limits.transactions,
            "{status:?}"
        );
        assert!(status.bytes <= limits.bytes, "{status:?}");
        most = most.max(resident_bytes().saturating_sub(before));
    }
    let status = node.pool().status();
    let waiting = status.ready + status.held;
    eprintln!(
        "{sent} sent, {taken} taken, {refused} refused, {} displaced; {waiting} wait with {} bytes; memory grew by {most}, \
         {} a waiting transaction beside its bytes",
        status.displaced,
        status.bytes,
        most.saturating_sub(status.bytes) / waiting
    );
    assert!(taken > 0 && refused > 0);
    // Room for what a batch holds, the senders that are kept and what the allocator keeps.
    let bound = limits.bytes + limits.transactions * OVERHEAD + SLACK;
    assert!(most <= bound, "{most} above {bound}");
    // Who pays more than the rest gets in, and is found.
    let best: B256 = node
        .submit_raw(&signed(&rich, 0, 1_000_000_000, 0))
        .unwrap();
    assert!(node.pool().get(&best).is_some());
    assert_eq!(node.pool().next_nonce(&address(&rich)), Some(1));
    let repeated = node.submit_raw(&signed(&rich, 0, 1_000_000_000, 0));
    assert!(matches!(
        repeated,
        Err(SubmitError::Refused(Refusal::Known))
    ));
    node.stop();
}
