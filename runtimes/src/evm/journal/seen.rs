//! What a transaction that is executed before its turn comes to know of accounts, so that it can be said whether it would
//! have come to the same result in its turn.
//!
//! Codes and slots are known by their values. A balance and a nonce are known only where something asks for them: a credit
//! needs to know nothing, a debit that the balance is at least so much. Whatever is not named here as harmless is taken to
//! know all of the account.

use alloy_primitives::{Address, KECCAK256_EMPTY, U256};

use super::BlockJournal;
use crate::evm::state::AccountState;

/// Balances from here on are known by their value: below, sums of two do not overflow.
pub(in crate::evm) const LARGE: U256 = U256::from_limbs([0, 0, 0, 1 << 63]);

impl BlockJournal<'_> {
    /// Whether transactions are executed before their turn.
    #[inline]
    pub(in crate::evm) fn is_early(&self) -> bool {
        self.state.early
    }

    /// The account, if what is known of it matters.
    #[inline]
    fn watched(&mut self, at: u32) -> Option<&mut AccountState> {
        self.state.early.then(|| self.state.accounts.at_mut(at))
    }

    /// The account was given out whole.
    #[inline]
    pub(super) fn saw_all(&mut self, at: u32) {
        if self.fees {
            return;
        }
        if let Some(account) = self.watched(at) {
            account.seen.balance = true;
            account.seen.nonce = true;
            account.seen.emptiness = true;
        }
    }

    /// Somebody asked for the balance.
    #[inline]
    pub(super) fn saw_balance(&mut self, at: u32) {
        if let Some(account) = self.watched(at) {
            account.seen.balance = true;
            account.seen.emptiness = true;
        }
    }

    /// Somebody asked for the nonce.
    #[inline]
    pub(super) fn saw_nonce(&mut self, at: u32) {
        if let Some(account) = self.watched(at) {
            account.seen.nonce = true;
        }
    }

    /// Somebody may have asked whether the account is empty.
    #[inline]
    pub(super) fn saw_emptiness(&mut self, at: u32) {
        let Some(account) = self.watched(at) else {
            return;
        };
        let info = &account.live.info;
        // Code is known anyway.
        if info.code_hash != KECCAK256_EMPTY && !info.code_hash.is_zero() {
            return;
        }
        let before = account.original.as_ref().map(|info| info.balance);
        let moved = before.unwrap_or_default() != info.balance;
        // Empty or not by what the transaction itself moved.
        let by_balance = moved && info.nonce == 0;
        account.seen.balance |= by_balance;
        account.seen.nonce |= by_balance;
        account.seen.emptiness = true;
    }

    /// A debit left so much behind.
    #[inline]
    pub(super) fn saw_enough(&mut self, at: u32, left: U256) {
        if let Some(account) = self.watched(at) {
            account.seen.left = account.seen.left.min(left);
        }
    }

    /// An amount was added to a balance.
    #[inline]
    pub(super) fn saw_room(&mut self, at: u32) {
        if let Some(account) = self.watched(at) {
            account.seen.balance |= account.live.info.balance >= LARGE;
        }
    }

    /// What follows moves fees: what it asks for is said by [`BlockJournal::saw_payer`].
    pub(in crate::evm) fn set_fees(&mut self, on: bool) {
        self.fees = on;
    }

    /// The sender's nonce was right and its balance was at least `spending`, before the transaction.
    pub(in crate::evm) fn saw_payer(&mut self, sender: &Address, spending: Option<U256>) {
        let at = self.loaded(sender);
        let account = self.state.accounts.at_mut(at);
        account.seen.nonce = true;
        account.seen.is_sender = true;
        let before = account.original.as_ref().map(|info| info.balance);
        match spending.and_then(|spending| before.unwrap_or_default().checked_sub(spending)) {
            Some(left) => account.seen.left = account.seen.left.min(left),
            None => account.seen.balance = true,
        }
    }

    /// Leaves the beneficiary's fee beside the state.
    pub(in crate::evm) fn set_fee(&mut self, fee: U256) {
        self.fee = Some(fee);
    }

    /// What [`BlockJournal::set_fee`] left.
    pub(in crate::evm) fn take_fee(&mut self) -> Option<U256> {
        self.fee.take()
    }

    /// Whether the transaction has come across the account.
    pub(in crate::evm) fn came_across(&self, address: &Address) -> bool {
        self.state.accounts.find(address).is_some()
    }
}
