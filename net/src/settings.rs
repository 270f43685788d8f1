//! The settings of the node: flag, else environment, else file, else default.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::profiling::Profiling;

mod kept;

pub use kept::{Kept, KeptError};

/// What stores the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", try_from = "String")]
pub enum DatabaseType {
    /// LMDB in a folder.
    Lmdb,
    /// In memory: gone when the node ends.
    Memory,
}

/// The text names no store of this build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseTypeError {
    /// A store that this build leaves out.
    #[error("the {0} store is not in this build (it has lmdb and memory)")]
    NotInThisBuild(String),
    /// No store at all.
    #[error("unknown store {0:?} (this build has lmdb and memory)")]
    Unknown(String),
}

impl FromStr for DatabaseType {
    type Err = DatabaseTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "lmdb" => Ok(Self::Lmdb),
            "memory" => Ok(Self::Memory),
            "sqlite" | "rocksdb" => Err(DatabaseTypeError::NotInThisBuild(text.to_owned())),
            _ => Err(DatabaseTypeError::Unknown(text.to_owned())),
        }
    }
}

impl TryFrom<String> for DatabaseType {
    type Error = DatabaseTypeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

/// What a block that was answered for survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// A crash of the machine.
    Full,
    /// A crash of the process; one of the machine may take the last blocks, never the consistency.
    Relaxed,
}

/// Who may use the node from a web page of another origin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, try_from = "StatedCors")]
pub enum Cors {
    /// All (`true`) or none (`false`).
    All(bool),
    /// These origins, in lower case.
    Origins(Vec<String>),
}

/// What a file may say: the texts of the flag, or a list.
#[derive(Deserialize)]
#[serde(untagged)]
enum StatedCors {
    All(bool),
    Text(String),
    List(Vec<String>),
}

/// The text is no origin, so no page could have it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no origin: expected scheme://host or scheme://host:port, or true, false or *")]
pub struct CorsError(String);

impl Cors {
    fn listed<'a>(list: impl IntoIterator<Item = &'a str>) -> Result<Self, CorsError> {
        let mut all = false;
        let mut origins = Vec::new();
        for origin in list {
            let origin = origin.trim();
            if origin == "*" {
                all = true;
            } else if is_origin(origin) {
                origins.push(origin.to_ascii_lowercase());
            } else {
                return Err(CorsError(origin.to_owned()));
            }
        }
        Ok(if all {
            Self::All(true)
        } else if origins.is_empty() {
            Self::All(false)
        } else {
            Self::Origins(origins)
        })
    }
}

/// Whether the text is an origin as browsers send it.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else {
        return false;
    };
    let scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let host_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    !scheme.is_empty()
        && scheme.bytes().all(scheme_byte)
        && !host.is_empty()
        && host.bytes().all(host_byte)
}

impl FromStr for Cors {
    type Err = CorsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.trim() {
            "true" => Ok(Self::All(true)),
            // A variable that is set to nothing states nothing.
            "false" | "" => Ok(Self::All(false)),
            list => Self::listed(list.split(',')),
        }
    }
}

impl TryFrom<StatedCors> for Cors {
    type Error = CorsError;

    fn try_from(stated: StatedCors) -> Result<Self, Self::Error> {
        match stated {
            StatedCors::All(all) => Ok(Self::All(all)),
            StatedCors::Text(text) => text.parse(),
            StatedCors::List(list) => Self::listed(list.iter().map(String::as_str)),
        }
    }
}

/// Whether hot code is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Jit {
    /// What is hot.
    On,
    /// Nothing.
    Off,
    /// Everything, before its first instruction: for tests, as executing waits for compiling.
    Eager,
}

/// Gas a code burns before it is compiled; none: by its size and what is measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "StatedThreshold", into = "StatedThreshold")]
pub struct Threshold(pub Option<u64>);

/// The text is neither a number nor `auto`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a number of gas nor auto")]
pub struct ThresholdError(String);

impl core::fmt::Display for Threshold {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.0 {
            Some(gas) => gas.fmt(f),
            None => f.write_str("auto"),
        }
    }
}

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "auto" {
            return Ok(Self(None));
        }
        text.parse()
            .map(|gas| Self(Some(gas)))
            .map_err(|_| ThresholdError(text.to_owned()))
    }
}

