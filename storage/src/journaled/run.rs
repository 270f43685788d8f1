//! A run: the writes of one or several commits in a row, sorted, with an index by hash.

use crate::{Batch, Table};
use std::sync::LazyLock;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes of an entry before its key: table (1), length of the key (2), length of the value (4), all in the order of
/// the machine's least significant byte first. A length of the value of [`DELETED`] is a delete.
pub(super) const ENTRY_HEADER: usize = 7;
/// In place of a value's length.
const DELETED: u32 = u32::MAX;

/// Low bits of a slot of the index: where the entry is, plus one. The bits above are a part of the key's hash.
const PLACE_BITS: u32 = 40;
const PLACE: u64 = (1 << PLACE_BITS) - 1;

/// Keys are chosen by whoever sends transactions: without a secret seed they could all be made to meet in one slot.
static SEED: LazyLock<u64> = LazyLock::new(|| {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(0)
});

/// The hash of a key, the same in all runs.
#[inline]
pub(super) fn hash(table: Table, key: &[u8]) -> u64 {
    xxh3_64_with_seed(key, SEED.wrapping_add(table as u64))
}

/// One write: `None` deletes.
pub(super) type Entry<'a> = (Table, &'a [u8], Option<&'a [u8]>);

/// Writes as bytes, one entry after the other. This is also how a journal record holds them.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    /// Where each entry begins.
    places: Vec<u64>,
}

impl Writer {
    pub(super) fn with_capacity(entries: usize, bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes + entries * ENTRY_HEADER),
            places: Vec::with_capacity(entries),
        }
    }

    fn push(&mut self, (table, key, value): Entry<'_>) {
        self.places.push(self.bytes.len() as u64);
        self.bytes.push(table as u8);
        self.bytes
            .extend_from_slice(&(key.len() as u16).to_le_bytes());
        let length = value.map_or(DELETED, |value| value.len() as u32);
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
    }
}

/// The writes of a batch as bytes, not yet a run.
pub(super) struct Encoded {
    writer: Writer,
    /// How many of the bytes are not trie nodes; these come first.
    pub(super) without_tries: usize,
    /// Whether the trie nodes follow from the rest.
    pub(super) tries_follow: bool,
}

impl Encoded {
    /// Encodes a batch whose keys and values have lengths that a store takes.
    pub(super) fn new(batch: &Batch) -> Self {
        let mut writer = Writer::with_capacity(batch.len(), batch.bytes());
        for entry in batch.iter().filter(|(table, ..)| !table.is_trie()) {
            writer.push(entry);
        }
        let without_tries = writer.bytes.len();
        for entry in batch.iter().filter(|(table, ..)| table.is_trie()) {
            writer.push(entry);
        }
        Self {
            writer,
            without_tries,
            tries_follow: batch.tries_follow(),
        }
    }

    /// What the journal must hold.
    pub(super) fn journaled(&self) -> &[u8] {
        match self.tries_follow {
            true => &self.writer.bytes[..self.without_tries],
            false => &self.writer.bytes,
        }
    }

    /// The run of commit `sequence`.
    pub(super) fn into_run(self, sequence: u64) -> Run {
        let Writer { bytes, mut places } = self.writer;
        // Both parts are sorted, the tables of the tries stand before some of the others.
        places.sort_by_key(|&place| bytes[place as usize]);
        Run::new(bytes, places, sequence, sequence)
    }
}

/// Reads entries one after the other until the bytes do not hold one; `Err` if bytes are left then.
pub(super) fn decode(mut bytes: &[u8]) -> Result<Batch, &'static str> {
    let mut batch = Batch::new();
    while !bytes.is_empty() {
        let (&[number, k0, k1, v0, v1, v2, v3], rest) =
            bytes
                .split_first_chunk::<ENTRY_HEADER>()
                .ok_or("ends inside the header of an entry")?;
        let table = Table::from_number(number).ok_or("an entry of an unknown table")?;
        let (key, rest) = rest
            .split_at_checked(usize::from(u16::from_le_bytes([k0, k1])))
            .ok_or("ends inside a key")?;
        let length = u32::from_le_bytes([v0, v1, v2, v3]);
        bytes = if length == DELETED {
            batch.delete(table, key);
            rest
        } else {
            let (value, rest) = rest
                .split_at_checked(length as usize)
                .ok_or("ends inside a value")?;
            batch.put(table, key, value);
            rest
        };
    }
    Ok(batch)
}

