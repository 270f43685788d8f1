//! Who executes what, and who commits: the logic alone, without threads, memory or clock.
//!
//! A transaction is parked behind its predecessor or dispatched, then it is finished, then committed. Transactions are
//! dispatched in order, save for those parked, which are ready once their predecessor is finished; at most `window` run ahead
//! of what is committed. One worker at a time commits: whoever comes by when the next transaction in order is finished.
//! Nobody waits for anybody else except when there is nothing to do.

/// No transaction.
const NONE: u32 = u32::MAX;

/// What a worker does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Executes the transactions from the first up to but not including the second, and says so by [`Schedule::finished`].
    Execute(u32, u32),
    /// Decides about finished transactions, in order, and says so by [`Schedule::committed`].
    Commit(u32, u32),
    /// There is nothing to do before another worker has said something.
    Sleep,
    /// There is nothing to do any more.
    Leave,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Stage {
    /// Not dispatched.
    Waiting,
    /// Behind its predecessor.
    Parked,
    /// A worker executes it.
    Running,
    /// Executed and published.
    Finished,
    /// Decided about.
    Committed,
}

/// How many transactions are committed at a time before the worker looks around again.
const COMMIT_RUN: u32 = 16;

/// The state of a block's transactions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Schedule {
    stages: Vec<Stage>,
    window: u32,
    /// The first that was never dispatched nor parked.
    next: u32,
    /// The first that is not committed.
    committed: u32,
    committing: bool,
    /// Parked transactions whose predecessor is finished, the first of them last.
    ready: Vec<u32>,
    /// By predecessor: the last transaction parked behind it.
    parked: Vec<u32>,
    /// By parked transaction: another one parked behind the same predecessor.
    sibling: Vec<u32>,
    parked_count: u32,
    stopped: bool,
}

impl Schedule {
    /// A block of `count` transactions of which `window` may run ahead.
    pub(super) fn new(count: u32, window: u32) -> Self {
        let count_usize = count as usize;
        Self {
            stages: vec![Stage::Waiting; count_usize],
            window: window.max(1),
            next: 0,
            committed: 0,
            committing: false,
            ready: Vec::new(),
            parked: vec![NONE; count_usize],
            sibling: vec![NONE; count_usize],
            parked_count: 0,
            stopped: false,
        }
    }

    fn count(&self) -> u32 {
        self.stages.len() as u32
    }

    fn stage(&self, index: u32) -> Stage {
        self.stages[index as usize]
    }

    /// The next step of a worker that has none. `plan` says of a transaction which one it must come after, if any, and how many
    /// from it on, at least one, are worth taking at once; those after the first must not have a predecessor before it.
    pub(super) fn next(&mut self, plan: &mut dyn FnMut(u32) -> (Option<u32>, u32)) -> Step {
        if self.stopped || self.committed == self.count() {
            return Step::Leave;
        }
        if !self.committing && self.stage(self.committed) == Stage::Finished {
            self.committing = true;
            let from = self.committed;
            let most = self.count().min(from + COMMIT_RUN);
            let to = (from..most).find(|index| self.stage(*index) != Stage::Finished);
            return Step::Commit(from, to.unwrap_or(most));
        }
        if let Some(index) = self.ready.pop() {
            self.parked_count -= 1;
            self.stages[index as usize] = Stage::Running;
            return Step::Execute(index, index + 1);
        }
        while self.next < self.limit() {
            let index = self.next;
            let (predecessor, many) = plan(index);
            let waits = predecessor.filter(|other| {
                *other < index && matches!(self.stage(*other), Stage::Running | Stage::Parked)
            });
            if let Some(other) = waits {
                self.stages[index as usize] = Stage::Parked;
                self.sibling[index as usize] = self.parked[other as usize];
                self.parked[other as usize] = index;
                self.parked_count += 1;
                self.next += 1;
                continue;
            }
            let end = index.saturating_add(many.max(1)).min(self.limit());
            self.stages[index as usize..end as usize].fill(Stage::Running);
            self.next = end;
            return Step::Execute(index, end);
        }
        if self.is_dispatched() {
            // Whoever finishes last commits.
            return Step::Leave;
        }
        Step::Sleep
    }

    /// How many transactions are committed.
    pub(super) fn committed_count(&self) -> u32 {
        self.committed
    }

    /// Whether every transaction was dispatched, so that a worker that comes now is not needed.
    pub(super) fn is_dispatched(&self) -> bool {
        self.stopped || (self.next == self.count() && self.parked_count == 0)
    }

    fn limit(&self) -> u32 {
        self.committed.saturating_add(self.window).min(self.count())
    }

    /// Transactions were executed and published.
    pub(super) fn finished(&mut self, from: u32, to: u32) {
        for index in from..to {
            self.stages[index as usize] = Stage::Finished;
            let mut follower = core::mem::replace(&mut self.parked[index as usize], NONE);
            while follower != NONE {
                self.ready.push(follower);
                follower = core::mem::replace(&mut self.sibling[follower as usize], NONE);
            }
        }
        self.ready.sort_unstable_by(|a, b| b.cmp(a));
    }

    /// Transactions were decided about.
    pub(super) fn committed(&mut self, from: u32, to: u32) {
        self.stages[from as usize..to as usize].fill(Stage::Committed);
        self.committed = to;
        self.committing = false;
    }

