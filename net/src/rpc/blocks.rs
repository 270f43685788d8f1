//! Blocks, transactions and receipts.

use std::sync::Arc;

use alloy_primitives::{B256, U64};
use serde_json::value::RawValue;
use zvm_engine::pool::Pooled;

use super::args::{Args, BlockRef, BlockTag};
use super::recent::StoredBlock;
use super::{Reply, Rpc, RpcError, View, reply, shape};

/// `eth_blockNumber`
pub(super) fn block_number(rpc: &Rpc, _: Args) -> Reply {
    reply(&U64::from(rpc.chain().head().header.number))
}

/// `eth_getBlockByNumber`
pub(super) fn block_by_number(rpc: &Rpc, mut args: Args) -> Reply {
    let block = args.required::<BlockTag>(0)?;
    answer_block(
        rpc,
        BlockRef::Tag(block),
        args.optional(1)?.unwrap_or_default(),
    )
}

/// `eth_getBlockByHash`
pub(super) fn block_by_hash(rpc: &Rpc, mut args: Args) -> Reply {
    let hash = args.required::<B256>(0)?;
    answer_block(
        rpc,
        BlockRef::Hash(hash),
        args.optional(1)?.unwrap_or_default(),
    )
}

fn answer_block(rpc: &Rpc, block: BlockRef, whole: bool) -> Reply {
    let found = find(&rpc.view()?, block)?;
    reply(&found.map(|block| shape::block(&block, whole)))
}

fn find(view: &View<'_>, block: BlockRef) -> Result<Option<Arc<StoredBlock>>, RpcError> {
    match view.resolve(block)? {
        Some(number) => view.block(number),
        None => Ok(None),
    }
}

/// `eth_getBlockTransactionCountByNumber`
pub(super) fn transaction_count_by_number(rpc: &Rpc, mut args: Args) -> Reply {
    let block = args.required::<BlockTag>(0)?;
    let found = find(&rpc.view()?, BlockRef::Tag(block))?;
    reply(&found.map(|block| U64::from(block.body.transactions.len())))
}

/// `eth_getBlockTransactionCountByHash`
pub(super) fn transaction_count_by_hash(rpc: &Rpc, mut args: Args) -> Reply {
    let hash = args.required::<B256>(0)?;
    let found = find(&rpc.view()?, BlockRef::Hash(hash))?;
    reply(&found.map(|block| U64::from(block.body.transactions.len())))
}

/// `eth_getUncleCountByBlockNumber`
pub(super) fn uncle_count_by_number(rpc: &Rpc, mut args: Args) -> Reply {
    let block = args.required::<BlockTag>(0)?;
    let found = find(&rpc.view()?, BlockRef::Tag(block))?;
    reply(&found.map(|block| U64::from(block.body.ommers.len())))
}

/// `eth_getUncleCountByBlockHash`
pub(super) fn uncle_count_by_hash(rpc: &Rpc, mut args: Args) -> Reply {
    let hash = args.required::<B256>(0)?;
    let found = find(&rpc.view()?, BlockRef::Hash(hash))?;
    reply(&found.map(|block| U64::from(block.body.ommers.len())))
}

/// `eth_getUncleByBlockNumberAndIndex`
pub(super) fn uncle_by_number(rpc: &Rpc, mut args: Args) -> Reply {
    let block = args.required::<BlockTag>(0)?;
    answer_uncle(rpc, BlockRef::Tag(block), args.required(1)?)
}

/// `eth_getUncleByBlockHashAndIndex`
pub(super) fn uncle_by_hash(rpc: &Rpc, mut args: Args) -> Reply {
    let hash = args.required::<B256>(0)?;
    answer_uncle(rpc, BlockRef::Hash(hash), args.required(1)?)
}

fn answer_uncle(rpc: &Rpc, block: BlockRef, index: u64) -> Reply {
    let found = find(&rpc.view()?, block)?;
    let uncle = found
        .as_ref()
        .and_then(|block| block.body.ommers.get(usize::try_from(index).ok()?));
    reply(&uncle.map(shape::uncle))
}

