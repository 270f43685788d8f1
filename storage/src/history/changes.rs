//! Writing and reading what a block changed.

use super::{Retained, history_key, put_retained};
use crate::account::AccountRecord;
use crate::rows::Rows;
use crate::{Batch, Layered, Snapshot, StoreError, Table, head};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY};

/// Bytes of one value of the changes table at most: what fits one overflow page of LMDB.
const PART_BYTES: usize = 4_080;

const ACCOUNT: u8 = 0;
const SLOTS: u8 = 1;
const CODE: u8 = 2;
const DEPLOYED: u8 = 3;

/// What a block changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockChanges {
    /// Accounts that differ after the block.
    pub accounts: usize,
    /// Slots that differ after the block.
    pub slots: usize,
    /// Accounts that have a code after the block that they did not have before, with its hash. Delegations
    /// (EIP-7702) are not among them. Each is to be written with [`crate::put_deployment`].
    pub deployed: Vec<(Address, B256)>,
}

/// A key of the changes table's values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// An entry of the account history.
    Account(Address),
    /// An entry of the storage history: address and slot.
    Slot([u8; 52]),
    /// A code that was not in the store before.
    Code(B256),
    /// An entry of the contracts table.
    Deployed(Address),
}

/// Adds the history of block `number` to the batch that [`crate::apply_state`] filled from `snapshot`: the values that
/// it writes over or deletes, and the list of their keys. One read a changed account and slot.
///
/// The batch must hold all state changes of the block and of no other block. The first block of a store has no history:
/// it is where what can be read begins.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn record_changes(
    snapshot: &dyn Snapshot,
    number: u64,
    batch: &mut Batch,
) -> Result<BlockChanges, StoreError> {
    let mut changes = BlockChanges::default();
    // Nothing can be read from before the first block.
    let first = head(snapshot)?.is_none();
    let mut history: Vec<(Table, Vec<u8>, Vec<u8>)> = Vec::new();
    let mut parts = Parts::default();
    for (key, after) in batch.range(Table::Accounts, &[]) {
        let before = snapshot.get(Table::Accounts, key)?;
        if before.as_deref() == after {
            continue;
        }
        let address = address_of(Table::Accounts, key)?;
        if let Some(code_hash) = deployed(snapshot, batch, key, before.as_deref(), after)? {
            changes.deployed.push((address, code_hash));
        }
        parts.push(ACCOUNT, key);
        history.push((
            Table::AccountHistory,
            history_key(key, number),
            before.unwrap_or_default().into_owned(),
        ));
        changes.accounts += 1;
    }
    for (key, after) in batch.range(Table::Storage, &[]) {
        let before = snapshot.get(Table::Storage, key)?;
        if before.as_deref() == after {
            continue;
        }
        parts.push_slot(key);
        history.push((
            Table::StorageHistory,
            history_key(key, number),
            before.unwrap_or_default().into_owned(),
        ));
        changes.slots += 1;
    }
    for (hash, _) in batch.range(Table::Codes, &[]) {
        if snapshot.get(Table::Codes, hash)?.is_none() {
            parts.push(CODE, hash);
        }
    }
    for (address, _) in &changes.deployed {
        parts.push(DEPLOYED, address.as_slice());
    }
    if first {
        let kept = Retained {
            state: number,
            blocks: number,
        };
        put_retained(batch, &kept);
        return Ok(changes);
    }
    for (table, key, value) in history {
        batch.put(table, key, value);
    }
    for (part, value) in (0_u32..).zip(parts.end()) {
        let key = [&number.to_be_bytes()[..], &part.to_be_bytes()].concat();
        batch.put(Table::Changes, key, value);
    }
    Ok(changes)
}

/// The hash of the code that an account has after the block and did not have before.
fn deployed(
    snapshot: &dyn Snapshot,
    batch: &Batch,
    key: &[u8],
    before: Option<&[u8]>,
    after: Option<&[u8]>,
) -> Result<Option<B256>, StoreError> {
    let code_hash = |record: Option<&[u8]>| match record {
        None => Ok(KECCAK256_EMPTY),
        Some(record) => AccountRecord::decode(record)
            .map(|record| record.info.code_hash)
            .map_err(|reason| StoreError::corrupt(Table::Accounts, key, reason)),
    };
    let hash = code_hash(after)?;
    if hash == KECCAK256_EMPTY || hash == code_hash(before)? {
        return Ok(None);
    }
    let layered = Layered::new(snapshot, batch);
    let delegates = layered
        .get(Table::Codes, hash.as_slice())?
        .is_some_and(|code| is_delegation(&code));
    Ok((!delegates).then_some(hash))
}

/// Whether the code only names another account's (EIP-7702).
fn is_delegation(code: &[u8]) -> bool {
    code.len() == 23 && code.starts_with(&[0xef, 0x01, 0x00])
}

