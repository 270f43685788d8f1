//! The state of a store as the machine reads it.

use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use parking_lot::RwLock;
use zvm_runtimes::evm::{BlockState, ReadError, StateReader};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::state::AccountInfo;
use zvm_storage::{AccountChange, Snapshot, StateDiff};

/// Analysed code by hash, shared by everything that executes on one store.
///
/// Analysis (finding the jump destinations) costs more than most calls, and code under a hash never changes.
#[derive(Debug, Default)]
pub struct CodeCache {
    codes: RwLock<alloy_primitives::map::HashMap<B256, Bytecode>>,
}

impl CodeCache {
    /// Codes kept. When it is full the cache starts afresh: refilling costs one read and one analysis a code.
    pub const CAPACITY: usize = 16_384;

    fn get(&self, hash: &B256) -> Option<Bytecode> {
        self.codes.read().get(hash).cloned()
    }

    /// Keeps a code.
    pub fn insert(&self, hash: B256, code: Bytecode) {
        let mut codes = self.codes.write();
        if codes.len() >= Self::CAPACITY {
            codes.clear();
        }
        codes.insert(hash, code);
    }
}

/// A [`StateReader`] over one snapshot.
pub struct StateView<'a> {
    snapshot: &'a dyn Snapshot,
    codes: &'a CodeCache,
}

impl<'a> StateView<'a> {
    /// Reads `snapshot`, keeping analysed code in `codes`.
    pub fn new(snapshot: &'a dyn Snapshot, codes: &'a CodeCache) -> Self {
        Self { snapshot, codes }
    }
}

impl StateReader for StateView<'_> {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        let account = zvm_storage::read_account(self.snapshot, address).map_err(ReadError::new)?;
        Ok(account.map(|account| AccountInfo {
            balance: account.balance,
            nonce: account.nonce,
            code_hash: account.code_hash,
            code: None,
            ..AccountInfo::default()
        }))
    }

    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        zvm_storage::read_slot(self.snapshot, address, slot).map_err(ReadError::new)
    }

    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        if *hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        if let Some(code) = self.codes.get(hash) {
            return Ok(code);
        }
        let bytes = zvm_storage::read_code(self.snapshot, hash)
            .map_err(ReadError::new)?
            .ok_or_else(|| ReadError::new(format!("the store has no code with hash {hash}")))?;
        let code = Bytecode::new_raw_checked(bytes)
            .map_err(|error| ReadError::new(format!("code {hash}: {error}")))?;
        self.codes.insert(*hash, code.clone());
        Ok(code)
    }

    fn has_storage(&self, address: &Address) -> Result<bool, ReadError> {
        zvm_storage::has_storage(self.snapshot, address).map_err(ReadError::new)
    }

    fn block_hash(&self, number: u64) -> Result<B256, ReadError> {
        Ok(zvm_storage::block_hash(self.snapshot, number)
            .map_err(ReadError::new)?
            .unwrap_or_default())
    }
}

/// The changes of a block as the store takes them: only what differs from before the block.
pub fn state_diff(state: &BlockState<'_>) -> StateDiff {
    let mut diff = StateDiff::default();
    for (address, account) in state.accounts() {
        if !account.touched {
            continue;
        }
        let slots: std::collections::BTreeMap<U256, U256> = account
            .storage
            .iter()
            .filter(|(_, slot)| slot.written && (account.wiped || slot.present != slot.original))
            .map(|(key, slot)| (*key, slot.present))
            .collect();
        if account.info == account.original && slots.is_empty() && !account.wiped {
            continue;
        }
        if account.info.is_none() && account.original.is_none() {
            continue;
        }
        if let Some(info) = &account.info
            && info.code_hash != KECCAK256_EMPTY
            && account
                .original
                .as_ref()
                .is_none_or(|original| original.code_hash != info.code_hash)
            && let Some(code) = info
                .code
                .as_ref()
                .or_else(|| state.codes().get(&info.code_hash))
        {
            diff.codes.insert(info.code_hash, code.original_bytes());
        }
        diff.accounts.insert(
            *address,
            AccountChange {
                info: account.info.as_ref().map(|info| zvm_storage::AccountInfo {
                    nonce: info.nonce,
                    balance: info.balance,
                    code_hash: info.code_hash,
                }),
                wipe_storage: account.wiped,
                slots,
            },
        );
    }
    diff
}
