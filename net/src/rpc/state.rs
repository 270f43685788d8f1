//! Accounts and storage, at the head and at past blocks.

use alloy_primitives::{Address, B256, Bytes, U64, U256};

use super::args::{Args, BlockRef, StorageKey};
use super::{Reply, Rpc, reply};

/// `eth_getBalance`
pub(super) fn balance(rpc: &Rpc, mut args: Args) -> Reply {
    let address = args.required::<Address>(0)?;
    let state = rpc.view()?.into_state(args.optional::<BlockRef>(1)?)?;
    let account = zvm_storage::read_account(&*state, &address)?;
    reply(&account.map_or(U256::ZERO, |account| account.balance))
}

/// `eth_getTransactionCount`: with `pending` the transactions that wait count too.
pub(super) fn transaction_count(rpc: &Rpc, mut args: Args) -> Reply {
    let address = args.required::<Address>(0)?;
    let block = args.optional::<serde_json::Value>(1)?;
    let pending = block.as_ref().is_some_and(|block| block == "pending");
    let block = block
        .map(<BlockRef as super::args::Arg>::from_json)
        .transpose()
        .map_err(|reason| {
            super::RpcError::InvalidParams(format!("invalid argument 1: {reason}"))
        })?;
    // The pool first: what leaves it afterwards is in the state read next.
    let waiting = if pending {
        rpc.node.pool().next_nonce(&address)
    } else {
        None
    };
    let state = rpc.view()?.into_state(block)?;
    let account = zvm_storage::read_account(&*state, &address)?;
    let nonce = account.map_or(0, |account| account.nonce);
    reply(&U64::from(
        waiting.map_or(nonce, |waiting| waiting.max(nonce)),
    ))
}

/// `eth_getCode`
pub(super) fn code(rpc: &Rpc, mut args: Args) -> Reply {
    let address = args.required::<Address>(0)?;
    let state = rpc.view()?.into_state(args.optional::<BlockRef>(1)?)?;
    let code = match zvm_storage::read_account(&*state, &address)? {
        Some(account) => zvm_storage::read_code(&*state, &account.code_hash)?,
        None => None,
    };
    reply(&code.unwrap_or_else(Bytes::new))
}

/// `eth_getStorageAt`
pub(super) fn storage_at(rpc: &Rpc, mut args: Args) -> Reply {
    let address = args.required::<Address>(0)?;
    let StorageKey(key) = args.required(1)?;
    let state = rpc.view()?.into_state(args.optional::<BlockRef>(2)?)?;
    let value = zvm_storage::read_slot(&*state, &address, &key)?;
    reply(&B256::from(value))
}
