//! What a proof-of-work block pays its miner and the miners of its uncles (Yellow Paper 11.3, EIP-649, EIP-1234).

use alloy_consensus::Header;
use alloy_primitives::{Address, U256};
use zvm_runtimes::evm::Fork;

const ETHER: u128 = 1_000_000_000_000_000_000;

/// The static block reward in wei; `None` from the Merge on.
pub fn block_reward(fork: Fork) -> Option<u128> {
    match fork {
        f if f >= Fork::Paris => None,
        f if f >= Fork::Petersburg => Some(2 * ETHER),
        f if f >= Fork::Byzantium => Some(3 * ETHER),
        _ => Some(5 * ETHER),
    }
}

/// The credits at the end of a block, in order: uncles' miners, then the block's.
pub fn credits(fork: Fork, header: &Header, ommers: &[Header]) -> Vec<(Address, U256)> {
    let Some(reward) = block_reward(fork) else {
        return Vec::new();
    };
    let mut credits: Vec<_> = ommers
        .iter()
        .map(|ommer| {
            // An uncle of the generation before gets 7/8, then an eighth less a generation.
            let eighths = (8 + ommer.number).saturating_sub(header.number).min(8);
            (
                ommer.beneficiary,
                U256::from(reward) * U256::from(eighths) / U256::from(8),
            )
        })
        .collect();
    let nephew = U256::from(reward / 32) * U256::from(ommers.len());
    credits.push((header.beneficiary, U256::from(reward) + nephew));
    credits
}
