//! The whole path, from signed bytes to durable blocks, beside what recovering the senders alone takes on the same cores.
//!
//! The bound is measured twice in the run, before and after, by the same threads: no node that recovers every sender can be
//! faster. The chain lies in a store on the disk; transactions come as batches of bytes, as a network connection hands
//! them over, by several submitters, and a bounded number of them is under way.

mod contracts;
mod page;
mod processor;
mod uniswap;
mod workload;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use alloy_primitives::map::B256Map;
use parking_lot::{Condvar, Mutex};
use rayon::prelude::*;
use serde::Serialize;
use zvm_engine::chain::{Chain, ChainError, Imported};
use zvm_engine::node::{Node, NodeSettings, Notice};
use zvm_engine::pool::PoolLimits;
use zvm_engine::transaction;
use zvm_storage::{Durability, JournaledOptions, JournaledStore, Store, StoreError};

pub use page::page;
pub use workload::Workload;

use workload::Load;

/// What is measured.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the transactions do.
    pub workload: Workload,
    /// Percent of the transactions whose recipient is one account.
    pub conflict: u8,
    /// Whether a commit is on the disk when it returns.
    pub durability: Durability,
    /// How many are sent.
    pub transactions: usize,
    /// Accounts that send them, and that receive them.
    pub accounts: usize,
    /// Threads that send.
    pub submitters: usize,
    /// Transactions handed over at once.
    pub batch: usize,
    /// Transactions sent and not durable yet at most.
    pub outstanding: usize,
    /// Blocks executed and not durable yet when the next one is begun.
    pub in_flight: usize,
    /// The longest that a block waits for more transactions.
    pub gather: Duration,
    /// Folder of the store; a temporary one if there is none.
    pub folder: Option<PathBuf>,
}

/// The measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The contracts of Uniswap are taken from npm's registry.
    #[error("the artifacts of Uniswap v2 could not be had from npm: {reason}")]
    Artifacts {
        /// Why.
        reason: String,
    },
    /// The store or the chain failed.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives no thread or folder.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// A transaction was refused, or its execution failed.
    #[error("{0}")]
    Transaction(String),
}

/// What was measured.
#[derive(Debug, Clone, Serialize)]
pub struct LoadReport {
    /// Name of the workload.
    pub workload: &'static str,
    /// Percent of conflicting transactions.
    pub conflict: u8,
    /// `full` or `relaxed`.
    pub durability: &'static str,
    /// Sent, and in durable blocks.
    pub transactions: usize,
    /// Accounts.
    pub accounts: usize,
    /// Cores.
    pub threads: usize,
    /// Blocks that were made.
    pub blocks: usize,
    /// From the first batch to the last durable block.
    pub seconds: f64,
    /// Transactions a second.
    pub tx_per_s: f64,
    /// Senders recovered a second by all cores.
    pub bound_tx_per_s: f64,
    /// The one by the other.
    pub ratio: f64,
    /// Processor time of a sender's recovery by that of the whole path: the ratio where nothing waits for the disk and
    /// nothing else runs.
    pub cpu_ratio: f64,
    /// What the stages took.
    pub stages: BTreeMap<&'static str, StageReport>,
    /// From handing a transaction over to the notice that its block is durable.
    pub latency_ms: Latency,
    /// Memory of the process at its peak, with the prepared transactions.
    pub rss_mb: f64,
    /// Seconds of every tenth of the transactions.
    pub tenths_s: Vec<f64>,
}

/// A stage of the path.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct StageReport {
    /// Processor time a transaction, in microseconds.
    pub cpu_us: f64,
    /// Share of the processor time of all stages.
    pub cpu_share: f64,
    /// How long it was at work a transaction, in microseconds, with waits for a processor and the disk; `null` where
    /// that is not told apart.
    pub wall_us: Option<f64>,
}

/// Milliseconds.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Latency {
    /// Half are shorter.
    pub p50: f64,
    /// All but one in a hundred are.
    pub p99: f64,
    /// Upper bounds of the histogram's classes, and how many fall into each.
    pub histogram: Vec<(f64, usize)>,
}

/// Sends the load and measures.
pub fn run(options: &Options) -> Result<LoadReport, LoadError> {
    let threads = std::thread::available_parallelism()?.get();
    // Named, so that their processor time can be told apart.
    let _ = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|index| format!("recovery-{index}"))
        .build_global();
    let load = Load::new(options)?;
    let before = recovery(&load)?;
    let temporary = match &options.folder {
        Some(_) => None,
        None => Some(tempfile::tempdir()?),
    };
    let folder = match (&options.folder, &temporary) {
        (Some(folder), _) => folder.clone(),
        (None, Some(temporary)) => temporary.path().to_owned(),
        (None, None) => return Err(std::io::Error::other("there is no folder").into()),
    };
    let run = send(options, &load, open(&folder, options.durability)?)?;
    let after = recovery(&load)?;
    Ok(report(options, threads, run, [before, after]))
}