/// An unchanging set of writes: those of the commits `first..=last`.
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    bytes: Box<[u8]>,
    /// Where the entries are, by table and key.
    places: Box<[u64]>,
    /// Where each table begins in `places`, and at the end where the last one ends.
    tables: [usize; Table::COUNT + 1],
    /// Open addressing; a power of two of slots, at least half of them zero, which is empty.
    index: Box<[u64]>,
}

impl Run {
    fn new(bytes: Vec<u8>, places: Vec<u64>, first: u64, last: u64) -> Self {
        let slots = (places.len() * 2).next_power_of_two().max(2);
        let mut run = Self {
            first,
            last,
            bytes: bytes.into_boxed_slice(),
            places: places.into_boxed_slice(),
            tables: [0; Table::COUNT + 1],
            index: vec![0; slots].into_boxed_slice(),
        };
        for table in Table::all() {
            let from = run.tables[table.index()];
            let rest = &run.places[from..];
            let count = rest.partition_point(|&place| run.entry(place).0 == table);
            run.tables[table.index() + 1] = from + count;
        }
        let mask = slots - 1;
        for &place in &run.places {
            let (table, key, _) = run.entry(place);
            let hash = hash(table, key);
            let mut slot = hash as usize & mask;
            while run.index[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            run.index[slot] = (hash & !PLACE) | (place + 1);
        }
        run
    }

    /// Combines runs that follow each other, the oldest first; later writes win.
    pub(super) fn combine(runs: &[impl AsRef<Self>]) -> Self {
        let runs: Vec<&Self> = runs.iter().map(AsRef::as_ref).collect();
        let entries = runs.iter().map(|run| run.len()).sum();
        let bytes = runs.iter().map(|run| run.bytes.len()).sum();
        let mut writer = Writer::with_capacity(entries, bytes);
        for table in Table::all() {
            let mut merged = Merged::new(runs.iter().copied(), table, &[]);
            while let Some((key, value)) = merged.next() {
                writer.push((table, key, value));
            }
        }
        let first = runs.first().map_or(0, |run| run.first);
        let last = runs.last().map_or(0, |run| run.last);
        writer.bytes.shrink_to_fit();
        writer.places.shrink_to_fit();
        Self::new(writer.bytes, writer.places, first, last)
    }

    /// How many keys are written.
    pub(super) const fn len(&self) -> usize {
        self.places.len()
    }

    /// Bytes of memory.
    pub(super) const fn memory(&self) -> usize {
        self.bytes.len() + (self.places.len() + self.index.len()) * 8
    }

    #[inline]
    fn entry(&self, place: u64) -> Entry<'_> {
        let entry = &self.bytes[place as usize..];
        let table = Table::from_number(entry[0]).unwrap_or(Table::Meta);
        let key = ENTRY_HEADER + usize::from(u16::from_le_bytes([entry[1], entry[2]]));
        let length = u32::from_le_bytes([entry[3], entry[4], entry[5], entry[6]]);
        let value = (length != DELETED).then(|| &entry[key..key + length as usize]);
        (table, &entry[ENTRY_HEADER..key], value)
    }

