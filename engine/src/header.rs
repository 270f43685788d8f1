//! Header rules: what a header must say given its parent, and what it must say given its body.

use alloy_consensus::constants::{EMPTY_OMMER_ROOT_HASH, MAXIMUM_EXTRA_DATA_SIZE};
use alloy_consensus::proofs::{
    calculate_ommers_root, calculate_transaction_root, calculate_withdrawals_root,
};
use alloy_consensus::{BlockBody, Header, Transaction as _};
use alloy_eips::eip1559::{BaseFeeParams, INITIAL_BASE_FEE, calc_next_block_base_fee};
use alloy_eips::eip4844::DATA_GAS_PER_BLOB;
use alloy_eips::eip7840::BlobParams as ScheduleEntry;
use alloy_primitives::{B64, B256, U256};
use alloy_rlp::Encodable as _;
use zvm_runtimes::evm::{BlobParams, Fork};
use zvm_runtimes::revm::context::BlockEnv;
use zvm_runtimes::revm::context_interface::block::BlobExcessGasAndPrice;

use crate::chain_spec::ChainSpec;
use crate::dao;
use crate::difficulty::{ParentDifficulty, difficulty};
use crate::ommers::OmmerError;
use crate::transaction::Tx;

/// Smallest gas limit of a block (Yellow Paper 4.3.4).
pub const MIN_GAS_LIMIT: u64 = 5000;
/// Largest gas limit of a block (EIP-1985).
pub const MAX_GAS_LIMIT: u64 = i64::MAX as u64;
/// A gas limit moves by less than this fraction of its parent's.
pub const GAS_LIMIT_BOUND_DIVISOR: u64 = 1024;
/// Bytes of an RLP-encoded block from Osaka on (EIP-7934: 10 MiB less 2 MiB for the beacon block around it).
pub const MAX_BLOCK_SIZE: usize = 8 << 20;
/// `BLOB_BASE_COST` of EIP-7918.
const BLOB_BASE_COST: u64 = 1 << 13;

/// A header breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The parent hash names another block.
    #[error("unknown parent {0}")]
    UnknownParent(B256),
    /// Not the parent's number plus one.
    #[error("block number {found}, expected {expected}")]
    Number {
        /// In the header.
        found: u64,
        /// By the rule.
        expected: u64,
    },
    /// Not later than the parent.
    #[error("timestamp {found} is not after the parent's {parent}")]
    Timestamp {
        /// In the header.
        found: u64,
        /// Of the parent.
        parent: u64,
    },
    /// Out of bounds or too far from the parent's.
    #[error("gas limit {found} is not allowed after {parent}")]
    GasLimit {
        /// In the header.
        found: u64,
        /// Of the parent, doubled at the London block.
        parent: u64,
    },
    /// More gas used than allowed.
    #[error("gas used {used} is above the gas limit {limit}")]
    GasUsedAboveLimit {
        /// In the header.
        used: u64,
        /// In the header.
        limit: u64,
    },
    /// More than 32 bytes.
    #[error("extra data of {0} bytes is too long")]
    ExtraDataTooLong(usize),
    /// The blocks around the DAO fork must say so (EIP-779).
    #[error("extra data does not mark the DAO fork")]
    DaoExtraData,
    /// Not what EIP-1559 gives.
    #[error("base fee {found:?}, expected {expected:?}")]
    BaseFee {
        /// In the header.
        found: Option<u64>,
        /// By the rule.
        expected: Option<u64>,
    },
    /// Not what the difficulty rule gives.
    #[error("difficulty {found}, expected {expected}")]
    Difficulty {
        /// In the header.
        found: U256,
        /// By the rule; zero from the Merge on.
        expected: U256,
    },
    /// EIP-3675: a nonce in a proof-of-stake block.
    #[error("nonce {0} after the Merge")]
    Nonce(B64),
    /// EIP-3675: uncles in a proof-of-stake block.
    #[error("uncles after the Merge")]
    OmmersAfterMerge,
    /// Not what EIP-4844 and EIP-7918 give.
    #[error("excess blob gas {found:?}, expected {expected:?}")]
    ExcessBlobGas {
        /// In the header.
        found: Option<u64>,
        /// By the rule.
        expected: Option<u64>,
    },
    /// More blob gas than the schedule allows.
    #[error("blob gas used {used} is above {limit}")]
    BlobGasAboveLimit {
        /// In the header.
        used: u64,
        /// Of the schedule.
        limit: u64,
    },
    /// A field is there before its fork, or missing after it.
    #[error("field {field} must {} in {fork}", if *.required { "be present" } else { "be absent" })]
    Field {
        /// Header field, by its JSON name.
        field: &'static str,
        /// Whether the fork requires it.
        required: bool,
        /// The fork of the block.
        fork: Fork,
    },
    /// The header's commitment to a part of the body is another.
    #[error("{field} {found}, the body gives {computed}")]
    Commitment {
        /// Header field, by its JSON name.
        field: &'static str,
        /// In the header.
        found: B256,
        /// From the body.
        computed: B256,
    },
    /// EIP-7934.
    #[error("block of {0} bytes is larger than {MAX_BLOCK_SIZE}")]
    BlockTooLarge(usize),
    /// An uncle does not belong here.
    #[error(transparent)]
    Ommer(#[from] OmmerError),
    /// More than two uncles.
    #[error("{0} uncles, at most 2 are allowed")]
    TooManyOmmers(usize),
}

