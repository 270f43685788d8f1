//! What a transaction did, entry by entry, so that it can be taken back.
//!
//! An entry names accounts by their number, so neither taking back nor committing looks them up again.

use alloy_primitives::map::HashMap;
use alloy_primitives::{B256, U256};
use revm::bytecode::Bytecode;
use revm::context_interface::journaled_state::entry::SelfdestructionRevertStatus;
use revm::primitives::PRECOMPILE3;

use crate::evm::state::Accounts;

/// Transient storage (EIP-1153) by the account's number and the key; zero is not in it.
pub(super) type Transient = HashMap<(u32, U256), U256>;

/// One change, as what it was before.
#[derive(Debug, Clone)]
pub(super) enum Undo {
    /// The account was cold.
    Warmed(u32),
    /// The slot was cold.
    SlotWarmed(u32, U256),
    /// The account was not touched (EIP-161).
    Touched(u32),
    /// The account's balance.
    Balance(u32, U256),
    /// An amount went from the first to the second.
    Transfer(u32, u32, U256),
    /// The nonce was one less.
    NonceBumped(u32),
    /// The account's nonce.
    Nonce(u32, u64),
    /// The account was not created; the block had not created it either.
    Created(u32, bool),
    /// The first destroyed itself in favour of the second, which got an amount.
    Destroyed(u32, u32, SelfdestructionRevertStatus, U256),
    /// The slot's value.
    Slot(u32, U256, U256),
    /// The transient slot's value.
    Transient(u32, U256, U256),
    /// The account's code.
    Code(u32, B256, Option<Bytecode>),
}

impl Undo {
    /// Takes the change back. After EIP-161 the touch of one account stays: of RIPEMD-160, on which the fork of
    /// November 2016 happened to depend.
    pub(super) fn revert(
        self,
        accounts: &mut Accounts,
        transient: &mut Transient,
        after_eip161: bool,
    ) {
        match self {
            Self::Warmed(at) => accounts.at_mut(at).live.mark_cold(),
            Self::SlotWarmed(at, key) => {
                if let Some(slot) = accounts.at_mut(at).storage.get_mut(&key) {
                    slot.live.mark_cold();
                }
            }
            Self::Touched(at) => {
                let account = accounts.at_mut(at);
                if !(after_eip161 && account.address == PRECOMPILE3) {
                    account.live.unmark_touch();
                }
            }
            Self::Balance(at, balance) => accounts.at_mut(at).live.info.balance = balance,
            Self::Transfer(from, to, amount) => {
                let from = &mut accounts.at_mut(from).live.info.balance;
                *from = from.wrapping_add(amount);
                let to = &mut accounts.at_mut(to).live.info.balance;
                *to = to.wrapping_sub(amount);
            }
            Self::NonceBumped(at) => {
                let nonce = &mut accounts.at_mut(at).live.info.nonce;
                *nonce = nonce.saturating_sub(1);
            }
            Self::Nonce(at, nonce) => accounts.at_mut(at).live.info.nonce = nonce,
            Self::Created(at, by_this_transaction) => {
                let account = &mut accounts.at_mut(at).live;
                account.unmark_created_locally();
                if by_this_transaction {
                    account.unmark_created();
                }
                // Only an account whose nonce is zero can be created.
                account.info.nonce = 0;
            }
            Self::Destroyed(at, target, status, amount) => {
                let account = &mut accounts.at_mut(at).live;
                match status {
                    SelfdestructionRevertStatus::GloballySelfdestroyed => {
                        account.unmark_selfdestruct();
                        account.unmark_selfdestructed_locally();
                    }
                    SelfdestructionRevertStatus::LocallySelfdestroyed => {
                        account.unmark_selfdestructed_locally();
                    }
                    SelfdestructionRevertStatus::RepeatedSelfdestruction => {}
                }
                account.info.balance = account.info.balance.wrapping_add(amount);
                if at != target {
                    let target = &mut accounts.at_mut(target).live.info.balance;
                    *target = target.wrapping_sub(amount);
                }
            }
            Self::Slot(at, key, value) => {
                if let Some(slot) = accounts.at_mut(at).storage.get_mut(&key) {
                    slot.live.present_value = value;
                }
            }
            Self::Transient(at, key, value) => {
                if value.is_zero() {
                    transient.remove(&(at, key));
                } else {
                    transient.insert((at, key), value);
                }
            }
            Self::Code(at, hash, code) => {
                let info = &mut accounts.at_mut(at).live.info;
                info.code_hash = hash;
                info.code = code;
            }
        }
    }
}
