use crate::{dump, open};
use alloy_consensus::{
    BlockBody, EthereumTxEnvelope, Header, SignableTransaction, TxEip1559, TxLegacy,
};
use alloy_eips::eip4895::Withdrawal;
use alloy_primitives::{Address, B256, Bytes, Log, Signature, U256};
use zvm_storage::{
    Batch, BlockRecord, BlockTransaction, MemoryStore, Store, StoreError, StoredReceipt, Table,
    TransactionLocation, block_hash, block_number, body, get_meta, head, header, header_by_hash,
    put_block, put_meta, receipts, remove_block, sealed_header, senders, transaction_location,
};

/// A block with everything that its tables hold.
pub(crate) struct Block {
    pub(crate) header: Header,
    pub(crate) body: BlockBody<BlockTransaction>,
    pub(crate) receipts: Vec<StoredReceipt>,
    pub(crate) senders: Vec<Address>,
}

impl Block {
    pub(crate) fn new(number: u64, parent_hash: B256, transactions: u64) -> Self {
        let signature = || Signature::new(U256::from(1), U256::from(2), true);
        let transaction = |nonce: u64| -> BlockTransaction {
            let nonce = number * 1000 + nonce;
            if nonce.is_multiple_of(2) {
                let transaction = TxLegacy {
                    nonce,
                    ..TxLegacy::default()
                };
                EthereumTxEnvelope::Legacy(transaction.into_signed(signature()))
            } else {
                let transaction = TxEip1559 {
                    nonce,
                    ..TxEip1559::default()
                };
                EthereumTxEnvelope::Eip1559(transaction.into_signed(signature()))
            }
        };
        let receipt = |index: u64| StoredReceipt {
            tx_type: 2,
            success: index.is_multiple_of(2),
            cumulative_gas_used: 21_000 * (index + 1),
            logs: vec![Log::new_unchecked(
                Address::repeat_byte(index as u8),
                vec![B256::repeat_byte(1); index as usize % 5],
                Bytes::from(vec![3; index as usize]),
            )],
            contract_address: index.is_multiple_of(3).then(|| Address::repeat_byte(4)),
            post_state: index.is_multiple_of(4).then(|| B256::repeat_byte(5)),
            blob_gas_used: index.is_multiple_of(5).then_some(131_072),
            blob_gas_price: index.is_multiple_of(7).then_some(u128::MAX),
        };
        Self {
            header: Header {
                number,
                parent_hash,
                withdrawals_root: Some(B256::ZERO),
                base_fee_per_gas: Some(7),
                ..Header::default()
            },
            body: BlockBody {
                transactions: (0..transactions).map(transaction).collect(),
                ommers: vec![Header::default()],
                withdrawals: Some(vec![Withdrawal::default()].into()),
            },
            receipts: (0..transactions).map(receipt).collect(),
            senders: (0..transactions)
                .map(|n| Address::repeat_byte(n as u8))
                .collect(),
        }
    }

    pub(crate) fn record(&self) -> BlockRecord<'_> {
        BlockRecord {
            header: &self.header,
            hash: self.header.hash_slow(),
            body: &self.body,
            receipts: &self.receipts,
            senders: &self.senders,
        }
    }
}

fn commit(store: &dyn Store, block: &Block) {
    let mut batch = Batch::new();
    put_block(&mut batch, &block.record()).unwrap();
    store.commit(&batch).unwrap();
}

fn check(store: &dyn Store, block: &Block) {
    let snapshot = store.snapshot().unwrap();
    let snapshot = snapshot.as_ref();
    let (number, hash) = (block.header.number, block.header.hash_slow());
    assert_eq!(
        header(snapshot, number).unwrap().as_ref(),
        Some(&block.header)
    );
    assert_eq!(
        header_by_hash(snapshot, &hash).unwrap().as_ref(),
        Some(&block.header)
    );
    assert_eq!(sealed_header(snapshot, number).unwrap().unwrap().0, hash);
    assert_eq!(block_hash(snapshot, number).unwrap(), Some(hash));
    assert_eq!(block_number(snapshot, &hash).unwrap(), Some(number));
    assert_eq!(body(snapshot, number).unwrap().as_ref(), Some(&block.body));
    assert_eq!(
        senders(snapshot, number).unwrap().as_ref(),
        Some(&block.senders)
    );
    assert_eq!(
        receipts(snapshot, number).unwrap().as_ref(),
        Some(&block.receipts)
    );
    for (index, transaction) in (0..).zip(&block.body.transactions) {
        let location = transaction_location(snapshot, transaction.tx_hash()).unwrap();
        let expected = TransactionLocation {
            block: number,
            index,
        };
        assert_eq!(location, Some(expected));
    }
}

