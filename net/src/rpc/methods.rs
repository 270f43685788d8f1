//! The table of methods: registration and documentation come from it.

use std::sync::Arc;

use super::args::Args;
use super::send_sync::{self, Waiting};
use super::{Reply, Rpc, blocks, execute, fees, history, logs, other, send, state};

/// A method.
#[derive(Debug)]
pub struct Method {
    /// Its name.
    pub name: &'static str,
    /// Its arguments, `?` after those that may be left out.
    pub params: &'static str,
    /// What it answers.
    pub answers: &'static str,
    /// Arguments it takes at most.
    pub(super) most: usize,
    pub(super) run: Run,
}

/// How a method runs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Run {
    /// At once: it neither reads the store nor executes.
    Now(fn(&Rpc, Args) -> Reply),
    /// On a thread that may block, when its turn comes.
    Blocking(fn(&Rpc, Args) -> Reply),
    /// Waits for something without a thread.
    Waiting(fn(Arc<Rpc>, Args) -> Waiting),
}

const fn now(
    name: &'static str,
    most: usize,
    params: &'static str,
    answers: &'static str,
    run: fn(&Rpc, Args) -> Reply,
) -> Method {
    Method {
        name,
        params,
        answers,
        most,
        run: Run::Now(run),
    }
}

const fn blocking(
    name: &'static str,
    most: usize,
    params: &'static str,
    answers: &'static str,
    run: fn(&Rpc, Args) -> Reply,
) -> Method {
    Method {
        name,
        params,
        answers,
        most,
        run: Run::Blocking(run),
    }
}

const fn waiting(
    name: &'static str,
    most: usize,
    params: &'static str,
    answers: &'static str,
    run: fn(Arc<Rpc>, Args) -> Waiting,
) -> Method {
    Method {
        name,
        params,
        answers,
        most,
        run: Run::Waiting(run),
    }
}

