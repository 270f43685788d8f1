//! The state of a store as the machine reads it.

use std::collections::{BTreeMap, VecDeque};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, U256, map::B256Map};
use parking_lot::{Mutex, RwLock};
use zvm_runtimes::evm::{BlockState, Fork, ReadError, Slot, StateReader};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::state::AccountInfo;
use zvm_storage::{AccountChange, Snapshot, StateDiff, StoreError};

use crate::parallel::Readers;

/// Analysed code by hash, shared by everything that executes on one store.
///
/// Analysis (finding the jump destinations) costs more than most calls, and code under a hash never changes. What is
/// kept is bounded in bytes; the code that came first goes first.
#[derive(Debug)]
pub struct CodeCache {
    capacity: usize,
    kept: RwLock<KeptCodes>,
}

#[derive(Debug, Default)]
struct KeptCodes {
    by_hash: B256Map<Bytecode>,
    /// The hashes in the order in which their codes came.
    order: VecDeque<B256>,
    bytes: usize,
}

impl Default for CodeCache {
    fn default() -> Self {
        Self::with_capacity(Self::DEFAULT_CAPACITY)
    }
}

impl CodeCache {
    /// Bytes kept where nothing else is asked for: 64 MiB, some 2,300 contracts of the largest size.
    pub const DEFAULT_CAPACITY: usize = 64 << 20;

    /// An empty cache that keeps at most `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            capacity: bytes,
            kept: RwLock::default(),
        }
    }

    /// Bytes kept now: the codes, their tables of jump destinations and what finds them.
    pub fn bytes(&self) -> usize {
        self.kept.read().bytes
    }

    fn get(&self, hash: &B256) -> Option<Bytecode> {
        self.kept.read().by_hash.get(hash).cloned()
    }

    /// Keeps a code, unless it alone is larger than the cache.
    pub fn insert(&self, hash: B256, code: Bytecode) {
        let size = kept_size(&code);
        if size > self.capacity {
            return;
        }
        // Freed after the lock is.
        let mut evicted = Vec::new();
        let mut kept = self.kept.write();
        if let Some(replaced) = kept.by_hash.insert(hash, code) {
            kept.bytes -= kept_size(&replaced);
            evicted.push(replaced);
        } else {
            kept.order.push_back(hash);
        }
        kept.bytes += size;
        while kept.bytes > self.capacity
            && let Some(oldest) = kept.order.pop_front()
        {
            if let Some(code) = kept.by_hash.remove(&oldest) {
                kept.bytes -= kept_size(&code);
                evicted.push(code);
            }
        }
        drop(kept);
    }
}

/// Bytes a code takes: itself, a bit a byte for the jump destinations, and the entry with what it points to.
fn kept_size(code: &Bytecode) -> usize {
    const ENTRY: usize = 256;
    let bytes = code.bytes_slice().len();
    bytes + bytes / 8 + ENTRY
}

/// A [`StateReader`] over one snapshot.
pub struct StateView<'a> {
    snapshot: &'a dyn Snapshot,
    codes: &'a CodeCache,
    fork: Fork,
}

impl<'a> StateView<'a> {
    /// Reads `snapshot` as the latest rules do, keeping analysed code in `codes`.
    pub fn new(snapshot: &'a dyn Snapshot, codes: &'a CodeCache) -> Self {
        Self {
            snapshot,
            codes,
            fork: Fork::LATEST,
        }
    }

    /// Reads the state as the rules of `fork` do. It decides what code is a delegation: none before Prague (EIP-7702),
    /// although before London (EIP-3541) code that looks like one could be deployed.
    #[must_use]
    pub fn with_fork(self, fork: Fork) -> Self {
        Self { fork, ..self }
    }

    fn has_delegations(&self) -> bool {
        self.fork >= Fork::Prague
    }

    /// The code with this hash, whose bytes come from `read` if it is not kept.
    pub(crate) fn code_or_else(
        &self,
        hash: &B256,
        read: impl FnOnce() -> Result<Bytes, ReadError>,
    ) -> Result<Bytecode, ReadError> {
        let code = match self.codes.get(hash) {
            Some(code) => code,
            None => {
                // Always as the latest rules see it: the cache is shared by readers of all forks.
                let code = analysed(read()?);
                self.codes.insert(*hash, code.clone());
                code
            }
        };
        if code.is_eip7702() && !self.has_delegations() {
            return Ok(Bytecode::new_legacy(code.original_bytes()));
        }
        Ok(code)
    }
}

