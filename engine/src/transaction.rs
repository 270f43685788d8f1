//! Transactions as bytes, who signed them, and the rules a transaction must meet whatever the state is.

use alloy_consensus::transaction::{Recovered, Transaction as _};
use alloy_consensus::{EthereumTxEnvelope, TxEip4844, TxType, Typed2718 as _};
use alloy_eips::eip2718::{Decodable2718 as _, Eip2718Error};
use alloy_eips::eip7702::{RecoveredAuthority, RecoveredAuthorization, SignedAuthorization};
use alloy_primitives::{Address, B256, B512, Bytes, Signature, U256};
use zvm_runtimes::evm::Fork;
use zvm_runtimes::revm::context::TxEnv;
use zvm_runtimes::revm::context::either::Either;
use zvm_runtimes::revm::interpreter::gas::calculate_initial_tx_gas;
use zvm_runtimes::revm::precompile::secp256k1::ecrecover;

/// A transaction as it stands in a block: blob transactions without their sidecar.
pub type Tx = EthereumTxEnvelope<TxEip4844>;

/// Half the order of secp256k1: the largest `s` of a signature that cannot be mirrored (EIP-2).
const SECP256K1_HALF_ORDER: U256 = U256::from_limbs([
    0xdfe9_2f46_681b_20a0,
    0x5d57_6e73_57a4_501d,
    0xffff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
]);

/// Gas limit of one transaction from Osaka on (EIP-7825).
pub const MAX_TX_GAS: u64 = 1 << 24;
/// Blobs of one transaction from Osaka on (EIP-7594).
pub const MAX_TX_BLOBS: usize = 6;
/// Bytes of initcode from Shanghai on (EIP-3860).
pub const MAX_INITCODE_SIZE: usize = 49_152;

/// Why bytes are no transaction, or a transaction can never be valid under the rules of a fork.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TxError {
    /// The bytes are not the EIP-2718 encoding of a transaction.
    #[error("malformed transaction: {0}")]
    Encoding(String),
    /// The type is not known before a later fork.
    #[error("transaction type {ty} is not valid before {from}")]
    TypeNotActive {
        /// EIP-2718 type.
        ty: u8,
        /// The fork that introduces it.
        from: Fork,
    },
    /// Signed for another chain (EIP-155), or with an EIP-155 signature before that rule existed.
    #[error("transaction is for chain {found}, this is chain {expected}")]
    ChainId {
        /// Chain id in the transaction.
        found: u64,
        /// Chain id of this chain.
        expected: u64,
    },
    /// `s` is above half the order (EIP-2).
    #[error("signature malleable: s is above half the order of secp256k1")]
    HighS,
    /// No public key fits the signature.
    #[error("signature does not recover to an address")]
    Unrecoverable,
    /// EIP-2681.
    #[error("nonce is 2^64-1")]
    NonceOverflow,
    /// EIP-7825.
    #[error("gas limit {gas_limit} is above the cap of {MAX_TX_GAS}")]
    GasLimitAboveCap {
        /// The transaction's gas limit.
        gas_limit: u64,
    },
    /// The gas limit does not cover the intrinsic gas or the calldata floor (EIP-7623).
    #[error("gas limit {gas_limit} is below the intrinsic gas {required}")]
    IntrinsicGas {
        /// The transaction's gas limit.
        gas_limit: u64,
        /// Gas the transaction needs before its first instruction.
        required: u64,
    },
    /// EIP-3860.
    #[error("initcode of {size} bytes is longer than {MAX_INITCODE_SIZE}")]
    InitcodeSize {
        /// Bytes of initcode.
        size: usize,
    },
    /// EIP-1559.
    #[error("priority fee {priority} is above the fee cap {cap}")]
    PriorityAboveCap {
        /// Wei per gas.
        priority: u128,
        /// Wei per gas.
        cap: u128,
    },
    /// The most the transaction can cost does not fit 256 bits.
    #[error("gas limit times fee cap plus value overflows 256 bits")]
    CostOverflow,
    /// EIP-4844: a blob transaction without blobs.
    #[error("blob transaction without blobs")]
    NoBlobs,
    /// EIP-7594: more blobs than one transaction may carry.
    #[error("blob transaction with {blobs} blobs, above the cap of {MAX_TX_BLOBS}")]
    TooManyBlobs {
        /// Blobs of the transaction.
        blobs: usize,
    },
    /// EIP-4844: a versioned hash of an unknown version.
    #[error("blob versioned hash {0} does not start with 0x01")]
    BlobVersion(B256),
    /// EIP-7702.
    #[error("empty authorization list")]
    EmptyAuthorizationList,
}

