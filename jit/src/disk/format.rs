//! An image as bytes of a file, exactly. Numbers are little-endian.
//!
//! | Offset | Bytes | Field |
//! |---|---|---|
//! | 0 | 8 | `zvmunit1`: the format |
//! | 8 | 32 | engine: see [`super::engine`] |
//! | 40 | 32 | keccak-256 of the bytecode |
//! | 72 | 1 | fork: number of revm's `SpecId` |
//! | 73 | 1 | level: 0 quick, 1 full |
//! | 74 | 2 | 0 |
//! | 76 | 4 | length of the bytecode *n* |
//! | 80 | 4 | CLIF instructions |
//! | 84 | 4 | length of the machine code *c* |
//! | 88 | 4 | number of symbols *s* |
//! | 92 | *c* | machine code |
//! | 92 + *c* | 2 *n* | entries |
//! | 92 + *c* + 2 *n* | 8 *s* | symbols: offset, pc |
//! | 92 + *c* + 2 *n* + 8 *s* | 32 | keccak-256 of all before |
//!
//! The file ends there.

use alloy_primitives::{B256, keccak256};

use super::Key;
use crate::compiler::Level;
use crate::unit::Image;

const MAGIC: [u8; 8] = *b"zvmunit1";
const HEADER: usize = 92;
const CHECKSUM: usize = 32;

/// Why a file is not executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    /// Its bytes are not those that were written.
    #[error("its checksum does not hold")]
    Checksum,
    /// It is whole, but of another format, engine, code, fork or level.
    #[error("it was written for another engine or another key")]
    Foreign,
    /// It is whole, but what it says is not possible.
    #[error("its contents contradict each other")]
    Contents,
}

fn number(level: Level) -> u8 {
    match level {
        Level::Quick => 0,
        Level::Full => 1,
    }
}

/// What comes before the lengths: whom the file is for.
pub(crate) fn address(engine: &B256, key: &Key) -> [u8; 76] {
    let mut bytes = [0; 76];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..40].copy_from_slice(engine.as_slice());
    bytes[40..72].copy_from_slice(key.code_hash.as_slice());
    bytes[72] = key.spec as u8;
    bytes[73] = number(key.level);
    bytes
}

/// The file of an image.
pub(crate) fn encode(engine: &B256, key: &Key, image: &Image) -> Vec<u8> {
    let body = image.code.len() + 2 * image.entries.len() + 8 * image.symbols.len();
    let mut bytes = Vec::with_capacity(HEADER + body + CHECKSUM);
    bytes.extend(address(engine, key));
    let lengths = [image.code.len() as u32, image.symbols.len() as u32];
    for number in [image.bytecode, image.clif].iter().chain(&lengths) {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(&image.code);
    for entry in &image.entries {
        bytes.extend(entry.to_le_bytes());
    }
    for (offset, pc) in &image.symbols {
        bytes.extend(offset.to_le_bytes());
        bytes.extend(pc.to_le_bytes());
    }
    let checksum = keccak256(&bytes);
    bytes.extend(checksum);
    bytes
}

/// The image of a file, if it is exactly what [`encode`] writes for this engine and key.
pub(crate) fn decode(engine: &B256, key: &Key, bytes: &[u8]) -> Result<Image, Invalid> {
    let (content, checksum) = bytes
        .split_last_chunk::<CHECKSUM>()
        .ok_or(Invalid::Checksum)?;
    if keccak256(content) != *checksum {
        return Err(Invalid::Checksum);
    }
    let (header, body) = content
        .split_first_chunk::<HEADER>()
        .ok_or(Invalid::Foreign)?;
    if header[..76] != address(engine, key) {
        return Err(Invalid::Foreign);
    }
    let numbers: Vec<u32> = words(&header[76..]).collect();
    let &[bytecode, clif, code, symbols] = numbers.as_slice() else {
        return Err(Invalid::Contents);
    };
    let (code, rest) = body
        .split_at_checked(code as usize)
        .ok_or(Invalid::Contents)?;
    let (entries, rest) = rest
        .split_at_checked(2 * bytecode as usize)
        .ok_or(Invalid::Contents)?;
    if rest.len() != 8 * symbols as usize {
        return Err(Invalid::Contents);
    }
    let pairs: Vec<u32> = words(rest).collect();
    let image = Image {
        code: code.to_vec(),
        entries: entries
            .as_chunks()
            .0
            .iter()
            .map(|entry| u16::from_le_bytes(*entry))
            .collect(),
        symbols: pairs
            .as_chunks()
            .0
            .iter()
            .map(|[at, pc]| (*at, *pc))
            .collect(),
        level: key.level,
        bytecode,
        clif,
    };
    let ascending = image.symbols.is_sorted_by(|a, b| a.0 < b.0);
    let within = image
        .symbols
        .last()
        .is_none_or(|last| last.0 as usize <= code.len());
    if code.is_empty() || !ascending || !within {
        return Err(Invalid::Contents);
    }
    Ok(image)
}

fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes
        .as_chunks()
        .0
        .iter()
        .map(|word| u32::from_le_bytes(*word))
}
