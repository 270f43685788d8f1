//! Genesis files in geth's format: the chain's configuration, the first header and the first state.

use std::collections::BTreeMap;

use alloy_consensus::Header;
use alloy_eips::eip4844::DATA_GAS_PER_BLOB;
use alloy_eips::{eip2935, eip4788, eip7002, eip7251};
use alloy_primitives::{Address, B64, B256, Bytes, U256, keccak256};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use zvm_runtimes::evm::{BlobParams, Fork};
use zvm_storage::{AccountChange, AccountInfo, StateDiff};

use crate::chain_spec::{Activation, BlockPosition, ChainSpec};
use crate::header::next_base_fee;
use crate::requests;

/// Gas limit of a genesis block whose file states 0, as in geth.
const DEFAULT_GAS_LIMIT: u64 = 4_712_388;

/// A genesis file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GenesisError {
    /// Not JSON, or not of the format; the message names line and column.
    #[error("genesis file: {0}")]
    Json(#[from] serde_json::Error),
    /// The configuration contradicts itself.
    #[error("genesis config: {0}")]
    Config(String),
}

/// A chain's beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Genesis {
    /// The rules of the chain.
    pub spec: ChainSpec,
    /// The first header. Its state root is filled in when the state is written.
    pub header: Header,
    /// The first state.
    pub state: StateDiff,
}

/// A number as geth accepts it: a JSON number, or a string in decimal or 0x-hex.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<U256, D::Error> {
    // The text itself: geth writes total difficulties as bare numbers above 2^64, of which a JSON reader makes floats.
    let raw = Box::<RawValue>::deserialize(deserializer)?;
    let quoted: String;
    let text = if raw.get().starts_with('"') {
        quoted = serde_json::from_str(raw.get()).map_err(serde::de::Error::custom)?;
        if quoted.is_empty() || quoted == "0x" {
            return Ok(U256::ZERO);
        }
        quoted.as_str()
    } else {
        raw.get()
    };
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if raw.get().starts_with('"') => parse_digits(digits, 16),
        _ => parse_digits(text, 10),
    };
    parsed.ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no number of 256 bits")))
}

/// The value of digits without sign, separator or prefix.
fn parse_digits(digits: &str, radix: u32) -> Option<U256> {
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return None;
    }
    U256::from_str_radix(digits, u64::from(radix)).ok()
}

fn number_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let value = number(deserializer)?;
    u64::try_from(value)
        .map_err(|_| serde::de::Error::custom(format!("{value} does not fit 64 bits")))
}

fn optional_u64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "number_u64")] u64);
    Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
}

fn optional_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<U256>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "number")] U256);
    Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
}

/// At most 64 hex digits, left-padded to 32 bytes. As in geth's storage words the prefix 0x may be missing, and digits
/// are hex all the same.
fn hex_word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<B256, D::Error> {
    let text = String::deserialize(deserializer)?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    let word = match digits.len() {
        0 => Some(U256::ZERO),
        1..=64 => parse_digits(digits, 16),
        _ => None,
    };
    word.map(B256::from)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not hex of at most 32 bytes")))
}

fn hex_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<U256, D::Error> {
    hex_word(deserializer).map(Into::into)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    config: Config,
    #[serde(default, deserialize_with = "number_u64")]
    nonce: u64,
    #[serde(default, deserialize_with = "number_u64")]
    timestamp: u64,
    #[serde(default)]
    extra_data: Bytes,
    #[serde(deserialize_with = "number_u64")]
    gas_limit: u64,
    #[serde(default, deserialize_with = "number")]
    difficulty: U256,
    #[serde(default, deserialize_with = "hex_word")]
    mix_hash: B256,
    #[serde(default)]
    coinbase: Address,
    #[serde(default, deserialize_with = "number_u64")]
    number: u64,
    #[serde(default, deserialize_with = "number_u64")]
    gas_used: u64,
    #[serde(default, deserialize_with = "hex_word")]
    parent_hash: B256,
    #[serde(default, deserialize_with = "optional_u64")]
    base_fee_per_gas: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    excess_blob_gas: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    blob_gas_used: Option<u64>,
    alloc: BTreeMap<Address, Account>,
}

