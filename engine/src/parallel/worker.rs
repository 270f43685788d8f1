//! The threads of a block: each takes its steps from the schedule until there are none.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use alloy_consensus::Transaction as _;
use alloy_primitives::Address;
use parking_lot::{Condvar, Mutex, MutexGuard};
use zvm_runtimes::evm::{
    FrameRunner, Machine, MachineError, ReadError, Speculation, StateReader, VersionReader,
    Versions,
};
use zvm_runtimes::revm::context::result::ExecutionResult;
use zvm_runtimes::revm::context::{BlockEnv, CfgEnv};

use super::contention::{Contention, Outline};
use super::schedule::{Schedule, Step};
use super::{Changes, Mode, Parallel, Readers, Statistics, Stream};
use crate::executor::{ExecutionError, Tally};
use crate::transaction::{self, Tx};

/// What is executed.
pub(super) struct Block<'b> {
    pub(super) transactions: &'b [(&'b Tx, Address)],
    pub(super) readers: &'b dyn Readers,
    pub(super) cfg: CfgEnv,
    pub(super) block: BlockEnv,
    pub(super) runner: Option<Arc<dyn FrameRunner>>,
    pub(super) mode: Mode,
    /// What transactions find is known before: none waits for another.
    pub(super) foreseen: bool,
}

/// Where what is certain goes.
pub(super) struct Committer<'c, 'r> {
    pub(super) tally: &'c mut Tally<'r>,
    pub(super) stream: &'c mut dyn Stream,
    pub(super) wants: bool,
    /// Place of the first transaction in the block.
    pub(super) first: usize,
}

/// What the workers share.
struct Shared<'b, 'c, 'r> {
    block: Block<'b>,
    versions: &'b Versions,
    plan: Mutex<Plan>,
    /// Told when there is work for a sleeping worker.
    work: Condvar,
    committer: Mutex<Committer<'c, 'r>>,
    failure: Mutex<Option<ExecutionError>>,
    executions: AtomicU64,
    conflicts: AtomicU64,
    disturb: Option<u64>,
    /// The block may be given back before its end, to go on in order.
    may_stop: bool,
}

struct Plan {
    schedule: Schedule,
    contention: Contention,
    sleepers: usize,
}

impl Plan {
    fn next(&mut self) -> Step {
        let contention = &mut self.contention;
        self.schedule.next(&mut |index| contention.plan(index))
    }
}

/// Executes a block, or its beginning if other workers turn out to be of no use: [`Statistics::transactions`] says how much.
pub(super) fn run<'b>(
    block: Block<'b>,
    parallel: &Parallel,
    window: usize,
    versions: &'b Versions,
    committer: Committer<'_, '_>,
) -> Result<Statistics, ExecutionError> {
    let transactions = block.transactions;
    let outlines = transactions.iter().map(|(tx, sender)| Outline {
        sender: *sender,
        to: Tx::to(tx),
        data: Tx::input(tx).len(),
    });
    let plan = Plan {
        schedule: Schedule::new(transactions.len() as u32, window as u32),
        contention: if block.foreseen {
            Contention::none(transactions.len())
        } else {
            Contention::new(outlines)
        },
        sleepers: 0,
    };
    // Only transactions executed here say what they read and change.
    let may_stop = !committer.wants;
    let shared = Shared {
        block,
        versions,
        plan: Mutex::new(plan),
        work: Condvar::new(),
        committer: Mutex::new(committer),
        failure: Mutex::new(None),
        executions: AtomicU64::new(0),
        conflicts: AtomicU64::new(0),
        disturb: parallel.disturb,
        may_stop,
    };
    let others = parallel.workers.get().min(transactions.len()) - 1;
    match &parallel.pool {
        Some(pool) => pool.in_place_scope(|scope| {
            for number in 1..=others {
                let shared = &shared;
                scope.spawn(move |_| shared.work(number));
            }
            shared.work(0);
        }),
        None => rayon::in_place_scope(|scope| {
            for number in 1..=others {
                let shared = &shared;
                scope.spawn(move |_| shared.work(number));
            }
            shared.work(0);
        }),
    }
    if let Some(failure) = shared.failure.into_inner() {
        return Err(failure);
    }
    Ok(Statistics {
        transactions: u64::from(shared.plan.into_inner().schedule.committed_count()),
        executions: shared.executions.into_inner(),
        conflicts: shared.conflicts.into_inner(),
        in_order: 0,
    })
}

