//! What history and indexes cost: bytes per change on disk, and times of reads at past blocks and of log queries.
//!
//! `cargo run --release -p zvm-storage --example history -- [BLOCKS]` (1,000). Each block changes 100 of 100,000
//! accounts and 200 of 1,000,000 slots of ten contracts, and has 100 logs of one contract and event with two topics of
//! their own.

use alloy_consensus::{BlockBody, Header, SignableTransaction, TxLegacy};
use alloy_primitives::{Address, B256, Bytes, Log, Signature, TxKind, U256, keccak256};
use std::hint::black_box;
use std::time::Instant;
use zvm_storage::{
    AccountChange, AccountInfo, Batch, BlockRecord, BlockTransaction, LmdbOptions, LmdbStore,
    LogQuery, StateAt, StateDiff, Store, StoreError, StoredReceipt, Table, account_proof,
    apply_state, matching_blocks, put_block, read_account, read_slot, record_changes,
};

const CONTRACTS: u64 = 10;
const TRANSACTIONS: u64 = 100;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let blocks: u64 = match std::env::args().nth(1) {
        Some(count) => count.parse()?,
        None => 1_000,
    };
    let folder = tempfile::tempdir()?;
    let store = LmdbStore::open(LmdbOptions::new(folder.path()))?;
    for number in 0..blocks {
        commit(&store, number)?;
    }
    println!("table                 entries  key and value/entry  pages/entry");
    let snapshot = store.snapshot()?;
    for stats in store.stats()?.iter().filter(|stats| stats.entries > 0) {
        let mut bytes = 0;
        snapshot.scan(stats.table, &[], &mut |key, value| {
            bytes += key.len() + value.len();
            std::ops::ControlFlow::Continue(())
        })?;
        let each = |bytes: u64| bytes / stats.entries;
        let (name, entries) = (stats.table.name(), stats.entries);
        let (content, pages) = (each(bytes as u64), each(stats.bytes));
        println!("{name:<20}{entries:>9}{content:>21}{pages:>13}");
    }
    let slots = entries(&store, Table::StorageHistory)?;
    let accounts = entries(&store, Table::AccountHistory)?;
    println!("{slots} changes of slots, {accounts} of accounts\n");

    const READS: u64 = 20_000;
    for back in [0, 1, blocks / 2, blocks - 1] {
        let at = StateAt::on(&*snapshot, blocks - 1 - back)?;
        let (mut read_accounts, mut read_slots) = (0, 0);
        for index in 0..READS {
            let (address, contract, slot) = (account(index), contract(index), slot(index));
            read_accounts += nanoseconds(|| drop(black_box(read_account(&at, &address))));
            read_slots += nanoseconds(|| drop(black_box(read_slot(&at, &contract, &slot))));
        }
        let proof = nanoseconds(|| {
            let block = blocks - 1 - back;
            let proof = account_proof(&*snapshot, block, &account(1), &[], u64::MAX);
            drop(black_box(proof));
        });
        let (account, slot) = (read_accounts / READS, read_slots / READS);
        println!(
            "{back:>6} blocks back: account {account} ns, slot {slot} ns, proof {:.1} ms",
            proof as f64 / 1e6
        );
    }
    let one = topic(blocks / 2, 3);
    for (name, query) in [
        ("one topic of its own", query(&[&[], &[one]])),
        ("contract, event, that topic", query(&[&[event()], &[one]])),
        ("a topic that nowhere is", query(&[&[B256::repeat_byte(9)]])),
        ("contract and event", query(&[&[event()]])),
    ] {
        let mut found = 0;
        let time = nanoseconds(|| found = matching_blocks(&*snapshot, &query, 0, blocks).count());
        println!(
            "{name}: {found} of {blocks} blocks in {:.3} ms",
            time as f64 / 1e6
        );
    }
    Ok(())
}

fn nanoseconds(work: impl FnOnce()) -> u64 {
    let start = Instant::now();
    work();
    start.elapsed().as_nanos() as u64
}

fn entries(store: &dyn Store, table: Table) -> Result<u64, StoreError> {
    Ok(store.stats()?[table.index()].entries)
}

fn query(topics: &[&[B256]]) -> LogQuery {
    let mut query = LogQuery {
        addresses: vec![contract(0)],
        ..LogQuery::default()
    };
    for (at, topics) in topics.iter().enumerate() {
        query.topics[at] = topics.to_vec();
    }
    query
}

/// The same everywhere, without order.
fn hashed(domain: &str, number: u64) -> B256 {
    keccak256([domain.as_bytes(), &number.to_be_bytes()].concat())
}

fn account(index: u64) -> Address {
    Address::from_word(hashed("account", index % 100_000))
}

fn contract(index: u64) -> Address {
    Address::from_word(hashed("contract", index % CONTRACTS))
}

fn slot(index: u64) -> U256 {
    hashed("slot", index % 1_000_000).into()
}

fn event() -> B256 {
    hashed("event", 0)
}

fn topic(block: u64, index: u64) -> B256 {
    hashed("topic", block * TRANSACTIONS + index)
}

fn commit(store: &dyn Store, number: u64) -> Result<(), StoreError> {
    let pick = |domain: &str, index: u64| {
        let hash = hashed(domain, number * 1_000 + index);
        u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|at| hash[at]))
    };
    let change = |balance: u64| AccountChange {
        info: Some(AccountInfo {
            nonce: number,
            balance: U256::from(balance),
            ..AccountInfo::default()
        }),
        ..AccountChange::default()
    };
    let mut diff = StateDiff::default();
    for index in 0..100 {
        let balance = pick("balance", index);
        let of = account(pick("changed", index));
        diff.accounts.insert(of, change(balance));
    }
    for index in 0..200 {
        let of = diff
            .accounts
            .entry(contract(index))
            .or_insert_with(|| change(1));
        let value = U256::from(pick("value", index));
        of.slots.insert(slot(pick("written", index)), value);
    }
    let snapshot = store.snapshot()?;
    let mut batch = Batch::new();
    let state_root = apply_state(&*snapshot, &diff, &mut batch)?;
    record_changes(&*snapshot, number, &mut batch)?;
    drop(snapshot);
    let transaction = |index: u64| {
        let transaction = TxLegacy {
            nonce: number * TRANSACTIONS + index,
            to: TxKind::Call(contract(0)),
            ..TxLegacy::default()
        };
        let signature = Signature::new(U256::from(1), U256::from(2), true);
        BlockTransaction::Legacy(transaction.into_signed(signature))
    };
    let receipt = |index: u64| StoredReceipt {
        success: true,
        cumulative_gas_used: 50_000 * (index + 1),
        logs: vec![Log::new_unchecked(
            contract(0),
            vec![event(), topic(number, index), topic(number + 1, index)],
            Bytes::from(vec![1; 32]),
        )],
        ..StoredReceipt::default()
    };
    let header = Header {
        number,
        state_root,
        ..Header::default()
    };
    let body = BlockBody {
        transactions: (0..TRANSACTIONS).map(transaction).collect(),
        ..BlockBody::default()
    };
    let receipts: Vec<_> = (0..TRANSACTIONS).map(receipt).collect();
    let senders: Vec<_> = (0..TRANSACTIONS)
        .map(|index| account(pick("sender", index)))
        .collect();
    let record = BlockRecord {
        header: &header,
        hash: header.hash_slow(),
        body: &body,
        receipts: &receipts,
        senders: &senders,
    };
    put_block(&mut batch, &record)?;
    store.commit(&batch)
}
