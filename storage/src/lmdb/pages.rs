//! Whether every page in use lies inside the file and is the page it should be.
//!
//! LMDB reads pages through its map and trusts them: one past the end of the file ends the process with SIGBUS, a
//! damaged one in whatever way. A file can be shorter than the last page it has ever given out, because pages that were
//! given out and freed in one transaction are not written; so a file that looks short is walked, with plain reads, from
//! its two roots. A walk is also what a check of the whole file is made of, and what is done to a journal each time it
//! is opened.

use super::failed;
use crate::StoreError;
use ::lmdb::Environment;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE_HEADER: usize = 16;
const NO_PAGE: u64 = u64::MAX;
// Flags of a page.
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;
// Flags of a node in a leaf.
const BIG_DATA: u16 = 0x01;
const SUB_DATABASE: u16 = 0x02;
/// Bytes of a node before its key.
const NODE_HEADER: usize = 8;
/// Where the root is in the description of a database.
const DATABASE_ROOT: usize = 40;
/// Where the first of the two descriptions is in a meta page, and the size of one. It begins with the page size.
const META_DATABASES: usize = PAGE_HEADER + 24;
const DATABASE_SIZE: usize = 48;
/// Where the number of the transaction is in a meta page.
const META_TRANSACTION: usize = META_DATABASES + 2 * DATABASE_SIZE + 8;
const MAGIC: u32 = 0xbeef_c0de;
/// Deeper than any tree of LMDB: a longer way down is a circle.
const MAX_DEPTH: u32 = 64;

/// Fails if the data file of `environment` ends before a page in use.
pub(super) fn check_length(environment: &Environment, path: &Path) -> Result<(), StoreError> {
    let info = environment.info().map_err(failed("read the meta page"))?;
    let stat = environment.stat().map_err(failed("read the meta page"))?;
    let page_size = u64::from(stat.page_size());
    let file = File::open(path).map_err(read(path))?;
    let length = file.metadata().map_err(read(path))?.len();
    let all = (info.last_pgno() as u64).checked_add(1);
    let all = all.and_then(|pages| pages.checked_mul(page_size));
    if all.is_some_and(|all| all <= length) {
        return Ok(());
    }
    check_all(path).map(drop)
}

/// Walks the newest state of a data file. Returns how many pages are in use.
pub(super) fn check_all(path: &Path) -> Result<u64, StoreError> {
    let roots = Roots::read(path)?;
    roots.newest.map_err(|fault| fault.error(path))
}

/// Whether the states that a data file's two meta pages name are whole.
pub(crate) struct Roots {
    /// The later one: its pages in use.
    pub(crate) newest: Result<u64, Fault>,
    /// The one before.
    pub(crate) older: Result<u64, Fault>,
    /// Number of the page that names the later one.
    newest_page: u64,
    page_size: u64,
}

impl Roots {
    /// Walks both.
    pub(crate) fn read(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path).map_err(read(path))?;
        let length = file.metadata().map_err(read(path))?.len();
        let mut start = [0; META_TRANSACTION + 8];
        let damaged = |fault: Fault| Self {
            newest: Err(fault),
            older: Err(Fault::Malformed(0)),
            newest_page: 0,
            page_size: 0,
        };
        match file.read_exact_at(&mut start, 0) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Ok(damaged(Fault::Malformed(0)));
            }
            Err(error) => return Err(read(path)(error)),
        }
        let page_size = u32_at(&start, META_DATABASES).map_or(0, u64::from);
        if !(page_size.is_power_of_two() && (512..=65_536).contains(&page_size)) {
            return Ok(damaged(Fault::Malformed(0)));
        }
        let mut walk = Walk {
            file,
            length,
            page_size,
            pages: length / page_size,
            used: 0,
        };
        let (first, second) = (walk.meta(0), walk.meta(1));
        let transaction = |meta: &Result<Vec<u8>, Fault>| {
            meta.as_ref()
                .ok()
                .and_then(|meta| u64_at(meta, META_TRANSACTION))
        };
        let (newest_page, newest, older) = if transaction(&second) > transaction(&first) {
            (1, second, first)
        } else {
            (0, first, second)
        };
        let mut state = |meta: Result<Vec<u8>, Fault>| walk.state(&meta?);
        Ok(Self {
            newest: state(newest),
            older: state(older),
            newest_page,
            page_size,
        })
    }

    /// Makes the older state the newest one of the file. Nothing but the number of the later one's transaction is
    /// overwritten.
    pub(crate) fn drop_newest(&self, path: &Path) -> Result<(), StoreError> {
        let write = |source| StoreError::Io {
            op: "write",
            path: path.to_owned(),
            source,
        };
        let file = OpenOptions::new().write(true).open(path).map_err(write)?;
        let at = self.newest_page * self.page_size + META_TRANSACTION as u64;
        file.write_all_at(&[0; 8], at)
            .and_then(|()| file.sync_all())
            .map_err(write)
    }
}

fn read(path: &Path) -> impl Fn(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io {
        op: "read",
        path: path.clone(),
        source,
    }
}

/// What is wrong with a data file.
pub(crate) enum Fault {
    /// This page in use lies past the end.
    Past {
        page: u64,
        page_size: u64,
        length: u64,
    },
    /// This page is not the page of a tree that it should be.
    Malformed(u64),
    Io(io::Error),
}

