//! `zvm-bench`: the throughput harness. Every figure stands beside a peer's from the same run.

use std::fs;
use std::io::{Write, stdout};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use zvm_benches::compute::{ComputeReport, Effort, ProgramReport, Ratios};
use zvm_benches::corpus::{CorpusError, Group, Program};
use zvm_benches::load::{self, Workload};
use zvm_benches::side::{self, SideName, Tier};
use zvm_benches::storage::StorageArgs;
use zvm_benches::{Spread, TierReport, compare_blocks, corpus, html, kernels};
use zvm_engine::fixtures::generate::loads::Load;
use zvm_engine::fixtures::replay;
use zvm_jit::compiler::Level;
use zvm_storage::Durability;

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
    /// Programs in every tier, beside plain revm.
    Compute(ComputeArgs),
    /// The store beside one durable transaction a block.
    Storage(StorageArgs),
    /// Signed transactions through the whole node, to durable blocks, beside the recovery of their senders alone.
    Load(LoadArgs),
    /// One program again and again on one side, for a profiler to watch.
    Repeat(RepeatArgs),
}

#[derive(Debug, Args)]
struct LoadArgs {
    /// What the transactions do. The contracts of uniswap come from npm's registry.
    #[arg(long, value_enum, default_value = "transfers")]
    workload: WorkloadName,
    /// Percent of the transactions that have one recipient.
    #[arg(long, default_value = "0", value_parser = clap::value_parser!(u8).range(0..=100))]
    conflict: u8,
    /// Whether a block is on the disk before it is acknowledged.
    #[arg(long, value_enum, default_value = "full")]
    durability: DurabilityName,
    /// Transactions that are sent.
    #[arg(long, default_value = "200000")]
    transactions: NonZeroUsize,
    /// Accounts that send and receive.
    #[arg(long, default_value = "2000")]
    accounts: NonZeroUsize,
    /// Threads that hand transactions over.
    #[arg(long, default_value = "2")]
    submitters: NonZeroUsize,
    /// Transactions handed over at once.
    #[arg(long, default_value = "256")]
    batch: NonZeroUsize,
    /// Transactions sent and not durable yet at most.
    #[arg(long, default_value = "20000")]
    outstanding: NonZeroUsize,
    /// Blocks executed and not durable yet when the next one is begun.
    #[arg(long, default_value = "2")]
    in_flight: usize,
    /// The longest that a block waits for more transactions, in milliseconds.
    #[arg(long, default_value = "100")]
    gather: u64,
    /// Folder of the store, which must be new; a temporary one without it.
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Write one JSON object, to this file or to the standard output, in place of a table.
    #[arg(long, num_args = 0..=1, value_name = "FILE")]
    json: Option<Option<PathBuf>>,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum WorkloadName {
    Transfers,
    Erc20,
    Uniswap,
    Mixed,
    Hot,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DurabilityName {
    Full,
    Relaxed,
}

#[derive(Debug, Args)]
struct RepeatArgs {
    /// The program's file.
    program: PathBuf,
    /// Who executes it.
    #[arg(long, value_enum, default_value = "full")]
    side: SideArg,
    /// How often.
    #[arg(long, default_value = "100")]
    runs: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SideArg {
    Plain,
    Interpreter,
    Quick,
    Full,
    Auto,
}

#[derive(Debug, Args)]
struct ComputeArgs {
    /// Folder of programs.
    #[arg(long)]
    corpus: PathBuf,
    /// Write one JSON object, to this file or to the standard output, in place of a table.
    #[arg(long, num_args = 0..=1, value_name = "FILE")]
    json: Option<Option<PathBuf>>,
    /// Write a page with plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Only programs whose names contain this.
    #[arg(long, value_name = "SUBSTRING", default_value = "")]
    programs: String,
    /// Samples of each side; medians count.
    #[arg(long, default_value = "11")]
    repetitions: NonZeroUsize,
    /// Milliseconds of the interpreter's work in a sample of `auto`, which begins without compiled code.
    #[arg(long, default_value = "50")]
    auto_window: u32,
}

#[derive(Debug, Args)]
struct BlocksArgs {
    /// Recorded blocks or folders of them.
    #[arg(required_unless_present = "load")]
    paths: Vec<PathBuf>,
    /// A generated load in place of recorded blocks: transfers, tokens, work, one-account, one-slot, ring or
    /// read-first-write-last.
    #[arg(long, value_name = "LOAD", conflicts_with = "paths", value_parser = parse_load)]
    load: Option<Load>,
    /// Transactions of a generated load.
    #[arg(long, default_value = "1024")]
    transactions: u64,
    /// Compute from measured times and conflicts what so many cores would give, e.g. 16,64,128.
    #[arg(long, value_delimiter = ',')]
    simulate: Vec<usize>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// How often each block is executed on both sides; medians count.
    #[arg(long, default_value = "11")]
    repeat: NonZeroUsize,
    /// Execute with so many threads each, e.g. 1,2,4: wall time, and processor time of the whole process.
    #[arg(long, value_delimiter = ',')]
    threads: Vec<NonZeroUsize>,
    /// Compare this tier, without compiled code and with, to the interpreter; each code is compiled before its first
    /// instruction (jit) or once that pays (auto).
    #[arg(long, value_enum, default_value = "interpreter")]
    tier: TierName,
    /// Level of `--tier jit`.
    #[arg(long, value_enum, default_value = "full")]
    level: LevelName,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum TierName {
    Interpreter,
    Jit,
    Auto,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LevelName {
    Quick,
    Full,
}

impl BlocksArgs {
    fn tier(&self) -> Tier {
        match (self.tier, self.level) {
            (TierName::Interpreter, _) => Tier::Interpreter,
            (TierName::Jit, LevelName::Quick) => Tier::Native(Level::Quick),
            (TierName::Jit, LevelName::Full) => Tier::Native(Level::Full),
            (TierName::Auto, _) => Tier::Auto,
        }
    }
}

fn parse_load(name: &str) -> Result<Load, String> {
    let known = Load::ALL.iter().find(|(known, _)| *known == name);
    known
        .map(|(_, load)| *load)
        .ok_or_else(|| format!("no load is named {name}"))
}

fn main() -> eyre::Result<ExitCode> {
    match Cli::parse().command {
        Command::Blocks(args) => blocks(&args),
        Command::Compute(args) => compute(&args),
        Command::Load(args) => load(&args),
        Command::Repeat(args) => repeat(&args),
        Command::Storage(args) => storage(&args),
    }
}

fn storage(args: &StorageArgs) -> eyre::Result<ExitCode> {
    let report = zvm_benches::storage::storage(args, &mut |step| eprintln!("{step}"))?;
    let mut out = stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report)?;
    } else {
        serde_json::to_writer_pretty(&mut out, &report)?;
    }
    writeln!(out)?;
    Ok(ExitCode::SUCCESS)
}

fn blocks(args: &BlocksArgs) -> eyre::Result<ExitCode> {
    let spread = Spread {
        threads: args.threads.clone(),
        simulate: args.simulate.clone(),
    };
    let repeat = args.repeat.get();
    let report = match args.load {
        Some(load) => spread.compare(&[load.block(args.transactions)], repeat, args.tier()),
        None => compare_blocks(&replay::load(&args.paths)?, repeat, args.tier(), &spread),
    };
    let report = report.map_err(eyre::Report::msg)?;
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
            "threads   wall ms    cpu ms  revm wall  revm cpu  wall ratio  cpu ratio  executions"
        )?;
        for run in &report.runs {
            writeln!(
                out,
                "{:>7} {:>9.2} {:>9.2} {:>10.2} {:>9.2} {:>11.3} {:>10.3} {:>11.3}",
                run.threads,
                run.wall_ms,
                run.cpu_ms,
                run.plain_wall_ms,
                run.plain_cpu_ms,
                run.wall_ratio,
                run.cpu_ratio,
                run.executions_per_tx
            )?;
        }
        for simulated in &report.simulated {
            writeln!(
                out,
                "simulated {:>4} cores: {:.2} of {:.2} possible ({:.2}), {:.3} executions a transaction",
                simulated.workers,
                simulated.speedup,
                simulated.ideal,
                simulated.recovered,
                simulated.executions_per_tx
            )?;
        }
        if let Some(tier) = &report.tier {
            tier_table(&mut out, tier)?;
        }
        let to = if args.load.is_some() {
            "the plain loop"
        } else {
            "what was recorded"
        };
        writeln!(out, "equal to {to}: {}", report.equal)?;
    }
    Ok(if report.equal {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn tier_table(out: &mut dyn Write, tier: &TierReport) -> std::io::Result<()> {
    writeln!(
        out,
        "{:>9} {:>9} {:>9} {:>9} {:>6} {:>9} {:>6} {:>7}",
        "block", "revm ms", "interp.", "warm", "ratio", "cold", "ratio", "wall"
    )?;
    for block in &tier.blocks {
        write!(
            out,
            "{:>9} {:>9.3} {:>9.3} {:>9.3} {:>6.2}",
            block.block, block.plain_ms, block.interpreter_ms, block.warm_ms, block.warm_ratio
        )?;
        if let Some(cold) = &block.cold {
            let ratios = (cold.cold_ratio, cold.cold_wall_ratio);
            write!(
                out,
                " {:>9.3} {:>6.2} {:>7.2}",
                cold.cold_ms, ratios.0, ratios.1
            )?;
        }
        writeln!(out)?;
    }
    write!(
        out,
        "interpreter / warm {:.3}, plain revm / warm {:.3}",
        tier.warm_ratio, tier.warm_plain_ratio
    )?;
    if let (Some(cold), Some(lowest)) = (tier.cold_ratio, tier.lowest_cold_ratio) {
        write!(
            out,
            "; interpreter / cold {cold:.3}, of the worst block {lowest:.3}"
        )?;
    }
    writeln!(out)
}

fn compute(args: &ComputeArgs) -> eyre::Result<ExitCode> {
    let mut kernels = kernels::all().to_vec();
    kernels.retain(|kernel| kernel.name.contains(&args.programs));
    let programs = match corpus::load(&args.corpus, &args.programs) {
        Err(CorpusError::Nothing(_)) if !kernels.is_empty() => Vec::new(),
        programs => programs?,
    };
    let effort = Effort {
        repetitions: args.repetitions.get(),
        cold_window: f64::from(args.auto_window) * 1e-3,
    };
    let mut progress = |name: &str| eprintln!("{name}");
    let report = zvm_benches::compute::compute(&programs, &kernels, effort, &mut progress)
        .map_err(eyre::Report::msg)?;
    if let Some(path) = &args.html {
        fs::write(path, html::page(&report))?;
    }
    match &args.json {
        Some(Some(path)) => fs::write(path, serde_json::to_vec(&report)?)?,
        Some(None) => {
            let mut out = stdout().lock();
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        }
        None => table(&report)?,
    }
    for program in report.all().filter(|program| !program.equal) {
        let difference = program.difference.as_deref().unwrap_or_default();
        eprintln!("not as expected: {}: {difference}", program.name);
    }
    Ok(if report.equal() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn table(report: &ComputeReport) -> std::io::Result<()> {
    let mut out = stdout().lock();
    let row = |out: &mut dyn Write, program: &ProgramReport| {
        let ratios = program.ratios();
        writeln!(
            out,
            "{:42} {:>11.2} {:>7.2} {:>7.2} {:>7.2} {:>7.2} {:>9.0} {:>9.0} {:>8} {:>5.1} {:>5.1}{}",
            program.name,
            program.plain_ns / 1e3,
            ratios.interpreter,
            ratios.quick,
            ratios.full,
            ratios.auto,
            program.compile_quick_us,
            program.compile_full_us,
            program.bytecode,
            program.code_quick as f64 / program.bytecode as f64,
            program.code_full as f64 / program.bytecode as f64,
            if program.equal {
                ""
            } else {
                "  not as expected"
            },
        )
    };
    let means = |out: &mut dyn Write, name: &str, ratios: &Ratios| {
        writeln!(
            out,
            "{name:42} {:>11} {:>7.2} {:>7.2} {:>7.2} {:>7.2}",
            "", ratios.interpreter, ratios.quick, ratios.full, ratios.auto
        )
    };
    writeln!(
        out,
        "{:42} {:>11} {:>7} {:>7} {:>7} {:>7} {:>9} {:>9} {:>8} {:>5} {:>5}",
        "program",
        "plain us",
        "interp.",
        "quick",
        "full",
        "auto",
        "quick us",
        "full us",
        "bytecode",
        "q x",
        "f x"
    )?;
    row(&mut out, &report.bare_transaction)?;
    for program in &report.programs {
        row(&mut out, program)?;
    }
    means(&mut out, "geometric mean", &report.geomean)?;
    if !report.gce.is_empty() {
        for program in &report.gce {
            row(&mut out, program)?;
        }
        means(
            &mut out,
            "geometric mean of single opcodes",
            &report.gce_geomean,
        )?;
    }
    for kernel in &report.kernels {
        row(&mut out, &kernel.program)?;
        writeln!(
            out,
            "{:42} {:>11.2}",
            "  the same in Rust",
            kernel.native_ns / 1e3
        )?;
    }
    writeln!(
        out,
        "compile, median KB of bytecode a second: quick {:.0}, full {:.0}",
        report.compile.quick_kb_per_s, report.compile.full_kb_per_s
    )
}

fn load(args: &LoadArgs) -> eyre::Result<ExitCode> {
    let report = load::run(&load::Options {
        workload: match args.workload {
            WorkloadName::Transfers => Workload::Transfers,
            WorkloadName::Erc20 => Workload::Erc20,
            WorkloadName::Uniswap => Workload::Uniswap,
            WorkloadName::Mixed => Workload::Mixed,
            WorkloadName::Hot => Workload::Hot,
        },
        conflict: args.conflict,
        durability: match args.durability {
            DurabilityName::Full => Durability::Full,
            DurabilityName::Relaxed => Durability::Relaxed,
        },
        transactions: args.transactions.get(),
        accounts: args.accounts.get(),
        submitters: args.submitters.get(),
        batch: args.batch.get(),
        outstanding: args.outstanding.get(),
        in_flight: args.in_flight,
        gather: Duration::from_millis(args.gather),
        folder: args.folder.clone(),
    })?;
    if let Some(path) = &args.html {
        fs::write(path, load::page(&report))?;
    }
    let mut out = stdout().lock();
    match &args.json {
        Some(Some(path)) => fs::write(path, serde_json::to_vec(&report)?)?,
        Some(None) => {
            serde_json::to_writer(&mut out, &report)?;
            writeln!(out)?;
        }
        None => {
            writeln!(
                out,
                "{}: {:.0} tx/s, bound {:.0}, ratio {:.3}, by processor time {:.3}; {} blocks; p50 {:.1} ms, p99 {:.1} ms; {:.0} MB",
                report.workload,
                report.tx_per_s,
                report.bound_tx_per_s,
                report.ratio,
                report.cpu_ratio,
                report.blocks,
                report.latency_ms.p50,
                report.latency_ms.p99,
                report.rss_mb
            )?;
            for (stage, times) in &report.stages {
                let wall = times
                    .wall_us
                    .map_or(String::new(), |wall| format!(", wall {wall:.2}"));
                writeln!(
                    out,
                    "  {stage:10} {:>7.2} us of processor time a transaction ({:.1} %){wall}",
                    times.cpu_us,
                    times.cpu_share * 100.0
                )?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn repeat(args: &RepeatArgs) -> eyre::Result<ExitCode> {
    let program = Program::load(&args.program, Group::Corpus)?;
    let side = match args.side {
        SideArg::Plain => SideName::Plain,
        SideArg::Interpreter => SideName::Ours(Tier::Interpreter),
        SideArg::Quick => SideName::Ours(Tier::Native(Level::Quick)),
        SideArg::Full => SideName::Ours(Tier::Native(Level::Full)),
        SideArg::Auto => SideName::Ours(Tier::Auto),
    };
    side::repeat(&program, side, args.runs).map_err(eyre::Report::msg)?;
    Ok(ExitCode::SUCCESS)
}
