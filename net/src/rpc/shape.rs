//! Blocks, transactions, receipts and logs in the shapes clients read.

use alloy_consensus::transaction::{Recovered, TransactionInfo};
use alloy_consensus::{BlockBody, Header, Sealed, Transaction as _};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{B256, U256};
use alloy_rlp::Encodable as _;
use alloy_rpc_types_eth as eth;
use zvm_engine::pool::Pooled;
use zvm_engine::receipt;
use zvm_engine::transaction::Tx;

use super::recent::StoredBlock;

/// A transaction as clients read it.
pub(super) type RpcTransaction = eth::Transaction<Tx>;
/// A block as clients read it.
pub(super) type RpcBlock = eth::Block<RpcTransaction>;
/// A receipt as clients read it.
pub(super) type RpcReceipt = eth::TransactionReceipt<alloy_consensus::ReceiptEnvelope<eth::Log>>;

/// A block, with whole transactions or their hashes.
pub(super) fn block(block: &StoredBlock, whole: bool) -> RpcBlock {
    let transactions = if whole {
        eth::BlockTransactions::Full(
            (0..block.body.transactions.len())
                .filter_map(|at| transaction(block, at))
                .collect(),
        )
    } else {
        eth::BlockTransactions::Hashes(
            block
                .body
                .transactions
                .iter()
                .map(|tx| *tx.hash())
                .collect(),
        )
    };
    eth::Block {
        header: header(
            block.hash,
            block.header.clone(),
            Some(U256::from(size(&block.header, &block.body))),
        ),
        uncles: block.body.ommers.iter().map(Header::hash_slow).collect(),
        transactions,
        withdrawals: block.body.withdrawals.clone(),
    }
}

/// An uncle: a block of which only the header is known.
pub(super) fn uncle(uncle: &Header) -> RpcBlock {
    let body = BlockBody::<Tx>::default();
    eth::Block {
        header: header(
            uncle.hash_slow(),
            uncle.clone(),
            Some(U256::from(size(uncle, &body))),
        ),
        uncles: Vec::new(),
        transactions: eth::BlockTransactions::Uncle,
        withdrawals: None,
    }
}

/// A header.
pub(super) fn header(hash: B256, header: Header, size: Option<U256>) -> eth::Header {
    eth::Header::from_consensus(Sealed::new_unchecked(header, hash), None, size)
}

/// Bytes of the RLP of a block.
fn size(header: &Header, body: &BlockBody<Tx>) -> usize {
    let withdrawals = body
        .withdrawals
        .as_ref()
        .map_or(0, |withdrawals| withdrawals.length());
    let payload = header.length()
        + alloy_rlp::list_length(&body.transactions)
        + alloy_rlp::list_length(&body.ommers)
        + withdrawals;
    payload + alloy_rlp::length_of_length(payload)
}

/// Transaction `index` of a block.
pub(super) fn transaction(block: &StoredBlock, index: usize) -> Option<RpcTransaction> {
    let tx = block.body.transactions.get(index)?;
    let recovered = Recovered::new_unchecked(tx.clone(), *block.senders.get(index)?);
    Some(eth::Transaction::from_transaction(
        recovered,
        TransactionInfo {
            hash: Some(*tx.hash()),
            index: Some(index as u64),
            block_hash: Some(block.hash),
            block_number: Some(block.header.number),
            base_fee: block.header.base_fee_per_gas,
            block_timestamp: Some(block.header.timestamp),
        },
    ))
}

/// A transaction that waits.
pub(super) fn pending(pooled: &Pooled) -> RpcTransaction {
    eth::Transaction::from_transaction(pooled.tx.clone(), TransactionInfo::default())
}

/// Wei per gas a transaction of a block pays.
pub(super) fn effective_gas_price(tx: &Tx, header: &Header) -> u128 {
    tx.effective_gas_price(header.base_fee_per_gas)
}

/// Gas used by transaction `index`.
pub(super) fn gas_used(block: &StoredBlock, index: usize) -> u64 {
    let upto = |index: usize| {
        block
            .receipts
            .get(index)
            .map_or(0, |receipt| receipt.cumulative_gas_used)
    };
    upto(index).saturating_sub(index.checked_sub(1).map_or(0, upto))
}

/// The receipt of transaction `index` of a block; `first_log` is the index in the block of its first log.
pub(super) fn receipt(block: &StoredBlock, index: usize, first_log: u64) -> Option<RpcReceipt> {
    let stored = block.receipts.get(index)?;
    let tx = block.body.transactions.get(index)?;
    let sender = *block.senders.get(index)?;
    let mut log_index = first_log..;
    let inner = receipt::envelope(stored).map_logs(|inner| {
        log(
            block,
            *tx.hash(),
            index,
            log_index.next().unwrap_or_default(),
            inner,
        )
    });
    Some(eth::TransactionReceipt {
        inner,
        transaction_hash: *tx.hash(),
        transaction_index: Some(index as u64),
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        gas_used: gas_used(block, index),
        effective_gas_price: effective_gas_price(tx, &block.header),
        blob_gas_used: stored.blob_gas_used,
        blob_gas_price: stored.blob_gas_price,
        from: sender,
        to: tx.to(),
        // Where the creation failed too, as geth answers: the address is that of the attempt.
        contract_address: tx.to().is_none().then(|| sender.create(tx.nonce())),
    })
}

/// A log with its place.
pub(super) fn log(
    block: &StoredBlock,
    transaction_hash: B256,
    transaction_index: usize,
    log_index: u64,
    inner: alloy_primitives::Log,
) -> eth::Log {
    eth::Log {
        inner,
        block_hash: Some(block.hash),
        block_number: Some(block.header.number),
        block_timestamp: Some(block.header.timestamp),
        transaction_hash: Some(transaction_hash),
        transaction_index: Some(transaction_index as u64),
        log_index: Some(log_index),
        removed: false,
    }
}

/// The EIP-2718 bytes of a transaction.
pub(super) fn raw(tx: &Tx) -> alloy_primitives::Bytes {
    tx.encoded_2718().into()
}
