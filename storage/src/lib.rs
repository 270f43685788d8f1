//! Durable state: a store of ordered tables with snapshots and atomic batches, in memory or in LMDB; on it the state
//! with its incremental trie, and the chain tables.
//!
//! A block is stored in three steps: [`apply_state`] and [`put_block`] fill a [`Batch`] from a [`Snapshot`], and
//! [`Store::commit`] writes it. Layouts and promises are in `docs/storage.md`.

#![deny(unsafe_code, missing_docs)]

mod account;
mod batch;
mod chain;
mod contract;
mod dump;
mod error;
mod faults;
mod history;
mod index;
mod journaled;
mod layered;
mod lmdb;
mod memory;
mod meta;
mod proof;
mod readers;
mod rebuild;
mod receipt;
mod root_task;
mod rows;
mod state;
mod store;
mod stored_trie;
mod table;
mod trie;
mod verify;

pub use crate::journaled::{JournalStatistics, JournaledOptions, JournaledStore, Recovery};
pub use crate::lmdb::{Compacted, Durability, LmdbOptions, LmdbStore, Migrated};
pub use account::{AccountInfo, has_storage, read_account, read_code, read_slot, storage_root};
pub use batch::Batch;
pub use chain::{
    BlockRecord, BlockTransaction, TransactionLocation, block_hash, block_number, body, header,
    header_by_hash, put_block, receipts, remove_block, sealed_header, senders,
    transaction_location,
};
pub use contract::{Creation, Deployment, MAX_ABI, abi, deployment, put_abi, put_deployment};
pub use dump::{DumpError, Dumped, EXPORT_MAGIC, export, read_export};
pub use error::StoreError;
pub use faults::FAULT_POINTS;
pub use history::{
    BlockChanges, Pruned, Retained, Retention, StateAt, prune, record_changes, retained,
    unwind_block,
};
pub use index::{LogQuery, Role, matching_blocks, transactions_of};
pub use layered::Layered;
pub use memory::MemoryStore;
pub use meta::{SCHEMA_VERSION, get_meta, head, put_head, put_meta};
pub use proof::{AccountProof, DEFAULT_PROOF_CHANGES, SlotProof, account_proof};
pub use rebuild::{rebuild_root, state_root_of};
pub use receipt::StoredReceipt;
pub use root_task::RootTask;
pub use state::{AccountChange, StateDiff, apply_state, state_root};
pub use store::{Snapshot, Store, TableStats, Visitor};
pub use table::{TABLES, Table, TableFacts};
pub use verify::{Fault, ReceiptsRoot, Verification, verify};
