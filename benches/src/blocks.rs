//! Recorded blocks: this engine beside plain revm and, in a tier, beside its own interpreter with and without code that
//! is compiled already.

use std::num::NonZeroUsize;

use serde::Serialize;
use zvm_engine::fixtures::replay::{Outcome, PlainOutcome, RecordedBlock};
use zvm_jit::compiler::Compiler;
use zvm_runtimes::revm::context::TxEnv;

use crate::parallel::{Simulation, compare_threads, simulate_workers};
use crate::sample::{Subject, Time, median_of, take_turns, time};
use crate::side::{Runner, Tier};

/// How often all blocks are executed before code counts as compiled.
const WARMING: usize = 8;

/// Blocks are sampled for at least `SHORT` seconds by plain revm, though never more than `MOST_SAMPLES` times for that.
const SHORT: f64 = 0.020;
const MOST_SAMPLES: usize = 51;

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

/// One block by the interpreter and in a tier. Processor time of the thread that executes; compilations by other threads
/// are not in it.
#[derive(Debug, Clone, Serialize)]
pub struct TierBlock {
    /// Block number.
    pub block: u64,
    /// Gas it uses.
    pub gas: u64,
    /// Milliseconds by plain revm.
    pub plain_ms: f64,
    /// Milliseconds by the interpreter.
    pub interpreter_ms: f64,
    /// Milliseconds in the tier, after all blocks were executed several times.
    pub warm_ms: f64,
    /// interpreter / warm
    pub warm_ratio: f64,
    /// Beginning without compiled code; only for `auto`, since a tier that compiles before it executes would measure the
    /// compiler.
    #[serde(flatten)]
    pub cold: Option<ColdBlock>,
}

/// One block without compiled code at its beginning.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ColdBlock {
    /// Milliseconds.
    pub cold_ms: f64,
    /// interpreter / cold
    pub cold_ratio: f64,
    /// interpreter / cold, wall time.
    pub cold_wall_ratio: f64,
}

/// All blocks in a tier beside the interpreter.
#[derive(Debug, Clone, Serialize)]
pub struct TierReport {
    /// One entry a block.
    pub blocks: Vec<TierBlock>,
    /// Interpreter / warm over all blocks.
    pub warm_ratio: f64,
    /// Plain revm / warm over all blocks.
    pub warm_plain_ratio: f64,
    /// Interpreter / cold over all blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_ratio: Option<f64>,
    /// The lowest cold ratio of a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lowest_cold_ratio: Option<f64>,
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
    /// One entry a thread count: in the tier asked for where `--threads` was given, by the interpreter otherwise.
    pub runs: Vec<BlocksRun>,
    /// What more cores would give.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub simulated: Vec<Simulation>,
    /// In the tier asked for, if another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<TierReport>,
    /// Every block gave what was recorded, in the tier too.
    pub equal: bool,
}

/// How blocks are spread over cores.
#[derive(Debug, Clone, Default)]
pub struct Spread {
    /// Numbers of threads to execute with.
    pub threads: Vec<NonZeroUsize>,
    /// Numbers of cores to simulate.
    pub simulate: Vec<usize>,
}

impl Spread {
    /// The simulation, with what a transaction costs beside its execution taken from the runs on one and on two threads.
    fn simulated(
        &self,
        blocks: &[RecordedBlock],
        runner: &Runner,
        runs: &[BlocksRun],
    ) -> Result<Vec<Simulation>, String> {
        if self.simulate.is_empty() {
            return Ok(Vec::new());
        }
        /// Seconds, where it was not measured.
        const OVERHEAD: f64 = 2e-6;
        let of = |threads: usize| runs.iter().find(|run| run.threads == threads);
        let transactions: usize = blocks.iter().map(|block| block.transactions.len()).sum();
        let overhead = match (of(1), of(2)) {
            (Some(one), Some(two)) => {
                ((two.cpu_ms - one.cpu_ms) * 1e-3 / transactions as f64).max(0.0)
            }
            _ => OVERHEAD,
        };
        simulate_workers(blocks, &self.simulate, runner, overhead)
    }