/// Stored code under the latest rules. What begins like a delegation and is none was deployed before London (EIP-3541).
fn analysed(bytes: Bytes) -> Bytecode {
    Bytecode::new_raw_checked(bytes.clone()).unwrap_or_else(|_| Bytecode::new_legacy(bytes))
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
        self.code_or_else(hash, || {
            zvm_storage::read_code(self.snapshot, hash)
                .map_err(ReadError::new)?
                .ok_or_else(|| ReadError::new(format!("the store has no code with hash {hash}")))
        })
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

/// Readers of one snapshot for several threads: whatever is written to the store meanwhile, all show the same.
pub struct StoreReaders<'a> {
    forks: Mutex<Vec<Box<dyn Snapshot + Send + 'a>>>,
    codes: &'a CodeCache,
    fork: Fork,
}

impl<'a> StoreReaders<'a> {
    /// Readers for so many threads. `None`: the snapshot is for one thread. See [`StateView::new`] and
    /// [`StateView::with_fork`].
    ///
    /// # Errors
    /// [`StoreError::Lmdb`].
    pub fn of(
        snapshot: &'a dyn Snapshot,
        threads: usize,
        codes: &'a CodeCache,
        fork: Fork,
    ) -> Result<Option<Self>, StoreError> {
        let forks: Result<Option<Vec<_>>, _> = (0..threads)
            .map(|_| snapshot.fork().transpose())
            .collect::<Option<Result<_, _>>>()
            .transpose();
        Ok(forks?.map(|forks| Self {
            forks: Mutex::new(forks),
            codes,
            fork,
        }))
    }
}

impl Readers for StoreReaders<'_> {
    fn open(&self) -> Result<Box<dyn StateReader + '_>, ReadError> {
        let free = self.forks.lock().pop();
        Ok(Box::new(OwnView {
            snapshot: free.ok_or_else(|| ReadError::new("more threads read than were foreseen"))?,
            codes: self.codes,
            fork: self.fork,
        }))
    }
}

/// A [`StateView`] with a snapshot of its own.
struct OwnView<'a> {
    snapshot: Box<dyn Snapshot + Send + 'a>,
    codes: &'a CodeCache,
    fork: Fork,
}

impl OwnView<'_> {
    fn view(&self) -> StateView<'_> {
        StateView::new(&*self.snapshot, self.codes).with_fork(self.fork)
    }
}

impl StateReader for OwnView<'_> {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        self.view().account(address)
    }
    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        self.view().storage(address, slot)
    }
    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        self.view().code(hash)
    }
    fn has_storage(&self, address: &Address) -> Result<bool, ReadError> {
        self.view().has_storage(address)
    }
    fn block_hash(&self, number: u64) -> Result<B256, ReadError> {
        self.view().block_hash(number)
    }
}

/// The changes of a block as the store takes them: only what differs from before the block.
pub fn state_diff(state: &BlockState<'_>) -> StateDiff {
    let mut diff = StateDiff {
        codes: new_codes(state),
        ..StateDiff::default()
    };
    for (address, account) in state.accounts().iter() {
        if !account.touched {
            continue;
        }
        let slots: BTreeMap<U256, U256> = account
            .storage
            .iter()
            .filter(|(_, slot)| slot.written && (account.wiped || slot.present() != slot.original))
            .map(|(key, slot)| (*key, slot.present()))
            .collect();
        if account.info() == account.original.as_ref() && slots.is_empty() && !account.wiped {
            continue;
        }
        if account.info().is_none() && account.original.is_none() {
            continue;
        }
        diff.accounts.insert(
            *address,
            AccountChange {
                info: account.info().map(stored_info),
                wipe_storage: account.wiped,
                slots,
            },
        );
    }
    diff
}

/// Codes of accounts that had others, or none, before the block.
pub(crate) fn new_codes(state: &BlockState<'_>) -> BTreeMap<B256, Bytes> {
    let mut codes = BTreeMap::new();
    for account in state.accounts().values().filter(|account| account.touched) {
        if let Some(info) = account.info()
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
            codes.insert(info.code_hash, code.original_bytes());
        }
    }
    codes
}

