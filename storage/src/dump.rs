//! A store as one stream of bytes, for copies and backups.
//!
//! The stream holds every entry of every table but the schema version, in order, in frames with a check each:
//!
//! | Bytes | What |
//! |---|---|
//! | 17 | `zvm-store-export` and a line feed |
//! | 4 | version of this layout, 1 |
//! | 4 | schema version of the tables |
//! | | frames |
//!
//! | Bytes of a frame | What |
//! |---|---|
//! | 4 | length of the rows in bytes; 0 in the last frame |
//! | length | rows: table number (1), length of the key (2), key, length of the value (4), value. In the last frame: number of all rows (8) |
//! | 32 | Keccak-256 of the check of the frame before (of the bytes before the first frame) and of all above |
//!
//! Integers are big-endian.

use crate::meta::{JOURNAL, SCHEMA};
use crate::rows::{Row, Rows};
use crate::{SCHEMA_VERSION, Snapshot, StoreError, Table};
use alloy_primitives::{B256, Keccak256};
use std::io::{self, Read, Write};

/// How an exported stream begins.
pub const EXPORT_MAGIC: &[u8; 17] = b"zvm-store-export\n";
const VERSION: u32 = 1;
/// Rows are gathered up to this many bytes; one row more may come on top.
const FRAME_BYTES: usize = 1 << 20;
/// Above what a row can take, a length is a fault and not room to make.
const MAX_FRAME: u32 = 1 << 30;

/// A stream could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stream could not be written.
    #[error("cannot write the export: {0}")]
    Write(#[source] io::Error),
    /// The stream could not be read.
    #[error("cannot read the export at byte {offset}: {source}")]
    Read {
        /// Bytes read before.
        offset: u64,
        /// The system's error.
        source: io::Error,
    },
    /// The stream is no export of a store, or damaged.
    #[error("not a whole export: at byte {offset} {reason}")]
    Malformed {
        /// Bytes read before the fault.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
}

/// What a stream holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dumped {
    /// Entries.
    pub rows: u64,
    /// Bytes of the stream.
    pub bytes: u64,
}

/// Writes all that `snapshot` holds to `out`.
///
/// # Errors
/// [`DumpError::Write`], [`DumpError::Store`].
pub fn export(snapshot: &dyn Snapshot, out: &mut dyn Write) -> Result<Dumped, DumpError> {
    let mut head = EXPORT_MAGIC.to_vec();
    head.extend(VERSION.to_be_bytes());
    head.extend(SCHEMA_VERSION.to_be_bytes());
    out.write_all(&head).map_err(DumpError::Write)?;
    let mut writer = Frames {
        out,
        check: chained(None, &[&head]),
        dumped: Dumped {
            rows: 0,
            bytes: head.len() as u64,
        },
    };
    let mut frame = Vec::with_capacity(FRAME_BYTES + 4096);
    for table in Table::all() {
        let mut rows = Rows::new(snapshot, table, &[]);
        while let Some((key, value)) = rows.next()? {
            if is_of_the_files(table, &key) {
                continue;
            }
            push_row(&mut frame, table, &key, &value)?;
            writer.dumped.rows += 1;
            if frame.len() >= FRAME_BYTES {
                writer.frame(&frame)?;
                frame.clear();
            }
        }
    }
    if !frame.is_empty() {
        writer.frame(&frame)?;
    }
    writer.end()
}

/// The schema version belongs to the store, not to what is in it.
pub(crate) fn is_schema(table: Table, key: &[u8]) -> bool {
    table == Table::Meta && key == SCHEMA
}

/// What belongs to the files of a store: besides the schema version, which journal goes with its tables.
fn is_of_the_files(table: Table, key: &[u8]) -> bool {
    is_schema(table, key) || (table == Table::Meta && key == JOURNAL)
}

fn push_row(frame: &mut Vec<u8>, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
    let key_length = u16::try_from(key.len()).map_err(|_| StoreError::KeyLength {
        table,
        len: key.len(),
    })?;
    let value_length = u32::try_from(value.len())
        .ok()
        .filter(|length| *length < MAX_FRAME / 2)
        .ok_or_else(|| StoreError::corrupt(table, key, "the value is longer than 512 MiB"))?;
    frame.push(table as u8);
    frame.extend(key_length.to_be_bytes());
    frame.extend_from_slice(key);
    frame.extend(value_length.to_be_bytes());
    frame.extend_from_slice(value);
    Ok(())
}

/// The check of a frame.
fn chained(before: Option<&B256>, parts: &[&[u8]]) -> B256 {
    let mut hasher = Keccak256::new();
    if let Some(before) = before {
        hasher.update(before);
    }
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

struct Frames<'a> {
    out: &'a mut dyn Write,
    check: B256,
    dumped: Dumped,
}

