//! Blocks of like transactions, made here or taken from the corpus.

use std::path::Path;

use alloy_primitives::{Address, TxKind, U256};
use zvm_engine::fixtures::replay::{PlainOutcome, PreState, execute_plain};
use zvm_runtimes::evm::{Fork, Machine, MachineError, cfg_env};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::{BlockEnv, CfgEnv, TxEnv};

use crate::corpus::{CorpusError, Group, Program};

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
    pub fn corpus(path: &Path, count: usize) -> Result<Self, CorpusError> {
        let program = Program::load(path, Group::Corpus)?;
        let workload = Self {
            name: program.name.clone(),
            cfg: program.cfg.clone(),
            block: program.block.clone(),
            pre: program.pre_state(),
            transactions: vec![program.tx.clone(); count],
        };
        let content = |reason| CorpusError::Content(path.to_owned(), reason);
        let gas = workload
            .execute_first()
            .map_err(|error| content(error.to_string()))?;
        if gas != program.expected.gas_used {
            return Err(content(format!(
                "the call uses {gas} gas, expected {}",
                program.expected.gas_used
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
