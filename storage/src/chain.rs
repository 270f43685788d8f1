//! Blocks in the chain tables: headers, bodies, receipts and the indexes.

use crate::index::{self, Indexed};
use crate::meta::put_head;
use crate::{Batch, Snapshot, StoreError, StoredReceipt, Table, head};
use alloy_consensus::{BlockBody, EthereumTxEnvelope, Header, TxEip4844};
use alloy_primitives::{Address, B256, BlockNumber, TxHash};
use alloy_rlp::Decodable;

/// A transaction as a block holds it: a blob transaction comes without its sidecar (EIP-4844).
pub type BlockTransaction = EthereumTxEnvelope<TxEip4844>;

/// A block with what its execution gave, as it is written.
#[derive(Clone, Copy, Debug)]
pub struct BlockRecord<'a> {
    /// The header.
    pub header: &'a Header,
    /// Its hash.
    pub hash: B256,
    /// Transactions, ommers and withdrawals.
    pub body: &'a BlockBody<BlockTransaction>,
    /// One receipt a transaction.
    pub receipts: &'a [StoredReceipt],
    /// One sender a transaction.
    pub senders: &'a [Address],
}

/// Where a transaction stands in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionLocation {
    /// Number of its block.
    pub block: BlockNumber,
    /// Its place in the block, from 0.
    pub index: u32,
}

/// Writes a block with its indexes and makes it the head of the chain. A block of the same number that is in the
/// store must be taken out first with [`remove_block`], or its hashes stay in the indexes.
///
/// # Errors
/// [`StoreError::InconsistentBlock`] if there is not one receipt and one sender a transaction; `batch` is unchanged.
pub fn put_block(batch: &mut Batch, block: &BlockRecord<'_>) -> Result<(), StoreError> {
    let number = block.header.number;
    let count = block.body.transactions.len();
    let inconsistent = |reason: String| StoreError::InconsistentBlock { number, reason };
    if block.receipts.len() != count || block.senders.len() != count {
        return Err(inconsistent(format!(
            "{count} transactions, {} receipts, {} senders",
            block.receipts.len(),
            block.senders.len(),
        )));
    }
    let senders =
        u32::try_from(count).map_err(|_| inconsistent(format!("{count} transactions")))?;
    let key = number.to_be_bytes();

    let mut header = block.hash.to_vec();
    alloy_rlp::Encodable::encode(block.header, &mut header);
    batch.put(Table::Headers, key, header);

    let mut body = Vec::with_capacity(4 + 20 * count + alloy_rlp::Encodable::length(block.body));
    body.extend_from_slice(&senders.to_be_bytes());
    body.extend(block.senders.iter().flat_map(|sender| sender.0.0));
    alloy_rlp::Encodable::encode(block.body, &mut body);
    batch.put(Table::Bodies, key, body);

    let mut receipts = Vec::new();
    alloy_rlp::encode_list(block.receipts, &mut receipts);
    batch.put(Table::Receipts, key, receipts);

    batch.put(Table::BlockNumbers, block.hash.as_slice(), key);
    for (index, transaction) in (0_u32..).zip(&block.body.transactions) {
        let location = [&key[..], &index.to_be_bytes()].concat();
        batch.put(
            Table::Transactions,
            transaction.tx_hash().as_slice(),
            location,
        );
    }
    let indexed = Indexed {
        number,
        body: block.body,
        receipts: block.receipts,
        senders: block.senders,
    };
    for (table, key, value) in index::entries(&indexed) {
        batch.put(table, key, value);
    }
    put_head(batch, number, block.hash);
    Ok(())
}

/// Takes the block of this number out of the tables and the indexes. If it is the head, its parent becomes the head.
/// Returns the hash of the block, `None` if there is none of this number.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn remove_block(
    snapshot: &dyn Snapshot,
    number: BlockNumber,
    batch: &mut Batch,
) -> Result<Option<B256>, StoreError> {
    let Some((hash, header)) = sealed_header(snapshot, number)? else {
        return Ok(None);
    };
    remove_body(snapshot, number, batch)?;
    batch.delete(Table::BlockNumbers, hash.as_slice());
    batch.delete(Table::Headers, number.to_be_bytes());
    if head(snapshot)? == Some((number, hash))
        && let Some(parent) = number.checked_sub(1)
    {
        put_head(batch, parent, header.parent_hash);
    }
    Ok(Some(hash))
}

/// Takes the body and the receipts of the block of this number out of the tables, with what the indexes have of them.
pub(crate) fn remove_body(
    snapshot: &dyn Snapshot,
    number: BlockNumber,
    batch: &mut Batch,
) -> Result<(), StoreError> {
    let key = number.to_be_bytes();
    if let (Some(body), Some(senders), Some(receipts)) = (
        body(snapshot, number)?,
        senders(snapshot, number)?,
        receipts(snapshot, number)?,
    ) {
        for transaction in &body.transactions {
            batch.delete(Table::Transactions, transaction.tx_hash().as_slice());
        }
        let indexed = Indexed {
            number,
            body: &body,
            receipts: &receipts,
            senders: &senders,
        };
        for (table, key, _) in index::entries(&indexed) {
            batch.delete(table, key);
        }
    }
    batch.delete(Table::Bodies, key);
    batch.delete(Table::Receipts, key);
    Ok(())
}

