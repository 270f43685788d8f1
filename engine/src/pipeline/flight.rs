//! A block that is executed and not durable yet, as the next one sees it.

use std::sync::{Arc, OnceLock};

use alloy_consensus::Header;
use alloy_primitives::{B256, U256};
use zvm_storage::StateDiff;

use crate::chain::Head;

/// A block in flight.
///
/// Its hash is known once its state root is, which takes longer than executing it. Whoever needs the hash waits for it.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Complete but for the parent's hash and the roots.
    pub(crate) header: Arc<Header>,
    pub(crate) total_difficulty: U256,
    /// What it did to the state, but for its parent's hash where it `defers` that.
    pub(crate) changes: StateDiff,
    /// It was executed before its parent's hash was known: the slot for it (EIP-2935) is not among the changes.
    pub(crate) defers: bool,
    /// `None` inside: there will be none, since a stage behind has failed.
    hash: OnceLock<Option<B256>>,
}

impl Flight {
    pub(crate) fn new(
        header: Header,
        total_difficulty: U256,
        changes: StateDiff,
        defers: bool,
    ) -> Self {
        Self {
            header: Arc::new(header),
            total_difficulty,
            changes,
            defers,
            hash: OnceLock::new(),
        }
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    /// Tells the hash to those that wait for it; the first word counts.
    pub(crate) fn land(&self, hash: Option<B256>) {
        // Set already: the block was sealed before a stage failed.
        let _ = self.hash.set(hash);
    }

    /// The hash, when it is known.
    ///
    /// # Errors
    /// The block will never be sealed.
    pub(crate) fn hash(&self) -> Result<B256, Lost> {
        self.hash.wait().ok_or(Lost {
            number: self.number(),
        })
    }
}

/// A block that others build on will never be durable, for a reason told elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("block {number}, which this one follows, could not be made durable")]
pub struct Lost {
    /// Number of the lost block.
    pub number: u64,
}

/// What a new block follows.
#[derive(Debug, Clone)]
pub(crate) enum Parent {
    /// The head.
    Durable(Head),
    /// A block that is on its way to become it.
    InFlight(Arc<Flight>),
}

impl Parent {
    /// Of a block in flight without its parent's hash and its roots.
    pub(crate) fn header(&self) -> &Header {
        match self {
            Self::Durable(head) => &head.header,
            Self::InFlight(flight) => &flight.header,
        }
    }

    pub(crate) fn total_difficulty(&self) -> U256 {
        match self {
            Self::Durable(head) => head.total_difficulty,
            Self::InFlight(flight) => flight.total_difficulty,
        }
    }

    /// Its hash, when it is known.
    ///
    /// # Errors
    /// It will never be sealed.
    pub(crate) fn hash(&self) -> Result<B256, Lost> {
        match self {
            Self::Durable(head) => Ok(head.hash),
            Self::InFlight(flight) => flight.hash(),
        }
    }
}
