//! Snapshots: runs of the overlay over one state of the tables.

use super::overlay::Runs;
use super::run::{self, Merged};
use crate::batch::{MAX_KEY, is_storable};
use crate::lmdb::{LmdbStore, Reader};
use crate::{Snapshot, StoreError, Table, Visitor};
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Threads that can read the tables through one snapshot at the same time; more take turns.
const SLOTS: usize = 8;
/// Entries a scan takes from the tables at once, at first and at most: so long the transaction is held.
const FIRST_CHUNK: usize = 16;
const LARGEST_CHUNK: usize = 1024;

/// Gives every thread one of the slots.
fn own_slot() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: usize = NEXT.fetch_add(1, Ordering::Relaxed) % SLOTS;
    }
    OWN.with(|own| *own)
}

/// What a snapshot reads. It is shared with the thread that ends snapshots that are open for too long.
pub(super) struct View {
    /// `None` once it has expired.
    runs: ArcSwapOption<Runs>,
    /// Read transactions of one state. The one in slot `first` is there from the beginning, the others are begun when
    /// another thread reads.
    readers: [Mutex<Slot>; SLOTS],
    first: usize,
    version: usize,
    begun: Instant,
    limit: Duration,
}

#[derive(Default)]
enum Slot {
    #[default]
    Empty,
    /// The tables have moved on, so that no further transaction of this state can be begun.
    TooLate,
    Open(Reader),
    Expired,
}

impl View {
    pub(super) fn new(runs: Arc<Runs>, reader: Reader, limit: Duration) -> Self {
        let first = own_slot();
        let version = reader.version();
        let readers = std::array::from_fn(|_| Mutex::default());
        *readers[first].lock() = Slot::Open(reader);
        Self {
            runs: ArcSwapOption::new(Some(runs)),
            readers,
            first,
            version,
            begun: Instant::now(),
            limit,
        }
    }

    /// Ends the transactions and lets go of the runs if the snapshot is open for longer than its limit.
    pub(super) fn expire(&self, now: Instant) -> bool {
        if now.saturating_duration_since(self.begun) < self.limit {
            return false;
        }
        self.close();
        true
    }

    /// Ends the transactions and lets go of the runs.
    fn close(&self) {
        self.runs.store(None);
        for slot in &self.readers {
            // What was read is a copy, so nothing borrows from the transaction that ends here.
            *slot.lock() = Slot::Expired;
        }
    }

    fn expired(&self) -> StoreError {
        StoreError::SnapshotExpired { limit: self.limit }
    }

    /// Reads the tables in a transaction of this thread's slot, or in the first one.
    fn read<T>(
        &self,
        state: &LmdbStore,
        read: impl FnOnce(&mut Reader) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let own = own_slot();
        if own != self.first
            && let Some(mut slot) = self.readers[own].try_lock()
        {
            if matches!(*slot, Slot::Empty) {
                *slot = match state.reader() {
                    Ok(reader) if reader.version() == self.version => Slot::Open(reader),
                    Ok(_) | Err(_) => Slot::TooLate,
                };
            }
            match &mut *slot {
                Slot::Open(reader) => return read(reader),
                Slot::Expired => return Err(self.expired()),
                Slot::Empty | Slot::TooLate => {}
            }
        }
        match &mut *self.readers[self.first].lock() {
            Slot::Open(reader) => read(reader),
            _ => Err(self.expired()),
        }
    }
}

/// One commit's view of a journaled store. Any number of threads may read it at the same time.
pub(super) struct JournaledSnapshot<'a> {
    pub(super) view: Arc<View>,
    pub(super) state: &'a LmdbStore,
}

impl Drop for JournaledSnapshot<'_> {
    fn drop(&mut self) {
        // The store may look at the view a little longer.
        self.view.close();
    }
}

/// Entries of the tables, copied.
#[derive(Default)]
struct Chunk {
    bytes: Vec<u8>,
    /// Where each key ends and where its value ends.
    ends: Vec<(usize, usize)>,
    /// No entry comes after the last one.
    last: bool,
}

impl Chunk {
    fn read(
        snapshot: &JournaledSnapshot<'_>,
        table: Table,
        from: &[u8],
        limit: usize,
    ) -> Result<Self, StoreError> {
        let mut chunk = Self {
            last: true,
            ..Self::default()
        };
        // No stored key is longer, so the cut one has the same keys after it, and itself is passed over below.
        let start = &from[..from.len().min(MAX_KEY)];
        snapshot.view.read(snapshot.state, |reader| {
            reader.scan(snapshot.state.database(table), start, &mut |key, value| {
                if key < from {
                    return ControlFlow::Continue(());
                }
                if chunk.ends.len() == limit {
                    chunk.last = false;
                    return ControlFlow::Break(());
                }
                chunk.bytes.extend_from_slice(key);
                let key_end = chunk.bytes.len();
                chunk.bytes.extend_from_slice(value);
                chunk.ends.push((key_end, chunk.bytes.len()));
                ControlFlow::Continue(())
            })
        })?;
        Ok(chunk)
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(key_end, end)| {
            let entry = (&self.bytes[start..key_end], &self.bytes[key_end..end]);
            start = end;
            entry
        })
    }
}

impl Snapshot for JournaledSnapshot<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StoreError> {
        if !is_storable(key) {
            return Ok(None);
        }
        let runs = self.view.runs.load();
        let Some(runs) = &*runs else {
            return Err(self.view.expired());
        };
        if runs.len() > 0
            && let Some(written) = runs.get(run::hash(table, key), table, key)
        {
            return Ok(written.map(|value| Cow::Owned(value.to_vec())));
        }
        self.view.read(self.state, |reader| {
            let value = reader.get(self.state.database(table), key)?;
            Ok(value.map(|value| Cow::Owned(value.to_vec())))
        })
    }

    fn scan(&self, table: Table, from: &[u8], visit: Visitor<'_>) -> Result<(), StoreError> {
        let Some(runs) = self.view.runs.load_full() else {
            return Err(self.view.expired());
        };
        let mut writes = Merged::new(runs.iter(), table, from);
        let mut next = from.to_vec();
        let mut limit = FIRST_CHUNK;
        loop {
            let chunk = Chunk::read(self, table, &next, limit)?;
            for (key, value) in chunk.iter() {
                while writes.peek().is_some_and(|written| written < key) {
                    if let Some((written, Some(new))) = writes.next()
                        && visit(written, new).is_break()
                    {
                        return Ok(());
                    }
                }
                let shown = if writes.peek() == Some(key) {
                    writes.next().and_then(|(_, new)| new)
                } else {
                    Some(value)
                };
                if let Some(shown) = shown
                    && visit(key, shown).is_break()
                {
                    return Ok(());
                }
            }
            if chunk.last {
                break;
            }
            // The smallest key after the last one seen.
            next.clear();
            if let Some((key, _)) = chunk.iter().last() {
                next.extend_from_slice(key);
                next.push(0);
            }
            limit = (limit * 4).min(LARGEST_CHUNK);
        }
        while let Some((key, new)) = writes.next() {
            if let Some(new) = new
                && visit(key, new).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn shared(&self) -> Option<&(dyn Snapshot + Sync)> {
        Some(self)
    }
}
