//! The state after a past block, as a snapshot.

use super::{history_key, history_of, retained, split_history_key};
use crate::meta::{HEAD, encode_head};
use crate::rows::{Row, Rows, first_from};
use crate::{Snapshot, StoreError, Table, Visitor, block_hash};
use alloy_primitives::B256;
use std::borrow::Cow;

/// A store as it was after block `number`: accounts and slots of then, and a head that is that block. What blocks do not
/// change (codes, headers and bodies, also of later blocks) shows as in the snapshot below. Trie nodes cannot be read.
///
/// A read costs one seek in the history, and one more read if nothing changed since.
pub struct StateAt<'a> {
    base: Base<'a>,
    number: u64,
    hash: B256,
}

enum Base<'a> {
    Owned(Box<dyn Snapshot + 'a>),
    Borrowed(&'a dyn Snapshot),
}

impl<'a> StateAt<'a> {
    /// The state after block `number` of the chain in `snapshot`.
    ///
    /// # Errors
    /// [`StoreError::NotRetained`] names the blocks whose states are kept; [`StoreError::Corrupt`],
    /// [`StoreError::Lmdb`].
    pub fn new(snapshot: Box<dyn Snapshot + 'a>, number: u64) -> Result<Self, StoreError> {
        let hash = check(&*snapshot, number)?;
        Ok(Self {
            base: Base::Owned(snapshot),
            number,
            hash,
        })
    }

    /// As [`StateAt::new`], on a snapshot that is lent.
    ///
    /// # Errors
    /// As [`StateAt::new`].
    pub fn on(snapshot: &'a dyn Snapshot, number: u64) -> Result<Self, StoreError> {
        let hash = check(snapshot, number)?;
        Ok(Self {
            base: Base::Borrowed(snapshot),
            number,
            hash,
        })
    }

    /// The block after which the state is.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn base(&self) -> &dyn Snapshot {
        match &self.base {
            Base::Owned(base) => &**base,
            Base::Borrowed(base) => *base,
        }
    }
}

/// The hash of the block, if its state is kept.
fn check(snapshot: &dyn Snapshot, number: u64) -> Result<B256, StoreError> {
    retained(snapshot)?.check_state(snapshot, number)?;
    block_hash(snapshot, number)?.ok_or_else(|| {
        let key = number.to_be_bytes();
        StoreError::corrupt(Table::Headers, &key, "the header is missing")
    })
}

impl Snapshot for StateAt<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        match table {
            Table::Meta if key == HEAD => Ok(Some(Cow::Owned(encode_head(self.number, self.hash)))),
            Table::AccountTrie | Table::StorageTrie => Err(StoreError::PastTrie),
            table => {
                let Some(history) = history_of(table) else {
                    return self.base().get(table, key);
                };
                match value_before_next_change(self.base(), history, key, self.number)? {
                    Some(before) => Ok(Some(before)
                        .filter(|before| !before.is_empty())
                        .map(Cow::Owned)),
                    None => self.base().get(table, key),
                }
            }
        }
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        if matches!(table, Table::AccountTrie | Table::StorageTrie) {
            return Err(StoreError::PastTrie);
        }
        let Some(history) = history_of(table) else {
            return self.base().scan(table, from, visit);
        };
        let mut present = Rows::new(self.base(), table, from);
        let mut past = PastRows {
            rows: Rows::new(self.base(), history, from),
            number: self.number,
            last: None,
        };
        let mut changed = past.next(from)?;
        loop {
            let row = match (present.peek()?, &changed) {
                (None, None) => return Ok(()),
                (Some((key, _)), Some((changed_key, _))) if key < changed_key => present.next()?,
                (Some(_), None) => present.next()?,
                (top, Some((changed_key, _))) => {
                    if top.is_some_and(|(key, _)| key == changed_key) {
                        present.next()?;
                    }
                    let row = changed.take();
                    changed = past.next(from)?;
                    // What is empty was not there.
                    row.filter(|(_, before)| !before.is_empty())
                }
            };
            if let Some((key, value)) = row
                && visit(&key, &value).is_break()
            {
                return Ok(());
            }
        }
    }
}

/// The value that `key` had before its first change after block `number`; empty if it was not there, `None` if it has
/// not changed since.
pub(crate) fn value_before_next_change(
    snapshot: &dyn Snapshot,
    history: Table,
    key: &[u8],
    number: u64,
) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(next) = number.checked_add(1) else {
        return Ok(None);
    };
    let seek = history_key(key, next);
    first_from(snapshot, history, &seek, |found, before| {
        let of = split_history_key(found).map(|(of, _)| of);
        (of == Some(key)).then(|| before.to_vec())
    })
}

/// Keys that changed after a block, each once, with the value from before the first change.
struct PastRows<'a> {
    rows: Rows<'a>,
    number: u64,
    last: Option<Vec<u8>>,
}

impl PastRows<'_> {
    /// The next key from `from` on.
    fn next(&mut self, from: &[u8]) -> Result<Option<Row>, StoreError> {
        while let Some((key, before)) = self.rows.next()? {
            let Some((key, block)) = split_history_key(&key) else {
                continue;
            };
            if block > self.number && key >= from && self.last.as_deref() != Some(key) {
                self.last = Some(key.to_vec());
                return Ok(Some((key.to_vec(), before)));
            }
        }
        Ok(None)
    }
}