impl Fault {
    fn error(self, path: &Path) -> StoreError {
        match self {
            Self::Past {
                page,
                page_size,
                length,
            } => StoreError::Truncated {
                path: path.to_owned(),
                found: length,
                needed: page.saturating_add(1).saturating_mul(page_size),
                page,
            },
            Self::Malformed(page) => StoreError::Open {
                path: path.to_owned(),
                reason: format!("page {page} is not a page of a tree"),
            },
            Self::Io(source) => read(path)(source),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Past { page, length, .. } => {
                write!(f, "page {page} in use lies past the end at byte {length}")
            }
            Self::Malformed(page) => write!(f, "page {page} is damaged"),
            Self::Io(source) => source.fmt(f),
        }
    }
}

struct Walk {
    file: File,
    length: u64,
    page_size: u64,
    /// Whole pages in the file.
    pages: u64,
    /// Pages seen since the walk of a state began.
    used: u64,
}

impl Walk {
    fn meta(&self, number: u64) -> Result<Vec<u8>, Fault> {
        let page = self.page(number)?;
        let sound = u16_at(&page, 10) == Some(META) && u32_at(&page, PAGE_HEADER) == Some(MAGIC);
        match sound {
            true => Ok(page),
            false => Err(Fault::Malformed(number)),
        }
    }

    /// Walks the two trees that a meta page names.
    fn state(&mut self, meta: &[u8]) -> Result<u64, Fault> {
        self.used = 2;
        for database in 0..2 {
            let at = META_DATABASES + database * DATABASE_SIZE + DATABASE_ROOT;
            self.tree(u64_at(meta, at).ok_or(Fault::Malformed(0))?, 0)?;
        }
        Ok(self.used)
    }

    fn tree(&mut self, number: u64, depth: u32) -> Result<(), Fault> {
        if number == NO_PAGE {
            return Ok(());
        }
        let malformed = || Fault::Malformed(number);
        // The two meta pages are of no tree, and more pages than the file has are a circle.
        if depth > MAX_DEPTH || number < 2 || self.used > self.pages {
            return Err(malformed());
        }
        let page = self.page(number)?;
        self.used += 1;
        let flags = u16_at(&page, 10).ok_or_else(malformed)?;
        let lower = usize::from(u16_at(&page, 12).ok_or_else(malformed)?);
        let offsets = page.get(PAGE_HEADER..lower).ok_or_else(malformed)?;
        for offset in offsets.as_chunks::<2>().0 {
            let node = page.get(usize::from(u16::from_ne_bytes(*offset))..);
            self.node(flags, node.unwrap_or_default(), depth)
                .ok_or_else(malformed)??;
        }
        Ok(())
    }

    /// Follows one node of a page; `None` if it does not have the form of one.
    fn node(&mut self, page_flags: u16, node: &[u8], depth: u32) -> Option<Result<(), Fault>> {
        let halves = (u64::from(u16_at(node, 0)?), u64::from(u16_at(node, 2)?));
        let (low, high) = match cfg!(target_endian = "little") {
            true => halves,
            false => (halves.1, halves.0),
        };
        let flags = u16_at(node, 4)?;
        let data = NODE_HEADER + usize::from(u16_at(node, 6)?);
        if page_flags == BRANCH {
            node.get(..data)?;
            let child = low | high << 16 | u64::from(flags) << 32;
            return Some(self.tree(child, depth + 1));
        }
        if page_flags != LEAF {
            return None;
        }
        let length = low | high << 16;
        if flags & BIG_DATA != 0 {
            return Some(self.overflow(u64_at(node, data)?, length));
        }
        node.get(data..data.checked_add(usize::try_from(length).ok()?)?)?;
        if flags & SUB_DATABASE != 0 {
            return Some(self.tree(u64_at(node, data + DATABASE_ROOT)?, depth + 1));
        }
        Some(Ok(()))
    }

    /// Checks the pages of a value of `length` bytes that begins on page `number`.
    fn overflow(&mut self, number: u64, length: u64) -> Result<(), Fault> {
        let pages = (PAGE_HEADER as u64 + length).div_ceil(self.page_size);
        match number.checked_add(pages) {
            Some(end) if end <= self.pages => {}
            Some(end) => return Err(self.past(end - 1)),
            None => return Err(Fault::Malformed(number)),
        }
        let page = self.page(number)?;
        let sound = u16_at(&page, 10) == Some(OVERFLOW)
            && u32_at(&page, 12).is_some_and(|has| u64::from(has) >= pages);
        if !sound {
            return Err(Fault::Malformed(number));
        }
        self.used += pages;
        Ok(())
    }

    /// A whole page, which says its own number.
    fn page(&self, number: u64) -> Result<Vec<u8>, Fault> {
        if number >= self.pages {
            return Err(self.past(number));
        }
        let mut page = vec![0; self.page_size as usize];
        self.file
            .read_exact_at(&mut page, number * self.page_size)
            .map_err(Fault::Io)?;
        match u64_at(&page, 0) == Some(number) {
            true => Ok(page),
            false => Err(Fault::Malformed(number)),
        }
    }

    const fn past(&self, page: u64) -> Fault {
        Fault::Past {
            page,
            page_size: self.page_size,
            length: self.length,
        }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*field))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_ne_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_ne_bytes(*field))
}