#[derive(Debug, Deserialize)]
struct Account {
    #[serde(default, deserialize_with = "number")]
    balance: U256,
    #[serde(default, deserialize_with = "number_u64")]
    nonce: u64,
    #[serde(default)]
    code: Bytes,
    #[serde(default)]
    storage: BTreeMap<Word, Word>,
}

#[derive(Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
struct Word(#[serde(deserialize_with = "hex_number")] U256);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    #[serde(deserialize_with = "number_u64")]
    chain_id: u64,
    #[serde(default, deserialize_with = "optional_u64")]
    homestead_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    dao_fork_block: Option<u64>,
    #[serde(default)]
    dao_fork_support: bool,
    #[serde(default, deserialize_with = "optional_u64")]
    eip150_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    eip155_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    eip158_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    byzantium_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    constantinople_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    petersburg_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    istanbul_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    muir_glacier_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    berlin_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    london_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    arrow_glacier_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    gray_glacier_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    merge_netsplit_block: Option<u64>,
    #[serde(default, deserialize_with = "optional_number")]
    terminal_total_difficulty: Option<U256>,
    #[serde(default)]
    terminal_total_difficulty_passed: bool,
    #[serde(default, deserialize_with = "optional_u64")]
    shanghai_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    cancun_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    prague_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    osaka_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    bpo1_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    bpo2_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    bpo3_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    bpo4_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    bpo5_time: Option<u64>,
    #[serde(default, deserialize_with = "optional_u64")]
    amsterdam_time: Option<u64>,
    #[serde(default)]
    deposit_contract_address: Option<Address>,
    #[serde(default)]
    blob_schedule: BTreeMap<String, BlobParams>,
}

impl Config {
    fn into_spec(self) -> Result<ChainSpec, GenesisError> {
        if self.amsterdam_time.is_some() {
            return Err(GenesisError::Config(
                "amsterdamTime: this engine ends with BPO5".into(),
            ));
        }
        if self.eip155_block != self.eip158_block {
            return Err(GenesisError::Config(format!(
                "eip155Block {:?} and eip158Block {:?} differ: both are Spurious Dragon",
                self.eip155_block, self.eip158_block
            )));
        }
        // Between Constantinople and Petersburg mainnet would have run EIP-1283. No network of use did: such blocks run
        // by Petersburg's rules, and one that differs is refused by its state root.
        let petersburg = match (self.constantinople_block, self.petersburg_block) {
            (Some(constantinople), Some(petersburg)) => Some(constantinople.min(petersburg)),
            (constantinople, petersburg) => petersburg.or(constantinople),
        };
        let blocks = [
            (Fork::Homestead, self.homestead_block),
            (Fork::Dao, self.dao_fork_block),
            (Fork::Tangerine, self.eip150_block),
            (Fork::SpuriousDragon, self.eip158_block),
            (Fork::Byzantium, self.byzantium_block),
            (Fork::Petersburg, petersburg),
            (Fork::Istanbul, self.istanbul_block),
            (Fork::MuirGlacier, self.muir_glacier_block),
            (Fork::Berlin, self.berlin_block),
            (Fork::London, self.london_block),
            (Fork::ArrowGlacier, self.arrow_glacier_block),
            (Fork::GrayGlacier, self.gray_glacier_block),
        ];
        let times = [
            (Fork::Shanghai, self.shanghai_time),
            (Fork::Cancun, self.cancun_time),
            (Fork::Prague, self.prague_time),
            (Fork::Osaka, self.osaka_time),
            (Fork::Bpo1, self.bpo1_time),
            (Fork::Bpo2, self.bpo2_time),
            (Fork::Bpo3, self.bpo3_time),
            (Fork::Bpo4, self.bpo4_time),
            (Fork::Bpo5, self.bpo5_time),
        ];
        let mut activations: Vec<(Fork, Activation)> = Vec::new();
        for (fork, block) in blocks {
            // A chain configured without the DAO fork's support takes no part in it.
            if let Some(block) = block.filter(|_| fork != Fork::Dao || self.dao_fork_support) {
                activations.push((fork, Activation::Block(block)));
            }
        }
        // Where a terminal total difficulty is stated it alone decides: mergeNetsplitBlock only marks the fork id
        // (EIP-3675), and terminalTotalDifficultyPassed only says how to synchronise.
        let passed = self.terminal_total_difficulty_passed.then_some(0);
        let paris = match self.terminal_total_difficulty {
            Some(total) => Some(Activation::TotalDifficulty(total)),
            None => self.merge_netsplit_block.or(passed).map(Activation::Block),
        };
        activations.extend(paris.map(|activation| (Fork::Paris, activation)));
        for (fork, time) in times {
            if let Some(time) = time {
                activations.push((fork, Activation::Time(time)));
            }
        }
        let mut spec = ChainSpec::new(self.chain_id, activations);
        if let Some(contract) = self.deposit_contract_address {
            spec.deposit_contract = contract;
        }
        for (name, params) in self.blob_schedule {
            // Schedules of forks this engine does not run are allowed: the forks themselves are refused above.
            if let Ok(fork) = name.parse() {
                // The gas of a full block's blobs, and with it that of the target, must fit 64 bits.
                if params.update_fraction == 0
                    || params.max == 0
                    || params.max > u64::MAX / DATA_GAS_PER_BLOB
                    || params.target > params.max
                {
                    return Err(GenesisError::Config(format!(
                        "blobSchedule.{name}: {params:?} makes no sense"
                    )));
                }
                spec.set_blob_params(fork, params);
            }
        }
        Ok(spec)
    }
}

