//! JSON-RPC 2.0: what the methods share, and their registration.
//!
//! The methods are in the table [`METHODS`]; each is a function from arguments to a result that runs on a thread where it
//! may block. How many run at once is bounded.

mod args;
mod blocks;
mod error;
mod execute;
mod fees;
mod history;
mod logs;
mod methods;
mod other;
mod recent;
mod send;
mod send_sync;
mod shape;
mod state;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use alloy_primitives::B256;
use jsonrpsee::RpcModule;
use jsonrpsee::core::RegisterMethodError;
use jsonrpsee::types::ErrorObjectOwned;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Semaphore, broadcast, watch};
use zvm_engine::chain::Chain;
use zvm_engine::node::{Node, Notice};
use zvm_engine::pool::Pooled;
use zvm_storage::{Snapshot, StateAt, StoreError, Table};

pub use error::RpcError;
pub use methods::{METHODS, Method};

use crate::accounts::Accounts;
use args::{Args, BlockRef, BlockTag};
use methods::Run;
use recent::{RecentBlocks, StoredBlock};

/// What a method answers: JSON text.
type Reply = Result<Box<RawValue>, RpcError>;

/// New pending transactions kept for subscribers that are behind.
const PENDING_BACKLOG: usize = 4_096;

/// Bounds of single requests.
#[derive(Debug, Clone, Copy)]
pub struct RpcLimits {
    /// Gas of one call.
    pub gas_cap: u64,
    /// Logs of one answer.
    pub logs: usize,
    /// Transactions of one answer of a list by address.
    pub transactions: usize,
    /// Changes of accounts and slots that a proof at a past block takes back.
    pub proof_changes: u64,
    /// Requests that execute or read the store at once.
    pub concurrent: usize,
    /// The longest that `eth_sendRawTransactionSync` waits.
    pub sync_wait: Duration,
}

/// What the methods work on.
#[derive(Debug)]
pub struct Rpc {
    node: Arc<Node>,
    accounts: Accounts,
    limits: RpcLimits,
    recent: RecentBlocks,
    /// One permit a request that runs.
    turns: Arc<Semaphore>,
    /// Held from choosing a nonce until the transaction is in the pool.
    sending: Mutex<()>,
    head: watch::Sender<u64>,
    pending: broadcast::Sender<Arc<Pooled>>,
}

impl Rpc {
    /// Methods on `node`, signing for `accounts`.
    pub fn new(node: Arc<Node>, accounts: Accounts, limits: RpcLimits) -> Arc<Self> {
        let rpc = Arc::new(Self {
            accounts,
            limits,
            recent: RecentBlocks::default(),
            turns: Arc::new(Semaphore::new(limits.concurrent.max(1))),
            sending: Mutex::new(()),
            head: watch::Sender::new(node.chain().head().header.number),
            pending: broadcast::Sender::new(PENDING_BACKLOG),
            node,
        });
        let weak = Arc::downgrade(&rpc);
        rpc.node.listen(Box::new(move |notice| {
            if let Some(rpc) = weak.upgrade() {
                rpc.noticed(notice);
            }
        }));
        rpc
    }

    fn noticed(&self, notice: &Notice) {
        match notice {
            Notice::Block(imported) => {
                self.recent.insert(StoredBlock::of(imported));
                self.head.send_replace(imported.block.header.number);
            }
            // No subscriber is no failure.
            Notice::Pending(pooled) => drop(self.pending.send(Arc::clone(pooled))),
            Notice::Failed(_) => {}
        }
    }

    fn chain(&self) -> &Chain {
        self.node.chain()
    }

