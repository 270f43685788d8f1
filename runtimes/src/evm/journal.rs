//! The journal of a transaction: revm's, over [`BlockState`], with the two things revm leaves to its embedder.
//!
//! 1. EIP-7610: creating a contract at an address that has storage fails like any other collision. revm's journal cannot
//!    ask its database that question.
//! 2. The changes of a finished transaction are copied into the [`BlockState`] as the journal's entries tell them, and the
//!    journal keeps accounts and slots that merely lived on: the next transaction finds them as if it had loaded them, cold
//!    and unchanged, without copying them from the block's state again.
//!
//! Before the journal's tables stands a cache of warm slots ([`super::slots`]).

use alloy_primitives::{
    Address, B256, KECCAK256_EMPTY, Log, U256, map::AddressMap, map::AddressSet, map::Entry,
    map::HashSet,
};
use revm::bytecode::Bytecode;
use revm::context::journal::{Journal, JournalEntry};
use revm::context_interface::context::{SStoreResult, SelfDestructResult, StateLoad};
use revm::context_interface::journaled_state::{
    AccountInfoLoad, AccountLoad, JournalCheckpoint, JournalLoadError, JournalTr, TransferError,
    account::JournaledAccount,
};
use revm::inspector::JournalExt;
use revm::primitives::{PRECOMPILE3, StorageKey, StorageValue, hardfork::SpecId};
use revm::state::{Account, AccountStatus, EvmState};

use super::machine::Context;
use super::slots::WarmSlots;
use super::state::{BlockState, ReadError};

type LoadError = JournalLoadError<ReadError>;

/// The journal of the transaction being executed over the state of its block.
#[derive(Debug)]
pub struct BlockJournal<'a> {
    journal: Journal<BlockState<'a>>,
    /// A read for the EIP-7610 check failed. `create_account_checkpoint` has no way to say so; the machine asks.
    failed_read: Option<ReadError>,
    /// Filled by SLOAD and SSTORE; everything else that can change a slot or make it cold forgets it.
    slots: WarmSlots,
    /// A frame of the transaction was reverted.
    reverted: bool,
    /// The transaction changed something that no entry of the journal tells.
    unrecorded: bool,
}

/// The present value of a storage slot if it is warm and was read or written a short while ago: then only the static gas
/// of SLOAD applies. `None` says nothing.
#[inline]
pub fn sload_warm(context: &Context<'_>, address: &Address, slot: &U256) -> Option<U256> {
    context.journaled_state.slots.get(address, slot)
}

impl<'a> BlockJournal<'a> {
    /// Gives the journal a cache for its warm slots.
    pub(super) fn set_slots(&mut self, slots: WarmSlots) {
        self.slots = slots;
        self.slots.forget();
    }

    /// Takes the cache for the next journal.
    pub(super) fn take_slots(&mut self) -> WarmSlots {
        core::mem::take(&mut self.slots)
    }

    /// Copies the changes of the finished transaction into the block's state.
    pub fn commit(&mut self) {
        self.slots.forget();
        let reverted = core::mem::take(&mut self.reverted);
        if core::mem::take(&mut self.unrecorded) {
            return self.commit_everything();
        }
        let Journal { database, inner } = &mut self.journal;
        let before_eip161 = !inner.cfg.spec.is_enabled_in(SpecId::SPURIOUS_DRAGON);
        let entries = core::mem::take(&mut inner.journal);
        for entry in &entries {
            if let JournalEntry::AccountTouched { address } = entry {
                settle(database, &mut inner.state, *address, before_eip161);
            }
        }
        if reverted {
            // Stays touched when the touch is reverted (EIP-161's exception), so no entry says so.
            settle(database, &mut inner.state, PRECOMPILE3, before_eip161);
        }
        for entry in &entries {
            if let JournalEntry::StorageChanged { address, key, .. } = entry
                && let Some(account) = inner.state.get(address)
                && let Some(slot) = account.storage.get(key)
            {
                database.apply_slot(*address, *key, slot);
            }
        }
        inner.journal = entries;
        // Leaves accounts and slots, all of which are cold for the next transaction; clears logs, warm addresses, transient
        // storage and entries.
        inner.commit_tx();
    }

    /// [`BlockJournal::commit`] where the journal's entries do not tell all changes.
    fn commit_everything(&mut self) {
        let inner = &mut self.journal.inner;
        let before_eip161 = !inner.cfg.spec.is_enabled_in(SpecId::SPURIOUS_DRAGON);
        let mut state = core::mem::take(&mut inner.state);
        inner.finalize();
        for (address, account) in &mut state {
            if before_eip161 {
                keep_empty(account);
            }
            self.journal.database.apply(*address, account);
        }
    }

