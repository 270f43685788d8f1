//! Recorded blocks: this engine beside plain revm, processor and wall time.

use std::time::Instant;

use serde::Serialize;
use zvm_engine::fixtures::replay::{RecordedBlock, median, thread_cpu_seconds};

/// One way of executing all blocks.
#[derive(Debug, Clone, Serialize)]
pub struct BlocksRun {
    /// Threads that execute.
    pub threads: usize,
    /// Milliseconds of wall time for all blocks: sum of the medians.
    pub wall_ms: f64,
    /// Milliseconds of processor time.
    pub cpu_ms: f64,
    /// The same by plain revm on one thread.
    pub plain_wall_ms: f64,
    /// The same by plain revm on one thread.
    pub plain_cpu_ms: f64,
    /// plain / ours.
    pub wall_ratio: f64,
    /// plain / ours.
    pub cpu_ratio: f64,
    /// How often a transaction was executed, on average.
    pub executions_per_tx: f64,
}

/// What a comparison found.
#[derive(Debug, Clone, Serialize)]
pub struct BlocksReport {
    /// Blocks.
    pub blocks: usize,
    /// Transactions in them.
    pub transactions: usize,
    /// Gas they use.
    pub gas: u64,
    /// One entry a thread count.
    pub runs: Vec<BlocksRun>,
    /// Every block gave what was recorded.
    pub equal: bool,
}

#[derive(Default)]
struct Samples {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Samples {
    fn take<T>(&mut self, run: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
        let (wall, cpu) = (Instant::now(), thread_cpu_seconds());
        let outcome = run()?;
        self.cpu.push(thread_cpu_seconds() - cpu);
        self.wall.push(wall.elapsed().as_secs_f64());
        Ok(outcome)
    }
}

/// Executes each block `repetitions` times on both sides, taking turns.
///
/// # Errors
/// A block that does not execute; the message names it.
pub fn compare_blocks(
    blocks: &[RecordedBlock],
    repetitions: usize,
) -> Result<BlocksReport, String> {
    let mut equal = true;
    let (mut wall, mut cpu, mut plain_wall, mut plain_cpu) = (0.0, 0.0, 0.0, 0.0);
    for block in blocks {
        let named = |reason: String| format!("block {}: {reason}", block.header.number);
        equal &= block
            .execute(None)
            .and_then(|outcome| block.compare(&outcome))
            .is_ok();
        let envs = block.tx_envs();
        let (mut ours, mut plain) = (Samples::default(), Samples::default());
        for repetition in 0..repetitions {
            if repetition % 2 == 0 {
                ours.take(|| block.execute(None)).map_err(named)?;
                plain.take(|| block.execute_plain(&envs)).map_err(named)?;
            } else {
                plain.take(|| block.execute_plain(&envs)).map_err(named)?;
                ours.take(|| block.execute(None)).map_err(named)?;
            }
        }
        wall += median(ours.wall);
        cpu += median(ours.cpu);
        plain_wall += median(plain.wall);
        plain_cpu += median(plain.cpu);
    }
    Ok(BlocksReport {
        blocks: blocks.len(),
        transactions: blocks.iter().map(|block| block.transactions.len()).sum(),
        gas: blocks.iter().map(|block| block.header.gas_used).sum(),
        runs: vec![BlocksRun {
            threads: 1,
            wall_ms: wall * 1e3,
            cpu_ms: cpu * 1e3,
            plain_wall_ms: plain_wall * 1e3,
            plain_cpu_ms: plain_cpu * 1e3,
            wall_ratio: plain_wall / wall,
            cpu_ratio: plain_cpu / cpu,
            executions_per_tx: 1.0,
        }],
        equal,
    })
}
