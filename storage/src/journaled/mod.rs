//! A store whose commits go to a journal and are merged into the tables later.
//!
//! A commit is one record in the journal (`journal`, `record`) and one run in memory (`run`, `overlay`); a thread
//! merges runs into the tables (`background`). A snapshot is the runs over a read transaction on the tables
//! (`snapshot`). What the tables do not hold yet is replayed when the store is opened (`replay`).

mod background;
mod journal;
mod options;
mod overlay;
mod record;
mod replay;
mod run;
mod snapshot;

pub use options::{JournalStatistics, JournaledOptions, Recovery};

use crate::faults::point;
use crate::lmdb::{LmdbStore, failed};
use crate::meta::JOURNAL;
use crate::{Batch, Durability, LmdbOptions, Snapshot, Store, StoreError, Table, TableStats};
use background::Background;
use journal::Journal;
use overlay::{Balance, Overlay};
use parking_lot::{Condvar, Mutex};
use record::StoreId;
use run::{Encoded, Merged};
use snapshot::{JournaledSnapshot, View};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A store with a journal: a commit returns when it is in the journal, and is moved to the tables in the background.
/// A folder is opened once at a time on a host. Dropping the store leaves what is not merged in the journal.
pub struct JournaledStore {
    inner: Arc<Inner>,
    recovery: Recovery,
    background: Background,
}

/// What the store shares with its threads.
struct Inner {
    /// Before the tables, so that no transaction is left when their lock is released.
    views: Mutex<Vec<Arc<View>>>,
    state: LmdbStore,
    journal: Journal,
    overlay: Overlay,
    store: StoreId,
    options: JournaledOptions,
    /// Commits that wait to be written, in their order.
    queue: Mutex<Vec<Arc<Waiting>>>,
    /// Held by the commit that writes.
    writer: Mutex<()>,
    merging: Mutex<Merging>,
    /// There is something to merge, to combine or to end; or a merge has ended.
    work: Condvar,
    done: Condvar,
    /// Held by who merges.
    merge: Mutex<()>,
    merged: AtomicU64,
    counters: Counters,
}

#[derive(Default)]
struct Merging {
    stop: bool,
    /// Merge whatever there is, now.
    urgent: bool,
    /// Why the last merge failed.
    failed: Option<String>,
}

#[derive(Default)]
struct Counters {
    merges: AtomicU64,
    merged_entries: AtomicU64,
    merge_nanoseconds: AtomicU64,
    failed_merges: AtomicU64,
    waits: AtomicU64,
    wait_nanoseconds: AtomicU64,
    expired: AtomicU64,
}

/// A commit in the queue.
struct Waiting {
    encoded: Mutex<Option<Encoded>>,
    outcome: Mutex<Option<Result<(), StoreError>>>,
}

impl JournaledStore {
    /// Opens the store and replays the journal, or makes an empty store. A folder of a [`LmdbStore`] becomes one with
    /// an empty journal.
    ///
    /// # Errors
    /// Those of [`LmdbStore::open`]; [`StoreError::JournalDamaged`]; [`StoreError::Corrupt`] if a record does not
    /// give the state that it was made for.
    pub fn open(options: JournaledOptions) -> Result<Self, StoreError> {
        let state = LmdbStore::open_state(LmdbOptions {
            durability: Durability::Full,
            ..options.state.clone()
        })?;
        let known = mark(&state)?;
        let (store, merged) = known.unwrap_or_else(|| (new_id(), 0));
        if known.is_some() && !Journal::exists(state.path()) {
            return Err(StoreError::Open {
                path: state.path().to_owned(),
                reason: "its journal is missing".into(),
            });
        }
        let durability = options.durability();
        let drops = options.drops();
        let opened = Journal::open(
            state.path(),
            options.journal_map_size,
            durability,
            store,
            drops,
        );
        let (journal, dropped) = opened.map_err(|error| match error {
            StoreError::JournalDamaged { path, reason, .. } => StoreError::JournalDamaged {
                path,
                sound: merged,
                reason,
            },
            error => error,
        })?;
        point("journal.created", journal.path())?;
        let inner = Inner {
            state,
            journal,
            overlay: Overlay::new(merged),
            store,
            options,
            queue: Mutex::default(),
            writer: Mutex::new(()),
            merging: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
            merge: Mutex::new(()),
            merged: AtomicU64::new(merged),
            views: Mutex::default(),
            counters: Counters::default(),
        };
        if known.is_none() {
            inner.write_mark()?;
        }
        let mut recovery = Recovery {
            replayed: 0,
            dropped,
        };
        inner.replay(&mut recovery)?;
        let inner = Arc::new(inner);
        Ok(Self {
            background: Background::start(&inner)?,
            inner,
            recovery,
        })
    }