/// The store of the node.
fn open(folder: &std::path::Path, durability: Durability) -> Result<Arc<dyn Store>, LoadError> {
    let mut options = JournaledOptions::new(folder);
    options.state.durability = durability;
    Ok(Arc::new(JournaledStore::open(options)?))
}

/// Wall and processor seconds of a sender's recovery, by all cores.
#[derive(Debug, Clone, Copy)]
struct Recovery {
    wall: f64,
    cpu: f64,
}

fn recovery(load: &Load) -> Result<Recovery, LoadError> {
    let cpu = processor::process();
    let start = Instant::now();
    load.transactions
        .par_iter()
        .try_for_each(|tx| transaction::recover(tx).map(drop))
        .map_err(|error| LoadError::Transaction(error.to_string()))?;
    let count = load.transactions.len() as f64;
    Ok(Recovery {
        wall: start.elapsed().as_secs_f64() / count,
        cpu: (processor::process() - cpu) / count,
    })
}

/// A durable block, and when it was told of.
type Arrived = (Instant, Arc<Imported>);

/// What has become durable.
#[derive(Default)]
struct Durable {
    /// How many transactions, in which blocks.
    blocks: Mutex<(usize, Vec<Arrived>)>,
    changed: Condvar,
    failed: AtomicBool,
}

impl Durable {
    fn notice(&self, notice: &Notice) {
        match notice {
            Notice::Block(block) => {
                let mut blocks = self.blocks.lock();
                blocks.0 += block.block.body.transactions.len();
                blocks.1.push((Instant::now(), Arc::clone(block)));
            }
            Notice::Failed(_) => self.failed.store(true, Ordering::Release),
            Notice::Pending(_) => return,
        }
        self.changed.notify_all();
    }

    /// Waits until `count` are durable; an error if none will be any more.
    fn wait(&self, node: &Node, count: usize) -> Result<(), LoadError> {
        let mut blocks = self.blocks.lock();
        while blocks.0 < count {
            if self.failed.load(Ordering::Acquire) {
                let reason = node.stopped().unwrap_or_default();
                return Err(LoadError::Transaction(reason.to_string()));
            }
            self.changed
                .wait_for(&mut blocks, Duration::from_millis(100));
        }
        Ok(())
    }
}

/// A run, to be reported.
struct Run {
    start: Instant,
    end: Instant,
    blocks: Vec<Arrived>,
    sent: B256Map<Instant>,
    cpu: BTreeMap<&'static str, f64>,
    walls: zvm_engine::node::StageTimes,
}

fn send(options: &Options, load: &Load, store: Arc<dyn Store>) -> Result<Run, LoadError> {
    let chain = Arc::new(Chain::open(store, &load.genesis)?);
    let node = Node::start(
        chain,
        NodeSettings {
            pool: PoolLimits {
                per_sender: options.outstanding,
                ..PoolLimits::default()
            },
            in_flight: options.in_flight,
            gather: options.gather,
            ..NodeSettings::default()
        },
    )?;
    let durable = Arc::new(Durable::default());
    let listener = Arc::clone(&durable);
    node.listen(Box::new(move |notice| listener.notice(notice)));
    submit(&node, &load.setup)?;
    durable.wait(&node, load.setup.len())?;

    let walls_before = node.stage_times();
    let cpu_before = processor::by_thread()?;
    let start = Instant::now();
    let sent = Mutex::new(B256Map::default());
    let pool = Mutex::new(0.0);
    let total = load.setup.len() + load.transactions.len();
    let results: Vec<Result<(), LoadError>> = std::thread::scope(|threads| {
        let submitters: Vec<_> = load
            .streams
            .iter()
            .map(|stream| {
                let (node, durable, sent, pool) = (&node, &durable, &sent, &pool);
                let work = move || -> Result<(), LoadError> {
                    let mine = options.outstanding / options.submitters;
                    for (index, batch) in stream.chunks(options.batch).enumerate() {
                        // Each may run ahead by its share.
                        let before =
                            (index * options.batch).saturating_sub(mine) * options.submitters;
                        durable
                            .wait(node, load.setup.len() + before.min(load.transactions.len()))?;
                        let now = Instant::now();
                        let hashes = submit(node, batch)?;
                        sent.lock()
                            .extend(hashes.into_iter().map(|hash| (hash, now)));
                    }
                    // The thread is gone when the others are counted.
                    *pool.lock() += processor::this_thread();
                    Ok(())
                };
                std::thread::Builder::new()
                    .name("submitter".into())
                    .spawn_scoped(threads, work)
            })
            .collect();
        submitters
            .into_iter()
            .map(|thread| match thread?.join() {
                Ok(result) => result,
                Err(_) => Err(LoadError::Transaction("a submitter panicked".into())),
            })
            .chain([durable.wait(&node, total)])
            .collect()
    });
    let end = Instant::now();
    let cpu_after = processor::by_thread()?;
    results.into_iter().collect::<Result<(), _>>()?;
    let walls = node.stage_times();
    node.stop();
    let blocks = core::mem::take(&mut durable.blocks.lock().1);
    let failed = blocks
        .iter()
        .flat_map(|(_, block)| &block.receipts)
        .filter(|receipt| !receipt.success);
    match failed.count() {
        0 => {}
        failed => {
            return Err(LoadError::Transaction(format!(
                "{failed} transactions failed"
            )));
        }
    }
    let mut cpu = cpu_after;
    for (name, seconds) in &mut cpu {
        *seconds -= cpu_before.get(name).copied().unwrap_or_default();
    }
    cpu.insert("pool", pool.into_inner());
    Ok(Run {
        start,
        end,
        blocks: blocks.into_iter().filter(|(at, _)| *at >= start).collect(),
        sent: sent.into_inner(),
        cpu,
        walls: zvm_engine::node::StageTimes {
            execute: walls.execute - walls_before.execute,
            seal: walls.seal - walls_before.seal,
            write: walls.write - walls_before.write,
            announce: walls.announce - walls_before.announce,
        },
    })
}

