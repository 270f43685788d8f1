//! Multi-version memory: the state of a block while its transactions are executed before their turn.
//!
//! There is one cell an account. It holds the account as the committed transactions left it, read from below once, and the
//! differences and slots of the transactions that have changed it and are not committed. What else those did is not copied: it lies
//! in the [`Speculation`] of the transaction, the accounts it saw and changed, in a ring of as many as may run ahead. A reader of
//! transaction `i` takes the committed account and adds what the finished transactions before `i` did.
//!
//! What a reader sees is a guess. A transaction is decided about once, in its turn, when everything before it is committed:
//! [`Versions::check`] compares, by value and under full keys, everything it read with what is committed. So nothing that
//! readers do can be wrong in a way that shows, and a transaction that read old values which are the right ones stands.
//!
//! Balances are changed by differences: [`AccountState`] of a speculation says what the transaction had to know of it (the
//! value, or that it was at least so much) and the change is the difference of after and before. The beneficiary's fee is
//! kept beside ([`Speculation`]), so paying it touches no account that others read.

use std::sync::atomic::{AtomicU32, Ordering};

use alloy_primitives::map::B256Map;
use alloy_primitives::{Address, B256, KECCAK256_EMPTY, U256};
use parking_lot::{Mutex, MutexGuard, RwLock};
use revm::bytecode::Bytecode;
use revm::context::result::ExecutionResult;
use revm::state::{AccountInfo, TransactionId};

use super::journal::LARGE;
use super::machine::MachineError;
use super::state::{AccountState, Accounts, BlockState, ReadError, Slot, StateReader};
use table::{Cell, Pending, PendingList, Table};

mod access;
mod foreseen;
mod reader;
mod table;
#[cfg(test)]
mod tests;

pub use access::Access;
pub use foreseen::{Foreseen, ForeseenAccount};
pub use reader::VersionReader;

/// No transaction.
const NONE: u32 = u32::MAX;

/// A transaction that was executed before its turn: its result, all it saw and all it changed.
#[derive(Debug)]
pub struct Speculation {
    /// Whose, while others may read it.
    index: u32,
    /// The accounts it came across: as it found them, as it left them, and what it came to know of them.
    pub(super) accounts: Accounts,
    /// The cells of these accounts.
    cells: Vec<u32>,
    /// Left for the beneficiary.
    pub(super) fee: Option<U256>,
    /// Accounts that were asked for storage (EIP-7610), with the answers.
    probes: Vec<(u32, bool)>,
    /// What came of it; `None` before it was executed.
    pub result: Option<Result<ExecutionResult, MachineError>>,
}

impl Default for Speculation {
    fn default() -> Self {
        Self {
            index: NONE,
            accounts: Accounts::default(),
            cells: Vec::new(),
            fee: None,
            probes: Vec::new(),
            result: None,
        }
    }
}

/// A transaction has read what is not so in its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conflict {
    /// The last committed transaction that changed the account, if one of this block did.
    pub with: Option<u32>,
}

/// The state of a block whose transactions are executed before their turn.
#[derive(Debug)]
pub struct Versions {
    table: Table,
    ring: Vec<Mutex<Speculation>>,
    codes: RwLock<Codes>,
    hashes: Mutex<alloy_primitives::map::HashMap<u64, B256>>,
    beneficiary: Address,
    beneficiary_cell: AtomicU32,
    foreseen: Foreseen,
}

#[derive(Debug, Default)]
struct Codes {
    by_hash: B256Map<Bytecode>,
    /// Those that transactions deployed which are not committed; some never will be.
    uncommitted: B256Map<Bytecode>,
}

