//! The first step of a block: its transactions.

use std::sync::Arc;

use alloy_consensus::BlockBody;
use alloy_eips::eip4895::Withdrawals;
use alloy_eips::eip7685::Requests;
use alloy_primitives::{Address, B256, Bloom};
use zvm_runtimes::evm::Fork;
use zvm_storage::{Snapshot, StoreError, StoredReceipt, Table};

use super::flight::{Flight, Parent};
use super::view::FlightView;
use crate::builder::{BlockTemplate, Skipped, TransactionSource};
use crate::chain::{Chain, ChainError};
use crate::executor::BlockExecutor;
use crate::header;
use crate::roots::SnapshotRoots;
use crate::transaction::Tx;
use crate::view::{StateView, state_diff};

/// A block whose transactions have been executed.
#[derive(Debug)]
pub(crate) struct Executed {
    pub(super) parent: Parent,
    pub(super) fork: Fork,
    pub(super) flight: Arc<Flight>,
    pub(super) body: BlockBody<Tx>,
    pub(super) senders: Vec<Address>,
    pub(super) receipts: Vec<StoredReceipt>,
    pub(super) logs_bloom: Bloom,
    pub(super) requests: Option<Requests>,
}

impl Executed {
    /// What the next block sees of it.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }

    /// How many transactions it has.
    pub(crate) fn transactions(&self) -> usize {
        self.body.transactions.len()
    }
}

impl Chain {
    /// Executes a block on top of `parent` from the transactions `source` offers. `flights` are the blocks in flight in
    /// the order of their numbers, of which the store may have made the first ones durable; `parent` is the last.
    ///
    /// A transaction that is not valid here is reported to the source and left out.
    pub(crate) fn execute(
        &self,
        parent: Parent,
        flights: &[Arc<Flight>],
        template: &BlockTemplate,
        source: &mut dyn TransactionSource,
    ) -> Result<Executed, ChainError> {
        let above = parent.header();
        let timestamp = template.timestamp.max(above.timestamp.saturating_add(1));
        let fork = self.fork_on(above, parent.total_difficulty(), timestamp);
        let mut header = template.header(self.spec(), fork, above, timestamp);
        // Its parent's hash is checked against itself here: it is not known, and it is what sealing says it is.
        header::validate_header(self.spec(), fork, &header, above, header.parent_hash)?;

        let snapshot = self.snapshot()?;
        let durable = durable_head(&*snapshot)?;
        let base = StateView::new(&*snapshot, self.codes()).with_fork(fork);
        let mut view = FlightView::new(base, &*snapshot, durable, flights);
        let defers = fork >= Fork::Prague
            && matches!(parent, Parent::InFlight(_))
            && view
                .defer_parent_hash()
                .map_err(crate::executor::ExecutionError::from)?;
        if !defers {
            header.parent_hash = parent.hash()?;
        }
        let preliminary = header.clone();
        let mut roots = SnapshotRoots::new(&*snapshot);
        let mut executor = if defers {
            BlockExecutor::deferring_parent_hash(self.spec(), fork, &preliminary, &view)?
        } else {
            BlockExecutor::new(self.spec(), fork, &preliminary, &view, Some(&mut roots))?
        };
        if let Some(runner) = self.runner() {
            executor.set_runner(Arc::clone(runner));
        }
        let mut transactions = Vec::new();
        let mut senders = Vec::new();
        while let Some(recovered) = source.next(executor.gas_available()) {
            match executor.transact(recovered.inner(), recovered.signer()) {
                Ok(_) => {
                    let (tx, sender) = recovered.into_parts();
                    transactions.push(tx);
                    senders.push(sender);
                }
                Err(error) if error.is_invalid_block() => {
                    source.skipped(recovered, Skipped::from(error))
                }
                Err(error) => return Err(error.into()),
            }
        }
        if template.not_empty && transactions.is_empty() {
            return Err(ChainError::NothingIncluded);
        }
        let withdrawals = (fork >= Fork::Shanghai).then(Withdrawals::default);
        let executed = executor.finish(
            &[],
            withdrawals.as_ref().map(|withdrawals| &withdrawals.0[..]),
        )?;
        header.gas_used = executed.gas_used;
        header.blob_gas_used = header.blob_gas_used.map(|_| executed.blob_gas_used);
        let total_difficulty = parent.total_difficulty().saturating_add(header.difficulty);
        let changes = state_diff(&executed.state);
        Ok(Executed {
            fork,
            flight: Arc::new(Flight::new(header, total_difficulty, changes, defers)),
            parent,
            body: BlockBody {
                transactions,
                ommers: Vec::new(),
                withdrawals,
            },
            senders,
            receipts: executed.receipts,
            logs_bloom: executed.logs_bloom,
            requests: executed.requests,
        })
    }
}

/// The head that a snapshot shows.
pub(super) fn durable_head(snapshot: &dyn Snapshot) -> Result<(u64, B256), StoreError> {
    zvm_storage::head(snapshot)?.ok_or_else(|| StoreError::Corrupt {
        table: Table::Meta,
        key: "head".into(),
        reason: "is not there".into(),
    })
}