fn submit(
    node: &Node,
    batch: &[alloy_primitives::Bytes],
) -> Result<Vec<alloy_primitives::B256>, LoadError> {
    node.submit_batch(batch)
        .into_iter()
        .map(|answer| answer.map_err(|error| LoadError::Transaction(error.to_string())))
        .collect()
}

fn report(options: &Options, threads: usize, run: Run, recovery: [Recovery; 2]) -> LoadReport {
    let count = options.transactions as f64;
    let seconds = (run.end - run.start).as_secs_f64();
    let wall = (recovery[0].wall + recovery[1].wall) / 2.0;
    let recovery_cpu = (recovery[0].cpu + recovery[1].cpu) / 2.0;
    let cpu: f64 = run.cpu.values().sum();
    let walls = [
        ("execute", run.walls.execute),
        ("root", run.walls.seal),
        ("journal", run.walls.write),
        ("announce", run.walls.announce),
    ];
    let stages = run
        .cpu
        .iter()
        .map(|(name, seconds)| {
            let wall = walls.iter().find(|(stage, _)| stage == name);
            let stage = StageReport {
                cpu_us: seconds / count * 1e6,
                cpu_share: seconds / cpu,
                wall_us: wall.map(|(_, wall)| wall.as_secs_f64() / count * 1e6),
            };
            (*name, stage)
        })
        .collect();
    let mut latencies = Vec::with_capacity(options.transactions);
    let mut tenths_s = Vec::new();
    for (at, block) in &run.blocks {
        for tx in &block.block.body.transactions {
            if let Some(sent) = run.sent.get(tx.hash()) {
                latencies.push(at.saturating_duration_since(*sent).as_secs_f64() * 1e3);
            }
        }
        while latencies.len() * 10 >= (tenths_s.len() + 1) * options.transactions {
            tenths_s.push((*at - run.start).as_secs_f64());
        }
    }
    let tx_per_s = count / seconds;
    LoadReport {
        workload: options.workload.name(),
        conflict: options.conflict,
        durability: match options.durability {
            Durability::Full => "full",
            _ => "relaxed",
        },
        transactions: options.transactions,
        accounts: options.accounts,
        threads,
        blocks: run.blocks.len(),
        seconds,
        tx_per_s,
        bound_tx_per_s: 1.0 / wall,
        ratio: tx_per_s * wall,
        cpu_ratio: recovery_cpu * count / cpu,
        stages,
        latency_ms: latency(latencies),
        rss_mb: processor::peak_rss_mb(),
        tenths_s,
    }
}

fn latency(mut all: Vec<f64>) -> Latency {
    all.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let index = (all.len() as f64 * share) as usize;
        all.get(index.min(all.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    let (p50, p99) = (at(0.5), at(0.99));
    let width = (at(1.0) / 20.0).max(f64::MIN_POSITIVE);
    let histogram = (1..=20).map(|class| {
        let bounds = (width * f64::from(class - 1), width * f64::from(class));
        let within = |value: &&f64| {
            **value <= bounds.1 * (1.0 + f64::EPSILON) && (**value > bounds.0 || class == 1)
        };
        (bounds.1, all.iter().filter(within).count())
    });
    Latency {
        p50,
        p99,
        histogram: histogram.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transaction_of_every_workload_gets_into_a_durable_block() {
        for workload in [
            Workload::Transfers,
            Workload::Erc20,
            Workload::Mixed,
            Workload::Hot,
        ] {
            let options = Options {
                workload,
                conflict: 20,
                durability: Durability::Relaxed,
                transactions: 300,
                accounts: 20,
                submitters: 2,
                batch: 16,
                outstanding: 100,
                in_flight: 2,
                gather: Duration::from_millis(100),
                folder: None,
            };
            let report = run(&options).unwrap();
            let told: usize = report
                .latency_ms
                .histogram
                .iter()
                .map(|class| class.1)
                .sum();
            assert_eq!(told, 300, "{workload:?}");
            assert!(page(&report).contains("</html>"));
        }
    }
}
