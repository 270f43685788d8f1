//! A running node: the chain, the transactions that wait, and the thread that makes blocks of them.

mod producer;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use alloy_consensus::Transaction as _;
use alloy_consensus::constants::EIP4844_TX_TYPE_ID;
use alloy_primitives::{Address, B256, Bytes};
use parking_lot::{Mutex, RwLock};
use zvm_runtimes::evm::Fork;
use zvm_storage::{Snapshot, StoreError};

use crate::chain::{Chain, Head, Imported};
use crate::header;
use crate::pool::{Pool, PoolLimits, Pooled, Refusal, SenderState};
use crate::transaction::{self, Tx, TxError};
use producer::{Producer, Signal};

/// How a node makes blocks.
#[derive(Debug, Clone, Default)]
pub struct NodeSettings {
    /// Time between blocks; `None` makes a block as soon as there is work.
    pub block_time: Option<Duration>,
    /// The gas limit to move towards; `None` keeps that of the head.
    pub gas_limit: Option<u64>,
    /// Who gets the fees.
    pub beneficiary: Address,
    /// At most 32 bytes.
    pub extra_data: Bytes,
    /// Bounds of the pool.
    pub pool: PoolLimits,
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
    Store(#[from] StoreError),
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
            stopped: RwLock::default(),
            thread: Mutex::default(),
        });
        let producer = Producer::new(Arc::clone(&node));
        *node.thread.lock() = Some(
            std::thread::Builder::new()
                .name("block-producer".into())
                .spawn(move || producer.run())?,
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
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        let timestamp = now.max(head.header.timestamp.saturating_add(1));
        let fork = self.chain.fork_after(head, timestamp);
        let spec = self.chain.spec();
        NextBlock {
            fork,
            timestamp,
            base_fee: header::next_base_fee(fork, &head.header).unwrap_or_default(),
            blob_gas_price: header::next_excess_blob_gas(spec, fork, &head.header)
                .and_then(|excess| header::blob_gas_price(spec, fork, excess))
                .unwrap_or_default(),
        }
    }

    /// The gas limit blocks move towards.
    pub fn target_gas_limit(&self, head: &Head) -> u64 {
        self.settings.gas_limit.unwrap_or(head.header.gas_limit)
    }

    /// Takes the EIP-2718 bytes of a transaction into the pool.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn submit_raw(&self, bytes: &[u8]) -> Result<B256, SubmitError> {
        self.submit(
            transaction::decode(bytes).map_err(|error| match has_sidecar(bytes) {
                true => SubmitError::BlobSidecar,
                false => SubmitError::Malformed(error),
            })?,
        )
    }

    /// Takes a transaction into the pool.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn submit(&self, tx: Tx) -> Result<B256, SubmitError> {
        if let Some(reason) = self.stopped() {
            return Err(SubmitError::Stopped(reason));
        }
        let head = self.chain.head();
        let next = self.next_block(&head);
        let spec = self.chain.spec();
        transaction::validate(&tx, next.fork, spec.chain_id).map_err(Refusal::from)?;
        let block = head.header.gas_limit;
        if tx.gas_limit() > block {
            return Err(Refusal::BlockGasLimit {
                gas_limit: tx.gas_limit(),
                block,
            }
            .into());
        }
        if let (Some(blobs), Some(params)) =
            (tx.blob_versioned_hashes(), spec.blob_params(next.fork))
        {
            let (found, permitted) = (blobs.len() as u64, params.max);
            if found > permitted {
                return Err(Refusal::TooManyBlobs { found, permitted }.into());
            }
        }
        if self.settings.block_time.is_none() {
            pays_next_block(&tx, &next)?;
        }
        let recovered = transaction::into_recovered(tx).map_err(Refusal::from)?;
        let pooled = self.pool.add(recovered, next.base_fee, |sender| {
            read_sender(&*self.chain.snapshot()?, &sender)
        })??;
        let hash = pooled.hash;
        self.notify(&Notice::Pending(pooled));
        self.signal.work();
        Ok(hash)
    }

    /// Ends block production and waits until the block being made is durable.
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

    fn fail(&self, reason: &str) {
        tracing::error!(
            reason,
            "block production ended: the node takes no more transactions"
        );
        let reason: Arc<str> = format!("block production failed: {reason}").into();
        *self.stopped.write() = Some(Arc::clone(&reason));
        self.notify(&Notice::Failed(reason));
    }
}

/// Where blocks are made on demand no block comes whose base fee has fallen in the meantime: what does not pay the next
/// one would wait without end.
fn pays_next_block(tx: &Tx, next: &NextBlock) -> Result<(), Refusal> {
    let cap = tx.max_fee_per_gas();
    if cap < u128::from(next.base_fee) {
        return Err(Refusal::FeeCapTooLow {
            cap,
            base_fee: next.base_fee,
        });
    }
    match tx.max_fee_per_blob_gas() {
        Some(cap) if cap < next.blob_gas_price => Err(Refusal::BlobFeeCapTooLow {
            cap,
            price: next.blob_gas_price,
        }),
        _ => Ok(()),
    }
}

fn read_sender(snapshot: &dyn Snapshot, sender: &Address) -> Result<SenderState, StoreError> {
    let account = zvm_storage::read_account(snapshot, sender)?;
    Ok(account.map_or(
        SenderState {
            nonce: 0,
            balance: alloy_primitives::U256::ZERO,
        },
        |account| SenderState {
            nonce: account.nonce,
            balance: account.balance,
        },
    ))
}

/// Whether the bytes are a blob transaction with its sidecar: a list that begins with the transaction's own list.
fn has_sidecar(bytes: &[u8]) -> bool {
    let Some((&EIP4844_TX_TYPE_ID, mut rest)) = bytes.split_first() else {
        return false;
    };
    let mut is_list = || alloy_rlp::Header::decode(&mut rest).is_ok_and(|header| header.list);
    is_list() && is_list()
}

#[cfg(test)]
mod tests;