impl Versions {
    /// Goes on from `state`, whose accounts it takes; at most `window` transactions run ahead of the committed ones.
    ///
    /// [`Versions::finish`] gives them back.
    pub fn new(state: &mut BlockState<'_>, beneficiary: Address, window: usize) -> Self {
        let table = Table::default();
        for account in state.accounts.drain() {
            let (_, cell) = table.find(account.address);
            cell.lock().state = Some(account);
        }
        Self {
            table,
            ring: (0..window.max(1)).map(|_| Mutex::default()).collect(),
            codes: RwLock::default(),
            hashes: Mutex::default(),
            beneficiary,
            beneficiary_cell: AtomicU32::new(NONE),
            foreseen: Foreseen::default(),
        }
    }

    /// Shows transactions what an access list says those before them did, in place of what they did. What it says is checked
    /// like every guess.
    #[must_use]
    pub fn foresee(
        mut self,
        foreseen: Foreseen,
        codes: impl IntoIterator<Item = (B256, Bytecode)>,
    ) -> Self {
        self.foreseen = foreseen;
        self.codes.get_mut().uncommitted.extend(codes);
        self
    }

    /// Gives the accounts with all committed changes back.
    pub fn finish(self, state: &mut BlockState<'_>) {
        for cell in self.table.into_cells() {
            if let Some(account) = cell.state {
                state.accounts.insert(account);
            }
        }
        state.keep_codes(self.codes.into_inner().by_hash);
    }

