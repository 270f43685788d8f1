//! A snapshot with a batch on top that is not committed yet.

use crate::{Batch, Snapshot, StoreError, Table, Visitor};
use std::borrow::Cow;
use std::ops::ControlFlow;

/// Shows `base` as it will be once `batch` is committed on it. Layers can be stacked.
#[derive(Clone, Copy)]
pub struct Layered<'a> {
    base: &'a dyn Snapshot,
    batch: &'a Batch,
}

impl<'a> Layered<'a> {
    /// Lays `batch` over `base`.
    pub fn new(base: &'a dyn Snapshot, batch: &'a Batch) -> Self {
        Self { base, batch }
    }
}

impl Snapshot for Layered<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        get(self.base, self.batch, table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        scan(self.base, self.batch, table, from, visit)
    }

    fn fork(&self) -> Result<Option<Box<dyn Snapshot + Send + '_>>, StoreError> {
        let base = self.base.fork()?;
        Ok(base.map(|base| {
            let batch = self.batch;
            Box::new(LayeredFork { base, batch }) as Box<dyn Snapshot + Send>
        }))
    }
}

/// A [`Layered`] that has its base to itself.
struct LayeredFork<'a> {
    base: Box<dyn Snapshot + Send + 'a>,
    batch: &'a Batch,
}

impl Snapshot for LayeredFork<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        get(&*self.base, self.batch, table, key)
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        scan(&*self.base, self.batch, table, from, visit)
    }

    fn fork(&self) -> Result<Option<Box<dyn Snapshot + Send + '_>>, StoreError> {
        let base = self.base.fork()?;
        Ok(base.map(|base| {
            let batch = self.batch;
            Box::new(LayeredFork { base, batch }) as Box<dyn Snapshot + Send>
        }))
    }
}

fn get<'s>(
    base: &'s dyn Snapshot,
    batch: &'s Batch,
    table: Table,
    key: &[u8],
) -> Result<Option<Cow<'s, [u8]>>, StoreError> {
    match batch.get(table, key) {
        Some(written) => Ok(written.map(Cow::Borrowed)),
        None => base.get(table, key),
    }
}

fn scan(
    base: &dyn Snapshot,
    batch: &Batch,
    table: Table,
    from: &[u8],
    visit: Visitor<'_>,
) -> Result<(), StoreError> {
    let mut writes = batch.range(table, from).peekable();
    let mut flow = ControlFlow::Continue(());
    base.scan(table, from, &mut |key, value| {
        while let Some((written, new)) = writes.next_if(|(written, _)| *written < key) {
            if let Some(new) = new {
                flow = visit(written, new);
                flow?;
            }
        }
        flow = match writes.next_if(|(written, _)| *written == key) {
            Some((_, Some(new))) => visit(key, new),
            Some((_, None)) => ControlFlow::Continue(()),
            None => visit(key, value),
        };
        flow
    })?;
    if flow.is_break() {
        return Ok(());
    }
    for (key, new) in writes {
        if let Some(new) = new
            && visit(key, new).is_break()
        {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MemoryStore, Store};

    #[test]
    fn a_layered_snapshot_shows_what_the_committed_batch_would() {
        let store = MemoryStore::new();
        let mut first = Batch::new();
        for key in [1_u8, 3, 5, 7] {
            first.put(Table::Codes, [key], [key]);
        }
        store.commit(&first).unwrap();
        let mut second = Batch::new();
        second.put(Table::Codes, [0], [10]);
        second.put(Table::Codes, [3], [13]);
        second.delete(Table::Codes, [5]);
        second.put(Table::Codes, [9], [19]);
        let base = store.snapshot().unwrap();
        let layered = Layered::new(base.as_ref(), &second);
        let committed = store.fork();
        committed.commit(&second).unwrap();
        let expected = committed.snapshot().unwrap();
        for from in 0..=10_u8 {
            for limit in 1..7 {
                let rows = |snapshot: &dyn Snapshot| {
                    let mut rows = Vec::new();
                    snapshot
                        .scan(Table::Codes, &[from], &mut |key, value| {
                            rows.push((key.to_vec(), value.to_vec()));
                            if rows.len() == limit {
                                return ControlFlow::Break(());
                            }
                            ControlFlow::Continue(())
                        })
                        .unwrap();
                    rows
                };
                assert_eq!(rows(&layered), rows(expected.as_ref()));
            }
            assert_eq!(
                layered.get(Table::Codes, &[from]).unwrap(),
                expected.get(Table::Codes, &[from]).unwrap()
            );
        }
    }
}
