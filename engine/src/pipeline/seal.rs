//! The second and the third step of a block: its roots and hash, and the durable write.

use std::sync::Arc;

use alloy_consensus::{Block, Header};
use alloy_primitives::{Address, B256, U256};
use zvm_storage::{
    AccountChange, Batch, BlockRecord, Layered, Snapshot, StateDiff, StoreError, StoredReceipt,
};

use super::execute::{Executed, durable_head};
use super::flight::Flight;
use crate::chain::{Chain, ChainError, Head, Imported, TOTAL_DIFFICULTY, TxBlock};
use crate::header;
use crate::history;
use crate::receipt::receipts_root;
use crate::requests::HISTORY_STORAGE;

/// The writes of a sealed block.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) number: u64,
    pub(crate) batch: Arc<Batch>,
}

/// A block that is complete.
#[derive(Debug)]
pub(crate) struct Sealed {
    block: TxBlock,
    hash: B256,
    senders: Vec<Address>,
    receipts: Vec<StoredReceipt>,
    batch: Arc<Batch>,
    flight: Arc<Flight>,
}

impl Sealed {
    pub(crate) fn layer(&self) -> Layer {
        Layer {
            number: self.block.header.number,
            batch: Arc::clone(&self.batch),
        }
    }

    /// What its child knew of it.
    pub(crate) fn flight(&self) -> &Arc<Flight> {
        &self.flight
    }
}

impl Chain {
    /// Computes the roots and the hash of a block whose parent is sealed. `below` are the sealed blocks before it in the
    /// order of their numbers, of which the store may have made the first ones durable.
    pub(crate) fn seal(&self, executed: Executed, below: &[Layer]) -> Result<Sealed, ChainError> {
        let Executed {
            parent,
            fork,
            flight,
            body,
            senders,
            receipts,
            logs_bloom,
            requests,
        } = executed;
        let parent_hash = parent.hash()?;
        let snapshot = self.snapshot()?;
        let (durable, _) = durable_head(&*snapshot)?;
        let first = below.partition_point(|layer| layer.number <= durable);
        let mut batch = Batch::new();
        let state_root = on_layers(&*snapshot, &below[first..], &mut |before| {
            let root = zvm_storage::apply_state(before, &flight.changes, &mut batch)?;
            if !flight.defers {
                return Ok(root);
            }
            let mut later = Batch::new();
            let root = write_parent_hash(
                &Layered::new(before, &batch),
                flight.number(),
                parent_hash,
                &mut later,
            )?;
            batch.append(later);
            Ok(root)
        })?;
        let header = Header {
            parent_hash,
            state_root,
            transactions_root: alloy_consensus::proofs::calculate_transaction_root(
                &body.transactions,
            ),
            receipts_root: receipts_root(&receipts),
            logs_bloom,
            requests_hash: requests.map(|requests| requests.requests_hash()),
            ..(*flight.header).clone()
        };
        // The source decides how many bytes there are; a block every other node refuses must not become the head.
        header::validate_body(fork, &header, &body)?;
        let block = Block { header, body };
        let hash = block.header.hash_slow();
        let record = BlockRecord {
            header: &block.header,
            hash,
            body: &block.body,
            receipts: &receipts,
            senders: &senders,
        };
        on_layers(&*snapshot, &below[first..], &mut |before| {
            history::record_block(before, &mut batch, &record, self.retention())
        })?;
        // A store does not grow while its writer holds a snapshot.
        drop(snapshot);
        zvm_storage::put_meta(
            &mut batch,
            TOTAL_DIFFICULTY,
            &flight.total_difficulty.to_be_bytes::<32>(),
        );
        flight.land(Some(hash));
        Ok(Sealed {
            block,
            hash,
            senders,
            receipts,
            batch: Arc::new(batch),
            flight,
        })
    }

    /// Makes a sealed block durable and the head.
    ///
    /// # Errors
    /// [`ChainError::NotOnHead`]: another block has become the head.
    pub(crate) fn append(&self, sealed: Sealed) -> Result<Imported, ChainError> {
        let Sealed {
            block,
            hash,
            senders,
            receipts,
            batch,
            flight,
        } = sealed;
        let head = Head {
            header: Arc::new(block.header.clone()),
            hash,
            total_difficulty: flight.total_difficulty,
        };
        self.advance_head(head, &batch)?;
        Ok(Imported {
            block,
            hash,
            senders,
            receipts,
        })
    }
}

/// Calls `with` with `base` as it will be once the layers are committed on it.
fn on_layers<T>(
    base: &dyn Snapshot,
    layers: &[Layer],
    with: &mut dyn FnMut(&dyn Snapshot) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    match layers.split_first() {
        Some((first, above)) => on_layers(&Layered::new(base, &first.batch), above, with),
        None => with(base),
    }
}

/// What the system call of EIP-2935 does at the start of block `number`.
fn write_parent_hash(
    state: &dyn Snapshot,
    number: u64,
    parent_hash: B256,
    batch: &mut Batch,
) -> Result<B256, StoreError> {
    let slot = U256::from((number - 1) % super::view::HISTORY_SERVE_WINDOW);
    let change = AccountChange {
        info: zvm_storage::read_account(state, &HISTORY_STORAGE)?,
        wipe_storage: false,
        slots: [(slot, U256::from_be_bytes(parent_hash.0))].into(),
    };
    let mut diff = StateDiff::default();
    diff.accounts.insert(HISTORY_STORAGE, change);
    zvm_storage::apply_state(state, &diff, batch)
}
