//! The chain: blocks on a store, one head, one writer.

use std::sync::Arc;

use alloy_consensus::{Block, BlockBody, Header};
use alloy_eips::eip4895::Withdrawals;
use alloy_primitives::{Address, B256, Bloom, U256};
use alloy_rlp::Decodable as _;
use parking_lot::{Mutex, RwLock};
use zvm_runtimes::evm::{Fork, FrameRunner};
use zvm_storage::{Batch, BlockRecord, Retention, Snapshot, Store, StoreError, StoredReceipt};

use crate::builder::{BlockTemplate, TransactionSource};
use crate::chain_spec::{BlockPosition, ChainSpec};
use crate::executor::{BlockExecutor, ExecutedBlock, ExecutionError};
use crate::genesis::Genesis;
use crate::header::{self, HeaderError};
use crate::history;
use crate::ingress::Senders;
use crate::ommers::validate_ommers;
use crate::parallel::{Mode, Parallel};
use crate::pipeline::{Lost, Parent};
use crate::receipt::receipts_root;
use crate::roots::{BlockRoot, SnapshotRoots};
use crate::transaction::{Tx, TxError};
use crate::view::{CodeCache, StateView, StoreReaders};

/// A block with its transactions.
pub type TxBlock = Block<Tx>;

/// Meta key of the total difficulty of the head, 32 bytes big-endian.
pub(crate) const TOTAL_DIFFICULTY: &str = "total_difficulty";

/// A block cannot join the chain, or the store failed.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// The store failed. Says nothing about the block.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store holds another chain.
    #[error("the store holds the chain with genesis {found}, not {expected}")]
    OtherGenesis {
        /// Genesis hash in the store.
        found: B256,
        /// Genesis hash of the configuration.
        expected: B256,
    },
    /// The bytes are no block.
    #[error("malformed block: {0}")]
    Decode(#[from] alloy_rlp::Error),
    /// The header breaks a rule.
    #[error("invalid header: {0}")]
    Header(#[from] HeaderError),
    /// No sender fits the signature of a transaction.
    #[error("transaction {index}: {source}")]
    Sender {
        /// Place in the block.
        index: usize,
        /// Why.
        source: TxError,
    },
    /// A block was to be made only if it has transactions, and none could be included.
    #[error("no transaction could be included")]
    NothingIncluded,
    /// The block does not follow the head, or no longer does.
    #[error("the block follows {parent}, the head is {head}")]
    NotOnHead {
        /// Hash of the block's parent.
        parent: B256,
        /// Hash of the head.
        head: B256,
    },
    /// A block before it was lost on its way to the store.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// The block cannot be executed.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    /// Execution gives another value than the header says.
    #[error("{field} is {found}, execution gives {computed}")]
    Outcome {
        /// Header field, by its JSON name.
        field: &'static str,
        /// In the header.
        found: String,
        /// By execution.
        computed: String,
    },
}

/// The last block of the chain.
#[derive(Debug, Clone)]
pub struct Head {
    /// Its header.
    pub header: Arc<Header>,
    /// Its hash.
    pub hash: B256,
    /// Sum of the difficulties up to and with it.
    pub total_difficulty: U256,
}

/// A block that has become the head.
#[derive(Debug)]
pub struct Imported {
    /// The block.
    pub block: TxBlock,
    /// Its hash.
    pub hash: B256,
    /// One sender a transaction.
    pub senders: Vec<Address>,
    /// One receipt a transaction.
    pub receipts: Vec<StoredReceipt>,
}

/// A chain of blocks on a store.
///
/// Any number of readers may take [`Chain::snapshot`]s; one block at a time is added.
pub struct Chain {
    store: Arc<dyn Store>,
    spec: ChainSpec,
    genesis_hash: B256,
    codes: CodeCache,
    head: RwLock<Head>,
    writer: Mutex<()>,
    /// Runs frames in place of the interpreter's loop.
    runner: Option<Arc<dyn FrameRunner>>,
    retention: Retention,
    /// How imported blocks are spread over cores.
    parallel: Parallel,
    senders: Arc<Senders>,
}

impl core::fmt::Debug for Chain {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Chain")
            .field("chain_id", &self.spec.chain_id)
            .field("head", &*self.head.read())
            .finish()
    }
}

