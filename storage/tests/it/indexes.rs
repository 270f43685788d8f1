use crate::chain::Block;
use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, Bytes, Log};
use proptest::collection::vec;
use proptest::prelude::*;
use zvm_storage::{
    Batch, Creation, Deployment, LogQuery, MemoryStore, Role, Store, TransactionLocation, abi,
    deployment, matching_blocks, put_abi, put_block, put_deployment, remove_block, transactions_of,
};

fn logs() -> impl Strategy<Value = Log> {
    let topics = vec((0..4_u8).prop_map(B256::repeat_byte), 0..5);
    ((0..4_u8), topics).prop_map(|(address, topics)| {
        Log::new_unchecked(Address::repeat_byte(address), topics, Bytes::new())
    })
}

/// Blocks of transactions of logs.
fn chains() -> impl Strategy<Value = Vec<Vec<Vec<Log>>>> {
    vec(vec(vec(logs(), 0..4), 0..4), 1..12)
}

fn queries() -> impl Strategy<Value = LogQuery> {
    let any_of = |range: std::ops::Range<u8>| vec(range, 0..3);
    let topics =
        any_of(0..4).prop_map(|topics| topics.into_iter().map(B256::repeat_byte).collect());
    let addresses = any_of(0..4);
    (addresses, proptest::array::uniform4(topics)).prop_map(|(addresses, topics)| LogQuery {
        addresses: addresses.into_iter().map(Address::repeat_byte).collect(),
        topics,
    })
}

fn matches(query: &LogQuery, log: &Log) -> bool {
    let addresses = &query.addresses;
    (addresses.is_empty() || addresses.contains(&log.address))
        && query.topics.iter().enumerate().all(|(at, topics)| {
            let topic = log.topics().get(at);
            topics.is_empty() || topic.is_some_and(|topic| topics.contains(topic))
        })
}

fn store(chain: &[Vec<Vec<Log>>]) -> MemoryStore {
    let store = MemoryStore::new();
    for (number, transactions) in (0..).zip(chain) {
        let mut block = Block::new(number, B256::ZERO, transactions.len() as u64);
        for (receipt, logs) in block.receipts.iter_mut().zip(transactions) {
            receipt.logs.clone_from(logs);
        }
        let mut batch = Batch::new();
        put_block(&mut batch, &block.record()).unwrap();
        store.commit(&batch).unwrap();
    }
    store
}

proptest! {
    #[test]
    fn the_log_index_names_exactly_the_blocks_with_a_matching_log(
        chain in chains(), queries in vec(queries(), 1..8), from in 0..12_u64, to in 0..14_u64,
    ) {
        let store = store(&chain);
        let snapshot = store.snapshot().unwrap();
        for query in queries {
            let found: Vec<u64> = matching_blocks(snapshot.as_ref(), &query, from, to)
                .collect::<Result<_, _>>()
                .unwrap();
            let expected: Vec<u64> = (0..)
                .zip(&chain)
                .filter(|(number, block)| {
                    (from..=to).contains(number)
                        && block.iter().flatten().any(|log| matches(&query, log))
                })
                .map(|(number, _)| number)
                .collect();
            if query.is_open() {
                prop_assert!(found.is_empty());
            } else {
                prop_assert_eq!(found, expected);
            }
        }
    }
}

#[test]
fn transactions_are_found_by_sender_and_by_recipient_in_the_order_of_the_chain() {
    let store = MemoryStore::new();
    let mut expected = Vec::new();
    for number in 0..5_u64 {
        let block = Block::new(number, B256::ZERO, 7);
        let mut batch = Batch::new();
        put_block(&mut batch, &block.record()).unwrap();
        store.commit(&batch).unwrap();
        for (index, sender) in (0..).zip(&block.senders) {
            let at = TransactionLocation {
                block: number,
                index,
            };
            expected.push((Role::Sender, *sender, at));
            let receipt = &block.receipts[index as usize];
            let to = block.body.transactions[index as usize].to();
            if let Some(recipient) = to.or(receipt.contract_address) {
                expected.push((Role::Recipient, recipient, at));
            }
        }
    }
    let snapshot = store.snapshot().unwrap();
    let start = TransactionLocation { block: 0, index: 0 };
    let mut found = 0;
    for role in [Role::Sender, Role::Recipient] {
        for byte in 0..8 {
            let address = Address::repeat_byte(byte);
            let places: Vec<_> = expected
                .iter()
                .filter(|(of, whose, _)| (*of, *whose) == (role, address))
                .map(|(_, _, at)| *at)
                .collect();
            let read = |from, most| {
                transactions_of(snapshot.as_ref(), role, &address, from, most).unwrap()
            };
            assert_eq!(read(start, 99), places);
            assert_eq!(read(start, 2), places[..places.len().min(2)]);
            if let Some(third) = places.get(2) {
                assert_eq!(read(*third, 99), places[2..]);
            }
            found += places.len();
        }
    }
    assert_eq!(found, expected.len());
}

#[test]
fn a_removed_block_is_in_no_index() {
    let store = MemoryStore::new();
    let mut batch = Batch::new();
    put_block(&mut batch, &Block::new(1, B256::ZERO, 0).record()).unwrap();
    store.commit(&batch).unwrap();
    let before = crate::dump(&store);
    let mut batch = Batch::new();
    put_block(&mut batch, &Block::new(2, before_hash(), 9).record()).unwrap();
    store.commit(&batch).unwrap();
    let mut batch = Batch::new();
    remove_block(store.snapshot().unwrap().as_ref(), 2, &mut batch).unwrap();
    store.commit(&batch).unwrap();
    assert_eq!(crate::dump(&store), before);
}

fn before_hash() -> B256 {
    Block::new(1, B256::ZERO, 0).header.hash_slow()
}

#[test]
fn the_deployment_of_a_block_is_the_last_one_up_to_it() {
    let store = MemoryStore::new();
    let address = Address::repeat_byte(7);
    let at = |block: u64, creation| Deployment {
        block,
        format: 2,
        code_hash: B256::repeat_byte(block as u8),
        creation,
    };
    let creation = Creation {
        index: 3,
        deployer: Address::repeat_byte(9),
    };
    let (first, second) = (at(4, Some(creation)), at(9, None));
    let mut batch = Batch::new();
    put_deployment(&mut batch, &address, &first);
    put_deployment(&mut batch, &address, &second);
    put_deployment(&mut batch, &Address::repeat_byte(8), &first);
    put_abi(&mut batch, &first.code_hash, b"[]");
    store.commit(&batch).unwrap();
    let snapshot = store.snapshot().unwrap();
    let read = |number| deployment(snapshot.as_ref(), &address, number).unwrap();
    assert_eq!(read(3), None);
    assert_eq!(read(4), Some(first.clone()));
    assert_eq!(read(8), Some(first.clone()));
    assert_eq!(read(9), Some(second.clone()));
    assert_eq!(read(u64::MAX), Some(second));
    assert_eq!(
        abi(snapshot.as_ref(), &first.code_hash).unwrap(),
        Some(Bytes::from_static(b"[]"))
    );
}