/// EIP-4844's schedule entry with what the fork adds to it.
fn schedule(fork: Fork, params: BlobParams) -> ScheduleEntry {
    let base = if fork >= Fork::Osaka {
        ScheduleEntry::osaka().with_blob_base_cost(BLOB_BASE_COST)
    } else {
        ScheduleEntry::cancun()
    };
    ScheduleEntry {
        target_blob_count: params.target,
        max_blob_count: params.max,
        update_fraction: u128::from(params.update_fraction),
        ..base
    }
}

/// Base fee of the child of `parent` under `fork`; `None` before London (EIP-1559).
pub fn next_base_fee(fork: Fork, parent: &Header) -> Option<u64> {
    if fork < Fork::London {
        return None;
    }
    Some(match parent.base_fee_per_gas {
        None => INITIAL_BASE_FEE,
        Some(base_fee) => calc_next_block_base_fee(
            parent.gas_used,
            parent.gas_limit,
            base_fee,
            BaseFeeParams::ethereum(),
        ),
    })
}

/// Excess blob gas of the child of `parent` under `fork` (EIP-4844, EIP-7918); `None` before Cancun.
pub fn next_excess_blob_gas(spec: &ChainSpec, fork: Fork, parent: &Header) -> Option<u64> {
    let params = schedule(fork, spec.blob_params(fork)?);
    // The parent of the first Cancun block has no blob fields: they count as zero.
    Some(params.next_block_excess_blob_gas_osaka(
        parent.excess_blob_gas.unwrap_or_default(),
        parent.blob_gas_used.unwrap_or_default(),
        parent.base_fee_per_gas.unwrap_or_default(),
    ))
}

/// Price of a unit of blob gas in a block with this excess, in wei; `None` before Cancun.
pub fn blob_gas_price(spec: &ChainSpec, fork: Fork, excess: u64) -> Option<u128> {
    Some(schedule(fork, spec.blob_params(fork)?).calc_blob_fee(excess))
}

/// Difficulty of the child of `parent` at `timestamp` under `fork`; zero from the Merge on (EIP-3675).
pub fn next_difficulty(fork: Fork, parent: &Header, timestamp: u64) -> U256 {
    if fork >= Fork::Paris {
        return U256::ZERO;
    }
    let has_ommers = parent.ommers_hash != EMPTY_OMMER_ROOT_HASH;
    let parent_difficulty = ParentDifficulty {
        difficulty: parent.difficulty,
        timestamp: parent.timestamp,
        has_ommers,
    };
    difficulty(
        fork,
        parent.number.saturating_add(1),
        timestamp,
        parent_difficulty,
    )
}

/// Checks a header against its parent.
pub fn validate_header(
    spec: &ChainSpec,
    fork: Fork,
    header: &Header,
    parent: &Header,
    parent_hash: B256,
) -> Result<(), HeaderError> {
    if header.parent_hash != parent_hash {
        return Err(HeaderError::UnknownParent(header.parent_hash));
    }
    let expected = parent.number.saturating_add(1);
    if header.number != expected {
        return Err(HeaderError::Number {
            found: header.number,
            expected,
        });
    }
    if header.timestamp <= parent.timestamp {
        return Err(HeaderError::Timestamp {
            found: header.timestamp,
            parent: parent.timestamp,
        });
    }
    // EIP-1559 doubles the gas limit at the fork block, as the target stays.
    let first_london = fork >= Fork::London && parent.base_fee_per_gas.is_none();
    let parent_limit = if first_london {
        parent.gas_limit.saturating_mul(2)
    } else {
        parent.gas_limit
    };
    let moved = header.gas_limit.abs_diff(parent_limit);
    if !(MIN_GAS_LIMIT..=MAX_GAS_LIMIT).contains(&header.gas_limit)
        || moved >= parent_limit / GAS_LIMIT_BOUND_DIVISOR
    {
        return Err(HeaderError::GasLimit {
            found: header.gas_limit,
            parent: parent_limit,
        });
    }
    validate_fields(fork, header)?;
    if header.gas_used > header.gas_limit {
        return Err(HeaderError::GasUsedAboveLimit {
            used: header.gas_used,
            limit: header.gas_limit,
        });
    }
    if header.extra_data.len() > MAXIMUM_EXTRA_DATA_SIZE {
        return Err(HeaderError::ExtraDataTooLong(header.extra_data.len()));
    }
    if let Some(block) = spec.dao_block()
        && spec.dao_support
        && (block..block.saturating_add(dao::EXTRA_DATA_BLOCKS)).contains(&header.number)
        && *header.extra_data != *dao::EXTRA_DATA
    {
        return Err(HeaderError::DaoExtraData);
    }
    let expected = next_base_fee(fork, parent);
    if header.base_fee_per_gas != expected {
        return Err(HeaderError::BaseFee {
            found: header.base_fee_per_gas,
            expected,
        });
    }
    let expected = next_excess_blob_gas(spec, fork, parent);
    if header.excess_blob_gas != expected {
        return Err(HeaderError::ExcessBlobGas {
            found: header.excess_blob_gas,
            expected,
        });
    }
    if let (Some(used), Some(params)) = (header.blob_gas_used, spec.blob_params(fork)) {
        let limit = params.max * DATA_GAS_PER_BLOB;
        if used > limit {
            return Err(HeaderError::BlobGasAboveLimit { used, limit });
        }
    }
    let expected = next_difficulty(fork, parent, header.timestamp);
    if header.difficulty != expected {
        return Err(HeaderError::Difficulty {
            found: header.difficulty,
            expected,
        });
    }
    if fork >= Fork::Paris {
        if !header.nonce.is_zero() {
            return Err(HeaderError::Nonce(header.nonce));
        }
        if header.ommers_hash != EMPTY_OMMER_ROOT_HASH {
            return Err(HeaderError::OmmersAfterMerge);
        }
    }
    Ok(())
}

