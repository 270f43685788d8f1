//! What is known about contracts: how each came to be, and its ABI.

use crate::rows::first_from;
use crate::{Batch, Snapshot, StoreError, Table};
use alloy_primitives::{Address, B256, Bytes};

/// The longest ABI that is kept, in bytes.
pub const MAX_ABI: usize = 1 << 20;

/// The deployment of a contract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// Block in which its code appeared.
    pub block: u64,
    /// The runtime of its code, as the node numbers them.
    pub format: u8,
    /// Hash of its code.
    pub code_hash: B256,
    /// The transaction that created it: its index in the block, and its sender. `None` for contracts of the first
    /// block, and where a contract created it in a block of several transactions.
    pub creation: Option<Creation>,
}

/// The transaction that created a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Creation {
    /// Its index in the block.
    pub index: u32,
    /// Its sender.
    pub deployer: Address,
}

/// Address, then the complement of the block number: the latest deployment comes first.
pub(crate) fn contract_key(address: &Address, block: u64) -> Vec<u8> {
    [address.as_slice(), &(!block).to_be_bytes()].concat()
}

/// Writes a deployment. Unwinding takes it back if [`crate::record_changes`] told of it.
pub fn put_deployment(batch: &mut Batch, address: &Address, deployment: &Deployment) {
    let mut value = Vec::with_capacity(57);
    value.push(deployment.format);
    value.extend_from_slice(deployment.code_hash.as_slice());
    if let Some(creation) = &deployment.creation {
        value.extend(creation.index.to_be_bytes());
        value.extend_from_slice(creation.deployer.as_slice());
    }
    batch.put(
        Table::Contracts,
        contract_key(address, deployment.block),
        value,
    );
}

/// The last deployment at `address` up to block `number`, `None` if there was none. One seek.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn deployment(
    snapshot: &dyn Snapshot,
    address: &Address,
    number: u64,
) -> Result<Option<Deployment>, StoreError> {
    let from = contract_key(address, number);
    let found = first_from(snapshot, Table::Contracts, &from, |key, value| {
        key.starts_with(address.as_slice())
            .then(|| (key.to_vec(), value.to_vec()))
    })?;
    found
        .map(|(key, value)| decode_deployment(&key, &value).map(|(_, deployment)| deployment))
        .transpose()
}

/// Reads an entry of the contracts table.
pub(crate) fn decode_deployment(
    key: &[u8],
    value: &[u8],
) -> Result<(Address, Deployment), StoreError> {
    let corrupt = |reason| StoreError::corrupt(Table::Contracts, key, reason);
    let (address, block) = key
        .split_first_chunk::<20>()
        .and_then(|(address, block)| Some((address, <[u8; 8]>::try_from(block).ok()?)))
        .ok_or_else(|| corrupt("key is not address and block number"))?;
    let (&format, rest) = value.split_first().ok_or_else(|| corrupt("empty"))?;
    let (code_hash, rest) = rest
        .split_first_chunk::<32>()
        .ok_or_else(|| corrupt("ends inside the code hash"))?;
    let creation = match rest.split_first_chunk::<4>() {
        Some((index, deployer)) if deployer.len() == 20 => Some(Creation {
            index: u32::from_be_bytes(*index),
            deployer: Address::from_slice(deployer),
        }),
        None if rest.is_empty() => None,
        _ => return Err(corrupt("not 33 or 57 bytes")),
    };
    let deployment = Deployment {
        block: !u64::from_be_bytes(block),
        format,
        code_hash: B256::from(*code_hash),
        creation,
    };
    Ok((Address::from(*address), deployment))
}

/// Keeps an ABI for all contracts with this code; an empty one is taken away. It is no part of any block: unwinding and
/// pruning leave it.
pub fn put_abi(batch: &mut Batch, code_hash: &B256, abi: &[u8]) {
    if abi.is_empty() {
        batch.delete(Table::Abis, code_hash.as_slice());
    } else {
        batch.put(Table::Abis, code_hash.as_slice(), abi);
    }
}

/// What [`put_abi`] keeps.
///
/// # Errors
/// [`StoreError::Lmdb`].
pub fn abi(snapshot: &dyn Snapshot, code_hash: &B256) -> Result<Option<Bytes>, StoreError> {
    let abi = snapshot.get(Table::Abis, code_hash.as_slice())?;
    Ok(abi.map(|abi| Bytes::from(abi.into_owned())))
}
