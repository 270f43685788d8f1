//! The state a block executes on: a reader below, the block's own changes above.

use core::fmt;

use alloy_primitives::map::{AddressMap, B256Map, Entry, HashMap, HashSet};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use revm::bytecode::Bytecode;
use revm::database_interface::{DBErrorMarker, Database};
use revm::state::{AccountInfo, TransactionId};

mod accounts;

pub use accounts::{AccountState, Accounts, Slot};

/// Reads of the state before a block. Implementations are views of one moment and never change while they are used.
pub trait StateReader {
    /// Balance, nonce and code hash of an account; `None` where it does not exist.
    ///
    /// `code` may be left `None`: it is then fetched by [`StateReader::code`] when it is first needed.
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError>;
    /// The value of a storage slot; zero where it was never written.
    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError>;
    /// The code with this hash. Asking for a hash that no account has is an error.
    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError>;
    /// Whether any slot of the account's storage is non-zero (EIP-7610).
    fn has_storage(&self, address: &Address) -> Result<bool, ReadError>;
    /// The hash of a block of the chain being extended, for `BLOCKHASH`.
    fn block_hash(&self, number: u64) -> Result<B256, ReadError>;
    /// [`StateReader::storage`] of the account that was asked for as number `at` since the reader's user began, from zero:
    /// for readers that know accounts by number.
    fn storage_at(&self, at: u32, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        let _ = at;
        self.storage(address, slot)
    }
}

impl<R: StateReader + ?Sized> StateReader for &R {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        (**self).account(address)
    }
    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        (**self).storage(address, slot)
    }
    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        (**self).code(hash)
    }
    fn has_storage(&self, address: &Address) -> Result<bool, ReadError> {
        (**self).has_storage(address)
    }
    fn block_hash(&self, number: u64) -> Result<B256, ReadError> {
        (**self).block_hash(number)
    }
    fn storage_at(&self, at: u32, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        (**self).storage_at(at, address, slot)
    }
}

/// A read of the state below failed: the store is damaged or the test data is incomplete. Never a rule of the chain.
#[derive(Debug, thiserror::Error)]
#[error("state read failed: {0}")]
pub struct ReadError(#[from] Box<dyn core::error::Error + Send + Sync>);

impl ReadError {
    /// Wraps the store's error.
    pub fn new(source: impl Into<Box<dyn core::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

impl DBErrorMarker for ReadError {}

/// A world without accounts, whose block hashes are zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyReader;

impl StateReader for EmptyReader {
    fn account(&self, _: &Address) -> Result<Option<AccountInfo>, ReadError> {
        Ok(None)
    }
    fn storage(&self, _: &Address, _: &U256) -> Result<U256, ReadError> {
        Ok(U256::ZERO)
    }
    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        Err(ReadError::new(format!("no code with hash {hash}")))
    }
    fn has_storage(&self, _: &Address) -> Result<bool, ReadError> {
        Ok(false)
    }
    fn block_hash(&self, _: u64) -> Result<B256, ReadError> {
        Ok(B256::ZERO)
    }
}

/// What has happened to an account since [`BlockState::take_recent`] was called last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecentChange {
    /// The storage it had then is gone, so slots not in `slots` are zero.
    pub wiped: bool,
    /// Slots written since, and since the storage was last wiped.
    pub slots: HashSet<U256>,
}

impl RecentChange {
    fn wipe(&mut self) {
        self.wiped = true;
        self.slots.clear();
    }
}

/// The changes of the transactions executed so far on top of a [`StateReader`].
pub struct BlockState<'a> {
    pub(super) reader: &'a dyn StateReader,
    pub(super) accounts: Accounts,
    /// Code deployed or loaded in this block.
    codes: B256Map<Bytecode>,
    block_hashes: HashMap<u64, B256>,
    /// Kept only once it was asked for: most blocks have no use for it.
    recent: Option<AddressMap<RecentChange>>,
    /// The transaction under way. What carries another number is cold (EIP-2929).
    pub(super) transaction: TransactionId,
    /// Transactions are executed before their turn: what they come to know must stay known.
    pub(super) early: bool,
}

impl fmt::Debug for BlockState<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlockState")
            .field("accounts", &self.accounts.len())
            .finish_non_exhaustive()
    }
}

