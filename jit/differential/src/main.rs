//! Executes random programs by the interpreter, quick, full and mixed, and prints every difference.

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;
use zvm_differential::case::Case;
use zvm_differential::compare::{Comparison, describe};
use zvm_differential::minimise::minimise;
use zvm_differential::soak::{Plan, print, supervise, work};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(about, long_about = None)]
struct Options {
    /// Programs to execute.
    #[arg(long, default_value_t = 10_000)]
    programs: u64,
    /// Number of the first program.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Every program depends on this and its number alone.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Processes.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Folder of contracts to cut programs out of; may be given more than once.
    #[arg(long, default_values = ["../shared/corpus", "../shared/blocks"])]
    codes: Vec<PathBuf>,
    /// No programs cut out of contracts.
    #[arg(long)]
    without_codes: bool,
    /// One program of so many is executed at many gas limits; 0 for none.
    #[arg(long, default_value_t = 50)]
    sweep_every: u64,
    /// Executes one case from a file as printed here, or `-` for standard input, and says where it differs.
    #[arg(long)]
    repeat: Option<PathBuf>,
    /// With --repeat: only says by the exit status whether it differs.
    #[arg(long)]
    quiet: bool,
    /// Used by the supervisor: executes in this process.
    #[arg(long, hide = true)]
    worker: bool,
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let options = Options::parse();
    if let Some(path) = &options.repeat {
        return repeat(path, options.quiet);
    }
    let plan = Plan {
        seed: options.seed,
        codes: if options.without_codes {
            Vec::new()
        } else {
            options.codes.clone()
        },
        sweep_every: options.sweep_every,
    };
    let end = options.from + options.programs;
    if options.worker {
        work(&plan, options.from, end, &mut std::io::stdout().lock())?;
        return Ok(ExitCode::SUCCESS);
    }
    let program = std::env::current_exe()?;
    let worker = |from: u64, to: u64| {
        let mut command = Command::new(&program);
        let number = |name: &str, value: u64| format!("--{name}={value}");
        command.arg("--worker").args([
            number("from", from),
            number("programs", to - from),
            number("seed", plan.seed),
            number("sweep-every", plan.sweep_every),
        ]);
        for folder in &plan.codes {
            command.arg("--codes").arg(folder);
        }
        if plan.codes.is_empty() {
            command.arg("--without-codes");
        }
        command
    };
    let start = Instant::now();
    let report = supervise(
        &plan,
        options.from,
        options.programs,
        options.threads,
        &worker,
    )?;
    print(&report)?;
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{} programs in {seconds:.1} s, {:.0} a second and process, {} failures",
        options.programs,
        options.programs as f64 / seconds / options.threads.max(1) as f64,
        report.failures()
    );
    Ok(if report.failures() == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Executes one case; where it differs or does not survive, a smaller one is looked for in processes of its own.
fn repeat(path: &PathBuf, quiet: bool) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(path)?
    };
    let case = Case::parse(&text)?;
    if quiet {
        let differs = Comparison::new()?.check(&case).is_err();
        return Ok(ExitCode::from(u8::from(differs)));
    }
    let program = std::env::current_exe()?;
    let fails = |case: &Case| {
        let run = || -> std::io::Result<bool> {
            let mut child = Command::new(&program)
                .args(["--quiet", "--repeat", "-"])
                .stdin(std::process::Stdio::piped())
                .stderr(std::process::Stdio::null())
                .spawn()?;
            if let Some(mut input) = child.stdin.take() {
                std::io::Write::write_all(&mut input, describe(case).as_bytes())?;
            }
            Ok(!child.wait()?.success())
        };
        run().unwrap_or(false)
    };
    if !fails(&case) {
        println!("no difference");
        return Ok(ExitCode::SUCCESS);
    }
    let small = minimise(&case, 3_000, fails);
    println!("{}", describe(&small));
    // Last, because this process may not survive it.
    if let Err(difference) = Comparison::new()?.check(&small) {
        println!("{difference}");
    }
    Ok(ExitCode::FAILURE)
}
