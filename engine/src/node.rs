//! A running node: the chain, the transactions that wait, and the thread that makes blocks of them.

mod intake;
mod producer;
mod stages;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use alloy_consensus::Header;
use alloy_primitives::{Address, Bytes, U256};
use parking_lot::{Mutex, RwLock};
use zvm_runtimes::evm::Fork;
use zvm_storage::StoreError;

use crate::chain::{Chain, Head, Imported};
use crate::header;
use crate::pool::{Pool, PoolLimits, Pooled, Refusal};
use crate::transaction::TxError;
use producer::Signal;
use stages::Clocks;

pub use stages::StageTimes;

/// How a node makes blocks.
#[derive(Debug, Clone)]
pub struct NodeSettings {
    /// Time between blocks; `None` makes a block as soon as there is work.
    pub block_time: Option<Duration>,
    /// The gas limit to move towards; `None` keeps that of the head.
    pub gas_limit: Option<u64>,
    /// Who gets the fees.
    pub beneficiary: Address,
    /// At most 32 bytes.
    pub extra_data: Bytes,
    /// Blocks that may be executed and not durable yet when the next one is begun; 0 begins a block when the one before
    /// it is durable.
    pub in_flight: usize,
    /// The longest that a block made on demand waits for more transactions under load; see [`GATHER_EACH`].
    pub gather: Duration,
    /// Bounds of the pool.
    pub pool: PoolLimits,
}

/// How long blocks on demand are apart for each transaction of the last one: a block after few of them comes at once, and
/// under load, where every core is busy with senders, blocks become larger and cheaper.
pub const GATHER_EACH: Duration = Duration::from_micros(200);

impl Default for NodeSettings {
    fn default() -> Self {
        Self {
            block_time: None,
            gas_limit: None,
            beneficiary: Address::ZERO,
            extra_data: Bytes::new(),
            in_flight: 2,
            gather: Duration::from_millis(100),
            pool: PoolLimits::default(),
        }
    }
}

/// A transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The bytes are no transaction.
    #[error(transparent)]
    Malformed(TxError),
    /// A blob transaction in the form peers exchange, with its blobs (EIP-4844).
    #[error(
        "blob sidecars are not taken: send the transaction as it stands in a block, without its blobs"
    )]
    BlobSidecar,
    /// The pool refuses it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(Arc<StoreError>),
    /// No more blocks are made: the node is ending, or an earlier failure ended block production.
    #[error("the node takes no transactions: {0}")]
    Stopped(Arc<str>),
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Notice {
    /// A block became the head, durably.
    Block(Arc<Imported>),
    /// The pool took a transaction. It may have left the pool for a block by the time the notice is looked at.
    Pending(Arc<Pooled>),
    /// Block production ended by a failure.
    Failed(Arc<str>),
}

/// What is called with every [`Notice`], on the thread where it happened: it must be quick.
pub type Listener = Box<dyn Fn(&Notice) + Send + Sync>;

/// A chain with a pool and a block producer.
pub struct Node {
    chain: Arc<Chain>,
    pool: Pool,
    settings: NodeSettings,
    listeners: RwLock<Vec<Listener>>,
    signal: Signal,
    clocks: Clocks,
    /// Why no more blocks are made.
    stopped: RwLock<Option<Arc<str>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl core::fmt::Debug for Node {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Node")
            .field("chain", &self.chain)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// What a transaction meets in the next block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextBlock {
    /// Its rules.
    pub fork: Fork,
    /// Seconds: now, or one after the head's.
    pub timestamp: u64,
    /// Wei per gas; 0 before London.
    pub base_fee: u64,
    /// Wei per blob gas; 0 before Cancun.
    pub blob_gas_price: u128,
}

impl Node {
    /// Starts making blocks.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(chain: Arc<Chain>, settings: NodeSettings) -> std::io::Result<Arc<Self>> {
        let node = Arc::new(Self {
            chain,
            pool: Pool::new(settings.pool),
            settings,
            listeners: RwLock::default(),
            signal: Signal::default(),
            clocks: Clocks::default(),
            stopped: RwLock::default(),
            thread: Mutex::default(),
        });
        let maker = Arc::clone(&node);
        *node.thread.lock() = Some(
            std::thread::Builder::new()
                .name("block-producer".into())
                .spawn(move || maker.make_blocks())?,
        );
        Ok(node)
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// The transactions that wait.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Calls `listener` with every later notice.
    pub fn listen(&self, listener: Listener) {
        self.listeners.write().push(listener);
    }

    /// Why no more blocks are made; `None` while they are.
    pub fn stopped(&self) -> Option<Arc<str>> {
        self.stopped.read().clone()
    }

    /// The block that would follow `head` now.
    pub fn next_block(&self, head: &Head) -> NextBlock {
        self.block_on(&head.header, head.total_difficulty)
    }

    /// The block that would follow `parent` now.
    fn block_on(&self, parent: &Header, total_difficulty: U256) -> NextBlock {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        let timestamp = now.max(parent.timestamp.saturating_add(1));
        let fork = self.chain.fork_on(parent, total_difficulty, timestamp);
        let spec = self.chain.spec();
        NextBlock {
            fork,
            timestamp,
            base_fee: header::next_base_fee(fork, parent).unwrap_or_default(),
            blob_gas_price: header::next_excess_blob_gas(spec, fork, parent)
                .and_then(|excess| header::blob_gas_price(spec, fork, excess))
                .unwrap_or_default(),
        }
    }

    /// The gas limit blocks move towards.
    pub fn target_gas_limit(&self, parent: &Header) -> u64 {
        self.settings.gas_limit.unwrap_or(parent.gas_limit)
    }

    /// Ends block production and waits until the blocks in flight are durable.
    pub fn stop(&self) {
        self.stopped
            .write()
            .get_or_insert_with(|| "it is shutting down".into());
        self.signal.stop();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the block producer panicked");
        }
    }

    fn notify(&self, notice: &Notice) {
        for listener in &*self.listeners.read() {
            listener(notice);
        }
    }

    /// Ends block production for a failure. The first one is the reason that is told.
    fn fail(&self, reason: &str) {
        tracing::error!(
            reason,
            "block production ended: the node takes no more transactions"
        );
        let reason: Arc<str> = format!("block production failed: {reason}").into();
        *self.stopped.write() = Some(Arc::clone(&reason));
        self.signal.stop();
        self.notify(&Notice::Failed(reason));
    }
}

#[cfg(test)]
mod tests;
