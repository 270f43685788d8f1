//! The journal of a transaction: what revm asks of one, on the accounts of the block themselves.
//!
//! revm's own journal copies every account and slot out of its database, and the changes back in. Here there is one copy,
//! in the [`BlockState`]: a transaction changes it in place and notes how to take the change back ([`undo`]). So nothing
//! is loaded twice in a block, a transaction that is kept costs no copy, one that is dropped is undone like a frame that is,
//! and none of it allocates once the block's tables have grown.
//!
//! Two things revm leaves to its embedder are done here: EIP-7610, creating a contract at an address that has storage
//! fails like any other collision, which takes a question to the state below; and a transfer that would overflow the
//! receiver leaves the sender as it was.
//!
//! Before the tables stands a cache of warm slots ([`super::slots`]).

use alloy_primitives::map::{AddressMap, AddressSet, HashSet};
use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, LogData, U256};
use revm::bytecode::Bytecode;
use revm::context::journal::JournalEntry;
use revm::context::journal::warm_addresses::WarmAddresses;
use revm::context_interface::context::{SStoreResult, SelfDestructResult, StateLoad};
use revm::context_interface::journaled_state::account::JournaledAccountTr as _;
use revm::context_interface::journaled_state::entry::SelfdestructionRevertStatus;
use revm::context_interface::journaled_state::{
    AccountInfoLoad, AccountLoad, JournalCheckpoint, JournalLoadError, JournalTr, TransferError,
};
use revm::inspector::JournalExt;
use revm::primitives::eip7708::{ETH_TRANSFER_LOG_ADDRESS, ETH_TRANSFER_LOG_TOPIC};
use revm::primitives::hardfork::SpecId;
use revm::state::{Account, EvmState};

use super::machine::Context;
use super::slots::WarmSlots;
use super::state::{BlockState, ReadError, Slot};
use undo::{Transient, Undo};

mod handle;
mod seen;
mod settle;
mod undo;

pub use handle::LoadedAccount;
pub(super) use seen::LARGE;

type LoadError = JournalLoadError<ReadError>;

