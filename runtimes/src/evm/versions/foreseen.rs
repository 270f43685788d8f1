//! What the access list of a block (EIP-7928) says its transactions do: the state before each of them is known before any
//! of them is executed.

use alloy_primitives::map::{AddressMap, HashMap};
use alloy_primitives::{B256, KECCAK256_EMPTY, U256};
use revm::state::AccountInfo;

/// The changes of an account, by transaction. Each list is in ascending order of the transactions.
#[derive(Debug, Clone, Default)]
pub struct ForeseenAccount {
    /// Balance after a transaction.
    pub balances: Vec<(u32, U256)>,
    /// Nonce after a transaction.
    pub nonces: Vec<(u32, u64)>,
    /// Hash of the code after a transaction.
    pub codes: Vec<(u32, B256)>,
    /// Value of a slot after a transaction.
    pub slots: HashMap<U256, Vec<(u32, U256)>>,
}

/// The changes of a block, by account.
pub type Foreseen = AddressMap<ForeseenAccount>;

/// The last change by a transaction before `index`.
fn before<T: Copy>(changes: &[(u32, T)], index: u32) -> Option<T> {
    let next = changes.partition_point(|(writer, _)| *writer < index);
    let last = next.checked_sub(1)?;
    changes.get(last).map(|(_, value)| *value)
}

impl ForeseenAccount {
    /// The account before a transaction; `committed` is what it was before some transaction that is not later.
    pub(super) fn account(
        &self,
        committed: Option<AccountInfo>,
        index: u32,
    ) -> Option<AccountInfo> {
        let changes = (
            before(&self.balances, index),
            before(&self.nonces, index),
            before(&self.codes, index),
        );
        if let (None, None, None) = changes {
            return committed;
        }
        let mut info = committed.unwrap_or_default();
        info.code = None;
        if let Some(balance) = changes.0 {
            info.balance = balance;
        }
        if let Some(nonce) = changes.1 {
            info.nonce = nonce;
        }
        if let Some(hash) = changes.2 {
            info.code_hash = hash;
        }
        let empty = info.balance.is_zero() && info.nonce == 0 && info.code_hash == KECCAK256_EMPTY;
        (!empty).then_some(info)
    }

    /// The slot before a transaction, if one before it changed it.
    pub(super) fn slot(&self, key: &U256, index: u32) -> Option<U256> {
        before(self.slots.get(key)?, index)
    }
}
