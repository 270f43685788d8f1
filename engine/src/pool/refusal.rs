//! Why the pool refuses.

use alloy_primitives::U256;

use crate::transaction::{self, TxError};

/// Why the pool does not take a transaction. The texts begin as those of geth, which clients look for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is there already.
    #[error("already known")]
    Known,
    /// The sender's nonce is past it.
    #[error("nonce too low: next nonce {next}, tx nonce {found}")]
    NonceTooLow {
        /// Nonce of the sender's account.
        next: u64,
        /// Nonce of the transaction.
        found: u64,
    },
    /// Another transaction has the nonce and this one does not pay enough more.
    #[error(
        "replacement transaction underpriced: fee cap and priority fee must grow by {percent} %"
    )]
    ReplacementUnderpriced {
        /// The least growth in percent.
        percent: u128,
    },
    /// The sender cannot pay for it and for those before it in the pool.
    #[error(
        "insufficient funds for gas * price + value: balance {balance}, queued cost {queued}, tx cost {cost}"
    )]
    InsufficientFunds {
        /// Balance of the sender in wei.
        balance: U256,
        /// The most the sender's other waiting transactions can cost, in wei.
        queued: U256,
        /// The most this one can cost, in wei.
        cost: U256,
    },
    /// It could never fit a block.
    #[error("exceeds block gas limit: {gas_limit} above {block}")]
    BlockGasLimit {
        /// Gas limit of the transaction.
        gas_limit: u64,
        /// Gas limit of blocks.
        block: u64,
    },
    /// The gas limit does not pay for the transaction's own bytes (EIP-2, EIP-7623).
    #[error("intrinsic gas too low: have {gas_limit}, want {required}")]
    IntrinsicGas {
        /// Gas limit of the transaction.
        gas_limit: u64,
        /// Gas it needs before its first instruction.
        required: u64,
    },
    /// It offers less than the node takes.
    #[error("transaction underpriced: priority fee {found}, minimum {minimum}")]
    Underpriced {
        /// Wei per gas.
        found: u128,
        /// Wei per gas.
        minimum: u128,
    },
    /// No block is to come that it would pay.
    #[error("max fee per gas less than block base fee: maxFeePerGas: {cap}, baseFee: {base_fee}")]
    FeeCapTooLow {
        /// Wei per gas.
        cap: u128,
        /// Wei per gas of the next block.
        base_fee: u64,
    },
    /// No block is to come whose blob gas it would pay.
    #[error(
        "max fee per blob gas less than block blob gas fee: maxFeePerBlobGas: {cap}, blobBaseFee: {price}"
    )]
    BlobFeeCapTooLow {
        /// Wei per blob gas.
        cap: u128,
        /// Wei per blob gas of the next block.
        price: u128,
    },
    /// More blobs than a block (EIP-4844) or a transaction (EIP-7594) may have.
    #[error("too many blobs in transaction: have {found}, permitted {permitted}")]
    TooManyBlobs {
        /// Blobs of the transaction.
        found: u64,
        /// Blobs allowed.
        permitted: u64,
    },
    /// More bytes than a transaction may have.
    #[error("oversized data: transaction size {size}, limit {limit}")]
    Oversized {
        /// Bytes of the transaction.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The sender has as many waiting as one may have.
    #[error(
        "txpool is full: {transactions} transactions of this sender, {bytes} bytes, wait already"
    )]
    SenderFull {
        /// Transactions of the sender that wait.
        transactions: usize,
        /// Their bytes.
        bytes: usize,
    },
    /// The pool has no room, and what is in it is worth more.
    #[error("txpool is full: {transactions} transactions, {bytes} bytes")]
    Full {
        /// Transactions held.
        transactions: usize,
        /// Bytes held.
        bytes: usize,
    },
    /// It can never be valid.
    #[error("{0}")]
    Invalid(TxError),
}

impl From<TxError> for Refusal {
    fn from(error: TxError) -> Self {
        match error {
            TxError::IntrinsicGas {
                gas_limit,
                required,
            } => Self::IntrinsicGas {
                gas_limit,
                required,
            },
            TxError::TooManyBlobs { blobs } => Self::TooManyBlobs {
                found: blobs as u64,
                permitted: transaction::MAX_TX_BLOBS as u64,
            },
            other => Self::Invalid(other),
        }
    }
}