    /// What the journal gave when the store was opened.
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Folder of the store, without links.
    pub fn path(&self) -> &Path {
        self.inner.state.path()
    }

    /// Merges all there is into the tables and returns when it is there.
    ///
    /// # Errors
    /// Those of [`LmdbStore::commit`].
    pub fn merge_all(&self) -> Result<(), StoreError> {
        let last = self.inner.overlay.load().last;
        while self.inner.merged.load(Ordering::Acquire) < last {
            self.inner.merge_once()?;
        }
        Ok(())
    }

    /// Journal, overlay and merges as they are now.
    pub fn statistics(&self) -> JournalStatistics {
        let inner = &*self.inner;
        let runs = inner.overlay.load();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        JournalStatistics {
            last: runs.last,
            merged: inner.merged.load(Ordering::Acquire),
            journal_bytes: inner.journal.file_bytes(),
            overlay_bytes: runs.memory() as u64,
            overlay_entries: runs.entries() as u64,
            overlay_runs: runs.len() as u64,
            merges: count(&inner.counters.merges),
            merged_entries: count(&inner.counters.merged_entries),
            merge_nanoseconds: count(&inner.counters.merge_nanoseconds),
            failed_merges: count(&inner.counters.failed_merges),
            waits: count(&inner.counters.waits),
            wait_nanoseconds: count(&inner.counters.wait_nanoseconds),
            expired_snapshots: count(&inner.counters.expired),
            snapshots: inner.views.lock().len() as u64,
        }
    }
}

impl Drop for JournaledStore {
    fn drop(&mut self) {
        self.background.stop(&self.inner);
    }
}

/// Fails if the store that was just opened has commits in a journal that are not in its tables.
pub(crate) fn refuse_unmerged(state: &LmdbStore) -> Result<(), StoreError> {
    let Some((store, merged)) = mark(state)? else {
        return Ok(());
    };
    if !Journal::exists(state.path()) {
        return Ok(());
    }
    let (journal, _) = Journal::open(state.path(), 1 << 20, Durability::Full, store, false)?;
    let last = journal.last()?;
    if last <= merged {
        return Ok(());
    }
    Err(StoreError::Unmerged {
        path: state.path().to_owned(),
        last,
        merged,
    })
}

/// Which store the tables are of and the last commit in them, `None` if they never had a journal.
fn mark(state: &LmdbStore) -> Result<Option<(StoreId, u64)>, StoreError> {
    let mut reader = state.reader()?;
    let Some(value) = reader.get(state.database(Table::Meta), JOURNAL)? else {
        return Ok(None);
    };
    match value.as_chunks::<8>() {
        ([store, merged], []) => Ok(Some((*store, u64::from_be_bytes(*merged)))),
        _ => Err(StoreError::corrupt(Table::Meta, JOURNAL, "not 16 bytes")),
    }
}

fn new_id() -> StoreId {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new()
        .hash_one(std::process::id())
        .to_be_bytes()
}

