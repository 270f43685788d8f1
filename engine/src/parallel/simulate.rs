//! What more cores would give: the schedule and its guesses run in virtual time, on times and conflicts that were measured.

use std::collections::BTreeSet;

use alloy_primitives::map::{AddressMap, HashMap};
use alloy_primitives::{Address, U256};

use super::contention::{Contention, Outline};
use super::schedule::{Schedule, Step};
use super::{Changes, Stream};

/// A transaction as the simulation knows it.
#[derive(Debug, Clone)]
pub struct Work {
    /// Seconds it executes.
    pub seconds: f64,
    /// Transactions whose changes it reads.
    pub after: Vec<u32>,
    /// Who signed it.
    pub sender: Address,
    /// Whom it calls; `None` creates.
    pub to: Option<Address>,
    /// Bytes of its calldata.
    pub data: usize,
}

/// What a simulation found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Simulated {
    /// From beginning to end.
    pub seconds: f64,
    /// Executions of transactions.
    pub executions: u64,
}

/// The same block on so many cores; `overhead` is what a transaction costs beside its execution, half of it where it is
/// committed.
pub fn simulate(block: &[Work], workers: usize, window: usize, overhead: f64) -> Simulated {
    let outlines = block.iter().map(|work| Outline {
        sender: work.sender,
        to: work.to,
        data: work.data,
    });
    let mut contention = Contention::new(outlines);
    let mut schedule = Schedule::new(block.len() as u32, window as u32);
    let mut finished = vec![f64::INFINITY; block.len()];
    let mut stale = vec![false; block.len()];
    let mut executions = 0;
    // What each worker is about, and until when; those without a step look for one whenever something ends.
    let mut busy: Vec<Option<(f64, Step)>> = vec![None; workers.max(1)];
    let mut now = 0.0;
    loop {
        for worker in &mut busy {
            if worker.is_some() {
                continue;
            }
            let step = schedule.next(&mut |index| contention.plan(index));
            let seconds = match step {
                Step::Execute(from, to) => {
                    let mut seconds = 0.0;
                    for index in from..to {
                        executions += 1;
                        let work = &block[index as usize];
                        let begins = now + seconds;
                        stale[index as usize] = work
                            .after
                            .iter()
                            .any(|other| *other < from && finished[*other as usize] > begins);
                        seconds += work.seconds + overhead / 2.0;
                    }
                    seconds
                }
                Step::Commit(from, to) => {
                    let mut seconds = 0.0;
                    for index in from..to {
                        seconds += overhead / 2.0;
                        if stale[index as usize] {
                            executions += 1;
                            seconds += block[index as usize].seconds;
                        }
                    }
                    seconds
                }
                Step::Sleep | Step::Leave => continue,
            };
            *worker = Some((now + seconds, step));
        }
        let next = busy.iter().enumerate().filter_map(|(at, worker)| {
            let (until, step) = (*worker)?;
            Some((until, at, step))
        });
        let Some((until, at, step)) = next.min_by(|a, b| a.0.total_cmp(&b.0)) else {
            break;
        };
        now = until;
        busy[at] = None;
        match step {
            Step::Execute(from, to) => {
                for index in from..to {
                    finished[index as usize] = now;
                }
                schedule.finished(from, to);
            }
            Step::Commit(from, to) => {
                for index in from..to {
                    if core::mem::take(&mut stale[index as usize]) {
                        finished[index as usize] = now;
                        let with = block[index as usize].after.iter().max().copied();
                        contention.failed(index, with);
                    } else {
                        contention.held(index);
                    }
                }
                schedule.committed(from, to);
            }
            Step::Sleep | Step::Leave => {}
        }
    }
    Simulated {
        seconds: now,
        executions,
    }
}

/// The shortest time in which so many cores can execute the block if all is known before and nothing costs anything: each
/// transaction begins, in order, as soon as what it reads is written and a core is free.
pub fn ideal(block: &[Work], workers: usize) -> f64 {
    let mut free = vec![0.0_f64; workers.max(1)];
    let mut finished = vec![0.0_f64; block.len()];
    for (index, work) in block.iter().enumerate() {
        let ready = work
            .after
            .iter()
            .map(|other| finished[*other as usize])
            .fold(0.0, f64::max);
        let Some(core) = free.iter_mut().min_by(|a, b| a.total_cmp(b)) else {
            return 0.0;
        };
        let end = core.max(ready) + work.seconds;
        *core = end;
        finished[index] = end;
    }
    finished.into_iter().fold(0.0, f64::max)
}

/// Collects which transactions read what which others changed.
#[derive(Debug, Default)]
pub struct Dependencies {
    /// By transaction, in order.
    pub after: Vec<Vec<u32>>,
    slots: HashMap<(Address, U256), u32>,
    balances: AddressMap<u32>,
    nonces: AddressMap<u32>,
    codes: AddressMap<u32>,
}

impl Stream for Dependencies {
    fn wants_accesses(&self) -> bool {
        true
    }

    fn accesses(&mut self, index: usize, changes: Changes<'_>) {
        let mut reads = BTreeSet::<u32>::new();
        let index = index as u32;
        for access in &changes.accounts {
            let address = access.address;
            let written = access.writes.iter().map(|(key, _)| key);
            for key in access.reads.iter().chain(written) {
                reads.extend(self.slots.get(&(address, *key)).copied());
            }
            reads.extend(self.codes.get(&address).copied());
            if access.saw_balance {
                reads.extend(self.balances.get(&address).copied());
            }
            if access.saw_nonce {
                reads.extend(self.nonces.get(&address).copied());
            }
        }
        for access in &changes.accounts {
            let address = access.address;
            for (key, _) in &access.writes {
                self.slots.insert((address, *key), index);
            }
            if access.code.is_some() || access.code_removed {
                self.codes.insert(address, index);
            }
            if access.balance.0 != access.balance.1 {
                self.balances.insert(address, index);
            }
            if access.nonce.0 != access.nonce.1 && !access.is_sender {
                self.nonces.insert(address, index);
            }
        }
        if let Some((beneficiary, before, after)) = changes.fee
            && before != after
        {
            self.balances.insert(beneficiary, index);
        }
        self.after.push(reads.into_iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(count: u32, after: impl Fn(u32) -> Vec<u32>) -> Vec<Work> {
        (0..count)
            .map(|index| Work {
                seconds: 1.0,
                after: after(index),
                sender: Address::with_last_byte(index as u8),
                to: Some(Address::with_last_byte(index as u8)),
                data: 4,
            })
            .collect()
    }

    #[test]
    fn what_is_not_in_each_others_way_takes_all_cores_and_a_chain_takes_one() {
        let free = block(64, |_| Vec::new());
        let chain = block(64, |index| index.checked_sub(1).into_iter().collect());
        assert_eq!(ideal(&free, 16), 4.0);
        assert_eq!(ideal(&chain, 16), 64.0);
        let simulated = simulate(&free, 16, 64, 0.0);
        assert_eq!((simulated.seconds, simulated.executions), (4.0, 64));
        let simulated = simulate(&chain, 16, 64, 0.0);
        assert!(
            simulated.seconds >= 64.0 && simulated.seconds < 80.0,
            "{simulated:?}"
        );
        assert_eq!(simulate(&free, 1, 64, 0.0).seconds, 64.0);
    }
}
