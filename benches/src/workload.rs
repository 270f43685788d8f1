//! Blocks of like transactions, made here or taken from the corpus.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use alloy_primitives::{Address, Bytes, TxKind, U256};
use serde::Deserialize;
use zvm_engine::fixtures::replay::{PlainOutcome, PreState, execute_plain};
use zvm_runtimes::evm::{Fork, FrameRunner, Machine, MachineError, cfg_env};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::result::ExecutionResult;
use zvm_runtimes::revm::context::{BlockEnv, CfgEnv, TxEnv};

/// A corpus file cannot be used.
#[derive(Debug)]
pub enum WorkloadError {
    /// The file cannot be read.
    Io(PathBuf, io::Error),
    /// The file is not of the format.
    Json(PathBuf, serde_json::Error),
    /// The file contradicts itself.
    Content(PathBuf, String),
}

impl core::fmt::Display for WorkloadError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Json(path, error) => write!(f, "{}: {error}", path.display()),
            Self::Content(path, reason) => write!(f, "{}: {reason}", path.display()),
        }
    }
}

impl core::error::Error for WorkloadError {}

/// Transactions of one block and the state before it.
#[derive(Debug)]
pub struct Workload {
    /// Name for reports.
    pub name: String,
    cfg: CfgEnv,
    block: BlockEnv,
    pre: PreState,
    transactions: Vec<TxEnv>,
}

#[derive(Deserialize)]
struct CorpusFile {
    name: String,
    calldata: Bytes,
    gas_limit: u64,
    spec: String,
    tx: CorpusTx,
    prestate: BTreeMap<Address, CorpusAccount>,
    expected: CorpusExpected,
}

#[derive(Deserialize)]
struct CorpusTx {
    caller: Address,
    to: Address,
    value: U256,
}

#[derive(Deserialize)]
struct CorpusAccount {
    balance: U256,
    nonce: U256,
    code: Bytes,
    storage: BTreeMap<U256, U256>,
}

#[derive(Deserialize)]
struct CorpusExpected {
    gas_used: u64,
}

impl Workload {
    /// `count` transfers of one wei, each from an account of its own to an account of its own.
    pub fn transfers(count: u64) -> Self {
        let account = |kind: u8, index: u64| {
            let mut address = [kind; 20];
            address[12..].copy_from_slice(&index.to_be_bytes());
            Address::from(address)
        };
        let mut pre = PreState::default();
        let balance = U256::from(10).pow(U256::from(18));
        let mut transactions = Vec::new();
        for index in 0..count {
            let (from, to) = (account(1, index), account(2, index));
            pre.insert_account(from, 0, balance, Bytecode::default(), []);
            pre.insert_account(to, 0, balance, Bytecode::default(), []);
            transactions.push(TxEnv {
                caller: from,
                kind: TxKind::Call(to),
                value: U256::from(1),
                gas_limit: 21_000,
                gas_price: 1,
                chain_id: Some(1),
                ..TxEnv::default()
            });
        }
        let cfg = cfg_env(Fork::LATEST, 1, Fork::LATEST.default_blob_params());
        Self {
            name: "transfers".into(),
            cfg,
            block: BlockEnv::default(),
            pre,
            transactions,
        }
    }

    /// `count` times the call of a corpus program, by one sender.
    ///
    /// # Errors
    /// The file cannot be read or is no corpus program, or the first call does not use the gas it should.
    pub fn corpus(path: &Path, count: u64) -> Result<Self, WorkloadError> {
        let content = |reason: String| WorkloadError::Content(path.to_owned(), reason);
        let bytes = fs::read(path).map_err(|error| WorkloadError::Io(path.to_owned(), error))?;
        let file: CorpusFile = serde_json::from_slice(&bytes)
            .map_err(|error| WorkloadError::Json(path.to_owned(), error))?;
        let fork: Fork = file
            .spec
            .parse()
            .map_err(|error| content(format!("spec: {error}")))?;
        let mut cfg = cfg_env(fork, 1, fork.default_blob_params());
        // The corpus calls with gas limits and nonces that a chain would refuse.
        cfg.disable_nonce_check = true;
        cfg.tx_gas_limit_cap = Some(u64::MAX);
        let mut pre = PreState::default();
        for (address, account) in file.prestate {
            let nonce =
                u64::try_from(account.nonce).map_err(|_| content(format!("nonce of {address}")))?;
            let code = if account.code.is_empty() {
                Bytecode::default()
            } else {
                Bytecode::new_raw_checked(account.code)
                    .map_err(|error| content(format!("code of {address}: {error}")))?
            };
            pre.insert_account(address, nonce, account.balance, code, account.storage);
        }
        let call = TxEnv {
            caller: file.tx.caller,
            kind: TxKind::Call(file.tx.to),
            value: file.tx.value,
            data: file.calldata,
            gas_limit: file.gas_limit,
            chain_id: Some(1),
            ..TxEnv::default()
        };
        let block = BlockEnv {
            gas_limit: u64::MAX,
            ..BlockEnv::default()
        };
        let transactions = (0..count).map(|_| call.clone()).collect();
        let workload = Self {
            name: file.name,
            cfg,
            block,
            pre,
            transactions,
        };
        let gas = workload
            .execute_first()
            .map_err(|error| content(error.to_string()))?;
        if gas != file.expected.gas_used {
            return Err(content(format!(
                "the call uses {gas} gas, expected {}",
                file.expected.gas_used
            )));
        }
        Ok(workload)
    }

    /// Transactions.
    pub fn len(&self) -> usize {
        self.transactions.len()
    }

    /// Whether there is nothing to execute.
    pub fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    fn machine(&self) -> Machine<'_> {
        Machine::new(self.cfg.clone(), self.block.clone(), &self.pre)
    }

    fn execute_first(&self) -> Result<u64, MachineError> {
        let Some(first) = self.transactions.first() else {
            return Ok(0);
        };
        Ok(self.machine().execute(first.clone())?.tx_gas_used())
    }

    /// Executes all transactions by this engine with frames run by `runner`. Returns the gas used and the last result.
    ///
    /// # Errors
    /// A transaction is refused.
    pub fn execute_tiered(
        &self,
        runner: Arc<dyn FrameRunner>,
    ) -> Result<(u64, Option<ExecutionResult>), MachineError> {
        let mut machine = self.machine();
        machine.set_runner(runner);
        let (mut gas, mut last) = (0, None);
        for tx in &self.transactions {
            let result = machine.execute(tx.clone())?;
            gas += result.tx_gas_used();
            last = Some(result);
        }
        Ok((gas, last))
    }

    /// Executes all transactions by this engine. Returns the gas used.
    ///
    /// # Errors
    /// A transaction is refused.
    pub fn execute(&self) -> Result<u64, MachineError> {
        let mut machine = self.machine();
        let mut gas = 0;
        for tx in &self.transactions {
            gas += machine.execute(tx.clone())?.tx_gas_used();
        }
        Ok(gas)
    }

    /// Executes all transactions by plain revm.
    ///
    /// # Errors
    /// A transaction is refused.
    pub fn execute_plain(&self) -> Result<PlainOutcome<'_>, String> {
        execute_plain(
            self.cfg.clone(),
            self.block.clone(),
            &self.pre,
            &self.transactions,
        )
    }
}