/// What block `number` changed, in the order it was written.
pub(crate) fn changed_items(snapshot: &dyn Snapshot, number: u64) -> Result<Vec<Item>, StoreError> {
    let prefix = number.to_be_bytes();
    let mut rows = Rows::new(snapshot, Table::Changes, &prefix);
    let mut items = Vec::new();
    while let Some((key, value)) = rows.next()? {
        if !key.starts_with(&prefix) {
            break;
        }
        items.extend(decode_items(&key, &value)?);
    }
    Ok(items)
}

/// The items of one value of the changes table.
pub(crate) fn decode_items(key: &[u8], value: &[u8]) -> Result<Vec<Item>, StoreError> {
    let short = || StoreError::corrupt(Table::Changes, key, "ends inside an item");
    let mut items = Vec::new();
    let mut rest = value;
    while let Some((&tag, after)) = rest.split_first() {
        let length = if tag == CODE { 32 } else { 20 };
        let (subject, after) = after.split_at_checked(length).ok_or_else(short)?;
        rest = after;
        match tag {
            ACCOUNT => items.push(Item::Account(Address::from_slice(subject))),
            CODE => items.push(Item::Code(B256::from_slice(subject))),
            DEPLOYED => items.push(Item::Deployed(Address::from_slice(subject))),
            SLOTS => {
                let (&count, after) = rest.split_first().ok_or_else(short)?;
                let (slots, after) = after
                    .split_at_checked(32 * usize::from(count))
                    .ok_or_else(short)?;
                rest = after;
                for slot in slots.as_chunks::<32>().0 {
                    let mut key = [0; 52];
                    key[..20].copy_from_slice(subject);
                    key[20..].copy_from_slice(slot);
                    items.push(Item::Slot(key));
                }
            }
            _ => return Err(StoreError::corrupt(Table::Changes, key, "unknown item")),
        }
    }
    Ok(items)
}

fn address_of(table: Table, key: &[u8]) -> Result<Address, StoreError> {
    Address::try_from(key).map_err(|_| StoreError::corrupt(table, key, "key is not an address"))
}

/// The values of the changes table while they are filled.
#[derive(Default)]
struct Parts {
    full: Vec<Vec<u8>>,
    open: Vec<u8>,
    /// Where in `open` the count of the item with slots is that can take more, and its address.
    slots: Option<(usize, [u8; 20])>,
}

impl Parts {
    fn reserve(&mut self, bytes: usize) {
        if self.open.len() + bytes > PART_BYTES {
            self.full.push(core::mem::take(&mut self.open));
            self.slots = None;
        }
    }

    fn push(&mut self, tag: u8, subject: &[u8]) {
        self.reserve(1 + subject.len());
        self.slots = None;
        self.open.push(tag);
        self.open.extend_from_slice(subject);
    }

    /// `key` is address and slot.
    fn push_slot(&mut self, key: &[u8]) {
        let Some((address, slot)) = key.split_first_chunk::<20>() else {
            return;
        };
        self.reserve(1 + 20 + 1 + 32);
        let count = match self.slots {
            Some((count, of)) if of == *address && self.open[count] < u8::MAX => count,
            _ => {
                self.open.push(SLOTS);
                self.open.extend_from_slice(address);
                self.open.push(0);
                let count = self.open.len() - 1;
                self.slots = Some((count, *address));
                count
            }
        };
        self.open[count] += 1;
        self.open.extend_from_slice(slot);
    }

    fn end(mut self) -> Vec<Vec<u8>> {
        if !self.open.is_empty() {
            self.full.push(self.open);
        }
        self.full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn items_are_read_back_as_written(
            keys in proptest::collection::btree_set((0..3_u8, 0..2000_u16), 0..900), others: Vec<(u8, [u8; 32])>,
        ) {
            let mut parts = Parts::default();
            let mut expected = Vec::new();
            for (address, slot) in keys {
                let mut key = [address; 52];
                key[50..].copy_from_slice(&slot.to_be_bytes());
                parts.push_slot(&key);
                expected.push(Item::Slot(key));
            }
            for (tag, subject) in others {
                let address = Address::from_slice(&subject[..20]);
                match tag % 3 {
                    0 => { parts.push(ACCOUNT, address.as_slice()); expected.push(Item::Account(address)); }
                    1 => { parts.push(DEPLOYED, address.as_slice()); expected.push(Item::Deployed(address)); }
                    _ => { parts.push(CODE, &subject); expected.push(Item::Code(subject.into())); }
                }
            }
            let mut read = Vec::new();
            for part in parts.end() {
                prop_assert!(!part.is_empty() && part.len() <= PART_BYTES);
                read.extend(decode_items(&[0], &part).unwrap());
            }
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = decode_items(&[0], &bytes);
        }
    }
}