/// What a file may say: a number, or a text as the flag takes it.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum StatedThreshold {
    Gas(u64),
    Text(String),
}

impl TryFrom<StatedThreshold> for Threshold {
    type Error = ThresholdError;

    fn try_from(stated: StatedThreshold) -> Result<Self, Self::Error> {
        match stated {
            StatedThreshold::Gas(gas) => Ok(Self(Some(gas))),
            StatedThreshold::Text(text) => text.parse(),
        }
    }
}

impl From<Threshold> for StatedThreshold {
    fn from(threshold: Threshold) -> Self {
        threshold
            .0
            .map_or_else(|| Self::Text("auto".to_owned()), Self::Gas)
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file is not TOML or has an unknown or wrong entry.
    #[error("{}: {source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Place and reason.
        source: Box<toml::de::Error>,
    },
    /// A value that cannot work.
    #[error("{name}: {reason}")]
    Value {
        /// The setting.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// One table for flags, environment, file, defaults and what `zvm config check` prints.
macro_rules! settings {
    ($($(#[doc = $doc:literal])+ $(#[flag($($flag:tt)+)])? $name:ident / $env:literal : $ty:ty = $default:expr;)+) => {
        /// Settings as one source states them: a flag, an environment variable or an entry of the file, each optional.
        #[derive(Debug, Clone, Default, clap::Args, Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        pub struct Options {
            $($(#[doc = $doc])+ #[arg(long, env = $env $(, $($flag)+)?)] pub $name: Option<$ty>,)+
        }

        /// The effective settings.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $name: $ty,)+
        }

        impl Options {
            /// These options where they say something, `other` elsewhere.
            pub fn or(self, other: Self) -> Self {
                Self { $($name: self.$name.or(other.$name),)+ }
            }

            fn resolve(self) -> Settings {
                Settings { $($name: self.$name.unwrap_or_else(|| $default),)+ }
            }
        }
    };
}

settings! {
    /// What stores the chain: lmdb or memory.
    #[flag(value_name = "lmdb|memory")]
    database_type / "ZVM_DATABASE_TYPE": DatabaseType = DatabaseType::Lmdb;
    /// Folder of the store [default: ./zvm-data].
    #[flag(value_name = "DIR")]
    database_path / "ZVM_DATABASE_PATH": PathBuf = PathBuf::from("./zvm-data");
    /// What a block that was answered for survives: a crash of the machine, or of the process alone [default: full].
    #[flag(value_name = "full|relaxed", value_enum)]
    database_durability / "ZVM_DATABASE_DURABILITY": Durability = Durability::Full;
    /// Bytes of memory for blocks that are in the journal and not in the tables yet; blocks beyond wait
    /// [default: 268435456].
    #[flag(value_name = "BYTES")]
    database_overlay_bytes / "ZVM_DATABASE_OVERLAY_BYTES": usize = 256 << 20;
    /// Milliseconds a block waits at most until it is merged into the tables [default: 1000].
    #[flag(value_name = "MILLISECONDS")]
    database_merge_interval / "ZVM_DATABASE_MERGE_INTERVAL": u64 = 1000;
    /// Seconds after which a reader's view of the store is ended [default: 60].
    #[flag(value_name = "SECONDS")]
    database_snapshot_seconds / "ZVM_DATABASE_SNAPSHOT_SECONDS": u64 = 60;
    /// Opens a store whose journal has a damaged end without the blocks there [default: false].
    #[flag(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    database_drop_damaged_end / "ZVM_DATABASE_DROP_DAMAGED_END": bool = false;
    /// Blocks before the head whose states can be read, or archive for all [default: 90000].
    #[flag(value_name = "BLOCKS|archive")]
    state_history / "ZVM_STATE_HISTORY": Kept = zvm_storage::Retention::default().state.into();
    /// Blocks before the head whose bodies, receipts and indexes are kept, or archive for all [default: archive].
    #[flag(value_name = "BLOCKS|archive")]
    block_history / "ZVM_BLOCK_HISTORY": Kept = zvm_storage::Retention::default().blocks.into();
    /// Address to listen on [default: 127.0.0.1].
    bind / "ZVM_BIND": IpAddr = IpAddr::from([127, 0, 0, 1]);
    /// Port of JSON-RPC over HTTP and WebSocket; 0 takes a free one [default: 8545].
    rpc_port / "ZVM_RPC_PORT": u16 = 8545;
    /// Lets web pages use the node: of all origins, or of those listed.
    #[flag(value_name = "ORIGIN,…", num_args = 0..=1, require_equals = true, default_missing_value = "*")]
    enable_cors / "ZVM_ENABLE_CORS": Cors = Cors::All(false);
    /// What is logged to standard error: a level or a `tracing` filter [default: info].
    #[flag(value_name = "FILTER")]
    log_level / "ZVM_LOG_LEVEL": String = "info".to_owned();
    /// Names of native code for `perf`: off, perfmap (/tmp/perf-PID.map) or jitdump (./jit-PID.dump) [default: off].
    #[flag(value_name = "off|perfmap|jitdump")]
    profile / "ZVM_PROFILE": Profiling = Profiling::Off;
    /// Chain id of the development chain [default: 31337]. A genesis file states its own.
    chain_id / "ZVM_CHAIN_ID": u64 = DEFAULT_CHAIN_ID;
    /// Genesis file in geth's format; without one, a development chain with funded accounts is run.
    #[flag(value_name = "FILE.json")]
    genesis / "ZVM_GENESIS": PathBuf = PathBuf::new();
    /// Seconds between blocks; 0 makes a block as soon as there is work [default: 0].
    #[flag(value_name = "SECONDS")]
    block_time / "ZVM_BLOCK_TIME": u64 = 0;
    /// Gas limit of blocks: of the development chain from its first block on, of another chain the one to move
    /// towards; 0 keeps what the chain has [default: 0, and 60000000 for a new development chain].
    #[flag(value_name = "GAS")]
    block_gas_limit / "ZVM_BLOCK_GAS_LIMIT": u64 = 0;
    /// Threads for requests and for recovering senders; 0 takes one a core [default: 0].
    threads / "ZVM_THREADS": usize = 0;
    /// Transactions that may wait for a block [default: 100000].
    pool_max_transactions / "ZVM_POOL_MAX_TRANSACTIONS": usize = 100_000;
    /// Bytes of transactions that may wait for a block [default: 268435456].
    pool_max_bytes / "ZVM_POOL_MAX_BYTES": usize = 256 << 20;
    /// Transactions of one sender that may wait for a block [default: 16384].
    pool_max_per_sender / "ZVM_POOL_MAX_PER_SENDER": usize = 16_384;
    /// Bytes of one sender's transactions that may wait for a block [default: 16777216].
    pool_max_bytes_per_sender / "ZVM_POOL_MAX_BYTES_PER_SENDER": usize = 16 << 20;
    /// Transactions that one may displace from a full pool [default: 256].
    pool_max_displaced / "ZVM_POOL_MAX_DISPLACED": usize = 256;
    /// Percent by which a replacement must pay more [default: 10].
    pool_price_bump / "ZVM_POOL_PRICE_BUMP": u64 = 10;
    /// Bytes of one transaction [default: 131072].
    pool_max_transaction_bytes / "ZVM_POOL_MAX_TRANSACTION_BYTES": usize = 128 << 10;
    /// Least priority fee in wei per gas [default: 0].
    pool_min_priority_fee / "ZVM_POOL_MIN_PRIORITY_FEE": u64 = 0;
    /// Recovered senders kept [default: 131072].
    sender_cache / "ZVM_SENDER_CACHE": usize = zvm_engine::ingress::Senders::DEFAULT_CAPACITY;
    /// Longest wait of a block on demand for more transactions under load, in milliseconds [default: 100].
    #[flag(value_name = "MILLISECONDS")]
    block_gather / "ZVM_BLOCK_GATHER": u64 = 100;
    /// Blocks executed and not durable yet when the next one is begun [default: 2].
    blocks_in_flight / "ZVM_BLOCKS_IN_FLIGHT": usize = 2;
    /// Seconds a transaction behind a nonce gap may wait while its sender sends nothing [default: 10800].
    #[flag(value_name = "SECONDS")]
    pool_held_seconds / "ZVM_POOL_HELD_SECONDS": u64 = 3 * 60 * 60;
    /// Whether hot code is compiled to native code [default: on].
    #[flag(value_name = "on|off|eager", value_enum)]
    jit / "ZVM_JIT": Jit = Jit::On;
    /// Gas that a code burns in the interpreter before it is compiled; auto goes by its size and what is measured
    /// [default: auto].
    #[flag(value_name = "GAS|auto")]
    jit_threshold / "ZVM_JIT_THRESHOLD": Threshold = Threshold(None);
    /// Threads of low priority that compile [default: 1].
    jit_threads / "ZVM_JIT_THREADS": usize = 1;
    /// Bytes of native code and its tables [default: 268435456].
    #[flag(value_name = "BYTES")]
    jit_memory / "ZVM_JIT_MEMORY": usize = zvm_jit::tier::DEFAULT_MEMORY;
    /// Compilations that may wait; the least valuable is dropped [default: 1024].
    jit_queue / "ZVM_JIT_QUEUE": usize = zvm_jit::tier::DEFAULT_QUEUE;
    /// Bytes of compiled code kept in the folder of the store, below `native`; 0 keeps none [default: 1073741824].
    #[flag(value_name = "BYTES")]
    jit_cache_bytes / "ZVM_JIT_CACHE_BYTES": u64 = DEFAULT_JIT_CACHE_BYTES;
    /// Most gas eth_call and eth_estimateGas may use [default: 50000000].
    #[flag(value_name = "GAS")]
    rpc_gas_cap / "ZVM_RPC_GAS_CAP": u64 = zvm_engine::simulate::DEFAULT_GAS_CAP;
    /// Most logs one eth_getLogs answers [default: 10000].
    rpc_max_logs / "ZVM_RPC_MAX_LOGS": usize = 10_000;
    /// Most transactions one list by address answers [default: 1000].
    rpc_max_transactions / "ZVM_RPC_MAX_TRANSACTIONS": usize = 1_000;
    /// Most changes of accounts and slots that eth_getProof takes back for a past block [default: 4000000].
    rpc_max_proof_changes / "ZVM_RPC_MAX_PROOF_CHANGES": u64 = zvm_storage::DEFAULT_PROOF_CHANGES;
    /// Longest wait of eth_sendRawTransactionSync in milliseconds [default: 20000].
    #[flag(value_name = "MILLISECONDS")]
    rpc_max_sync_wait / "ZVM_RPC_MAX_SYNC_WAIT": u64 = 20_000;
    /// Bytes of the largest request [default: 20971520].
    rpc_max_request_bytes / "ZVM_RPC_MAX_REQUEST_BYTES": u32 = 20 << 20;
    /// Bytes of the largest answer [default: 167772160].
    rpc_max_response_bytes / "ZVM_RPC_MAX_RESPONSE_BYTES": u32 = 160 << 20;
    /// Requests in one batch [default: 20000].
    rpc_max_batch / "ZVM_RPC_MAX_BATCH": u32 = 20_000;
    /// Connections at once [default: 1000].
    rpc_max_connections / "ZVM_RPC_MAX_CONNECTIONS": u32 = 1_000;
    /// Requests that may execute or read the store at once; more wait their turn; 0 takes four a thread [default: 0].
    rpc_max_concurrent / "ZVM_RPC_MAX_CONCURRENT": usize = 0;
}

/// Chain id of the development chain.
pub const DEFAULT_CHAIN_ID: u64 = 31_337;

/// A year in seconds: the clock cannot add much longer times.
const MAX_SECONDS: u64 = 365 * 24 * 60 * 60;

/// More threads than any machine has cores.
const MAX_THREADS: usize = 4_096;

/// Bytes of compiled code on disk.
pub const DEFAULT_JIT_CACHE_BYTES: u64 = 1 << 30;

/// More compilations than anybody would wait for.
const MAX_JIT_QUEUE: usize = 1_000_000;

/// Far above what threads can do, and below what a semaphore counts.
const MAX_CONCURRENT: usize = 1_000_000;

/// Gas limit of a new development chain.
pub const DEFAULT_BLOCK_GAS_LIMIT: u64 = 60_000_000;

impl Settings {
    /// Reads `file` if there is one and settles what every setting is.
    ///
    /// # Errors
    /// [`SettingsError`] names the file, the place or the setting.
    pub fn new(options: Options, file: Option<&Path>) -> Result<Self, SettingsError> {
        let options = match file {
            None => options,
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| SettingsError::Read {
                    path: path.to_owned(),
                    source,
                })?;
                let stated: Options =
                    toml::from_str(&text).map_err(|source| SettingsError::Parse {
                        path: path.to_owned(),
                        source: Box::new(source),
                    })?;
                options.or(stated)
            }
        };
        let chain_id = options.chain_id;
        let mut settings = options.resolve();
        let refuse = |name, reason: &str| {
            Err(SettingsError::Value {
                name,
                reason: reason.to_owned(),
            })
        };
        if settings.has_genesis() && chain_id.is_some() {
            return refuse("chain-id", "the genesis file states the chain id");
        }
        if settings.chain_id == 0 {
            return refuse("chain-id", "0 is no chain id");
        }
        if settings.block_gas_limit != 0
            && !(zvm_engine::header::MIN_GAS_LIMIT..=zvm_engine::header::MAX_GAS_LIMIT)
                .contains(&settings.block_gas_limit)
        {
            return refuse("block-gas-limit", "outside 5000..=2^63-1");
        }
        settings.check_bounds()?;
        if settings.threads == 0 {
            settings.threads =
                std::thread::available_parallelism().map_or(1, core::num::NonZero::get);
        }
        if settings.rpc_max_concurrent == 0 {
            settings.rpc_max_concurrent = 4 * settings.threads;
        }
        Ok(settings)
    }

    /// Refuses values with which the node could not start or would serve nobody.
    fn check_bounds(&self) -> Result<(), SettingsError> {
        fn within<T: PartialOrd + core::fmt::Display>(
            name: &'static str,
            value: T,
            least: T,
            most: T,
        ) -> Result<(), SettingsError> {
            if least <= value && value <= most {
                return Ok(());
            }
            Err(SettingsError::Value {
                name,
                reason: format!("{value} is outside {least}..={most}"),
            })
        }
        within("block-time", self.block_time, 0, MAX_SECONDS)?;
        within("pool-held-seconds", self.pool_held_seconds, 0, MAX_SECONDS)?;
        within(
            "rpc-max-sync-wait",
            self.rpc_max_sync_wait,
            0,
            1000 * MAX_SECONDS,
        )?;
        within("block-gather", self.block_gather, 0, 60_000)?;
        within("blocks-in-flight", self.blocks_in_flight, 0, 64)?;
        within("sender-cache", self.sender_cache, 0, 1 << 28)?;
        within("threads", self.threads, 0, MAX_THREADS)?;
        within("jit-threads", self.jit_threads, 1, MAX_THREADS)?;
        within("jit-queue", self.jit_queue, 1, MAX_JIT_QUEUE)?;
        let concurrent = self.rpc_max_concurrent;
        within("rpc-max-concurrent", concurrent, 0, MAX_CONCURRENT)?;
        let connections = self.rpc_max_connections;
        within("rpc-max-connections", connections, 1, 1_000_000)?;
        let request = self.rpc_max_request_bytes;
        within("rpc-max-request-bytes", request, 1, u32::MAX)?;
        let response = self.rpc_max_response_bytes;
        within("rpc-max-response-bytes", response, 1, u32::MAX)
    }

    /// Whether a genesis file is given.
    pub fn has_genesis(&self) -> bool {
        !self.genesis.as_os_str().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zvm.toml");
        std::fs::write(
            &path,
            "rpc-port = 1\nblock-time = 2\nenable-cors = [\"http://a\"]\n",
        )
        .unwrap();
        let options = Options {
            rpc_port: Some(9),
            ..Options::default()
        };
        let settings = Settings::new(options, Some(&path)).unwrap();
        assert_eq!((settings.rpc_port, settings.block_time), (9, 2));
        assert_eq!(
            settings.enable_cors,
            Cors::Origins(vec!["http://a".to_owned()])
        );
        assert_eq!(settings.database_type, DatabaseType::Lmdb);
    }

    #[test]
    fn origins_are_listed_by_name_and_nothing_opens_the_node_by_accident() {
        let origins = |list: &[&str]| Cors::Origins(list.iter().map(ToString::to_string).collect());
        for (text, meant) in [
            ("", Cors::All(false)),
            ("false", Cors::All(false)),
            ("true", Cors::All(true)),
            ("*", Cors::All(true)),
            ("http://a,*", Cors::All(true)),
            (
                "http://A:80, https://b",
                origins(&["http://a:80", "https://b"]),
            ),
        ] {
            assert_eq!(text.parse(), Ok(meant), "{text:?}");
        }
        for wrong in [
            "0",
            "no",
            "a.example",
            "http://",
            "http://a,",
            "http://a/",
            "http://a b",
        ] {
            assert!(wrong.parse::<Cors>().is_err(), "{wrong:?}");
        }
        let stated = |toml: &str| toml::from_str::<Options>(toml).map(|stated| stated.enable_cors);
        assert_eq!(
            stated("enable-cors = \"http://a\"").unwrap(),
            Some(origins(&["http://a"]))
        );
        assert_eq!(
            stated("enable-cors = [\"*\", \"http://a\"]").unwrap(),
            Some(Cors::All(true))
        );
        assert_eq!(stated("enable-cors = true").unwrap(), Some(Cors::All(true)));
        assert!(stated("enable-cors = \"no\"").is_err());
    }

    #[test]
    fn a_threshold_is_a_number_or_auto_in_flag_and_file_and_is_written_as_it_is_read() {
        for (text, gas) in [("auto", None), ("0", Some(0)), ("12345", Some(12_345))] {
            assert_eq!(text.parse(), Ok(Threshold(gas)));
            assert_eq!(Threshold(gas).to_string(), text);
        }
        assert!("1e6".parse::<Threshold>().is_err());
        let stated = |toml: &str| {
            toml::from_str::<Options>(toml).map(|stated| (stated.jit, stated.jit_threshold))
        };
        for (toml, meant) in [
            ("jit = \"eager\"", (Some(Jit::Eager), None)),
            ("jit-threshold = 7", (None, Some(Threshold(Some(7))))),
            ("jit-threshold = \"auto\"", (None, Some(Threshold(None)))),
        ] {
            assert_eq!(stated(toml).unwrap(), meant, "{toml}");
        }
        assert!(stated("jit = \"yes\"").is_err());
        assert!(stated("jit-threshold = \"soon\"").is_err());
        let settings = Settings::new(Options::default(), None).unwrap();
        let written = toml::to_string(&settings).unwrap();
        assert!(
            written.contains("jit = \"on\"\njit-threshold = \"auto\"\n"),
            "{written}"
        );
    }

    #[test]
    fn values_that_cannot_work_are_refused_by_name() {
        for (name, value) in [
            ("block-time", "9223372036854775807"),
            ("threads", "9223372036854775807"),
            ("rpc-max-concurrent", "9223372036854775807"),
            ("rpc-max-connections", "0"),
            ("jit-queue", "0"),
            ("jit-threads", "0"),
            ("rpc-max-request-bytes", "0"),
            ("rpc-max-response-bytes", "0"),
        ] {
            let options = toml::from_str(&format!("{name} = {value}")).unwrap();
            let error = Settings::new(options, None).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn an_unknown_entry_of_the_file_is_named_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("zvm.toml");
        std::fs::write(&path, "rpc-port = 1\nrpc-prot = 2\n").unwrap();
        let error = Settings::new(Options::default(), Some(&path))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("zvm.toml") && error.contains("line 2") && error.contains("rpc-prot"),
            "{error}"
        );
    }

    #[test]
    fn a_store_that_is_left_out_says_so() {
        assert_eq!(
            "sqlite".parse::<DatabaseType>(),
            Err(DatabaseTypeError::NotInThisBuild("sqlite".to_owned()))
        );
        assert!(matches!(
            "mongo".parse::<DatabaseType>(),
            Err(DatabaseTypeError::Unknown(_))
        ));
    }
}
