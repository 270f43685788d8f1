//! The two threads of a store: one merges, one combines runs and ends snapshots.

use super::Inner;
use super::overlay::Balance;
use crate::StoreError;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How long a merge that failed is not tried again.
const RETRY: Duration = Duration::from_millis(500);
/// How often is looked for snapshots to end and runs to combine, if nobody asks before.
const TICK: Duration = Duration::from_millis(100);

pub(super) struct Background {
    threads: Vec<JoinHandle<()>>,
}

impl Background {
    pub(super) fn start(inner: &Arc<Inner>) -> Result<Self, StoreError> {
        let spawn = |name: &str, run: fn(&Inner)| {
            let shared = Arc::clone(inner);
            thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || run(&shared))
                .map_err(|source: io::Error| StoreError::Io {
                    op: "start a thread of the store at",
                    path: inner.state.path().to_owned(),
                    source,
                })
        };
        let merger = spawn("zvm-merge", merge)?;
        let mut background = Self {
            threads: vec![merger],
        };
        match spawn("zvm-overlay", look_after) {
            Ok(thread) => background.threads.push(thread),
            Err(error) => {
                background.stop(inner);
                return Err(error);
            }
        }
        Ok(background)
    }

    /// Ends the threads after what they are at.
    pub(super) fn stop(&mut self, inner: &Inner) {
        inner.merging.lock().stop = true;
        inner.work.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was printed by its thread; what it worked on is in the journal.
            let _ = thread.join();
        }
    }
}

/// Merges when there is much, or when something waits for long.
fn merge(inner: &Inner) {
    let mut waiting_since: Option<Instant> = None;
    loop {
        {
            let mut merging = inner.merging.lock();
            if merging.stop {
                return;
            }
            let runs = inner.overlay.load();
            if runs.len() == 0 {
                waiting_since = None;
                merging.urgent = false;
            } else {
                waiting_since.get_or_insert_with(Instant::now);
            }
            let due = waiting_since.is_some_and(|since| {
                since.elapsed() >= inner.options.merge_interval
                    || runs.memory() >= inner.options.merge_bytes
                    || merging.urgent
            });
            if !due {
                inner.work.wait_for(&mut merging, TICK);
                continue;
            }
        }
        let outcome = inner.merge_once();
        waiting_since = None;
        let mut merging = inner.merging.lock();
        merging.urgent = false;
        merging.failed = outcome.err().map(|error| error.to_string());
        inner.done.notify_all();
        if merging.failed.is_some() {
            inner
                .counters
                .failed_merges
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let until = Instant::now() + RETRY;
            while !merging.stop && !inner.work.wait_until(&mut merging, until).timed_out() {}
        }
    }
}

/// Keeps the runs few and ends snapshots.
fn look_after(inner: &Inner) {
    loop {
        while inner.overlay.combine(usize::MAX) == Balance::Combined && !inner.merging.lock().stop {
            thread::yield_now();
        }
        inner.expire_snapshots();
        let mut merging = inner.merging.lock();
        if merging.stop {
            return;
        }
        inner.work.wait_for(&mut merging, TICK);
    }
}
