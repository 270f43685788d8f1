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
