//! The difficulty of proof-of-work blocks (Yellow Paper 4.3.4 with EIP-2, EIP-100 and the bomb delays).
//!
//! Seals are not checked here: what the difficulty buys is the business of a proof-of-work client. The value itself is a
//! field of the header and executions read it, so it is computed and compared.

use alloy_primitives::U256;
use zvm_runtimes::evm::Fork;

/// No block is easier than this.
pub const MINIMUM_DIFFICULTY: u64 = 131_072;

/// By how many blocks a fork delays the difficulty bomb (EIP-649, 1234, 2384, 3554, 4345, 5133).
fn bomb_delay(fork: Fork) -> u64 {
    match fork {
        f if f >= Fork::GrayGlacier => 11_400_000,
        f if f >= Fork::ArrowGlacier => 10_700_000,
        f if f >= Fork::London => 9_700_000,
        f if f >= Fork::MuirGlacier => 9_000_000,
        f if f >= Fork::Petersburg => 5_000_000,
        f if f >= Fork::Byzantium => 3_000_000,
        _ => 0,
    }
}

/// What the difficulty of a block depends on besides its own number and time.
#[derive(Debug, Clone, Copy)]
pub struct ParentDifficulty {
    /// The parent's difficulty.
    pub difficulty: U256,
    /// The parent's timestamp, in seconds.
    pub timestamp: u64,
    /// Whether the parent has uncles (EIP-100).
    pub has_ommers: bool,
}

/// The difficulty of block `number` under `fork`.
///
/// `timestamp` must be later than the parent's; an earlier one gives the difficulty of an equal one.
pub fn difficulty(fork: Fork, number: u64, timestamp: u64, parent: ParentDifficulty) -> U256 {
    let elapsed = timestamp.saturating_sub(parent.timestamp);
    let step = parent.difficulty / U256::from(2048);
    let adjusted = if fork < Fork::Homestead {
        if elapsed < 13 {
            parent.difficulty + step
        } else {
            parent.difficulty.saturating_sub(step)
        }
    } else {
        // EIP-2: max(1 - elapsed / 10, -99). EIP-100: max(y - elapsed / 9, -99), y = 2 with uncles.
        let (gain, loss) = if fork < Fork::Byzantium {
            (1, elapsed / 10)
        } else {
            (if parent.has_ommers { 2 } else { 1 }, elapsed / 9)
        };
        if loss <= gain {
            parent.difficulty + step * U256::from(gain - loss)
        } else {
            parent
                .difficulty
                .saturating_sub(step * U256::from((loss - gain).min(99)))
        }
    };
    // From Byzantium on the bomb counts from a fake block number relative to the parent's (EIP-649).
    let counted = match bomb_delay(fork) {
        0 => number,
        delay => number.saturating_sub(delay),
    };
    let period = counted / 100_000;
    let bomb = if period >= 2 {
        U256::from(1) << (period - 2) as usize
    } else {
        U256::ZERO
    };
    // The floor comes after the bomb (Yellow Paper 4.3.4). Mainnet never came near enough to it to tell.
    (adjusted + bomb).max(U256::from(MINIMUM_DIFFICULTY))
}
