//! `zvm-bench`: the throughput harness. Every figure stands beside a peer's from the same run.

use std::io::{Write as _, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use zvm_benches::compare_blocks;
use zvm_engine::fixtures::replay;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(
    name = "zvm-bench",
    version,
    about = "Throughput of zvm beside its peers",
    max_term_width = 120
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Recorded mainnet blocks, beside plain revm.
    Blocks(BlocksArgs),
}

#[derive(Debug, Args)]
struct BlocksArgs {
    /// Recorded blocks or folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How often each block is executed on both sides; medians count.
    #[arg(long, default_value = "11")]
    repeat: NonZeroUsize,
}

fn main() -> eyre::Result<ExitCode> {
    match Cli::parse().command {
        Command::Blocks(args) => blocks(&args),
    }
}

fn blocks(args: &BlocksArgs) -> eyre::Result<ExitCode> {
    let blocks = replay::load(&args.paths)?;
    let report = compare_blocks(&blocks, args.repeat.get()).map_err(eyre::Report::msg)?;
    let mut out = stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
        writeln!(out)?;
    } else {
        writeln!(
            out,
            "blocks {}, transactions {}, gas {}",
            report.blocks, report.transactions, report.gas
        )?;
        writeln!(
            out,
            "threads   wall ms    cpu ms  revm wall  revm cpu  wall ratio  cpu ratio"
        )?;
        for run in &report.runs {
            writeln!(
                out,
                "{:>7} {:>9.2} {:>9.2} {:>10.2} {:>9.2} {:>11.3} {:>10.3}",
                run.threads,
                run.wall_ms,
                run.cpu_ms,
                run.plain_wall_ms,
                run.plain_cpu_ms,
                run.wall_ratio,
                run.cpu_ratio
            )?;
        }
        writeln!(out, "equal to what was recorded: {}", report.equal)?;
    }
    Ok(if report.equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
