//! Network upgrades, in order, and what they mean for execution.

use core::fmt;
use core::str::FromStr;

use revm::primitives::hardfork::SpecId;
use serde::{Deserialize, Serialize};

/// A network upgrade. The order of the variants is the order of activation.
///
/// Upgrades that change nothing for execution (Muir, Arrow and Gray Glacier delay the difficulty bomb, DAO moves
/// balances, BPO upgrades change the blob schedule) are listed because block rules depend on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Fork {
    /// The first release.
    Frontier,
    /// EIP-2, EIP-7, EIP-8.
    Homestead,
    /// The irregular state change of the DAO (EIP-779).
    Dao,
    /// EIP-150, "EIP150" in test fixtures.
    Tangerine,
    /// EIP-155, 160, 161, 170, "EIP158" in test fixtures.
    SpuriousDragon,
    /// EIP-609.
    Byzantium,
    /// EIP-1013 together with EIP-1716: Constantinople without EIP-1283, "ConstantinopleFix" in test fixtures.
    Petersburg,
    /// EIP-1679.
    Istanbul,
    /// EIP-2387.
    MuirGlacier,
    /// EIP-2929, 2930, 2565.
    Berlin,
    /// EIP-1559, 3198, 3529, 3541.
    London,
    /// EIP-4345.
    ArrowGlacier,
    /// EIP-5133.
    GrayGlacier,
    /// EIP-3675, EIP-4399: the Merge.
    Paris,
    /// EIP-4895, 3651, 3855, 3860.
    Shanghai,
    /// EIP-4844, 1153, 4788, 5656, 6780.
    Cancun,
    /// EIP-7702, 2537, 2935, 6110, 7002, 7251, 7623, 7685, 7691.
    Prague,
    /// EIP-7594, 7823, 7825, 7883, 7892, 7918, 7934, 7939, 7951.
    Osaka,
    /// EIP-7892: the first blob-parameter-only upgrade.
    Bpo1,
    /// EIP-7892.
    Bpo2,
    /// EIP-7892.
    Bpo3,
    /// EIP-7892.
    Bpo4,
    /// EIP-7892.
    Bpo5,
}

/// Name, aliases in fixtures and tools, and execution rules of each fork, in activation order.
const FORKS: [(Fork, &str, &[&str], SpecId); 23] = [
    (Fork::Frontier, "Frontier", &[], SpecId::FRONTIER),
    (Fork::Homestead, "Homestead", &[], SpecId::HOMESTEAD),
    (Fork::Dao, "DAO", &["Dao"], SpecId::HOMESTEAD),
    (
        Fork::Tangerine,
        "Tangerine",
        &["EIP150", "TangerineWhistle"],
        SpecId::TANGERINE,
    ),
    (
        Fork::SpuriousDragon,
        "SpuriousDragon",
        &["EIP158", "EIP155"],
        SpecId::SPURIOUS_DRAGON,
    ),
    (Fork::Byzantium, "Byzantium", &[], SpecId::BYZANTIUM),
    (
        Fork::Petersburg,
        "Petersburg",
        &["ConstantinopleFix"],
        SpecId::PETERSBURG,
    ),
    (Fork::Istanbul, "Istanbul", &[], SpecId::ISTANBUL),
    (Fork::MuirGlacier, "MuirGlacier", &[], SpecId::ISTANBUL),
    (Fork::Berlin, "Berlin", &[], SpecId::BERLIN),
    (Fork::London, "London", &[], SpecId::LONDON),
    (Fork::ArrowGlacier, "ArrowGlacier", &[], SpecId::LONDON),
    (Fork::GrayGlacier, "GrayGlacier", &[], SpecId::LONDON),
    (Fork::Paris, "Paris", &["Merge"], SpecId::MERGE),
    (Fork::Shanghai, "Shanghai", &[], SpecId::SHANGHAI),
    (Fork::Cancun, "Cancun", &[], SpecId::CANCUN),
    (Fork::Prague, "Prague", &[], SpecId::PRAGUE),
    (Fork::Osaka, "Osaka", &[], SpecId::OSAKA),
    (Fork::Bpo1, "BPO1", &[], SpecId::OSAKA),
    (Fork::Bpo2, "BPO2", &[], SpecId::OSAKA),
    (Fork::Bpo3, "BPO3", &[], SpecId::OSAKA),
    (Fork::Bpo4, "BPO4", &[], SpecId::OSAKA),
    (Fork::Bpo5, "BPO5", &[], SpecId::OSAKA),
];

impl Fork {
    /// The newest fork this engine implements.
    pub const LATEST: Fork = Fork::Bpo5;

    /// All forks in activation order.
    pub fn all() -> impl Iterator<Item = Fork> {
        FORKS.iter().map(|row| row.0)
    }

    /// The execution rules of the fork.
    pub fn spec_id(self) -> SpecId {
        FORKS[self as usize].3
    }

    /// The fork's name as geth and the execution specs write it.
    pub fn name(self) -> &'static str {
        FORKS[self as usize].1
    }

    /// The blob schedule in force when a chain's configuration states none (EIP-4844, EIP-7691, EIP-7892 on mainnet).
    ///
    /// `None` before Cancun. BPO 3 to 5 have no mainnet values and inherit those of BPO 2.
    pub fn default_blob_params(self) -> Option<BlobParams> {
        if self < Fork::Cancun {
            return None;
        }
        let (target, max, update_fraction) = match self {
            Fork::Cancun => (3, 6, 3_338_477),
            Fork::Prague | Fork::Osaka => (6, 9, 5_007_716),
            Fork::Bpo1 => (10, 15, 8_346_193),
            _ => (14, 21, 11_684_671),
        };
        Some(BlobParams {
            target,
            max,
            update_fraction,
        })
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no fork of this engine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown fork {0:?}")]
pub struct UnknownFork(pub String);

impl FromStr for Fork {
    type Err = UnknownFork;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        FORKS
            .iter()
            .find(|(_, name, aliases, _)| {
                name.eq_ignore_ascii_case(text)
                    || aliases.iter().any(|alias| alias.eq_ignore_ascii_case(text))
            })
            .map(|row| row.0)
            .ok_or_else(|| UnknownFork(text.to_owned()))
    }
}

/// One entry of the blob schedule (EIP-7840).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BlobParams {
    /// Blobs a block aims at.
    pub target: u64,
    /// Blobs a block may carry.
    pub max: u64,
    /// How slowly the blob base fee follows the excess (`BLOB_BASE_FEE_UPDATE_FRACTION`).
    #[serde(rename = "baseFeeUpdateFraction")]
    pub update_fraction: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_activation_order_and_every_name_parses_back() {
        for (index, fork) in Fork::all().enumerate() {
            assert_eq!(fork as usize, index);
            assert_eq!(fork.name().parse::<Fork>(), Ok(fork));
        }
        assert_eq!("eip150".parse::<Fork>(), Ok(Fork::Tangerine));
        assert_eq!("ConstantinopleFix".parse::<Fork>(), Ok(Fork::Petersburg));
        assert!("Constantinople".parse::<Fork>().is_err());
    }
}
