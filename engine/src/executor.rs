//! Executes a block: system calls, transactions in order, withdrawals, rewards, requests.
//!
//! Import and building take the same steps: [`BlockExecutor::new`] does what comes before the first transaction,
//! [`BlockExecutor::transact`] each transaction, [`BlockExecutor::finish`] what comes after the last.

use std::sync::Arc;

use alloy_consensus::{Header, Transaction as _, Typed2718 as _};
use alloy_eips::eip4844::DATA_GAS_PER_BLOB;
use alloy_eips::eip4895::Withdrawal;
use alloy_eips::eip7685::Requests;
use alloy_primitives::{Address, B256, Bloom, Bytes, Log, U256};
use zvm_runtimes::evm::{
    BlockState, Fork, FrameRunner, Machine, MachineError, ReadError, StateReader, cfg_env,
};
use zvm_runtimes::revm::context::result::{ExecutionResult, InvalidTransaction, Output};
use zvm_storage::StoredReceipt;

use crate::chain_spec::ChainSpec;
use crate::requests::{self, InvalidDepositEvent};
use crate::transaction::{self, Tx, TxError};
use crate::{dao, header, receipt, rewards};

/// A block cannot be executed by the rules of its chain, or its state cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ExecutionError {
    /// A transaction breaks a rule that does not depend on the state.
    #[error("transaction {index}: {source}")]
    Transaction {
        /// Place in the block.
        index: usize,
        /// Which rule.
        source: TxError,
    },
    /// A transaction breaks a rule that depends on the state or the block.
    #[error("transaction {index}: {source}")]
    Invalid {
        /// Place in the block.
        index: usize,
        /// Which rule.
        source: InvalidTransaction,
    },
    /// The gas limits of the transactions exceed the block's.
    #[error(
        "transaction {index}: gas limit {gas_limit} is above the {available} left in the block"
    )]
    BlockGasExceeded {
        /// Place in the block.
        index: usize,
        /// The transaction's gas limit.
        gas_limit: u64,
        /// Gas left in the block.
        available: u64,
    },
    /// The blobs of the transactions exceed the schedule.
    #[error("transaction {index}: {blobs} blobs are more than the {available} left in the block")]
    BlobGasExceeded {
        /// Place in the block.
        index: usize,
        /// Blobs of the transaction.
        blobs: u64,
        /// Blobs left in the block.
        available: u64,
    },
    /// EIP-7002 and EIP-7251: no code at the address of a system contract.
    #[error("system contract {0} has no code")]
    SystemContractEmpty(Address),
    /// EIP-7002 and EIP-7251: a system contract failed.
    #[error("system call to {0} failed")]
    SystemCallFailed(Address),
    /// EIP-6110.
    #[error(transparent)]
    DepositEvent(#[from] InvalidDepositEvent),
    /// The state could not be read, or the environment is incomplete. Says nothing about the block.
    #[error(transparent)]
    Machine(MachineError),
}

impl From<MachineError> for ExecutionError {
    fn from(error: MachineError) -> Self {
        Self::Machine(error)
    }
}

impl From<ReadError> for ExecutionError {
    fn from(error: ReadError) -> Self {
        Self::Machine(MachineError::State(error))
    }
}

impl ExecutionError {
    /// Whether the block is at fault, as opposed to the store or the caller.
    pub fn is_invalid_block(&self) -> bool {
        !matches!(self, Self::Machine(_))
    }
}

/// The state root of a block that is not finished: receipts before Byzantium carry one (EIP-658 ended that).
pub trait IntermediateRoots {
    /// Root of the state before the block with the block's changes so far. Asked for after every transaction; the
    /// implementation is the only one to call [`BlockState::take_recent`].
    fn root(&mut self, state: &mut BlockState<'_>) -> Result<B256, ReadError>;
}

/// What a block did.
#[derive(Debug)]
pub struct ExecutedBlock<'a> {
    /// One receipt a transaction.
    pub receipts: Vec<StoredReceipt>,
    /// Gas used by all transactions.
    pub gas_used: u64,
    /// Blob gas of all transactions.
    pub blob_gas_used: u64,
    /// Bloom of all logs.
    pub logs_bloom: Bloom,
    /// Requests to the consensus layer; `None` before Prague.
    pub requests: Option<Requests>,
    /// The changes.
    pub state: BlockState<'a>,
}

