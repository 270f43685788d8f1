//! Uncles of proof-of-work blocks (Yellow Paper 11.1): recent, of this chain, and named once.

use alloy_consensus::Header;
use alloy_primitives::{B256, U256};
use zvm_storage::{Snapshot, StoreError};

use crate::chain_spec::{BlockPosition, ChainSpec};
use crate::header::{HeaderError, validate_header};

/// How many generations back an uncle may be.
pub const MAX_DEPTH: u64 = 6;

/// An uncle does not belong into its block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OmmerError {
    /// It is there twice, or an earlier block has it already.
    #[error("uncle {0} is already in the chain")]
    Known(B256),
    /// It is an ancestor of the block.
    #[error("uncle {0} is an ancestor")]
    Ancestor(B256),
    /// Its parent is the block's own parent.
    #[error("uncle {0} is a sibling of the block")]
    Sibling(B256),
    /// Its parent is no ancestor within reach.
    #[error("the parent {parent} of uncle {ommer} is no recent ancestor")]
    ParentNotAncestor {
        /// Hash of the uncle.
        ommer: B256,
        /// Its parent hash.
        parent: B256,
    },
    /// Its header breaks a rule.
    #[error("uncle {ommer}: {source}")]
    Header {
        /// Hash of the uncle.
        ommer: B256,
        /// Which rule.
        source: Box<HeaderError>,
    },
}

/// Checks the uncles of a block that follows the head of `snapshot`.
///
/// The outer error is the store's, the inner the block's.
pub fn validate_ommers(
    spec: &ChainSpec,
    snapshot: &dyn Snapshot,
    header: &Header,
    ommers: &[Header],
) -> Result<Result<(), OmmerError>, StoreError> {
    if ommers.is_empty() {
        return Ok(Ok(()));
    }
    // An uncle's parent is at most one generation older than the oldest uncle.
    let oldest = header.number.saturating_sub(MAX_DEPTH + 1);
    let mut ancestors = Vec::new();
    let mut known = Vec::new();
    for number in oldest..header.number {
        if let (Some(hash), Some(ancestor)) = (
            zvm_storage::block_hash(snapshot, number)?,
            zvm_storage::header(snapshot, number)?,
        ) {
            ancestors.push((hash, ancestor));
        }
        if let Some(body) = zvm_storage::body(snapshot, number)? {
            known.extend(body.ommers.iter().map(Header::hash_slow));
        }
    }
    for ommer in ommers {
        let hash = ommer.hash_slow();
        if let Err(error) = validate_ommer(spec, header, ommer, hash, &ancestors, &known) {
            return Ok(Err(error));
        }
        known.push(hash);
    }
    Ok(Ok(()))
}

fn validate_ommer(
    spec: &ChainSpec,
    header: &Header,
    ommer: &Header,
    hash: B256,
    ancestors: &[(B256, Header)],
    known: &[B256],
) -> Result<(), OmmerError> {
    if known.contains(&hash) {
        return Err(OmmerError::Known(hash));
    }
    if ancestors.iter().any(|ancestor| ancestor.0 == hash) {
        return Err(OmmerError::Ancestor(hash));
    }
    if ommer.parent_hash == header.parent_hash {
        return Err(OmmerError::Sibling(hash));
    }
    let Some((parent_hash, parent)) = ancestors
        .iter()
        .find(|ancestor| ancestor.0 == ommer.parent_hash)
    else {
        return Err(OmmerError::ParentNotAncestor {
            ommer: hash,
            parent: ommer.parent_hash,
        });
    };
    let fork = spec.fork_at(&BlockPosition {
        number: ommer.number,
        timestamp: ommer.timestamp,
        parent_total_difficulty: U256::ZERO,
    });
    validate_header(spec, fork, ommer, parent, *parent_hash).map_err(|source| OmmerError::Header {
        ommer: hash,
        source: Box::new(source),
    })
}
