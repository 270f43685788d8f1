//! Compiled code that outlives the process: a folder of files that only its owner can read and write.
//!
//! What is read back is executed, so the decision to trust a file rests on the system: the folder and the file belong to
//! the user who runs this process, and nobody else may read or write them. Whoever can write as that user could replace
//! the binary as well. The checksum finds damage, not malice. A file that is not trusted, damaged or made for another
//! engine, code, fork or level is as if it were not there: it costs a compilation, never a result.
//!
//! [`DiskCache::get`] and [`DiskCache::put`] wait for the disk: they are for the threads that compile.

mod format;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::{DirBuilder, File, FileTimes, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use alloy_primitives::{B256, hex, keccak256};
use cranelift_codegen::settings;
use parking_lot::Mutex;
use rustix::fs::OFlags;
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use self::format::Invalid;
use crate::compiler::Level;
use crate::unit::Image;

/// What an image depends on beside the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// keccak-256 of the bytecode.
    pub code_hash: B256,
    /// The fork's rules.
    pub spec: SpecId,
    /// How it was compiled.
    pub level: Level,
}

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Others could put files there, and files are executed.
    #[error("{path} must belong to user {user} with mode 0700, it belongs to {owner} with mode {mode:04o}", path = path.display())]
    Exposed {
        /// The folder.
        path: PathBuf,
        /// Who runs this process.
        user: u32,
        /// Who owns the folder.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process", path = path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// Cranelift does not know the processor.
    #[error("cranelift: {0}")]
    Backend(String),
}

/// What was asked and answered since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskStatistics {
    /// Images read.
    pub hits: u64,
    /// Keys without a file.
    pub misses: u64,
    /// Files ignored because others may write them or they are no files.
    pub exposed: u64,
    /// Files ignored because they are cut off or changed.
    pub damaged: u64,
    /// Files ignored because they are for another engine or key.
    pub foreign: u64,
    /// Images written.
    pub stored: u64,
    /// Images not written because the limit does not hold them.
    pub no_room: u64,
    /// Files removed to make room.
    pub evicted: u64,
    /// Requests that the system refused.
    pub failed: u64,
    /// Files there are.
    pub files: u64,
    /// Bytes that they take on disk, in blocks of 4 KiB.
    pub bytes: u64,
    /// Bytes that they may take.
    pub limit: u64,
}

/// A store of images.
#[derive(Debug)]
pub struct DiskCache {
    folder: PathBuf,
    engine: B256,
    user: u32,
    /// Open as long as the store is: holds the lock.
    _lock: File,
    index: Mutex<Index>,
}

/// The files there are, so that most questions need no system call.
#[derive(Debug, Default)]
struct Index {
    files: HashMap<B256, Entry>,
    /// From least to most recently used.
    order: BTreeMap<u64, B256>,
    clock: u64,
    statistics: DiskStatistics,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    bytes: u64,
    used: u64,
}

/// Files that are being written have it in front of a number.
const TEMPORARY: &str = "new-";
const SUFFIX: &str = ".unit";
const BLOCK: u64 = 4096;

/// What compiled code depends on beside code, fork and level: sources of this engine, compiler and dependencies (by
/// `build.rs`), Cranelift's version, the processor and its features.
fn engine() -> Result<B256, OpenError> {
    let backend = |error: &dyn core::fmt::Display| OpenError::Backend(error.to_string());
    let isa = cranelift_native::builder()
        .map_err(|error| backend(&error))?
        .finish(settings::Flags::new(settings::builder()))
        .map_err(|error| backend(&error))?;
    let mut text = format!(
        "{}\n{}\n{}\n",
        env!("ZVM_ENGINE_BUILD"),
        cranelift_codegen::VERSION,
        isa.triple()
    );
    for flag in isa.isa_flags() {
        text += &format!("{flag}\n");
    }
    Ok(keccak256(text))
}

impl DiskCache {
    /// Opens the store in a folder, which is made if it is not there, and removes the least recently used files until
    /// `limit` bytes hold the rest.
    ///
    /// # Errors
    /// Others may write the folder, another process uses it, or the system refuses.
    pub fn open(folder: &Path, limit: u64) -> Result<Self, OpenError> {
        Self::open_as(folder, limit, engine()?)
    }