/// What the transactions of a block add up to, and what that leaves for the next.
pub(crate) struct Tally<'r> {
    spec: &'r ChainSpec,
    fork: Fork,
    header: &'r Header,
    receipts: Vec<StoredReceipt>,
    gas_used: u64,
    blob_gas_used: u64,
    deposits: Vec<u8>,
}

/// A block being executed.
pub struct BlockExecutor<'a, 'r> {
    pub(crate) machine: Machine<'a>,
    pub(crate) runner: Option<Arc<dyn FrameRunner>>,
    pub(crate) tally: Tally<'r>,
    roots: Option<&'r mut dyn IntermediateRoots>,
}

impl<'a, 'r> BlockExecutor<'a, 'r> {
    /// Starts a block: of `header` are used its number, times, beneficiary, limits, base fee, mix hash, difficulty,
    /// excess blob gas and parent roots.
    ///
    /// `roots` is needed before Byzantium where receipts must be complete; without it they carry no post state.
    pub fn new(
        spec: &'r ChainSpec,
        fork: Fork,
        header: &'r Header,
        reader: &'a dyn StateReader,
        roots: Option<&'r mut dyn IntermediateRoots>,
    ) -> Result<Self, ExecutionError> {
        let mut executor = Self::deferring_parent_hash(spec, fork, header, reader)?;
        executor.roots = roots.filter(|_| fork < Fork::Byzantium);
        if fork >= Fork::Prague && header.number != 0 {
            let parent = header.parent_hash.0.into();
            executor
                .machine
                .system_call(requests::HISTORY_STORAGE, parent)?;
        }
        Ok(executor)
    }

    /// As [`BlockExecutor::new`] without intermediate roots, for a block whose parent's hash is not known yet: the reader
    /// shows the state as the system call of EIP-2935 leaves it.
    pub(crate) fn deferring_parent_hash(
        spec: &'r ChainSpec,
        fork: Fork,
        header: &'r Header,
        reader: &'a dyn StateReader,
    ) -> Result<Self, ExecutionError> {
        let mut executor = Self::transactions_only(spec, fork, header, reader);
        let machine = &mut executor.machine;
        if spec.dao_support && spec.dao_block() == Some(header.number) {
            let mut total = U256::ZERO;
            let clear_empty = fork >= Fork::SpuriousDragon;
            for address in dao::DRAINED {
                total += machine.state_mut().drain(address, clear_empty)?;
            }
            machine.credit(dao::REFUND_CONTRACT, total)?;
        }
        // EIP-4788, EIP-2935: whatever these calls do, the block goes on.
        if let Some(root) = header
            .parent_beacon_block_root
            .filter(|_| fork >= Fork::Cancun && header.number != 0)
        {
            machine.system_call(requests::BEACON_ROOTS, root.0.into())?;
        }
        Ok(executor)
    }

    /// Starts a block without what comes before its first transaction, for blocks recorded without the state that needs.
    pub fn transactions_only(
        spec: &'r ChainSpec,
        fork: Fork,
        header: &'r Header,
        reader: &'a dyn StateReader,
    ) -> Self {
        let cfg = cfg_env(fork, spec.chain_id, spec.blob_params(fork));
        Self {
            machine: Machine::new(cfg, header::block_env(spec, fork, header), reader),
            runner: None,
            tally: Tally {
                spec,
                fork,
                header,
                receipts: Vec::new(),
                gas_used: 0,
                blob_gas_used: 0,
                deposits: Vec::new(),
            },
            roots: None,
        }
    }

