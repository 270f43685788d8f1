//! The thread that makes blocks.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, B256, keccak256};
use parking_lot::{Condvar, Mutex};

use super::{Node, Notice};
use crate::builder::BlockTemplate;
use crate::chain::{ChainError, Imported};
use crate::transaction;

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

    /// Waits for work; false if it is time to end.
    fn wait_for_work(&self) -> bool {
        let mut state = self.state.lock();
        while !state.work && !state.stop {
            self.changed.wait(&mut state);
        }
        state.work = false;
        !state.stop
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
        while self.node.signal.wait_for_work() {
            // More may be ready than fits one block. A block that included nothing will not include more next time:
            // then only a new arrival is a reason to try again.
            while self.make_block(false)? > 0 && !self.node.signal.stopping() {}
        }
        Ok(())
    }

    /// A block every `period`, with or without transactions.
    fn at_intervals(&self, period: std::time::Duration) -> Result<(), ChainError> {
        let mut due = Instant::now() + period;
        while self.node.signal.wait_until(due) {
            self.make_block(true)?;
            due = (due + period).max(Instant::now());
        }
        Ok(())
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
        };
        let imported = node.chain.build(&template, &mut selection)?;
        for (hash, reason) in selection.into_rejected() {
            tracing::warn!(%hash, reason, "transaction dropped");
            node.pool.remove(&hash);
        }
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
        let accounts = self
            .node
            .pool
            .known_senders(moved)
            .into_iter()
            .map(|sender| Ok((sender, self.node.sender_state(&sender)?)))
            .collect::<Result<Vec<_>, ChainError>>()?;
        for dropped in self.node.pool.advance(accounts) {
            tracing::warn!(hash = %dropped.hash, "transaction dropped: its sender can no longer pay for it");
        }
        Ok(())
    }
}
