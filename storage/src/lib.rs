//! Durable state: a store of ordered tables with snapshots and atomic batches, in memory or in LMDB; on it the state
//! with its incremental trie, and the chain tables.
//!
//! A block is stored in three steps: [`apply_state`] and [`put_block`] fill a [`Batch`] from a [`Snapshot`], and
//! [`Store::commit`] writes it. Layouts and promises are in `docs/storage.md`.

#![deny(unsafe_code, missing_docs)]

mod account;
mod batch;
mod chain;
mod error;
mod faults;
mod journaled;
mod layered;
mod lmdb;
mod memory;
mod meta;
mod rebuild;
mod receipt;
mod state;
mod store;
mod table;
mod trie;

pub use crate::journaled::{JournalStatistics, JournaledOptions, JournaledStore, Recovery};
pub use crate::lmdb::{Durability, LmdbOptions, LmdbStore};
pub use account::{AccountInfo, has_storage, read_account, read_code, read_slot, storage_root};
pub use batch::Batch;
pub use chain::{
    BlockRecord, BlockTransaction, TransactionLocation, block_hash, block_number, body, header,
    header_by_hash, put_block, receipts, remove_block, sealed_header, senders,
    transaction_location,
};
pub use error::StoreError;
pub use faults::FAULT_POINTS;
pub use layered::Layered;
pub use memory::MemoryStore;
pub use meta::{SCHEMA_VERSION, get_meta, head, put_head, put_meta};
pub use rebuild::{rebuild_root, state_root_of};
pub use receipt::StoredReceipt;
pub use state::{AccountChange, StateDiff, apply_state, state_root};
pub use store::{Snapshot, Store, TableStats, Visitor};
pub use table::{TABLES, Table, TableFacts};
