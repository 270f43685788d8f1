//! Errors as JSON-RPC tells them.

use alloy_primitives::{B256, Bytes, U64};
use jsonrpsee::types::ErrorObjectOwned;
use zvm_engine::node::SubmitError;
use zvm_engine::simulate::SimulateError;
use zvm_storage::StoreError;

use crate::accounts::AccountError;

/// Why a request is not answered with a result. Each has one code.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// −32602: the arguments are wrong.
    #[error("{0}")]
    InvalidParams(String),
    /// −32000: the request cannot be served.
    #[error("{0}")]
    Refused(String),
    /// −32005: the answer would be larger than the node allows.
    #[error("{0}")]
    TooLarge(String),
    /// 3: the call reverted with this output.
    #[error("{message}")]
    Reverted {
        /// "execution reverted", with the reason if there is one.
        message: String,
        /// What the call returned.
        output: Bytes,
    },
    /// 4 (EIP-7966): the transaction is in the pool, and no block had it in time.
    #[error("the transaction was added to the pool but was not in a block within {millis} ms")]
    NotInTime {
        /// Its hash.
        hash: B256,
        /// How long it was waited for.
        millis: u64,
    },
    /// 6 (EIP-7966): the transaction is held in the pool behind a gap of its sender's nonces.
    #[error("the transaction is held behind a nonce gap: expected nonce {expected}")]
    NonceGap {
        /// Its hash.
        hash: B256,
        /// The nonce that would close the gap, or begin to.
        expected: u64,
    },
    /// −32603: the node failed.
    #[error("internal error: {0}")]
    Internal(String),
}

impl RpcError {
    /// The code (EIP-1474; 3 as geth).
    pub fn code(&self) -> i32 {
        match self {
            Self::InvalidParams(_) => -32602,
            Self::Refused(_) => -32000,
            Self::TooLarge(_) => -32005,
            Self::Reverted { .. } => 3,
            Self::NotInTime { .. } => 4,
            Self::NonceGap { .. } => 6,
            Self::Internal(_) => -32603,
        }
    }
}

impl From<RpcError> for ErrorObjectOwned {
    fn from(error: RpcError) -> Self {
        let data = match &error {
            RpcError::Reverted { output, .. } => Some(output.clone()),
            RpcError::NotInTime { hash, .. } => Some((*hash).into()),
            RpcError::NonceGap { expected, .. } => {
                let data = Some(U64::from(*expected));
                return Self::owned(error.code(), error.to_string(), data);
            }
            _ => None,
        };
        Self::owned(error.code(), error.to_string(), data)
    }
}

impl From<StoreError> for RpcError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotRetained { .. } | StoreError::ProofTooFar { .. } => {
                Self::Refused(error.to_string())
            }
            error => Self::Internal(error.to_string()),
        }
    }
}

impl From<serde_json::Error> for RpcError {
    fn from(error: serde_json::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<SimulateError> for RpcError {
    fn from(error: SimulateError) -> Self {
        let message = error.to_string();
        match error {
            SimulateError::Request(_) => Self::InvalidParams(message),
            SimulateError::Reverted { output } => Self::Reverted { message, output },
            SimulateError::Invalid(_)
            | SimulateError::Halted(_)
            | SimulateError::GasRequired(_) => Self::Refused(message),
            SimulateError::Machine(_) | SimulateError::Store(_) => Self::Internal(message),
        }
    }
}

impl From<SubmitError> for RpcError {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Store(_) => Self::Internal(error.to_string()),
            SubmitError::Malformed(_)
            | SubmitError::BlobSidecar
            | SubmitError::Refused(_)
            | SubmitError::Stopped(_) => Self::Refused(error.to_string()),
        }
    }
}

impl From<AccountError> for RpcError {
    fn from(error: AccountError) -> Self {
        Self::Refused(error.to_string())
    }
}
