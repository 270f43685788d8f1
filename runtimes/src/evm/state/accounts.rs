//! The accounts a block has seen: one copy of each, which the transaction under way changes in place.

use core::ops::Index;

use alloy_primitives::map::{AddressMap, HashMap};
use alloy_primitives::{Address, U256};
use revm::state::{Account, AccountInfo, AccountStatus, EvmStorageSlot, TransactionId};

/// A storage slot as the block has seen it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Value before the block.
    pub original: U256,
    /// Some transaction of the block changed it, even if a later one changed it back.
    pub written: bool,
    /// The value now, that before the transaction, and whether the transaction has seen it.
    pub(in crate::evm) live: EvmStorageSlot,
}

impl Slot {
    pub(in crate::evm) fn read(value: U256, transaction: TransactionId) -> Self {
        Self {
            original: value,
            written: false,
            live: EvmStorageSlot::new(value, transaction),
        }
    }

    /// Value now.
    #[inline]
    pub const fn present(&self) -> U256 {
        self.live.present_value
    }
}

/// An account as the block has seen it.
#[derive(Debug, Clone)]
pub struct AccountState {
    /// The account before the block.
    pub original: Option<AccountInfo>,
    /// Slots read or written by the block.
    pub storage: HashMap<U256, Slot>,
    /// The storage from before the block is gone (the account was created, destroyed or cleared in the block), so slots
    /// not in `storage` are zero.
    pub wiped: bool,
    /// Some transaction of the block touched the account in the sense of EIP-161.
    pub touched: bool,
    /// The account now, and what the transaction under way has done to it. Its own storage table stays empty.
    pub(in crate::evm) live: Account,
    /// Its key in [`Accounts`].
    pub(in crate::evm) address: Address,
}

impl AccountState {
    pub(super) fn loaded(address: Address, info: Option<AccountInfo>) -> Self {
        let mut live = Account::default();
        match &info {
            Some(info) => live.info = info.clone(),
            None => live.status = AccountStatus::LoadedAsNotExisting,
        }
        Self {
            original: info,
            storage: HashMap::default(),
            wiped: false,
            touched: false,
            live,
            address,
        }
    }

    /// The account now; `None` where it does not exist. Between transactions.
    #[inline]
    pub fn info(&self) -> Option<&AccountInfo> {
        (!self.live.is_loaded_as_not_existing()).then_some(&self.live.info)
    }

    /// The account exists from now on, if it did not.
    pub(in crate::evm) fn exist(&mut self) {
        self.live.status -= AccountStatus::LoadedAsNotExisting;
    }

    /// The account and its storage are gone.
    pub(in crate::evm) fn end(&mut self) {
        self.live.info = AccountInfo::default();
        self.live.status = AccountStatus::LoadedAsNotExisting;
        self.storage.clear();
        self.wiped = true;
    }

    /// Whether a slot that the block has not seen is zero without asking the state below.
    pub(in crate::evm) fn is_blank(&self) -> bool {
        self.wiped || self.original.is_none() || self.live.is_created()
    }
}

/// Accounts by address, each with a number that stays.
#[derive(Debug, Clone, Default)]
pub struct Accounts {
    index: AddressMap<u32>,
    #[expect(
        clippy::vec_box,
        reason = "an account takes some 400 bytes, which must not be copied whenever the list grows"
    )]
    list: Vec<Box<AccountState>>,
}

impl Accounts {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The account of this address, if the block has seen it.
    pub fn get(&self, address: &Address) -> Option<&AccountState> {
        let at = *self.index.get(address)?;
        self.list.get(at as usize).map(|account| &**account)
    }

    /// All of them, in the order in which they were seen.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Address, &AccountState)> + Clone {
        self.list
            .iter()
            .map(|account| (&account.address, &**account))
    }

    /// Their addresses.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &Address> + Clone {
        self.iter().map(|(address, _)| address)
    }

    /// The accounts without their addresses.
    pub fn values(&self) -> impl ExactSizeIterator<Item = &AccountState> + Clone {
        self.iter().map(|(_, account)| account)
    }

    /// The number of the account.
    #[inline]
    pub(in crate::evm) fn find(&self, address: &Address) -> Option<u32> {
        self.index.get(address).copied()
    }

    /// Adds an account that is not there yet.
    pub(super) fn add(&mut self, account: AccountState) -> u32 {
        // A block that sees four billion accounts would not fit in memory.
        let at = self.list.len() as u32;
        self.index.insert(account.address, at);
        self.list.push(Box::new(account));
        at
    }

    /// The account of a number given out by [`Accounts::find`].
    #[inline]
    pub(in crate::evm) fn at(&self, at: u32) -> &AccountState {
        &self.list[at as usize]
    }

    /// See [`Accounts::at`].
    #[inline]
    pub(in crate::evm) fn at_mut(&mut self, at: u32) -> &mut AccountState {
        &mut self.list[at as usize]
    }
}

impl Index<&Address> for Accounts {
    type Output = AccountState;

    fn index(&self, address: &Address) -> &AccountState {
        self.get(address).expect("the block has seen the account")
    }
}
