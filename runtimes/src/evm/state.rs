//! The state a block executes on: a reader below, the block's own changes above.

use core::fmt;

use alloy_primitives::map::{AddressMap, B256Map, Entry, HashMap, HashSet};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use revm::bytecode::Bytecode;
use revm::database_interface::{DBErrorMarker, Database};
use revm::state::{Account, AccountInfo, EvmStorageSlot};

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

/// A storage slot as the block has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Value before the block.
    pub original: U256,
    /// Value now.
    pub present: U256,
    /// Some transaction of the block changed it, even if a later one changed it back.
    pub written: bool,
}

/// An account as the block has seen it.
#[derive(Debug, Clone)]
pub struct AccountState {
    /// The account before the block.
    pub original: Option<AccountInfo>,
    /// The account now; `None` where it does not exist.
    pub info: Option<AccountInfo>,
    /// Slots read or written by the block.
    pub storage: HashMap<U256, Slot>,
    /// The storage from before the block is gone (the account was created, destroyed or cleared in the block), so slots
    /// not in `storage` are zero.
    pub wiped: bool,
    /// Some transaction of the block touched the account in the sense of EIP-161.
    pub touched: bool,
}

impl AccountState {
    fn loaded(info: Option<AccountInfo>) -> Self {
        Self {
            original: info.clone(),
            info,
            storage: HashMap::default(),
            wiped: false,
            touched: false,
        }
    }

    fn write(&mut self, key: U256, slot: &EvmStorageSlot) {
        let entry = self.storage.entry(key).or_insert(Slot {
            original: slot.original_value,
            present: slot.original_value,
            written: false,
        });
        entry.present = slot.present_value;
        entry.written = true;
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
    reader: &'a dyn StateReader,
    /// Boxed: an entry is moved whenever the table grows, and most blocks fill it from empty.
    accounts: AddressMap<Box<AccountState>>,
    /// Code deployed or loaded in this block.
    codes: B256Map<Bytecode>,
    block_hashes: HashMap<u64, B256>,
    /// Kept only once it was asked for: most blocks have no use for it.
    recent: Option<AddressMap<RecentChange>>,
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
        Self {
            reader,
            accounts: AddressMap::default(),
            codes: B256Map::default(),
            block_hashes: HashMap::default(),
            recent: None,
        }
    }

