//! The state after blocks that are in flight.

use std::sync::{Arc, LazyLock};

use alloy_eips::eip2935::HISTORY_STORAGE_CODE;
use alloy_primitives::{Address, B256, U256, keccak256};
use zvm_runtimes::evm::{ReadError, StateReader};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::state::AccountInfo;
use zvm_storage::{Batch, Layered, Snapshot};

use super::flight::Flight;
use crate::requests::HISTORY_STORAGE;
use crate::view::StateView;

/// Block hashes that the contract of EIP-2935 keeps.
pub(super) const HISTORY_SERVE_WINDOW: u64 = 8_191;

/// Of the contract of EIP-2935.
static HISTORY_CODE_HASH: LazyLock<B256> = LazyLock::new(|| keccak256(&HISTORY_STORAGE_CODE));

/// The state after the blocks in flight, which lie above a durable state, newest first.
///
/// Where a block `defers` its parent's hash, that is in the storage of the contract of EIP-2935 as the system call at the
/// start of the block would put it there. Only who reads it waits for it.
pub(crate) struct FlightView<'a> {
    base: StateView<'a>,
    snapshot: &'a dyn Snapshot,
    /// The block the snapshot shows, with its hash.
    durable: (u64, B256),
    /// The last first.
    flights: Vec<Arc<Flight>>,
    defers: bool,
}

impl<'a> FlightView<'a> {
    /// `flights` are in the order of their numbers; those that the snapshot has are passed over.
    pub(crate) fn new(
        base: StateView<'a>,
        snapshot: &'a dyn Snapshot,
        durable: (u64, B256),
        flights: &[Arc<Flight>],
    ) -> Self {
        let above = |flight: &&Arc<Flight>| flight.number() > durable.0;
        Self {
            base,
            snapshot,
            durable,
            flights: flights.iter().rev().filter(above).cloned().collect(),
            defers: false,
        }
    }

    /// Shows the parent's hash in the state from now on, if all that the system call of EIP-2935 would do is to put it
    /// there: if the contract is the one of the EIP.
    pub(crate) fn defer_parent_hash(&mut self) -> Result<bool, ReadError> {
        let contract = self.account(&HISTORY_STORAGE)?;
        self.defers = contract.is_some_and(|contract| contract.code_hash == *HISTORY_CODE_HASH);
        Ok(self.defers)
    }

    /// The hash of a block in flight or the durable head; `None` for others.
    fn recent_hash(&self, number: u64) -> Option<Result<B256, ReadError>> {
        if number == self.durable.0 {
            return Some(Ok(self.durable.1));
        }
        let flight = self
            .flights
            .iter()
            .find(|flight| flight.number() == number)?;
        Some(flight.hash().map_err(ReadError::new))
    }

    /// The slot of the contract of EIP-2935, if a block that defers its parent's hash has written it.
    fn history_slot(&self, slot: &U256) -> Option<Result<B256, ReadError>> {
        let parent = self
            .flights
            .first()
            .map_or(self.durable.0, |last| last.number());
        let own = self.defers.then_some(parent);
        let before = self.flights.iter().filter(|flight| flight.defers);
        own.into_iter()
            .chain(before.map(|flight| flight.number() - 1))
            .find(|number| *slot == U256::from(number % HISTORY_SERVE_WINDOW))
            .and_then(|number| self.recent_hash(number))
    }

    fn bytes_of(&self, hash: &B256) -> Option<&alloy_primitives::Bytes> {
        self.flights
            .iter()
            .find_map(|flight| flight.changes.codes.get(hash))
    }
}

impl StateReader for FlightView<'_> {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        for flight in &self.flights {
            if let Some(change) = flight.changes.accounts.get(address) {
                return Ok(change.info.map(|info| AccountInfo {
                    balance: info.balance,
                    nonce: info.nonce,
                    code_hash: info.code_hash,
                    code: None,
                    ..AccountInfo::default()
                }));
            }
        }
        self.base.account(address)
    }

    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        if *address == HISTORY_STORAGE
            && let Some(hash) = self.history_slot(slot)
        {
            return hash.map(|hash| U256::from_be_bytes(hash.0));
        }
        for flight in &self.flights {
            if let Some(change) = flight.changes.accounts.get(address) {
                if let Some(value) = change.slots.get(slot) {
                    return Ok(*value);
                }
                if change.wipe_storage || change.info.is_none() {
                    return Ok(U256::ZERO);
                }
            }
        }
        self.base.storage(address, slot)
    }

    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        match self.bytes_of(hash) {
            Some(bytes) => self.base.code_or_else(hash, || Ok(bytes.clone())),
            None => self.base.code(hash),
        }
    }

    fn has_storage(&self, address: &Address) -> Result<bool, ReadError> {
        let changes = || {
            let all = self.flights.iter().rev();
            all.filter_map(|flight| flight.changes.accounts.get_key_value(address))
        };
        if changes().next().is_none() {
            return self.base.has_storage(address);
        }
        // Asked for where a contract is created on an account in flight: rare enough to work out its storage root.
        let mut batch = Batch::new();
        for (address, change) in changes() {
            let mut diff = zvm_storage::StateDiff::default();
            diff.accounts.insert(*address, change.clone());
            let mut later = Batch::new();
            zvm_storage::apply_state(&Layered::new(self.snapshot, &batch), &diff, &mut later)
                .map_err(ReadError::new)?;
            batch.append(later);
        }
        zvm_storage::has_storage(&Layered::new(self.snapshot, &batch), address)
            .map_err(ReadError::new)
    }

    fn block_hash(&self, number: u64) -> Result<B256, ReadError> {
        match self.recent_hash(number) {
            Some(hash) => hash,
            None => self.base.block_hash(number),
        }
    }
}
