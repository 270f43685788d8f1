//! A store in memory: persistent ordered maps, so that a snapshot or a fork copies one pointer.

use crate::{Batch, Snapshot, Store, StoreError, Table, TableStats, Visitor};
use imbl::OrdMap;
use parking_lot::{Mutex, RwLock};
use std::borrow::Cow;
use std::ops::Bound;
use std::sync::Arc;

/// Shared, so that copying a node of a map on write does not copy its entries.
type Shared = Arc<[u8]>;

#[derive(Clone, Default)]
struct MemoryTable {
    rows: OrdMap<Shared, Shared>,
    bytes: u64,
}

impl MemoryTable {
    fn write(&mut self, key: &[u8], value: Option<&[u8]>) {
        let old = match value {
            Some(value) => {
                self.bytes += (key.len() + value.len()) as u64;
                self.rows.insert(key.into(), value.into())
            }
            None => self.rows.remove(key),
        };
        if let Some(old) = old {
            self.bytes -= (key.len() + old.len()) as u64;
        }
    }
}

type Tables = [MemoryTable; Table::COUNT];

/// A store in memory. Its contents end with it.
#[derive(Default)]
pub struct MemoryStore {
    current: RwLock<Arc<Tables>>,
    /// Held while the next state is built, so that `current` is only locked for the exchange of a pointer.
    writer: Mutex<()>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that begins with what this one holds now; neither sees the other's later commits. Costs the same
    /// however much is held.
    pub fn fork(&self) -> Self {
        Self {
            current: RwLock::new(self.tables()),
            writer: Mutex::new(()),
        }
    }

    fn tables(&self) -> Arc<Tables> {
        Arc::clone(&self.current.read())
    }
}

impl Store for MemoryStore {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        Ok(Box::new(MemorySnapshot {
            tables: self.tables(),
        }))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        batch.check_keys()?;
        let _writer = self.writer.lock();
        let mut next = Tables::clone(&self.tables());
        for (table, key, value) in batch.iter() {
            next[table.index()].write(key, value);
        }
        *self.current.write() = Arc::new(next);
        Ok(())
    }

    fn stats(&self) -> Result<Vec<TableStats>, StoreError> {
        let tables = self.tables();
        Ok(Table::all()
            .map(|table| TableStats {
                table,
                entries: tables[table.index()].rows.len() as u64,
                bytes: tables[table.index()].bytes,
            })
            .collect())
    }
}

struct MemorySnapshot {
    tables: Arc<Tables>,
}

impl Snapshot for MemorySnapshot {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        let value = self.tables[table.index()].rows.get(key);
        Ok(value.map(|value| Cow::Borrowed(value.as_ref())))
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        let rows = &self.tables[table.index()].rows;
        for (key, value) in rows.range::<_, [u8]>((Bound::Included(from), Bound::Unbounded)) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn shared(&self) -> Option<&(dyn Snapshot + Sync)> {
        Some(self)
    }
}