    /// Every account the block has read or written.
    pub fn accounts(&self) -> &AddressMap<Box<AccountState>> {
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

    fn load(&mut self, address: Address) -> Result<&mut AccountState, ReadError> {
        match self.accounts.entry(address) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let info = self.reader.account(&address)?;
                Ok(entry.insert(Box::new(AccountState::loaded(info))))
            }
        }
    }

    /// Whether the account has a non-zero storage slot (EIP-7610).
    pub fn has_storage(&mut self, address: Address) -> Result<bool, ReadError> {
        if let Some(account) = self.accounts.get(&address) {
            if account.storage.values().any(|slot| !slot.present.is_zero()) {
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
        let info = self.load(address)?.info.as_ref();
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
        let account = self.load(address)?;
        account.touched = true;
        let info = account.info.get_or_insert_default();
        info.balance = info.balance.saturating_add(amount);
        if clear_empty && info.is_empty() {
            account.info = None;
            account.storage.clear();
            account.wiped = true;
        }
        let wiped = account.info.is_none();
        if let Some(recent) = &mut self.recent {
            let recent = recent.entry(address).or_default();
            if wiped {
                recent.wipe();
            }
        }
        Ok(())
    }

    /// Takes the whole balance of an account (the irregular state change of EIP-779).
    ///
    /// Like [`BlockState::credit`] this creates a missing account, which `clear_empty` then removes again (EIP-161).
    pub fn drain(&mut self, address: Address, clear_empty: bool) -> Result<U256, ReadError> {
        let info = self.load(address)?.info.as_mut();
        let drained = info.map(|info| core::mem::take(&mut info.balance));
        self.credit(address, U256::ZERO, clear_empty)?;
        Ok(drained.unwrap_or_default())
    }

    /// Applies what one transaction did to an account that was there before and is there after it, its slots apart.
    pub(super) fn update(&mut self, address: Address, info: &AccountInfo) {
        let state = self
            .accounts
            .entry(address)
            .or_insert_with(|| Box::new(AccountState::loaded(None)));
        state.touched = true;
        if let Some(recent) = &mut self.recent {
            recent.entry(address).or_default();
        }
        match &mut state.info {
            Some(known) if known.code_hash == info.code_hash => {
                known.balance = info.balance;
                known.nonce = info.nonce;
            }
            other => {
                if let Some(code) = info.code.as_ref().filter(|code| !code.is_empty()) {
                    self.codes
                        .entry(info.code_hash)
                        .or_insert_with(|| code.clone());
                }
                *other = Some(info.clone());
            }
        }
    }

    /// Applies a slot that a transaction wrote, of an account that [`BlockState::update`] has seen.
    pub(super) fn apply_slot(&mut self, address: Address, key: U256, slot: &EvmStorageSlot) {
        if !slot.is_changed() {
            return;
        }
        let Some(state) = self.accounts.get_mut(&address) else {
            return;
        };
        state.write(key, slot);
        if let Some(recent) = &mut self.recent {
            recent.entry(address).or_default().slots.insert(key);
        }
    }

    /// Applies what one transaction left in the journal. Untouched accounts are only loads and change nothing.
    pub(super) fn apply(&mut self, address: Address, account: &mut Account) {
        if !account.is_touched() {
            return;
        }
        let state = self
            .accounts
            .entry(address)
            .or_insert_with(|| Box::new(AccountState::loaded(None)));
        state.touched = true;
        let mut recent = self
            .recent
            .as_mut()
            .map(|recent| recent.entry(address).or_default());
        let ends = account.is_selfdestructed() || (account.is_empty() && !account.is_created());
        if ends || account.is_created() {
            state.storage.clear();
            state.wiped = true;
            if let Some(recent) = &mut recent {
                recent.wipe();
            }
        }
        if ends {
            state.info = None;
            return;
        }
        if account.info.code_hash != KECCAK256_EMPTY
            && let Some(code) = account.info.code.as_ref()
            && state
                .info
                .as_ref()
                .is_none_or(|info| info.code_hash != account.info.code_hash)
        {
            self.codes
                .entry(account.info.code_hash)
                .or_insert_with(|| code.clone());
        }
        match &mut state.info {
            // The journal's copy is about to go: exchange instead of building an empty one.
            Some(info) => core::mem::swap(info, &mut account.info),
            none => *none = Some(core::mem::take(&mut account.info)),
        }
        for (key, slot) in account.storage.drain() {
            if !slot.is_changed() {
                continue;
            }
            state.write(key, &slot);
            if let Some(recent) = &mut recent {
                recent.slots.insert(key);
            }
        }
    }
}

impl Database for BlockState<'_> {
    type Error = ReadError;

    fn basic(&mut self, address: Address) -> Result<Option<AccountInfo>, ReadError> {
        self.load(address).map(|account| account.info.clone())
    }

    fn code_by_hash(&mut self, code_hash: B256) -> Result<Bytecode, ReadError> {
        match self.codes.entry(code_hash) {
            Entry::Occupied(entry) => Ok(entry.get().clone()),
            Entry::Vacant(entry) => Ok(entry.insert(self.reader.code(&code_hash)?).clone()),
        }
    }

    fn storage(&mut self, address: Address, slot: U256) -> Result<U256, ReadError> {
        let reader = self.reader;
        let account = self.load(address)?;
        match account.storage.entry(slot) {
            Entry::Occupied(entry) => Ok(entry.get().present),
            Entry::Vacant(entry) => {
                let value = if account.wiped || account.original.is_none() {
                    U256::ZERO
                } else {
                    reader.storage(&address, &slot)?
                };
                entry.insert(Slot {
                    original: value,
                    present: value,
                    written: false,
                });
                Ok(value)
            }
        }
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
        assert_eq!(account.info, Some(AccountInfo::default()));

        let mut state = BlockState::new(&EmptyReader);
        assert_eq!(state.drain(missing, true).unwrap(), U256::ZERO);
        assert_eq!(state.accounts()[&missing].info, None);
    }

    #[test]
    fn draining_takes_the_whole_balance_and_clears_what_is_then_empty() {
        let rich = Address::repeat_byte(2);
        for (clear_empty, left) in [(false, Some(AccountInfo::default())), (true, None)] {
            let mut state = BlockState::new(&EmptyReader);
            state.credit(rich, U256::from(5), clear_empty).unwrap();
            assert_eq!(state.drain(rich, clear_empty).unwrap(), U256::from(5));
            assert_eq!(state.accounts()[&rich].info, left);
        }
    }
}