/// All methods that are one request and one answer.
#[rustfmt::skip]
pub const METHODS: &[Method] = &[
    now("eth_chainId", 0, "", "chain id", other::chain_id),
    now("eth_syncing", 0, "", "false", other::syncing),
    now("eth_blockNumber", 0, "", "number of the head", blocks::block_number),
    now("eth_accounts", 0, "", "accounts the node signs for", send::accounts),
    now("eth_gasPrice", 0, "", "base fee of the next block plus the suggested priority fee", fees::gas_price),
    now("eth_maxPriorityFeePerGas", 0, "", "suggested priority fee: 1 gwei", fees::max_priority_fee),
    now("eth_baseFee", 0, "", "base fee of the next block", fees::base_fee),
    now("eth_blobBaseFee", 0, "", "blob base fee of the next block", fees::blob_base_fee),
    blocking("eth_feeHistory", 3, "count, newest block, percentiles?", "fees of up to 1024 blocks", fees::fee_history),
    blocking("eth_getBalance", 2, "address, block?", "balance in wei", state::balance),
    blocking("eth_getCode", 2, "address, block?", "code", state::code),
    blocking("eth_getStorageAt", 3, "address, key, block?", "storage word; the key may be short", state::storage_at),
    blocking("eth_getTransactionCount", 2, "address, block?", "nonce; `pending` counts what waits in the pool", state::transaction_count),
    blocking("eth_call", 4, "call, block?, state overrides?, block overrides?", "what the call returns; error 3 with its data if it reverts", execute::call),
    blocking("eth_estimateGas", 4, "call, block?, state overrides?, block overrides?", "the least gas limit that is enough", execute::estimate_gas),
    blocking("eth_sendRawTransaction", 1, "signed transaction", "its hash, once the pool has it", send::send_raw),
    waiting("eth_sendRawTransactionSync", 2, "signed transaction, milliseconds?", "its receipt, once its block is durable (EIP-7966)", send_sync::send_raw_sync),
    blocking("eth_sendTransaction", 1, "transaction", "as above, signed by the node, open fields filled in", send::send),
    blocking("eth_signTransaction", 1, "transaction", "the signed transaction, not sent", send::sign_transaction),
    blocking("eth_sign", 2, "address, message", "signature of the message with the prefix of EIP-191", send::sign),
    blocking("personal_sign", 3, "message, address, password?", "as eth_sign", send::personal_sign),
    blocking("eth_getBlockByNumber", 2, "block, whole transactions?", "block or null", blocks::block_by_number),
    blocking("eth_getBlockByHash", 2, "hash, whole transactions?", "block or null", blocks::block_by_hash),
    blocking("eth_getBlockReceipts", 1, "block", "receipts or null", blocks::block_receipts),
    blocking("eth_getBlockTransactionCountByNumber", 1, "block", "count or null", blocks::transaction_count_by_number),
    blocking("eth_getBlockTransactionCountByHash", 1, "hash", "count or null", blocks::transaction_count_by_hash),
    blocking("eth_getTransactionByHash", 1, "hash", "transaction, waiting or in a block, or null", blocks::transaction_by_hash),
    blocking("eth_getRawTransactionByHash", 1, "hash", "EIP-2718 bytes or null", blocks::raw_transaction_by_hash),
    blocking("eth_getTransactionByBlockNumberAndIndex", 2, "block, index", "transaction or null", blocks::transaction_by_number),
    blocking("eth_getTransactionByBlockHashAndIndex", 2, "hash, index", "transaction or null", blocks::transaction_by_block_hash),
    blocking("eth_getTransactionReceipt", 1, "hash", "receipt, once its block is durable, or null", blocks::receipt),
    blocking("eth_getUncleCountByBlockNumber", 1, "block", "count or null", blocks::uncle_count_by_number),
    blocking("eth_getUncleCountByBlockHash", 1, "hash", "count or null", blocks::uncle_count_by_hash),
    blocking("eth_getUncleByBlockNumberAndIndex", 2, "block, index", "uncle or null", blocks::uncle_by_number),
    blocking("eth_getUncleByBlockHashAndIndex", 2, "hash, index", "uncle or null", blocks::uncle_by_hash),
    blocking("eth_getLogs", 1, "filter", "logs, up to `--rpc-max-logs`", logs::logs),
    blocking("eth_getProof", 3, "address, storage keys, block?", "account with proofs of it and of slots (EIP-1186)", history::proof),
    blocking("zvm_getTransactionsBySender", 3, "address, cursor?, count?", "transactions it signed, in the order of the chain, and the cursor of the next", history::by_sender),
    blocking("zvm_getTransactionsByRecipient", 3, "address, cursor?, count?", "transactions that called or created it, likewise", history::by_recipient),
    blocking("zvm_getContractInfo", 2, "address, block?", "format, code hash, size, deployment and ABI of a contract, or null", history::contract_info),
    now("net_version", 0, "", "chain id in decimal", other::net_version),
    now("net_listening", 0, "", "true", other::net_listening),
    now("net_peerCount", 0, "", "0", other::net_peer_count),
    now("web3_clientVersion", 0, "", "name and version", other::client_version),
    now("web3_sha3", 1, "data", "Keccak-256", other::sha3),
    now("rpc_modules", 0, "", "namespaces", other::modules),
    blocking("txpool_status", 0, "", "counts of ready (`pending`) and held (`queued`) transactions", other::txpool_status),
    blocking("txpool_content", 0, "", "all that wait, by sender and nonce", other::txpool_content),
    blocking("txpool_contentFrom", 1, "address", "those of one sender, by nonce", other::txpool_content_from),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The table as Markdown.
    fn markdown() -> String {
        let mut text = String::from("| method | arguments | answers |\n|---|---|---|\n");
        for method in METHODS {
            let params = if method.params.is_empty() {
                "–"
            } else {
                method.params
            };
            text += &format!("| `{}` | {params} | {} |\n", method.name, method.answers);
        }
        text
    }

    #[test]
    fn the_documentation_lists_every_method() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rpc.md");
        let documented = std::fs::read_to_string(path).unwrap();
        assert!(
            documented.contains(&markdown()),
            "docs/rpc.md must contain this table:\n{}",
            markdown()
        );
    }
}
