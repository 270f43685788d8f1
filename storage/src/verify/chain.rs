//! Headers, bodies, receipts and the indexes of them.

use super::{ReceiptsRoot, Verification, entries, for_each};
use crate::index::{self, Indexed, address_transaction, posting_block};
use crate::{
    BlockTransaction, Retained, Snapshot, StoreError, StoredReceipt, Table, block_number, body,
    receipts, retained, sealed_header, senders, transaction_location,
};
use alloy_consensus::{BlockBody, Header, proofs};
use alloy_primitives::{Address, B256, keccak256};
use std::collections::{BTreeMap, BTreeSet};

/// Tables whose entries follow from the bodies.
const DERIVED: [Table; 3] = [
    Table::Transactions,
    Table::AddressTransactions,
    Table::LogPostings,
];

pub(super) fn verify(
    snapshot: &dyn Snapshot,
    receipts_root: Option<ReceiptsRoot<'_>>,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let kept = found.note(retained(snapshot))?;
    let mut expected: BTreeMap<Table, u64> = DERIVED.map(|table| (table, 0)).into();
    let mut last: Option<(u64, B256)> = None;
    let mut headers = 0;
    let mut bodies = 0;
    for_each(snapshot, Table::Headers, |key, value| {
        headers += 1;
        found.count("headers", 1);
        let Ok(number) = <[u8; 8]>::try_from(key).map(u64::from_be_bytes) else {
            found.fault(Table::Headers, key, "the key is no block number");
            return Ok(());
        };
        let Some(Some((hash, header))) = found.note(sealed_header(snapshot, number))? else {
            return Ok(());
        };
        if keccak256(&value[32..]) != hash || header.number != number {
            found.fault(Table::Headers, key, "hash or number is not the header's");
        }
        if let Some((before, parent)) = last
            && (header.parent_hash != parent || before + 1 != number)
        {
            let reason = format!("does not follow block {before} {parent}");
            found.fault(Table::Headers, key, reason);
        }
        last = Some((number, hash));
        if found.note(block_number(snapshot, &hash))?.flatten() != Some(number) {
            found.fault(
                Table::BlockNumbers,
                hash.as_slice(),
                "does not lead to its block",
            );
        }
        let block = found.note(read(snapshot, number))?.flatten();
        let is_kept = kept.is_some_and(|Retained { blocks, .. }| number >= blocks || number == 0);
        match (block, is_kept) {
            (Some(block), true) => {
                bodies += 1;
                block.verify(snapshot, &header, receipts_root, &mut expected, found)?;
            }
            (None, false) => {}
            (None, true) => found.fault(Table::Bodies, key, "body or receipts are missing"),
            (Some(_), false) => found.fault(Table::Bodies, key, "is older than the retention"),
        }
        Ok(())
    })?;
    let head = found.note(crate::head(snapshot))?.flatten();
    if head != last {
        let reason = format!("names {head:?}, the last header is {last:?}");
        found.fault(Table::Meta, b"head", reason);
    }
    for (table, count) in [
        (Table::BlockNumbers, headers),
        (Table::Bodies, bodies),
        (Table::Receipts, bodies),
    ] {
        let entries = entries(snapshot, table)?;
        if entries != count {
            let reason = format!("{entries} entries, the headers account for {count}");
            found.fault(table, &[], reason);
        }
    }
    for (table, count) in expected {
        let entries = entries(snapshot, table)?;
        found.count("index entries", entries);
        if entries > count {
            extra(snapshot, table, found)?;
        }
    }
    Ok(())
}

/// A block with all that is indexed of it.
struct Block {
    number: u64,
    body: BlockBody<BlockTransaction>,
    receipts: Vec<StoredReceipt>,
    senders: Vec<Address>,
}

fn read(snapshot: &dyn Snapshot, number: u64) -> Result<Option<Block>, StoreError> {
    let parts = (
        body(snapshot, number)?,
        receipts(snapshot, number)?,
        senders(snapshot, number)?,
    );
    let (Some(body), Some(receipts), Some(senders)) = parts else {
        return Ok(None);
    };
    Ok(Some(Block {
        number,
        body,
        receipts,
        senders,
    }))
}