    fn lane(&self, index: u32) -> MutexGuard<'_, Speculation> {
        self.ring[index as usize % self.ring.len()].lock()
    }

    /// Shows what a transaction did to those after it. What was in its place comes back in `speculation`, to be used again.
    pub fn publish(&self, index: u32, speculation: &mut Speculation) {
        let mut lane = self.lane(index);
        core::mem::swap(&mut *lane, speculation);
        lane.index = index;
        if !matches!(lane.result, Some(Ok(_))) {
            return;
        }
        for (account, cell) in lane.touched() {
            self.publish_code(account);
            self.table.cell(cell).lock().note(index, account);
        }
    }

    /// New code can be read by its hash from now on.
    fn publish_code(&self, account: &AccountState) {
        if let Some((hash, code)) = new_code(account) {
            let mut codes = self.codes.write();
            codes
                .uncommitted
                .entry(hash)
                .or_insert_with(|| code.clone());
        }
    }

    /// Takes the next transaction in order, which was published: `decide` is given it and what [`Versions::check`] says, and
    /// says whether its changes are kept.
    pub fn take<R>(
        &self,
        index: u32,
        base: &dyn StateReader,
        decide: impl FnOnce(&mut Speculation, Result<(), Conflict>) -> (bool, R),
    ) -> Result<R, ReadError> {
        let mut lane = self.lane(index);
        let check = self.check(&lane, base)?;
        let (keep, decided) = decide(&mut lane, check);
        let shown = matches!(lane.result, Some(Ok(_)) | None);
        lane.index = NONE;
        if keep {
            self.apply(index, &lane, base, shown)?;
        } else if shown {
            self.withdraw(index, &lane);
        }
        Ok(decided)
    }

    /// Keeps the changes of a transaction that was executed in its turn.
    pub fn keep(
        &self,
        index: u32,
        speculation: &Speculation,
        base: &dyn StateReader,
    ) -> Result<(), ReadError> {
        self.apply(index, speculation, base, false)
    }

    /// Whether everything the transaction knew of the state is so now that everything before it is committed.
    fn check(
        &self,
        speculation: &Speculation,
        base: &dyn StateReader,
    ) -> Result<Result<(), Conflict>, ReadError> {
        if !matches!(speculation.result, Some(Ok(_))) {
            return Ok(Err(Conflict { with: None }));
        }
        for (account, id) in speculation.accounts.boxes().iter().zip(&speculation.cells) {
            let cell = self.table.cell(*id).lock();
            if !cell.state.as_deref().is_some_and(|now| holds(account, now)) {
                let with = Some(cell.changed).filter(|index| *index != NONE);
                return Ok(Err(Conflict { with }));
            }
        }
        for (id, answer) in &speculation.probes {
            let cell = self.table.cell(*id).lock();
            if has_storage(&cell, base)? != *answer {
                return Ok(Err(Conflict { with: None }));
            }
        }
        Ok(Ok(()))
    }

    fn apply(
        &self,
        index: u32,
        speculation: &Speculation,
        base: &dyn StateReader,
        shown: bool,
    ) -> Result<(), ReadError> {
        for (account, id) in speculation.touched() {
            if let Some((hash, code)) = new_code(account) {
                let mut codes = self.codes.write();
                codes.by_hash.entry(hash).or_insert_with(|| code.clone());
            }
            let mut cell = self.table.cell(id).lock();
            if shown {
                cell.forget(index, account);
            }
            cell.changed = index;
            if let Some(now) = cell.state.as_deref_mut() {
                now.apply(account);
            }
        }
        let Some(fee) = speculation.fee else {
            return Ok(());
        };
        let mut cell = self.beneficiary_cell().lock();
        let now = cell.load(self.beneficiary, base)?;
        let info = &mut now.live.info;
        // As a transaction does it: what would overflow is not paid.
        info.balance = info.balance.checked_add(fee).unwrap_or(info.balance);
        if now.conclude(false, false) {
            now.forget_slots();
        }
        cell.changed = index;
        Ok(())
    }

    fn beneficiary_cell(&self) -> &Mutex<Cell> {
        let known = self.beneficiary_cell.load(Ordering::Relaxed);
        if known != NONE {
            return self.table.cell(known);
        }
        let (id, cell) = self.table.find(self.beneficiary);
        self.beneficiary_cell.store(id, Ordering::Relaxed);
        cell
    }

    fn withdraw(&self, index: u32, speculation: &Speculation) {
        for (account, id) in speculation.touched() {
            self.table.cell(id).lock().forget(index, account);
        }
    }

    /// Who gets the fees.
    pub fn beneficiary(&self) -> Address {
        self.beneficiary
    }

    /// The beneficiary's balance now that all up to a transaction are committed.
    ///
    /// # Errors
    /// The state below could not be read.
    pub fn beneficiary_balance(&self, base: &dyn StateReader) -> Result<U256, ReadError> {
        let mut cell = self.beneficiary_cell().lock();
        let now = cell.load(self.beneficiary, base)?.info();
        Ok(now.map(|info| info.balance).unwrap_or_default())
    }

    /// An account as the transactions before `index` leave it: as far as they are known and, where that is a guess anyway, as
    /// is foreseen.
    fn account(
        &self,
        id: u32,
        address: Address,
        (index, guess): (u32, bool),
        base: &dyn StateReader,
    ) -> Result<Option<AccountInfo>, ReadError> {
        let (mut info, mut more) = {
            let mut cell = self.table.cell(id).lock();
            let info = cell.load(address, base)?.info();
            let mut info = info.map(AccountInfo::copy_without_code);
            if guess && let Some(foreseen) = self.foreseen.get(&address) {
                return Ok(foreseen.account(info, index));
            }
            let before = cell.pending.iter().filter(|pending| pending.index < index);
            if !before.clone().any(|pending| pending.more) {
                for pending in before {
                    let info = info.get_or_insert_default();
                    info.balance = info.balance.wrapping_add(pending.difference);
                    info.nonce = info.nonce.max(pending.nonce);
                }
                return Ok(info);
            }
            (info, before.copied().collect::<PendingList>())
        };
        more.sort_unstable_by_key(|pending| pending.index);
        for pending in more {
            let lane = self.lane(pending.index);
            // Otherwise it was committed a moment ago: then this is a guess of what was before.
            if lane.index == pending.index
                && let Some(change) = lane.accounts.get(&address)
            {
                info = merged(info.as_ref(), change);
            }
        }
        Ok(info)
    }

    /// The same of a slot.
    fn storage(
        &self,
        id: u32,
        address: &Address,
        key: &U256,
        (index, guess): (u32, bool),
        base: &dyn StateReader,
    ) -> Result<U256, ReadError> {
        if guess
            && let Some(foreseen) = self.foreseen.get(address)
            && let Some(value) = foreseen.slot(key, index)
        {
            // What is compared with it must be there.
            let known = self.table.cell(id).lock().slot(*address, key, base);
            return known.map(|_| value);
        }
        let mut cell = self.table.cell(id).lock();
        let noted = cell.noted_slot(key, index);
        let before = cell.pending.iter().filter(|pending| pending.index < index);
        let more = before.filter(|pending| pending.more);
        let last = more.map(|pending| pending.index).max();
        let Some(last) = last.filter(|last| noted.is_none_or(|(writer, _)| writer < *last)) else {
            return match noted {
                Some((_, value)) => Ok(value),
                None => cell.slot(*address, key, base),
            };
        };
        // A later transaction did more than writing slots: it may have done away with all of them.
        let committed = match noted {
            Some((_, value)) => value,
            None => cell.slot(*address, key, base)?,
        };
        drop(cell);
        let lane = self.lane(last);
        let gone = lane.index == last
            && lane
                .accounts
                .get(address)
                .is_some_and(|change| change.created || change.destroyed);
        Ok(if gone { U256::ZERO } else { committed })
    }

    fn code(&self, hash: &B256, base: &dyn StateReader) -> Result<Bytecode, ReadError> {
        {
            let codes = self.codes.read();
            let known = codes.by_hash.get(hash);
            if let Some(code) = known.or_else(|| codes.uncommitted.get(hash)) {
                return Ok(code.clone());
            }
        }
        let mut codes = self.codes.write();
        if let Some(code) = codes.by_hash.get(hash) {
            return Ok(code.clone());
        }
        let code = base.code(hash)?;
        codes.by_hash.insert(*hash, code.clone());
        Ok(code)
    }

    fn block_hash(&self, number: u64, base: &dyn StateReader) -> Result<B256, ReadError> {
        let mut hashes = self.hashes.lock();
        if let Some(hash) = hashes.get(&number) {
            return Ok(*hash);
        }
        let hash = base.block_hash(number)?;
        hashes.insert(number, hash);
        Ok(hash)
    }
}

