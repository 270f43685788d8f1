//! Blocks on several cores beside plain revm on one, in one run: wall time, and processor time of the whole process.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use alloy_consensus::Transaction as _;
use serde::Serialize;
use zvm_engine::fixtures::replay::{RecordedBlock, median};
use zvm_engine::fixtures::runner::process_cpu_time;
use zvm_engine::parallel::simulate::{Dependencies, Work, ideal, simulate};
use zvm_engine::parallel::{DEFAULT_WINDOW, Parallel, Stream};
use zvm_engine::view::state_diff;
use zvm_runtimes::evm::Fork;
use zvm_storage::StoredReceipt;

use crate::blocks::BlocksRun;
use crate::side::Runner;

/// One way of executing a block.
#[derive(Debug, Clone, Copy)]
enum Side<'p> {
    Plain,
    Ours(&'p Parallel),
}

/// Seconds.
#[derive(Debug, Clone, Copy)]
struct Sample {
    wall: f64,
    cpu: f64,
}

/// What executing blocks with several numbers of threads found.
#[derive(Debug)]
pub struct Compared {
    /// One entry a number of threads.
    pub runs: Vec<BlocksRun>,
    /// Every number of threads gave the receipts and the changes of the first, and the gas of plain revm.
    pub equal: bool,
}

/// Executes every block `repetitions` times by plain revm and with each number of threads, taking turns.
///
/// # Errors
/// A block that does not execute, and the message names it; there are no threads.
pub fn compare_threads(
    blocks: &[RecordedBlock],
    repetitions: usize,
    threads: &[NonZeroUsize],
    runner: &Runner,
) -> Result<Compared, String> {
    let most = threads.iter().map(|count| count.get()).max().unwrap_or(1);
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(most.saturating_sub(1).max(1))
        .build()
        .map_err(|error| error.to_string())?;
    let pool = Arc::new(pool);
    let ways: Vec<Parallel> = threads
        .iter()
        .map(|count| Parallel {
            pool: Some(Arc::clone(&pool)),
            ..Parallel::with_workers(*count)
        })
        .collect();
    let sides: Vec<Side<'_>> = core::iter::once(Side::Plain)
        .chain(ways.iter().map(Side::Ours))
        .collect();
    let mut totals = vec![
        Sample {
            wall: 0.0,
            cpu: 0.0
        };
        sides.len()
    ];
    let mut executions = vec![0_u64; sides.len()];
    let mut equal = true;
    for block in blocks {
        let named = |reason: String| format!("block {}: {reason}", block.header.number);
        let envs = block.tx_envs();
        let (mut gas, mut first) = (0, None);
        let mut samples = vec![Vec::with_capacity(repetitions); sides.len()];
        for repetition in 0..=repetitions {
            for place in 0..sides.len() {
                let side = (place + repetition) % sides.len();
                let (sample, executed) = match sides[side] {
                    Side::Plain => {
                        let (wall, cpu) = (Instant::now(), process_cpu_time());
                        let outcome = block.execute_plain(&envs).map_err(named)?;
                        let sample = since(wall, cpu);
                        gas = outcome
                            .results
                            .iter()
                            .map(|result| result.tx_gas_used())
                            .sum();
                        (sample, envs.len() as u64)
                    }
                    Side::Ours(parallel) => {
                        let (wall, cpu) = (Instant::now(), process_cpu_time());
                        let executed = block.execute_on(runner.frames(), parallel, &mut ());
                        let sample = since(wall, cpu);
                        let (outcome, statistics) = executed.map_err(named)?;
                        if repetition == 0 {
                            let last = outcome.receipts.last();
                            equal &= last.map_or(0, |last| last.cumulative_gas_used) == gas;
                            let ours = (state_diff(&outcome.state), outcome.receipts);
                            equal &= *first.get_or_insert_with(|| ours.clone()) == ours;
                        }
                        (sample, statistics.executions)
                    }
                };
                // The first round finds cold caches.
                if repetition > 0 {
                    samples[side].push(sample);
                    executions[side] += executed;
                }
            }
        }
        for (total, samples) in totals.iter_mut().zip(samples) {
            total.wall += median(samples.iter().map(|sample| sample.wall).collect());
            total.cpu += median(samples.iter().map(|sample| sample.cpu).collect());
        }
    }
    let transactions: usize = blocks.iter().map(|block| block.transactions.len()).sum();
    let executed = (transactions * repetitions) as f64;
    let plain = totals[0];
    let runs = threads.iter().zip(&totals[1..]).zip(&executions[1..]);
    let runs = runs
        .map(|((threads, ours), executions)| BlocksRun {
            threads: threads.get(),
            wall_ms: ours.wall * 1e3,
            cpu_ms: ours.cpu * 1e3,
            plain_wall_ms: plain.wall * 1e3,
            plain_cpu_ms: plain.cpu * 1e3,
            wall_ratio: plain.wall / ours.wall,
            cpu_ratio: plain.cpu / ours.cpu,
            executions_per_tx: *executions as f64 / executed,
        })
        .collect();
    Ok(Compared { runs, equal })
}

