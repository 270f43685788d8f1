//! The thread that makes blocks.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use alloy_primitives::{B256, keccak256};
use parking_lot::{Condvar, Mutex};
use zvm_runtimes::evm::Fork;

use super::stages::{InFlight, Stage};
use super::{GATHER_EACH, Node};
use crate::builder::BlockTemplate;
use crate::chain::ChainError;
use crate::pipeline::{Executed, Flight, Parent};

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
}

/// Executes blocks until the node is stopped or a block cannot be made.
pub(super) struct Producer<'n> {
    node: &'n Node,
    in_flight: &'n InFlight,
    /// To who seals them.
    executed: SyncSender<Executed>,
}

impl<'n> Producer<'n> {
    pub(super) fn new(
        node: &'n Node,
        in_flight: &'n InFlight,
        executed: SyncSender<Executed>,
    ) -> Self {
        Self {
            node,
            in_flight,
            executed,
        }
    }

    pub(super) fn run(self) -> Result<(), ChainError> {
        match self.node.settings.block_time {
            None => self.on_demand(),
            Some(period) => self.at_intervals(period),
        }
    }

    /// A block whenever something is ready. What arrives while as many blocks as may be are in flight goes into the next.
    fn on_demand(&self) -> Result<(), ChainError> {
        let mut expiry = Instant::now() + EXPIRY_PERIOD;
        let mut next = Instant::now();
        loop {
            match self.node.signal.wait_for_work(expiry) {
                // More may be ready than fits one block. Where nothing could be included, only a new arrival or a new
                // head is a reason to try again.
                Woken::Work => {
                    while self.node.signal.wait_until(next) {
                        let begun = Instant::now();
                        let count = self.make_block(false)?;
                        if count == 0 {
                            break;
                        }
                        let each = u32::try_from(count).unwrap_or(u32::MAX);
                        let apart = GATHER_EACH.saturating_mul(each);
                        next = begun + apart.min(self.node.settings.gather);
                    }
                }
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

    /// Executes a block of what is ready, hands it on and returns how many transactions it has.
    fn make_block(&self, even_if_empty: bool) -> Result<usize, ChainError> {
        let node = self.node;
        // First, so that the block takes what comes meanwhile.
        if !self.in_flight.wait_below(node.settings.in_flight) {
            return Ok(0);
        }
        let (mut parent, mut flights) = self.parent();
        let mut next = node.block_on(parent.header(), parent.total_difficulty());
        if next.fork < Fork::Byzantium && !flights.is_empty() {
            // The receipts hold state roots: they need the parent's.
            if !self.in_flight.wait_below(0) {
                return Ok(0);
            }
            (parent, flights) = self.parent();
            next = node.block_on(parent.header(), parent.total_difficulty());
        }
        let mut selection = node.pool.select(next.base_fee, next.blob_gas_price);
        if selection.is_empty() && !even_if_empty {
            return Ok(0);
        }
        let above = parent.header();
        let template = BlockTemplate {
            timestamp: next.timestamp,
            beneficiary: node.settings.beneficiary,
            gas_limit: node.target_gas_limit(above),
            // Without a beacon chain there is no secret to draw from: a value that differs from block to block, and that
            // is known before the parent's hash.
            prev_randao: keccak256(
                [
                    above.mix_hash.0,
                    B256::left_padding_from(&above.number.to_be_bytes()).0,
                ]
                .concat(),
            ),
            extra_data: node.settings.extra_data.clone(),
            parent_beacon_block_root: B256::ZERO,
            not_empty: !even_if_empty,
        };
        let executed = node.timed(Stage::Execute, || {
            node.chain
                .execute(parent.clone(), &flights, &template, &mut selection)
        });
        for (hash, reason) in selection.into_rejected() {
            tracing::warn!(%hash, reason, "transaction dropped");
            node.pool.remove(&hash);
        }
        let executed = match executed {
            Ok(executed) => executed,
            Err(ChainError::NothingIncluded) => return Ok(0),
            Err(error) => return Err(error),
        };
        let count = executed.transactions();
        self.in_flight.begin(executed.flight());
        // Who seals has failed, and said so.
        if self.executed.send(executed).is_err() {
            return Ok(0);
        }
        Ok(count)
    }

    /// What the next block follows, with the blocks in flight up to it.
    fn parent(&self) -> (Parent, Vec<Arc<Flight>>) {
        // Before the head: what leaves flight in between is the head.
        let flights = self.in_flight.flights();
        match flights.last() {
            Some(last) => (Parent::InFlight(Arc::clone(last)), flights),
            None => (Parent::Durable(self.node.chain.head()), flights),
        }
    }
}
