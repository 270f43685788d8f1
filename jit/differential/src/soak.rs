//! Many programs, in processes that may crash.
//!
//! A worker process executes a range of programs and says on its output what it does; the supervisor starts one a
//! thread, and another one behind the program that a worker did not survive.

use core::time::Duration;
use std::collections::BTreeMap;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use zvm_runtimes::revm::context::result::ExecutionResult;

use crate::case::Case;
use crate::choices::{Choices, mix};
use crate::compare::{Comparison, describe};
use crate::minimise::minimise;
use crate::real::Codes;

/// A worker that says nothing for so long hangs in what it compiled, or in compiling it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Executions that a minimisation may take.
const TRIES: usize = 6_000;

/// Which programs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Program `n` depends on this and `n` alone.
    pub seed: u64,
    /// Folders of contracts.
    pub codes: Vec<PathBuf>,
    /// One program of so many is swept over gas limits; 0 for none.
    pub sweep_every: u64,
}

/// Contracts to make programs of.
#[derive(Debug, Clone, Default)]
pub struct Contracts {
    /// To be cut.
    all: Codes,
    /// Short enough to be executed whole.
    short: Codes,
}

/// Bytes of the longest contract that is executed whole: longer ones are compiled for too long.
const WHOLE: usize = 3_000;

/// What happened, by name.
pub type Counts = BTreeMap<String, u64>;

impl Plan {
    /// Reads the contracts.
    ///
    /// # Errors
    /// A folder cannot be read.
    pub fn contracts(&self) -> Result<Contracts, crate::real::CodesError> {
        let mut codes = Codes::default();
        for folder in &self.codes {
            codes.add(Codes::read(folder)?);
        }
        Ok(Contracts {
            short: codes.up_to(WHOLE),
            all: codes,
        })
    }

    /// Program `index` and what kind it is.
    pub fn case(&self, index: u64, codes: &Contracts) -> (Case, &'static str) {
        let mut choices = Choices::from_seed(mix(self.seed ^ mix(index)));
        let real = u64::from(!codes.all.is_empty());
        match choices.weighted(&[240, 120 * real, real, 20]) {
            0 => (Case::structured(&mut choices), "structured"),
            1 => (codes.all.case(&mut choices), "cut out of contracts"),
            2 => {
                let chosen = choices.below(codes.short.len() as u64) as usize;
                (codes.short.whole(&mut choices, chosen), "whole contracts")
            }
            _ => {
                let bytes: Vec<u8> = (0..choices.between(1, 60))
                    .map(|_| choices.below(256) as u8)
                    .collect();
                let case = Case::of_code(&bytes, 0);
                let case = Case::around(&mut choices, case.items, case.fork);
                (case, "random bytes")
            }
        }
    }
}

/// Executes programs `from..to` in this process and writes what happens to `out`, a line an event: `@ INDEX` before a
/// program, `= COUNT NAME` to be added, `! TEXT` for a difference.
///
/// # Errors
/// `out` cannot be written.
pub fn work(plan: &Plan, from: u64, to: u64, out: &mut impl io::Write) -> io::Result<()> {
    let codes = plan.contracts().map_err(io::Error::other)?;
    let mut comparison = Comparison::new().map_err(io::Error::other)?;
    let mut counts = Counts::new();
    for index in from..to {
        writeln!(out, "@ {index}")?;
        out.flush()?;
        let (case, kind) = plan.case(index, &codes);
        *counts.entry(kind.to_owned()).or_default() += 1;
        let sweep = plan.sweep_every > 0 && index.is_multiple_of(plan.sweep_every);
        let outcome = if sweep {
            comparison.sweep(&case, 100).map(|limits| {
                *counts.entry("gas limits of sweeps".to_owned()).or_default() += limits;
            })
        } else {
            comparison.check(&case).map(|observation| {
                let end = match &observation.result {
                    Ok(ExecutionResult::Success { .. }) => "ended well".to_owned(),
                    Ok(ExecutionResult::Revert { .. }) => "ended by a revert".to_owned(),
                    Ok(ExecutionResult::Halt { reason, .. }) => format!("ended by {reason:?}"),
                    Err(_) => "refused as transactions".to_owned(),
                };
                *counts.entry(end).or_default() += 1;
                *counts.entry("frame events".to_owned()).or_default() +=
                    observation.log.frames.len() as u64;
            })
        };
        if let Err(difference) = outcome {
            *counts.entry("differences".to_owned()).or_default() += 1;
            let found = format!("program {index} ({kind}): {difference}\n");
            let mut case = case;
            case.gas = difference.gas_limit - case.intrinsic_gas();
            // A line now and then shows that this process lives.
            let small = minimise(&case, TRIES, |case| {
                let _ = writeln!(out, "@ {index}");
                comparison.check(case).is_err()
            });
            let again = match comparison.check(&small) {
                Err(difference) => difference.to_string(),
                Ok(_) => "the smaller program does not differ".to_owned(),
            };
            let report = format!(
                "{found}{}\nmade smaller: {again}\n{}",
                describe(&case),
                describe(&small)
            );
            for line in report.lines() {
                writeln!(out, "! {line}")?;
            }
        }
    }
    for ((expected, found), count) in &comparison.kinds {
        *counts
            .entry(format!("{expected} reported as {found}, allowed"))
            .or_default() += count;
    }
    let statistics = comparison.statistics();
    for (name, count) in [
        ("transactions executed", comparison.executed),
        ("codes compiled", statistics.compiled),
        ("codes refused", statistics.refused),
        ("bytes compiled", statistics.bytecode_bytes),
        ("bytes of native code", statistics.native_bytes),
        ("entries of native code", statistics.entries),
        ("instructions left to the interpreter", statistics.left),
        ("frames without native code", statistics.interpreted),
    ] {
        *counts.entry(name.to_owned()).or_default() += count;
    }
    for (name, count) in counts {
        writeln!(out, "= {count} {name}")?;
    }
    out.flush()
}