impl Frames<'_> {
    fn frame(&mut self, rows: &[u8]) -> Result<(), DumpError> {
        self.write(rows.len() as u32, rows)
    }

    fn end(mut self) -> Result<Dumped, DumpError> {
        let rows = self.dumped.rows.to_be_bytes();
        self.write(0, &rows)?;
        self.out.flush().map_err(DumpError::Write)?;
        Ok(self.dumped)
    }

    fn write(&mut self, length: u32, payload: &[u8]) -> Result<(), DumpError> {
        let length = length.to_be_bytes();
        self.check = chained(Some(&self.check), &[&length, payload]);
        for part in [&length[..], payload, self.check.as_slice()] {
            self.out.write_all(part).map_err(DumpError::Write)?;
            self.dumped.bytes += part.len() as u64;
        }
        Ok(())
    }
}

/// Reads a stream and gives the rows of each frame to `sink`, once the frame has been checked. The whole stream is good
/// only if this returns `Ok`: what was given away before an error must not be used.
///
/// # Errors
/// [`DumpError::Read`], [`DumpError::Malformed`], [`DumpError::Store`], also those of `sink`.
pub fn read_export(
    input: &mut dyn Read,
    sink: &mut dyn FnMut(Vec<(Table, Row)>) -> Result<(), StoreError>,
) -> Result<Dumped, DumpError> {
    let mut reader = Input { input, offset: 0 };
    let head = reader.exactly(EXPORT_MAGIC.len() + 8)?;
    let (magic, versions) = head.split_at(EXPORT_MAGIC.len());
    if magic != EXPORT_MAGIC {
        return Err(malformed(0, "it does not begin as one"));
    }
    let expected = [VERSION.to_be_bytes(), SCHEMA_VERSION.to_be_bytes()].concat();
    if versions != expected {
        let (chunks, _) = versions.as_chunks::<4>();
        let [version, schema] = [chunks[0], chunks[1]].map(u32::from_be_bytes);
        let reason = format!(
            "it has layout {version} and schema {schema}, this build reads {VERSION} and {SCHEMA_VERSION}"
        );
        return Err(malformed(EXPORT_MAGIC.len() as u64, reason));
    }
    let mut check = chained(None, &[&head]);
    let mut rows = 0;
    loop {
        let at = reader.offset;
        let length = reader.exactly(4)?;
        let count = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
        if count > MAX_FRAME {
            return Err(malformed(at, "a frame is longer than any"));
        }
        let payload = reader.exactly(if count == 0 { 8 } else { count as usize })?;
        check = chained(Some(&check), &[&length, &payload]);
        if reader.exactly(32)? != check.as_slice() {
            return Err(malformed(at, "a frame does not have its check"));
        }
        if count == 0 {
            if payload != u64::to_be_bytes(rows) {
                return Err(malformed(at, "the number of rows is another one"));
            }
            break;
        }
        let frame = split_rows(&payload).ok_or_else(|| malformed(at, "a row ends early"))?;
        rows += frame.len() as u64;
        sink(frame)?;
    }
    if reader.some()? {
        return Err(malformed(reader.offset, "bytes follow the end"));
    }
    Ok(Dumped {
        rows,
        bytes: reader.offset,
    })
}

fn malformed(offset: u64, reason: impl Into<String>) -> DumpError {
    DumpError::Malformed {
        offset,
        reason: reason.into(),
    }
}

fn split_rows(mut frame: &[u8]) -> Option<Vec<(Table, Row)>> {
    let mut rows = Vec::new();
    while let Some((table, rest)) = frame.split_first() {
        let table = Table::all().nth(usize::from(*table))?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let (key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (value, rest) = rest.split_at_checked(length)?;
        rows.push((table, (key.to_vec(), value.to_vec())));
        frame = rest;
    }
    Some(rows)
}

struct Input<'a> {
    input: &'a mut dyn Read,
    offset: u64,
}

impl Input<'_> {
    /// Room is made as bytes come, so that a wrong length takes no memory.
    fn exactly(&mut self, length: usize) -> Result<Vec<u8>, DumpError> {
        let mut bytes = Vec::new();
        let read = self.input.take(length as u64).read_to_end(&mut bytes);
        let offset = self.offset;
        self.offset += bytes.len() as u64;
        read.map_err(|source| DumpError::Read { offset, source })?;
        if bytes.len() == length {
            Ok(bytes)
        } else {
            Err(malformed(self.offset, "it ends early"))
        }
    }

    /// Whether there is another byte.
    fn some(&mut self) -> Result<bool, DumpError> {
        let offset = self.offset;
        let mut byte = Vec::new();
        match self.input.take(1).read_to_end(&mut byte) {
            Ok(read) => Ok(read > 0),
            Err(source) => Err(DumpError::Read { offset, source }),
        }
    }
}