/// The journal of the transaction being executed on the state of its block.
#[derive(Debug)]
pub struct BlockJournal<'a> {
    state: BlockState<'a>,
    undo: Vec<Undo>,
    transient: Transient,
    logs: Vec<Log>,
    depth: usize,
    spec: SpecId,
    /// Precompiles, beneficiary and access list.
    warm: WarmAddresses,
    /// Accounts that the transaction destroyed first, for EIP-8246.
    destroyed: Vec<u32>,
    /// EIP-7708 is off, whatever the fork.
    no_transfer_logs: bool,
    /// EIP-8246 is off, whatever the fork.
    no_delayed_clear: bool,
    /// A read for the EIP-7610 check failed. `create_account_checkpoint` has no way to say so; the machine asks.
    failed_read: Option<ReadError>,
    /// Filled by SLOAD and SSTORE; everything else that can change a slot or make it cold forgets it.
    slots: WarmSlots,
    /// A frame of the transaction was reverted.
    reverted: bool,
    /// Fees are being moved, see [`BlockJournal::set_fees`].
    fees: bool,
    /// What the beneficiary gets from the transaction, where that is left beside the state.
    fee: Option<U256>,
    /// Self-destructions, in revm's form, for inspectors.
    shown: Vec<JournalEntry>,
    /// What revm would have a journal give away. Stays empty: the accounts are in `state`.
    none: EvmState,
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

    /// The state of the block, between transactions.
    pub fn block_state_mut(&mut self) -> &mut BlockState<'a> {
        &mut self.state
    }

    /// The state of the block.
    pub fn block_state(&self) -> &BlockState<'a> {
        &self.state
    }

    /// Gives the state of the block back.
    pub fn into_block_state(self) -> BlockState<'a> {
        self.state
    }

    /// The account of a number, warm from now on, and whether it was cold (EIP-2929).
    #[inline]
    fn warm_account(
        &mut self,
        address: Address,
        skip_cold: bool,
    ) -> Result<(u32, bool), LoadError> {
        if let Some(at) = self.state.accounts.find(&address) {
            let live = &self.state.accounts.at(at).live;
            if !live.is_cold_transaction_id(self.state.transaction) {
                return Ok((at, false));
            }
        }
        self.warm_cold_account(address, skip_cold)
    }

    #[inline(never)]
    fn warm_cold_account(
        &mut self,
        address: Address,
        skip_cold: bool,
    ) -> Result<(u32, bool), LoadError> {
        let is_cold = self.warm.check_is_cold(&address, skip_cold)?;
        let at = self.state.load(address)?;
        let now = self.state.transaction;
        let live = &mut self.state.accounts.at_mut(at).live;
        if self.spec >= SpecId::AMSTERDAM && live.transaction_id != now {
            // EIP-2780 asks what the account was before the transaction.
            live.set_current_info_as_original();
        }
        live.mark_warm_with_transaction_id(now);
        if is_cold {
            self.undo.push(Undo::Warmed(at));
        }
        Ok((at, is_cold))
    }

    /// The slot of an account, warm from now on, and whether it was cold (EIP-2929).
    #[inline]
    fn warm_slot(
        &mut self,
        at: u32,
        key: U256,
        skip_cold: bool,
    ) -> Result<(&mut Slot, bool), LoadError> {
        let now = self.state.transaction;
        let is_listed = |warm: &WarmAddresses, address: &Address| {
            let list = warm.access_list();
            !list.is_empty() && list.get(address).is_some_and(|keys| keys.contains(&key))
        };
        let account = self.state.accounts.at(at);
        let is_cold = match account.storage.get(&key) {
            Some(slot) if !slot.live.is_cold_transaction_id(now) => false,
            Some(_) => {
                let is_cold = !is_listed(&self.warm, &account.address);
                if is_cold && skip_cold {
                    return Err(LoadError::ColdLoadSkipped);
                }
                is_cold
            }
            None => {
                let is_cold = !is_listed(&self.warm, &account.address);
                if is_cold && skip_cold {
                    return Err(LoadError::ColdLoadSkipped);
                }
                let value = self.state.read_slot(at, &key)?;
                let slots = &mut self.state.accounts.at_mut(at).storage;
                slots.insert(key, Slot::read(value, now));
                is_cold
            }
        };
        if is_cold {
            self.undo.push(Undo::SlotWarmed(at, key));
        }
        let slots = &mut self.state.accounts.at_mut(at).storage;
        let slot = slots.get_mut(&key).expect("the slot was just found");
        slot.live.mark_warm_with_transaction_id(now);
        Ok((slot, is_cold))
    }

    /// Writes a slot: values before the transaction, before the write, after it.
    fn store(
        &mut self,
        at: u32,
        key: U256,
        new: U256,
        skip_cold: bool,
    ) -> Result<StateLoad<SStoreResult>, LoadError> {
        self.touch(at);
        let (slot, is_cold) = self.warm_slot(at, key, skip_cold)?;
        let result = SStoreResult {
            original_value: slot.live.original_value(),
            present_value: slot.live.present_value,
            new_value: new,
        };
        if result.present_value != new {
            slot.live.present_value = new;
            self.undo.push(Undo::Slot(at, key, result.present_value));
        }
        let address = self.state.accounts.at(at).address;
        self.slots.set(address, key, new);
        Ok(StateLoad::new(result, is_cold))
    }

    /// EIP-161: only touched accounts change the state.
    #[inline]
    fn touch(&mut self, at: u32) {
        let live = &mut self.state.accounts.at_mut(at).live;
        if !live.is_touched() {
            live.mark_touch();
            self.undo.push(Undo::Touched(at));
        }
    }

    fn set_code_at(&mut self, at: u32, code: Bytecode, hash: B256) {
        self.touch(at);
        let info = &mut self.state.accounts.at_mut(at).live.info;
        let old_hash = core::mem::replace(&mut info.code_hash, hash);
        let old = info.code.replace(code);
        self.undo.push(Undo::Code(at, old_hash, old));
    }

    /// The number of an account that a caller has loaded before.
    #[inline]
    fn loaded(&self, address: &Address) -> u32 {
        self.state
            .accounts
            .find(address)
            .expect("accounts are loaded before they are named")
    }

    /// See [`Account::state_clear_aware_is_empty`].
    #[inline]
    fn is_empty(&self, at: u32) -> bool {
        let live = &self.state.accounts.at(at).live;
        live.state_clear_aware_is_empty(self.spec)
    }

    /// EIP-7708: a transfer of value is logged.
    fn log_transfer(&mut self, from: Address, to: Address, amount: U256) {
        if self.spec < SpecId::AMSTERDAM || self.no_transfer_logs || amount.is_zero() {
            return;
        }
        let topics = vec![
            ETH_TRANSFER_LOG_TOPIC,
            B256::left_padding_from(from.as_slice()),
            B256::left_padding_from(to.as_slice()),
        ];
        let data = Bytes::copy_from_slice(&amount.to_be_bytes::<32>());
        self.logs.push(Log {
            address: ETH_TRANSFER_LOG_ADDRESS,
            data: LogData::new_unchecked(topics, data),
        });
    }

    /// EIP-8246: what was destroyed and holds a balance all the same keeps it, and nothing else.
    fn clear_destroyed(&mut self) {
        if self.spec < SpecId::AMSTERDAM || self.no_delayed_clear {
            return;
        }
        for at in &self.destroyed {
            let account = self.state.accounts.at_mut(*at);
            let live = &mut account.live;
            if live.info.balance.is_zero() {
                continue;
            }
            live.info.nonce = 0;
            live.info.code_hash = KECCAK256_EMPTY;
            live.info.code = Some(Bytecode::default());
            live.unmark_selfdestruct();
            live.unmark_selfdestructed_locally();
            for slot in account.storage.values_mut() {
                slot.live.present_value = U256::ZERO;
            }
        }
    }
}