/// Each optional field is there exactly from its fork on.
fn validate_fields(fork: Fork, header: &Header) -> Result<(), HeaderError> {
    let fields = [
        (
            "baseFeePerGas",
            header.base_fee_per_gas.is_some(),
            Some(Fork::London),
        ),
        (
            "withdrawalsRoot",
            header.withdrawals_root.is_some(),
            Some(Fork::Shanghai),
        ),
        (
            "blobGasUsed",
            header.blob_gas_used.is_some(),
            Some(Fork::Cancun),
        ),
        (
            "excessBlobGas",
            header.excess_blob_gas.is_some(),
            Some(Fork::Cancun),
        ),
        (
            "parentBeaconBlockRoot",
            header.parent_beacon_block_root.is_some(),
            Some(Fork::Cancun),
        ),
        (
            "requestsHash",
            header.requests_hash.is_some(),
            Some(Fork::Prague),
        ),
        (
            "blockAccessListHash",
            header.block_access_list_hash.is_some(),
            None,
        ),
        ("slotNumber", header.slot_number.is_some(), None),
    ];
    for (field, present, since) in fields {
        let required = since.is_some_and(|since| fork >= since);
        if present != required {
            return Err(HeaderError::Field {
                field,
                required,
                fork,
            });
        }
    }
    Ok(())
}

/// Checks that the header commits to this body, and the size of the whole.
pub fn validate_body(fork: Fork, header: &Header, body: &BlockBody<Tx>) -> Result<(), HeaderError> {
    let commitment = |field, found: B256, computed: B256| {
        if found == computed {
            Ok(())
        } else {
            Err(HeaderError::Commitment {
                field,
                found,
                computed,
            })
        }
    };
    commitment(
        "transactionsRoot",
        header.transactions_root,
        calculate_transaction_root(&body.transactions),
    )?;
    if fork >= Fork::Paris && !body.ommers.is_empty() {
        return Err(HeaderError::OmmersAfterMerge);
    }
    commitment(
        "sha3Uncles",
        header.ommers_hash,
        calculate_ommers_root(&body.ommers),
    )?;
    if body.ommers.len() > 2 {
        return Err(HeaderError::TooManyOmmers(body.ommers.len()));
    }
    match (&body.withdrawals, header.withdrawals_root) {
        (Some(withdrawals), Some(root)) => {
            commitment(
                "withdrawalsRoot",
                root,
                calculate_withdrawals_root(withdrawals),
            )?;
        }
        (None, None) => {}
        (withdrawals, _) => {
            return Err(HeaderError::Field {
                field: "withdrawals",
                required: withdrawals.is_none(),
                fork,
            });
        }
    }
    if fork >= Fork::Osaka {
        let payload = header.length()
            + alloy_rlp::list_length(&body.transactions)
            + alloy_rlp::list_length(&body.ommers)
            + body
                .withdrawals
                .as_ref()
                .map_or(0, |withdrawals| withdrawals.length());
        let size = payload + alloy_rlp::length_of_length(payload);
        if size > MAX_BLOCK_SIZE {
            return Err(HeaderError::BlockTooLarge(size));
        }
    }
    Ok(())
}

/// Blob gas of the transactions of a block.
pub fn blob_gas_used(transactions: &[Tx]) -> u64 {
    transactions
        .iter()
        .map(|tx| tx.blob_gas_used().unwrap_or_default())
        .sum()
}

/// The block as the machine sees it.
pub fn block_env(spec: &ChainSpec, fork: Fork, header: &Header) -> BlockEnv {
    BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        difficulty: header.difficulty,
        prevrandao: (fork >= Fork::Paris).then_some(header.mix_hash),
        blob_excess_gas_and_price: spec.blob_params(fork).map(|params| {
            BlobExcessGasAndPrice::new(
                header.excess_blob_gas.unwrap_or_default(),
                params.update_fraction,
            )
        }),
        slot_num: 0,
    }
}
