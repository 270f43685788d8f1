//! Parallel execution: the transactions of a block on several cores, with the result of executing them in order.
//!
//! Workers execute transactions before their turn on what [`Versions`] shows of those before them, and publish what they did.
//! In its turn each transaction is decided about: what it knew of the state is compared, by value, with what is committed. If it
//! holds, its changes are committed; if not, it is executed again, now in its turn, and nothing can come in between. So a
//! transaction is executed at most twice, and receipts and changes leave in order as soon as they are certain ([`Stream`]).
//!
//! ```text
//! schedule (who does what) ◄── contention (what is in whose way)
//!    │ execute i, i+1 …                 ▲
//!    ▼                                  │ held, failed
//! workers ──► versions ──► commit, in order ──► stream: receipts, logs, changes
//! ```

mod access_list;
mod contention;
mod schedule;
pub mod simulate;
#[cfg(test)]
mod tests;
mod worker;

use std::num::NonZeroUsize;
use std::sync::Arc;

use alloy_primitives::{Address, U256};
use zvm_runtimes::evm::{Access, Fork, ReadError, StateReader, Versions};
use zvm_storage::StoredReceipt;

use crate::executor::{BlockExecutor, ExecutionError};
use crate::transaction::Tx;

pub use access_list::AccessListBuilder;

/// How many transactions run ahead of what is committed, by default.
pub const DEFAULT_WINDOW: usize = 64;
/// Blocks of fewer transactions are executed in order, by default: waking another worker costs more.
pub const DEFAULT_LEAST: usize = 8;

/// How a block is spread over cores.
#[derive(Debug, Clone)]
pub struct Parallel {
    /// Threads that execute, the caller's among them. One executes in order, as a loop.
    pub workers: NonZeroUsize,
    /// Transactions that run ahead of what is committed. It bounds the memory.
    pub window: usize,
    /// Blocks of fewer transactions are executed in order.
    pub least: usize,
    /// Where the other workers run; the global pool of rayon by default.
    pub pool: Option<Arc<rayon::ThreadPool>>,
    /// For tests: workers pause at random, by this seed.
    pub disturb: Option<u64>,
}

impl Default for Parallel {
    /// One worker.
    fn default() -> Self {
        Self::with_workers(NonZeroUsize::MIN)
    }
}

impl Parallel {
    /// So many workers, and the defaults.
    pub fn with_workers(workers: NonZeroUsize) -> Self {
        Self {
            workers,
            window: DEFAULT_WINDOW,
            least: DEFAULT_LEAST,
            pool: None,
            disturb: None,
        }
    }
}

/// What an invalid transaction means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The block was made by others: it is invalid.
    Following,
    /// We make the block: the transaction is left out, with the reason, and the block goes on.
    Building,
}

/// The state before the block for several threads: each reads by a reader of its own, and all readers show the same.
pub trait Readers: Sync {
    /// A reader for one thread.
    ///
    /// # Errors
    /// The store has no more readers to give.
    fn open(&self) -> Result<Box<dyn StateReader + '_>, ReadError>;
}

impl<R: StateReader + Sync> Readers for R {
    fn open(&self) -> Result<Box<dyn StateReader + '_>, ReadError> {
        Ok(Box::new(self))
    }
}

/// Where the certain results go, in the order of the block and while later transactions still run.
pub trait Stream: Send {
    /// A transaction is part of the block.
    fn included(&mut self, index: usize, receipt: &StoredReceipt) {
        let _ = (index, receipt);
    }
    /// A transaction was left out ([`Mode::Building`] only).
    fn skipped(&mut self, index: usize, why: ExecutionError) {
        let _ = (index, why);
    }
    /// Whether [`Stream::accesses`] is to be called. It costs time, and a block is then not executed by the plain loop.
    fn wants_accesses(&self) -> bool {
        false
    }
    /// What the transaction that is included next reads and changes.
    fn accesses(&mut self, index: usize, changes: Changes<'_>) {
        let _ = (index, changes);
    }
}

/// Hears nothing.
impl Stream for () {}

/// What a transaction reads and changes.
pub struct Changes<'c> {
    /// The accounts it came across.
    pub accounts: Vec<Access<'c>>,
    /// The beneficiary and its balance before and after the fee, where it is not among the accounts.
    pub fee: Option<(Address, U256, U256)>,
}

/// How a block was executed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Transactions decided about.
    pub transactions: u64,
    /// Executions of transactions.
    pub executions: u64,
    /// Transactions that had read what was not so in their turn.
    pub conflicts: u64,
    /// The block was executed by the plain loop.
    pub in_order: bool,
}

impl BlockExecutor<'_, '_> {
    /// Executes the next transactions of the block, in order or with the same result, and adds their receipts.
    ///
    /// Blocks before Byzantium are executed in order: their receipts carry a state root after every transaction.
    ///
    /// # Errors
    /// In [`Mode::Following`] the first invalid transaction; the block is then of no use. The state could not be read.
    pub fn transact_all(
        &mut self,
        transactions: &[(&Tx, Address)],
        readers: &dyn Readers,
        parallel: &Parallel,
        mode: Mode,
        stream: &mut dyn Stream,
    ) -> Result<Statistics, ExecutionError> {
        let wants = stream.wants_accesses();
        let alone = parallel.workers.get() == 1 || transactions.len() < parallel.least;
        if self.fork() < Fork::Byzantium || (alone && !wants) || transactions.is_empty() {
            return self.transact_in_order(transactions, mode, stream);
        }
        let block = self.machine.block().clone();
        let cfg = self.machine.cfg().clone();
        let window = parallel.window.clamp(1, transactions.len());
        let state = self.machine.state_mut();
        let versions = Versions::new(state, block.beneficiary, window);
        let statistics = worker::run(
            worker::Block {
                transactions,
                readers,
                cfg,
                block,
                runner: self.runner.clone(),
                mode,
            },
            parallel,
            window,
            &versions,
            worker::Committer {
                tally: &mut self.tally,
                stream,
                wants,
            },
        );
        versions.finish(self.machine.state_mut());
        statistics
    }

    fn transact_in_order(
        &mut self,
        transactions: &[(&Tx, Address)],
        mode: Mode,
        stream: &mut dyn Stream,
    ) -> Result<Statistics, ExecutionError> {
        for (index, (tx, sender)) in transactions.iter().enumerate() {
            match self.transact(tx, *sender) {
                Ok(receipt) => stream.included(index, receipt),
                Err(error) if mode == Mode::Building && error.is_invalid_block() => {
                    stream.skipped(index, error);
                }
                Err(error) => return Err(error),
            }
        }
        let count = transactions.len() as u64;
        Ok(Statistics {
            transactions: count,
            executions: count,
            conflicts: 0,
            in_order: true,
        })
    }
}
