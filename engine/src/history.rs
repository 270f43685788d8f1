//! What a block leaves in the store beside the state after it, and how blocks are taken back.

use alloy_primitives::{Address, U256};
use zvm_runtimes::detect::{Format, detect};
use zvm_storage::{
    Batch, BlockRecord, Creation, Deployment, Layered, Retention, Snapshot, Store, StoreError,
};

use crate::chain::TOTAL_DIFFICULTY;

/// Entries pruned with a block beside twice those that it writes.
const PRUNED_WITH_A_BLOCK: usize = 256;

/// Adds to `batch`, which holds the state changes of the block, all else that the store keeps of it: history, tables
/// and indexes, deployments; and takes away what `retention` no longer keeps.
///
/// # Errors
/// [`StoreError`]; the batch must then be dropped.
pub fn record_block(
    snapshot: &dyn Snapshot,
    batch: &mut Batch,
    block: &BlockRecord<'_>,
    retention: &Retention,
) -> Result<(), StoreError> {
    let number = block.header.number;
    let changes = zvm_storage::record_changes(snapshot, number, batch)?;
    for (address, code_hash) in &changes.deployed {
        let code = zvm_storage::read_code(&Layered::new(snapshot, batch), code_hash)?;
        let deployment = Deployment {
            block: number,
            format: format_of_code(&code.unwrap_or_default()),
            code_hash: *code_hash,
            creation: creation_of(block, address),
        };
        zvm_storage::put_deployment(batch, address, &deployment);
    }
    zvm_storage::put_block(batch, block)?;
    // In proportion to the block, so that pruning keeps up and never delays one block much.
    let budget = 2 * batch.len() + PRUNED_WITH_A_BLOCK;
    zvm_storage::prune(snapshot, batch, number, retention, budget)?;
    Ok(())
}

/// The transaction that created the contract: the one whose receipt names it, or the only one of the block.
fn creation_of(block: &BlockRecord<'_>, address: &Address) -> Option<Creation> {
    let created = |contract: &Option<Address>| *contract == Some(*address);
    let index = match block.senders {
        [_] => 0,
        _ => {
            let mut receipts = block.receipts.iter();
            receipts.position(|receipt| created(&receipt.contract_address))?
        }
    };
    Some(Creation {
        index: u32::try_from(index).ok()?,
        deployer: *block.senders.get(index)?,
    })
}

/// How a deployment names the runtime of a stored code. What belongs to none was deployed before codes had to (EIP-3541).
pub fn format_of_code(code: &[u8]) -> u8 {
    match detect(code) {
        Ok(Format::Zvm) => 1,
        Ok(Format::ZvmLegacy) => 2,
        Ok(Format::Wasm) => 3,
        Ok(Format::Evm | Format::Delegation(_)) | Err(_) => 0,
    }
}

/// The runtime that a deployment names; `None` for a number that no build gives.
pub fn deployment_format(deployment: &Deployment) -> Option<Format> {
    match deployment.format {
        0 => Some(Format::Evm),
        1 => Some(Format::Zvm),
        2 => Some(Format::ZvmLegacy),
        3 => Some(Format::Wasm),
        _ => None,
    }
}

/// Takes the blocks after `to` back, the last one first, each in a commit of its own: when it fails or the process ends
/// between two, the store is whole with the block reached as its head. Returns how many were taken back.
///
/// Nothing else may write to the store meanwhile: for one that a [`crate::chain::Chain`] uses there is
/// [`crate::chain::Chain::unwind`].
///
/// # Errors
/// [`StoreError::NotRetained`], before anything is changed, if the state of block `to` is not kept or there is no such
/// block; other [`StoreError`]s.
pub fn unwind(store: &dyn Store, to: u64) -> Result<u64, StoreError> {
    let snapshot = store.snapshot()?;
    zvm_storage::retained(&*snapshot)?.check_state(&*snapshot, to)?;
    drop(snapshot);
    let mut taken = 0;
    loop {
        let snapshot = store.snapshot()?;
        if zvm_storage::head(&*snapshot)?.is_none_or(|(head, _)| head <= to) {
            return Ok(taken);
        }
        let mut batch = Batch::new();
        let header = zvm_storage::unwind_block(&*snapshot, &mut batch)?;
        if let Some(total) = total_difficulty(&*snapshot)? {
            let total = total.saturating_sub(header.difficulty);
            zvm_storage::put_meta(&mut batch, TOTAL_DIFFICULTY, &total.to_be_bytes::<32>());
        }
        drop(snapshot);
        store.commit(&batch)?;
        taken += 1;
    }
}

/// The total difficulty of the head, if it is kept.
pub(crate) fn total_difficulty(snapshot: &dyn Snapshot) -> Result<Option<U256>, StoreError> {
    let kept = zvm_storage::get_meta(snapshot, TOTAL_DIFFICULTY)?;
    Ok(kept.and_then(|bytes| U256::try_from_be_slice(&bytes)))
}