/// Hash and header of the block of this number.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn sealed_header(
    snapshot: &dyn Snapshot,
    number: BlockNumber,
) -> Result<Option<(B256, Header)>, StoreError> {
    let key = number.to_be_bytes();
    let Some(value) = snapshot.get(Table::Headers, &key)? else {
        return Ok(None);
    };
    let (hash, header) = value
        .split_first_chunk::<32>()
        .ok_or_else(|| StoreError::corrupt(Table::Headers, &key, "shorter than a hash"))?;
    Ok(Some((
        B256::from(*hash),
        decode(Table::Headers, &key, header)?,
    )))
}

/// The header of the block of this number.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn header(snapshot: &dyn Snapshot, number: BlockNumber) -> Result<Option<Header>, StoreError> {
    Ok(sealed_header(snapshot, number)?.map(|(_, header)| header))
}

/// The hash of the block of this number.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn block_hash(
    snapshot: &dyn Snapshot,
    number: BlockNumber,
) -> Result<Option<B256>, StoreError> {
    let key = number.to_be_bytes();
    let Some(value) = snapshot.get(Table::Headers, &key)? else {
        return Ok(None);
    };
    match value.first_chunk::<32>() {
        Some(hash) => Ok(Some(B256::from(*hash))),
        None => Err(StoreError::corrupt(
            Table::Headers,
            &key,
            "shorter than a hash",
        )),
    }
}

/// The header of the block with this hash.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn header_by_hash(snapshot: &dyn Snapshot, hash: &B256) -> Result<Option<Header>, StoreError> {
    match block_number(snapshot, hash)? {
        Some(number) => header(snapshot, number),
        None => Ok(None),
    }
}

/// The number of the block with this hash.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn block_number(
    snapshot: &dyn Snapshot,
    hash: &B256,
) -> Result<Option<BlockNumber>, StoreError> {
    let Some(value) = snapshot.get(Table::BlockNumbers, hash.as_slice())? else {
        return Ok(None);
    };
    match <[u8; 8]>::try_from(value.as_ref()) {
        Ok(number) => Ok(Some(u64::from_be_bytes(number))),
        Err(_) => Err(StoreError::corrupt(
            Table::BlockNumbers,
            hash.as_slice(),
            "not 8 bytes",
        )),
    }
}

/// The body of the block of this number.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn body(
    snapshot: &dyn Snapshot,
    number: BlockNumber,
) -> Result<Option<BlockBody<BlockTransaction>>, StoreError> {
    let key = number.to_be_bytes();
    let Some(value) = snapshot.get(Table::Bodies, &key)? else {
        return Ok(None);
    };
    let (_, rlp) = split_senders(&key, &value)?;
    decode(Table::Bodies, &key, rlp).map(Some)
}

/// The senders of the transactions of the block of this number, in their order.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn senders(
    snapshot: &dyn Snapshot,
    number: BlockNumber,
) -> Result<Option<Vec<Address>>, StoreError> {
    let key = number.to_be_bytes();
    let Some(value) = snapshot.get(Table::Bodies, &key)? else {
        return Ok(None);
    };
    let (senders, _) = split_senders(&key, &value)?;
    Ok(Some(
        senders
            .iter()
            .map(|sender| Address::from(*sender))
            .collect(),
    ))
}

/// The receipts of the block of this number, in the order of its transactions.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn receipts(
    snapshot: &dyn Snapshot,
    number: BlockNumber,
) -> Result<Option<Vec<StoredReceipt>>, StoreError> {
    let key = number.to_be_bytes();
    match snapshot.get(Table::Receipts, &key)? {
        Some(value) => decode(Table::Receipts, &key, &value).map(Some),
        None => Ok(None),
    }
}

/// Where the transaction with this hash stands.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn transaction_location(
    snapshot: &dyn Snapshot,
    hash: &TxHash,
) -> Result<Option<TransactionLocation>, StoreError> {
    let Some(value) = snapshot.get(Table::Transactions, hash.as_slice())? else {
        return Ok(None);
    };
    let location = value.split_first_chunk::<8>().and_then(|(block, index)| {
        Some(TransactionLocation {
            block: u64::from_be_bytes(*block),
            index: u32::from_be_bytes(index.try_into().ok()?),
        })
    });
    match location {
        Some(location) => Ok(Some(location)),
        None => Err(StoreError::corrupt(
            Table::Transactions,
            hash.as_slice(),
            "not 12 bytes",
        )),
    }
}

/// Senders and RLP of a value of the bodies table.
fn split_senders<'v>(
    key: &[u8],
    value: &'v [u8],
) -> Result<(&'v [[u8; 20]], &'v [u8]), StoreError> {
    let split = value.split_first_chunk::<4>().and_then(|(count, rest)| {
        let bytes = (u32::from_be_bytes(*count) as usize).checked_mul(20)?;
        let (senders, rlp) = rest.split_at_checked(bytes)?;
        Some((senders.as_chunks::<20>().0, rlp))
    });
    split.ok_or_else(|| StoreError::corrupt(Table::Bodies, key, "ends inside the senders"))
}

fn decode<T: Decodable>(table: Table, key: &[u8], rlp: &[u8]) -> Result<T, StoreError> {
    alloy_rlp::decode_exact(rlp).map_err(|error| StoreError::corrupt(table, key, error))
}
