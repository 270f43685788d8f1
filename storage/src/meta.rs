//! The meta table: what the store and the node keep by name.

use crate::{Batch, Snapshot, StoreError, Table};
use alloy_primitives::{B256, Bytes};

/// Version of the layouts in this crate. It changes whenever a table's key or value does.
pub const SCHEMA_VERSION: u32 = 2;

/// Name of the schema version (4 bytes, big-endian).
pub(crate) const SCHEMA: &[u8] = b"schema";
/// Name of what ties the tables to their journal: store (8), number of the last commit in the tables (8, big-endian).
pub(crate) const JOURNAL: &[u8] = b"journal";
/// Name of the chain head: block number (8, big-endian), block hash (32).
pub(crate) const HEAD: &[u8] = b"head";
/// Before a name that the node chose, so that it never meets one of the store's own.
const NODE: &[u8] = b"node/";

fn node_key(name: &str) -> Vec<u8> {
    [NODE, name.as_bytes()].concat()
}

/// Keeps `value` under `name`.
pub fn put_meta(batch: &mut Batch, name: &str, value: &[u8]) {
    batch.put(Table::Meta, node_key(name), value);
}

/// What [`put_meta`] keeps under `name`.
///
/// # Errors
/// [`StoreError::Lmdb`].
pub fn get_meta(snapshot: &dyn Snapshot, name: &str) -> Result<Option<Bytes>, StoreError> {
    let value = snapshot.get(Table::Meta, &node_key(name))?;
    Ok(value.map(|value| Bytes::from(value.into_owned())))
}

/// Names `number` and `hash` as the head of the chain.
pub fn put_head(batch: &mut Batch, number: u64, hash: B256) {
    batch.put(Table::Meta, HEAD, encode_head(number, hash));
}

/// The value under [`HEAD`].
pub(crate) fn encode_head(number: u64, hash: B256) -> Vec<u8> {
    [&number.to_be_bytes()[..], hash.as_slice()].concat()
}

/// Number of the head, 0 in an empty store.
pub(crate) fn head_number(snapshot: &dyn Snapshot) -> Result<u64, StoreError> {
    Ok(head(snapshot)?.map_or(0, |(number, _)| number))
}

/// Number and hash of the head of the chain, `None` in an empty store.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn head(snapshot: &dyn Snapshot) -> Result<Option<(u64, B256)>, StoreError> {
    let Some(value) = snapshot.get(Table::Meta, HEAD)? else {
        return Ok(None);
    };
    match value.split_first_chunk::<8>() {
        Some((number, hash)) if hash.len() == 32 => {
            Ok(Some((u64::from_be_bytes(*number), B256::from_slice(hash))))
        }
        _ => Err(StoreError::corrupt(Table::Meta, HEAD, "not 40 bytes")),
    }
}
