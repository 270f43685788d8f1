//! Arguments of requests, as strict as geth and with its messages.

use alloy_primitives::{Address, B256, Bytes, Log, U256, hex};
use alloy_rpc_types_eth::state::StateOverride;
use alloy_rpc_types_eth::{BlockOverrides, Filter, TransactionRequest};
use alloy_serde::JsonStorageKey;
use jsonrpsee::types::Params;
use serde::de::DeserializeOwned;
use serde_json::Value;
use zvm_storage::{LogQuery, TransactionLocation};

use super::error::RpcError;

/// The arguments of one request.
#[derive(Debug)]
pub struct Args(Vec<Value>);

impl Args {
    /// Reads an array of at most `most` arguments; none at all is an empty one.
    pub fn new(params: &Params<'_>, most: usize) -> Result<Self, RpcError> {
        let values = match params.as_str() {
            None => Vec::new(),
            Some(text) => serde_json::from_str::<Option<Vec<Value>>>(text)
                .map_err(|_| RpcError::InvalidParams("non-array args".to_owned()))?
                .unwrap_or_default(),
        };
        if values.len() > most {
            return Err(RpcError::InvalidParams(format!(
                "too many arguments, want at most {most}"
            )));
        }
        Ok(Self(values))
    }

    /// Argument `index`, which must be there.
    pub fn required<T: Arg>(&mut self, index: usize) -> Result<T, RpcError> {
        self.optional(index)?.ok_or_else(|| {
            RpcError::InvalidParams(format!("missing value for required argument {index}"))
        })
    }

    /// Argument `index`; missing and null are the same.
    pub fn optional<T: Arg>(&mut self, index: usize) -> Result<Option<T>, RpcError> {
        match self.0.get_mut(index).map(Value::take) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => T::from_json(value).map(Some).map_err(|reason| {
                RpcError::InvalidParams(format!("invalid argument {index}: {reason}"))
            }),
        }
    }
}

/// A type of arguments.
pub trait Arg: Sized {
    /// Reads it; the error says what is wrong.
    fn from_json(value: Value) -> Result<Self, String>;
}

fn text(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(format!("expected a string, found {other}")),
    }
}

fn serde_arg<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// The digits of a quantity.
fn quantity_digits(text: &str) -> Result<&str, String> {
    if text.is_empty() {
        return Err("empty hex string".to_owned());
    }
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .ok_or_else(|| "hex string without 0x prefix".to_owned())?;
    match digits.as_bytes() {
        [] => Err("hex string \"0x\"".to_owned()),
        [b'0', _, ..] => Err("hex number with leading zero digits".to_owned()),
        digits if !digits.iter().all(u8::is_ascii_hexdigit) => Err("invalid hex string".to_owned()),
        _ => Ok(digits),
    }
}

fn quantity_u64(text: &str) -> Result<u64, String> {
    u64::from_str_radix(quantity_digits(text)?, 16).map_err(|_| "hex number > 64 bits".to_owned())
}

fn bytes(text: &str) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Err("empty hex string".to_owned());
    }
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .ok_or_else(|| "hex string without 0x prefix".to_owned())?;
    if digits.len() % 2 == 1 {
        return Err("hex string of odd length".to_owned());
    }
    hex::decode(digits).map_err(|_| "invalid hex string".to_owned())
}

fn fixed<const N: usize>(value: Value, name: &str) -> Result<[u8; N], String> {
    let bytes = bytes(&text(value)?)?;
    let found = bytes.len();
    bytes.try_into().map_err(|_| {
        format!(
            "hex string has length {}, want {} for {name}",
            2 * found,
            2 * N
        )
    })
}

impl Arg for u64 {
    fn from_json(value: Value) -> Result<Self, String> {
        quantity_u64(&text(value)?)
    }
}

impl Arg for Address {
    fn from_json(value: Value) -> Result<Self, String> {
        fixed(value, "Address").map(Self::from)
    }
}

impl Arg for B256 {
    fn from_json(value: Value) -> Result<Self, String> {
        fixed(value, "Hash").map(Self::from)
    }
}

impl Arg for Bytes {
    fn from_json(value: Value) -> Result<Self, String> {
        bytes(&text(value)?).map(Self::from)
    }
}

impl Arg for bool {
    fn from_json(value: Value) -> Result<Self, String> {
        value
            .as_bool()
            .ok_or_else(|| format!("expected true or false, found {value}"))
    }
}

impl Arg for Vec<f64> {
    fn from_json(value: Value) -> Result<Self, String> {
        serde_arg(value)
    }
}

impl Arg for Value {
    fn from_json(value: Value) -> Result<Self, String> {
        Ok(value)
    }
}

impl Arg for StateOverride {
    fn from_json(value: Value) -> Result<Self, String> {
        serde_arg(value)
    }
}

impl Arg for BlockOverrides {
    fn from_json(value: Value) -> Result<Self, String> {
        serde_arg(value)
    }
}

