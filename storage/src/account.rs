//! Accounts and slots in the flat tables: their layout and how they are read.

use crate::{Snapshot, StoreError, Table};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256};
use alloy_trie::{EMPTY_ROOT_HASH, TrieAccount};

/// An account without its storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// Transactions sent, or contracts created by a contract.
    pub nonce: u64,
    /// Balance in wei.
    pub balance: U256,
    /// Keccak-256 of the code; that of no bytes for an account without code.
    pub code_hash: B256,
}

impl Default for AccountInfo {
    /// The empty account of EIP-161: no nonce, no balance, no code.
    fn default() -> Self {
        Self {
            nonce: 0,
            balance: U256::ZERO,
            code_hash: KECCAK256_EMPTY,
        }
    }
}

/// What the accounts table holds of one account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AccountRecord {
    pub info: AccountInfo,
    pub storage_root: B256,
}

const NONCE_LENGTH: u8 = 0x0f;
const HAS_CODE: u8 = 0x10;
const HAS_STORAGE: u8 = 0x20;

impl AccountRecord {
    /// Layout: byte 0 = nonce length (low four bits), 0x10 if a code hash follows, 0x20 if a storage root follows;
    /// byte 1 = balance length; nonce and balance big-endian without leading zeros; code hash; storage root.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let nonce = self.info.nonce.to_be_bytes();
        let nonce = &nonce[self.info.nonce.leading_zeros() as usize / 8..];
        let balance = self.info.balance.to_be_bytes_trimmed_vec();
        let mut flags = nonce.len() as u8;
        let has_code = self.info.code_hash != KECCAK256_EMPTY;
        let has_storage = self.storage_root != EMPTY_ROOT_HASH;
        if has_code {
            flags |= HAS_CODE;
        }
        if has_storage {
            flags |= HAS_STORAGE;
        }
        let mut out = Vec::with_capacity(2 + nonce.len() + balance.len() + 64);
        out.extend([flags, balance.len() as u8]);
        out.extend_from_slice(nonce);
        out.extend_from_slice(&balance);
        if has_code {
            out.extend_from_slice(self.info.code_hash.as_slice());
        }
        if has_storage {
            out.extend_from_slice(self.storage_root.as_slice());
        }
        out
    }

    /// Reads what [`AccountRecord::encode`] wrote; `Err` says what is wrong with it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let (&[flags, balance_length], mut rest) = bytes
            .split_first_chunk::<2>()
            .ok_or("shorter than two bytes")?;
        if flags & !(NONCE_LENGTH | HAS_CODE | HAS_STORAGE) != 0 {
            return Err("unknown flag");
        }
        let mut take = |length: usize| -> Result<&[u8], &'static str> {
            let (field, after) = rest.split_at_checked(length).ok_or("ends inside a field")?;
            rest = after;
            Ok(field)
        };
        let nonce = take(usize::from(flags & NONCE_LENGTH))?;
        let nonce = U256::try_from_be_slice(nonce)
            .and_then(|nonce| u64::try_from(nonce).ok())
            .ok_or("nonce longer than 8 bytes")?;
        let balance = take(usize::from(balance_length))?;
        let balance = U256::try_from_be_slice(balance).ok_or("balance longer than 32 bytes")?;
        let code_hash = match flags & HAS_CODE {
            0 => KECCAK256_EMPTY,
            _ => B256::from_slice(take(32)?),
        };
        let storage_root = match flags & HAS_STORAGE {
            0 => EMPTY_ROOT_HASH,
            _ => B256::from_slice(take(32)?),
        };
        if !rest.is_empty() {
            return Err("bytes after the last field");
        }
        Ok(Self {
            info: AccountInfo {
                nonce,
                balance,
                code_hash,
            },
            storage_root,
        })
    }

    /// The account as the state trie holds it: RLP of nonce, balance, storage root and code hash.
    pub(crate) fn trie_value(&self) -> Vec<u8> {
        alloy_rlp::encode(TrieAccount::new(
            self.info.nonce,
            self.info.balance,
            self.storage_root,
            self.info.code_hash,
        ))
    }
}

