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
mod worker;

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use alloy_eip7928::AccountChanges;
use alloy_primitives::{Address, U256};
use zvm_runtimes::evm::{Access, Fork, ReadError, StateReader, Versions};
use zvm_storage::StoredReceipt;

use crate::executor::{BlockExecutor, ExecutionError};
use crate::transaction::Tx;

pub use access_list::AccessListBuilder;

/// How many transactions run ahead of what is committed, by default and for each worker: a long one at the head must not keep
/// the others waiting.
pub const DEFAULT_WINDOW: usize = 32;
/// Blocks of fewer transactions are executed in order, by default: waking another worker costs more.
pub const DEFAULT_LEAST: usize = 8;

/// Transactions that go by the plain loop when they turn out to go one after the other anyway; twice as many each time.
const IN_ORDER: usize = 128;

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
            window: DEFAULT_WINDOW.saturating_mul(workers.get()),
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
    /// Transactions executed by the plain loop.
    pub in_order: u64,
}

impl Statistics {
    fn add(&mut self, part: &Self) {
        self.transactions += part.transactions;
        self.executions += part.executions;
        self.conflicts += part.conflicts;
        self.in_order += part.in_order;
    }
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
        self.transact_listed(transactions, None, readers, parallel, mode, stream)
    }

    /// The same with the block's access list (EIP-7928), which tells every transaction what those before it do: nothing waits for
    /// anything and nothing is learnt about conflicts. A list that does not tell the truth costs time and changes nothing;
    /// whether it is the block's is to be checked against the one that [`AccessListBuilder`] collects.
    ///
    /// # Errors
    /// As [`BlockExecutor::transact_all`].
    pub fn transact_listed(
        &mut self,
        transactions: &[(&Tx, Address)],
        list: Option<&[AccountChanges]>,
        readers: &dyn Readers,
        parallel: &Parallel,
        mode: Mode,
        stream: &mut dyn Stream,
    ) -> Result<Statistics, ExecutionError> {
        let wants = stream.wants_accesses();
        let alone = parallel.workers.get() == 1 || transactions.len() < parallel.least;
        if self.fork() < Fork::Byzantium || (alone && !wants) || transactions.is_empty() {
            return self.transact_loop(transactions, 0..transactions.len(), mode, stream);
        }
        let mut total = Statistics::default();
        let mut in_order = IN_ORDER;
        let mut done = 0;
        while done < transactions.len() {
            let part =
                self.transact_spread(transactions, done, list, readers, parallel, mode, stream)?;
            total.add(&part);
            done += part.transactions as usize;
            if done < transactions.len() {
                // They go one after the other: then the plain loop is the quickest way. After a while it is tried again.
                let until = transactions.len().min(done + in_order);
                total.add(&self.transact_loop(transactions, done..until, mode, stream)?);
                done = until;
                in_order *= 2;
            }
        }
        Ok(total)
    }

    /// Executes the transactions from `first` on by several workers, until the last or until that is of no use.
    #[expect(clippy::too_many_arguments, reason = "the parts of one call")]
    fn transact_spread(
        &mut self,
        transactions: &[(&Tx, Address)],
        first: usize,
        list: Option<&[AccountChanges]>,
        readers: &dyn Readers,
        parallel: &Parallel,
        mode: Mode,
        stream: &mut dyn Stream,
    ) -> Result<Statistics, ExecutionError> {
        let block = self.machine.block().clone();
        let cfg = self.machine.cfg().clone();
        let rest = &transactions[first..];
        let window = parallel.window.clamp(1, rest.len());
        let wants = stream.wants_accesses();
        let state = self.machine.state_mut();
        let mut versions = Versions::new(state, block.beneficiary, window);
        if let Some(list) = list {
            let (foreseen, codes) = access_list::foreseen(list, first);
            versions = versions.foresee(foreseen, codes);
        }
        let statistics = worker::run(
            worker::Block {
                transactions: rest,
                readers,
                cfg,
                block,
                runner: self.runner.clone(),
                mode,
                foreseen: list.is_some(),
            },
            parallel,
            window,
            &versions,
            worker::Committer {
                tally: &mut self.tally,
                stream,
                wants,
                first,
            },
        );
        versions.finish(self.machine.state_mut());
        statistics
    }

    /// The plain loop.
    fn transact_loop(
        &mut self,
        transactions: &[(&Tx, Address)],
        range: Range<usize>,
        mode: Mode,
        stream: &mut dyn Stream,
    ) -> Result<Statistics, ExecutionError> {
        let count = range.len() as u64;
        for index in range {
            let (tx, sender) = transactions[index];
            match self.transact(tx, sender) {
                Ok(receipt) => stream.included(index, receipt),
                Err(error) if mode == Mode::Building && error.is_invalid_block() => {
                    stream.skipped(index, error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Statistics {
            transactions: count,
            executions: count,
            conflicts: 0,
            in_order: count,
        })
    }
}