impl Speculation {
    /// The accounts it changed or touched (EIP-161), with their cells.
    fn touched(&self) -> impl Iterator<Item = (&AccountState, u32)> {
        let accounts = self.accounts.boxes().iter().zip(&self.cells);
        accounts
            .filter(|(account, _)| account.touched)
            .map(|(account, id)| (&**account, *id))
    }
}

/// Code that a transaction gave to an account.
fn new_code(account: &AccountState) -> Option<(B256, &Bytecode)> {
    let info = account.info()?;
    let code = info.code.as_ref().filter(|code| !code.is_empty())?;
    let before = account.original.as_ref().map(|info| info.code_hash);
    (before != Some(info.code_hash)).then_some((info.code_hash, code))
}

/// Whether an account has a non-zero slot (EIP-7610).
fn has_storage(cell: &Cell, base: &dyn StateReader) -> Result<bool, ReadError> {
    let Some(now) = cell.state.as_deref() else {
        return Ok(false);
    };
    if now.storage.values().any(|slot| !slot.present().is_zero()) {
        return Ok(true);
    }
    if now.wiped {
        return Ok(false);
    }
    base.has_storage(&now.address)
}

/// Whether what a transaction knew of an account is so.
fn holds(seen: &AccountState, now: &AccountState) -> bool {
    let (before, info) = (seen.original.as_ref(), now.info());
    if code_hash(before) != code_hash(info) {
        return false;
    }
    let of = |info: Option<&AccountInfo>| info.map_or((U256::ZERO, 0), |i| (i.balance, i.nonce));
    let ((balance, nonce), (balance_now, nonce_now)) = (of(before), of(info));
    let knew = &seen.seen;
    if knew.nonce && nonce != nonce_now {
        return false;
    }
    let empty_now = nonce_now == 0 && balance_now.is_zero();
    let was_empty = nonce == 0 && balance.is_zero();
    if knew.emptiness && (was_empty != empty_now || nonce != 0 && nonce_now == 0) {
        return false;
    }
    if balance != balance_now
        && (knew.balance
            || balance >= LARGE
            || balance_now >= LARGE
            || balance_now < balance.saturating_sub(knew.left))
    {
        return false;
    }
    // The slots of an account that it created are not from below.
    seen.created
        || seen.storage.iter().all(|(key, slot)| {
            let value = now.storage.get(key).map(Slot::present);
            value.or_else(|| now.is_blank().then_some(U256::ZERO)) == Some(slot.original)
        })
}

