//! `eth_subscribe` over WebSocket.
//!
//! Heads and logs are read from the store from the last one sent up to the head, so a slow subscriber gets all of them,
//! in order, and costs no memory while it is behind.

use std::sync::Arc;

use jsonrpsee::core::{RegisterMethodError, SubscriptionResult};
use jsonrpsee::types::{ErrorObjectOwned, Params};
use jsonrpsee::{PendingSubscriptionSink, RpcModule, SubscriptionSink};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::broadcast::error::RecvError;

use super::args::{Arg as _, Args, LogFilter};
use super::{Rpc, RpcError, blocking, logs, shape};

pub(super) fn register(module: &mut RpcModule<Rpc>) -> Result<(), RegisterMethodError> {
    module.register_subscription(
        "eth_subscribe",
        "eth_subscription",
        "eth_unsubscribe",
        |params, pending, rpc, _| subscribe(params, pending, rpc),
    )?;
    Ok(())
}

enum Topic {
    Heads,
    Logs(Arc<LogFilter>),
    Pending { whole: bool },
    Syncing,
}

impl Topic {
    fn new(params: &Params<'_>) -> Result<Self, RpcError> {
        let mut args = Args::new(params, 2)?;
        let name = args.required::<serde_json::Value>(0)?;
        let detail = args.optional::<serde_json::Value>(1)?;
        let invalid =
            |reason: String| RpcError::InvalidParams(format!("invalid argument 1: {reason}"));
        match (name.as_str(), detail) {
            (Some("newHeads"), _) => Ok(Self::Heads),
            (Some("syncing"), _) => Ok(Self::Syncing),
            (Some("logs"), None) => Ok(Self::Logs(Arc::default())),
            (Some("logs"), Some(filter)) => LogFilter::from_json(filter)
                .map(|filter| Self::Logs(Arc::new(filter)))
                .map_err(invalid),
            (Some("newPendingTransactions"), detail) => {
                let whole = detail.map(bool::from_json).transpose().map_err(invalid)?;
                Ok(Self::Pending {
                    whole: whole.unwrap_or_default(),
                })
            }
            _ => Err(RpcError::InvalidParams(format!("no subscription {name}"))),
        }
    }
}

async fn subscribe(
    params: Params<'static>,
    pending: PendingSubscriptionSink,
    rpc: Arc<Rpc>,
) -> SubscriptionResult {
    let topic = match Topic::new(&params) {
        Ok(topic) => topic,
        Err(error) => {
            pending.reject(ErrorObjectOwned::from(error)).await;
            return Ok(());
        }
    };
    // From before the subscriber knows its id, so that it misses nothing from then on.
    let mut head = rpc.head.subscribe();
    let mut sent = *head.borrow_and_update();
    let mut taken = rpc.pending.subscribe();
    let sink = pending.accept().await?;
    match topic {
        Topic::Syncing => {
            send(&sink, &false).await?;
            sink.closed().await;
        }
        Topic::Pending { whole } => loop {
            let received = tokio::select! {
                received = taken.recv() => received,
                () = sink.closed() => break,
            };
            match received {
                Ok(pooled) if whole => send(&sink, &shape::pending(&pooled)).await?,
                Ok(pooled) => send(&sink, &pooled.hash).await?,
                // Too slow for all of them; what was missed is in blocks or in `txpool_content`.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => break,
            }
        },
        topic @ (Topic::Heads | Topic::Logs(_)) => loop {
            let changed = tokio::select! {
                changed = head.changed() => changed,
                () = sink.closed() => break,
            };
            if changed.is_err() {
                break;
            }
            let newest = *head.borrow_and_update();
            for number in sent + 1..=newest {
                for message in messages(&rpc, &topic, number).await? {
                    sink.send(message).await?;
                }
            }
            sent = newest;
        },
    }
    Ok(())
}

async fn send<T: Serialize>(sink: &SubscriptionSink, message: &T) -> SubscriptionResult {
    sink.send(to_raw_value(message)?).await?;
    Ok(())
}

/// What block `number` means to a subscriber.
async fn messages(
    rpc: &Arc<Rpc>,
    topic: &Topic,
    number: u64,
) -> Result<Vec<Box<RawValue>>, RpcError> {
    let filter = match topic {
        Topic::Logs(filter) => Some(Arc::clone(filter)),
        _ => None,
    };
    blocking(Arc::clone(rpc), move |rpc| {
        let Some(block) = rpc.view()?.block(number)? else {
            return Ok(Vec::new());
        };
        let Some(filter) = filter else {
            return Ok(vec![to_raw_value(&shape::header(
                block.hash,
                block.header.clone(),
                None,
            ))?]);
        };
        let mut found = Vec::new();
        if filter.filter.matches_bloom(block.header.logs_bloom) {
            logs::append_matching(&block, &filter, &mut found);
        }
        Ok(found.iter().map(to_raw_value).collect::<Result<_, _>>()?)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::{self, Accounts};
    use crate::rpc::RpcLimits;
    use serde_json::{Value, json};
    use zvm_engine::chain::Chain;
    use zvm_engine::genesis::Genesis;
    use zvm_engine::node::{Node, NodeSettings};
    use zvm_storage::MemoryStore;

    #[test]
    fn every_pending_transaction_is_sent_whole_though_blocks_take_them_at_once() {
        const COUNT: usize = 100;
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
            sync_wait: std::time::Duration::from_secs(60),
        };
        let module = Rpc::new(Arc::clone(&node), accounts, limits)
            .into_module()
            .unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let mut subscription = module
                .subscribe_unbounded("eth_subscribe", ("newPendingTransactions", true))
                .await
                .unwrap();
            let mut sent = Vec::new();
            for _ in 0..COUNT {
                let request = json!({ "from": addresses[0], "to": addresses[1], "gas": "0x5208" });
                let hash: String = module.call("eth_sendTransaction", [request]).await.unwrap();
                sent.push(hash);
            }
            for hash in sent {
                let (tx, _) = subscription.next::<Value>().await.unwrap().unwrap();
                assert_eq!(
                    (&tx["hash"], &tx["nonce"].is_string()),
                    (&json!(hash), &true)
                );
            }
        });
        node.stop();
    }
}