impl From<Eip2718Error> for TxError {
    fn from(error: Eip2718Error) -> Self {
        Self::Encoding(error.to_string())
    }
}

/// Decodes the EIP-2718 bytes of exactly one transaction.
pub fn decode(bytes: &[u8]) -> Result<Tx, TxError> {
    Tx::decode_2718_exact(bytes).map_err(TxError::from)
}

/// The account that signed `tx`, by libsecp256k1.
///
/// Signatures with a high `s` recover too: whether they are valid depends on the fork (see [`validate`]).
pub fn recover(tx: &Tx) -> Result<Address, TxError> {
    recover_signer(tx.signature(), tx.signature_hash()).ok_or(TxError::Unrecoverable)
}

fn recover_signer(signature: &Signature, hash: B256) -> Option<Address> {
    let mut rs = [0u8; 64];
    rs[..32].copy_from_slice(&signature.r().to_be_bytes::<32>());
    rs[32..].copy_from_slice(&signature.s().to_be_bytes::<32>());
    let padded = ecrecover(&B512::from(rs), u8::from(signature.v()), &hash).ok()?;
    Some(Address::from_word(padded))
}

/// Recovers the sender and keeps it beside the transaction.
pub fn into_recovered(tx: Tx) -> Result<Recovered<Tx>, TxError> {
    let sender = recover(&tx)?;
    Ok(Recovered::new_unchecked(tx, sender))
}

/// Gas a transaction needs before its first instruction: the larger of intrinsic gas and calldata floor.
pub fn intrinsic_gas(tx: &Tx, fork: Fork) -> u64 {
    let (addresses, slots) = tx.access_list().map_or((0, 0), |list| {
        (
            list.0.len() as u64,
            list.0
                .iter()
                .map(|item| item.storage_keys.len() as u64)
                .sum::<u64>(),
        )
    });
    let gas = calculate_initial_tx_gas(
        fork.spec_id(),
        tx.input(),
        tx.is_create(),
        addresses,
        slots,
        tx.authorization_list().map_or(0, |list| list.len() as u64),
        None,
    );
    gas.initial_total_gas().max(gas.floor_gas())
}

/// Checks what is signed: the chain (EIP-155) and that the signature cannot be mirrored (EIP-2). The machine checks the
/// other rules of [`validate`] itself when it executes a transaction.
pub fn validate_signature(tx: &Tx, fork: Fork, chain_id: u64) -> Result<(), TxError> {
    if let Some(found) = tx.chain_id()
        && (found != chain_id || fork < Fork::SpuriousDragon)
    {
        return Err(TxError::ChainId {
            found,
            expected: chain_id,
        });
    }
    if fork >= Fork::Homestead && tx.signature().s() > SECP256K1_HALF_ORDER {
        return Err(TxError::HighS);
    }
    Ok(())
}

/// Checks the rules that do not depend on the state or the block beyond its fork.
///
/// Left to the caller is whether the cost fits 256 bits ([`max_cost`], [`TxError::CostOverflow`]): a sender who cannot
/// pay that much is refused anyway.
pub fn validate(tx: &Tx, fork: Fork, chain_id: u64) -> Result<(), TxError> {
    let from = match tx.tx_type() {
        TxType::Legacy => Fork::Frontier,
        TxType::Eip2930 => Fork::Berlin,
        TxType::Eip1559 => Fork::London,
        TxType::Eip4844 => Fork::Cancun,
        TxType::Eip7702 => Fork::Prague,
    };
    if fork < from {
        return Err(TxError::TypeNotActive { ty: tx.ty(), from });
    }
    validate_signature(tx, fork, chain_id)?;
    if tx.nonce() == u64::MAX {
        return Err(TxError::NonceOverflow);
    }
    let gas_limit = tx.gas_limit();
    if fork >= Fork::Osaka && gas_limit > MAX_TX_GAS {
        return Err(TxError::GasLimitAboveCap { gas_limit });
    }
    if fork >= Fork::Shanghai && tx.is_create() && tx.input().len() > MAX_INITCODE_SIZE {
        return Err(TxError::InitcodeSize {
            size: tx.input().len(),
        });
    }
    let required = intrinsic_gas(tx, fork);
    if gas_limit < required {
        return Err(TxError::IntrinsicGas {
            gas_limit,
            required,
        });
    }
    let cap = tx.max_fee_per_gas();
    if let Some(priority) = tx.max_priority_fee_per_gas()
        && priority > cap
    {
        return Err(TxError::PriorityAboveCap { priority, cap });
    }
    if let Some(hashes) = tx.blob_versioned_hashes() {
        if hashes.is_empty() {
            return Err(TxError::NoBlobs);
        }
        if fork >= Fork::Osaka && hashes.len() > MAX_TX_BLOBS {
            return Err(TxError::TooManyBlobs {
                blobs: hashes.len(),
            });
        }
        if let Some(hash) = hashes.iter().find(|hash| hash[0] != 1) {
            return Err(TxError::BlobVersion(*hash));
        }
    }
    if tx.authorization_list().is_some_and(<[_]>::is_empty) {
        return Err(TxError::EmptyAuthorizationList);
    }
    Ok(())
}