    /// The block ends here: nothing more is decided about.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Whether a worker that sleeps is worth waking, by one that is awake and goes on itself.
    pub(super) fn has_work_for_another(&self) -> bool {
        self.stopped
            || self.committed == self.count()
            || self.ready.len() > 1
            || (self.next < self.count()
                && self.limit() - self.next > (self.window / 2).min(self.count() - self.next - 1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashSet, VecDeque};

    use super::*;

    /// What a worker of the model is about.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    enum Doing {
        Nothing,
        Step(u32, u32, bool),
        Asleep,
        Gone,
    }

    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    struct World {
        schedule: Schedule,
        workers: Vec<Doing>,
        executed: Vec<u8>,
        decided: u32,
    }

    /// Every order in which the workers of a small block can do what they do. Returns how many different situations there are.
    fn explore(
        workers: usize,
        predecessors: &[Option<u32>],
        window: u32,
        many: u32,
        stop_at: Option<u32>,
    ) -> usize {
        let count = predecessors.len() as u32;
        let first = World {
            schedule: Schedule::new(count, window),
            workers: vec![Doing::Nothing; workers],
            executed: vec![0; count as usize],
            decided: 0,
        };
        let mut seen = HashSet::from([first.clone()]);
        let mut open = VecDeque::from([first]);
        while let Some(world) = open.pop_front() {
            let mut moved = false;
            for at in 0..workers {
                let mut next = world.clone();
                match next.workers[at] {
                    Doing::Gone | Doing::Asleep => continue,
                    Doing::Nothing => {
                        let mut plan = |index: u32| (predecessors[index as usize], many);
                        next.workers[at] = match next.schedule.next(&mut plan) {
                            Step::Execute(from, to) => {
                                assert!(from < to && to <= next.decided + window);
                                for index in from..to {
                                    let before = predecessors[index as usize];
                                    let before = before.filter(|b| *b < from);
                                    assert!(
                                        many > 1 && index > from
                                            || before
                                                .is_none_or(|b| next.executed[b as usize] == 1),
                                        "{index} begins before its predecessor ends"
                                    );
                                }
                                Doing::Step(from, to, false)
                            }
                            Step::Commit(from, to) => {
                                assert_eq!(from, next.decided, "in order");
                                assert!((from..to).all(|i| next.executed[i as usize] == 1));
                                let other = |doing: &Doing| matches!(doing, Doing::Step(.., true));
                                assert!(!next.workers.iter().any(other), "one at a time");
                                Doing::Step(from, to, true)
                            }
                            Step::Sleep => Doing::Asleep,
                            Step::Leave => Doing::Gone,
                        };
                    }
                    Doing::Step(from, to, false) => {
                        for index in from..to {
                            next.executed[index as usize] += 1;
                            assert_eq!(next.executed[index as usize], 1, "executed once");
                        }
                        next.schedule.finished(from, to);
                        next.workers[at] = Doing::Nothing;
                        wake(&mut next);
                    }
                    Doing::Step(from, to, true) => {
                        next.decided = to;
                        next.schedule.committed(from, to);
                        if stop_at.is_some_and(|stop| stop < to) {
                            next.schedule.stop();
                        }
                        next.workers[at] = Doing::Nothing;
                        wake(&mut next);
                    }
                }
                moved = true;
                if seen.insert(next.clone()) {
                    open.push_back(next);
                }
            }
            if !moved {
                // Nobody can do anything more: then all is done, nobody sleeps for ever.
                let done = stop_at.map_or(count, |stop| world.decided.min(stop + 1));
                assert!(world.decided >= done, "stuck: {world:?}");
                let asleep = world.workers.contains(&Doing::Asleep);
                assert!(!asleep, "asleep at the end: {world:?}");
            }
        }
        seen.len()
    }

    fn wake(world: &mut World) {
        if world.schedule.has_work_for_another() {
            for worker in &mut world.workers {
                if *worker == Doing::Asleep {
                    *worker = Doing::Nothing;
                }
            }
        }
    }

    #[test]
    fn every_order_of_steps_ends_with_all_committed_once_and_in_order() {
        let chains: [&[Option<u32>]; 6] = [
            &[None, None, None, None],
            &[None, Some(0), Some(1), Some(2)],
            &[None, None, Some(0), Some(0)],
            &[None, Some(0), None, Some(2), Some(2)],
            &[None, None, Some(1), None, Some(0), Some(4)],
            &[None, Some(0), Some(0), Some(0), Some(3)],
        ];
        let mut situations = 0;
        for predecessors in chains {
            for workers in 1..=3 {
                for window in [1, 2, 4, 16] {
                    situations += explore(workers, predecessors, window, 1, None);
                    let stop = Some(predecessors.len() as u32 / 2);
                    situations += explore(workers, predecessors, window, 1, stop);
                }
            }
        }
        for workers in 1..=3 {
            situations += explore(workers, &[None; 6], 4, 3, None);
        }
        assert!(situations > 10_000, "{situations}");
    }

    #[test]
    fn a_chain_runs_on_one_worker_while_the_other_sleeps() {
        let mut schedule = Schedule::new(100, 64);
        let mut chain = |index: u32| (index.checked_sub(1), 1);
        assert_eq!(schedule.next(&mut chain), Step::Execute(0, 1));
        assert_eq!(schedule.next(&mut chain), Step::Sleep);
        let mut woken = 0;
        for index in 0..99 {
            schedule.finished(index, index + 1);
            assert_eq!(schedule.next(&mut chain), Step::Commit(index, index + 1));
            schedule.committed(index, index + 1);
            if schedule.has_work_for_another() {
                woken += 1;
                assert_eq!(
                    schedule.next(&mut |i| (i.checked_sub(1), 1)),
                    Step::Execute(index + 1, index + 2)
                );
                assert_eq!(schedule.next(&mut chain), Step::Sleep);
            } else {
                assert_eq!(
                    schedule.next(&mut chain),
                    Step::Execute(index + 1, index + 2)
                );
            }
        }
        assert!(woken <= 3, "{woken}");
    }
}
