//! Rows of a table one after the other, for readers that cannot live inside a visitor.

use crate::{Snapshot, StoreError, Table};
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// A key and its value.
pub(crate) type Row = (Vec<u8>, Vec<u8>);

/// Rows read ahead at first; doubled with every page, as most readers want few.
const FIRST_PAGE: usize = 8;
/// Rows and bytes read ahead at most.
const LARGEST_PAGE: usize = 1_024;
const LARGEST_PAGE_BYTES: usize = 1 << 20;

/// The rows of a table from a key on, read a page at a time.
pub(crate) struct Rows<'a> {
    snapshot: &'a dyn Snapshot,
    table: Table,
    /// Where the next page begins; `None` after the last one.
    from: Option<Vec<u8>>,
    page: VecDeque<Row>,
    page_size: usize,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(snapshot: &'a dyn Snapshot, table: Table, from: &[u8]) -> Self {
        Self {
            snapshot,
            table,
            from: Some(from.to_vec()),
            page: VecDeque::new(),
            page_size: FIRST_PAGE,
        }
    }

    /// The row that [`Rows::next`] will give.
    pub(crate) fn peek(&mut self) -> Result<Option<&Row>, StoreError> {
        self.fill()?;
        Ok(self.page.front())
    }

    pub(crate) fn next(&mut self) -> Result<Option<Row>, StoreError> {
        self.fill()?;
        Ok(self.page.pop_front())
    }

    fn fill(&mut self) -> Result<(), StoreError> {
        if !self.page.is_empty() {
            return Ok(());
        }
        let Some(from) = self.from.take() else {
            return Ok(());
        };
        let mut bytes = 0;
        let mut full = false;
        let (page, page_size) = (&mut self.page, self.page_size);
        self.snapshot.scan(self.table, &from, &mut |key, value| {
            page.push_back((key.to_vec(), value.to_vec()));
            bytes += key.len() + value.len();
            full = page.len() >= page_size || bytes >= LARGEST_PAGE_BYTES;
            match full {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })?;
        self.page_size = (2 * self.page_size).min(LARGEST_PAGE);
        if full && let Some((last, _)) = self.page.back() {
            // The next key there can be.
            let mut from = last.clone();
            from.push(0);
            self.from = Some(from);
        }
        Ok(())
    }
}

/// The first row with a key from `from` on, if `visit` wants it: one seek.
pub(crate) fn first_from<T>(
    snapshot: &dyn Snapshot,
    table: Table,
    from: &[u8],
    visit: impl FnOnce(&[u8], &[u8]) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    let mut visit = Some(visit);
    let mut found = None;
    snapshot.scan(table, from, &mut |key, value| {
        found = visit.take().and_then(|visit| visit(key, value));
        ControlFlow::Break(())
    })?;
    Ok(found)
}