/// Lets the other workers go if this one panics: nobody would wake them.
struct OnPanic<'a, 'b, 'c, 'r>(&'a Shared<'b, 'c, 'r>);

impl Drop for OnPanic<'_, '_, '_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}

impl Shared<'_, '_, '_> {
    fn stop(&self) {
        self.plan.lock().schedule.stop();
        self.work.notify_all();
    }

    fn fail(&self, error: ExecutionError) {
        self.failure.lock().get_or_insert(error);
        self.stop();
    }

    fn work(&self, number: usize) {
        let _on_panic = OnPanic(self);
        if number > 0 && self.plan.lock().next_is_none() {
            return;
        }
        match self.block.readers.open() {
            Ok(base) => {
                let reader = VersionReader::new(self.versions, &*base);
                Worker::new(self, &reader, number).work();
            }
            Err(error) => self.fail(error.into()),
        }
    }

    /// The next step; sleeps until there is one.
    fn next(&self, mut plan: MutexGuard<'_, Plan>) -> Step {
        loop {
            let step = plan.next();
            if step != Step::Sleep {
                if plan.sleepers > 0 && plan.schedule.has_work_for_another() {
                    self.work.notify_one();
                }
                return step;
            }
            plan.sleepers += 1;
            self.work.wait(&mut plan);
            plan.sleepers -= 1;
        }
    }
}

impl Plan {
    /// Nothing is left to begin: a worker that comes late has nothing to do.
    fn next_is_none(&self) -> bool {
        self.schedule.is_dispatched()
    }
}

/// A thread of the block.
struct Worker<'w, 'b, 'c, 'r> {
    shared: &'w Shared<'b, 'c, 'r>,
    reader: &'w VersionReader<'w>,
    machine: Machine<'w>,
    /// What was executed last, until it is published; then what was published a window ago.
    spare: Speculation,
    executions: u64,
    conflicts: u64,
    disturbance: Option<u64>,
    /// Of the transactions committed last: whether they held, and what was in their way.
    outcomes: Vec<(u32, Option<Option<u32>>)>,
}

impl<'w, 'b, 'c, 'r> Worker<'w, 'b, 'c, 'r> {
    fn new(shared: &'w Shared<'b, 'c, 'r>, reader: &'w VersionReader<'w>, number: usize) -> Self {
        let Block {
            cfg, block, runner, ..
        } = &shared.block;
        let mut machine = Machine::early(cfg.clone(), block.clone(), reader);
        if let Some(runner) = runner {
            machine.set_runner(Arc::clone(runner));
        }
        Self {
            shared,
            reader,
            machine,
            spare: Speculation::default(),
            executions: 0,
            conflicts: 0,
            disturbance: shared.disturb.map(|seed| seed ^ (number as u64 + 1) << 32),
            outcomes: Vec::new(),
        }
    }

    fn work(mut self) {
        let mut step = self.shared.next(self.shared.plan.lock());
        loop {
            self.disturb();
            step = match step {
                Step::Execute(from, to) => {
                    for index in from..to {
                        self.execute(index, false);
                        self.shared.versions.publish(index, &mut self.spare);
                    }
                    self.disturb();
                    let mut plan = self.shared.plan.lock();
                    plan.schedule.finished(from, to);
                    self.shared.next(plan)
                }
                Step::Commit(from, to) => {
                    if self.commit(from, to).is_break() {
                        break;
                    }
                    let mut plan = self.shared.plan.lock();
                    for (index, failed) in self.outcomes.drain(..) {
                        match failed {
                            None => plan.contention.held(index),
                            Some(with) => plan.contention.failed(index, with),
                        }
                    }
                    plan.schedule.committed(from, to);
                    if self.shared.may_stop && plan.contention.is_serial() {
                        plan.schedule.stop();
                    }
                    if plan.sleepers > 0 && plan.schedule.has_work_for_another() {
                        self.shared.work.notify_all();
                    }
                    self.shared.next(plan)
                }
                Step::Sleep | Step::Leave => break,
            };
        }
        let shared = self.shared;
        shared
            .executions
            .fetch_add(self.executions, Ordering::Relaxed);
        shared
            .conflicts
            .fetch_add(self.conflicts, Ordering::Relaxed);
    }