/// A storage key: at most 32 bytes, shorter ones are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StorageKey(pub U256);

impl Arg for StorageKey {
    fn from_json(value: Value) -> Result<Self, String> {
        let text = text(value)?;
        let digits = text
            .strip_prefix("0x")
            .or_else(|| text.strip_prefix("0X"))
            .ok_or_else(|| "hex string without 0x prefix".to_owned())?;
        if digits.len() > 64 {
            return Err("storage key too long (want at most 32 bytes)".to_owned());
        }
        if digits.is_empty() {
            return Ok(Self(U256::ZERO));
        }
        // `U256` takes underscores between digits, which no client means.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err("invalid hex in storage key".to_owned());
        }
        U256::from_str_radix(digits, 16)
            .map(Self)
            .map_err(|_| "invalid hex in storage key".to_owned())
    }
}

/// Storage keys of a proof: those of 32 bytes come back whole, shorter ones as numbers, as in geth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofKeys(pub Vec<JsonStorageKey>);

/// Storage keys of one proof at most, as in geth.
const MOST_PROOF_KEYS: usize = 1_024;

impl Arg for ProofKeys {
    fn from_json(value: Value) -> Result<Self, String> {
        let Value::Array(keys) = value else {
            return Err(format!("expected an array of storage keys, found {value}"));
        };
        if keys.len() > MOST_PROOF_KEYS {
            return Err(format!(
                "too many storage keys, want at most {MOST_PROOF_KEYS}"
            ));
        }
        let read = |key: Value| {
            let whole = key.as_str().is_some_and(|text| text.len() == 66);
            let StorageKey(key) = StorageKey::from_json(key)?;
            Ok(match whole {
                true => JsonStorageKey::Hash(key.into()),
                false => JsonStorageKey::Number(key),
            })
        };
        keys.into_iter()
            .map(read)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// Where a list of transactions goes on: `block`, and `index` in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor(pub TransactionLocation);

impl Cursor {
    /// The beginning of the chain.
    pub const START: Self = Self(TransactionLocation { block: 0, index: 0 });
}

impl Arg for Cursor {
    fn from_json(mut value: Value) -> Result<Self, String> {
        if !value.is_object() {
            return Err(format!(
                "expected an object with block and index, found {value}"
            ));
        }
        let mut take = |name: &str| match value.get_mut(name).map(Value::take) {
            None | Some(Value::Null) => Ok(0),
            Some(value) => u64::from_json(value).map_err(|reason| format!("{name}: {reason}")),
        };
        let (block, index) = (take("block")?, take("index")?);
        let index = u32::try_from(index).map_err(|_| "index: too large".to_owned())?;
        Ok(Self(TransactionLocation { block, index }))
    }
}

/// Fields of a transaction that are quantities.
const QUANTITIES: [&str; 9] = [
    "gas",
    "gasPrice",
    "maxFeePerGas",
    "maxPriorityFeePerGas",
    "maxFeePerBlobGas",
    "value",
    "nonce",
    "chainId",
    "type",
];

impl Arg for TransactionRequest {
    fn from_json(value: Value) -> Result<Self, String> {
        for name in QUANTITIES {
            match value.get(name) {
                None | Some(Value::Null) => {}
                Some(Value::String(text)) => {
                    quantity_digits(text).map_err(|reason| format!("{name}: {reason}"))?;
                }
                Some(other) => return Err(format!("{name}: expected a hex string, found {other}")),
            }
        }
        let request: Self = serde_arg(value)?;
        request
            .input
            .unique_input()
            .map_err(|error| error.to_string())?;
        Ok(request)
    }
}

/// Which logs are asked for.
#[derive(Debug, Clone, Default)]
pub struct LogFilter {
    /// Blocks, addresses and topics.
    pub filter: Filter,
    /// Topics a log must have at least: positions that may hold anything count too.
    least_topics: usize,
}

impl LogFilter {
    /// What the index is asked for.
    pub fn query(&self) -> LogQuery {
        LogQuery {
            addresses: self.filter.address.iter().copied().collect(),
            topics: core::array::from_fn(|at| self.filter.topics[at].iter().copied().collect()),
        }
    }

    /// Whether a log is let through, its block aside.
    pub fn matches(&self, log: &Log) -> bool {
        log.topics().len() >= self.least_topics && self.filter.matches(log)
    }
}

impl Arg for LogFilter {
    fn from_json(value: Value) -> Result<Self, String> {
        let has = |name: &str| value.get(name).is_some_and(|value| !value.is_null());
        if has("blockHash") && (has("fromBlock") || has("toBlock")) {
            return Err(
                "cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other"
                    .to_owned(),
            );
        }
        for name in ["fromBlock", "toBlock"] {
            if let Some(bound) = value.get(name).filter(|bound| !bound.is_null()) {
                BlockTag::from_json(bound.clone()).map_err(|reason| format!("{name}: {reason}"))?;
            }
        }
        let topics = value.get("topics").and_then(Value::as_array);
        Ok(Self {
            least_topics: topics.map_or(0, Vec::len),
            filter: serde_arg(value)?,
        })
    }
}

/// A block by number or by its place relative to the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockTag {
    /// By number.
    Number(u64),
    /// The genesis block.
    Earliest,
    /// The head. The node makes every block final at once, so `pending`, `safe` and `finalized` are the head too.
    Head,
}

impl Arg for BlockTag {
    fn from_json(value: Value) -> Result<Self, String> {
        Ok(match text(value)?.as_str() {
            "latest" | "pending" | "safe" | "finalized" => Self::Head,
            "earliest" => Self::Earliest,
            number => Self::Number(quantity_u64(number)?),
        })
    }
}

/// A block by tag or by hash (EIP-1898).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockRef {
    /// By tag or number.
    Tag(BlockTag),
    /// By hash.
    Hash(B256),
}