fn code_hash(info: Option<&AccountInfo>) -> B256 {
    match info {
        Some(info) if !info.code_hash.is_zero() => info.code_hash,
        _ => KECCAK256_EMPTY,
    }
}

/// An account after a change that was made on what may have been another balance.
fn merged(info: Option<&AccountInfo>, change: &AccountState) -> Option<AccountInfo> {
    if !change.touched {
        return info.cloned();
    }
    if change.destroyed {
        return None;
    }
    let mut merged = change.merge(info);
    merged.code = None;
    (change.created || !merged.is_empty()).then_some(merged)
}

impl AccountState {
    /// The account with the difference that a transaction made: to the balance; nonce and code where it changed them.
    fn merge(&self, info: Option<&AccountInfo>) -> AccountInfo {
        let (after, before) = (&self.live.info, self.original.as_ref());
        let mut merged = match info {
            Some(info) => info.clone(),
            None => AccountInfo::default(),
        };
        let balance = before.map(|info| info.balance).unwrap_or_default();
        let difference = after.balance.wrapping_sub(balance);
        merged.balance = merged.balance.wrapping_add(difference);
        if after.nonce != before.map_or(0, |info| info.nonce) {
            merged.nonce = after.nonce;
        }
        if after.code_hash != code_hash(before) {
            merged.code_hash = after.code_hash;
            merged.code.clone_from(&after.code);
        }
        merged
    }

    /// What is noted of the change for those after the transaction.
    fn pending(&self, index: u32) -> Option<Pending> {
        let (after, before) = (&self.live.info, self.original.as_ref());
        let (balance, nonce) = before.map_or((U256::ZERO, 0), |info| (info.balance, info.nonce));
        let code_changed = code_hash(Some(after)) != code_hash(before);
        let more = self.created || self.destroyed || code_changed || after.nonce < nonce;
        let same = after.balance == balance && after.nonce == nonce;
        (more || !same).then(|| Pending {
            index,
            more,
            nonce: if after.nonce == nonce { 0 } else { after.nonce },
            difference: after.balance.wrapping_sub(balance),
        })
    }

    /// The slots that the transaction wrote.
    fn written_slots(&self) -> impl Iterator<Item = (&U256, &Slot)> {
        let lives = self.info().is_some();
        self.storage
            .iter()
            .filter(move |(_, slot)| lives && slot.written)
    }

    /// Makes the change of a transaction the block's.
    fn apply(&mut self, change: &AccountState) {
        self.live.info = if change.destroyed {
            AccountInfo::default()
        } else {
            change.merge(self.info())
        };
        if self.conclude(change.created, change.destroyed) {
            self.forget_slots();
        }
        for (key, slot) in change.written_slots() {
            let value = slot.present();
            let slot = self
                .storage
                .entry(*key)
                .or_insert_with(|| Slot::read(U256::ZERO, TransactionId::ZERO));
            slot.live.present_value = value;
            slot.written = true;
        }
    }
}
