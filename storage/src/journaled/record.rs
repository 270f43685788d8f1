//! A journal record: what one commit wrote, with what it takes to know that it is whole.

use super::run::{self, Encoded};
use crate::Batch;
use xxhash_rust::xxh3::{Xxh3Default, xxh3_64};

/// Version of this layout.
const VERSION: u8 = 1;
/// Flag: the trie nodes are left out, for they follow from the accounts and slots.
const TRIES_FOLLOW: u8 = 1;
/// Version (1), flags (1), store (8), length of the entries (8), checksum (8).
pub(super) const HEADER: usize = 26;
/// Where the checksum is.
const CHECKSUM: usize = 18;

/// Which store a journal belongs to.
pub(super) type StoreId = [u8; 8];

/// The header of the record of a commit, which its entries follow.
pub(super) fn header(sequence: u64, store: &StoreId, encoded: &Encoded) -> [u8; HEADER] {
    let entries = encoded.journaled();
    let mut header = [0; HEADER];
    header[0] = VERSION;
    header[1] = u8::from(encoded.tries_follow) * TRIES_FOLLOW;
    header[2..10].copy_from_slice(store);
    header[10..CHECKSUM].copy_from_slice(&(entries.len() as u64).to_be_bytes());
    let sum = checksum(sequence, &header[..CHECKSUM], entries);
    header[CHECKSUM..].copy_from_slice(&sum.to_be_bytes());
    header
}

/// XXH3 (64 bits) of the sequence number, the header before the checksum, and the XXH3 of the entries.
fn checksum(sequence: u64, header: &[u8], entries: &[u8]) -> u64 {
    let mut sum = Xxh3Default::new();
    sum.update(&sequence.to_be_bytes());
    sum.update(header);
    sum.update(&xxh3_64(entries).to_be_bytes());
    sum.digest()
}

/// A record that was read back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) store: StoreId,
    pub(super) tries_follow: bool,
    pub(super) batch: Batch,
}

/// Reads a record; `Err` says what is wrong with it.
pub(super) fn decode(sequence: u64, bytes: &[u8]) -> Result<Record, &'static str> {
    let (header, entries) = bytes
        .split_first_chunk::<HEADER>()
        .ok_or("a record shorter than its header")?;
    let (start, sum) = header.split_at(CHECKSUM);
    let (&[version, flags], _) = start.split_first_chunk::<2>().ok_or("no header")?;
    if version != VERSION || flags & !TRIES_FOLLOW != 0 {
        return Err("a record of another version");
    }
    if start[10..] != (entries.len() as u64).to_be_bytes() {
        return Err("a record of another length than it says");
    }
    if sum != checksum(sequence, start, entries).to_be_bytes() {
        return Err("a record whose checksum is wrong");
    }
    let mut store = StoreId::default();
    store.copy_from_slice(&start[2..10]);
    Ok(Record {
        store,
        tries_follow: flags & TRIES_FOLLOW != 0,
        batch: run::decode(entries)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Table;

    #[test]
    fn a_record_is_read_back_and_every_cut_and_every_changed_byte_is_found() {
        let mut batch = Batch::new();
        batch.put(Table::Codes, [1, 2], [3; 50]);
        batch.delete(Table::Headers, [4]);
        let encoded = Encoded::new(&batch);
        let store = [9; 8];
        let mut bytes = header(7, &store, &encoded).to_vec();
        bytes.extend_from_slice(encoded.journaled());
        let whole = Record {
            store,
            tries_follow: false,
            batch,
        };
        assert_eq!(decode(7, &bytes).unwrap(), whole);
        assert!(decode(8, &bytes).is_err());
        for length in 0..bytes.len() {
            assert!(decode(7, &bytes[..length]).is_err());
        }
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(decode(7, &changed).is_err(), "byte {at}");
        }
    }
}
