//! What a machine needs and the next machine of the thread can have: frames with their stacks, frame memory, caches.
//!
//! A block's machine lives for its block only, a call's for its call. Eight stacks of 32 KiB and a memory that has grown
//! cost more to get and to give back than a short transaction costs to run, most of it page faults.

use core::cell::RefCell;

use revm::context::{FrameStack, LocalContext};
use revm::context_interface::LocalContextTr as _;

use super::frames::Frame;
use super::slots::WarmSlots;

/// Frames made in advance: deeper calls make theirs when they come.
const FRAMES: usize = 8;
/// Frame memory above this is given back: 200 million gas buy about 10 MiB.
const KEPT_MEMORY: usize = 1 << 24;
/// Workspaces kept by a thread. A thread has more than one machine where it traces or simulates beside a block.
const KEPT: usize = 2;

/// Frames, frame memory and warm slots of one machine.
pub(super) struct Workspace {
    pub(super) frames: FrameStack<Frame>,
    pub(super) local: LocalContext,
    pub(super) slots: WarmSlots,
}

thread_local! {
    static POOL: RefCell<Vec<Workspace>> = const { RefCell::new(Vec::new()) };
}

impl Workspace {
    /// One that a machine of this thread gave back, or a new one.
    pub(super) fn take() -> Self {
        POOL.try_with(|pool| pool.borrow_mut().pop())
            .ok()
            .flatten()
            .unwrap_or_else(|| Self {
                frames: FrameStack::new_prealloc(FRAMES),
                local: LocalContext::default(),
                slots: WarmSlots::new(),
            })
    }

    /// Keeps it for the thread's next machine.
    pub(super) fn give_back(mut self) {
        // Nothing of a transaction that ended in an error may be seen by the next.
        self.frames.clear();
        self.local.clear();
        if self.local.shared_memory_buffer().borrow().capacity() > KEPT_MEMORY {
            self.local = LocalContext::default();
        }
        // The pool is gone when the thread ends: then so is the workspace.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEPT {
                pool.push(self);
            }
        });
    }
}
