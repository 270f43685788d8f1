//! The thread that makes blocks.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, keccak256};
use parking_lot::{Condvar, Mutex};

use super::{Node, Notice, read_sender};
use crate::builder::BlockTemplate;
use crate::chain::{ChainError, Imported};
use crate::pool::log_unpayable;
use crate::transaction;

/// How often the pool is asked what has been held for too long.
const EXPIRY_PERIOD: Duration = Duration::from_secs(60);

/// What the producer is waiting for.
#[derive(Debug, Default)]
pub(super) struct Signal {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The pool has grown since the producer looked.
    work: bool,
    stop: bool,
}

/// Why a wait for work ended.
enum Woken {
    Work,
    Due,
    Stop,
}

impl Signal {
    pub(super) fn work(&self) {
        let mut state = self.state.lock();
        if !state.work {
            state.work = true;
            self.changed.notify_all();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }

    /// Waits for work, or until `due`.
    fn wait_for_work(&self, due: Instant) -> Woken {
        let mut state = self.state.lock();
        while !state.work && !state.stop {
            if self.changed.wait_until(&mut state, due).timed_out() {
                break;
            }
        }
        match (state.stop, core::mem::take(&mut state.work)) {
            (true, _) => Woken::Stop,
            (_, true) => Woken::Work,
            _ => Woken::Due,
        }
    }

    /// Waits until `due`; false if it is time to end.
    fn wait_until(&self, due: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.stop {
            if self.changed.wait_until(&mut state, due).timed_out() {
                break;
            }
        }
        !state.stop
    }

    fn stopping(&self) -> bool {
        self.state.lock().stop
    }
}

/// Makes blocks until the node is stopped or a block cannot be made.
pub(super) struct Producer {
    node: Arc<Node>,
}

impl Producer {
    pub(super) fn new(node: Arc<Node>) -> Self {
        Self { node }
    }

    pub(super) fn run(self) {
        // A panic here would leave a node that takes transactions and never includes them.
        let ended = catch_unwind(AssertUnwindSafe(|| match self.node.settings.block_time {
            None => self.on_demand(),
            Some(period) => self.at_intervals(period),
        }));
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.node.fail(&error.to_string()),
            Err(_) => self.node.fail("the block producer panicked"),
        }
    }

    /// A block whenever something is ready. What arrives while one block is made durable goes into the next.
    fn on_demand(&self) -> Result<(), ChainError> {
        let mut expiry = Instant::now() + EXPIRY_PERIOD;
        loop {
            match self.node.signal.wait_for_work(expiry) {
                // More may be ready than fits one block. Where nothing could be included, only a new arrival is a reason
                // to try again.
                Woken::Work => while self.make_block(false)? > 0 && !self.node.signal.stopping() {},
                Woken::Due => {}
                Woken::Stop => return Ok(()),
            }
            self.expire_if_due(&mut expiry);
        }
    }

    /// A block every `period`, with or without transactions.
    fn at_intervals(&self, period: Duration) -> Result<(), ChainError> {
        let mut expiry = Instant::now() + EXPIRY_PERIOD;
        let mut due = Instant::now() + period;
        while self.node.signal.wait_until(due) {
            self.make_block(true)?;
            due = (due + period).max(Instant::now());
            self.expire_if_due(&mut expiry);
        }
        Ok(())
    }

    fn expire_if_due(&self, due: &mut Instant) {
        let now = Instant::now();
        if now < *due {
            return;
        }
        *due = now + EXPIRY_PERIOD;
        for expired in self.node.pool.expire(now) {
            tracing::warn!(hash = %expired.hash, "transaction dropped: the gap before its nonce did not close");
        }
    }

    /// Makes a block of what is ready and returns how many transactions it has.
    fn make_block(&self, even_if_empty: bool) -> Result<usize, ChainError> {
        let node = &self.node;
        let head = node.chain.head();
        let next = node.next_block(&head);
        let mut selection = node.pool.select(next.base_fee, next.blob_gas_price);
        if selection.is_empty() && !even_if_empty {
            return Ok(0);
        }
        let template = BlockTemplate {
            timestamp: next.timestamp,
            beneficiary: node.settings.beneficiary,
            gas_limit: node.target_gas_limit(&head),
            // Without a beacon chain there is no secret to draw from: a value that differs from block to block.
            prev_randao: keccak256(head.hash),
            extra_data: node.settings.extra_data.clone(),
            parent_beacon_block_root: B256::ZERO,
            not_empty: !even_if_empty,
        };
        let built = node.chain.build(&template, &mut selection);
        for (hash, reason) in selection.into_rejected() {
            tracing::warn!(%hash, reason, "transaction dropped");
            node.pool.remove(&hash);
        }
        let imported = match built {
            Ok(imported) => imported,
            Err(ChainError::NothingIncluded) => return Ok(0),
            Err(error) => return Err(error),
        };
        self.advance_pool(&imported)?;
        let count = imported.block.body.transactions.len();
        tracing::info!(
            number = imported.block.header.number,
            hash = %imported.hash,
            transactions = count,
            gas = imported.block.header.gas_used,
            "block"
        );
        node.notify(&Notice::Block(Arc::new(imported)));
        Ok(count)
    }

    /// Tells the pool the accounts whose nonces the block moved: senders, and who authorized a delegation (EIP-7702).
    fn advance_pool(&self, imported: &Imported) -> Result<(), ChainError> {
        let mut moved: BTreeSet<Address> = imported.senders.iter().copied().collect();
        for tx in &imported.block.body.transactions {
            let authorizations = tx.authorization_list().unwrap_or_default();
            moved.extend(
                authorizations
                    .iter()
                    .filter_map(|signed| transaction::recover_authorization(signed).authority()),
            );
        }
        // One snapshot: the accounts are as one block left them.
        let snapshot = self.node.chain.snapshot()?;
        let accounts = self
            .node
            .pool
            .known_senders(moved)
            .into_iter()
            .map(|sender| Ok((sender, read_sender(&*snapshot, &sender)?)))
            .collect::<Result<Vec<_>, ChainError>>()?;
        log_unpayable(&self.node.pool.advance(accounts));
        Ok(())
    }
}
