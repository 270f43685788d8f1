//! The corpus: programs with their state, one call each, and what it must lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, TxKind, U256, keccak256};
use serde::Deserialize;
use zvm_engine::fixtures::replay::PreState;
use zvm_runtimes::evm::{Fork, cfg_env};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::{BlockEnv, CfgEnv, TxEnv};
use zvm_runtimes::revm::database::InMemoryDB;
use zvm_runtimes::revm::primitives::hardfork::SpecId;
use zvm_runtimes::revm::state::AccountInfo;

use crate::outcome::Outcome;

/// The sub-folder of the programs that measure one opcode each.
const SINGLE_OPCODE_FOLDER: &str = "gce";

/// A corpus cannot be used. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum CorpusError {
    /// The file or folder cannot be read.
    #[error("{0}: {1}")]
    Io(PathBuf, #[source] io::Error),
    /// The file is not of the format.
    #[error("{0}: {1}")]
    Json(PathBuf, #[source] serde_json::Error),
    /// The file contradicts itself or asks for what does not exist.
    #[error("{0}: {1}")]
    Content(PathBuf, String),
    /// No program there.
    #[error("{0}: no program of that name")]
    Nothing(PathBuf),
}

/// Where a program belongs in a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// The programs whose ratios enter the geometric mean.
    Corpus,
    /// One opcode about fifty times: reported apart.
    SingleOpcode,
}

#[derive(Debug, Clone)]
struct Account {
    balance: U256,
    nonce: u64,
    code: Bytecode,
    storage: BTreeMap<U256, U256>,
}

/// One call on a prepared state.
#[derive(Debug, Clone)]
pub struct Program {
    /// The file's name without its extension.
    pub name: String,
    /// Where it belongs in a report.
    pub group: Group,
    /// Rules it is executed under.
    pub cfg: CfgEnv,
    /// The block it is executed in.
    pub block: BlockEnv,
    /// The call.
    pub tx: TxEnv,
    /// What the call must lead to.
    pub expected: Outcome,
    accounts: BTreeMap<Address, Account>,
}

/// A program recorded with its state.
#[derive(Deserialize)]
struct RecordedFile {
    calldata: Bytes,
    gas_limit: u64,
    spec: String,
    tx: RecordedTx,
    env: RecordedEnv,
    prestate: BTreeMap<Address, RecordedAccount>,
    expected: RecordedOutcome,
}