impl JournalExt for BlockJournal<'_> {
    /// Only self-destructions, which is what inspectors look for.
    fn journal(&self) -> &[JournalEntry] {
        &self.shown
    }
}

impl<'a> JournalTr for BlockJournal<'a> {
    type Database = BlockState<'a>;
    type State = EvmState;
    type JournaledAccount<'j>
        = LoadedAccount<'j, 'a>
    where
        Self: 'j;

    fn new(state: BlockState<'a>) -> Self {
        Self {
            state,
            undo: Vec::new(),
            transient: Transient::default(),
            logs: Vec::new(),
            depth: 0,
            spec: SpecId::default(),
            warm: WarmAddresses::new(),
            destroyed: Vec::new(),
            no_transfer_logs: false,
            no_delayed_clear: false,
            failed_read: None,
            slots: WarmSlots::default(),
            reverted: false,
            fees: false,
            fee: None,
            shown: Vec::new(),
            none: EvmState::default(),
        }
    }

    fn db_mut(&mut self) -> &mut BlockState<'a> {
        &mut self.state
    }

    fn db_and_state(&self) -> (&BlockState<'a>, &EvmState) {
        (&self.state, &self.none)
    }

    fn db_and_state_mut(&mut self) -> (&mut BlockState<'a>, &mut EvmState) {
        (&mut self.state, &mut self.none)
    }

    #[inline]
    fn sload_skip_cold_load(
        &mut self,
        address: Address,
        key: U256,
        skip: bool,
    ) -> Result<StateLoad<U256>, LoadError> {
        if let Some(value) = self.slots.get(&address, &key) {
            return Ok(StateLoad::new(value, false));
        }
        let (at, _) = self.warm_account(address, false)?;
        let (slot, is_cold) = self.warm_slot(at, key, skip)?;
        let value = slot.present();
        self.slots.set(address, key, value);
        Ok(StateLoad::new(value, is_cold))
    }

    #[inline]
    fn sstore_skip_cold_load(
        &mut self,
        address: Address,
        key: U256,
        value: U256,
        skip: bool,
    ) -> Result<StateLoad<SStoreResult>, LoadError> {
        let (at, _) = self.warm_account(address, false)?;
        self.store(at, key, value, skip)
    }

    fn tload(&mut self, address: Address, key: U256) -> U256 {
        // Nothing is stored under an account that was never loaded.
        let at = self.state.accounts.find(&address);
        at.and_then(|at| self.transient.get(&(at, key)).copied())
            .unwrap_or_default()
    }

    fn tstore(&mut self, address: Address, key: U256, value: U256) {
        let at = self.loaded(&address);
        let old = if value.is_zero() {
            self.transient.remove(&(at, key))
        } else {
            self.transient.insert((at, key), value)
        };
        let old = old.unwrap_or_default();
        if old != value {
            self.undo.push(Undo::Transient(at, key, old));
        }
    }

    #[inline]
    fn log(&mut self, log: Log) {
        self.logs.push(log);
    }

    /// The transaction has run: also does what EIP-8246 puts behind its last frame.
    fn take_logs(&mut self) -> Vec<Log> {
        self.slots.forget();
        self.clear_destroyed();
        core::mem::take(&mut self.logs)
    }

    #[inline]
    fn logs(&self) -> &[Log] {
        &self.logs
    }

    /// EIP-6780: from Cancun on only what the same transaction created is destroyed.
    fn selfdestruct(
        &mut self,
        address: Address,
        target: Address,
        skip_cold_load: bool,
    ) -> Result<StateLoad<SelfDestructResult>, LoadError> {
        self.slots.forget();
        let (target_at, is_cold) = self.warm_account(target, skip_cold_load)?;
        let target_exists = !self.is_empty(target_at);
        let at = self.loaded(&address);
        self.saw_emptiness(target_at);
        self.saw_balance(at);
        let accounts = &mut self.state.accounts;
        let balance = accounts.at(at).live.info.balance;
        if at != target_at {
            self.touch(target_at);
            let target = &mut self.state.accounts.at_mut(target_at).live.info.balance;
            *target = target.wrapping_add(balance);
            self.saw_room(target_at);
        }

        let live = &mut self.state.accounts.at_mut(at).live;
        let status = if !live.is_selfdestructed() {
            SelfdestructionRevertStatus::GloballySelfdestroyed
        } else if !live.is_selfdestructed_locally() {
            SelfdestructionRevertStatus::LocallySelfdestroyed
        } else {
            SelfdestructionRevertStatus::RepeatedSelfdestruction
        };
        if live.is_created_locally() || self.spec < SpecId::CANCUN {
            if status == SelfdestructionRevertStatus::GloballySelfdestroyed
                && !self.no_delayed_clear
            {
                self.destroyed.push(at);
            }
            live.mark_selfdestructed_locally();
            // EIP-8246 ends the burning of what an account gives to itself.
            let keeps = at == target_at && self.spec >= SpecId::AMSTERDAM;
            let gone = if keeps {
                U256::ZERO
            } else {
                core::mem::take(&mut live.info.balance)
            };
            if at != target_at {
                self.log_transfer(address, target, balance);
            }
            self.undo.push(Undo::Destroyed(at, target_at, status, gone));
            self.shown.push(JournalEntry::AccountDestroyed {
                had_balance: gone,
                address,
                target,
                destroyed_status: status,
            });
        } else if at != target_at {
            live.info.balance = U256::ZERO;
            self.log_transfer(address, target, balance);
            self.undo.push(Undo::Transfer(at, target_at, balance));
            self.shown.push(JournalEntry::BalanceTransfer {
                balance,
                from: address,
                to: target,
            });
        }
        let result = SelfDestructResult {
            had_value: !balance.is_zero(),
            target_exists,
            previously_destroyed: status == SelfdestructionRevertStatus::RepeatedSelfdestruction,
        };
        Ok(StateLoad::new(result, is_cold))
    }

    fn warm_access_list(&mut self, access_list: AddressMap<HashSet<U256>>) {
        self.warm.set_access_list(access_list);
    }

    #[inline]
    fn warm_coinbase_account(&mut self, address: Address) {
        self.warm.set_coinbase(address);
    }

    fn warm_precompiles(&mut self, addresses: &AddressSet) {
        self.warm.set_precompile_addresses(addresses);
    }

    #[inline]
    fn precompile_addresses(&self) -> &AddressSet {
        self.warm.precompiles()
    }

    #[inline]
    fn set_spec_id(&mut self, spec: SpecId) {
        self.spec = spec;
    }

    fn set_eip7708_config(&mut self, disabled: bool, delayed_clear_disabled: bool) {
        self.no_transfer_logs = disabled;
        self.no_delayed_clear = delayed_clear_disabled;
    }

    fn touch_account(&mut self, address: Address) {
        if let Some(at) = self.state.accounts.find(&address) {
            self.touch(at);
        }
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

    #[inline]
    fn transfer_loaded(
        &mut self,
        from: Address,
        to: Address,
        balance: U256,
    ) -> Option<TransferError> {
        let to_at = self.loaded(&to);
        if from == to {
            self.saw_balance(to_at);
            let has = self.state.accounts.at(to_at).live.info.balance;
            return (balance > has).then_some(TransferError::OutOfFunds);
        }
        if balance.is_zero() {
            self.touch(to_at);
            return None;
        }
        let from_at = self.loaded(&from);
        self.touch(from_at);
        let has = self.state.accounts.at(from_at).live.info.balance;
        let Some(left) = has.checked_sub(balance) else {
            self.saw_balance(from_at);
            return Some(TransferError::OutOfFunds);
        };
        self.saw_enough(from_at, left);
        self.touch(to_at);
        let receiver = &mut self.state.accounts.at_mut(to_at).live.info.balance;
        let Some(sum) = receiver.checked_add(balance) else {
            self.saw_balance(to_at);
            return Some(TransferError::OverflowPayment);
        };
        *receiver = sum;
        self.saw_room(to_at);
        self.state.accounts.at_mut(from_at).live.info.balance = left;
        self.undo.push(Undo::Transfer(from_at, to_at, balance));
        self.log_transfer(from, to, balance);
        None
    }

    fn caller_accounting_journal_entry(
        &mut self,
        address: Address,
        old_balance: U256,
        bump_nonce: bool,
    ) {
        let at = self.loaded(&address);
        self.undo.push(Undo::Balance(at, old_balance));
        self.undo.push(Undo::Touched(at));
        if bump_nonce {
            self.undo.push(Undo::NonceBumped(at));
        }
    }

    fn balance_incr(&mut self, address: Address, balance: U256) -> Result<(), ReadError> {
        self.load_account_mut(address)?.incr_balance(balance);
        Ok(())
    }

    fn nonce_bump_journal_entry(&mut self, address: Address) {
        let at = self.loaded(&address);
        self.undo.push(Undo::NonceBumped(at));
    }

    fn load_account(&mut self, address: Address) -> Result<StateLoad<&Account>, ReadError> {
        let (at, is_cold) = self
            .warm_account(address, false)
            .map_err(LoadError::unwrap_db_error)?;
        self.saw_all(at);
        Ok(StateLoad::new(&self.state.accounts.at(at).live, is_cold))
    }

    fn load_account_with_code(
        &mut self,
        address: Address,
    ) -> Result<StateLoad<&Account>, ReadError> {
        let (at, is_cold) = self
            .warm_account(address, false)
            .map_err(LoadError::unwrap_db_error)?;
        self.state.load_code(at)?;
        // revm asks for the code and for emptiness.
        self.saw_emptiness(at);
        Ok(StateLoad::new(&self.state.accounts.at(at).live, is_cold))
    }

    /// EIP-7702: the delegate of an account is warmed with it.
    fn load_account_delegated(
        &mut self,
        address: Address,
    ) -> Result<StateLoad<AccountLoad>, ReadError> {
        let (at, is_cold) = self
            .warm_account(address, false)
            .map_err(LoadError::unwrap_db_error)?;
        self.saw_emptiness(at);
        let mut load = AccountLoad {
            is_delegate_account_cold: None,
            is_empty: self.is_empty(at),
        };
        if self.spec >= SpecId::PRAGUE {
            self.state.load_code(at)?;
        }
        let code = self.state.accounts.at(at).live.info.code.as_ref();
        if let Some(delegate) = code.and_then(Bytecode::eip7702_address) {
            let delegate = self.load_account_with_code(delegate)?;
            load.is_delegate_account_cold = Some(delegate.is_cold);
        }
        Ok(StateLoad::new(load, is_cold))
    }

    #[inline]
    fn load_account_mut_skip_cold_load(
        &mut self,
        address: Address,
        skip: bool,
    ) -> Result<StateLoad<LoadedAccount<'_, 'a>>, LoadError> {
        let (at, is_cold) = self.warm_account(address, skip)?;
        self.saw_all(at);
        Ok(StateLoad::new(LoadedAccount { journal: self, at }, is_cold))
    }

    #[inline]
    fn load_account_mut_optional_code(
        &mut self,
        address: Address,
        load_code: bool,
    ) -> Result<StateLoad<LoadedAccount<'_, 'a>>, ReadError> {
        let (at, is_cold) = self
            .warm_account(address, false)
            .map_err(LoadError::unwrap_db_error)?;
        if load_code {
            self.state.load_code(at)?;
        }
        self.saw_all(at);
        Ok(StateLoad::new(LoadedAccount { journal: self, at }, is_cold))
    }

    #[inline]
    fn load_account_info_skip_cold_load(
        &mut self,
        address: Address,
        load_code: bool,
        skip: bool,
    ) -> Result<AccountInfoLoad<'_>, LoadError> {
        let (at, is_cold) = self.warm_account(address, skip)?;
        if load_code {
            self.state.load_code(at)?;
            // Calls and what asks for code take nothing but emptiness from the rest.
            self.saw_emptiness(at);
        } else {
            self.saw_balance(at);
        }
        let is_empty = self.is_empty(at);
        let info = &self.state.accounts.at(at).live.info;
        Ok(AccountInfoLoad::new(info, is_cold, is_empty))
    }

    fn set_code_with_hash(&mut self, address: Address, code: Bytecode, hash: B256) {
        let at = self.loaded(&address);
        self.set_code_at(at, code, hash);
    }

    #[inline]
    fn checkpoint(&mut self) -> JournalCheckpoint {
        self.depth += 1;
        JournalCheckpoint {
            log_i: self.logs.len(),
            journal_i: self.undo.len(),
            selfdestructed_i: self.destroyed.len(),
        }
    }

    #[inline]
    fn checkpoint_commit(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }

    fn checkpoint_revert(&mut self, checkpoint: JournalCheckpoint) {
        self.slots.forget();
        self.reverted = true;
        self.depth = self.depth.saturating_sub(1);
        self.logs.truncate(checkpoint.log_i);
        self.destroyed.truncate(checkpoint.selfdestructed_i);
        let after_eip161 = self.spec >= SpecId::SPURIOUS_DRAGON;
        let from = checkpoint.journal_i.min(self.undo.len());
        for entry in self.undo.drain(from..).rev() {
            entry.revert(&mut self.state.accounts, &mut self.transient, after_eip161);
        }
    }

    fn create_account_checkpoint(
        &mut self,
        caller: Address,
        address: Address,
        balance: U256,
        spec_id: SpecId,
    ) -> Result<JournalCheckpoint, TransferError> {
        self.slots.forget();
        let at = self.loaded(&address);
        self.saw_nonce(at);
        let live = &self.state.accounts.at(at).live;
        if live.info.code_hash != KECCAK256_EMPTY || live.info.nonce != 0 {
            return Err(TransferError::CreateCollision);
        }
        // EIP-7610. Only an account that exists can have storage.
        if !live.is_loaded_as_not_existing() {
            match self.state.has_storage(address) {
                Ok(false) => {}
                Ok(true) => return Err(TransferError::CreateCollision),
                Err(error) => {
                    self.failed_read = Some(error);
                    return Err(TransferError::CreateCollision);
                }
            }
        }
        let checkpoint = self.checkpoint();
        let live = &mut self.state.accounts.at_mut(at).live;
        let by_this_transaction = live.mark_created_locally();
        self.undo.push(Undo::Created(at, by_this_transaction));
        live.info.code = None;
        if spec_id >= SpecId::SPURIOUS_DRAGON {
            // EIP-161. Taken back with the creation.
            live.info.nonce = 1;
        }
        self.touch(at);
        if balance.is_zero() {
            return Ok(checkpoint);
        }
        let receiver = &mut self.state.accounts.at_mut(at).live.info.balance;
        let Some(sum) = receiver.checked_add(balance) else {
            self.saw_balance(at);
            self.checkpoint_revert(checkpoint);
            return Err(TransferError::OverflowPayment);
        };
        *receiver = sum;
        self.saw_room(at);
        let caller_at = self.loaded(&caller);
        let sender = &mut self.state.accounts.at_mut(caller_at).live.info.balance;
        // The caller's balance was checked.
        *sender = sender.wrapping_sub(balance);
        self.undo.push(Undo::Transfer(caller_at, at, balance));
        self.log_transfer(caller, address, balance);
        Ok(checkpoint)
    }

    #[inline]
    fn depth(&self) -> usize {
        self.depth
    }

    /// Nothing: the changes can be taken back until [`BlockJournal::commit`], so that a transaction can still be refused.
    #[inline]
    fn commit_tx(&mut self) {}

    fn discard_tx(&mut self) {
        self.discard();
    }

    /// Drops the changes of the transaction. The state given is empty: it is in [`BlockJournal::block_state`].
    fn finalize(&mut self) -> EvmState {
        self.discard();
        EvmState::default()
    }
}