    /// Compares blocks that were not recorded but generated.
    ///
    /// # Errors
    /// As [`compare_blocks`].
    pub fn compare(
        &self,
        blocks: &[RecordedBlock],
        repetitions: usize,
        tier: Tier,
    ) -> Result<BlocksReport, String> {
        let compiler = Compiler::new().map_err(|error| error.to_string())?;
        let runner = tier.runner(&compiler).map_err(|error| error.to_string())?;
        let one = [NonZeroUsize::MIN];
        let threads = if self.threads.is_empty() {
            &one[..]
        } else {
            &self.threads
        };
        let compared = compare_threads(blocks, repetitions, threads, &runner)?;
        Ok(BlocksReport {
            blocks: blocks.len(),
            transactions: blocks.iter().map(|block| block.transactions.len()).sum(),
            gas: 0,
            simulated: self.simulated(blocks, &runner, &compared.runs)?,
            runs: compared.runs,
            tier: None,
            equal: compared.equal,
        })
    }
}

/// What executes frames; called before each sample.
type Source<'s> = &'s dyn Fn() -> Result<Runner, String>;

struct Ours<'b> {
    block: &'b RecordedBlock,
    source: Source<'b>,
    /// Whether the runner has no compiled code at the beginning.
    cold: bool,
    runner: Runner,
    /// Kept, so that giving its memory back is outside of the clock.
    outcome: Option<Outcome<'b>>,
}

impl<'b> Ours<'b> {
    fn new(block: &'b RecordedBlock, source: Source<'b>, cold: bool) -> Self {
        Self {
            block,
            source,
            cold,
            runner: Runner::default(),
            outcome: None,
        }
    }

    /// Executes once and compares with what was recorded.
    fn equal(&mut self) -> Result<bool, String> {
        self.prepare()?;
        self.run()?;
        let outcome = self.outcome.take();
        Ok(outcome.is_some_and(|outcome| self.block.compare(&outcome).is_ok()))
    }
}

impl Subject for Ours<'_> {
    fn prepare(&mut self) -> Result<(), String> {
        self.outcome = None;
        // Every side begins with the processor's caches as an execution of the block leaves them.
        if self.cold {
            self.runner = Runner::default();
            self.run()?;
            self.runner = (self.source)()?;
            self.runner.prime()?;
        } else {
            self.runner = (self.source)()?;
            self.run()?;
        }
        self.outcome = None;
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        self.outcome = Some(self.block.execute(self.runner.frames())?);
        Ok(())
    }
}

struct Plain<'b> {
    block: &'b RecordedBlock,
    transactions: &'b [TxEnv],
    outcome: Option<PlainOutcome<'b>>,
}

impl Subject for Plain<'_> {
    fn prepare(&mut self) -> Result<(), String> {
        self.outcome = None;
        self.run()?;
        self.outcome = None;
        Ok(())
    }

    fn run(&mut self) -> Result<(), String> {
        self.outcome = Some(self.block.execute_plain(self.transactions)?);
        Ok(())
    }
}

/// Executes each block `repetitions` times on every side, taking turns.
///
/// # Errors
/// A block that does not execute, and the message names it; there is no compiler for this processor.
pub fn compare_blocks(
    blocks: &[RecordedBlock],
    repetitions: usize,
    tier: Tier,
    spread: &Spread,
) -> Result<BlocksReport, String> {
    let compiler = Compiler::new().map_err(|error| error.to_string())?;
    let fresh = |tier: Tier| tier.runner(&compiler).map_err(|error| error.to_string());
    let interpreter = || fresh(Tier::Interpreter);
    let cold = || fresh(tier);
    let warmed = fresh(tier)?;
    let warm = || Ok(warmed.clone());
    let in_tier = tier != Tier::Interpreter;
    if in_tier {
        for _ in 0..WARMING {
            for block in blocks {
                block.execute(warmed.frames())?;
            }
            warmed.settle();
        }
    }
    let (mut equal, mut samples) = (true, Vec::with_capacity(blocks.len()));
    for block in blocks {
        let named = |reason: String| format!("block {}: {reason}", block.header.number);
        let transactions = block.tx_envs();
        let mut plain = Plain {
            block,
            transactions: &transactions,
            outcome: None,
        };
        let mut ours = vec![Ours::new(block, &interpreter, false)];
        if in_tier {
            ours.push(Ours::new(block, &warm, false));
        }
        if tier == Tier::Auto {
            ours.push(Ours::new(block, &cold, true));
        }
        for side in &mut ours {
            equal &= side.equal().map_err(named)?;
        }
        let mut subjects: Vec<(&mut dyn Subject, u32)> = vec![(&mut plain, 1)];
        for side in &mut ours {
            subjects.push((side, 1));
        }
        // A short block is within the clock's noise: more samples of it.
        let one = time(subjects[0].0, 1).map_err(named)?.cpu;
        let repetitions = repetitions.max(((SHORT / one) as usize).min(MOST_SAMPLES));
        samples.push(take_turns(&mut subjects, repetitions).map_err(named)?);
        for side in &mut ours {
            equal &= side.equal().map_err(named)?;
        }
    }
    let mut runs = vec![sequential(&samples)];
    if !spread.threads.is_empty() {
        let compared = compare_threads(blocks, repetitions, &spread.threads, &warmed)?;
        equal &= compared.equal;
        runs = compared.runs;
    }
    let simulated = spread.simulated(blocks, &warmed, &runs)?;
    Ok(BlocksReport {
        blocks: blocks.len(),
        transactions: blocks.iter().map(|block| block.transactions.len()).sum(),
        gas: blocks.iter().map(|block| block.header.gas_used).sum(),
        runs,
        simulated,
        tier: in_tier.then(|| in_a_tier(blocks, &samples)),
        equal,
    })
}