impl Genesis {
    /// Reads a genesis file.
    pub fn from_json(json: &[u8]) -> Result<Self, GenesisError> {
        let file: File = serde_json::from_slice(json)?;
        let spec = file.config.into_spec()?;
        let mut state = StateDiff::default();
        for (address, account) in file.alloc {
            let slots = account
                .storage
                .into_iter()
                .map(|(slot, value)| (slot.0, value.0));
            insert_account(
                &mut state,
                address,
                account.nonce,
                account.balance,
                account.code,
                slots,
            );
        }
        let mut header = Header {
            parent_hash: file.parent_hash,
            beneficiary: file.coinbase,
            difficulty: file.difficulty,
            number: file.number,
            gas_limit: file.gas_limit,
            gas_used: file.gas_used,
            timestamp: file.timestamp,
            extra_data: file.extra_data,
            mix_hash: file.mix_hash,
            nonce: B64::from(file.nonce.to_be_bytes()),
            base_fee_per_gas: file.base_fee_per_gas,
            excess_blob_gas: file.excess_blob_gas,
            blob_gas_used: file.blob_gas_used,
            ..Header::default()
        };
        complete_header(&spec, &mut header);
        Ok(Self {
            spec,
            header,
            state,
        })
    }

    /// The development chain: every fork from the start, the accounts funded, the system contracts in place.
    ///
    /// `accounts` get `balance` wei each.
    pub fn development(chain_id: u64, gas_limit: u64, accounts: &[Address], balance: U256) -> Self {
        let spec = ChainSpec::at(Fork::Bpo2, chain_id);
        let mut state = StateDiff::default();
        for address in accounts {
            insert_account(&mut state, *address, 0, balance, Bytes::new(), []);
        }
        for (address, code) in system_contracts() {
            insert_account(&mut state, address, 1, U256::ZERO, code.clone(), []);
        }
        let mut header = Header {
            gas_limit,
            ..Header::default()
        };
        complete_header(&spec, &mut header);
        Self {
            spec,
            header,
            state,
        }
    }
}

fn insert_account(
    state: &mut StateDiff,
    address: Address,
    nonce: u64,
    balance: U256,
    code: Bytes,
    slots: impl IntoIterator<Item = (U256, U256)>,
) {
    let code_hash = keccak256(&code);
    if !code.is_empty() {
        state.codes.insert(code_hash, code);
    }
    let slots = slots
        .into_iter()
        .filter(|(_, value)| !value.is_zero())
        .collect();
    let info = Some(AccountInfo {
        nonce,
        balance,
        code_hash,
    });
    state.accounts.insert(
        address,
        AccountChange {
            info,
            wipe_storage: false,
            slots,
        },
    );
}