impl Inner {
    fn mark_at(&self, merged: u64) -> [u8; 16] {
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&self.store);
        mark[8..].copy_from_slice(&merged.to_be_bytes());
        mark
    }

    fn write_mark(&self) -> Result<(), StoreError> {
        let mark = self.mark_at(0);
        let entry = (Table::Meta, JOURNAL, Some(&mark[..]));
        self.state.write(mark.len(), || std::iter::once(entry))
    }

    /// Brings what the journal has and the tables have not into the overlay.
    fn replay(&self, recovery: &mut Recovery) -> Result<(), StoreError> {
        let mut next = self.merged.load(Ordering::Acquire) + 1;
        while let Some((found, record)) = self.journal.read(next)? {
            let damaged = |reason: String| StoreError::JournalDamaged {
                path: self.journal.path().to_owned(),
                sound: next - 1,
                reason,
            };
            let record = match record {
                Ok(record) if found == next => record,
                wrong => {
                    let reason = match wrong {
                        Ok(_) => format!("commit {next} is missing, {found} is there"),
                        Err(reason) => format!("commit {found}: {reason}"),
                    };
                    if !self.options.drops() {
                        return Err(damaged(reason));
                    }
                    self.journal.drop_from(next)?;
                    recovery.dropped = Some(reason);
                    break;
                }
            };
            if record.store != self.store {
                return Err(StoreError::Open {
                    path: self.journal.path().to_owned(),
                    reason: "the journal belongs to another store".into(),
                });
            }
            point("replay.record", self.journal.path())?;
            let batch = match record.tries_follow {
                true => replay::complete(&self.begin()?, record.batch)?,
                false => record.batch,
            };
            self.overlay.push(Encoded::new(&batch).into_run(next));
            self.overlay.combine(usize::MAX);
            recovery.replayed += 1;
            next += 1;
            while self.overlay.load().memory() > self.options.overlay_bytes {
                self.merge_once()?;
            }
        }
        Ok(())
    }

    fn begin(&self) -> Result<JournaledSnapshot<'_>, StoreError> {
        loop {
            // The runs first: what a merge takes out of them later is in the tables by then.
            let runs = self.overlay.load();
            let reader = self.state.reader()?;
            // And the tables must not hold more than the runs knew of.
            if self.overlay.load().merging <= runs.last {
                return Ok(JournaledSnapshot {
                    view: Arc::new(View::new(runs, reader, self.options.snapshot_limit)),
                    state: &self.state,
                });
            }
        }
    }

    /// Waits until there is room for more commits.
    fn wait_for_room(&self) -> Result<(), StoreError> {
        if self.overlay.load().memory() < self.options.overlay_bytes {
            return Ok(());
        }
        let begun = Instant::now();
        self.counters.waits.fetch_add(1, Ordering::Relaxed);
        let mut merging = self.merging.lock();
        let outcome = loop {
            if self.overlay.load().memory() < self.options.overlay_bytes {
                break Ok(());
            }
            if let Some(reason) = &merging.failed {
                break Err(StoreError::MergeFails {
                    reason: reason.clone(),
                });
            }
            merging.urgent = true;
            self.work.notify_all();
            self.done.wait_for(&mut merging, Duration::from_millis(100));
        };
        let waited = begun.elapsed().as_nanos() as u64;
        self.counters
            .wait_nanoseconds
            .fetch_add(waited, Ordering::Relaxed);
        outcome
    }

    /// Writes the commits of the queue in one transaction of the journal.
    fn write_queue(&self) {
        let group = std::mem::take(&mut *self.queue.lock());
        let commits: Vec<Encoded> = group
            .iter()
            .filter_map(|waiting| waiting.encoded.lock().take())
            .collect();
        let refs: Vec<&Encoded> = commits.iter().collect();
        let outcome = self.wait_for_room().and_then(|()| self.append(&refs));
        if let (Err(_), true) = (&outcome, group.len() > 1) {
            // One of them may be what does not fit: each gets its own answer.
            for (waiting, encoded) in group.iter().zip(commits) {
                let outcome = self.wait_for_room().and_then(|()| self.append(&[&encoded]));
                if outcome.is_ok() {
                    self.publish(encoded);
                }
                *waiting.outcome.lock() = Some(outcome);
            }
            return;
        }
        match outcome {
            Ok(()) => {
                for (waiting, encoded) in group.iter().zip(commits) {
                    self.publish(encoded);
                    *waiting.outcome.lock() = Some(Ok(()));
                }
            }
            Err(error) => {
                if let Some(waiting) = group.first() {
                    *waiting.outcome.lock() = Some(Err(error));
                }
            }
        }
    }

    fn append(&self, commits: &[&Encoded]) -> Result<(), StoreError> {
        let first = self.overlay.load().last + 1;
        let merged = self.merged.load(Ordering::Acquire);
        self.journal.append(first, commits, merged)
    }

    fn publish(&self, encoded: Encoded) {
        let sequence = self.overlay.load().last + 1;
        let balance = self.overlay.push(encoded.into_run(sequence));
        // Committed and shown: there is no error to give any more.
        let _ = point("overlay.published", self.journal.path());
        let full = self.overlay.load().memory() >= self.options.merge_bytes;
        if balance == Balance::TooLong || full {
            self.work.notify_all();
        }
    }

    /// Moves the oldest runs to the tables. `false` if there are none.
    fn merge_once(&self) -> Result<bool, StoreError> {
        let _merge = self.merge.lock();
        let begun = Instant::now();
        let Some(run) = self.overlay.freeze(self.options.merge_bytes) else {
            return Ok(false);
        };
        let path = self.state.path();
        point("merge.begin", path)?;
        let mark = self.mark_at(run.last);
        let entry = (Table::Meta, JOURNAL, Some(&mark[..]));
        let injected: Mutex<Option<StoreError>> = Mutex::new(None);
        let half = run.len() / 2;
        self.state.write_checked(
            run.memory(),
            || {
                let injected = &injected;
                let noted = move |name| {
                    if let Err(error) = point(name, path) {
                        *injected.lock() = Some(error);
                    }
                };
                let writes = run.iter().enumerate().map(move |(index, write)| {
                    if index == half {
                        noted("merge.writing");
                    }
                    write
                });
                writes.chain(std::iter::once(entry)).inspect(move |write| {
                    if write.1 == JOURNAL && write.0 == Table::Meta {
                        noted("merge.written");
                    }
                })
            },
            || injected.lock().take().map_or(Ok(()), Err),
        )?;
        point("merge.committed", path)?;
        self.merged.store(run.last, Ordering::Release);
        self.overlay.merged(run.last);
        point("merge.published", path)?;
        let counters = &self.counters;
        counters.merges.fetch_add(1, Ordering::Relaxed);
        counters
            .merged_entries
            .fetch_add(run.len() as u64, Ordering::Relaxed);
        counters
            .merge_nanoseconds
            .fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
        Ok(true)
    }

    /// Ends the snapshots that are open for too long and forgets those that were closed.
    fn expire_snapshots(&self) {
        let now = Instant::now();
        let mut views = self.views.lock();
        views.retain(|view| {
            let open = Arc::strong_count(view) > 1;
            let expired = open && view.expire(now);
            self.counters
                .expired
                .fetch_add(u64::from(expired), Ordering::Relaxed);
            open && !expired
        });
    }
}