    /// Drops the changes of the transaction, and every account with it.
    pub fn discard(&mut self) {
        self.slots.forget();
        self.reverted = false;
        self.unrecorded = false;
        self.journal.inner.finalize();
        self.failed_read = None;
    }

    /// The error of a read that had to be answered without one.
    pub fn take_failed_read(&mut self) -> Option<ReadError> {
        self.failed_read.take()
    }

    /// The state of the block, between transactions. What the journal remembers of it is forgotten.
    pub fn block_state_mut(&mut self) -> &mut BlockState<'a> {
        self.journal.inner.state.clear();
        &mut self.journal.database
    }

    /// The state of the block.
    pub fn block_state(&self) -> &BlockState<'a> {
        &self.journal.database
    }

    /// Gives the state of the block back.
    pub fn into_block_state(self) -> BlockState<'a> {
        self.journal.database
    }
}

/// Copies what a transaction did to an account, its slots apart, into the block's state. The account is then as if it had
/// just been loaded; where that takes more than to forget the touch (it came to be, or ended, or has no code, nonce and
/// balance), it is forgotten together with its slots, which the block's state gets here.
fn settle(
    database: &mut BlockState<'_>,
    state: &mut EvmState,
    address: Address,
    before_eip161: bool,
) {
    let Entry::Occupied(mut entry) = state.entry(address) else {
        return;
    };
    let account = entry.get_mut();
    if !account.is_touched() {
        return;
    }
    if account.status == AccountStatus::Touched && !account.is_empty() {
        database.update(address, &account.info);
        account.unmark_touch();
        return;
    }
    if before_eip161 {
        keep_empty(account);
    }
    database.apply(address, account);
    entry.remove();
}

/// Before EIP-161 a touched empty account exists. [`BlockState::apply`] speaks EIP-161: an account that came to exist is
/// marked created, one that was empty before is left as it is.
fn keep_empty(account: &mut Account) {
    if account.is_touched()
        && account.is_empty()
        && !account.is_selfdestructed()
        && !account.is_created()
    {
        if account.is_loaded_as_not_existing() {
            account.mark_created();
        } else {
            account.unmark_touch();
        }
    }
}

impl JournalExt for BlockJournal<'_> {
    fn journal(&self) -> &[JournalEntry] {
        &self.journal.inner.journal
    }
}

