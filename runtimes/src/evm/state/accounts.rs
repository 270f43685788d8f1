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
    /// The last transaction that touched it created it.
    pub(in crate::evm) created: bool,
    /// The last transaction that touched it destroyed it.
    pub(in crate::evm) destroyed: bool,
    /// What the transaction came to know of it; kept only while transactions are executed before their turn.
    pub(in crate::evm) seen: Seen,
}

/// What a transaction came to know of an account beyond its code: what must be so again for the result to hold.
///
/// Storage is not here: slots are known by their values before the transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::evm) struct Seen {
    /// The balance itself.
    pub(in crate::evm) balance: bool,
    /// The nonce itself.
    pub(in crate::evm) nonce: bool,
    /// Whether the account was empty (EIP-161).
    pub(in crate::evm) emptiness: bool,
    /// It paid for the transaction.
    pub(in crate::evm) is_sender: bool,
    /// The least that was left behind a debit: the balance may have been lower by as much. All ones: nothing was taken.
    pub(in crate::evm) left: U256,
}

impl Seen {
    /// Nothing is known.
    pub(in crate::evm) const NOTHING: Self = Self {
        balance: false,
        nonce: false,
        emptiness: false,
        is_sender: false,
        left: U256::MAX,
    };
}

impl AccountState {
    pub(in crate::evm) fn loaded(address: Address, info: Option<AccountInfo>) -> Self {
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
            created: false,
            destroyed: false,
            seen: Seen::NOTHING,
        }
    }

    /// The same as [`AccountState::loaded`] in the memory of an account that is not needed any more.
    pub(super) fn reload(&mut self, address: Address, info: Option<AccountInfo>) {
        /// Slots for which a table is kept: clearing a larger one costs more than a new one.
        const KEPT_SLOTS: usize = 64;
        self.live.status = AccountStatus::empty();
        match &info {
            Some(info) => self.live.info = info.clone(),
            None => {
                self.live.info = AccountInfo::default();
                self.live.status = AccountStatus::LoadedAsNotExisting;
            }
        }
        self.live.transaction_id = TransactionId::ZERO;
        self.original = info;
        if self.storage.capacity() > KEPT_SLOTS {
            self.storage = HashMap::default();
        } else {
            self.storage.clear();
        }
        self.wiped = false;
        self.touched = false;
        self.address = address;
        self.created = false;
        self.destroyed = false;
        self.seen = Seen::NOTHING;
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

    /// The account and its storage are gone. Its table of slots is left, for [`AccountState::forget_slots`].
    pub(in crate::evm) fn end(&mut self) {
        self.live.info = AccountInfo::default();
        self.live.status = AccountStatus::LoadedAsNotExisting;
        self.wiped = true;
    }

    /// Empties the table of slots.
    pub(in crate::evm) fn forget_slots(&mut self) {
        self.storage.clear();
    }

    /// Ends what a transaction did to an account that it touched, and says whether the account has ended (EIP-161, from
    /// Spurious Dragon on).
    pub(in crate::evm) fn conclude(&mut self, created: bool, destroyed: bool) -> bool {
        self.touched = true;
        self.created = created;
        self.destroyed = destroyed;
        let ends = destroyed || (self.live.info.is_empty() && !created);
        if ends {
            self.end();
        } else {
            self.exist();
            self.wiped |= created;
        }
        ends
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
    #[expect(clippy::vec_box, reason = "they come from the list and go back there")]
    spare: Vec<Box<AccountState>>,
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

    /// Adds an account that is not there yet, as the state below has it.
    pub(super) fn add(&mut self, address: Address, info: Option<AccountInfo>) -> u32 {
        let account = match self.spare.pop() {
            Some(mut spare) => {
                spare.reload(address, info);
                spare
            }
            None => Box::new(AccountState::loaded(address, info)),
        };
        self.insert(account)
    }

    /// Adds an account that is not there yet.
    pub(in crate::evm) fn insert(&mut self, account: Box<AccountState>) -> u32 {
        // A block that sees four billion accounts would not fit in memory.
        let at = self.list.len() as u32;
        self.index.insert(account.address, at);
        self.list.push(account);
        at
    }

    /// Removes all accounts, which are then used again for others.
    pub(in crate::evm) fn clear(&mut self) {
        /// Accounts whose memory is kept: a transaction that saw more is rare.
        const KEPT: usize = 32;
        self.index.clear();
        self.spare.append(&mut self.list);
        self.spare.truncate(KEPT);
    }

    /// Gives all accounts away.
    pub(in crate::evm) fn drain(&mut self) -> impl Iterator<Item = Box<AccountState>> + '_ {
        self.index.clear();
        self.list.drain(..)
    }

    /// The accounts by number.
    pub(in crate::evm) fn boxes(&self) -> &[Box<AccountState>] {
        &self.list
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
