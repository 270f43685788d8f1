//! `eth_sendRawTransactionSync` (EIP-7966): sends and answers with the receipt, once its block is durable.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::{B256, Bytes};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::args::{Arg, Args};
use super::{Reply, Rpc, RpcError, blocking, blocks};

/// An answer to come.
pub(super) type Waiting = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// Milliseconds, as a number or as a quantity.
struct Millis(u64);

impl Arg for Millis {
    fn from_json(value: Value) -> Result<Self, String> {
        match value.as_u64() {
            Some(number) => Ok(Self(number)),
            None => u64::from_json(value).map(Self),
        }
    }
}

/// `eth_sendRawTransactionSync`: waits as long as the caller says, and no longer than the node allows. It takes no turn of
/// other requests while it waits.
pub(super) fn send_raw_sync(rpc: Arc<Rpc>, mut args: Args) -> Waiting {
    Box::pin(async move {
        let bytes = args.required::<Bytes>(0)?;
        let asked = args.optional::<Millis>(1)?;
        let most = rpc.limits.sync_wait;
        let wait = asked.map_or(most, |Millis(asked)| Duration::from_millis(asked).min(most));
        let end = Instant::now() + wait;
        // From before it is sent: its block may be the next head.
        let mut head = rpc.head.subscribe();
        let hash: B256 = blocking(Arc::clone(&rpc), move |rpc| {
            Ok(rpc.node.submit_raw(&bytes)?)
        })
        .await?;
        loop {
            head.borrow_and_update();
            let receipt =
                blocking(Arc::clone(&rpc), move |rpc| blocks::receipt_of(rpc, &hash)).await?;
            if let Some(receipt) = receipt {
                return Ok(receipt);
            }
            if let Some(reason) = rpc.node.stopped() {
                return Err(RpcError::Refused(format!(
                    "{hash}: no block has it: {reason}"
                )));
            }
            match timeout_at(end, head.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    return Err(RpcError::Internal("the node is shutting down".to_owned()));
                }
                Err(_) => return Err(not_in_time(&rpc, hash, wait)),
            }
        }
    })
}

/// The transaction waits on: whoever sent it learns its hash, and whether a gap before its nonce is why.
fn not_in_time(rpc: &Rpc, hash: B256, wait: Duration) -> RpcError {
    let held = rpc.node.pool().get(&hash).and_then(|pooled| {
        use alloy_consensus::Transaction as _;
        let next = rpc.node.pool().next_nonce(&pooled.tx.signer())?;
        (pooled.tx.nonce() >= next).then_some(next)
    });
    match held {
        Some(expected) => RpcError::NonceGap { hash, expected },
        None => RpcError::NotInTime {
            hash,
            millis: u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{self, Accounts};
    use crate::rpc::RpcLimits;
    use jsonrpsee::RpcModule;
    use jsonrpsee::core::server::MethodsError;
    use serde_json::json;
    use zvm_engine::chain::Chain;
    use zvm_engine::genesis::Genesis;
    use zvm_engine::node::{Node, NodeSettings};
    use zvm_storage::MemoryStore;

    async fn signed(module: &RpcModule<Rpc>, from: &Value, nonce: &str) -> Value {
        let request = json!({ "from": from, "to": from, "gas": "0x5208", "nonce": nonce });
        let signed: Value = module.call("eth_signTransaction", [request]).await.unwrap();
        signed["raw"].clone()
    }

    fn code(answer: Result<Value, MethodsError>) -> i32 {
        match answer {
            Err(MethodsError::JsonRpc(error)) => error.code(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_receipt_comes_when_the_block_is_durable_and_what_is_not_in_one_says_so_in_time() {
        let accounts = Accounts::development().unwrap();
        let addresses = accounts.addresses();
        let genesis = Genesis::development(31_337, 60_000_000, &addresses, accounts::BALANCE);
        let chain = Chain::open(Arc::new(MemoryStore::new()), &genesis).unwrap();
        let node = Node::start(Arc::new(chain), NodeSettings::default()).unwrap();
        let limits = RpcLimits {
            gas_cap: 1_000_000,
            logs: 1,
            transactions: 1,
            proof_changes: 1,
            concurrent: 1,
            sync_wait: Duration::from_secs(60),
        };
        let module = Rpc::new(Arc::clone(&node), accounts, limits)
            .into_module()
            .unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let from = json!(addresses[0]);
            let method = "eth_sendRawTransactionSync";
            let first = signed(&module, &from, "0x0").await;
            let receipt: Value = module.call(method, [first.clone()]).await.unwrap();
            assert_eq!(
                (&receipt["status"], &receipt["from"]),
                (&json!("0x1"), &json!(format!("{:#x}", addresses[0])))
            );
            assert_eq!(code(module.call(method, [first]).await), -32000);
            // Behind a gap, within the caller's milliseconds.
            let third = signed(&module, &from, "0x2").await;
            assert_eq!(code(module.call(method, (third, 20)).await), 6);
        });
        node.stop();
    }
}