    fn open_as(folder: &Path, limit: u64, engine: B256) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: folder.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .map_err(io)?;
        let lock = OpenOptions::new()
            .read(true)
            .custom_flags((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits() as i32)
            .open(folder)
            .map_err(io)?;
        let metadata = lock.metadata().map_err(io)?;
        let user = rustix::process::geteuid().as_raw();
        if !private(user, &metadata) {
            return Err(OpenError::Exposed {
                path: folder.to_owned(),
                user,
                owner: metadata.uid(),
                mode: metadata.mode() & 0o7777,
            });
        }
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => OpenError::InUse {
                path: folder.to_owned(),
            },
            TryLockError::Error(error) => io(error),
        })?;
        let cache = Self {
            folder: folder.to_owned(),
            engine,
            user,
            _lock: lock,
            index: Mutex::default(),
        };
        cache.scan(limit).map_err(io)?;
        Ok(cache)
    }

    fn scan(&self, limit: u64) -> io::Result<()> {
        let mut found = Vec::new();
        for entry in self.folder.read_dir()? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                continue;
            };
            if name.starts_with(TEMPORARY) {
                // Of a process that was ended while it wrote.
                std::fs::remove_file(entry.path())?;
                continue;
            }
            let file = name.strip_suffix(SUFFIX).and_then(|name| {
                let mut bytes = [0; 32];
                hex::decode_to_slice(name, &mut bytes).ok()?;
                Some(B256::from(bytes))
            });
            if let Some(file) = file {
                let metadata = entry.metadata()?;
                let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push((used, file, metadata.len()));
            }
        }
        found.sort();
        let mut index = self.index.lock();
        index.statistics.limit = limit;
        for (_, file, length) in found {
            index.insert(file, blocks(length));
        }
        self.make_room(&mut index, 0);
        Ok(())
    }

    fn name(&self, key: &Key) -> B256 {
        keccak256(format::address(&self.engine, key))
    }

    fn path(&self, name: &B256) -> PathBuf {
        self.folder.join(format!("{}{SUFFIX}", hex::encode(name)))
    }

    /// Whether there is an image for the key, as far as the index knows. Does not wait for the disk.
    pub fn contains(&self, key: &Key) -> bool {
        let name = self.name(key);
        self.index.lock().files.contains_key(&name)
    }

    /// The image that was put for the key, if there is one that may be executed. Waits for the disk.
    pub fn get(&self, key: &Key) -> Option<Image> {
        let name = self.name(key);
        {
            let mut index = self.index.lock();
            if !index.touch(&name) {
                index.statistics.misses += 1;
                return None;
            }
        }
        let path = self.path(&name);
        let image = self.read(key, &path);
        let mut index = self.index.lock();
        let statistics = &mut index.statistics;
        match &image {
            Ok(_) => statistics.hits += 1,
            Err(Ignored::Exposed { .. } | Ignored::Link) => statistics.exposed += 1,
            Err(Ignored::Invalid(Invalid::Foreign)) => statistics.foreign += 1,
            Err(Ignored::Invalid(_)) => statistics.damaged += 1,
            // Removed to make room since the index was asked.
            Err(Ignored::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                statistics.misses += 1;
                return None;
            }
            Err(Ignored::Io(_)) => statistics.failed += 1,
        }
        drop(index);
        image
            .inspect_err(|reason| tracing::warn!(path = %path.display(), %reason, "compiled code is ignored"))
            .ok()
    }

    fn read(&self, key: &Key, path: &Path) -> Result<Image, Ignored> {
        let mut file = OpenOptions::new()
            .read(true)
            // No link is followed, and no pipe waited for.
            .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32)
            .open(path)
            .map_err(|error| match error.raw_os_error() {
                Some(number) if number == rustix::io::Errno::LOOP.raw_os_error() => Ignored::Link,
                _ => error.into(),
            })?;
        let metadata = file.metadata()?;
        if !metadata.is_file() || !private(self.user, &metadata) {
            return Err(Ignored::Exposed {
                owner: metadata.uid(),
                mode: metadata.mode(),
            });
        }
        let limit = self.index.lock().statistics.limit;
        let mut bytes = Vec::with_capacity(metadata.len().min(limit) as usize);
        // More than the limit was never written.
        (&mut file).take(limit).read_to_end(&mut bytes)?;
        let image = format::decode(&self.engine, key, &bytes)?;
        // So that the order of use outlives the process; without it the file is only removed earlier.
        let times = FileTimes::new().set_modified(SystemTime::now());
        if let Err(error) = file.set_times(times) {
            tracing::debug!(path = %path.display(), %error, "time of use not noted");
        }
        Ok(image)
    }

    /// Keeps an image. What cannot be kept is counted and logged. Waits for the disk.
    pub fn put(&self, key: &Key, image: &Image) {
        let name = self.name(key);
        let bytes = format::encode(&self.engine, key, image);
        let size = blocks(bytes.len() as u64);
        let number = {
            let mut index = self.index.lock();
            // What is there under the name was ignored, or nobody would compile again.
            if index.remove(&name).is_some() {
                self.unlink(&mut index, &name);
            }
            if !self.make_room(&mut index, size) {
                index.statistics.no_room += 1;
                return;
            }
            // Counted before it is there, so that two writers keep the limit together.
            index.statistics.bytes += size;
            index.tick()
        };
        let temporary = self.folder.join(format!("{TEMPORARY}{number}"));
        let mut written = write(&temporary, &bytes);
        let mut index = self.index.lock();
        index.statistics.bytes -= size;
        if written.is_ok() {
            // Under the lock, so that the index says what is in the folder.
            written = std::fs::rename(&temporary, self.path(&name));
        }
        match written {
            Ok(()) => {
                index.remove(&name);
                index.insert(name, size);
                index.statistics.stored += 1;
            }
            Err(error) => {
                index.statistics.failed += 1;
                drop(index);
                drop(std::fs::remove_file(&temporary));
                tracing::warn!(path = %temporary.display(), %error, "compiled code is not kept");
            }
        }
    }

    /// What was asked and answered.
    pub fn statistics(&self) -> DiskStatistics {
        let index = self.index.lock();
        DiskStatistics {
            files: index.files.len() as u64,
            ..index.statistics
        }
    }

    /// Removes the least recently used files until there is room for so many bytes. Returns whether there is.
    fn make_room(&self, index: &mut Index, wanted: u64) -> bool {
        if wanted > index.statistics.limit {
            return false;
        }
        while index.statistics.bytes + wanted > index.statistics.limit {
            let Some(name) = index.order.first_key_value().map(|(_, name)| *name) else {
                // What is left is being written.
                return false;
            };
            index.remove(&name);
            index.statistics.evicted += 1;
            self.unlink(index, &name);
        }
        true
    }

    fn unlink(&self, index: &mut Index, name: &B256) {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                index.statistics.failed += 1;
                tracing::warn!(path = %path.display(), %error, "compiled code is not removed");
            }
        }
    }
}