fn total(samples: &[Vec<Vec<Time>>], side: usize, clock: impl Fn(&Time) -> f64 + Copy) -> f64 {
    let medians = samples.iter().map(|block| median_of(&block[side], clock));
    medians.sum::<f64>() * 1e3
}

fn sequential(samples: &[Vec<Vec<Time>>]) -> BlocksRun {
    let [plain_wall_ms, wall_ms] = [0, 1].map(|side| total(samples, side, |time| time.wall));
    let [plain_cpu_ms, cpu_ms] = [0, 1].map(|side| total(samples, side, |time| time.cpu));
    BlocksRun {
        threads: 1,
        wall_ms,
        cpu_ms,
        plain_wall_ms,
        plain_cpu_ms,
        wall_ratio: plain_wall_ms / wall_ms,
        cpu_ratio: plain_cpu_ms / cpu_ms,
        executions_per_tx: 1.0,
    }
}

fn in_a_tier(blocks: &[RecordedBlock], samples: &[Vec<Vec<Time>>]) -> TierReport {
    let mut report = Vec::with_capacity(blocks.len());
    for (block, samples) in blocks.iter().zip(samples) {
        let milliseconds = |side: usize| median_of(&samples[side], |time| time.cpu) * 1e3;
        let wall = |side: usize| median_of(&samples[side], |time| time.wall);
        let (interpreter, warm) = (milliseconds(1), milliseconds(2));
        let cold = samples.get(3).map(|_| ColdBlock {
            cold_ms: milliseconds(3),
            cold_ratio: interpreter / milliseconds(3),
            cold_wall_ratio: wall(1) / wall(3),
        });
        report.push(TierBlock {
            block: block.header.number,
            gas: block.header.gas_used,
            plain_ms: milliseconds(0),
            interpreter_ms: interpreter,
            warm_ms: warm,
            warm_ratio: interpreter / warm,
            cold,
        });
    }
    let sum = |field: fn(&TierBlock) -> f64| report.iter().map(field).sum::<f64>();
    let (interpreter, warm) = (
        sum(|block| block.interpreter_ms),
        sum(|block| block.warm_ms),
    );
    let cold = || report.iter().filter_map(|block| block.cold);
    let cold_ms: f64 = cold().map(|cold| cold.cold_ms).sum();
    TierReport {
        warm_ratio: interpreter / warm,
        warm_plain_ratio: sum(|block| block.plain_ms) / warm,
        cold_ratio: cold().next().map(|_| interpreter / cold_ms),
        lowest_cold_ratio: cold().map(|cold| cold.cold_ratio).reduce(f64::min),
        blocks: report,
    }
}

#[cfg(test)]
mod tests {
    use zvm_engine::fixtures::replay;
    use zvm_jit::compiler::Level;

    use super::*;
    use crate::shared;

    #[test]
    fn a_block_gives_what_was_recorded_in_every_tier_and_only_auto_is_measured_from_cold() {
        let blocks = replay::load(&[shared("blocks/2674998.json.zst")]).unwrap();
        let tiers = [
            Tier::Interpreter,
            Tier::Native(Level::Quick),
            Tier::Native(Level::Full),
            Tier::Auto,
        ];
        for tier in tiers {
            let report = compare_blocks(&blocks, 1, tier, &Spread::default()).unwrap();
            assert!(report.equal, "{tier:?}");
            assert_eq!(report.blocks, 1);
            let Some(in_tier) = report.tier else {
                assert_eq!(tier, Tier::Interpreter);
                continue;
            };
            assert!(in_tier.warm_ratio > 0.0);
            assert_eq!(in_tier.cold_ratio.is_some(), tier == Tier::Auto);
            assert_eq!(in_tier.blocks[0].cold.is_some(), tier == Tier::Auto);
        }
    }
}
