//! The stages of block production, a thread each: execute, seal, write, announce.
//!
//! Queues between them hold as many blocks as may be in flight. A block is acknowledged, by notices, by the head and by
//! all that is read from the store, when it has been written. A stage that fails says so, and those before and behind it
//! end: blocks behind the failure were never acknowledged.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::producer::Producer;
use super::{Node, Notice};
use crate::chain::{ChainError, Imported};
use crate::pipeline::{Executed, Flight, Layer, Sealed};
use crate::pool::{SenderState, log_unpayable};

/// A part of what happens to a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Execute,
    Seal,
    Write,
    Announce,
}

/// How long the stages of block production have worked, since the node was started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StageTimes {
    /// Transactions of blocks.
    pub execute: Duration,
    /// Roots and hashes.
    pub seal: Duration,
    /// Durable writes.
    pub write: Duration,
    /// The pool and the listeners.
    pub announce: Duration,
}

/// Nanoseconds by stage.
#[derive(Debug, Default)]
pub(super) struct Clocks([AtomicU64; 4]);

impl Clocks {
    fn add(&self, stage: Stage, since: Instant) {
        let elapsed = u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0[stage as usize].fetch_add(elapsed, Ordering::Relaxed);
    }

    fn read(&self, stage: Stage) -> Duration {
        Duration::from_nanos(self.0[stage as usize].load(Ordering::Relaxed))
    }
}

/// The blocks in flight, which the stages share.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Executed and not durable, in the order of their numbers.
    flights: VecDeque<Arc<Flight>>,
    /// The first of them, as far as they are sealed.
    layers: VecDeque<Layer>,
    /// A stage has failed: what is in flight will not be durable.
    failed: bool,
}

impl InFlight {
    /// Waits until at most `most` blocks are in flight; false if a stage has failed.
    pub(super) fn wait_below(&self, most: usize) -> bool {
        let mut state = self.state.lock();
        while state.flights.len() > most && !state.failed {
            self.changed.wait(&mut state);
        }
        !state.failed
    }

    pub(super) fn flights(&self) -> Vec<Arc<Flight>> {
        self.state.lock().flights.iter().cloned().collect()
    }

    pub(super) fn begin(&self, flight: &Arc<Flight>) {
        let mut state = self.state.lock();
        if state.failed {
            flight.land(None);
        }
        state.flights.push_back(Arc::clone(flight));
    }

    fn layers(&self) -> Vec<Layer> {
        self.state.lock().layers.iter().cloned().collect()
    }

    fn sealed(&self, layer: Layer) {
        self.state.lock().layers.push_back(layer);
    }

    /// The first block in flight is durable.
    fn end(&self) {
        let mut state = self.state.lock();
        state.flights.pop_front();
        state.layers.pop_front();
        self.changed.notify_all();
    }

    /// Nothing in flight will be durable: who waits for it need not. False if that was known.
    fn fail(&self) -> bool {
        let mut state = self.state.lock();
        let first = !core::mem::replace(&mut state.failed, true);
        for flight in &state.flights {
            flight.land(None);
        }
        self.changed.notify_all();
        first
    }
}

impl Node {
    /// How long the stages have worked.
    pub fn stage_times(&self) -> StageTimes {
        let read = |stage| self.clocks.read(stage);
        StageTimes {
            execute: read(Stage::Execute),
            seal: read(Stage::Seal),
            write: read(Stage::Write),
            announce: read(Stage::Announce),
        }
    }

    pub(super) fn timed<T>(&self, stage: Stage, work: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        let result = work();
        self.clocks.add(stage, since);
        result
    }

    /// Makes blocks until the node is stopped or a stage fails; what is in flight then is made durable first.
    pub(super) fn make_blocks(&self) {
        let in_flight = InFlight::default();
        let bound = self.settings.in_flight + 1;
        let (to_seal, executed) = sync_channel(bound);
        let (to_write, sealed) = sync_channel(bound);
        let (to_announce, written) = sync_channel(bound);
        let shared = &in_flight;
        std::thread::scope(|threads| {
            let spawned = [
                self.spawn(threads, "block-sealer", shared, move || {
                    self.seal(shared, executed, to_write)
                }),
                self.spawn(threads, "block-writer", shared, move || {
                    self.write(shared, sealed, to_announce)
                }),
                self.spawn(threads, "block-announcer", shared, move || {
                    self.announce(written)
                }),
            ];
            let producer = Producer::new(self, shared, to_seal);
            if spawned.into_iter().all(|started| started) {
                self.stage(shared, || producer.run());
            }
        });
    }

    /// Starts the thread of a stage; a failure of that is one of the stage.
    fn spawn<'s, 'n: 's>(
        &'n self,
        threads: &'s Scope<'s, 'n>,
        name: &str,
        in_flight: &'n InFlight,
        work: impl FnOnce() -> Result<(), ChainError> + Send + 's,
    ) -> bool {
        let started = std::thread::Builder::new()
            .name(name.into())
            .spawn_scoped(threads, move || self.stage(in_flight, work));
        if let Err(error) = &started
            && in_flight.fail()
        {
            self.fail(&format!("a thread could not be started: {error}"));
        }
        started.is_ok()
    }

    /// Runs a stage to its end and tells of its failure.
    fn stage(&self, in_flight: &InFlight, work: impl FnOnce() -> Result<(), ChainError>) {
        // A panic here would leave a node that takes transactions and never includes them.
        let reason = match catch_unwind(AssertUnwindSafe(work)) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a stage of block production panicked".to_owned(),
        };
        // What others fail with afterwards is a consequence.
        if in_flight.fail() {
            self.fail(&reason);
        }
    }

    fn seal(
        &self,
        in_flight: &InFlight,
        executed: Receiver<Executed>,
        next: SyncSender<Sealed>,
    ) -> Result<(), ChainError> {
        for block in executed {
            let below = in_flight.layers();
            let sealed = self.timed(Stage::Seal, || self.chain.seal(block, &below))?;
            in_flight.sealed(sealed.layer());
            if next.send(sealed).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn write(
        &self,
        in_flight: &InFlight,
        sealed: Receiver<Sealed>,
        next: SyncSender<(Imported, Arc<Flight>)>,
    ) -> Result<(), ChainError> {
        for block in sealed {
            let flight = Arc::clone(block.flight());
            let imported = self.timed(Stage::Write, || self.chain.append(block))?;
            in_flight.end();
            if next.send((imported, flight)).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn announce(&self, written: Receiver<(Imported, Arc<Flight>)>) -> Result<(), ChainError> {
        for (block, flight) in written {
            self.timed(Stage::Announce, || self.announce_block(block, &flight));
        }
        Ok(())
    }

    fn announce_block(&self, imported: Imported, flight: &Flight) {
        let header = &imported.block.header;
        // All accounts the block has changed: among them are those whose nonces it moved, as senders or by authorizing a
        // delegation (EIP-7702).
        let accounts = flight.changes.accounts.iter().map(|(address, change)| {
            let info = change.info.unwrap_or_default();
            let state = SenderState {
                nonce: info.nonce,
                balance: info.balance,
            };
            (*address, state)
        });
        log_unpayable(&self.pool.advance(header.number, accounts));
        tracing::info!(
            number = header.number,
            hash = %imported.hash,
            transactions = imported.block.body.transactions.len(),
            gas = header.gas_used,
            "block"
        );
        self.notify(&Notice::Block(Arc::new(imported)));
        // What was held may be ready now.
        self.signal.work();
    }
}