impl Block {
    fn verify(
        &self,
        snapshot: &dyn Snapshot,
        header: &Header,
        receipts_root: Option<ReceiptsRoot<'_>>,
        expected: &mut BTreeMap<Table, u64>,
        found: &mut Verification,
    ) -> Result<(), StoreError> {
        let key = self.number.to_be_bytes();
        found.count("bodies", 1);
        let body = &self.body;
        let count = body.transactions.len();
        found.count("transactions", count as u64);
        let withdrawals = body.withdrawals.as_deref();
        let withdrawals = withdrawals.map(|all| proofs::calculate_withdrawals_root(all));
        if proofs::calculate_transaction_root(&body.transactions) != header.transactions_root
            || proofs::calculate_ommers_root(&body.ommers) != header.ommers_hash
            || withdrawals != header.withdrawals_root
        {
            found.fault(Table::Bodies, &key, "not the body that its header names");
        }
        if self.senders.len() != count || self.receipts.len() != count {
            let reason = format!(
                "{count} transactions, {} senders, {} receipts",
                self.senders.len(),
                self.receipts.len()
            );
            found.fault(Table::Bodies, &key, reason);
        }
        if receipts_root.is_some_and(|root| root(&self.receipts) != header.receipts_root) {
            found.fault(
                Table::Receipts,
                &key,
                "not the receipts that their header names",
            );
        }
        for (index, transaction) in (0..).zip(&body.transactions) {
            let hash = transaction.tx_hash();
            let at = found.note(transaction_location(snapshot, hash))?.flatten();
            if at.is_none_or(|at| (at.block, at.index) != (self.number, index)) {
                let reason = format!("does not lead to transaction {index} of {}", self.number);
                found.fault(Table::Transactions, hash.as_slice(), reason);
            }
        }
        *expected.entry(Table::Transactions).or_default() += count as u64;
        for (table, key, value) in self.entries() {
            *expected.entry(table).or_default() += 1;
            if snapshot.get(table, &key)?.as_deref() != Some(&value[..]) {
                let reason = format!("is missing, or not as block {} gives it", self.number);
                found.fault(table, &key, reason);
            }
        }
        Ok(())
    }

    fn entries(&self) -> impl Iterator<Item = (Table, Vec<u8>, Vec<u8>)> {
        index::entries(&Indexed {
            number: self.number,
            body: &self.body,
            receipts: &self.receipts,
            senders: &self.senders,
        })
    }
}

/// Names the entries of an index that no block gives.
fn extra(
    snapshot: &dyn Snapshot,
    table: Table,
    found: &mut Verification,
) -> Result<(), StoreError> {
    let mut cached: Option<(u64, BTreeSet<Vec<u8>>)> = None;
    for_each(snapshot, table, |key, value| {
        let block = match table {
            Table::Transactions => value.first_chunk::<8>().map(|b| u64::from_be_bytes(*b)),
            Table::AddressTransactions => address_transaction(key).map(|(_, _, at)| at.block),
            _ => posting_block(key),
        };
        let Some(number) = block else {
            found.fault(table, key, "not an entry of this table");
            return Ok(());
        };
        if cached.as_ref().is_none_or(|(of, _)| *of != number) {
            let mut keys = BTreeSet::new();
            if let Some(Some(block)) = found.note(read(snapshot, number))? {
                if table == Table::Transactions {
                    let hashes = block.body.transactions.iter();
                    keys.extend(hashes.map(|transaction| transaction.tx_hash().to_vec()));
                } else {
                    let of_table = block.entries().filter(|(of, _, _)| *of == table);
                    keys.extend(of_table.map(|(_, key, _)| key));
                }
            }
            cached = Some((number, keys));
        }
        if cached.as_ref().is_none_or(|(_, keys)| !keys.contains(key)) {
            found.fault(
                table,
                key,
                format!("block {number} does not give this entry"),
            );
        }
        Ok(())
    })
}
