//! State as a caller wishes it were.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, U256, keccak256, map::HashMap};
use alloy_rpc_types_eth::state::{AccountOverride, EvmOverrides};
use zvm_runtimes::evm::{ReadError, StateReader};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::state::AccountInfo;

use super::SimulateError;

/// A reader with some accounts and block hashes exchanged.
pub(super) struct OverriddenReader<'a> {
    below: &'a dyn StateReader,
    accounts: HashMap<Address, Overlay>,
    codes: HashMap<B256, Bytecode>,
    block_hashes: BTreeMap<u64, B256>,
}

#[derive(Debug, Default)]
struct Overlay {
    balance: Option<U256>,
    nonce: Option<u64>,
    code_hash: Option<B256>,
    slots: HashMap<U256, U256>,
    /// Slots that are not in `slots` are zero instead of what they were.
    replaces_storage: bool,
}

impl<'a> OverriddenReader<'a> {
    pub(super) fn new(
        below: &'a dyn StateReader,
        overrides: &EvmOverrides,
    ) -> Result<Self, SimulateError> {
        let mut reader = Self {
            below,
            accounts: HashMap::default(),
            codes: HashMap::default(),
            block_hashes: overrides
                .block
                .as_ref()
                .and_then(|block| block.block_hash.clone())
                .unwrap_or_default(),
        };
        for (address, account) in overrides.state.iter().flatten() {
            let overlay = reader.overlay(*address, account)?;
            reader.accounts.insert(*address, overlay);
        }
        Ok(reader)
    }

    fn overlay(
        &mut self,
        address: Address,
        account: &AccountOverride,
    ) -> Result<Overlay, SimulateError> {
        if account.move_precompile_to.is_some() {
            return Err(SimulateError::Request(format!(
                "state override of {address}: movePrecompileToAddress is not supported"
            )));
        }
        let code_hash = match &account.code {
            None => None,
            Some(code) => {
                let hash = keccak256(code);
                let code = Bytecode::new_raw_checked(code.clone()).map_err(|error| {
                    SimulateError::Request(format!("state override of {address}: code: {error}"))
                })?;
                self.codes.insert(hash, code);
                Some(hash)
            }
        };
        let slots = match (&account.state, &account.state_diff) {
            (Some(_), Some(_)) => {
                return Err(SimulateError::Request(format!(
                    "account {address} has both 'state' and 'stateDiff'"
                )));
            }
            (Some(slots), None) | (None, Some(slots)) => slots
                .iter()
                .map(|(slot, value)| ((*slot).into(), (*value).into()))
                .collect(),
            (None, None) => HashMap::default(),
        };
        Ok(Overlay {
            balance: account.balance,
            nonce: account.nonce,
            code_hash,
            slots,
            replaces_storage: account.state.is_some(),
        })
    }
}

impl StateReader for OverriddenReader<'_> {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        let account = self.below.account(address)?;
        let Some(overlay) = self.accounts.get(address) else {
            return Ok(account);
        };
        let mut info = account.unwrap_or_default();
        info.balance = overlay.balance.unwrap_or(info.balance);
        info.nonce = overlay.nonce.unwrap_or(info.nonce);
        if let Some(hash) = overlay.code_hash {
            info.code_hash = hash;
            info.code = self.codes.get(&hash).cloned();
        }
        Ok(Some(info))
    }

    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        match self.accounts.get(address) {
            Some(overlay) => match overlay.slots.get(slot) {
                Some(value) => Ok(*value),
                None if overlay.replaces_storage => Ok(U256::ZERO),
                None => self.below.storage(address, slot),
            },
            None => self.below.storage(address, slot),
        }
    }

    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        match self.codes.get(hash) {
            Some(code) => Ok(code.clone()),
            None => self.below.code(hash),
        }
    }

    fn has_storage(&self, address: &Address) -> Result<bool, ReadError> {
        if let Some(overlay) = self.accounts.get(address) {
            if overlay.slots.values().any(|value| !value.is_zero()) {
                return Ok(true);
            }
            if overlay.replaces_storage {
                return Ok(false);
            }
        }
        self.below.has_storage(address)
    }

    fn block_hash(&self, number: u64) -> Result<B256, ReadError> {
        match self.block_hashes.get(&number) {
            Some(hash) => Ok(*hash),
            None => self.below.block_hash(number),
        }
    }
}
