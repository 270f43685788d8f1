//! The end of a transaction: its changes become the block's, or go.

use alloy_primitives::{Address, U256};
use revm::primitives::{PRECOMPILE3, hardfork::SpecId};

use super::BlockJournal;
use super::undo::Undo;
use crate::evm::state::ReadError;

impl BlockJournal<'_> {
    /// Keeps the changes of the finished transaction.
    ///
    /// They stand in the accounts already: what is left is to end what has ended, and to note what was touched and written.
    pub fn commit(&mut self) {
        let undo = core::mem::take(&mut self.undo);
        for entry in &undo {
            match *entry {
                Undo::Touched(at) => self.settle(at),
                Undo::Code(at, ..) => self.state.keep_code(at),
                _ => {}
            }
        }
        if core::mem::take(&mut self.reverted)
            // Its touch is not taken back, so no entry is left of it.
            && let Some(at) = self.state.accounts.find(&PRECOMPILE3)
        {
            self.settle(at);
        }
        for entry in &undo {
            if let Undo::Slot(at, key, _) = *entry {
                self.state.settle_slot(at, key);
            }
        }
        self.undo = undo;
        self.undo.clear();
        self.end();
    }

    /// Ends what a touched account was in the transaction: its account is then as if just loaded.
    fn settle(&mut self, at: u32) {
        let account = self.state.accounts.at_mut(at);
        let live = &mut account.live;
        if !live.is_touched() {
            return;
        }
        live.unmark_touch();
        let (empty, destroyed) = (live.is_empty(), live.is_selfdestructed());
        let mut created = live.is_created();
        live.unmark_created();
        live.unmark_created_locally();
        live.unmark_selfdestruct();
        live.unmark_selfdestructed_locally();
        if empty && !destroyed && !created && self.spec < SpecId::SPURIOUS_DRAGON {
            // Before EIP-161 a touched empty account exists: it comes to exist, or stays as it is.
            if !live.is_loaded_as_not_existing() {
                return;
            }
            created = true;
        }
        let ends = account.conclude(created, destroyed);
        if ends && !self.state.early {
            account.forget_slots();
        }
        self.state.note_recent(at, ends || created);
    }

    /// Drops the changes of the transaction.
    pub fn discard(&mut self) {
        let after_eip161 = false;
        for entry in self.undo.drain(..).rev() {
            match entry {
                // The next transaction finds all of them cold.
                Undo::Warmed(_) | Undo::SlotWarmed(..) | Undo::Transient(..) => {}
                // Every touch is taken back here.
                entry => entry.revert(&mut self.state.accounts, &mut self.transient, after_eip161),
            }
        }
        if core::mem::take(&mut self.reverted)
            && let Some(at) = self.state.accounts.find(&PRECOMPILE3)
        {
            self.state.accounts.at_mut(at).live.unmark_touch();
        }
        self.failed_read = None;
        self.end();
    }

    /// Makes the journal ready for the next transaction.
    fn end(&mut self) {
        self.slots.forget();
        self.transient.clear();
        self.logs.clear();
        self.destroyed.clear();
        self.shown.clear();
        self.depth = 0;
        self.warm.clear_coinbase_and_access_list();
        self.state.transaction.increment();
    }

    /// The error of a read that had to be answered without one.
    pub fn take_failed_read(&mut self) -> Option<ReadError> {
        self.failed_read.take()
    }

    /// What the transaction has warmed so far and not been made to forget: addresses with their slots and values.
    pub fn warm(&self) -> impl Iterator<Item = (Address, Vec<(U256, U256)>)> {
        let now = self.state.transaction;
        self.state
            .accounts
            .iter()
            .filter(move |(_, account)| !account.live.is_cold_transaction_id(now))
            .map(move |(address, account)| {
                let slots = account.storage.iter();
                let warm = slots.filter(|(_, slot)| !slot.live.is_cold_transaction_id(now));
                let mut warm: Vec<_> = warm.map(|(key, slot)| (*key, slot.present())).collect();
                warm.sort_unstable();
                (*address, warm)
            })
    }

    /// How many changes of the transaction could be taken back now.
    pub fn changes(&self) -> usize {
        self.undo.len()
    }
}