    fn execute(&mut self, index: u32, in_turn: bool) {
        let (tx, sender) = self.shared.block.transactions[index as usize];
        let env = transaction::tx_env(tx, sender);
        self.executions += 1;
        let spare = &mut self.spare;
        self.machine
            .execute_early(index, env, self.reader, spare, in_turn);
    }

    /// Decides about finished transactions.
    fn commit(&mut self, from: u32, to: u32) -> ControlFlow<()> {
        let shared = self.shared;
        let mut committer = shared.committer.lock();
        for index in from..to {
            if let Err(error) = self.commit_one(index, &mut committer) {
                shared.fail(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn commit_one(
        &mut self,
        index: u32,
        committer: &mut Committer<'_, '_>,
    ) -> Result<(), ExecutionError> {
        let shared = self.shared;
        let versions = shared.versions;
        let base = self.reader.base();
        let (tx, _) = shared.block.transactions[index as usize];
        let admitted = committer.tally.admit(tx);
        let decided = versions.take(index, base, |speculation, check| {
            if let Err(error) = admitted {
                return (false, Decided::Refused(error));
            }
            if let Err(conflict) = check {
                return (false, Decided::Again(conflict.with));
            }
            // A result that holds is one.
            let Some(Ok(result)) = speculation.result.take() else {
                return (false, Decided::Again(None));
            };
            match committer.include(index, tx, result, versions, speculation, base) {
                Ok(()) => (true, Decided::Included),
                Err(error) => (false, Decided::Refused(error)),
            }
        })?;
        let outcome = match decided {
            Decided::Included => {
                self.outcomes.push((index, None));
                return Ok(());
            }
            Decided::Refused(error) => Err(error),
            Decided::Again(with) => {
                self.conflicts += 1;
                self.outcomes.push((index, Some(with)));
                self.execute(index, true);
                let speculation = &mut self.spare;
                match speculation.result.take() {
                    Some(Ok(result)) => committer
                        .include(index, tx, result, versions, speculation, base)
                        .and_then(|()| Ok(versions.keep(index, speculation, base)?)),
                    Some(Err(error)) => Err(committer.tally.refusal(error)),
                    None => Err(MachineError::State(ReadError::new("nothing was executed")).into()),
                }
            }
        };
        match outcome {
            Err(error) if shared.block.mode == Mode::Building && error.is_invalid_block() => {
                let place = committer.first + index as usize;
                committer.stream.skipped(place, error);
                Ok(())
            }
            other => other,
        }
    }

    /// For tests: gives other threads the time to do what they rarely do.
    fn disturb(&mut self) {
        let Some(state) = &mut self.disturbance else {
            return;
        };
        // xorshift64
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        match *state % 8 {
            0 => std::thread::sleep(std::time::Duration::from_micros(*state >> 8 & 0x3f)),
            1..=3 => std::thread::yield_now(),
            _ => {}
        }
    }
}

/// What became of a transaction in its turn.
enum Decided {
    Included,
    Refused(ExecutionError),
    /// It had read what was not so; perhaps because of that transaction.
    Again(Option<u32>),
}

impl Committer<'_, '_> {
    /// Adds the next transaction of the block, whose changes will be kept.
    fn include(
        &mut self,
        index: u32,
        tx: &Tx,
        result: ExecutionResult,
        versions: &Versions,
        speculation: &Speculation,
        base: &dyn StateReader,
    ) -> Result<(), ExecutionError> {
        self.tally.take_deposits(&result)?;
        let place = self.first + index as usize;
        if self.wants {
            let fee = match speculation.fee() {
                Some(fee) => {
                    let before = versions.beneficiary_balance(base)?;
                    let after = before.checked_add(fee).unwrap_or(before);
                    Some((versions.beneficiary(), before, after))
                }
                None => None,
            };
            let accounts = versions.accesses(speculation).collect();
            self.stream.accesses(place, Changes { accounts, fee });
        }
        let receipt = self.tally.count(tx, result, None);
        self.stream.included(place, receipt);
        Ok(())
    }
}
