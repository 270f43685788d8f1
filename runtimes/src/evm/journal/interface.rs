//! The journal as revm's handler, interpreter and inspectors use it.

use alloy_primitives::map::{AddressMap, AddressSet, HashSet};
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, Log, U256};
use revm::bytecode::Bytecode;
use revm::context::journal::JournalEntry;
use revm::context::journal::warm_addresses::WarmAddresses;
use revm::context_interface::context::{SStoreResult, SelfDestructResult, StateLoad};
use revm::context_interface::journaled_state::account::JournaledAccountTr as _;
use revm::context_interface::journaled_state::entry::SelfdestructionRevertStatus;
use revm::context_interface::journaled_state::{
    AccountInfoLoad, AccountLoad, JournalCheckpoint, JournalTr, TransferError,
};
use revm::inspector::JournalExt;
use revm::primitives::hardfork::SpecId;
use revm::state::{Account, EvmState};

use super::undo::{Transient, Undo};
use super::{BlockJournal, LoadError, LoadedAccount};
use crate::evm::slots::WarmSlots;
use crate::evm::state::{BlockState, ReadError};

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