/// `eth_getTransactionByBlockNumberAndIndex`
pub(super) fn transaction_by_number(rpc: &Rpc, mut args: Args) -> Reply {
    let block = args.required::<BlockTag>(0)?;
    answer_transaction(rpc, BlockRef::Tag(block), args.required(1)?)
}

/// `eth_getTransactionByBlockHashAndIndex`
pub(super) fn transaction_by_block_hash(rpc: &Rpc, mut args: Args) -> Reply {
    let hash = args.required::<B256>(0)?;
    answer_transaction(rpc, BlockRef::Hash(hash), args.required(1)?)
}

fn answer_transaction(rpc: &Rpc, block: BlockRef, index: u64) -> Reply {
    let found = find(&rpc.view()?, block)?;
    reply(&found.and_then(|block| shape::transaction(&block, usize::try_from(index).ok()?)))
}

/// `eth_getTransactionByHash`
pub(super) fn transaction_by_hash(rpc: &Rpc, mut args: Args) -> Reply {
    let hash = args.required::<B256>(0)?;
    let (pooled, found) = find_transaction(rpc, &hash)?;
    match (found, pooled) {
        (Some((block, index)), _) => reply(&shape::transaction(&block, index)),
        (None, pooled) => reply(&pooled.map(|pooled| shape::pending(&pooled))),
    }
}

/// `eth_getRawTransactionByHash`
pub(super) fn raw_transaction_by_hash(rpc: &Rpc, mut args: Args) -> Reply {
    let hash = args.required::<B256>(0)?;
    let (pooled, found) = find_transaction(rpc, &hash)?;
    let raw = match &found {
        Some((block, index)) => block.body.transactions.get(*index).map(shape::raw),
        None => pooled.map(|pooled| shape::raw(pooled.tx.inner())),
    };
    reply(&raw)
}

/// `eth_getTransactionReceipt`
pub(super) fn receipt(rpc: &Rpc, mut args: Args) -> Reply {
    let hash = args.required::<B256>(0)?;
    match receipt_of(rpc, &hash)? {
        Some(receipt) => Ok(receipt),
        None => reply(&()),
    }
}

/// The receipt of a transaction whose block is durable.
pub(super) fn receipt_of(rpc: &Rpc, hash: &B256) -> Result<Option<Box<RawValue>>, RpcError> {
    let found = locate(&rpc.view()?, hash)?;
    let receipt = found.and_then(|(block, index)| {
        let first_log = block
            .receipts
            .iter()
            .take(index)
            .map(|receipt| receipt.logs.len() as u64)
            .sum();
        shape::receipt(&block, index, first_log)
    });
    receipt.as_ref().map(reply).transpose()
}

/// `eth_getBlockReceipts`
pub(super) fn block_receipts(rpc: &Rpc, mut args: Args) -> Reply {
    let block = args.required::<BlockRef>(0)?;
    let found = find(&rpc.view()?, block)?;
    reply(&found.map(|block| {
        let mut first_log = 0;
        (0..block.receipts.len())
            .filter_map(|index| {
                let receipt = shape::receipt(&block, index, first_log);
                first_log += block.receipts[index].logs.len() as u64;
                receipt
            })
            .collect::<Vec<_>>()
    }))
}

/// A transaction as the pool and as the store has it.
///
/// The pool is asked first: a transaction leaves it only when its block is readable, so one that is known is found. The
/// store counts: when the block is readable the pool still has the transaction for a moment.
fn find_transaction(
    rpc: &Rpc,
    hash: &B256,
) -> Result<(Option<Arc<Pooled>>, Option<Located>), RpcError> {
    let pooled = rpc.node.pool().get(hash);
    Ok((pooled, locate(&rpc.view()?, hash)?))
}

/// A block and a place in it.
type Located = (Arc<StoredBlock>, usize);

/// The block of a transaction and its place there.
fn locate(view: &View<'_>, hash: &B256) -> Result<Option<Located>, RpcError> {
    let Some(location) = zvm_storage::transaction_location(view.snapshot(), hash)? else {
        return Ok(None);
    };
    Ok(view
        .block(location.block)?
        .map(|block| (block, location.index as usize)))
}