impl Chain {
    /// Opens the chain in `store`, writing the genesis block first if the store is empty.
    pub fn open(store: Arc<dyn Store>, genesis: &Genesis) -> Result<Self, ChainError> {
        let header = genesis_header(genesis);
        let genesis_hash = header.hash_slow();
        if zvm_storage::head(&*store.snapshot()?)?.is_none() {
            write_genesis(&*store, genesis, &header, genesis_hash)?;
        }
        let found =
            zvm_storage::block_hash(&*store.snapshot()?, header.number)?.unwrap_or_default();
        if found != genesis_hash {
            return Err(ChainError::OtherGenesis {
                found,
                expected: genesis_hash,
            });
        }
        Self::attach(store, genesis.spec.clone(), genesis_hash)
    }

    /// Opens the chain in a store that is known to hold it.
    pub fn attach(
        store: Arc<dyn Store>,
        spec: ChainSpec,
        genesis_hash: B256,
    ) -> Result<Self, ChainError> {
        let head = read_head(&*store.snapshot()?)?.ok_or_else(|| StoreError::Corrupt {
            table: zvm_storage::Table::Meta,
            key: "head".into(),
            reason: "there is no head, or it names a block that is not there".into(),
        })?;
        Ok(Self {
            store,
            spec,
            genesis_hash,
            codes: CodeCache::default(),
            head: RwLock::new(head),
            writer: Mutex::new(()),
            runner: None,
            retention: Retention::default(),
            parallel: Parallel::default(),
            senders: Arc::default(),
        })
    }

    /// Keeps as much of past blocks as `retention` says; without this, [`Retention::default`].
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// Executes imported blocks so; by default on one core.
    #[must_use]
    pub fn with_parallel(mut self, parallel: Parallel) -> Self {
        self.parallel = parallel;
        self
    }

    /// Runs the frames of imported and built blocks, and of calls on them, by `runner`.
    #[must_use]
    pub fn with_runner(mut self, runner: Option<Arc<dyn FrameRunner>>) -> Self {
        self.runner = runner;
        self
    }

    /// What runs the frames; none is the interpreter.
    pub(crate) fn runner(&self) -> Option<&Arc<dyn FrameRunner>> {
        self.runner.as_ref()
    }

    /// The rules.
    pub fn spec(&self) -> &ChainSpec {
        &self.spec
    }

    /// Hash of block 0.
    pub fn genesis_hash(&self) -> B256 {
        self.genesis_hash
    }

    /// The last block.
    pub fn head(&self) -> Head {
        self.head.read().clone()
    }

    /// The chain and the state after its last block, unmoved by later blocks.
    pub fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>, StoreError> {
        self.store.snapshot()
    }

    /// The store below.
    pub fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Analysed code, for readers of snapshots.
    pub fn codes(&self) -> &CodeCache {
        &self.codes
    }

    /// How much of past blocks is kept.
    pub(crate) fn retention(&self) -> &Retention {
        &self.retention
    }

    /// Takes the blocks after block `to` back. Returns how many there were.
    ///
    /// Snapshots taken before go on showing them.
    pub fn unwind(&self, to: u64) -> Result<u64, ChainError> {
        let _writer = self.writer.lock();
        let taken = history::unwind(&*self.store, to);
        // Also when it ended on the way.
        if let Some(head) = read_head(&*self.store.snapshot()?)? {
            *self.head.write() = head;
        }
        Ok(taken?)
    }

    /// The senders of transactions that were recovered, by this chain or by who submitted them.
    pub fn senders(&self) -> &Arc<Senders> {
        &self.senders
    }