/// Fills the fields that the forks active at the genesis block require and the file leaves out, and empties those that
/// these forks do not have.
fn complete_header(spec: &ChainSpec, header: &mut Header) {
    let fork = genesis_fork(spec, header);
    if header.gas_limit == 0 {
        header.gas_limit = DEFAULT_GAS_LIMIT;
    }
    if fork < Fork::London {
        // The first London block would take a fee it found here for its parent's (EIP-1559).
        header.base_fee_per_gas = None;
    } else if header.base_fee_per_gas.is_none() {
        header.base_fee_per_gas = next_base_fee(fork, &Header::default());
    }
    if fork >= Fork::Shanghai {
        header.withdrawals_root = Some(alloy_trie::EMPTY_ROOT_HASH);
    }
    if fork >= Fork::Cancun {
        header.blob_gas_used.get_or_insert(0);
        header.excess_blob_gas.get_or_insert(0);
        // A genesis block has no parent on the beacon chain: EIP-4788 makes its root zero.
        header.parent_beacon_block_root = Some(B256::ZERO);
    } else {
        header.blob_gas_used = None;
        header.excess_blob_gas = None;
        header.parent_beacon_block_root = None;
    }
    if fork >= Fork::Prague {
        header.requests_hash = Some(alloy_eips::eip7685::EMPTY_REQUESTS_HASH);
    }
}

/// The fork of the genesis block itself. A terminal total difficulty of 0 makes it a proof-of-stake block.
pub fn genesis_fork(spec: &ChainSpec, header: &Header) -> Fork {
    spec.fork_at(&BlockPosition {
        number: header.number,
        timestamp: header.timestamp,
        parent_total_difficulty: U256::ZERO,
    })
}

