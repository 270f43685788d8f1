//! `zvm statetest` and `zvm blocktest`: external test sets.

use std::io::{BufWriter, Write as _, stderr, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;

use indicatif::{ProgressBar, ProgressStyle};
use zvm_engine::fixtures::blocktest;
use zvm_engine::fixtures::report::Report;
use zvm_engine::fixtures::runner::{self, Workers};
use zvm_engine::fixtures::source::SourceError;
use zvm_engine::fixtures::statetest::{self, StateTestOptions};
use zvm_engine::parallel::Parallel;
use zvm_runtimes::trace::TraceOptions;

use super::tier::{Runner, TierArgs};

/// What both commands take.
#[derive(Debug, Args)]
struct Common {
    /// Test files, folders and `.tar.zst` archives.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Threads that execute tests [default: all]
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    #[command(flatten)]
    tier: TierArgs,
}

/// Arguments of `zvm statetest`.
#[derive(Debug, Args)]
pub struct StateTestArgs {
    #[command(flatten)]
    common: Common,
    /// Also run the files that the manifest beside an archive calls slow.
    #[arg(long)]
    slow: bool,
    /// Write EIP-3155 traces to standard error, each closed by a line with the state root. One thread.
    #[arg(long)]
    trace: bool,
    /// With memory in the traces.
    #[arg(long, requires = "trace")]
    memory: bool,
}

/// Arguments of `zvm blocktest`.
#[derive(Debug, Args)]
pub struct BlockTestArgs {
    #[command(flatten)]
    common: Common,
    /// Threads that execute one block; with more than one, blocks of any size are spread over them.
    #[arg(long, default_value = "1")]
    block_threads: NonZeroUsize,
}

impl StateTestArgs {
    /// Runs the tests and prints the report; success only if every case passed.
    ///
    /// # Errors
    /// A path that cannot be read or holds no test files, or output that cannot be written.
    pub fn run(self) -> eyre::Result<ExitCode> {
        let runner = self.common.tier.runner()?;
        let options = StateTestOptions {
            slow: self.slow,
            runner: runner.frames(),
        };
        if self.trace {
            let trace = TraceOptions {
                memory: self.memory,
                ..TraceOptions::default()
            };
            let mut out = BufWriter::new(stderr().lock());
            let report = statetest::run_traced(&self.common.paths, options, trace, &mut out)?;
            out.flush()?;
            drop(out);
            return self.common.finish(&report, &runner);
        }
        self.common.run(&runner, |paths, workers| {
            statetest::run(paths, options, workers)
        })
    }
}

impl BlockTestArgs {
    /// Runs the tests and prints the report; success only if every case passed.
    ///
    /// # Errors
    /// As [`StateTestArgs::run`].
    pub fn run(self) -> eyre::Result<ExitCode> {
        let tier = self.common.tier.runner()?;
        let frames = tier.frames();
        let parallel = Parallel {
            least: 1,
            ..Parallel::with_workers(self.block_threads)
        };
        self.common.run(&tier, |paths, workers| {
            runner::run(paths, &["json"], workers, &|entry, report| {
                blocktest::run_file(entry, frames.as_ref(), &parallel, report);
            })
        })
    }
}

impl Common {
    fn run(
        &self,
        tier: &Runner,
        run: impl FnOnce(&[PathBuf], Workers<'_>) -> Result<Report, SourceError>,
    ) -> eyre::Result<ExitCode> {
        let bar = if self.json {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner().with_style(ProgressStyle::with_template(
                "{spinner} {elapsed} {pos} cases {per_sec} {msg}",
            )?)
        };
        bar.enable_steady_tick(Duration::from_millis(100));
        let progress = |file: &Report| {
            bar.inc(file.cases);
            if let Some(failure) = file.failed.first() {
                bar.set_message(format!("last failure: {}", failure.path));
            }
        };
        let threads = match self.threads {
            Some(threads) => threads,
            None => thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        };
        let workers = Workers {
            threads,
            progress: &progress,
        };
        let report = run(&self.paths, workers);
        bar.finish_and_clear();
        self.finish(&report?, tier)
    }

    fn finish(&self, report: &Report, tier: &Runner) -> eyre::Result<ExitCode> {
        if report.files == 0 {
            eyre::bail!("no test files in {:?}", self.paths);
        }
        let mut out = stdout().lock();
        if self.json {
            serde_json::to_writer(&mut out, &tier.with_statistics(report))?;
            writeln!(out)?;
        } else {
            tier.report();
            writeln!(out, "{report}")?;
        }
        Ok(if report.all_passed() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