impl Arg for BlockRef {
    fn from_json(mut value: Value) -> Result<Self, String> {
        if value.is_object() {
            let mut take = |name: &str| {
                value
                    .get_mut(name)
                    .map(Value::take)
                    .filter(|value| !value.is_null())
            };
            return match (take("blockNumber"), take("blockHash")) {
                (Some(_), Some(_)) => Err(
                    "cannot specify both BlockHash and BlockNumber, choose one or the other"
                        .to_owned(),
                ),
                (Some(number), None) => BlockTag::from_json(number).map(Self::Tag),
                (None, Some(hash)) => B256::from_json(hash).map(Self::Hash),
                (None, None) => Err("a block needs blockNumber or blockHash".to_owned()),
            };
        }
        match &value {
            Value::String(text) if text.len() == 66 => B256::from_json(value).map(Self::Hash),
            _ => BlockTag::from_json(value).map(Self::Tag),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_as_strict_as_in_geth() {
        assert_eq!(u64::from_json(json!("0x0")), Ok(0));
        assert_eq!(u64::from_json(json!("0xff")), Ok(255));
        for wrong in [
            json!("0x"),
            json!("0x01"),
            json!("1"),
            json!(""),
            json!(1),
            json!("0xg"),
            json!("0x10000000000000000"),
        ] {
            assert!(u64::from_json(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(TransactionRequest::from_json(json!({"gas": "0x01"})).is_err());
        assert!(TransactionRequest::from_json(json!({"gas": 1})).is_err());
    }

    #[test]
    fn data_and_input_may_both_be_there_if_they_are_equal() {
        let request =
            TransactionRequest::from_json(json!({"data": "0x01", "input": "0x01"})).unwrap();
        assert_eq!(request.input.input().map(|input| input.len()), Some(1));
        assert!(TransactionRequest::from_json(json!({"data": "0x01"})).is_ok());
        assert!(TransactionRequest::from_json(json!({"data": "0x01", "input": "0x02"})).is_err());
    }

    #[test]
    fn storage_keys_may_be_short() {
        assert_eq!(
            StorageKey::from_json(json!("0x0")),
            Ok(StorageKey(U256::ZERO))
        );
        assert_eq!(
            StorageKey::from_json(json!("0x0f")),
            Ok(StorageKey(U256::from(15)))
        );
        for wrong in [
            format!("0x{}", "0".repeat(65)),
            "0x_1".to_owned(),
            "0x+1".to_owned(),
        ] {
            assert!(StorageKey::from_json(json!(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_topic_that_may_be_anything_must_still_be_there() {
        let matches = |topics: Value, found: usize| {
            let log = Log::new_unchecked(
                Address::ZERO,
                vec![B256::repeat_byte(1); found],
                Bytes::new(),
            );
            LogFilter::from_json(json!({ "topics": topics }))
                .unwrap()
                .matches(&log)
        };
        assert!(matches(json!([]), 0));
        assert!(matches(json!(null), 0));
        assert!(!matches(json!([null]), 0));
        assert!(matches(json!([null]), 1));
        assert!(!matches(json!([[], null]), 1));
        assert!(matches(json!([[], null]), 4));
    }

    #[test]
    fn a_block_is_named_by_tag_number_hash_or_object() {
        let hash = B256::repeat_byte(7);
        assert_eq!(
            BlockRef::from_json(json!("safe")),
            Ok(BlockRef::Tag(BlockTag::Head))
        );
        assert_eq!(
            BlockRef::from_json(json!("0x10")),
            Ok(BlockRef::Tag(BlockTag::Number(16)))
        );
        assert_eq!(BlockRef::from_json(json!(hash)), Ok(BlockRef::Hash(hash)));
        assert_eq!(
            BlockRef::from_json(json!({"blockHash": hash, "requireCanonical": true})),
            Ok(BlockRef::Hash(hash))
        );
        assert!(BlockRef::from_json(json!({})).is_err());
        assert!(BlockRef::from_json(json!("nonsense")).is_err());
    }
}
