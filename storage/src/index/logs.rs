//! Logs by address and by topic: for each address, and each topic with its position, the blocks with such logs and
//! where in the block they are.
//!
//! Key: kind (1: 0 for an address, 1 to 4 for a topic at the position before it), address (20) or topic (32), block
//! number (8). Value: the positions of the logs in the block in ascending order, each as the difference to the one
//! before it (the first to zero), in LEB128.

use super::Indexed;
use crate::rows::{Row, first_from};
use crate::{Snapshot, StoreError, Table};
use alloy_primitives::{Address, B256};
use std::collections::BTreeMap;

/// Topics of a log at most.
const MAX_TOPICS: usize = 4;

pub(super) fn entries(block: &Indexed<'_>) -> Vec<Row> {
    let mut postings: BTreeMap<Vec<u8>, Positions> = BTreeMap::new();
    let logs = block.receipts.iter().flat_map(|receipt| &receipt.logs);
    for (position, log) in (0..).zip(logs) {
        let mut post = |subject: Vec<u8>| postings.entry(subject).or_default().push(position);
        post(address_subject(&log.address));
        for (at, topic) in log.topics().iter().take(MAX_TOPICS).enumerate() {
            post(topic_subject(at, topic));
        }
    }
    postings
        .into_iter()
        .map(|(subject, positions)| (posting_key(&subject, block.number), positions.bytes))
        .collect()
}

fn address_subject(address: &Address) -> Vec<u8> {
    [&[0], address.as_slice()].concat()
}

fn topic_subject(at: usize, topic: &B256) -> Vec<u8> {
    [&[at as u8 + 1], topic.as_slice()].concat()
}

fn posting_key(subject: &[u8], block: u64) -> Vec<u8> {
    [subject, &block.to_be_bytes()].concat()
}

/// The block of a posting, `None` if the key is not one.
pub(crate) fn posting_block(key: &[u8]) -> Option<u64> {
    let (subject, block) = key.split_last_chunk::<8>()?;
    let fits = match subject.split_first()? {
        (0, address) => address.len() == 20,
        (1..=4, topic) => topic.len() == 32,
        _ => false,
    };
    fits.then(|| u64::from_be_bytes(*block))
}

/// Positions while they are written.
#[derive(Default)]
struct Positions {
    bytes: Vec<u8>,
    last: u32,
}

impl Positions {
    fn push(&mut self, position: u32) {
        let mut difference = position - self.last;
        while difference >= 0x80 {
            self.bytes.push(difference as u8 | 0x80);
            difference >>= 7;
        }
        self.bytes.push(difference as u8);
        self.last = position;
    }
}

fn decode_positions(bytes: &[u8]) -> Option<Vec<u32>> {
    let mut positions = Vec::new();
    let (mut last, mut difference, mut shift) = (0_u32, 0_u32, 0);
    for byte in bytes {
        let bits = u32::from(byte & 0x7f);
        if shift > 28 || shift == 28 && bits > 0x0f {
            return None;
        }
        difference |= bits << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            last = last.checked_add(difference)?;
            positions.push(last);
            (difference, shift) = (0, 0);
        }
    }
    (shift == 0).then_some(positions)
}

/// Which logs are asked for. An empty set lets everything through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// One of these emitted the log.
    pub addresses: Vec<Address>,
    /// At each position, one of these is the topic.
    pub topics: [Vec<B256>; MAX_TOPICS],
}

impl LogQuery {
    /// Whether it asks for nothing in particular: then the index is of no use.
    pub fn is_open(&self) -> bool {
        self.addresses.is_empty() && self.topics.iter().all(Vec::is_empty)
    }

    /// What must be found of each criterion in one log.
    fn groups(&self) -> Vec<Vec<Vec<u8>>> {
        let addresses = self.addresses.iter().map(address_subject).collect();
        let topics = self.topics.iter().enumerate().map(|(at, topics)| {
            let topics = topics.iter();
            topics.map(|topic| topic_subject(at, topic)).collect()
        });
        std::iter::once(addresses)
            .chain(topics)
            .filter(|group: &Vec<_>| !group.is_empty())
            .collect()
    }
}