    /// Runs frames by `runner` from now on.
    pub fn set_runner(&mut self, runner: Arc<dyn FrameRunner>) {
        self.machine.set_runner(Arc::clone(&runner));
        self.runner = Some(runner);
    }

    /// Ends the block without what comes after its last transaction.
    pub fn into_parts(self) -> (Vec<StoredReceipt>, BlockState<'a>) {
        (self.tally.receipts, self.machine.into_state())
    }

    /// Gas the next transactions may still ask for.
    pub fn gas_available(&self) -> u64 {
        self.tally.gas_available()
    }

    /// Gas used by the transactions so far.
    pub fn gas_used(&self) -> u64 {
        self.tally.gas_used
    }

    /// What the block has done to the state so far. [`BlockState::take_recent`] has one caller a block.
    pub fn state_mut(&mut self) -> &mut BlockState<'a> {
        self.machine.state_mut()
    }

    /// Receipts so far.
    pub fn receipts(&self) -> &[StoredReceipt] {
        &self.tally.receipts
    }

    /// The fork of the block.
    pub fn fork(&self) -> Fork {
        self.tally.fork
    }

    /// Executes the next transaction of the block and adds its receipt. After an error the block is as before it.
    pub fn transact(&mut self, tx: &Tx, sender: Address) -> Result<&StoredReceipt, ExecutionError> {
        self.tally.admit(tx)?;
        let deposits_before = self.tally.deposits.len();
        let tally = &mut self.tally;
        let executed = self
            .machine
            .execute_if(transaction::tx_env(tx, sender), |result| {
                tally.collect_deposits(result)
            });
        let result = match executed {
            Ok(Ok(result)) => result,
            Ok(Err(malformed)) => {
                self.tally.deposits.truncate(deposits_before);
                return Err(malformed.into());
            }
            Err(error) => return Err(self.tally.refusal(error)),
        };
        // Before it is counted: the root is of the state after the transaction, which the receipt does not change.
        let post_state = match self.roots.as_mut() {
            Some(roots) => Some(roots.root(self.machine.state_mut())?),
            None => None,
        };
        Ok(self.tally.count(tx, result, post_state))
    }

    /// Does what comes after the last transaction.
    pub fn finish(
        mut self,
        ommers: &[Header],
        withdrawals: Option<&[Withdrawal]>,
    ) -> Result<ExecutedBlock<'a>, ExecutionError> {
        for withdrawal in withdrawals.unwrap_or_default() {
            self.machine
                .credit(withdrawal.address, withdrawal.amount_wei())?;
        }
        let Tally { fork, header, .. } = self.tally;
        for (address, amount) in rewards::credits(fork, header, ommers) {
            self.machine.credit(address, amount)?;
        }
        let requests = if fork >= Fork::Prague {
            Some(self.requests()?)
        } else {
            None
        };
        Ok(ExecutedBlock {
            logs_bloom: receipt::logs_bloom(&self.tally.receipts),
            receipts: self.tally.receipts,
            gas_used: self.tally.gas_used,
            blob_gas_used: self.tally.blob_gas_used,
            requests,
            state: self.machine.into_state(),
        })
    }

    fn requests(&mut self) -> Result<Requests, ExecutionError> {
        let mut all = Requests::default();
        requests::push_requests(&mut all, requests::DEPOSIT_TYPE, &self.tally.deposits);
        for (ty, address) in requests::REQUEST_CONTRACTS {
            if !self.machine.state_mut().has_code(address)? {
                return Err(ExecutionError::SystemContractEmpty(address));
            }
            match self.machine.system_call(address, Bytes::new())? {
                ExecutionResult::Success { output, .. } => {
                    requests::push_requests(&mut all, ty, output.data())
                }
                _ => return Err(ExecutionError::SystemCallFailed(address)),
            }
        }
        Ok(all)
    }
}

