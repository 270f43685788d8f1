//! `zvm replay`: recorded blocks, compared with what was recorded and timed beside plain revm.

use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use super::tier::TierArgs;
use clap::Args;
use eyre::WrapErr as _;
use indicatif::{ProgressBar, ProgressStyle};
use zvm_engine::fixtures::replay::{self, RecordedBlock, ReplayReport};
use zvm_engine::parallel::Parallel;
use zvm_net::profiling::Profiling;

/// Arguments of `zvm replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Recorded blocks (`NUMBER.json.zst`, with `codes.json.zst` beside them) or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How often each block is executed for the clock, alternating with plain revm; medians count.
    #[arg(long, default_value = "5")]
    repeat: NonZeroUsize,
    /// Threads that execute a block for the comparison; the clock is always of one.
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
    #[command(flatten)]
    tier: TierArgs,
    /// Names of native code for `perf`: off, perfmap (/tmp/perf-PID.map) or jitdump (./jit-PID.dump).
    #[arg(long, value_name = "off|perfmap|jitdump", default_value = "off")]
    profile: Profiling,
}

impl ReplayArgs {
    /// Replays the blocks and prints the report; success only if every block gave what was recorded.
    ///
    /// # Errors
    /// A file that cannot be read or is no recorded block.
    pub fn run(self) -> eyre::Result<ExitCode> {
        let blocks = replay::load(&self.paths)?;
        self.profile.start().wrap_err("profile")?;
        let tier = self.tier.runner()?;
        let frames = tier.frames();
        let bar = if self.json {
            ProgressBar::hidden()
        } else {
            ProgressBar::new(blocks.len() as u64).with_style(ProgressStyle::with_template(
                "{bar:40} {pos}/{len} block {msg}",
            )?)
        };
        let parallel = Parallel {
            least: 1,
            ..Parallel::with_workers(self.threads)
        };
        let progress = &mut |block: &RecordedBlock| {
            bar.set_message(block.header.number.to_string());
            bar.inc(1);
        };
        let repeat = self.repeat.get();
        let report = replay::run(&blocks, repeat, frames.as_ref(), &parallel, progress);
        bar.finish_and_clear();
        let mut out = stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, &tier.with_statistics(&report))?;
            writeln!(out)?;
        } else {
            tier.report();
            write!(out, "{}", Table(&report))?;
        }
        let passed = report.failed.is_empty() && report.blocks > 0;
        Ok(if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

struct Table<'a>(&'a ReplayReport);

impl core::fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let ReplayReport {
            blocks,
            passed,
            failed,
            transactions,
            gas,
            cpu_seconds,
            plain_revm_cpu_seconds,
            ratio,
            times,
        } = self.0;
        writeln!(
            f,
            "{:>10} {:>6} {:>11} {:>10} {:>10} {:>6}",
            "block", "txs", "gas", "ms", "revm ms", "ratio"
        )?;
        for time in times {
            writeln!(
                f,
                "{:>10} {:>6} {:>11} {:>10.3} {:>10.3} {:>6.3}",
                time.block,
                time.transactions,
                time.gas,
                time.cpu_seconds * 1e3,
                time.plain_revm_cpu_seconds * 1e3,
                time.plain_revm_cpu_seconds / time.cpu_seconds.max(f64::MIN_POSITIVE),
            )?;
        }
        for failure in failed {
            writeln!(
                f,
                "FAIL {} {}: {}",
                failure.block, failure.path, failure.reason
            )?;
        }
        writeln!(
            f,
            "blocks {blocks}, passed {passed}, failed {}",
            failed.len()
        )?;
        writeln!(f, "transactions {transactions}, gas {gas}")?;
        writeln!(
            f,
            "processor seconds {cpu_seconds:.4}, plain revm {plain_revm_cpu_seconds:.4}, ratio {ratio:.3}"
        )
    }
}