impl<'a> BlockState<'a> {
    /// An unchanged view of `reader`.
    pub fn new(reader: &'a dyn StateReader) -> Self {
        let mut transaction = TransactionId::ZERO;
        // Zero is what an account that no transaction has seen carries.
        transaction.increment();
        Self {
            reader,
            accounts: Accounts::default(),
            codes: B256Map::default(),
            block_hashes: HashMap::default(),
            recent: None,
            transaction,
            early: false,
        }
    }

    /// Every account the block has read or written. Between transactions.
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// Code by hash, of every account whose code was loaded or set in the block.
    pub fn codes(&self) -> &B256Map<Bytecode> {
        &self.codes
    }

    /// The accounts touched since the last call, with the slots written since; the first time since before the block.
    pub fn take_recent(&mut self) -> AddressMap<RecentChange> {
        if let Some(recent) = &mut self.recent {
            return core::mem::take(recent);
        }
        self.recent = Some(AddressMap::default());
        self.accounts
            .iter()
            .filter(|(_, account)| account.touched)
            .map(|(address, account)| {
                let written = account.storage.iter().filter(|(_, slot)| slot.written);
                let change = RecentChange {
                    wiped: account.wiped,
                    slots: written.map(|(key, _)| *key).collect(),
                };
                (*address, change)
            })
            .collect()
    }

    /// The number of the account, which is read from below if the block has not seen it.
    #[inline]
    pub(super) fn load(&mut self, address: Address) -> Result<u32, ReadError> {
        match self.accounts.find(&address) {
            Some(at) => Ok(at),
            None => self.read(address),
        }
    }

    #[cold]
    fn read(&mut self, address: Address) -> Result<u32, ReadError> {
        let info = self.reader.account(&address)?;
        Ok(self.accounts.add(address, info))
    }

    /// Makes the code of an account present.
    #[inline]
    pub(super) fn load_code(&mut self, at: u32) -> Result<(), ReadError> {
        let info = &self.accounts.at(at).live.info;
        if info.code.is_some() {
            return Ok(());
        }
        let code = self.code(info.code_hash)?;
        self.accounts.at_mut(at).live.info.code = Some(code);
        Ok(())
    }