impl Tally<'_> {
    /// Gas the next transactions may still ask for.
    pub(crate) fn gas_available(&self) -> u64 {
        self.header.gas_limit.saturating_sub(self.gas_used)
    }

    /// Checks what does not need the transaction to be executed.
    pub(crate) fn admit(&self, tx: &Tx) -> Result<(), ExecutionError> {
        let index = self.receipts.len();
        transaction::validate_signature(tx, self.fork, self.spec.chain_id)
            .map_err(|source| ExecutionError::Transaction { index, source })?;
        let available = self.gas_available();
        if tx.gas_limit() > available {
            return Err(ExecutionError::BlockGasExceeded {
                index,
                gas_limit: tx.gas_limit(),
                available,
            });
        }
        if let Some(blob_gas) = tx.blob_gas_used() {
            let available = self.blobs_available();
            let blobs = blob_gas / DATA_GAS_PER_BLOB;
            if blobs > available {
                return Err(ExecutionError::BlobGasExceeded {
                    index,
                    blobs,
                    available,
                });
            }
        }
        Ok(())
    }

    fn blobs_available(&self) -> u64 {
        let used = self.blob_gas_used / DATA_GAS_PER_BLOB;
        // Before Cancun there is no schedule, and the machine refuses the type.
        self.spec
            .blob_params(self.fork)
            .map_or(u64::MAX, |params| params.max.saturating_sub(used))
    }

    /// EIP-6110: takes the deposits out of the logs. After an error some may be taken.
    fn collect_deposits(&mut self, result: &ExecutionResult) -> Result<(), InvalidDepositEvent> {
        if self.fork < Fork::Prague || !result.is_success() {
            return Ok(());
        }
        let contract = self.spec.deposit_contract;
        requests::collect_deposits(contract, result.logs(), &mut self.deposits)
    }

    /// Takes the deposits of the next transaction, or none.
    pub(crate) fn take_deposits(&mut self, result: &ExecutionResult) -> Result<(), ExecutionError> {
        let before = self.deposits.len();
        self.collect_deposits(result).map_err(|malformed| {
            self.deposits.truncate(before);
            malformed.into()
        })
    }

    /// Why the next transaction cannot be executed.
    pub(crate) fn refusal(&self, error: MachineError) -> ExecutionError {
        match error {
            MachineError::Invalid(source) => ExecutionError::Invalid {
                index: self.receipts.len(),
                source,
            },
            other => ExecutionError::Machine(other),
        }
    }

    /// Adds the next transaction, whose deposits are taken.
    pub(crate) fn count(
        &mut self,
        tx: &Tx,
        result: ExecutionResult,
        post_state: Option<B256>,
    ) -> &StoredReceipt {
        let blob_gas = tx.blob_gas_used();
        self.gas_used += result.tx_gas_used();
        self.blob_gas_used += blob_gas.unwrap_or_default();
        let success = result.is_success();
        let (logs, contract_address) = outcome(result);
        self.receipts.push(StoredReceipt {
            tx_type: tx.ty(),
            success,
            cumulative_gas_used: self.gas_used,
            logs,
            contract_address,
            post_state,
            blob_gas_used: blob_gas,
            blob_gas_price: blob_gas.and_then(|_| {
                header::blob_gas_price(self.spec, self.fork, self.header.excess_blob_gas?)
            }),
        });
        let last = self.receipts.len() - 1;
        &self.receipts[last]
    }
}

/// Logs and created contract of a result. A failed transaction leaves neither.
fn outcome(result: ExecutionResult) -> (Vec<Log>, Option<Address>) {
    match result {
        ExecutionResult::Success {
            logs,
            output: Output::Create(_, created),
            ..
        } => (logs, created),
        ExecutionResult::Success { logs, .. } => (logs, None),
        ExecutionResult::Revert { .. } | ExecutionResult::Halt { .. } => (Vec::new(), None),
    }
}