/// The contracts that blocks call from Cancun and Prague on, with their code (EIP-4788, 2935, 7002, 7251).
fn system_contracts() -> [(Address, &'static Bytes); 4] {
    [
        (requests::BEACON_ROOTS, &eip4788::BEACON_ROOTS_CODE),
        (requests::HISTORY_STORAGE, &eip2935::HISTORY_STORAGE_CODE),
        (
            requests::WITHDRAWAL_REQUESTS,
            &eip7002::WITHDRAWAL_REQUEST_PREDEPLOY_CODE,
        ),
        (
            requests::CONSOLIDATION_REQUESTS,
            &eip7251::CONSOLIDATION_REQUEST_PREDEPLOY_CODE,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A genesis whose configuration, header fields and accounts have `config`, `fields` and `alloc` added.
    fn read(config: &str, fields: &str, alloc: &str) -> Result<Genesis, GenesisError> {
        let json = format!(
            r#"{{"config": {{"chainId": 1{config}}}, "gasLimit": "0x0"{fields}, "alloc": {{{alloc}}}}}"#
        );
        Genesis::from_json(json.as_bytes())
    }

    fn fork(genesis: &Genesis, number: u64, total: u64) -> Fork {
        genesis.spec.fork_at(&BlockPosition {
            number,
            timestamp: 0,
            parent_total_difficulty: U256::from(total),
        })
    }

    #[test]
    fn a_stated_terminal_total_difficulty_alone_decides_the_merge() {
        let stated = r#", "londonBlock": 0, "terminalTotalDifficulty": 1000,
            "terminalTotalDifficultyPassed": true, "mergeNetsplitBlock": 5"#;
        let genesis = read(stated, "", "").unwrap();
        assert_eq!(fork(&genesis, 0, 0), Fork::London);
        assert_eq!(fork(&genesis, 5, 999), Fork::London);
        assert_eq!(fork(&genesis, 2, 1000), Fork::Paris);
    }

    #[test]
    fn without_a_terminal_total_difficulty_the_netsplit_block_is_the_merge() {
        let config = r#", "londonBlock": 0, "mergeNetsplitBlock": 5"#;
        let genesis = read(config, "", "").unwrap();
        assert_eq!(fork(&genesis, 4, 0), Fork::London);
        assert_eq!(fork(&genesis, 5, 0), Fork::Paris);
        let config = r#", "londonBlock": 0, "terminalTotalDifficultyPassed": true"#;
        assert_eq!(fork(&read(config, "", "").unwrap(), 0, 0), Fork::Paris);
    }

    #[test]
    fn a_bare_number_above_64_bits_is_read_exactly() {
        let config = r#", "terminalTotalDifficulty": 58750000000000000000000"#;
        let total: U256 = "58750000000000000000000".parse().unwrap();
        assert_eq!(
            read(config, "", "").unwrap().spec.activations(),
            [(Fork::Paris, Activation::TotalDifficulty(total))]
        );
    }

    #[test]
    fn numbers_are_decimal_or_prefixed_hex_and_nothing_else() {
        for (text, value) in [("16", 16), ("\"16\"", 16), ("\"0x10\"", 16), ("\"\"", 0)] {
            let genesis = read("", &format!(r#", "timestamp": {text}"#), "").unwrap();
            assert_eq!(genesis.header.timestamp, value, "{text}");
        }
        for text in [
            "-1", "1.5", "1e3", "\"1_0\"", "\"ff\"", "\"0xg\"", "true", "[1]",
        ] {
            let refused = read("", &format!(r#", "timestamp": {text}"#), "");
            assert!(matches!(refused, Err(GenesisError::Json(_))), "{text}");
        }
    }

    #[test]
    fn storage_words_and_hashes_are_hex_with_or_without_prefix() {
        let account = Address::repeat_byte(0x11);
        let alloc = format!(r#""{account}": {{"storage": {{"10": "0x20", "0x0a": "ff"}}}}"#);
        let mix = r#", "mixHash": "12", "parentHash": "0x0013""#;
        let genesis = read("", mix, &alloc).unwrap();
        let slots: BTreeMap<_, _> = genesis.state.accounts[&account]
            .slots
            .clone()
            .into_iter()
            .collect();
        assert_eq!(
            slots,
            [(0x10, 0x20), (0x0a, 0xff)]
                .map(|(slot, value)| (U256::from(slot), U256::from(value)))
                .into()
        );
        assert_eq!(genesis.header.mix_hash, B256::with_last_byte(0x12));
        assert_eq!(genesis.header.parent_hash, B256::with_last_byte(0x13));
        for word in ["1".repeat(65), "0xg0".into(), "+1".into()] {
            let refused = read("", &format!(r#", "mixHash": "{word}""#), "");
            assert!(matches!(refused, Err(GenesisError::Json(_))), "{word}");
        }
    }

    #[test]
    fn a_genesis_before_london_has_no_base_fee() {
        let fee = r#", "baseFeePerGas": 7"#;
        let before = read(r#", "londonBlock": 1"#, fee, "").unwrap();
        assert_eq!(before.header.base_fee_per_gas, None);
        let at = read(r#", "londonBlock": 0"#, fee, "").unwrap();
        assert_eq!(at.header.base_fee_per_gas, Some(7));
    }

    #[test]
    fn the_beacon_root_of_a_genesis_is_zero_from_cancun_on() {
        let root = format!(r#", "parentBeaconBlockRoot": "{}""#, B256::repeat_byte(1));
        let genesis = read(r#", "cancunTime": 0"#, &root, "").unwrap();
        assert_eq!(genesis.header.parent_beacon_block_root, Some(B256::ZERO));
        let genesis = read("", &root, "").unwrap();
        assert_eq!(genesis.header.parent_beacon_block_root, None);
    }

    #[test]
    fn a_gas_limit_of_zero_means_the_default() {
        assert_eq!(read("", "", "").unwrap().header.gas_limit, 4_712_388);
    }

    #[test]
    fn a_blob_schedule_whose_gas_overflows_is_refused() {
        let most = u64::MAX / DATA_GAS_PER_BLOB;
        let schedule = |target: u64, max: u64| {
            let entry =
                format!(r#"{{"target": {target}, "max": {max}, "baseFeeUpdateFraction": 1}}"#);
            read(
                &format!(r#", "blobSchedule": {{"cancun": {entry}}}"#),
                "",
                "",
            )
        };
        assert!(schedule(most, most).is_ok());
        for (target, max) in [(1, most + 1), (most + 1, most + 1), (most + 1, most)] {
            let refused = schedule(target, max);
            assert!(matches!(refused, Err(GenesisError::Config(_))), "{max}");
        }
    }
}