    /// Knows the senders that `senders` knows, which others may share.
    #[must_use]
    pub fn with_senders(mut self, senders: Arc<Senders>) -> Self {
        self.senders = senders;
        self
    }

    /// Recovers the senders of a block's transactions on all cores, but for those that are known.
    fn recover_senders(&self, transactions: &[Tx]) -> Result<Vec<Address>, ChainError> {
        let senders = self.senders.senders(transactions).into_iter();
        senders
            .enumerate()
            .map(|(index, sender)| sender.map_err(|source| ChainError::Sender { index, source }))
            .collect()
    }

    /// The fork of a block that follows `head` at `timestamp`.
    pub fn fork_after(&self, head: &Head, timestamp: u64) -> Fork {
        self.fork_on(&head.header, head.total_difficulty, timestamp)
    }

    /// The fork of a block that follows `parent` at `timestamp`.
    pub(crate) fn fork_on(&self, parent: &Header, total_difficulty: U256, timestamp: u64) -> Fork {
        self.spec.fork_at(&BlockPosition {
            number: parent.number.saturating_add(1),
            timestamp,
            parent_total_difficulty: total_difficulty,
        })
    }

    /// The fork of a stored block, as far as its header tells: a block without difficulty is behind the Merge.
    pub fn fork_of(&self, header: &Header) -> Fork {
        let parent_total_difficulty = if header.difficulty.is_zero() {
            U256::MAX
        } else {
            U256::ZERO
        };
        self.spec.fork_at(&BlockPosition {
            number: header.number,
            timestamp: header.timestamp,
            parent_total_difficulty,
        })
    }

    /// Adds a block in its RLP form on top of the head.
    pub fn import_rlp(&self, bytes: &[u8]) -> Result<Imported, ChainError> {
        self.import(decode_block(bytes)?)
    }

    /// Adds a block on top of the head: checks it, executes it, compares what the header says and makes it durable.
    ///
    /// # Errors
    /// [`ChainError::NotOnHead`] also when another block becomes the head meanwhile.
    pub fn import(&self, block: TxBlock) -> Result<Imported, ChainError> {
        let head = self.head();
        let Block { header, body } = &block;
        let fork = self.fork_after(&head, header.timestamp);
        header::validate_header(&self.spec, fork, header, &head.header, head.hash)?;
        header::validate_body(fork, header, body)?;
        let senders = self.recover_senders(&body.transactions)?;

        let snapshot = self.store.snapshot()?;
        if let Some((_, found)) = zvm_storage::head(&*snapshot)?
            && found != head.hash
        {
            // Executed on another state the block would look wrong.
            return Err(ChainError::NotOnHead {
                parent: header.parent_hash,
                head: found,
            });
        }
        validate_ommers(&self.spec, &*snapshot, header, &body.ommers)?
            .map_err(HeaderError::from)?;
        let transactions: Vec<_> = body
            .transactions
            .iter()
            .zip(senders.iter().copied())
            .collect();
        let readers = match self.parallel.workers.get() {
            1 => None,
            workers => StoreReaders::of(&*snapshot, workers, &self.codes, fork)?,
        };
        let settled = self.settle(&*snapshot, fork, header, body, &mut |executor, root| {
            if let Some(readers) = &readers {
                let mode = Mode::Following;
                executor.transact_all(&transactions, readers, &self.parallel, mode, &mut ())?;
                return Ok(());
            }
            for (tx, sender) in &transactions {
                executor.transact(tx, *sender)?;
                let gas_used = executor.gas_used();
                root.executed(gas_used, executor.state_mut())?;
            }
            Ok(())
        })?;
        settled.outcome.compare(header)?;
        let Settled {
            batch, receipts, ..
        } = settled;
        let hash = header.hash_slow();
        let record = BlockRecord {
            header,
            hash,
            body,
            receipts: &receipts,
            senders: &senders,
        };
        drop(readers);
        self.commit(&head, snapshot, batch, &record)?;
        Ok(Imported {
            block,
            hash,
            senders,
            receipts,
        })
    }

