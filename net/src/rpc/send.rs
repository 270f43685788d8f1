//! Sending and signing.

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{
    EthereumTypedTransaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy,
};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, Bytes, TxKind};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_eth::state::EvmOverrides;
use serde::Serialize;
use zvm_engine::simulate::Simulator;
use zvm_engine::transaction::Tx;
use zvm_runtimes::evm::Fork;

use super::args::Args;
use super::fees::SUGGESTED_PRIORITY_FEE;
use super::{Reply, Rpc, RpcError, reply};

/// `eth_accounts`
pub(super) fn accounts(rpc: &Rpc, _: Args) -> Reply {
    reply(&rpc.accounts.addresses())
}

/// `eth_sendRawTransaction`: answered when the pool has the transaction.
pub(super) fn send_raw(rpc: &Rpc, mut args: Args) -> Reply {
    let bytes = args.required::<Bytes>(0)?;
    reply(&rpc.node.submit_raw(&bytes)?)
}

/// `eth_sendTransaction`
pub(super) fn send(rpc: &Rpc, mut args: Args) -> Reply {
    let request = args.required::<TransactionRequest>(0)?;
    // Two requests of one account must not choose one nonce.
    let _sending = rpc.sending.lock();
    let from = request.from;
    let tx = sign_request(rpc, request)?;
    let hash = match from {
        Some(from) => rpc.node.submit_signed(Recovered::new_unchecked(tx, from))?,
        None => rpc.node.submit(tx)?,
    };
    reply(&hash)
}

/// `eth_signTransaction`
pub(super) fn sign_transaction(rpc: &Rpc, mut args: Args) -> Reply {
    #[derive(Serialize)]
    struct Signed {
        raw: Bytes,
        tx: Tx,
    }
    let tx = sign_request(rpc, args.required(0)?)?;
    reply(&Signed {
        raw: tx.encoded_2718().into(),
        tx,
    })
}

/// `eth_sign`: the message is prefixed as in EIP-191.
pub(super) fn sign(rpc: &Rpc, mut args: Args) -> Reply {
    let from = args.required::<Address>(0)?;
    sign_message(rpc, from, args.required(1)?)
}

/// `personal_sign`: as `eth_sign`, with the arguments in the other order.
pub(super) fn personal_sign(rpc: &Rpc, mut args: Args) -> Reply {
    let message = args.required::<Bytes>(0)?;
    sign_message(rpc, args.required(1)?, message)
}

fn sign_message(rpc: &Rpc, from: Address, message: Bytes) -> Reply {
    let signature = rpc.accounts.sign_message(from, &message)?;
    reply(&Bytes::from(signature.as_bytes()))
}