impl Store for JournaledStore {
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        let snapshot = self.inner.begin()?;
        let mut views = self.inner.views.lock();
        // A closed one ends with its last owner, which is this list.
        views.retain(|view| Arc::strong_count(view) > 1);
        views.push(Arc::clone(&snapshot.view));
        drop(views);
        Ok(Box::new(snapshot))
    }

    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        batch.check_keys()?;
        let too_long = |(_, _, value): (Table, &[u8], Option<&[u8]>)| {
            value.is_some_and(|value| value.len() >= u32::MAX as usize)
        };
        if batch.iter().any(too_long) {
            return Err(failed("take a value of 4 GiB")(::lmdb::Error::BadValSize));
        }
        if batch.is_empty() {
            return Ok(());
        }
        let waiting = Arc::new(Waiting {
            encoded: Mutex::new(Some(Encoded::new(batch))),
            outcome: Mutex::new(None),
        });
        self.inner.queue.lock().push(Arc::clone(&waiting));
        let _writer = self.inner.writer.lock();
        if waiting.outcome.lock().is_none() {
            self.inner.write_queue();
        }
        let outcome = waiting.outcome.lock().take();
        outcome.unwrap_or_else(|| {
            Err(StoreError::MergeFails {
                reason: "the commit was not written".into(),
            })
        })
    }

    fn stats(&self) -> Result<Vec<TableStats>, StoreError> {
        let inner = &*self.inner;
        // The tables without the overlay, then what it changes: counted key by key, so this is for tools.
        let _merge = inner.merge.lock();
        let runs = inner.overlay.load();
        let mut stats = inner.state.stats()?;
        let mut reader = inner.state.reader()?;
        for stat in &mut stats {
            let mut merged = Merged::new(runs.iter(), stat.table, &[]);
            while let Some((key, value)) = merged.next() {
                let stored = reader.get(inner.state.database(stat.table), key)?;
                match (stored.is_some(), value) {
                    (false, Some(_)) => stat.entries += 1,
                    (true, None) => stat.entries -= 1,
                    _ => {}
                }
                stat.bytes += (key.len() + value.map_or(0, <[u8]>::len)) as u64;
            }
        }
        Ok(stats)
    }
}