#[test]
fn a_block_is_read_back_as_written_from_both_stores() {
    let folder = tempfile::tempdir().unwrap();
    let lmdb = open(folder.path());
    let memory = MemoryStore::new();
    let genesis = Block::new(0, B256::ZERO, 0);
    let first = Block::new(1, genesis.header.hash_slow(), 40);
    for store in [&lmdb as &dyn Store, &memory] {
        assert_eq!(head(store.snapshot().unwrap().as_ref()).unwrap(), None);
        commit(store, &genesis);
        commit(store, &first);
        check(store, &genesis);
        check(store, &first);
        let expected = Some((1, first.header.hash_slow()));
        assert_eq!(head(store.snapshot().unwrap().as_ref()).unwrap(), expected);
    }
    assert_eq!(dump(&lmdb), dump(&memory));
}

#[test]
fn what_is_not_there_is_none() {
    let store = MemoryStore::new();
    let snapshot = store.snapshot().unwrap();
    let snapshot = snapshot.as_ref();
    assert_eq!(header(snapshot, 1).unwrap(), None);
    assert_eq!(header_by_hash(snapshot, &B256::ZERO).unwrap(), None);
    assert_eq!(block_hash(snapshot, 1).unwrap(), None);
    assert_eq!(body(snapshot, 1).unwrap(), None);
    assert_eq!(senders(snapshot, 1).unwrap(), None);
    assert_eq!(receipts(snapshot, 1).unwrap(), None);
    assert_eq!(transaction_location(snapshot, &B256::ZERO).unwrap(), None);
    assert_eq!(get_meta(snapshot, "genesis").unwrap(), None);
    let mut batch = Batch::new();
    assert_eq!(remove_block(snapshot, 1, &mut batch).unwrap(), None);
    assert!(batch.is_empty());
}

#[test]
fn a_removed_block_leaves_no_trace_and_its_parent_is_the_head() {
    let store = MemoryStore::new();
    let genesis = Block::new(0, B256::ZERO, 2);
    commit(&store, &genesis);
    let before = dump(&store);
    let first = Block::new(1, genesis.header.hash_slow(), 5);
    commit(&store, &first);
    let mut batch = Batch::new();
    let removed = remove_block(store.snapshot().unwrap().as_ref(), 1, &mut batch).unwrap();
    assert_eq!(removed, Some(first.header.hash_slow()));
    store.commit(&batch).unwrap();
    assert_eq!(dump(&store), before);
}

#[test]
fn a_block_whose_parts_do_not_fit_is_refused_and_writes_nothing() {
    let mut block = Block::new(1, B256::ZERO, 3);
    block.receipts.pop();
    let mut batch = Batch::new();
    let error = put_block(&mut batch, &block.record()).unwrap_err();
    assert!(
        matches!(error, StoreError::InconsistentBlock { number: 1, .. }),
        "{error}"
    );
    assert!(batch.is_empty());
}

#[test]
fn names_of_the_node_never_meet_those_of_the_store() {
    let store = MemoryStore::new();
    commit(&store, &Block::new(0, B256::ZERO, 0));
    let before = head(store.snapshot().unwrap().as_ref()).unwrap();
    let mut batch = Batch::new();
    put_meta(&mut batch, "head", b"mine");
    store.commit(&batch).unwrap();
    let snapshot = store.snapshot().unwrap();
    assert_eq!(head(snapshot.as_ref()).unwrap(), before);
    let kept = get_meta(snapshot.as_ref(), "head").unwrap().unwrap();
    assert_eq!(&kept[..], b"mine");
}

#[test]
fn values_cut_at_any_byte_are_errors_and_never_a_panic() {
    let store = MemoryStore::new();
    let block = Block::new(0, B256::ZERO, 3);
    commit(&store, &block);
    let hash = block.header.hash_slow();
    let transaction = *block.body.transactions[0].tx_hash();
    for (table, key, value) in dump(&store) {
        for length in 0..value.len() {
            let cut = store.fork();
            let mut batch = Batch::new();
            batch.put(table, key.clone(), &value[..length]);
            cut.commit(&batch).unwrap();
            let snapshot = cut.snapshot().unwrap();
            let snapshot = snapshot.as_ref();
            let failed = match table {
                Table::Meta => head(snapshot).is_err(),
                Table::Headers => header(snapshot, 0).is_err(),
                Table::Bodies => body(snapshot, 0).is_err(),
                Table::Receipts => receipts(snapshot, 0).is_err(),
                Table::BlockNumbers => block_number(snapshot, &hash).is_err(),
                Table::Transactions if key == transaction.as_slice() => {
                    transaction_location(snapshot, &transaction).is_err()
                }
                _ => true,
            };
            assert!(failed, "{table} cut to {length} bytes was read");
        }
    }
}