macro_rules! forward {
    ($($(#[$meta:meta])* fn $name:ident(&mut self $(, $arg:ident: $ty:ty)*) $(-> $ret:ty)?;)*) => {
        $($(#[$meta])* #[inline] fn $name(&mut self $(, $arg: $ty)*) $(-> $ret)? { self.journal.$name($($arg),*) })*
    };
}

macro_rules! forward_and_forget {
    ($(fn $name:ident(&mut self $(, $arg:ident: $ty:ty)*) $(-> $ret:ty)?;)*) => {
        $(#[inline] fn $name(&mut self $(, $arg: $ty)*) $(-> $ret)? {
            self.slots.forget();
            self.journal.$name($($arg),*)
        })*
    };
}

impl<'a> JournalTr for BlockJournal<'a> {
    type Database = BlockState<'a>;
    type State = EvmState;
    type JournaledAccount<'j>
        = JournaledAccount<'j, BlockState<'a>, JournalEntry>
    where
        Self: 'j;

    fn new(database: BlockState<'a>) -> Self {
        Self {
            journal: Journal::new(database),
            failed_read: None,
            slots: WarmSlots::default(),
            reverted: false,
            unrecorded: false,
        }
    }

    #[inline]
    fn sload_skip_cold_load(
        &mut self,
        address: Address,
        key: StorageKey,
        skip: bool,
    ) -> Result<StateLoad<StorageValue>, LoadError> {
        if let Some(value) = self.slots.get(&address, &key) {
            return Ok(StateLoad::new(value, false));
        }
        let load = self.journal.sload_skip_cold_load(address, key, skip)?;
        self.slots.set(address, key, load.data);
        Ok(load)
    }

    #[inline]
    fn sstore_skip_cold_load(
        &mut self,
        address: Address,
        key: StorageKey,
        value: StorageValue,
        skip: bool,
    ) -> Result<StateLoad<SStoreResult>, LoadError> {
        let load = self
            .journal
            .sstore_skip_cold_load(address, key, value, skip)?;
        self.slots.set(address, key, value);
        Ok(load)
    }

    fn create_account_checkpoint(
        &mut self,
        caller: Address,
        address: Address,
        balance: U256,
        spec_id: SpecId,
    ) -> Result<JournalCheckpoint, TransferError> {
        self.slots.forget();
        let Journal { database, inner } = &mut self.journal;
        let target = inner.account(address);
        // revm sees code and nonce; what it cannot see is storage, which only an account that exists can have.
        if !target.is_loaded_as_not_existing()
            && target.info.nonce == 0
            && target.info.code_hash == KECCAK256_EMPTY
        {
            match database.has_storage(address) {
                Ok(false) => {}
                Ok(true) => return Err(TransferError::CreateCollision),
                Err(error) => {
                    self.failed_read = Some(error);
                    return Err(TransferError::CreateCollision);
                }
            }
        }
        inner.create_account_checkpoint(caller, address, balance, spec_id)
    }

    #[inline]
    fn db_and_state(&self) -> (&BlockState<'a>, &EvmState) {
        self.journal.db_and_state()
    }
    #[inline]
    fn logs(&self) -> &[Log] {
        self.journal.logs()
    }
    #[inline]
    fn precompile_addresses(&self) -> &AddressSet {
        self.journal.precompile_addresses()
    }
    #[inline]
    fn depth(&self) -> usize {
        self.journal.depth()
    }

    /// Nothing: the changes stay apart until [`BlockJournal::commit`] or [`BlockJournal::discard`], so that a transaction
    /// can still be refused.
    #[inline]
    fn commit_tx(&mut self) {}

    fn checkpoint_revert(&mut self, checkpoint: JournalCheckpoint) {
        self.slots.forget();
        self.reverted = true;
        self.journal.checkpoint_revert(checkpoint);
    }

    fn db_and_state_mut(&mut self) -> (&mut BlockState<'a>, &mut EvmState) {
        self.slots.forget();
        self.unrecorded = true;
        self.journal.db_and_state_mut()
    }

    #[inline]
    fn db_mut(&mut self) -> &mut BlockState<'a> {
        &mut self.journal.database
    }

    #[inline]
    fn transfer_loaded(
        &mut self,
        from: Address,
        to: Address,
        balance: U256,
    ) -> Option<TransferError> {
        let refused = self.journal.transfer_loaded(from, to, balance);
        // revm takes the amount from the sender before it sees that the receiver cannot hold it.
        self.unrecorded |= refused == Some(TransferError::OverflowPayment);
        refused
    }

    fn transfer(
        &mut self,
        from: Address,
        to: Address,
        balance: U256,
    ) -> Result<Option<TransferError>, ReadError> {
        self.load_account(from)?;
        self.load_account(to)?;
        Ok(self.transfer_loaded(from, to, balance))
    }

    // What gives slots away in place, makes them cold, or ends what a warm slot is.
    forward_and_forget! {
        fn load_account_mut_skip_cold_load(&mut self, address: Address, skip: bool)
            -> Result<StateLoad<Self::JournaledAccount<'_>>, LoadError>;
        fn load_account_mut_optional_code(&mut self, address: Address, load_code: bool)
            -> Result<StateLoad<Self::JournaledAccount<'_>>, ReadError>;
        fn take_logs(&mut self) -> Vec<Log>;
        fn selfdestruct(&mut self, address: Address, target: Address, skip: bool)
            -> Result<StateLoad<SelfDestructResult>, LoadError>;
        fn warm_access_list(&mut self, access_list: AddressMap<HashSet<StorageKey>>);
        fn set_spec_id(&mut self, spec_id: SpecId);
        fn discard_tx(&mut self);
        fn finalize(&mut self) -> EvmState;
    }

    forward! {
        fn tload(&mut self, address: Address, key: StorageKey) -> StorageValue;
        fn tstore(&mut self, address: Address, key: StorageKey, value: StorageValue);
        fn log(&mut self, log: Log);
        fn warm_coinbase_account(&mut self, address: Address);
        fn warm_precompiles(&mut self, addresses: &AddressSet);
        fn set_eip7708_config(&mut self, disabled: bool, delayed_clear_disabled: bool);
        fn touch_account(&mut self, address: Address);
        #[expect(deprecated)]
        fn caller_accounting_journal_entry(&mut self, address: Address, old_balance: U256, bump_nonce: bool);
        fn balance_incr(&mut self, address: Address, balance: U256) -> Result<(), ReadError>;
        #[expect(deprecated)]
        fn nonce_bump_journal_entry(&mut self, address: Address);
        fn load_account(&mut self, address: Address) -> Result<StateLoad<&Account>, ReadError>;
        fn load_account_with_code(&mut self, address: Address) -> Result<StateLoad<&Account>, ReadError>;
        fn load_account_delegated(&mut self, address: Address) -> Result<StateLoad<AccountLoad>, ReadError>;
        fn load_account_info_skip_cold_load(&mut self, address: Address, load_code: bool, skip: bool)
            -> Result<AccountInfoLoad<'_>, LoadError>;
        fn set_code_with_hash(&mut self, address: Address, code: Bytecode, hash: B256);
        fn checkpoint(&mut self) -> JournalCheckpoint;
        fn checkpoint_commit(&mut self);
    }
}
