//! Proofs, and what the indexes by address know.

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_rpc_types_eth::{EIP1186AccountProofResponse, EIP1186StorageProof};
use serde::Serialize;
use serde_json::value::RawValue;
use zvm_storage::{Role, Snapshot, StoreError, Table, TransactionLocation};

use super::args::{Args, BlockRef, BlockTag, Cursor, ProofKeys};
use super::shape::{self, RpcTransaction};
use super::{Reply, Rpc, RpcError, reply};

/// `eth_getProof` (EIP-1186)
pub(super) fn proof(rpc: &Rpc, mut args: Args) -> Reply {
    let address = args.required::<Address>(0)?;
    let ProofKeys(keys) = args.required(1)?;
    let block = args.optional::<BlockRef>(2)?;
    let view = rpc.view()?;
    let number = view.required(block)?;
    let slots: Vec<U256> = keys.iter().map(|key| key.as_b256().into()).collect();
    let limit = rpc.limits.proof_changes;
    let proof = zvm_storage::account_proof(view.snapshot(), number, &address, &slots, limit)?;
    let info = proof.info.unwrap_or_default();
    reply(&EIP1186AccountProofResponse {
        address,
        balance: info.balance,
        code_hash: info.code_hash,
        nonce: info.nonce,
        storage_hash: proof.storage_root,
        account_proof: proof.nodes,
        storage_proof: keys
            .into_iter()
            .zip(proof.slots)
            .map(|(key, slot)| EIP1186StorageProof {
                key,
                value: slot.value,
                proof: slot.nodes,
            })
            .collect(),
    })
}

/// Where a list goes on.
#[derive(Serialize)]
struct Next {
    block: U64,
    index: U64,
}

#[derive(Serialize)]
struct Listed {
    transactions: Vec<RpcTransaction>,
    /// What to ask for next; null at the end.
    next: Option<Next>,
}

/// `zvm_getTransactionsBySender`
pub(super) fn by_sender(rpc: &Rpc, args: Args) -> Reply {
    transactions(rpc, args, Role::Sender)
}

/// `zvm_getTransactionsByRecipient`
pub(super) fn by_recipient(rpc: &Rpc, args: Args) -> Reply {
    transactions(rpc, args, Role::Recipient)
}

fn transactions(rpc: &Rpc, mut args: Args, role: Role) -> Reply {
    let address = args.required::<Address>(0)?;
    let Cursor(from) = args.optional(1)?.unwrap_or(Cursor::START);
    let most = rpc.limits.transactions.max(1);
    let count = match args.optional::<u64>(2)? {
        Some(count) => usize::try_from(count).map_or(most, |count| count.clamp(1, most)),
        None => most,
    };
    let view = rpc.view()?;
    // One more tells where the next answer begins.
    let mut found = zvm_storage::transactions_of(view.snapshot(), role, &address, from, count + 1)?;
    let next = found
        .get(count)
        .map(|TransactionLocation { block, index }| Next {
            block: U64::from(*block),
            index: U64::from(*index),
        });
    found.truncate(count);
    let mut transactions = Vec::with_capacity(found.len());
    for at in found {
        let block = view.block(at.block)?;
        let shaped = block.and_then(|block| shape::transaction(&block, at.index as usize));
        transactions.push(shaped.ok_or_else(|| StoreError::Corrupt {
            table: Table::AddressTransactions,
            key: address.to_string(),
            reason: format!("there is no transaction {} in block {}", at.index, at.block),
        })?);
    }
    reply(&Listed { transactions, next })
}

/// What is known about a contract.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContractInfo {
    format: Option<String>,
    code_hash: B256,
    size: U64,
    block: Option<U64>,
    deployer: Option<Address>,
    transaction_hash: Option<B256>,
    abi: Option<Box<RawValue>>,
}

/// `zvm_getContractInfo`: null where there is no code.
pub(super) fn contract_info(rpc: &Rpc, mut args: Args) -> Reply {
    let address = args.required::<Address>(0)?;
    let block = args.optional::<BlockRef>(1)?;
    let view = rpc.view()?;
    let number = view.required(block)?;
    let deployment = zvm_storage::deployment(view.snapshot(), &address, number)?;
    let creation = deployment.as_ref().and_then(|found| found.creation);
    let mut transaction_hash = None;
    if let (Some(deployment), Some(creation)) = (&deployment, creation) {
        let kept = zvm_storage::retained(view.snapshot())?;
        if kept.blocks <= deployment.block
            && let Some(block) = view.block(deployment.block)?
        {
            let transaction = block.body.transactions.get(creation.index as usize);
            transaction_hash = transaction.map(|transaction| *transaction.hash());
        }
    }
    let state = view.into_state(Some(BlockRef::Tag(BlockTag::Number(number))))?;
    let Some((code_hash, code)) = code(&*state, &address)? else {
        return reply(&());
    };
    let abi = zvm_storage::abi(&*state, &code_hash)?
        .map(|abi| serde_json::from_slice::<Box<RawValue>>(&abi))
        .transpose()?;
    let format = deployment
        .as_ref()
        .and_then(zvm_engine::history::deployment_format);
    reply(&ContractInfo {
        format: format.map(|format| format.to_string()),
        code_hash,
        size: U64::from(code.len()),
        block: deployment.map(|deployment| U64::from(deployment.block)),
        deployer: creation.map(|creation| creation.deployer),
        transaction_hash,
        abi,
    })
}

/// Hash and bytes of the code of an account that has one.
fn code(state: &dyn Snapshot, address: &Address) -> Result<Option<(B256, Bytes)>, RpcError> {
    let Some(account) = zvm_storage::read_account(state, address)? else {
        return Ok(None);
    };
    let code = zvm_storage::read_code(state, &account.code_hash)?;
    Ok(code
        .filter(|code| !code.is_empty())
        .map(|code| (account.code_hash, code)))
}
