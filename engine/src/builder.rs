//! What a new block is made of.

use alloy_consensus::Header;
use alloy_consensus::transaction::Recovered;
use alloy_eips::eip7685::EMPTY_REQUESTS_HASH;
use alloy_primitives::{Address, B256, Bytes};
use zvm_runtimes::evm::Fork;
use zvm_runtimes::revm::context::result::InvalidTransaction;

use crate::chain_spec::ChainSpec;
use crate::executor::ExecutionError;
use crate::header::{
    GAS_LIMIT_BOUND_DIVISOR, MAX_GAS_LIMIT, MIN_GAS_LIMIT, next_base_fee, next_difficulty,
    next_excess_blob_gas,
};
use crate::transaction::Tx;

/// What the producer decides about a block.
#[derive(Debug, Clone, Default)]
pub struct BlockTemplate {
    /// Seconds. Moved to one after the parent's if it is not later.
    pub timestamp: u64,
    /// Who gets the fees.
    pub beneficiary: Address,
    /// The gas limit to move towards, as far as one block may.
    pub gas_limit: u64,
    /// `PREVRANDAO`.
    pub prev_randao: B256,
    /// At most 32 bytes.
    pub extra_data: Bytes,
    /// Root of the parent beacon block (EIP-4788).
    pub parent_beacon_block_root: B256,
    /// Makes no block of no transactions: [`ChainError::NothingIncluded`](crate::chain::ChainError::NothingIncluded).
    pub not_empty: bool,
}

impl BlockTemplate {
    /// The header of a block that follows `parent`, but for the parent's hash and what execution gives.
    pub(crate) fn header(
        &self,
        spec: &ChainSpec,
        fork: Fork,
        parent: &Header,
        timestamp: u64,
    ) -> Header {
        let cancun = fork >= Fork::Cancun;
        // EIP-1559 doubles the gas limit at its first block.
        let first_london = fork >= Fork::London && parent.base_fee_per_gas.is_none();
        let parent_limit = parent
            .gas_limit
            .saturating_mul(if first_london { 2 } else { 1 });
        Header {
            number: parent.number.saturating_add(1),
            difficulty: next_difficulty(fork, parent, timestamp),
            timestamp,
            beneficiary: self.beneficiary,
            gas_limit: next_gas_limit(parent_limit, self.gas_limit),
            mix_hash: self.prev_randao,
            extra_data: self.extra_data.clone(),
            base_fee_per_gas: next_base_fee(fork, parent),
            withdrawals_root: (fork >= Fork::Shanghai).then_some(alloy_trie::EMPTY_ROOT_HASH),
            blob_gas_used: cancun.then_some(0),
            excess_blob_gas: next_excess_blob_gas(spec, fork, parent),
            parent_beacon_block_root: cancun.then_some(self.parent_beacon_block_root),
            requests_hash: (fork >= Fork::Prague).then_some(EMPTY_REQUESTS_HASH),
            ..Header::default()
        }
    }
}

/// The gas limit nearest to `target` that may follow `parent`.
fn next_gas_limit(parent: u64, target: u64) -> u64 {
    let step = (parent / GAS_LIMIT_BOUND_DIVISOR).saturating_sub(1);
    target
        .clamp(MIN_GAS_LIMIT, MAX_GAS_LIMIT)
        .clamp(parent.saturating_sub(step), parent.saturating_add(step))
}

/// Why a transaction was left out of a block.
#[derive(Debug, thiserror::Error)]
pub enum Skipped {
    /// It fits another block: the nonce is ahead, or the block is too full for it.
    #[error("not now: {0}")]
    NotNow(ExecutionError),
    /// It can never be included any more.
    #[error("never: {0}")]
    Never(ExecutionError),
}

impl From<ExecutionError> for Skipped {
    fn from(error: ExecutionError) -> Self {
        let waits = match &error {
            // What does not fit while the block is still empty fits no block.
            ExecutionError::BlockGasExceeded { index, .. }
            | ExecutionError::BlobGasExceeded { index, .. } => *index > 0,
            ExecutionError::Invalid { source, .. } => matches!(
                source,
                InvalidTransaction::NonceTooHigh { .. }
                    | InvalidTransaction::GasPriceLessThanBasefee
                    | InvalidTransaction::BlobGasPriceGreaterThanMax { .. }
                    | InvalidTransaction::LackOfFundForMaxFee { .. }
            ),
            _ => false,
        };
        if waits {
            Self::NotNow(error)
        } else {
            Self::Never(error)
        }
    }
}

/// Offers transactions to a block being built, best first.
pub trait TransactionSource {
    /// The next transaction, given the gas the block has left; `None` ends the block.
    fn next(&mut self, gas_available: u64) -> Option<Recovered<Tx>>;
    /// A transaction just offered was left out.
    fn skipped(&mut self, tx: Recovered<Tx>, why: Skipped);
}

#[cfg(test)]
mod tests {
    use super::next_gas_limit;

    #[test]
    fn the_gas_limit_moves_by_less_than_a_1024th() {
        assert_eq!(next_gas_limit(30_000_000, 30_000_000), 30_000_000);
        assert_eq!(next_gas_limit(5_000, 0), 5_000);
        assert_eq!(
            next_gas_limit(30_000_000, 60_000_000),
            30_000_000 + 30_000_000 / 1024 - 1
        );
        assert_eq!(
            next_gas_limit(30_000_000, 5_000),
            30_000_000 - 30_000_000 / 1024 + 1
        );
    }
}
