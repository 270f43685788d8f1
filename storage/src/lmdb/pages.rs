//! Whether every page in use lies inside the file.
//!
//! LMDB reads pages through its map, where one past the end of the file ends the process with SIGBUS. A file can be
//! shorter than the last page it has ever given out, because pages that were given out and freed in one transaction
//! are not written; so a file that looks short is walked, with plain reads, from its two roots.

use super::failed;
use crate::StoreError;
use ::lmdb::Environment;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE_HEADER: usize = 16;
const NO_PAGE: u64 = u64::MAX;
// Flags of a page.
const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
// Flags of a node in a leaf.
const BIG_DATA: u16 = 0x01;
const SUB_DATABASE: u16 = 0x02;
/// Where the root is in the description of a database.
const DATABASE_ROOT: usize = 40;
/// Where the first of the two descriptions is in a meta page, and the size of one.
const META_DATABASES: usize = PAGE_HEADER + 24;
const DATABASE_SIZE: usize = 48;
/// Where the number of the transaction is in a meta page.
const META_TRANSACTION: usize = META_DATABASES + 2 * DATABASE_SIZE + 8;
/// Deeper than any tree of LMDB: a longer way down is a circle.
const MAX_DEPTH: u32 = 64;

/// Fails if the data file of `environment` ends before a page in use.
pub(super) fn check_length(environment: &Environment, path: &Path) -> Result<(), StoreError> {
    let info = environment.info().map_err(failed("read the meta page"))?;
    let stat = environment.stat().map_err(failed("read the meta page"))?;
    let page_size = u64::from(stat.page_size());
    let read = |source| StoreError::Io {
        op: "read",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(read)?;
    let length = file.metadata().map_err(read)?.len();
    let all = (info.last_pgno() as u64).checked_add(1);
    let all = all.and_then(|pages| pages.checked_mul(page_size));
    if all.is_some_and(|all| all <= length) {
        return Ok(());
    }
    let walk = Walk {
        file,
        page_size,
        pages: length / page_size,
    };
    walk.roots().map_err(|fault| match fault {
        Fault::Past(page) => StoreError::Truncated {
            path: path.to_owned(),
            found: length,
            needed: page.saturating_add(1).saturating_mul(page_size),
            page,
        },
        Fault::Malformed(page) => StoreError::Open {
            path: path.to_owned(),
            reason: format!("page {page} is not a page of a tree"),
        },
        Fault::Io(source) => read(source),
    })
}

enum Fault {
    /// This page in use lies past the end.
    Past(u64),
    /// This page cannot be read as a page of a tree.
    Malformed(u64),
    Io(io::Error),
}

struct Walk {
    file: File,
    page_size: u64,
    /// Whole pages in the file.
    pages: u64,
}

impl Walk {
    fn roots(&self) -> Result<(), Fault> {
        let (first, second) = (self.page(0)?, self.page(1)?);
        let transaction = |page: &[u8]| u64_at(page, META_TRANSACTION);
        let meta = if transaction(&second) > transaction(&first) {
            second
        } else {
            first
        };
        for database in 0..2 {
            let at = META_DATABASES + database * DATABASE_SIZE + DATABASE_ROOT;
            self.tree(u64_at(&meta, at).ok_or(Fault::Malformed(0))?, 0)?;
        }
        Ok(())
    }

    fn tree(&self, number: u64, depth: u32) -> Result<(), Fault> {
        if number == NO_PAGE {
            return Ok(());
        }
        let malformed = || Fault::Malformed(number);
        if depth > MAX_DEPTH {
            return Err(malformed());
        }
        let page = self.page(number)?;
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
    fn node(&self, page_flags: u16, node: &[u8], depth: u32) -> Option<Result<(), Fault>> {
        let halves = (u64::from(u16_at(node, 0)?), u64::from(u16_at(node, 2)?));
        let (low, high) = match cfg!(target_endian = "little") {
            true => halves,
            false => (halves.1, halves.0),
        };
        let flags = u16_at(node, 4)?;
        if page_flags & BRANCH != 0 {
            let child = low | high << 16 | u64::from(flags) << 32;
            return Some(self.tree(child, depth + 1));
        }
        if page_flags & LEAF == 0 {
            return None;
        }
        let data = 8 + usize::from(u16_at(node, 6)?);
        if flags & BIG_DATA != 0 {
            return Some(self.overflow(u64_at(node, data)?, low | high << 16));
        }
        if flags & SUB_DATABASE != 0 {
            return Some(self.tree(u64_at(node, data + DATABASE_ROOT)?, depth + 1));
        }
        Some(Ok(()))
    }

    /// Checks the pages of a value of `length` bytes that begins on page `number`.
    fn overflow(&self, number: u64, length: u64) -> Result<(), Fault> {
        let pages = (PAGE_HEADER as u64 + length).div_ceil(self.page_size);
        match number.checked_add(pages) {
            Some(end) if end <= self.pages => Ok(()),
            Some(end) => Err(Fault::Past(end - 1)),
            None => Err(Fault::Malformed(number)),
        }
    }

    fn page(&self, number: u64) -> Result<Vec<u8>, Fault> {
        if number >= self.pages {
            return Err(Fault::Past(number));
        }
        let mut page = vec![0; self.page_size as usize];
        self.file
            .read_exact_at(&mut page, number * self.page_size)
            .map_err(Fault::Io)?;
        Ok(page)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let field = bytes.get(at..)?.first_chunk::<2>()?;
    Some(u16::from_ne_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk::<8>()?;
    Some(u64::from_ne_bytes(*field))
}