    /// Builds a block on top of the head from the transactions `source` offers and makes it durable.
    ///
    /// A transaction that is not valid here is reported to the source and left out.
    pub fn build(
        &self,
        template: &BlockTemplate,
        source: &mut dyn TransactionSource,
    ) -> Result<Imported, ChainError> {
        let parent = Parent::Durable(self.head());
        let executed = self.execute(parent, &[], template, source)?;
        self.append(self.seal(executed, &[])?)
    }

    /// Commits what makes `head` the head.
    pub(crate) fn advance_head(&self, head: Head, batch: &Batch) -> Result<(), ChainError> {
        let _writer = self.writer.lock();
        let found = self.head.read().hash;
        if head.header.parent_hash != found {
            return Err(ChainError::NotOnHead {
                parent: head.header.parent_hash,
                head: found,
            });
        }
        self.store.commit(batch)?;
        *self.head.write() = head;
        Ok(())
    }

    /// Executes a block on top of `snapshot`: `execute` does its transactions, and tells the root of what has changed on the
    /// way. Of `body` count the ommers and the withdrawals.
    fn settle(
        &self,
        snapshot: &dyn Snapshot,
        fork: Fork,
        header: &Header,
        body: &BlockBody<Tx>,
        execute: Execution<'_>,
    ) -> Result<Settled, ChainError> {
        let view = StateView::new(snapshot, &self.codes).with_fork(fork);
        let mut roots = SnapshotRoots::new(snapshot);
        let mut executor = BlockExecutor::new(&self.spec, fork, header, &view, Some(&mut roots))?;
        if let Some(runner) = &self.runner {
            executor.set_runner(Arc::clone(runner));
        }
        std::thread::scope(|scope| {
            // Before Byzantium the roots of the receipts take the changes.
            let mut root = BlockRoot::new(scope, snapshot, fork >= Fork::Byzantium);
            execute(&mut executor, &mut root)?;
            let withdrawals = body
                .withdrawals
                .as_ref()
                .map(|withdrawals| &withdrawals.0[..]);
            let mut executed = executor.finish(&body.ommers, withdrawals)?;
            let mut batch = Batch::new();
            let state_root = root.finish(&mut executed.state, &mut batch)?;
            Ok(Settled {
                outcome: Outcome::of(&executed, state_root),
                batch,
                receipts: executed.receipts,
            })
        })
    }

    /// Makes the block with the state changes in `batch`, which were made on `snapshot`, the head.
    fn commit(
        &self,
        parent: &Head,
        snapshot: Box<dyn Snapshot + '_>,
        mut batch: Batch,
        block: &BlockRecord<'_>,
    ) -> Result<(), ChainError> {
        history::record_block(&*snapshot, &mut batch, block, &self.retention)?;
        // A store does not grow while its writer holds a snapshot.
        drop(snapshot);
        let total_difficulty = parent
            .total_difficulty
            .saturating_add(block.header.difficulty);
        zvm_storage::put_meta(
            &mut batch,
            TOTAL_DIFFICULTY,
            &total_difficulty.to_be_bytes::<32>(),
        );
        let head = Head {
            header: Arc::new(block.header.clone()),
            hash: block.hash,
            total_difficulty,
        };
        self.advance_head(head, &batch)
    }
}

fn read_head(snapshot: &dyn Snapshot) -> Result<Option<Head>, StoreError> {
    let Some((number, hash)) = zvm_storage::head(snapshot)? else {
        return Ok(None);
    };
    let Some(header) = zvm_storage::header(snapshot, number)? else {
        return Ok(None);
    };
    let total_difficulty = history::total_difficulty(snapshot)?.unwrap_or_default();
    Ok(Some(Head {
        header: Arc::new(header),
        hash,
        total_difficulty,
    }))
}

