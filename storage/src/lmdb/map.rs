//! An open environment whose map can grow.

use super::gate::{Gate, Pass};
use super::{address_space, failed};
use crate::StoreError;
use ::lmdb::Environment;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the map is doubled at most to make room for one set of writes.
const GROW_ATTEMPTS: u32 = 8;

/// An environment, and the gate every transaction on it passes.
pub(crate) struct Map {
    pub(super) environment: Environment,
    pub(super) path: PathBuf,
    pub(super) max_readers: u32,
    grow_wait: Duration,
    gate: Arc<Gate>,
    /// A resize failed and left no map.
    unusable: AtomicBool,
}

impl Map {
    /// Takes over an environment that was just opened.
    pub(crate) fn new(
        environment: Environment,
        path: PathBuf,
        max_readers: u32,
        grow_wait: Duration,
    ) -> Self {
        Self {
            environment,
            path,
            max_readers,
            grow_wait,
            gate: Arc::default(),
            unusable: AtomicBool::new(false),
        }
    }

    /// Folder of the environment.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the map where it is.
    pub(super) fn enter(&self) -> Result<Pass, StoreError> {
        let pass = self.gate.pass();
        if self.unusable.load(Ordering::Acquire) {
            return Err(StoreError::Unusable {
                path: self.path.clone(),
            });
        }
        Ok(pass)
    }

    /// Size of the map in bytes.
    pub(crate) fn size(&self) -> Result<u64, StoreError> {
        // LMDB reads it from the map, which is not there while it is exchanged.
        let _pass = self.enter()?;
        let info = self.environment.info();
        Ok(info.map_err(failed("read the map size"))?.map_size() as u64)
    }

    /// Runs `write`, a whole write transaction that says `Ok(false)` if the map has no room, and grows the map until
    /// it has. One thread at a time writes. `bytes` is what is written, for the error.
    pub(crate) fn write(
        &self,
        bytes: usize,
        mut write: impl FnMut(&Environment) -> Result<bool, StoreError>,
    ) -> Result<(), StoreError> {
        let mut attempt = || {
            let _pass = self.enter()?;
            write(&self.environment)
        };
        for _ in 0..GROW_ATTEMPTS {
            if attempt()? {
                return Ok(());
            }
            self.grow()?;
        }
        if attempt()? {
            return Ok(());
        }
        Err(StoreError::MapFull {
            map_size: self.size()?,
            reason: format!("{bytes} bytes written at once do not fit"),
        })
    }

    /// Runs `read` on the environment while its map stays.
    pub(crate) fn with<T>(
        &self,
        read: impl FnOnce(&Environment) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _pass = self.enter()?;
        read(&self.environment)
    }

    /// Waits until all that was written is on the medium.
    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.with(|environment| environment.sync(true).map_err(failed("sync")))
    }

    /// Doubles the map when no transaction is open.
    fn grow(&self) -> Result<(), StoreError> {
        let old = self.size()?;
        let refused = |reason: String| StoreError::MapFull {
            map_size: old,
            reason,
        };
        let new = old
            .checked_mul(2)
            .and_then(|new| usize::try_from(new).ok())
            .ok_or_else(|| refused("there is no larger size".into()))?;
        let Some(_closed) = self.gate.close(self.grow_wait) else {
            return Err(refused(format!(
                "snapshots stayed open for {:?}",
                self.grow_wait
            )));
        };
        // LMDB unmaps first: a size the system refuses must be found out while the old map is still there.
        address_space::probe(new).map_err(|error| refused(error.to_string()))?;
        // The gate is closed, so no transaction of this process is open, and the lock file keeps other ones out: the
        // two conditions under which LMDB may exchange its map.
        self.environment.set_map_size(new).map_err(|error| {
            // There is no map now, and without one a second call maps nothing and says that all is well.
            self.unusable.store(true, Ordering::Release);
            refused(error.to_string())
        })
    }
}
