//! A set of writes that a store applies as a whole.

use crate::{StoreError, Table};
use std::collections::BTreeMap;
use std::ops::Bound;

/// The longest key every store takes, in bytes (LMDB's limit).
pub(crate) const MAX_KEY: usize = 511;

/// Whether every store can hold an entry under this key.
pub(crate) const fn is_storable(key: &[u8]) -> bool {
    !key.is_empty() && key.len() <= MAX_KEY
}

/// Keys with what is written under them; `None` deletes.
pub(crate) type Run = Vec<(Vec<u8>, Option<Vec<u8>>)>;

type Writes = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Where the writes of a batch to accounts, slots and tries come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum StateOrigin {
    /// There are none.
    #[default]
    None,
    /// All were made by [`crate::apply_state`]: the tries follow from the accounts and slots.
    Applied,
    /// Some were made one by one.
    Free,
}

/// Puts and deletes, kept sorted by table and key. The last write of a key wins.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    tables: [Writes; Table::COUNT],
    state: StateOrigin,
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.tables == other.tables
    }
}

impl Eq for Batch {}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `value` under `key`.
    pub fn put(&mut self, table: Table, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.note_free(table);
        self.tables[table.index()].insert(key.into(), Some(value.into()));
    }

    /// Deletes `key`; nothing happens if it is not in the store.
    pub fn delete(&mut self, table: Table, key: impl Into<Vec<u8>>) {
        self.note_free(table);
        self.tables[table.index()].insert(key.into(), None);
    }

    /// Whether the trie nodes in this batch follow from its accounts and slots, so that a journal need not hold them.
    pub(crate) const fn tries_follow(&self) -> bool {
        matches!(self.state, StateOrigin::Applied)
    }

    fn note_free(&mut self, table: Table) {
        if table.is_state() {
            self.state = StateOrigin::Free;
        }
    }

    fn note_applied(&mut self) {
        if self.state == StateOrigin::None {
            self.state = StateOrigin::Applied;
        }
    }

    /// What this batch does to `key`: `None` nothing, `Some(None)` deletes it, `Some(Some(value))` writes it.
    pub fn get(&self, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        self.tables[table.index()].get(key).map(Option::as_deref)
    }

    /// The writes sorted by table and key; `None` is a delete.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &[u8], Option<&[u8]>)> {
        Table::all().flat_map(|table| {
            self.tables[table.index()]
                .iter()
                .map(move |(key, value)| (table, key.as_slice(), value.as_deref()))
        })
    }

    /// The writes of one table from `from` on, sorted by key.
    pub(crate) fn range(
        &self,
        table: Table,
        from: &[u8],
    ) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.tables[table.index()]
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// Takes over the writes of a run, of which the last of a key wins.
    /// They are [`crate::apply_state`]'s: in the tables of the state they belong together.
    pub(crate) fn extend(&mut self, table: Table, run: Run) {
        if table.is_state() && !run.is_empty() {
            self.note_applied();
        }
        let writes = &mut self.tables[table.index()];
        if writes.is_empty() {
            // Sorts, which is quick if the run is sorted, and then builds the tree in one pass.
            *writes = run.into_iter().collect();
        } else {
            writes.extend(run);
        }
    }

    /// How many keys are written.
    pub fn len(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }

    /// Whether nothing is written.
    pub fn is_empty(&self) -> bool {
        self.tables.iter().all(BTreeMap::is_empty)
    }

    /// Bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.iter()
            .map(|(_, key, value)| key.len() + value.map_or(0, <[u8]>::len))
            .sum()
    }

    /// Takes over the writes of `later`, which win over those made so far.
    pub fn append(&mut self, later: Self) {
        match later.state {
            StateOrigin::None => {}
            StateOrigin::Applied => self.note_applied(),
            StateOrigin::Free => self.state = StateOrigin::Free,
        }
        for (mine, mut theirs) in self.tables.iter_mut().zip(later.tables) {
            mine.append(&mut theirs);
        }
    }

    /// Fails if a store could not hold one of the keys, so that all stores refuse the same batches.
    pub(crate) fn check_keys(&self) -> Result<(), StoreError> {
        match self.iter().find(|(_, key, _)| !is_storable(key)) {
            Some((table, key, _)) => Err(StoreError::KeyLength {
                table,
                len: key.len(),
            }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_write_of_a_key_wins_and_the_order_is_table_then_key() {
        let mut batch = Batch::new();
        batch.put(Table::Codes, [2], [1]);
        batch.put(Table::Meta, [9], [1]);
        batch.put(Table::Codes, [1], [7]);
        batch.delete(Table::Codes, [2]);
        let writes: Vec<_> = batch.iter().collect();
        assert_eq!(
            writes,
            [
                (Table::Meta, &[9][..], Some(&[1][..])),
                (Table::Codes, &[1][..], Some(&[7][..])),
                (Table::Codes, &[2][..], None),
            ]
        );
        assert_eq!((batch.len(), batch.bytes()), (3, 5));
    }

    #[test]
    fn appended_writes_win_over_earlier_ones() {
        let mut batch = Batch::new();
        batch.put(Table::Meta, [1], [1]);
        let mut later = Batch::new();
        later.delete(Table::Meta, [1]);
        batch.append(later);
        assert_eq!(batch.get(Table::Meta, &[1]), Some(None));
    }
}