enum Event {
    At(u64),
    Count(String, u64),
    Text(String),
    /// A line that means nothing.
    Nothing,
}

/// What a supervised run found.
#[derive(Debug, Default)]
pub struct Report {
    /// Counts by name.
    pub counts: Counts,
    /// Programs that native code did not survive: crashed or hung.
    pub lost: u64,
}

impl Report {
    /// Differences and lost programs.
    pub fn failures(&self) -> u64 {
        self.lost + self.counts.get("differences").copied().unwrap_or_default()
    }
}

/// Executes programs `from..from + programs` in `threads` processes of this program, which `worker` starts for a range.
/// Says on standard output what is found.
///
/// # Errors
/// A process cannot be started, or the contracts cannot be read.
pub fn supervise(
    plan: &Plan,
    from: u64,
    programs: u64,
    threads: u64,
    worker: &(impl Fn(u64, u64) -> Command + Sync),
) -> io::Result<Report> {
    let codes = plan.contracts().map_err(io::Error::other)?;
    let share = programs.div_ceil(threads.max(1));
    let end = from + programs;
    let (report, done) = (
        std::sync::Mutex::new(Report::default()),
        std::sync::atomic::AtomicU64::new(0),
    );
    let start = Instant::now();
    let run = |from: u64, to: u64| -> io::Result<()> {
        let mut next = from;
        while next < to {
            let (last, reason) = run_worker(worker(next, to), |event| match event {
                Event::Count(name, count) => {
                    let mut report = report
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner());
                    *report.counts.entry(name).or_default() += count;
                }
                Event::Text(line) => println!("{line}"),
                Event::At(_) => {
                    let done = done.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                    if done.is_multiple_of(20_000) {
                        let rate = done as f64 / start.elapsed().as_secs_f64();
                        eprintln!("{done} programs, {rate:.0} a second");
                    }
                }
                Event::Nothing => {}
            })?;
            let Some(reason) = reason else { break };
            let at = last.unwrap_or(next);
            let (case, kind) = plan.case(at, &codes);
            println!("program {at} ({kind}): {reason}\n{}", describe(&case));
            report
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner())
                .lost += 1;
            next = at + 1;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1))
            .map(|thread| {
                let (low, high) = (from + thread * share, from + (thread + 1) * share);
                let run = &run;
                scope.spawn(move || run(low.min(end), high.min(end)))
            })
            .collect();
        workers.into_iter().try_for_each(|worker| {
            worker
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a thread of the supervisor panicked")))
        })
    })?;
    Ok(report
        .into_inner()
        .unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// Runs a worker. Returns the program it began last, and why it did not end well.
fn run_worker(
    mut command: Command,
    mut on: impl FnMut(Event),
) -> io::Result<(Option<u64>, Option<String>)> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let (sender, events) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { break };
                if sender.send(parse(&line)).is_err() {
                    break;
                }
            }
        });
        let mut last = None;
        let hung = loop {
            match events.recv_timeout(PATIENCE) {
                Ok(event) => {
                    if let Event::At(index) = event {
                        if last == Some(index) {
                            continue;
                        }
                        last = Some(index);
                    }
                    on(event);
                }
                Err(RecvTimeoutError::Timeout) => break true,
                Err(RecvTimeoutError::Disconnected) => break false,
            }
        };
        if hung {
            // It may have ended by itself in between.
            let _ = child.kill();
        }
        let status: ExitStatus = child.wait()?;
        Ok((
            last,
            if hung {
                Some("no end within 30 s".to_owned())
            } else if status.success() {
                None
            } else {
                Some(format!("the process ended with {status}"))
            },
        ))
    })
}

fn parse(line: &str) -> Event {
    let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
    match mark {
        "@" => rest.parse().map_or(Event::Nothing, Event::At),
        "=" => match rest.split_once(' ') {
            Some((count, name)) => Event::Count(name.to_owned(), count.parse().unwrap_or(0)),
            None => Event::Nothing,
        },
        "!" => Event::Text(rest.to_owned()),
        _ => Event::Text(line.to_owned()),
    }
}

/// Prints a report's counts.
///
/// # Errors
/// Standard output cannot be written.
pub fn print(report: &Report) -> io::Result<()> {
    let mut out = io::stdout().lock();
    for (name, count) in &report.counts {
        writeln!(out, "{count:>14} {name}")?;
    }
    writeln!(out, "{:>14} crashed or hung", report.lost)
}