    /// What the run does to `key`, whose [`hash`] is given: `None` nothing, `Some(None)` deletes it.
    #[inline]
    pub(super) fn get(&self, hash: u64, table: Table, key: &[u8]) -> Option<Option<&[u8]>> {
        let mask = self.index.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let found = self.index[slot];
            if found == 0 {
                return None;
            }
            if (found ^ hash) & !PLACE == 0 {
                let place = (found & PLACE) - 1;
                let entry = &self.bytes[place as usize..];
                let has = entry.get(ENTRY_HEADER..ENTRY_HEADER + key.len());
                let length = u16::from_le_bytes([entry[1], entry[2]]);
                if entry[0] == table as u8 && usize::from(length) == key.len() && has == Some(key) {
                    return Some(self.entry(place).2);
                }
            }
            slot = (slot + 1) & mask;
        }
    }

    /// All writes by table and key.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry<'_>> {
        self.places.iter().map(|&place| self.entry(place))
    }

    /// The writes of a table with keys from `from` on.
    fn range(&self, table: Table, from: &[u8]) -> &[u64] {
        let of = &self.places[self.tables[table.index()]..self.tables[table.index() + 1]];
        &of[of.partition_point(|&place| self.entry(place).1 < from)..]
    }
}

impl AsRef<Self> for Run {
    fn as_ref(&self) -> &Self {
        self
    }
}

/// The writes of several runs to one table, by key; of those to one key the latest.
pub(super) struct Merged<'a> {
    /// The newest first.
    runs: Vec<(&'a Run, &'a [u64])>,
}

impl<'a> Merged<'a> {
    /// `runs` come oldest first.
    pub(super) fn new(
        runs: impl DoubleEndedIterator<Item = &'a Run>,
        table: Table,
        from: &[u8],
    ) -> Self {
        let runs = runs.rev().map(|run| (run, run.range(table, from)));
        Self {
            runs: runs.filter(|(_, places)| !places.is_empty()).collect(),
        }
    }

    /// The next key, without taking it.
    pub(super) fn peek(&self) -> Option<&'a [u8]> {
        let keys = self
            .runs
            .iter()
            .filter_map(|(run, places)| Some(run.entry(*places.first()?).1));
        keys.min()
    }

    /// Takes the next key with what is written under it; `None` is a delete.
    pub(super) fn next(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        if let [(run, places)] = &mut self.runs[..] {
            let (&place, rest) = places.split_first()?;
            *places = rest;
            let (_, key, value) = run.entry(place);
            return Some((key, value));
        }
        let key = self.peek()?;
        let mut latest = None;
        for (run, places) in &mut self.runs {
            if let Some((&place, rest)) = places.split_first() {
                let (_, has, value) = run.entry(place);
                if has == key {
                    *places = rest;
                    latest.get_or_insert(value);
                }
            }
        }
        Some((key, latest.flatten()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn batches() -> impl Strategy<Value = Vec<Batch>> {
        let key = vec(0..4_u8, 1..4);
        let value = proptest::option::of(vec(any::<u8>(), 0..4));
        let batch = vec((0..Table::COUNT, key, value), 0..30).prop_map(|writes| {
            let mut batch = Batch::new();
            for (table, key, value) in writes {
                let table = Table::all().nth(table).unwrap();
                match value {
                    Some(value) => batch.put(table, key, value),
                    None => batch.delete(table, key),
                }
            }
            batch
        });
        vec(batch, 1..6)
    }

    proptest! {
        #[test]
        fn a_combined_run_holds_what_the_batches_write_one_after_the_other(batches in batches()) {
            let mut expected = Batch::new();
            let runs: Vec<Run> = (1..)
                .zip(batches)
                .map(|(sequence, batch)| {
                    expected.append(batch.clone());
                    Encoded::new(&batch).into_run(sequence)
                })
                .collect();
            let run = Run::combine(&runs);
            prop_assert!(run.iter().eq(expected.iter()));
            prop_assert_eq!((run.first, run.last), (1, runs.len() as u64));
            for (table, key, value) in expected.iter() {
                prop_assert_eq!(run.get(hash(table, key), table, key), Some(value));
                prop_assert_eq!(run.get(hash(table, b"absent"), table, b"absent"), None);
            }
        }

        #[test]
        fn what_is_encoded_is_decoded_and_no_bytes_make_the_decoder_panic(
            batches in batches(), bytes: Vec<u8>,
        ) {
            for batch in batches {
                prop_assert_eq!(decode(Encoded::new(&batch).journaled()), Ok(batch));
            }
            let _ = decode(&bytes);
        }
    }
}