    fn code(&mut self, hash: B256) -> Result<Bytecode, ReadError> {
        if hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        match self.codes.entry(hash) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => Ok(entry.insert(self.reader.code(&hash)?).clone()),
        }
    }

    /// Remembers the code that a transaction gave to an account.
    pub(super) fn keep_code(&mut self, at: u32) {
        let info = &self.accounts.at(at).live.info;
        if let Some(code) = info.code.as_ref().filter(|code| !code.is_empty()) {
            self.codes
                .entry(info.code_hash)
                .or_insert_with(|| code.clone());
        }
    }

    /// Remembers codes that were loaded or deployed elsewhere.
    pub(super) fn keep_codes(&mut self, codes: B256Map<Bytecode>) {
        if self.codes.is_empty() {
            self.codes = codes;
        } else {
            self.codes.extend(codes);
        }
    }

    /// Tells [`BlockState::take_recent`] of an account, and whether it lost its storage.
    pub(super) fn note_recent(&mut self, at: u32, wiped: bool) {
        if let Some(recent) = &mut self.recent {
            let recent = recent.entry(self.accounts.at(at).address).or_default();
            if wiped {
                recent.wipe();
            }
        }
    }

    /// Ends the transaction's writing to a slot, if the slot has another value than before it.
    pub(super) fn settle_slot(&mut self, at: u32, key: U256) {
        let account = self.accounts.at_mut(at);
        let Some(slot) = account.storage.get_mut(&key) else {
            return;
        };
        if !slot.live.is_changed() {
            return;
        }
        slot.written = true;
        if let Some(recent) = &mut self.recent {
            recent.entry(account.address).or_default().slots.insert(key);
        }
    }

    /// Whether the account has a non-zero storage slot (EIP-7610).
    pub fn has_storage(&mut self, address: Address) -> Result<bool, ReadError> {
        if let Some(account) = self.accounts.get(&address) {
            let mut slots = account.storage.values();
            if slots.any(|slot| !slot.present().is_zero()) {
                return Ok(true);
            }
            // A slot below may have been cleared by the block. Only accounts without code and nonce are asked about, and
            // those cannot run code that clears a slot, so what the reader says holds.
            if account.wiped {
                return Ok(false);
            }
        }
        self.reader.has_storage(&address)
    }

    /// Whether the account has code.
    pub fn has_code(&mut self, address: Address) -> Result<bool, ReadError> {
        let at = self.load(address)?;
        let info = self.accounts.at(at).info();
        Ok(info.is_some_and(|info| info.code_hash != KECCAK256_EMPTY))
    }

    /// Adds to a balance outside of any transaction (rewards, withdrawals), creating the account if needed.
    ///
    /// An amount of zero still touches the account: `clear_empty` says whether EIP-161 then removes it when it is empty.
    pub fn credit(
        &mut self,
        address: Address,
        amount: U256,
        clear_empty: bool,
    ) -> Result<(), ReadError> {
        let at = self.load(address)?;
        let account = self.accounts.at_mut(at);
        account.touched = true;
        account.exist();
        let info = &mut account.live.info;
        info.balance = info.balance.saturating_add(amount);
        let ends = clear_empty && info.is_empty();
        if ends {
            account.end();
            account.forget_slots();
        }
        self.note_recent(at, ends);
        Ok(())
    }

    /// Takes the whole balance of an account (the irregular state change of EIP-779).
    ///
    /// Like [`BlockState::credit`] this creates a missing account, which `clear_empty` then removes again (EIP-161).
    pub fn drain(&mut self, address: Address, clear_empty: bool) -> Result<U256, ReadError> {
        let at = self.load(address)?;
        let drained = core::mem::take(&mut self.accounts.at_mut(at).live.info.balance);
        self.credit(address, U256::ZERO, clear_empty)?;
        Ok(drained)
    }

    /// The value of a slot that the block has not seen.
    pub(super) fn read_slot(&self, at: u32, key: &U256) -> Result<U256, ReadError> {
        let account = self.accounts.at(at);
        if account.is_blank() {
            Ok(U256::ZERO)
        } else {
            self.reader.storage_at(at, &account.address, key)
        }
    }
}

/// What revm asks of a journal's database. The journal itself works on the accounts and asks for block hashes only.
impl Database for BlockState<'_> {
    type Error = ReadError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, ReadError> {
        let at = self.load(address)?;
        Ok(self.accounts.at(at).info().cloned())
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, ReadError> {
        self.code(code_hash)
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, ReadError> {
        let at = self.load(address)?;
        if let Some(slot) = self.accounts.at(at).storage.get(&slot) {
            return Ok(slot.present());
        }
        self.read_slot(at, &slot)
    }

    fn block_hash(&mut self, number: u64) -> Result<B256, ReadError> {
        match self.block_hashes.entry(number) {
            Entry::Occupied(entry) => Ok(*entry.get()),
            Entry::Vacant(entry) => Ok(*entry.insert(self.reader.block_hash(number)?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_a_missing_account_creates_it_before_eip_161_and_not_after() {
        let missing = Address::repeat_byte(1);
        let mut state = BlockState::new(&EmptyReader);
        assert_eq!(state.drain(missing, false).unwrap(), U256::ZERO);
        let account = &state.accounts()[&missing];
        assert!(account.touched);
        assert_eq!(account.info(), Some(&AccountInfo::default()));

        let mut state = BlockState::new(&EmptyReader);
        assert_eq!(state.drain(missing, true).unwrap(), U256::ZERO);
        assert_eq!(state.accounts()[&missing].info(), None);
    }

    #[test]
    fn draining_takes_the_whole_balance_and_clears_what_is_then_empty() {
        let rich = Address::repeat_byte(2);
        for (clear_empty, left) in [(false, Some(AccountInfo::default())), (true, None)] {
            let mut state = BlockState::new(&EmptyReader);
            state.credit(rich, U256::from(5), clear_empty).unwrap();
            assert_eq!(state.drain(rich, clear_empty).unwrap(), U256::from(5));
            assert_eq!(state.accounts()[&rich].info().cloned(), left);
        }
    }
}