/// Decodes the RLP of exactly one block.
///
/// Only the canonical encoding is a block: the decoder below takes a typed transaction whose string header is wrong or
/// missing, and two encodings of one block would be two sizes for EIP-7934.
pub fn decode_block(bytes: &[u8]) -> Result<TxBlock, alloy_rlp::Error> {
    let block = TxBlock::decode(&mut &*bytes)?;
    if alloy_rlp::encode(&block) == bytes {
        Ok(block)
    } else {
        Err(alloy_rlp::Error::Custom("the encoding is not canonical"))
    }
}

/// The genesis header with its state root.
pub fn genesis_header(genesis: &Genesis) -> Header {
    let accounts = genesis
        .state
        .accounts
        .iter()
        .filter_map(|(address, change)| {
            change.info.map(|info| {
                (
                    *address,
                    info,
                    change.slots.iter().map(|(slot, value)| (*slot, *value)),
                )
            })
        });
    Header {
        state_root: zvm_storage::state_root_of(accounts),
        ..genesis.header.clone()
    }
}

fn write_genesis(
    store: &dyn Store,
    genesis: &Genesis,
    header: &Header,
    hash: B256,
) -> Result<(), ChainError> {
    let mut batch = Batch::new();
    let snapshot = store.snapshot()?;
    let state_root = zvm_storage::apply_state(&*snapshot, &genesis.state, &mut batch)?;
    debug_assert_eq!(state_root, header.state_root);
    let body = BlockBody {
        transactions: Vec::new(),
        ommers: Vec::new(),
        withdrawals: header.withdrawals_root.map(|_| Withdrawals::default()),
    };
    let record = BlockRecord {
        header,
        hash,
        body: &body,
        receipts: &[],
        senders: &[],
    };
    history::record_block(&*snapshot, &mut batch, &record, &Retention::default())?;
    drop(snapshot);
    zvm_storage::put_meta(
        &mut batch,
        TOTAL_DIFFICULTY,
        &header.difficulty.to_be_bytes::<32>(),
    );
    store.commit(&batch)?;
    Ok(())
}

/// Executes the transactions of a block.
type Execution<'n> =
    &'n mut dyn FnMut(&mut BlockExecutor<'_, '_>, &mut BlockRoot<'_, '_>) -> Result<(), ChainError>;

/// A block that was executed.
struct Settled {
    outcome: Outcome,
    /// Its changes of the state.
    batch: Batch,
    receipts: Vec<StoredReceipt>,
}

/// The fields of a header that execution decides.
#[derive(Debug)]
struct Outcome {
    state_root: B256,
    receipts_root: B256,
    logs_bloom: Bloom,
    gas_used: u64,
    blob_gas_used: u64,
    requests_hash: Option<B256>,
}

impl Outcome {
    fn of(executed: &ExecutedBlock<'_>, state_root: B256) -> Self {
        Self {
            state_root,
            receipts_root: receipts_root(&executed.receipts),
            logs_bloom: executed.logs_bloom,
            gas_used: executed.gas_used,
            blob_gas_used: executed.blob_gas_used,
            requests_hash: executed
                .requests
                .as_ref()
                .map(|requests| requests.requests_hash()),
        }
    }

    fn compare(&self, header: &Header) -> Result<(), ChainError> {
        fn same<T: PartialEq + core::fmt::Debug>(
            field: &'static str,
            found: T,
            computed: T,
        ) -> Result<(), ChainError> {
            if found == computed {
                return Ok(());
            }
            Err(ChainError::Outcome {
                field,
                found: format!("{found:?}"),
                computed: format!("{computed:?}"),
            })
        }
        same("gasUsed", header.gas_used, self.gas_used)?;
        same(
            "blobGasUsed",
            header.blob_gas_used,
            header.blob_gas_used.map(|_| self.blob_gas_used),
        )?;
        same("requestsHash", header.requests_hash, self.requests_hash)?;
        same("receiptsRoot", header.receipts_root, self.receipts_root)?;
        same("logsBloom", header.logs_bloom, self.logs_bloom)?;
        same("stateRoot", header.state_root, self.state_root)
    }
}

#[cfg(test)]
mod tests;
