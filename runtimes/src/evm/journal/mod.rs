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

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, Log, LogData, U256};
use revm::bytecode::Bytecode;
use revm::context::journal::JournalEntry;
use revm::context::journal::warm_addresses::WarmAddresses;
use revm::context_interface::context::{SStoreResult, StateLoad};
use revm::context_interface::journaled_state::JournalLoadError;
use revm::primitives::eip7708::{ETH_TRANSFER_LOG_ADDRESS, ETH_TRANSFER_LOG_TOPIC};
use revm::primitives::hardfork::SpecId;
use revm::state::EvmState;

use super::machine::Context;
use super::slots::WarmSlots;
use super::state::{BlockState, ReadError, Slot};
use undo::{Transient, Undo};

mod handle;
mod interface;
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

    /// See [`revm::state::Account::state_clear_aware_is_empty`].
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
