//! An account that was loaded, to be changed: what revm's handler works with outside of frames.

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use revm::bytecode::Bytecode;
use revm::context_interface::ErasedError;
use revm::context_interface::context::{SStoreResult, StateLoad};
use revm::context_interface::journaled_state::JournalLoadErasedError;
use revm::context_interface::journaled_state::account::JournaledAccountTr;
use revm::state::{Account, EvmStorageSlot};

use super::BlockJournal;
use super::undo::Undo;

/// An account of the journal.
#[derive(Debug)]
pub struct LoadedAccount<'j, 'a> {
    pub(super) journal: &'j mut BlockJournal<'a>,
    pub(super) at: u32,
}

impl LoadedAccount<'_, '_> {
    fn live(&mut self) -> &mut Account {
        &mut self.journal.state.accounts.at_mut(self.at).live
    }
}

impl JournaledAccountTr for LoadedAccount<'_, '_> {
    fn account(&self) -> &Account {
        &self.journal.state.accounts.at(self.at).live
    }

    fn sload(
        &mut self,
        key: U256,
        skip_cold_load: bool,
    ) -> Result<StateLoad<&mut EvmStorageSlot>, JournalLoadErasedError> {
        // The slot is given away in place.
        self.journal.slots.forget();
        let is_cold = self
            .journal
            .warm_slot(self.at, key, skip_cold_load)
            .map_err(|error| error.map(ErasedError::new))?
            .1;
        let slot = self
            .journal
            .state
            .accounts
            .at_mut(self.at)
            .storage
            .get_mut(&key)
            .expect("the slot was just loaded");
        Ok(StateLoad::new(&mut slot.live, is_cold))
    }

    fn sstore(
        &mut self,
        key: U256,
        new: U256,
        skip_cold_load: bool,
    ) -> Result<StateLoad<SStoreResult>, JournalLoadErasedError> {
        self.journal
            .store(self.at, key, new, skip_cold_load)
            .map_err(|error| error.map(ErasedError::new))
    }

    fn load_code(&mut self) -> Result<&Bytecode, JournalLoadErasedError> {
        self.journal
            .state
            .load_code(self.at)
            .map_err(|error| JournalLoadErasedError::DBError(ErasedError::new(error)))?;
        let code = &self.journal.state.accounts.at(self.at).live.info.code;
        Ok(code.as_ref().expect("the code was just loaded"))
    }

    #[inline]
    fn balance(&self) -> &U256 {
        &self.account().info.balance
    }

    #[inline]
    fn nonce(&self) -> u64 {
        self.account().info.nonce
    }

    #[inline]
    fn code_hash(&self) -> &B256 {
        &self.account().info.code_hash
    }

    #[inline]
    fn code(&self) -> Option<&Bytecode> {
        self.account().info.code.as_ref()
    }

    #[inline]
    fn touch(&mut self) {
        self.journal.touch(self.at);
    }

    fn unsafe_mark_cold(&mut self) {
        self.live().mark_cold();
    }

    #[inline]
    fn set_balance(&mut self, balance: U256) {
        self.touch();
        let old = core::mem::replace(&mut self.live().info.balance, balance);
        if old != balance {
            self.journal.undo.push(Undo::Balance(self.at, old));
        }
        self.journal.saw_room(self.at);
    }

    #[inline]
    fn incr_balance(&mut self, balance: U256) -> bool {
        self.touch();
        let sum = self.balance().checked_add(balance);
        if let Some(sum) = sum {
            self.set_balance(sum);
        }
        sum.is_some()
    }

    #[inline]
    fn decr_balance(&mut self, balance: U256) -> bool {
        self.touch();
        let rest = self.balance().checked_sub(balance);
        if let Some(rest) = rest {
            self.set_balance(rest);
        }
        rest.is_some()
    }

    #[inline]
    fn bump_nonce(&mut self) -> bool {
        self.touch();
        let Some(nonce) = self.nonce().checked_add(1) else {
            return false;
        };
        self.live().info.nonce = nonce;
        self.journal.undo.push(Undo::NonceBumped(self.at));
        true
    }

    fn set_nonce(&mut self, nonce: u64) {
        self.touch();
        let old = core::mem::replace(&mut self.live().info.nonce, nonce);
        self.journal.undo.push(Undo::Nonce(self.at, old));
    }

    fn unsafe_set_nonce(&mut self, nonce: u64) {
        self.live().info.nonce = nonce;
    }

    fn set_code(&mut self, hash: B256, code: Bytecode) {
        self.journal.set_code_at(self.at, code, hash);
    }

    fn set_code_and_hash_slow(&mut self, code: Bytecode) {
        let hash = code.hash_slow();
        self.set_code(hash, code);
    }

    /// EIP-7702: the zero address takes the delegation back.
    fn delegate(&mut self, address: Address) {
        let (code, hash) = if address.is_zero() {
            (Bytecode::default(), KECCAK256_EMPTY)
        } else {
            let code = Bytecode::new_eip7702(address);
            let hash = code.hash_slow();
            (code, hash)
        };
        self.set_code(hash, code);
        self.bump_nonce();
    }
}
