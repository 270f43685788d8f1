//! What the transactions of one worker read.

use core::cell::{Cell, RefCell};

use alloy_primitives::{Address, B256, U256};
use revm::bytecode::Bytecode;
use revm::state::AccountInfo;

use super::{Speculation, Versions, has_storage};
use crate::evm::state::{ReadError, StateReader};

/// Entries of [`Known`].
const KNOWN: usize = 256;

/// Numbers of the cells of addresses that the worker asked for a short while ago: those that all workers ask for all the
/// time are found without the locks that all of them take.
#[derive(Debug)]
struct Known(Vec<(Address, u32)>);

impl Known {
    fn place(&mut self, address: &Address) -> &mut (Address, u32) {
        let [a, b, .., c, d] = address.0.0;
        let mixed = u32::from_le_bytes([a, b, c, d]).wrapping_mul(0x9e37_79b1);
        &mut self.0[mixed as usize >> (u32::BITS - KNOWN.ilog2())]
    }
}

/// The state as the transactions before one leave it, as far as they are known. It remembers all that was asked for.
pub struct VersionReader<'v> {
    versions: &'v Versions,
    base: &'v dyn StateReader,
    /// The transaction, and whether it is before its turn.
    index: Cell<(u32, bool)>,
    /// The sender and the nonce it has if the transaction is in order.
    predicted: Cell<Option<(Address, u64)>>,
    cells: RefCell<Vec<u32>>,
    probes: RefCell<Vec<(u32, bool)>>,
    known: RefCell<Known>,
}

impl core::fmt::Debug for VersionReader<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VersionReader")
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl<'v> VersionReader<'v> {
    /// A worker's reader of `versions`; `base` is the state below, the same for all workers.
    pub fn new(versions: &'v Versions, base: &'v dyn StateReader) -> Self {
        Self {
            versions,
            base,
            index: Cell::new((0, true)),
            predicted: Cell::new(None),
            cells: RefCell::default(),
            probes: RefCell::default(),
            known: RefCell::new(Known(vec![(Address::ZERO, super::NONE); KNOWN])),
        }
    }

    /// The state below.
    pub fn base(&self) -> &'v dyn StateReader {
        self.base
    }

    pub(in crate::evm) fn begin(&self, index: u32, predicted: Option<(Address, u64)>) {
        self.index.set((index, predicted.is_some()));
        self.predicted.set(predicted);
        self.cells.borrow_mut().clear();
        self.probes.borrow_mut().clear();
    }

    pub(in crate::evm) fn end(&self, speculation: &mut Speculation) {
        core::mem::swap(&mut speculation.cells, &mut *self.cells.borrow_mut());
        core::mem::swap(&mut speculation.probes, &mut *self.probes.borrow_mut());
    }

    fn cell(&self, address: &Address) -> u32 {
        let mut known = self.known.borrow_mut();
        let entry = known.place(address);
        if entry.0 != *address || entry.1 == super::NONE {
            *entry = (*address, self.versions.table.find(*address).0);
        }
        entry.1
    }
}

impl StateReader for VersionReader<'_> {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        let id = self.cell(address);
        let mut info = self
            .versions
            .account(id, *address, self.index.get(), self.base)?;
        // After the read: an account that could not be read is none of the transaction's.
        self.cells.borrow_mut().push(id);
        if let Some((sender, nonce)) = self.predicted.get()
            && sender == *address
            && let Some(info) = &mut info
            && info.nonce < nonce
        {
            // An earlier transaction of the sender that is not finished, or the transaction is invalid.
            info.nonce = nonce;
        }
        Ok(info)
    }

    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        let id = self.cell(address);
        self.versions
            .storage(id, address, slot, self.index.get(), self.base)
    }

    fn storage_at(&self, at: u32, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        let id = self.cells.borrow().get(at as usize).copied();
        let id = id.unwrap_or_else(|| self.cell(address));
        self.versions
            .storage(id, address, slot, self.index.get(), self.base)
    }

    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        self.versions.code(hash, self.base)
    }

    fn has_storage(&self, address: &Address) -> Result<bool, ReadError> {
        let id = self.cell(address);
        let answer = has_storage(&self.versions.table.cell(id).lock(), self.base)?;
        self.probes.borrow_mut().push((id, answer));
        Ok(answer)
    }

    fn block_hash(&self, number: u64) -> Result<B256, ReadError> {
        self.versions.block_hash(number, self.base)
    }
}
