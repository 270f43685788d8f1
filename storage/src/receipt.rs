//! Receipts as the store keeps them.

use alloy_primitives::{Address, B256, Log};
use alloy_rlp::{RlpDecodable, RlpEncodable};

/// What a receipt says that the block and its transactions do not: gas used is the difference of two cumulative
/// values, the gas price follows from header and transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq, RlpEncodable, RlpDecodable)]
#[rlp(trailing)]
pub struct StoredReceipt {
    /// Type of the transaction (EIP-2718), 0 for a legacy one.
    pub tx_type: u8,
    /// Whether the transaction succeeded (EIP-658). Before Byzantium it is what the execution said.
    pub success: bool,
    /// Gas used in the block up to and with this transaction.
    pub cumulative_gas_used: u64,
    /// Logs in the order they were emitted.
    pub logs: Vec<Log>,
    /// Address of the contract the transaction created.
    pub contract_address: Option<Address>,
    /// State root after the transaction, only before Byzantium.
    pub post_state: Option<B256>,
    /// Blob gas used (EIP-4844), only for blob transactions.
    pub blob_gas_used: Option<u64>,
    /// Price of one blob gas in wei (EIP-4844), only for blob transactions.
    pub blob_gas_price: Option<u128>,
}