/// Fills what a request leaves open and signs it with the key of its sender.
fn sign_request(rpc: &Rpc, mut request: TransactionRequest) -> Result<Tx, RpcError> {
    let invalid = |reason: &str| RpcError::InvalidParams(reason.to_owned());
    let missing = |name: &str| RpcError::InvalidParams(format!("{name} not specified"));
    let from = request.from.ok_or_else(|| missing("from"))?;
    if !rpc.accounts.addresses().contains(&from) {
        return Err(crate::accounts::AccountError::Unknown(from).into());
    }
    if request.has_eip4844_fields() || request.blob_versioned_hashes.is_some() {
        return Err(RpcError::Refused(
            "blob transactions are not signed by the node: send them signed".to_owned(),
        ));
    }
    if request.gas_price.is_some() && request.has_eip1559_fields() {
        return Err(invalid(
            "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified",
        ));
    }
    let nonce = match request.nonce {
        Some(nonce) => nonce,
        None => next_nonce(rpc, from)?,
    };
    let gas_limit = match request.gas {
        Some(gas) => gas,
        // Estimated before the fees are filled in: what the sender can pay is checked by the pool.
        None => Simulator::at_head(rpc.chain(), rpc.limits.gas_cap)?
            .estimate_gas(&request, &EvmOverrides::default())?,
    };
    let chain_id = rpc.chain().spec().chain_id;
    if let Some(found) = request.chain_id
        && found != chain_id
    {
        return Err(RpcError::InvalidParams(format!(
            "chainId does not match node's (have={found}, want={chain_id})"
        )));
    }
    let next = rpc.node.next_block(&rpc.chain().head());
    let to = request.to.take().unwrap_or(TxKind::Create);
    let value = request.value.unwrap_or_default();
    let input = request.input.input().cloned().unwrap_or_default();
    let access_list = request.access_list.take();
    let authorization_list = request.authorization_list.take().unwrap_or_default();

    // Types 0 and 1 have a price only (EIP-2930); before London all have (EIP-1559).
    let priced = next.fork < Fork::London || matches!(request.transaction_type, Some(0 | 1));
    if priced && request.has_eip1559_fields() {
        return Err(invalid(
            "maxFeePerGas and maxPriorityFeePerGas need a transaction of type 2 and the London fork",
        ));
    }
    let legacy_price = match request.gas_price {
        None if priced => Some(SUGGESTED_PRIORITY_FEE.saturating_add(next.base_fee.into())),
        price => price,
    };
    if legacy_price.is_some() && !authorization_list.is_empty() {
        return Err(invalid(
            "authorizationList needs maxFeePerGas and maxPriorityFeePerGas, not a gas price",
        ));
    }
    let tx: EthereumTypedTransaction<TxEip4844> = if let Some(gas_price) = legacy_price {
        let access_list = match request.transaction_type {
            Some(1) => Some(access_list.unwrap_or_default()),
            _ => access_list,
        };
        match access_list {
            Some(access_list) => TxEip2930 {
                chain_id,
                nonce,
                gas_price,
                gas_limit,
                to,
                value,
                access_list,
                input,
            }
            .into(),
            None => {
                let chain_id = (next.fork >= Fork::SpuriousDragon).then_some(chain_id);
                TxLegacy {
                    chain_id,
                    nonce,
                    gas_price,
                    gas_limit,
                    to,
                    value,
                    input,
                }
                .into()
            }
        }
    } else {
        let tip = request.max_priority_fee_per_gas.unwrap_or_else(|| {
            request
                .max_fee_per_gas
                .map_or(SUGGESTED_PRIORITY_FEE, |cap| {
                    cap.min(SUGGESTED_PRIORITY_FEE)
                })
        });
        // Twice the base fee: covers six full blocks before the transaction is included.
        let cap = request
            .max_fee_per_gas
            .unwrap_or_else(|| tip.saturating_add(2 * u128::from(next.base_fee)));
        let access_list = access_list.unwrap_or_default();
        if authorization_list.is_empty() {
            TxEip1559 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: cap,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list,
                input,
            }
            .into()
        } else {
            let TxKind::Call(to) = to else {
                return Err(missing(
                    "to, which a transaction with authorizations needs,",
                ));
            };
            TxEip7702 {
                chain_id,
                nonce,
                gas_limit,
                max_fee_per_gas: cap,
                max_priority_fee_per_gas: tip,
                to,
                value,
                access_list,
                authorization_list,
                input,
            }
            .into()
        }
    };
    let built = tx.tx_type() as u8;
    if let Some(stated) = request.transaction_type
        && stated != built
    {
        return Err(RpcError::InvalidParams(format!(
            "type is {stated:#x}, but the other fields make a transaction of type {built:#x}"
        )));
    }
    Ok(rpc.accounts.sign_transaction(from, tx)?)
}

fn next_nonce(rpc: &Rpc, from: Address) -> Result<u64, RpcError> {
    // The pool first: what leaves it afterwards is in the state read next.
    let waiting = rpc.node.pool().next_nonce(&from).unwrap_or_default();
    let view = rpc.view()?;
    let account = zvm_storage::read_account(view.snapshot(), &from)?;
    Ok(account.map_or(0, |account| account.nonce).max(waiting))
}
