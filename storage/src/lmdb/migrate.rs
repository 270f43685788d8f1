//! Bringing a store of an older schema version to this one.

use super::{LmdbOptions, LmdbStore, open};
use crate::contract::{Creation, Deployment, put_deployment};
use crate::history::{Retained, put_retained};
use crate::index::{self, Indexed};
use crate::meta::SCHEMA;
use crate::rows::first_from;
use crate::{
    Batch, SCHEMA_VERSION, Snapshot, Store, StoreError, Table, body, read_account, read_code,
    receipts, senders,
};
use alloy_primitives::KECCAK256_EMPTY;

/// The oldest version that is brought up.
const OLDEST: u32 = 1;
/// Bytes of a batch, about.
const BATCH_BYTES: usize = 8 << 20;

/// What a migration did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Version before.
    pub from: u32,
    /// Version now.
    pub to: u32,
    /// Blocks that were indexed.
    pub blocks: u64,
}

impl LmdbStore {
    /// Brings the store in a folder to this build's schema version; one that has it is left as it is. `format` tells
    /// the runtime of a code, as deployments name it.
    ///
    /// From version 1: transactions by address, logs and deployments by transactions are indexed. The state of past
    /// blocks was not recorded and begins with the head.
    ///
    /// The version is written with the last commit, and nothing that version 1 reads is changed: after a crash or an
    /// error the migration is started again.
    ///
    /// # Errors
    /// [`StoreError::SchemaVersion`] for a version that is not known; as [`LmdbStore::open`] and [`Store::commit`].
    pub fn migrate(
        options: LmdbOptions,
        format: &dyn Fn(&[u8]) -> u8,
    ) -> Result<Migrated, StoreError> {
        let (store, from) = open::open_from(options, OLDEST)?;
        let mut blocks = 0;
        if from < SCHEMA_VERSION {
            blocks = index_blocks(&store, format)?;
            let mut batch = Batch::new();
            batch.put(Table::Meta, SCHEMA, SCHEMA_VERSION.to_be_bytes());
            let snapshot = store.snapshot()?;
            if let Some((head, _)) = crate::head(&*snapshot)? {
                let kept = Retained {
                    state: head,
                    blocks: first_block(&*snapshot)?.unwrap_or(head),
                };
                put_retained(&mut batch, &kept);
            }
            drop(snapshot);
            store.commit(&batch)?;
        }
        Ok(Migrated {
            from,
            to: SCHEMA_VERSION,
            blocks,
        })
    }
}

fn first_block(snapshot: &dyn Snapshot) -> Result<Option<u64>, StoreError> {
    first_from(snapshot, Table::Headers, &[], |key, _| {
        key.first_chunk::<8>()
            .map(|block| u64::from_be_bytes(*block))
    })
}

fn index_blocks(store: &LmdbStore, format: &dyn Fn(&[u8]) -> u8) -> Result<u64, StoreError> {
    let snapshot = store.snapshot()?;
    let range = first_block(&*snapshot)?.zip(crate::head(&*snapshot)?);
    drop(snapshot);
    let Some((first, (last, _))) = range else {
        return Ok(0);
    };
    let mut batch = Batch::new();
    let mut bytes = 0;
    for number in first..=last {
        let snapshot = store.snapshot()?;
        bytes += index_block(&*snapshot, number, format, &mut batch)?;
        drop(snapshot);
        if bytes >= BATCH_BYTES {
            store.commit(&core::mem::take(&mut batch))?;
            bytes = 0;
        }
    }
    store.commit(&batch)?;
    Ok(last - first + 1)
}

/// Returns the bytes added.
fn index_block(
    snapshot: &dyn Snapshot,
    number: u64,
    format: &dyn Fn(&[u8]) -> u8,
    batch: &mut Batch,
) -> Result<usize, StoreError> {
    let missing = || StoreError::corrupt(Table::Bodies, &number.to_be_bytes(), "is missing");
    let body = body(snapshot, number)?.ok_or_else(missing)?;
    let receipts = receipts(snapshot, number)?.ok_or_else(missing)?;
    let senders = senders(snapshot, number)?.ok_or_else(missing)?;
    let indexed = Indexed {
        number,
        body: &body,
        receipts: &receipts,
        senders: &senders,
    };
    let mut bytes = 0;
    for (table, key, value) in index::entries(&indexed) {
        bytes += key.len() + value.len();
        batch.put(table, key, value);
    }
    for ((index, receipt), deployer) in (0..).zip(&receipts).zip(&senders) {
        let Some(address) = receipt.contract_address.filter(|_| receipt.success) else {
            continue;
        };
        let account = read_account(snapshot, &address)?;
        let Some(account) = account.filter(|account| account.code_hash != KECCAK256_EMPTY) else {
            continue;
        };
        let code = read_code(snapshot, &account.code_hash)?.unwrap_or_default();
        let deployment = Deployment {
            block: number,
            format: format(&code),
            code_hash: account.code_hash,
            creation: Some(Creation {
                index,
                deployer: *deployer,
            }),
        };
        put_deployment(batch, &address, &deployment);
        bytes += 85;
    }
    Ok(bytes)
}