    fn view(&self) -> Result<View<'_>, RpcError> {
        let snapshot = self.chain().snapshot()?;
        let (head, head_hash) =
            zvm_storage::head(&*snapshot)?.ok_or_else(|| StoreError::Corrupt {
                table: Table::Meta,
                key: "head".to_owned(),
                reason: "is not there".to_owned(),
            })?;
        Ok(View {
            rpc: self,
            snapshot,
            head,
            head_hash,
        })
    }

    /// The methods, to be served.
    ///
    /// # Errors
    /// Two methods have one name.
    pub fn into_module(self: Arc<Self>) -> Result<RpcModule<Self>, RegisterMethodError> {
        let mut module = RpcModule::from_arc(self);
        for method in METHODS {
            match method.run {
                Run::Now(run) => {
                    module.register_method(method.name, move |params, rpc, _| {
                        Args::new(&params, method.most)
                            .and_then(|args| run(rpc, args))
                            .map_err(ErrorObjectOwned::from)
                    })?;
                }
                Run::Waiting(run) => {
                    module.register_async_method(
                        method.name,
                        move |params, rpc, _| async move {
                            let args = Args::new(&params, method.most)?;
                            run(rpc, args).await.map_err(ErrorObjectOwned::from)
                        },
                    )?;
                }
                Run::Blocking(run) => {
                    module.register_async_method(
                        method.name,
                        move |params, rpc, _| async move {
                            let args = Args::new(&params, method.most)?;
                            blocking(rpc, move |rpc| run(rpc, args))
                                .await
                                .map_err(ErrorObjectOwned::from)
                        },
                    )?;
                }
            }
        }
        subscribe::register(&mut module)?;
        Ok(module)
    }
}

/// Runs `work` where it may block, when its turn comes.
async fn blocking<T: Send + 'static>(
    rpc: Arc<Rpc>,
    work: impl FnOnce(&Rpc) -> Result<T, RpcError> + Send + 'static,
) -> Result<T, RpcError> {
    let ended = |_| RpcError::Internal("the node is shutting down".to_owned());
    let turn = Arc::clone(&rpc.turns)
        .acquire_owned()
        .await
        .map_err(ended)?;
    let run = move || {
        let result = work(&rpc);
        drop(turn);
        result
    };
    match tokio::task::spawn_blocking(run).await {
        Ok(result) => result,
        Err(failure) => {
            tracing::error!(%failure, "a method panicked");
            Err(RpcError::Internal(
                "the method failed unexpectedly".to_owned(),
            ))
        }
    }
}

/// `value` as JSON text.
fn reply<T: Serialize + ?Sized>(value: &T) -> Reply {
    Ok(serde_json::value::to_raw_value(value)?)
}

/// The chain as it was at one moment.
struct View<'a> {
    rpc: &'a Rpc,
    snapshot: Box<dyn Snapshot + 'a>,
    head: u64,
    head_hash: B256,
}

impl<'a> View<'a> {
    fn snapshot(&self) -> &dyn Snapshot {
        &*self.snapshot
    }

    /// The number a tag stands for; it may be past the head.
    fn number(&self, tag: BlockTag) -> u64 {
        match tag {
            BlockTag::Number(number) => number,
            BlockTag::Earliest => 0,
            BlockTag::Head => self.head,
        }
    }

    /// The number of a block of the chain.
    fn resolve(&self, block: BlockRef) -> Result<Option<u64>, RpcError> {
        match block {
            BlockRef::Tag(tag) => Ok(Some(self.number(tag)).filter(|number| *number <= self.head)),
            BlockRef::Hash(hash) if hash == self.head_hash => Ok(Some(self.head)),
            BlockRef::Hash(hash) => Ok(zvm_storage::block_number(self.snapshot(), &hash)?),
        }
    }

    /// The number of a block of the chain, the head if none is named; an error if there is no such block.
    fn required(&self, block: Option<BlockRef>) -> Result<u64, RpcError> {
        self.resolve(block.unwrap_or(BlockRef::Tag(BlockTag::Head)))?
            .ok_or_else(|| RpcError::Refused("header not found".to_owned()))
    }

    /// The state after a block, the head if none is named.
    fn into_state(self, block: Option<BlockRef>) -> Result<Box<dyn Snapshot + 'a>, RpcError> {
        let number = self.required(block)?;
        if number == self.head {
            return Ok(self.snapshot);
        }
        Ok(Box::new(StateAt::new(self.snapshot, number)?))
    }

    /// A block with everything stored about it.
    fn block(&self, number: u64) -> Result<Option<Arc<StoredBlock>>, RpcError> {
        zvm_storage::retained(self.snapshot())?.check_block(self.snapshot(), number)?;
        let hash = zvm_storage::block_hash(self.snapshot(), number)?;
        // Another block had this number before if blocks were taken back.
        if let Some(block) = self.rpc.recent.get(number)
            && hash == Some(block.hash)
        {
            return Ok(Some(block));
        }
        let Some(block) = StoredBlock::read(self.snapshot(), number)? else {
            return Ok(None);
        };
        Ok(Some(self.rpc.recent.insert(block)))
    }
}