/// What more cores would give, as far as the schedule goes: memory and its bandwidth are those of one core.
#[derive(Debug, Clone, Serialize)]
pub struct Simulation {
    /// Cores.
    pub workers: usize,
    /// In order / with so many cores: the median over blocks, weighted by gas, over blocks that spend gas.
    pub speedup: f64,
    /// The same if all conflicts were known before and nothing cost anything.
    pub ideal: f64,
    /// speedup / ideal, the same median of the quotients.
    pub recovered: f64,
    /// Executions of a transaction.
    pub executions_per_tx: f64,
}

/// Notes when each transaction is done.
#[derive(Default)]
struct Clock(Vec<Instant>);

impl Stream for Clock {
    fn included(&mut self, _: usize, _: &StoredReceipt) {
        self.0.push(Instant::now());
    }
}

/// Simulates the schedule on times measured in order (the shortest of three runs of each transaction) and on the conflicts of
/// the blocks. A transaction costs `overhead` seconds beside its execution.
///
/// # Errors
/// A block that does not execute.
pub fn simulate_workers(
    blocks: &[RecordedBlock],
    workers: &[usize],
    runner: &Runner,
    overhead: f64,
) -> Result<Vec<Simulation>, String> {
    let mut found: Vec<Vec<(f64, f64, u64)>> = vec![Vec::new(); workers.len()];
    let mut executions = vec![0; workers.len()];
    let mut transactions = 0;
    for block in blocks {
        let mut work: Vec<Work> = block
            .transactions
            .iter()
            .zip(&block.senders)
            .map(|(tx, sender)| Work {
                seconds: f64::INFINITY,
                after: Vec::new(),
                sender: *sender,
                to: tx.to(),
                data: tx.input().len(),
            })
            .collect();
        for _ in 0..3 {
            let mut clock = Clock(vec![Instant::now()]);
            block.execute_on(runner.frames(), &Parallel::default(), &mut clock)?;
            for (work, pair) in work.iter_mut().zip(clock.0.windows(2)) {
                work.seconds = work.seconds.min((pair[1] - pair[0]).as_secs_f64());
            }
        }
        if block.fork < Fork::Byzantium {
            // In order, as the executor does.
            for found in &mut found {
                found.push((1.0, 1.0, block.header.gas_used));
            }
            continue;
        }
        let mut dependencies = Dependencies::default();
        block.execute_on(runner.frames(), &Parallel::default(), &mut dependencies)?;
        for (work, after) in work.iter_mut().zip(dependencies.after) {
            work.after = after;
        }
        let in_order: f64 = work.iter().map(|work| work.seconds).sum();
        transactions += work.len() as u64;
        for (at, count) in workers.iter().enumerate() {
            let window = DEFAULT_WINDOW.saturating_mul(*count);
            let simulated = simulate(&work, *count, window, overhead);
            executions[at] += simulated.executions;
            let gas = block.header.gas_used;
            found[at].push((
                in_order / simulated.seconds,
                in_order / ideal(&work, *count),
                gas,
            ));
        }
    }
    let simulations = workers.iter().zip(found).zip(executions);
    Ok(simulations
        .map(|((workers, found), executions)| {
            let of = |value: fn(&(f64, f64, u64)) -> f64| {
                weighted_median(found.iter().map(|found| (value(found), found.2)).collect())
            };
            Simulation {
                workers: *workers,
                speedup: of(|found| found.0),
                ideal: of(|found| found.1),
                recovered: of(|found| found.0 / found.1),
                executions_per_tx: executions as f64 / transactions.max(1) as f64,
            }
        })
        .collect())
}

/// The value that half of the weight is not above.
fn weighted_median(mut values: Vec<(f64, u64)>) -> f64 {
    values.sort_by(|a, b| a.0.total_cmp(&b.0));
    let total: u64 = values.iter().map(|value| value.1).sum();
    let mut below = 0;
    for (value, weight) in values {
        below += weight;
        if 2 * below >= total {
            return value;
        }
    }
    0.0
}

fn since(wall: Instant, cpu: std::time::Duration) -> Sample {
    Sample {
        wall: wall.elapsed().as_secs_f64(),
        cpu: process_cpu_time().saturating_sub(cpu).as_secs_f64(),
    }
}