/// Why a file is as if it were not there.
#[derive(Debug, thiserror::Error)]
enum Ignored {
    #[error(
        "it belongs to user {owner} with mode {mode:06o}: it must be a file of this user with mode 0600"
    )]
    Exposed { owner: u32, mode: u32 },
    #[error("it is a symbolic link")]
    Link,
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Whether it belongs to the user and nobody else may do anything with it.
fn private(user: u32, metadata: &Metadata) -> bool {
    metadata.uid() == user && metadata.mode() & 0o077 == 0
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // Not synchronised: a file that a crash cut off is found by its checksum.
    file.write_all(bytes)
}

fn blocks(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

impl Index {
    /// A number that there was not before.
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Enters a file as the one used last.
    fn insert(&mut self, name: B256, bytes: u64) {
        let used = self.tick();
        self.files.insert(name, Entry { bytes, used });
        self.order.insert(used, name);
        self.statistics.bytes += bytes;
    }

    fn remove(&mut self, name: &B256) -> Option<Entry> {
        let entry = self.files.remove(name)?;
        self.order.remove(&entry.used);
        self.statistics.bytes -= entry.bytes;
        Some(entry)
    }

    /// Makes a file the one used last. Returns whether there is one.
    fn touch(&mut self, name: &B256) -> bool {
        let Some(entry) = self.remove(name) else {
            return false;
        };
        self.insert(*name, entry.bytes);
        true
    }
}