/// The blocks from `from` to `to` with a log that the query matches, ascending; none if the query is open.
///
/// The lists of the criteria are crossed by seeks: the cost follows the shortest of them, not the number of blocks, and
/// no block is read.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn matching_blocks<'a>(
    snapshot: &'a dyn Snapshot,
    query: &LogQuery,
    from: u64,
    to: u64,
) -> impl Iterator<Item = Result<u64, StoreError>> + use<'a> {
    let groups = query.groups();
    let mut crossing = Crossing {
        snapshot,
        done: groups.is_empty(),
        groups: groups
            .into_iter()
            .map(|group| group.into_iter().map(Postings::new).collect())
            .collect(),
        candidate: from,
        to,
    };
    std::iter::from_fn(move || {
        let next = crossing.next().transpose();
        crossing.done |= matches!(next, Some(Err(_)));
        next
    })
}

/// The posting list of one address or topic, read as far as its next block.
struct Postings {
    subject: Vec<u8>,
    /// `None` before the first seek.
    next: Option<Next>,
}

#[derive(Clone)]
enum Next {
    Block(u64, Vec<u8>),
    End,
}

impl Postings {
    const fn new(subject: Vec<u8>) -> Self {
        Self {
            subject,
            next: None,
        }
    }

    /// The first block of the list from `from` on, which never goes back.
    fn seek(&mut self, snapshot: &dyn Snapshot, from: u64) -> Result<Option<u64>, StoreError> {
        match &self.next {
            Some(Next::End) => return Ok(None),
            Some(Next::Block(block, _)) if *block >= from => return Ok(Some(*block)),
            _ => {}
        }
        let key = posting_key(&self.subject, from);
        let subject = &self.subject;
        let found = first_from(snapshot, Table::LogPostings, &key, |key, value| {
            let (of, block) = key.split_last_chunk::<8>()?;
            (of == subject).then(|| (u64::from_be_bytes(*block), value.to_vec()))
        })?;
        let block = found.as_ref().map(|(block, _)| *block);
        self.next = Some(found.map_or(Next::End, |(block, value)| Next::Block(block, value)));
        Ok(block)
    }

    /// Positions in `block`, none if the list is not there.
    fn positions(&self, block: u64) -> Result<Vec<u32>, StoreError> {
        match &self.next {
            Some(Next::Block(at, value)) if *at == block => {
                decode_positions(value).ok_or_else(|| {
                    let key = posting_key(&self.subject, block);
                    StoreError::corrupt(Table::LogPostings, &key, "not a list of positions")
                })
            }
            _ => Ok(Vec::new()),
        }
    }
}

/// The lists of all criteria, crossed.
struct Crossing<'a> {
    snapshot: &'a dyn Snapshot,
    groups: Vec<Vec<Postings>>,
    candidate: u64,
    to: u64,
    done: bool,
}

impl Crossing<'_> {
    fn next(&mut self) -> Result<Option<u64>, StoreError> {
        while !self.done && self.candidate <= self.to {
            let Some(block) = self.agree()? else {
                self.done = true;
                break;
            };
            if block > self.to {
                break;
            }
            match block.checked_add(1) {
                Some(next) => self.candidate = next,
                None => self.done = true,
            }
            if self.meet(block)? {
                return Ok(Some(block));
            }
        }
        self.done = true;
        Ok(None)
    }

    /// The first block from the candidate on that every group has.
    fn agree(&mut self) -> Result<Option<u64>, StoreError> {
        let mut block = self.candidate;
        loop {
            let before = block;
            for group in &mut self.groups {
                let mut first = None;
                for postings in group {
                    let next = postings.seek(self.snapshot, block)?;
                    first = match (first, next) {
                        (Some(first), Some(next)) => Some(u64::min(first, next)),
                        (first, next) => first.or(next),
                    };
                }
                match first {
                    Some(first) if first > self.to => return Ok(Some(first)),
                    Some(first) => block = first,
                    None => return Ok(None),
                }
            }
            if block == before {
                return Ok(Some(block));
            }
        }
    }

    /// Whether one log of `block` is in a list of every group.
    fn meet(&self, block: u64) -> Result<bool, StoreError> {
        let mut common: Option<Vec<u32>> = None;
        for group in &self.groups {
            let mut positions = Vec::new();
            for postings in group {
                positions.extend(postings.positions(block)?);
            }
            positions.sort_unstable();
            common = Some(match common {
                None => positions,
                Some(mut common) => {
                    common.retain(|position| positions.binary_search(position).is_ok());
                    common
                }
            });
        }
        Ok(common.is_some_and(|common| !common.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn positions_are_read_back_as_written(set: std::collections::BTreeSet<u32>) {
            let mut positions = Positions::default();
            for position in &set {
                positions.push(*position);
            }
            let read = decode_positions(&positions.bytes).unwrap();
            prop_assert_eq!(read, set.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode_positions(&bytes);
            let _ = posting_block(&bytes);
        }
    }
}