/// The most a transaction can take from its sender, in wei; `None` where that does not fit 256 bits.
pub fn max_cost(tx: &Tx) -> Option<U256> {
    let gas = U256::from(tx.gas_limit()) * U256::from(tx.max_fee_per_gas());
    let blobs = U256::from(tx.blob_gas_used().unwrap_or_default())
        * U256::from(tx.max_fee_per_blob_gas().unwrap_or_default());
    gas.checked_add(blobs)?.checked_add(tx.value())
}

/// The transaction as the machine takes it.
pub fn tx_env(tx: &Tx, sender: Address) -> TxEnv {
    TxEnv {
        tx_type: tx.ty(),
        caller: sender,
        gas_limit: tx.gas_limit(),
        gas_price: tx.max_fee_per_gas(),
        kind: tx.kind(),
        value: tx.value(),
        data: tx.input().clone(),
        nonce: tx.nonce(),
        chain_id: tx.chain_id(),
        access_list: tx.access_list().cloned().unwrap_or_default(),
        gas_priority_fee: tx.max_priority_fee_per_gas(),
        blob_hashes: tx
            .blob_versioned_hashes()
            .map(<[_]>::to_vec)
            .unwrap_or_default(),
        max_fee_per_blob_gas: tx.max_fee_per_blob_gas().unwrap_or_default(),
        authorization_list: tx
            .authorization_list()
            .unwrap_or_default()
            .iter()
            .map(|signed| Either::Right(recover_authorization(signed)))
            .collect(),
    }
}

/// Recovers who signed an authorization (EIP-7702). One whose signature is invalid is kept: it costs gas and does
/// nothing.
pub fn recover_authorization(signed: &SignedAuthorization) -> RecoveredAuthorization {
    let authority = signed
        .signature()
        .ok()
        .filter(|signature| signature.s() <= SECP256K1_HALF_ORDER)
        .and_then(|signature| recover_signer(&signature, signed.signature_hash()))
        .map_or(RecoveredAuthority::Invalid, RecoveredAuthority::Valid);
    RecoveredAuthorization::new_unchecked(signed.inner().clone(), authority)
}

/// The EIP-2718 bytes of a transaction.
pub fn encode(tx: &Tx) -> Bytes {
    use alloy_eips::eip2718::Encodable2718 as _;
    tx.encoded_2718().into()
}

#[cfg(test)]
mod tests {
    use alloy_consensus::SignableTransaction as _;

    use super::*;

    fn blob_tx(blobs: usize) -> Tx {
        let tx = TxEip4844 {
            chain_id: 1,
            gas_limit: 21_000,
            blob_versioned_hashes: vec![B256::repeat_byte(1); blobs],
            ..TxEip4844::default()
        };
        let signature = Signature::new(U256::ONE, U256::ONE, false);
        tx.into_signed(signature).into()
    }

    #[test]
    fn from_osaka_on_a_transaction_carries_at_most_six_blobs() {
        assert_eq!(validate(&blob_tx(6), Fork::Osaka, 1), Ok(()));
        assert_eq!(
            validate(&blob_tx(7), Fork::Osaka, 1),
            Err(TxError::TooManyBlobs { blobs: 7 })
        );
        assert_eq!(validate(&blob_tx(7), Fork::Prague, 1), Ok(()));
    }
}
