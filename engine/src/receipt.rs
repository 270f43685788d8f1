//! Receipts as consensus sees them: bloom, EIP-2718 bytes, root.

use alloy_consensus::proofs::calculate_receipt_root;
use alloy_consensus::{Eip658Value, Receipt, ReceiptEnvelope, ReceiptWithBloom, TxType};
use alloy_primitives::{B256, Bloom};
use zvm_storage::StoredReceipt;

/// Bloom of all logs of a block.
pub fn logs_bloom(receipts: &[StoredReceipt]) -> Bloom {
    let mut bloom = Bloom::ZERO;
    for log in receipts.iter().flat_map(|receipt| &receipt.logs) {
        bloom.accrue_log(log);
    }
    bloom
}

/// The receipt with its bloom, as it is hashed and sent.
///
/// Before Byzantium `post_state` stands where later the status is (EIP-658).
pub fn envelope(receipt: &StoredReceipt) -> ReceiptEnvelope {
    let status = match receipt.post_state {
        Some(root) => Eip658Value::PostState(root),
        None => Eip658Value::Eip658(receipt.success),
    };
    let inner = Receipt {
        status,
        cumulative_gas_used: receipt.cumulative_gas_used,
        logs: receipt.logs.clone(),
    };
    let tx_type = TxType::try_from(receipt.tx_type).unwrap_or(TxType::Legacy);
    ReceiptEnvelope::from_typed(tx_type, ReceiptWithBloom::from(inner))
}

/// Root of the ordered trie of the EIP-2718 receipts.
pub fn receipts_root(receipts: &[StoredReceipt]) -> B256 {
    let envelopes: Vec<_> = receipts.iter().map(envelope).collect();
    calculate_receipt_root(&envelopes)
}
