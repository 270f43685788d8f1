//! Named points at which a write or a sync begins or has ended, where tests end the process or make it fail.
//!
//! Without the feature `faults` a point is nothing at all. With it the variable `ZVM_FAULT` names a point and what
//! happens there: `merge.committed:kill:3` ends the process with SIGKILL the third time the point is reached;
//! `eio` and `enospc` make the operation fail with that error from then on, `eio-once` and `enospc-once` that once.

use crate::StoreError;
use std::path::Path;

/// All points, in the order of a commit and of a merge.
pub const FAULT_POINTS: [&str; 13] = [
    "journal.created",
    "journal.begin",
    "journal.trimming",
    "journal.trimmed",
    "journal.written",
    "journal.synced",
    "overlay.published",
    "merge.begin",
    "merge.writing",
    "merge.written",
    "merge.committed",
    "merge.published",
    "replay.record",
];

/// Does what `ZVM_FAULT` says of the point `name`; `path` is what is being written.
#[cfg(feature = "faults")]
pub(crate) fn point(name: &'static str, path: &Path) -> Result<(), StoreError> {
    injected::point(name, path)
}

/// Nothing, in a build without faults.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub(crate) const fn point(_: &'static str, _: &Path) -> Result<(), StoreError> {
    Ok(())
}

#[cfg(feature = "faults")]
mod injected {
    use crate::StoreError;
    use std::io;
    use std::path::Path;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Fault {
        point: String,
        action: String,
        at: u64,
        reached: AtomicU64,
    }

    static FAULT: OnceLock<Option<Fault>> = OnceLock::new();

    fn read() -> Option<Fault> {
        let text = std::env::var("ZVM_FAULT").ok()?;
        let mut parts = text.split(':');
        Some(Fault {
            point: parts.next()?.to_owned(),
            action: parts.next()?.to_owned(),
            at: parts.next().and_then(|at| at.parse().ok()).unwrap_or(1),
            reached: AtomicU64::new(0),
        })
    }

    pub(super) fn point(name: &'static str, path: &Path) -> Result<(), StoreError> {
        let Some(fault) = FAULT.get_or_init(read) else {
            return Ok(());
        };
        if fault.point != name {
            return Ok(());
        }
        let reached = fault.reached.fetch_add(1, Ordering::Relaxed) + 1;
        let (action, once) = match fault.action.strip_suffix("-once") {
            Some(action) => (action, true),
            None => (fault.action.as_str(), false),
        };
        if reached < fault.at || (once && reached > fault.at) {
            return Ok(());
        }
        match action {
            "kill" => {
                let _ = rustix::process::kill_process(
                    rustix::process::getpid(),
                    rustix::process::Signal::KILL,
                );
                loop {
                    std::thread::park();
                }
            }
            "enospc" => Err(StoreError::DiskFull {
                path: path.to_owned(),
            }),
            _ => Err(StoreError::Io {
                op: name,
                path: path.to_owned(),
                source: io::Error::from_raw_os_error(libc::EIO),
            }),
        }
    }
}