/// What has changed since the last call on this state, as a diff on top of the state then; the first time since before
/// the block. Without codes, which do not bear on the root.
pub fn recent_diff(state: &mut BlockState<'_>) -> StateDiff {
    let recent = state.take_recent();
    let mut diff = StateDiff::default();
    for (address, changed) in recent {
        let Some(account) = state.accounts().get(&address) else {
            continue;
        };
        let slots = changed
            .slots
            .iter()
            .map(|slot| {
                let present = account.storage.get(slot).map(Slot::present);
                (*slot, present.unwrap_or_default())
            })
            .collect();
        diff.accounts.insert(
            address,
            AccountChange {
                info: account.info().map(stored_info),
                wipe_storage: changed.wiped,
                slots,
            },
        );
    }
    diff
}

fn stored_info(info: &AccountInfo) -> zvm_storage::AccountInfo {
    zvm_storage::AccountInfo {
        nonce: info.nonce,
        balance: info.balance,
        code_hash: info.code_hash,
    }
}

#[cfg(test)]
mod tests {
    use alloy_primitives::keccak256;
    use zvm_storage::{Batch, MemoryStore, Store};

    use super::*;

    fn store_with(codes: &[Bytes]) -> MemoryStore {
        let store = MemoryStore::new();
        let mut diff = StateDiff::default();
        for code in codes {
            diff.codes.insert(keccak256(code), code.clone());
        }
        let mut batch = Batch::new();
        zvm_storage::apply_state(&*store.snapshot().unwrap(), &diff, &mut batch).unwrap();
        store.commit(&batch).unwrap();
        store
    }

    #[test]
    fn code_that_looks_like_a_delegation_is_one_from_prague_on_only() {
        let code = Bytes::from([&[0xef, 0x01, 0x00][..], &[7; 20]].concat());
        let hash = keccak256(&code);
        let store = store_with(std::slice::from_ref(&code));
        let snapshot = store.snapshot().unwrap();
        let codes = CodeCache::default();
        let read = |view: StateView<'_>| view.code(&hash).unwrap();
        // Whichever fork fills the cache, the others are not misled by it.
        for _ in 0..2 {
            for fork in [Fork::Frontier, Fork::London, Fork::Cancun] {
                let read = read(StateView::new(&*snapshot, &codes).with_fork(fork));
                assert!(read.is_legacy(), "{fork:?}");
                assert_eq!(read.original_bytes(), code);
            }
            assert!(read(StateView::new(&*snapshot, &codes).with_fork(Fork::Prague)).is_eip7702());
            assert!(read(StateView::new(&*snapshot, &codes)).is_eip7702());
        }
    }

    #[test]
    fn code_that_begins_like_a_delegation_and_is_none_can_be_read() {
        let look_alikes = [
            vec![0xef, 0x01],
            [&[0xef, 0x01, 0x00][..], &[7; 19]].concat(),
            [&[0xef, 0x01, 0x00][..], &[7; 21]].concat(),
            [&[0xef, 0x01, 0x01][..], &[7; 20]].concat(),
        ]
        .map(Bytes::from);
        let store = store_with(&look_alikes);
        let snapshot = store.snapshot().unwrap();
        let codes = CodeCache::default();
        for code in look_alikes {
            for fork in [Fork::Frontier, Fork::London, Fork::LATEST] {
                let view = StateView::new(&*snapshot, &codes).with_fork(fork);
                let read = view.code(&keccak256(&code)).unwrap();
                assert!(read.is_legacy(), "{code} {fork:?}");
                assert_eq!(read.original_bytes(), code);
            }
        }
    }

    #[test]
    fn the_code_cache_holds_no_more_bytes_than_it_may_and_gives_up_the_oldest() {
        let cache = CodeCache::with_capacity(100_000);
        let code = |index: u8| Bytecode::new_legacy(vec![index; 20_000].into());
        let hash = B256::repeat_byte;
        for index in 0..50 {
            cache.insert(hash(index), code(index));
            // The same again takes no room.
            cache.insert(hash(index), code(index));
            assert!(cache.bytes() <= 100_000);
            assert!(cache.get(&hash(index)).is_some());
        }
        let kept: Vec<u8> = (0..50)
            .filter(|index| cache.get(&hash(*index)).is_some())
            .collect();
        assert_eq!(kept, [46, 47, 48, 49]);
        cache.insert(hash(99), Bytecode::new_legacy(vec![1; 200_000].into()));
        assert!(cache.get(&hash(99)).is_none());
        assert!(cache.get(&hash(49)).is_some());
    }
}
