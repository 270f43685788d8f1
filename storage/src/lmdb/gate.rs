//! The gate between transactions and the exchange of the map.

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::cell::Cell;
use std::time::Duration;

thread_local! {
    /// How many passes this thread holds, of all gates.
    static PASSES: Cell<usize> = const { Cell::new(0) };
}

/// Lets transactions pass side by side, and a resize only when none is inside.
#[derive(Default)]
pub(super) struct Gate(RwLock<()>);

/// Held while a transaction is open. Stays on its thread.
pub(super) struct Pass<'a> {
    _guard: RwLockReadGuard<'a, ()>,
}

impl Gate {
    /// Waits behind a resize that waits, so that readers that come and go do not keep it waiting for ever; except on
    /// a thread that holds a pass, for which the resize may be waiting.
    pub(super) fn pass(&self) -> Pass<'_> {
        let guard = if PASSES.get() == 0 {
            self.0.read()
        } else {
            self.0.read_recursive()
        };
        PASSES.set(PASSES.get() + 1);
        Pass { _guard: guard }
    }

    /// Keeps transactions out, or gives up if some stay inside for as long as `wait`.
    pub(super) fn close(&self, wait: Duration) -> Option<RwLockWriteGuard<'_, ()>> {
        self.0.try_write_for(wait)
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        PASSES.set(PASSES.get() - 1);
    }
}
