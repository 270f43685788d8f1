//! The gate between transactions and the exchange of the map.

use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

thread_local! {
    /// How many open passes were taken on this thread, of all gates. Shared with them, as a pass may end elsewhere.
    static TAKEN_HERE: Arc<AtomicUsize> = Arc::default();
}

/// Lets transactions pass side by side, and a resize only when none is inside.
#[derive(Default)]
pub(super) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    inside: usize,
    closing: bool,
}

/// Held while a transaction is open. It may be given to another thread.
pub(super) struct Pass {
    gate: Arc<Gate>,
    taken_on: Arc<AtomicUsize>,
}

/// Keeps transactions out until it is dropped.
pub(super) struct Closed<'a>(&'a Gate);

impl Gate {
    /// Waits behind a resize that waits, so that readers that come and go do not keep it waiting for ever; except on
    /// a thread that took a pass before, for which the resize may be waiting.
    pub(super) fn pass(self: &Arc<Self>) -> Pass {
        let taken_on = TAKEN_HERE.with(Arc::clone);
        let mut state = self.state.lock();
        while state.closing && taken_on.load(Ordering::Relaxed) == 0 {
            self.changed.wait(&mut state);
        }
        state.inside += 1;
        drop(state);
        taken_on.fetch_add(1, Ordering::Relaxed);
        Pass {
            gate: Arc::clone(self),
            taken_on,
        }
    }

    /// Keeps transactions out, or gives up if some stay inside for as long as `wait`. One thread at a time closes.
    pub(super) fn close(&self, wait: Duration) -> Option<Closed<'_>> {
        let deadline = Instant::now() + wait;
        let mut state = self.state.lock();
        state.closing = true;
        while state.inside > 0 {
            let waited = self.changed.wait_until(&mut state, deadline);
            if waited.timed_out() && state.inside > 0 {
                state.closing = false;
                self.changed.notify_all();
                return None;
            }
        }
        Some(Closed(self))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut state = self.gate.state.lock();
        state.inside -= 1;
        if state.closing {
            self.gate.changed.notify_all();
        }
        drop(state);
        self.taken_on.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.state.lock().closing = false;
        self.0.changed.notify_all();
    }
}
