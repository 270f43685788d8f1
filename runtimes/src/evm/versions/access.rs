//! What a committed transaction read and wrote, for access lists (EIP-7928) and for whoever studies conflicts.

use alloy_primitives::{Address, U256};
use revm::bytecode::Bytecode;

use super::{Speculation, Versions, new_code};

/// What a transaction had to do with an account.
#[derive(Debug)]
pub struct Access<'s> {
    /// The account.
    pub address: Address,
    /// Slots it read and did not change.
    pub reads: Vec<U256>,
    /// Slots it changed, with their values after it; without those of an account that it destroyed.
    pub writes: Vec<(U256, U256)>,
    /// It touched the account (EIP-161): the three below may be changes.
    pub touched: bool,
    /// Balance before the transaction and after it.
    pub balance: (U256, U256),
    /// Nonce before the transaction and after it.
    pub nonce: (u64, u64),
    /// Code that it gave to the account.
    pub code: Option<&'s Bytecode>,
    /// It took the code away (EIP-7702, or with the account).
    pub code_removed: bool,
    /// It came to know the balance itself, not only that it was enough.
    pub saw_balance: bool,
    /// It came to know the nonce.
    pub saw_nonce: bool,
    /// It is the transaction's sender, whose nonce is known before.
    pub is_sender: bool,
}

impl Speculation {
    /// What was left for the beneficiary, if that is not among the accounts' balances.
    pub fn fee(&self) -> Option<U256> {
        self.fee
    }
}

impl Versions {
    /// What a transaction had to do with accounts, in the order in which it came across them. To be called in its turn, before
    /// its changes are kept: balances are counted from what is committed.
    pub fn accesses<'s>(
        &'s self,
        speculation: &'s Speculation,
    ) -> impl Iterator<Item = Access<'s>> + 's {
        let accounts = speculation.accounts.boxes().iter().zip(&speculation.cells);
        accounts.map(|(account, id)| {
            let committed = {
                let cell = self.table.cell(*id).lock();
                let info = cell.state.as_ref().and_then(|now| now.info());
                info.map(|info| (info.balance, info.nonce))
                    .unwrap_or_default()
            };
            let lives = account.info().is_some();
            let (mut reads, mut writes) = (Vec::new(), Vec::new());
            for (key, slot) in &account.storage {
                if slot.written && lives {
                    writes.push((*key, slot.present()));
                } else {
                    reads.push(*key);
                }
            }
            reads.sort_unstable();
            writes.sort_unstable();
            let before = account.original.as_ref();
            let balance_before = before.map(|info| info.balance).unwrap_or_default();
            let after = &account.live.info;
            let difference = after.balance.wrapping_sub(balance_before);
            let nonce = if after.nonce == before.map_or(0, |info| info.nonce) {
                committed.1
            } else {
                after.nonce
            };
            let had_code = super::code_hash(before) != alloy_primitives::KECCAK256_EMPTY;
            Access {
                address: account.address,
                reads,
                writes,
                touched: account.touched,
                balance: (committed.0, committed.0.wrapping_add(difference)),
                nonce: (committed.1, nonce),
                code: new_code(account).map(|(_, code)| code),
                code_removed: had_code
                    && super::code_hash(account.info()) == alloy_primitives::KECCAK256_EMPTY,
                saw_balance: account.seen.balance,
                saw_nonce: account.seen.nonce,
                is_sender: account.seen.is_sender,
            }
        })
    }
}
