//! The access list of a block (EIP-7928), made from what its transactions read and changed.

use std::collections::BTreeMap;

use alloy_eip7928::{
    AccountChanges, BalanceChange, BlockAccessIndex, BlockAccessList, CodeChange, NonceChange,
    SlotChanges, StorageChange,
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use zvm_runtimes::evm::{Foreseen, ForeseenAccount};
use zvm_runtimes::revm::bytecode::Bytecode;

use super::{Changes, Stream};

/// Collects the access list of the transactions of a block. Index 1 is the first transaction.
///
/// What system calls before the first transaction and withdrawals and requests after the last do is not in it.
#[derive(Debug, Default)]
pub struct AccessListBuilder {
    accounts: BTreeMap<Address, Collected>,
    /// Transactions included so far.
    included: u64,
}

#[derive(Debug, Default)]
struct Collected {
    slots: BTreeMap<U256, Vec<(u64, U256)>>,
    balances: Vec<(u64, U256)>,
    nonces: Vec<(u64, u64)>,
    codes: Vec<(u64, Bytes)>,
}

impl AccessListBuilder {
    /// The list: accounts by address, slots by key, changes by transaction.
    pub fn finish(self) -> BlockAccessList {
        let accounts = self.accounts.into_iter().map(|(address, collected)| {
            let mut changes = AccountChanges::new(address);
            for (slot, values) in collected.slots {
                if values.is_empty() {
                    changes.storage_reads.push(slot);
                    continue;
                }
                let values = values.into_iter();
                let values = values
                    .map(|(index, value)| StorageChange::new(BlockAccessIndex::new(index), value));
                let slot = SlotChanges::new(slot, values.collect());
                changes.storage_changes.push(slot);
            }
            let balances = collected.balances.into_iter();
            changes.balance_changes.extend(
                balances.map(|(index, balance)| {
                    BalanceChange::new(BlockAccessIndex::new(index), balance)
                }),
            );
            let nonces = collected.nonces.into_iter();
            changes.nonce_changes.extend(
                nonces.map(|(index, nonce)| NonceChange::new(BlockAccessIndex::new(index), nonce)),
            );
            let codes = collected.codes.into_iter();
            changes.code_changes.extend(
                codes.map(|(index, code)| CodeChange::new(BlockAccessIndex::new(index), code)),
            );
            changes
        });
        accounts.collect()
    }
}

/// An access list as the executor follows it: what each transaction finds, and the codes it names.
///
/// Transactions are counted from the one in place `first` of the block. Changes before it are in the state already, those after
/// the last concern no transaction.
pub(super) fn foreseen(list: &[AccountChanges], first: usize) -> (Foreseen, Vec<(B256, Bytecode)>) {
    let mut codes = Vec::new();
    let before = 1 + first as u64;
    let place = |index: BlockAccessIndex| u32::try_from(index.get().checked_sub(before)?).ok();
    let mut accounts = Foreseen::default();
    for changes in list {
        let mut account = ForeseenAccount::default();
        for change in &changes.balance_changes {
            let at = place(change.block_access_index);
            account
                .balances
                .extend(at.map(|at| (at, change.post_balance)));
        }
        for change in &changes.nonce_changes {
            let at = place(change.block_access_index);
            account.nonces.extend(at.map(|at| (at, change.new_nonce)));
        }
        for change in &changes.code_changes {
            let hash = keccak256(&change.new_code);
            let code = change.new_code.clone();
            let code = Bytecode::new_raw_checked(code.clone())
                .unwrap_or_else(|_| Bytecode::new_legacy(code));
            codes.push((hash, code));
            let at = place(change.block_access_index);
            account.codes.extend(at.map(|at| (at, hash)));
        }
        for slot in &changes.storage_changes {
            let values = slot
                .changes
                .iter()
                .filter_map(|change| Some((place(change.block_access_index)?, change.new_value)));
            let mut values: Vec<_> = values.collect();
            values.sort_unstable_by_key(|(at, _)| *at);
            account.slots.insert(slot.slot, values);
        }
        // The list comes from others: its order is not relied on.
        account.balances.sort_unstable_by_key(|(at, _)| *at);
        account.nonces.sort_unstable_by_key(|(at, _)| *at);
        account.codes.sort_unstable_by_key(|(at, _)| *at);
        accounts.insert(changes.address, account);
    }
    (accounts, codes)
}

impl Stream for AccessListBuilder {
    fn wants_accesses(&self) -> bool {
        true
    }

    fn accesses(&mut self, _: usize, changes: Changes<'_>) {
        self.included += 1;
        let index = self.included;
        for access in changes.accounts {
            let account = self.accounts.entry(access.address).or_default();
            for key in access.reads {
                account.slots.entry(key).or_default();
            }
            for (key, value) in access.writes {
                account.slots.entry(key).or_default().push((index, value));
            }
            if !access.touched {
                continue;
            }
            if access.balance.0 != access.balance.1 {
                account.balances.push((index, access.balance.1));
            }
            if access.nonce.0 != access.nonce.1 {
                account.nonces.push((index, access.nonce.1));
            }
            if let Some(code) = access.code {
                account.codes.push((index, code.original_bytes()));
            } else if access.code_removed {
                account.codes.push((index, Bytes::new()));
            }
        }
        if let Some((beneficiary, before, after)) = changes.fee {
            let account = self.accounts.entry(beneficiary).or_default();
            if before != after {
                account.balances.push((index, after));
            }
        }
    }
}
