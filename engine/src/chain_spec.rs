//! Which rules hold at which block of a chain.

use alloy_primitives::{Address, U256, address};
use zvm_runtimes::evm::{BlobParams, Fork};

/// The deposit contract of Ethereum mainnet (EIP-6110).
pub const MAINNET_DEPOSIT_CONTRACT: Address = address!("00000000219ab540356cbb839cbe05303d7705fa");

/// When a fork becomes active.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// At this block number.
    Block(u64),
    /// At the first block with this timestamp or a later one (seconds).
    Time(u64),
    /// At the first block whose parent's total difficulty has reached this, the `TERMINAL_TOTAL_DIFFICULTY` of EIP-3675.
    TotalDifficulty(U256),
}

/// The place of a block in its chain, as far as fork activation depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockPosition {
    /// Block number.
    pub number: u64,
    /// Seconds.
    pub timestamp: u64,
    /// Sum of the difficulties of all blocks before this one.
    pub parent_total_difficulty: U256,
}

/// The rules of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainSpec {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Sorted by fork. A fork without an entry is passed over: Osaka at 0 alone means Osaka rules from the start.
    activations: Vec<(Fork, Activation)>,
    /// Overrides of [`Fork::default_blob_params`].
    blob_schedule: Vec<(Fork, BlobParams)>,
    /// Where deposits are logged (EIP-6110).
    pub deposit_contract: Address,
    /// Whether the block of the DAO fork moves the balances and it and its successors carry the fork's mark in their
    /// extra data (EIP-779). Where this is false, neither happens.
    pub dao_support: bool,
}

impl ChainSpec {
    /// A chain that activates `activations`.
    pub fn new(chain_id: u64, activations: impl IntoIterator<Item = (Fork, Activation)>) -> Self {
        let mut activations: Vec<_> = activations.into_iter().collect();
        activations.sort_by_key(|entry| entry.0);
        Self {
            chain_id,
            activations,
            blob_schedule: Vec::new(),
            deposit_contract: MAINNET_DEPOSIT_CONTRACT,
            dao_support: true,
        }
    }

    /// A chain on which `fork` and all before it hold from the genesis block on.
    pub fn at(fork: Fork, chain_id: u64) -> Self {
        Self::new(chain_id, [(fork, Activation::Block(0))])
    }

    /// Sets the blob schedule of a fork. Forks after it without a schedule of their own inherit it if they have no
    /// default on mainnet.
    pub fn set_blob_params(&mut self, fork: Fork, params: BlobParams) {
        self.blob_schedule.retain(|entry| entry.0 != fork);
        self.blob_schedule.push((fork, params));
        self.blob_schedule.sort_by_key(|entry| entry.0);
    }

    /// The forks this chain activates, in order.
    pub fn activations(&self) -> &[(Fork, Activation)] {
        &self.activations
    }

    /// The newest fork active at a block.
    pub fn fork_at(&self, position: &BlockPosition) -> Fork {
        self.activations
            .iter()
            .rev()
            .find(|(_, activation)| match *activation {
                Activation::Block(block) => position.number >= block,
                Activation::Time(time) => position.timestamp >= time,
                Activation::TotalDifficulty(total) => position.parent_total_difficulty >= total,
            })
            .map_or(Fork::Frontier, |entry| entry.0)
    }

    /// The blob schedule in force under `fork`; `None` before Cancun.
    pub fn blob_params(&self, fork: Fork) -> Option<BlobParams> {
        let default = fork.default_blob_params()?;
        let stated = self
            .blob_schedule
            .iter()
            .rev()
            .find(|entry| entry.0 <= fork);
        // An entry of an older fork counts only for a fork whose parameters mainnet never fixed.
        Some(match stated {
            Some((stated, params)) if *stated == fork || fork > Fork::Bpo2 => *params,
            _ => default,
        })
    }

    /// The block of the DAO fork, on chains that take part in it.
    pub fn dao_block(&self) -> Option<u64> {
        self.activations
            .iter()
            .find_map(|&(fork, activation)| match activation {
                Activation::Block(block) if fork == Fork::Dao => Some(block),
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(number: u64, timestamp: u64, total: u64) -> BlockPosition {
        BlockPosition {
            number,
            timestamp,
            parent_total_difficulty: U256::from(total),
        }
    }

    #[test]
    fn forks_activate_by_block_then_total_difficulty_then_time() {
        let spec = ChainSpec::new(
            1,
            [
                (Fork::Shanghai, Activation::Time(100)),
                (Fork::Homestead, Activation::Block(0)),
                (Fork::London, Activation::Block(10)),
                (Fork::Paris, Activation::TotalDifficulty(U256::from(1000))),
            ],
        );
        assert_eq!(spec.fork_at(&position(9, 0, 0)), Fork::Homestead);
        assert_eq!(spec.fork_at(&position(10, 0, 999)), Fork::London);
        assert_eq!(spec.fork_at(&position(11, 0, 1000)), Fork::Paris);
        assert_eq!(spec.fork_at(&position(50, 0, 999)), Fork::London);
        assert_eq!(spec.fork_at(&position(12, 100, 1000)), Fork::Shanghai);
    }

    #[test]
    fn a_stated_blob_schedule_wins_over_the_default() {
        let mut spec = ChainSpec::at(Fork::Bpo5, 1);
        assert_eq!(spec.blob_params(Fork::Shanghai), None);
        assert_eq!(spec.blob_params(Fork::Prague).unwrap().max, 9);
        let own = BlobParams {
            target: 20,
            max: 30,
            update_fraction: 1,
        };
        spec.set_blob_params(Fork::Bpo2, own);
        assert_eq!(spec.blob_params(Fork::Bpo1).unwrap().max, 15);
        assert_eq!(spec.blob_params(Fork::Bpo2), Some(own));
        assert_eq!(spec.blob_params(Fork::Bpo4), Some(own));
    }
}