/// Reads the record of an account, `None` if the account does not exist.
pub(crate) fn read_record(
    snapshot: &dyn Snapshot,
    address: &Address,
) -> Result<Option<AccountRecord>, StoreError> {
    let key = address.as_slice();
    snapshot
        .get(Table::Accounts, key)?
        .map(|bytes| {
            AccountRecord::decode(&bytes)
                .map_err(|reason| StoreError::corrupt(Table::Accounts, key, reason))
        })
        .transpose()
}

/// The key of a slot: address, then the slot big-endian.
pub(crate) fn slot_key(address: &Address, slot: &U256) -> [u8; 52] {
    let mut key = [0; 52];
    key[..20].copy_from_slice(address.as_slice());
    key[20..].copy_from_slice(&slot.to_be_bytes::<32>());
    key
}

/// A slot's value as stored; zero is never stored.
pub(crate) fn decode_slot(key: &[u8], bytes: &[u8]) -> Result<U256, StoreError> {
    U256::try_from_be_slice(bytes)
        .filter(|value| !value.is_zero())
        .ok_or_else(|| StoreError::corrupt(Table::Storage, key, "not a value of 1 to 256 bits"))
}

/// The account at `address`, or `None` if there is none.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn read_account(
    snapshot: &dyn Snapshot,
    address: &Address,
) -> Result<Option<AccountInfo>, StoreError> {
    Ok(read_record(snapshot, address)?.map(|record| record.info))
}

/// The value of a storage slot, zero if it was never set.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn read_slot(
    snapshot: &dyn Snapshot,
    address: &Address,
    slot: &U256,
) -> Result<U256, StoreError> {
    let key = slot_key(address, slot);
    match snapshot.get(Table::Storage, &key)? {
        Some(bytes) => decode_slot(&key, &bytes),
        None => Ok(U256::ZERO),
    }
}

/// The code with this hash. The hash of no code is known without a look-up.
///
/// # Errors
/// [`StoreError::Lmdb`].
pub fn read_code(snapshot: &dyn Snapshot, code_hash: &B256) -> Result<Option<Bytes>, StoreError> {
    if *code_hash == KECCAK256_EMPTY {
        return Ok(Some(Bytes::new()));
    }
    let code = snapshot.get(Table::Codes, code_hash.as_slice())?;
    Ok(code.map(|code| Bytes::from(code.into_owned())))
}

/// Whether any slot of the account is not zero (EIP-7610 asks it of a contract's new address).
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn has_storage(snapshot: &dyn Snapshot, address: &Address) -> Result<bool, StoreError> {
    Ok(storage_root(snapshot, address)? != EMPTY_ROOT_HASH)
}

/// The root of the account's storage trie; that of the empty trie if there is no account.
///
/// # Errors
/// [`StoreError::Corrupt`], [`StoreError::Lmdb`].
pub fn storage_root(snapshot: &dyn Snapshot, address: &Address) -> Result<B256, StoreError> {
    Ok(read_record(snapshot, address)?.map_or(EMPTY_ROOT_HASH, |record| record.storage_root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_is_read_back_as_written(
            nonce: u64, nonce_shift in 0..64_u32, balance: [u8; 32], shift in 0..257_usize,
            code: Option<[u8; 32]>, root: Option<[u8; 32]>,
        ) {
            let record = AccountRecord {
                info: AccountInfo {
                    nonce: nonce >> nonce_shift,
                    balance: U256::from_be_bytes(balance) >> shift,
                    code_hash: code.map_or(KECCAK256_EMPTY, B256::from),
                },
                storage_root: root.map_or(EMPTY_ROOT_HASH, B256::from),
            };
            prop_assert_eq!(AccountRecord::decode(&record.encode()), Ok(record));
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: Vec<u8>) {
            let _ = AccountRecord::decode(&bytes);
        }
    }

    #[test]
    fn a_plain_account_takes_the_bytes_of_its_numbers_and_two_more() {
        let info = AccountInfo {
            nonce: 0x0102,
            balance: U256::from(0x03_0405),
            ..AccountInfo::default()
        };
        let record = AccountRecord {
            info,
            storage_root: EMPTY_ROOT_HASH,
        };
        assert_eq!(record.encode(), [2, 3, 1, 2, 3, 4, 5]);
    }
}