#[derive(Deserialize)]
struct RecordedTx {
    caller: Address,
    to: Address,
    value: U256,
    gas_price: U256,
    nonce_check: bool,
    tx_gas_cap: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RecordedEnv {
    current_base_fee: U256,
    current_coinbase: Address,
    #[serde(default)]
    current_difficulty: U256,
    current_gas_limit: U256,
    current_number: U256,
    current_timestamp: U256,
    current_random: Option<B256>,
}

#[derive(Deserialize)]
struct RecordedAccount {
    balance: U256,
    nonce: U256,
    code: Bytes,
    storage: BTreeMap<U256, U256>,
}

#[derive(Deserialize)]
struct RecordedOutcome {
    status: String,
    gas_used: u64,
    gas_spent: u64,
    gas_refunded: u64,
    output_len: usize,
    output_hash: B256,
    logs: usize,
    logs_hash: B256,
    storage_changed: usize,
    storage_hash: B256,
}

/// A program recorded as one frame without state (`ipsilon-*`).
#[derive(Deserialize)]
struct FrameFile {
    bytecode: Bytes,
    calldata: Bytes,
    gas_limit: u64,
    to: Address,
    caller: Address,
    rev: String,
    expected: FrameOutcome,
}

#[derive(Deserialize)]
struct FrameOutcome {
    status: String,
    execution_gas_used: u64,
    output_len: usize,
    output_keccak256: B256,
    sstores: u64,
    logs: u64,
}

/// Loads the programs below `folder` whose names contain `part`, the single-opcode ones last, each group by name.
///
/// # Errors
/// A file that cannot be used, whatever its name; no program of such a name.
pub fn load(folder: &Path, part: &str) -> Result<Vec<Program>, CorpusError> {
    let mut programs = Vec::new();
    for path in json_files(folder)? {
        programs.push(Program::load(&path, Group::Corpus)?);
    }
    let single = folder.join(SINGLE_OPCODE_FOLDER);
    if single.is_dir() {
        for path in json_files(&single)? {
            programs.push(Program::load(&path, Group::SingleOpcode)?);
        }
    }
    programs.retain(|program| program.name.contains(part));
    if programs.is_empty() {
        return Err(CorpusError::Nothing(folder.to_owned()));
    }
    Ok(programs)
}

fn json_files(folder: &Path) -> Result<Vec<PathBuf>, CorpusError> {
    let failed = |error| CorpusError::Io(folder.to_owned(), error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

impl Program {
    /// Loads one file.
    ///
    /// # Errors
    /// The file cannot be read or is no program.
    pub fn load(path: &Path, group: Group) -> Result<Self, CorpusError> {
        let bytes = fs::read(path).map_err(|error| CorpusError::Io(path.to_owned(), error))?;
        let json = |error| CorpusError::Json(path.to_owned(), error);
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(json)?;
        // The field that only single frames have; read again from the text so that errors say where.
        let program = if value.get("rev").is_some() {
            frame(serde_json::from_slice(&bytes).map_err(json)?)
        } else {
            recorded(serde_json::from_slice(&bytes).map_err(json)?)
        };
        let mut program =
            program.map_err(|reason| CorpusError::Content(path.to_owned(), reason))?;
        program.name = name.into_owned();
        program.group = group;
        Ok(program)
    }

    /// A program of one contract, called once by an account without code under the rules of Osaka. What it must lead
    /// to is not known yet.
    pub fn of_code(name: &str, code: Vec<u8>, calldata: Bytes) -> Self {
        let (caller, to) = (Address::repeat_byte(0x11), Address::repeat_byte(0xcc));
        let accounts = BTreeMap::from([
            (caller, Account::plain(U256::MAX >> 1)),
            (to, Account::contract(Bytecode::new_legacy(code.into()))),
        ]);
        Self {
            name: name.to_owned(),
            group: Group::Corpus,
            cfg: permissive(Fork::Osaka),
            block: unbounded_block(),
            tx: TxEnv {
                caller,
                kind: TxKind::Call(to),
                data: calldata,
                gas_limit: u64::MAX >> 1,
                chain_id: Some(1),
                ..TxEnv::default()
            },
            expected: Outcome::nothing(),
            accounts,
        }
    }

    /// The state before the call, for this engine.
    pub fn pre_state(&self) -> PreState {
        let mut pre = PreState::default();
        for (address, account) in &self.accounts {
            let storage = account.storage.iter().map(|(key, value)| (*key, *value));
            let code = account.code.clone();
            pre.insert_account(*address, account.nonce, account.balance, code, storage);
        }
        pre
    }

    /// The state before the call, for plain revm: its own in-memory database, with the code at the account, which spares
    /// it a look-up.
    pub fn database(&self) -> InMemoryDB {
        let mut database = InMemoryDB::default();
        for (address, account) in &self.accounts {
            let info = AccountInfo {
                balance: account.balance,
                nonce: account.nonce,
                code_hash: account.code.hash_slow(),
                code: Some(account.code.clone()),
                ..AccountInfo::default()
            };
            database.insert_account_info(*address, info);
            for (key, value) in &account.storage {
                let Ok(()) = database.insert_account_storage(*address, *key, *value);
            }
        }
        database
    }

    /// The distinct codes of the state.
    pub fn codes(&self) -> Vec<Bytes> {
        let mut seen = BTreeSet::new();
        self.accounts
            .values()
            .map(|account| account.code.original_bytes())
            .filter(|code| !code.is_empty() && seen.insert(keccak256(code)))
            .collect()
    }

    /// The rules for the compiler.
    pub fn spec_id(&self) -> SpecId {
        self.cfg.spec
    }
}

impl Account {
    fn plain(balance: U256) -> Self {
        Self {
            balance,
            nonce: 0,
            code: Bytecode::default(),
            storage: BTreeMap::new(),
        }
    }

    fn contract(code: Bytecode) -> Self {
        Self {
            nonce: 1,
            code,
            ..Self::plain(U256::ZERO)
        }
    }
}

/// The corpus calls with gas limits that a chain would refuse (EIP-7825), and always with nonce 0.
fn permissive(fork: Fork) -> CfgEnv {
    let mut cfg = cfg_env(fork, 1, fork.default_blob_params());
    cfg.disable_nonce_check = true;
    cfg.tx_gas_limit_cap = Some(u64::MAX);
    cfg
}

fn unbounded_block() -> BlockEnv {
    BlockEnv {
        gas_limit: u64::MAX,
        ..BlockEnv::default()
    }
}

fn fork(name: &str) -> Result<Fork, String> {
    name.parse().map_err(|error| format!("fork: {error}"))
}

fn code(bytes: Bytes) -> Result<Bytecode, String> {
    if bytes.is_empty() {
        return Ok(Bytecode::default());
    }
    Bytecode::new_raw_checked(bytes).map_err(|error| format!("code: {error}"))
}

fn number<T: TryFrom<U256>>(what: &str, value: U256) -> Result<T, String> {
    T::try_from(value).map_err(|_| format!("{what} {value} is too large"))
}

fn recorded(file: RecordedFile) -> Result<Program, String> {
    let fork = fork(&file.spec)?;
    if file.tx.nonce_check || file.tx.tx_gas_cap {
        return Err("asks for the nonce check or the gas cap of EIP-7825".to_owned());
    }
    let mut accounts = BTreeMap::new();
    for (address, account) in file.prestate {
        let account = Account {
            balance: account.balance,
            nonce: number(&format!("nonce of {address}"), account.nonce)?,
            code: code(account.code)?,
            storage: account.storage,
        };
        accounts.insert(address, account);
    }
    let (env, expected) = (file.env, file.expected);
    Ok(Program {
        name: String::new(),
        group: Group::Corpus,
        cfg: permissive(fork),
        block: BlockEnv {
            number: env.current_number,
            beneficiary: env.current_coinbase,
            timestamp: env.current_timestamp,
            gas_limit: number("gas limit of the block", env.current_gas_limit)?,
            basefee: number("base fee", env.current_base_fee)?,
            difficulty: env.current_difficulty,
            prevrandao: Some(env.current_random.unwrap_or_default()),
            ..BlockEnv::default()
        },
        tx: TxEnv {
            caller: file.tx.caller,
            kind: TxKind::Call(file.tx.to),
            value: file.tx.value,
            data: file.calldata,
            gas_limit: file.gas_limit,
            gas_price: number("gas price", file.tx.gas_price)?,
            chain_id: Some(1),
            ..TxEnv::default()
        },
        expected: Outcome {
            status: expected.status,
            gas_used: expected.gas_used,
            gas_spent: expected.gas_spent,
            gas_refunded: expected.gas_refunded,
            output_len: expected.output_len,
            output_hash: expected.output_hash,
            logs: expected.logs,
            logs_hash: expected.logs_hash,
            storage_changed: expected.storage_changed,
            storage_hash: expected.storage_hash,
        },
        accounts,
    })
}

fn frame(file: FrameFile) -> Result<Program, String> {
    let expected = file.expected;
    if expected.sstores != 0 || expected.logs != 0 {
        return Err("single frames that write storage or logs do not say what they write".into());
    }
    // EIP-2028: 21,000 and 4 or 16 a byte of calldata.
    let zeros = file.calldata.iter().filter(|byte| **byte == 0).count() as u64;
    let intrinsic = 21_000 + 16 * (file.calldata.len() as u64 - zeros) + 4 * zeros;
    let gas = expected.execution_gas_used + intrinsic;
    let gas_limit = file
        .gas_limit
        .checked_add(intrinsic)
        .ok_or("gas limit is too large")?;
    Ok(Program {
        name: String::new(),
        group: Group::Corpus,
        cfg: permissive(fork(&file.rev)?),
        block: unbounded_block(),
        tx: TxEnv {
            caller: file.caller,
            kind: TxKind::Call(file.to),
            data: file.calldata,
            gas_limit,
            chain_id: Some(1),
            ..TxEnv::default()
        },
        expected: Outcome {
            status: expected.status,
            gas_used: gas,
            gas_spent: gas,
            gas_refunded: 0,
            output_len: expected.output_len,
            output_hash: expected.output_keccak256,
            logs: 0,
            logs_hash: KECCAK256_EMPTY,
            storage_changed: 0,
            storage_hash: KECCAK256_EMPTY,
        },
        accounts: BTreeMap::from([
            (file.caller, Account::plain(U256::ZERO)),
            (file.to, Account::contract(code(file.bytecode)?)),
        ]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared;

    #[test]
    fn every_program_of_the_corpus_is_loaded_and_the_single_opcode_ones_come_last() {
        let programs = load(&shared("corpus"), "").unwrap();
        let counts = [Group::Corpus, Group::SingleOpcode]
            .map(|group| programs.iter().filter(|one| one.group == group).count());
        assert_eq!(counts, [29, 139]);
        assert!(programs[..29].iter().all(|one| one.group == Group::Corpus));
        assert_eq!(
            programs
                .iter()
                .filter(|one| one.name.starts_with("ipsilon-"))
                .count(),
            9
        );
        let nested = programs
            .iter()
            .find(|one| one.name == "revme_subcall_1000_nested")
            .unwrap();
        let sizes: BTreeSet<usize> = nested.codes().iter().map(|code| code.len()).collect();
        assert_eq!(sizes, BTreeSet::from([1, 35, 48]));
    }

    #[test]
    fn a_part_of_a_name_selects_and_a_part_of_none_is_refused() {
        let programs = load(&shared("corpus"), "sha1").unwrap();
        assert_eq!(programs.len(), 2);
        let refused = load(&shared("corpus"), "no such program").unwrap_err();
        assert!(matches!(refused, CorpusError::Nothing(_)), "{refused}");
    }

    #[test]
    fn a_file_that_is_no_program_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.json");
        let good = fs::read_to_string(shared("corpus/counter.json")).unwrap();
        let refusals = [
            ("{", "EOF"),
            ("{}", "missing field"),
            (&good.replace("\"osaka\"", "\"nowhere\""), "fork"),
            (&good.replace("\"gas_used\"", "\"gas\""), "missing field"),
            (
                &good.replace("\"nonce_check\": false", "\"nonce_check\": true"),
                "nonce check",
            ),
            (
                &good.replace("\"currentBaseFee\"", "\"currentBlobs\""),
                "unknown field",
            ),
        ];
        for (text, reason) in refusals {
            assert_ne!(text, good, "nothing was replaced for {reason:?}");
            fs::write(&path, text).unwrap();
            let message = load(folder.path(), "").unwrap_err().to_string();
            assert!(message.contains("broken.json"), "{message}");
            assert!(message.contains(reason), "{message}");
        }
    }
}
