//! Names for native code in profiles: one symbol a basic block, `evm:HASH:LEVEL:PC` (first four bytes of the code's hash,
//! `quick` or `full`, pc in hex, or `shared` for what belongs to no block).
//!
//! [`Format::PerfMap`] is the simplest: `perf report` reads `/tmp/perf-PID.map`. Its lines have no times: where addresses
//! are used again after an eviction, old names hide new ones. [`Format::JitDump`] has times and the code itself
//! (`perf record -k mono`, `perf inject --jit`): exact, and `perf annotate` shows instructions.
//!
//! A profile is of a process, so it is switched on once for all of it.

mod jitdump;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use alloy_primitives::{B256, hex};
use parking_lot::Mutex;
use rustix::fs::OFlags;

use self::jitdump::JitDump;
use crate::arena::Backing;
use crate::compiler::Level;
use crate::unit::{SHARED, Unit};

/// How names are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `/tmp/perf-PID.map`.
    PerfMap,
    /// `jit-PID.dump` in the current folder.
    JitDump,
}

static RECORDER: OnceLock<Recorder> = OnceLock::new();

/// Writes down every unit that is registered from now on, once for the process; another start changes nothing. A perf map
/// must be started before code is loaded. Returns the file.
///
/// # Errors
/// The file cannot be made.
pub fn start(format: Format) -> io::Result<PathBuf> {
    if let Some(recorder) = RECORDER.get() {
        return Ok(recorder.path.clone());
    }
    let folder = match format {
        Format::PerfMap => PathBuf::from("/tmp"),
        Format::JitDump => std::env::current_dir()?,
    };
    let recorder = Recorder::create(format, &folder)?;
    Ok(RECORDER.get_or_init(|| recorder).path.clone())
}

/// Writes down the names of a unit that was just loaded, if [`start`] was called. `code_hash` is the hash of its
/// bytecode.
pub fn register(unit: &Unit, code_hash: &B256) {
    if let Some(recorder) = RECORDER.get() {
        recorder.register(unit, code_hash);
    }
}

/// Where code must lie for its names to be found: `perf` looks up names in a map for anonymous memory only.
pub(crate) fn backing() -> Backing {
    match RECORDER.get().map(|recorder| recorder.format) {
        Some(Format::PerfMap) => Backing::Pages,
        Some(Format::JitDump) | None => Backing::File,
    }
}

/// A file of names.
struct Recorder {
    format: Format,
    path: PathBuf,
    /// None after a failure: half a file is worth more than a warning for every unit.
    sink: Mutex<Option<Sink>>,
}

enum Sink {
    PerfMap(File),
    JitDump(JitDump),
}

impl Recorder {
    fn create(format: Format, folder: &Path) -> io::Result<Self> {
        let process = std::process::id();
        let path = match format {
            Format::PerfMap => folder.join(format!("perf-{process}.map")),
            Format::JitDump => folder.join(format!("jit-{process}.dump")),
        };
        let file = create(&path)?;
        let sink = match format {
            Format::PerfMap => Sink::PerfMap(file),
            Format::JitDump => Sink::JitDump(JitDump::new(file)?),
        };
        Ok(Self {
            format,
            path,
            sink: Mutex::new(Some(sink)),
        })
    }

    fn register(&self, unit: &Unit, code_hash: &B256) {
        let mut sink = self.sink.lock();
        let written = match &mut *sink {
            None => return,
            // One write a unit, so that a process that is ended leaves whole lines.
            Some(Sink::PerfMap(file)) => file.write_all(map(unit, code_hash).as_bytes()),
            Some(Sink::JitDump(dump)) => dump.load(unit, code_hash),
        };
        if let Err(error) = written {
            tracing::warn!(path = %self.path.display(), %error, "no more names for the profile");
            *sink = None;
        }
    }
}

/// Makes a file in a folder that may be everybody's: never through a link, never into another's file.
fn create(path: &Path) -> io::Result<File> {
    let make = || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(path)
    };
    match make() {
        // Of an earlier process with the same id.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(path)?;
            make()
        }
        made => made,
    }
}

/// A stretch of code with one name.
struct Symbol {
    offset: usize,
    size: usize,
    name: String,
}

fn symbols(unit: &Unit, code_hash: &B256) -> impl Iterator<Item = Symbol> {
    let hash = hex::encode(&code_hash[..4]);
    let level = match unit.level() {
        Level::Quick => "quick",
        Level::Full => "full",
    };
    let starts = unit.symbols();
    let ends = starts.iter().skip(1).map(|(offset, _)| *offset as usize);
    let ends = ends.chain([unit.size()]);
    starts
        .iter()
        .zip(ends)
        .map(|((offset, pc), end)| (*offset as usize, end, *pc))
        .filter(|(offset, end, _)| offset < end)
        .map(move |(offset, end, pc)| Symbol {
            offset,
            size: end - offset,
            name: match pc {
                SHARED => format!("evm:{hash}:{level}:shared"),
                pc => format!("evm:{hash}:{level}:{pc:x}"),
            },
        })
}

/// Lines `START SIZE NAME`, numbers in hex.
fn map(unit: &Unit, code_hash: &B256) -> String {
    let start = unit.code().as_ptr().addr();
    symbols(unit, code_hash)
        .map(|symbol| {
            let Symbol { offset, size, name } = symbol;
            format!("{:x} {size:x} {name}\n", start + offset)
        })
        .collect()
}
