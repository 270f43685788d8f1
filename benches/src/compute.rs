//! Programs by plain revm and by this engine in every tier: time, compilation, code size, and whether the results are
//! those expected.

use std::collections::BTreeMap;

use serde::Serialize;
use zvm_engine::fixtures::replay::thread_cpu_seconds;
use zvm_jit::compiler::{Compiler, Level, Observer, Options, Stage};
use zvm_jit::memory::CodeMemory;
use zvm_jit::tier;
use zvm_jit::unit::Unit;

use crate::corpus::{Group, Program};
use crate::kernels::{Kernel, KernelReport};
use crate::sample::{Spread, Subject, calibrate, geometric_mean, take_turns, time};
use crate::side::{Ours, Plain, Side, Tier};

/// Seconds a sample takes at least.
const SHORTEST_SAMPLE: f64 = 0.010;
/// Seconds and times a compilation is repeated at least, and times at most.
const COMPILATIONS: (f64, usize, usize) = (0.030, 3, 50);

/// Names of the steps of a compilation, in order.
pub const STEPS: [&str; Stage::ALL.len() + 1] = {
    let mut names = ["publish"; Stage::ALL.len() + 1];
    let mut index = 0;
    while index < Stage::ALL.len() {
        names[index] = Stage::ALL[index].name();
        index += 1;
    }
    names
};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Samples of each side; medians count.
    pub repetitions: usize,
    /// Seconds of the interpreter's work in a sample of `auto`, which begins without compiled code.
    pub cold_window: f64,
}

/// One program.
#[derive(Debug, Clone, Serialize)]
pub struct ProgramReport {
    /// Name.
    pub name: String,
    /// Nanoseconds of processor time of one transaction by plain revm.
    pub plain_ns: f64,
    /// By this engine's interpreter.
    pub interpreter_ns: f64,
    /// Natively, level quick, compiled before.
    pub quick_ns: f64,
    /// Natively, level full, compiled before.
    pub full_ns: f64,
    /// By `auto`: the mean over a sample of `auto_runs` that begins without compiled code. Compilations by other threads
    /// are not in it.
    pub auto_ns: f64,
    /// Microseconds of processor time to compile all codes of the program at level quick; what is refused counts with the
    /// time the refusal took.
    pub compile_quick_us: f64,
    /// The same at level full.
    pub compile_full_us: f64,
    /// Of `compile_quick_us` and `compile_full_us` what each step took, and `publish`, which makes the code executable and
    /// is in neither: microseconds, medians of the same compilations summed over the codes.
    pub compile_steps_us: Levels<BTreeMap<&'static str, f64>>,
    /// Bytes of all distinct codes of the program.
    pub bytecode: usize,
    /// Bytes of native code for them, level quick.
    pub code_quick: usize,
    /// Bytes of native code for them, level full.
    pub code_full: usize,
    /// Before and after the measurement every side gave the expected status, gas, refund, output, logs and storage, and
    /// every run in between the expected gas.
    pub equal: bool,
    /// The first difference.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<String>,
    /// Codes refused by either level, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// Transactions in a sample of `auto`.
    pub auto_runs: u32,
    /// Gas of the transaction.
    pub gas: u64,
    /// Median and quartiles of the samples.
    pub spread: Columns<Spread>,
}

/// One value a level.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Levels<T> {
    /// Level quick.
    pub quick: T,
    /// Level full.
    pub full: T,
}

/// One value a side.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Columns<T> {
    /// Plain revm.
    pub plain: T,
    /// This engine's interpreter.
    pub interpreter: T,
    /// Native code, level quick.
    pub quick: T,
    /// Native code, level full.
    pub full: T,
    /// From cold.
    pub auto: T,
}

/// Plain revm's time divided by ours.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Ratios {
    /// This engine's interpreter.
    pub interpreter: f64,
    /// Native code, level quick.
    pub quick: f64,
    /// Native code, level full.
    pub full: f64,
    /// From cold.
    pub auto: f64,
}

/// Medians over the programs of kilobytes (1,024) of bytecode compiled a second of processor time.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct CompileRates {
    /// Level quick.
    pub quick_kb_per_s: f64,
    /// Level full.
    pub full_kb_per_s: f64,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct ComputeReport {
    /// The corpus.
    pub programs: Vec<ProgramReport>,
    /// Geometric means of the ratios over `programs`.
    pub geomean: Ratios,
    /// Over `programs`.
    pub compile: CompileRates,
    /// The programs of one opcode each.
    pub gce: Vec<ProgramReport>,
    /// Geometric means of the ratios over `gce`.
    pub gce_geomean: Ratios,
    /// Three loops beside the same in Rust.
    pub kernels: Vec<KernelReport>,
    /// A transaction that calls a contract which stops at once: what every figure above contains.
    pub bare_transaction: ProgramReport,
    /// Samples of each side.
    pub repetitions: usize,
    /// `release` or `debug`.
    pub build: &'static str,
}

impl ProgramReport {
    /// Plain revm's time divided by ours.
    pub fn ratios(&self) -> Ratios {
        Ratios {
            interpreter: self.plain_ns / self.interpreter_ns,
            quick: self.plain_ns / self.quick_ns,
            full: self.plain_ns / self.full_ns,
            auto: self.plain_ns / self.auto_ns,
        }
    }
}

impl ComputeReport {
    /// Every result was as expected.
    pub fn equal(&self) -> bool {
        self.all().all(|report| report.equal)
    }

    /// Every program that ran.
    pub fn all(&self) -> impl Iterator<Item = &ProgramReport> {
        (self.programs.iter().chain(&self.gce))
            .chain(self.kernels.iter().map(|kernel| &kernel.program))
            .chain(core::iter::once(&self.bare_transaction))
    }
}

/// Measures all `programs`, `kernels` and the bare transaction. `progress` hears of each before it starts.
///
/// # Errors
/// There is no compiler for this processor, or plain revm does not run one of our own programs.
pub fn compute(
    programs: &[Program],
    kernels: &[Kernel],
    effort: Effort,
    progress: &mut dyn FnMut(&str),
) -> Result<ComputeReport, String> {
    let compiler = Compiler::new().map_err(|error| error.to_string())?;
    let mut measured = |program: &Program| {
        progress(&program.name);
        measure(program, &compiler, effort)
    };
    let bare_transaction = measured(&expecting_what_plain_revm_does(Program::bare())?);
    let (mut corpus, mut gce) = (Vec::new(), Vec::new());
    for program in programs {
        match program.group {
            Group::Corpus => corpus.push(measured(program)),
            Group::SingleOpcode => gce.push(measured(program)),
        }
    }
    let mut beside_rust = Vec::new();
    for kernel in kernels {
        let program = kernel.program()?;
        let native = kernel.native_seconds(effort.repetitions, SHORTEST_SAMPLE)?;
        beside_rust.push(KernelReport {
            native_ns: native * 1e9,
            program: measured(&program),
        });
    }
    Ok(ComputeReport {
        geomean: geometric_means(&corpus),
        compile: compile_rates(&corpus),
        programs: corpus,
        gce_geomean: geometric_means(&gce),
        gce,
        kernels: beside_rust,
        bare_transaction,
        repetitions: effort.repetitions,
        build: if cfg!(debug_assertions) {
            "debug"
        } else {
            "release"
        },
    })
}

/// The program with plain revm's outcome as the one expected.
pub(crate) fn expecting_what_plain_revm_does(mut program: Program) -> Result<Program, String> {
    program.expected = Plain::new(&program).outcome()?;
    Ok(program)
}

fn geometric_means(reports: &[ProgramReport]) -> Ratios {
    let mean = |ratio: fn(Ratios) -> f64| {
        let ratios = reports.iter().map(|report| ratio(report.ratios()));
        geometric_mean(ratios.filter(|ratio| ratio.is_finite()))
    };
    Ratios {
        interpreter: mean(|ratios| ratios.interpreter),
        quick: mean(|ratios| ratios.quick),
        full: mean(|ratios| ratios.full),
        auto: mean(|ratios| ratios.auto),
    }
}

fn compile_rates(reports: &[ProgramReport]) -> CompileRates {
    // A refusal is quick and says nothing of the rate.
    let compiled = || reports.iter().filter(|report| report.refused.is_empty());
    let rate = |microseconds: fn(&ProgramReport) -> f64| {
        let rates: Vec<f64> = compiled()
            .map(|report| report.bytecode as f64 / 1024.0 / (microseconds(report) * 1e-6))
            .collect();
        Spread::of(&rates).median
    };
    CompileRates {
        quick_kb_per_s: rate(|report| report.compile_quick_us),
        full_kb_per_s: rate(|report| report.compile_full_us),
    }
}

/// What one level makes of the codes of a program.
#[derive(Default)]
struct Compilation {
    microseconds: f64,
    bytes: usize,
    refused: Vec<String>,
    steps: BTreeMap<&'static str, f64>,
}

/// What each step of one compilation took, in seconds of processor time.
struct Clock {
    last: f64,
    steps: [Option<f64>; Stage::ALL.len()],
}

impl Observer for Clock {
    fn done(&mut self, stage: Stage) {
        let now = thread_cpu_seconds();
        self.steps[stage as usize] = Some(now - self.last);
        self.last = now;
    }
}

fn compile(program: &Program, compiler: &Compiler, level: Level) -> Compilation {
    let (shortest, fewest, most) = COMPILATIONS;
    let mut compilation = Compilation::default();
    let memory = CodeMemory::new(tier::DEFAULT_MEMORY);
    for code in program.codes() {
        let (mut times, mut total) = (Vec::new(), 0.0);
        let mut steps: [Vec<f64>; Stage::ALL.len() + 1] = Default::default();
        while times.len() < most && (total < shortest || times.len() < fewest) {
            let start = thread_cpu_seconds();
            let mut clock = Clock {
                last: start,
                steps: Default::default(),
            };
            let options = Options::of(level);
            let image = compiler.compile_with(&code, program.spec_id(), options, &mut clock);
            let time = thread_cpu_seconds() - start;
            for (all, step) in steps.iter_mut().zip(clock.steps) {
                all.extend(step);
            }
            if times.is_empty() {
                match &image {
                    Ok(image) => compilation.bytes += image.code().len(),
                    Err(reason) => (compilation.refused)
                        .push(format!("{level:?}, {} bytes: {reason}", code.len())),
                }
            }
            times.push(time);
            total += time;
            if let Ok(image) = image {
                let start = thread_cpu_seconds();
                let unit = Unit::load(image, &memory);
                steps[Stage::ALL.len()].push(thread_cpu_seconds() - start);
                if let Err(reason) = unit {
                    let reason = format!("{level:?}, {} bytes: {reason}", code.len());
                    compilation.refused.push(reason);
                    break;
                }
            }
        }
        for (name, times) in STEPS.into_iter().zip(&steps) {
            if !times.is_empty() {
                *compilation.steps.entry(name).or_default() += Spread::of(times).median * 1e6;
            }
        }
        compilation.microseconds += Spread::of(&times).median * 1e6;
    }
    compilation
}

fn measure(program: &Program, compiler: &Compiler, effort: Effort) -> ProgramReport {
    let quick = compile(program, compiler, Level::Quick);
    let full = compile(program, compiler, Level::Full);
    let mut report = ProgramReport {
        name: program.name.clone(),
        plain_ns: f64::NAN,
        interpreter_ns: f64::NAN,
        quick_ns: f64::NAN,
        full_ns: f64::NAN,
        auto_ns: f64::NAN,
        compile_quick_us: quick.microseconds,
        compile_full_us: full.microseconds,
        compile_steps_us: Levels {
            quick: quick.steps,
            full: full.steps,
        },
        bytecode: program.codes().iter().map(|code| code.len()).sum(),
        code_quick: quick.bytes,
        code_full: full.bytes,
        equal: false,
        difference: None,
        refused: quick.refused.into_iter().chain(full.refused).collect(),
        auto_runs: 0,
        gas: program.expected.gas_used,
        spread: Columns::default(),
    };
    match run(program, compiler, effort, &mut report) {
        Ok(()) => report.equal = true,
        Err(difference) => report.difference = Some(difference),
    }
    report
}

fn run(
    program: &Program,
    compiler: &Compiler,
    effort: Effort,
    report: &mut ProgramReport,
) -> Result<(), String> {
    let pre = program.pre_state();
    let ours = |tier, cold| Ours::new(program, &pre, compiler, tier, cold);
    let mut plain = Plain::new(program);
    let mut interpreter = ours(Tier::Interpreter, false)?;
    let mut quick = ours(Tier::Native(Level::Quick), false)?;
    let mut full = ours(Tier::Native(Level::Full), false)?;
    let mut auto = ours(Tier::Auto, true)?;
    let mut sides: [(&str, &mut dyn Side); 5] = [
        ("plain", &mut plain),
        ("interpreter", &mut interpreter),
        ("quick", &mut quick),
        ("full", &mut full),
        ("auto", &mut auto),
    ];
    check(&mut sides, program)?;
    let mut runs = [0; 5];
    for ((name, side), runs) in sides.iter_mut().zip(&mut runs).take(4) {
        *runs = calibrate(*side, SHORTEST_SAMPLE).map_err(|reason| format!("{name}: {reason}"))?;
    }
    let one = time(sides[1].1, runs[1])?.cpu;
    report.auto_runs = (effort.cold_window / one).ceil().clamp(1.0, 1e9) as u32;
    runs[4] = report.auto_runs;
    let mut subjects: Vec<(&mut dyn Subject, u32)> = Vec::new();
    for ((_, side), runs) in sides.iter_mut().zip(runs) {
        subjects.push((&mut **side, runs));
    }
    let samples = take_turns(&mut subjects, effort.repetitions)?;
    let spread = |index: usize| {
        let nanoseconds: Vec<f64> = samples[index].iter().map(|time| time.cpu * 1e9).collect();
        Spread::of(&nanoseconds)
    };
    report.spread = Columns {
        plain: spread(0),
        interpreter: spread(1),
        quick: spread(2),
        full: spread(3),
        auto: spread(4),
    };
    check(&mut sides, program)?;
    report.plain_ns = report.spread.plain.median;
    report.interpreter_ns = report.spread.interpreter.median;
    report.quick_ns = report.spread.quick.median;
    report.full_ns = report.spread.full.median;
    report.auto_ns = report.spread.auto.median;
    Ok(())
}

fn check(sides: &mut [(&str, &mut dyn Side)], program: &Program) -> Result<(), String> {
    for (name, side) in sides {
        let outcome = side
            .outcome()
            .map_err(|reason| format!("{name}: {reason}"))?;
        if let Some(difference) = outcome.difference(&program.expected) {
            return Err(format!("{name}: {difference}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{corpus, kernels, shared};

    const LITTLE: Effort = Effort {
        repetitions: 1,
        cold_window: 1e-4,
    };

    #[test]
    fn the_report_has_the_stated_shape() {
        let programs = corpus::load(&shared("corpus"), "counter").unwrap();
        let report = compute(&programs, &kernels::all(), LITTLE, &mut |_| ()).unwrap();
        assert!(report.equal());
        let json = serde_json::to_value(&report).unwrap();
        let program = &json["programs"][0];
        assert_eq!(program["name"], "counter");
        assert_eq!(program["equal"], true);
        assert_eq!(program["bytecode"], 367);
        for field in [
            "plain_ns",
            "interpreter_ns",
            "quick_ns",
            "full_ns",
            "auto_ns",
            "compile_quick_us",
            "compile_full_us",
            "code_quick",
            "code_full",
        ] {
            assert!(program[field].as_f64().unwrap() > 0.0, "{field}");
        }
        for level in ["quick", "full"] {
            let steps = &program["compile_steps_us"][level];
            let time = |step: &str| steps[step].as_f64().unwrap();
            assert_eq!(steps.as_object().unwrap().len(), STEPS.len());
            assert!(time("backend") > 0.0 && time("publish") > 0.0, "{steps}");
        }
        for field in ["interpreter", "quick", "full", "auto"] {
            assert!(json["geomean"][field].as_f64().unwrap() > 0.0, "{field}");
        }
        for field in ["quick_kb_per_s", "full_kb_per_s"] {
            assert!(json["compile"][field].as_f64().unwrap() > 0.0, "{field}");
        }
        assert_eq!(json["kernels"].as_array().unwrap().len(), 3);
        assert_eq!(json["gce"].as_array().unwrap().len(), 0);
    }

    #[test]
    fn the_page_shows_every_program_and_needs_nothing_else() {
        let mut programs = corpus::load(&shared("corpus"), "eip").unwrap();
        programs[0].expected.gas_used += 1;
        let report = compute(&programs, &kernels::all(), LITTLE, &mut |_| ()).unwrap();
        let page = crate::html::page(&report);
        assert_eq!(report.all().count(), 2 + 3 + 1);
        // The bare transaction is in a sentence, without its name.
        for program in report.all().filter(|one| one.name != "bare_transaction") {
            assert!(page.contains(&program.name), "{}", program.name);
        }
        assert!(page.contains("Not as expected: eip2935: plain: gas used"));
        for outside in [
            "http:", "https:", "src=", "<link", "<script", "@import", "NaN",
        ] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_result_other_than_the_expected_one_is_reported_and_not_timed() {
        let compiler = Compiler::new().unwrap();
        let mut programs = corpus::load(&shared("corpus"), "counter").unwrap();
        let changes: [fn(&mut Program); 4] = [
            |program| program.expected.gas_used += 1,
            |program| program.expected.output_len += 1,
            |program| program.expected.logs += 1,
            |program| program.expected.storage_hash.0[0] ^= 1,
        ];
        for change in changes {
            let mut program = programs[0].clone();
            change(&mut program);
            let report = measure(&program, &compiler, LITTLE);
            assert!(!report.equal);
            assert!(report.difference.is_some());
            assert!(report.plain_ns.is_nan());
        }
        let report = measure(&programs.remove(0), &compiler, LITTLE);
        assert_eq!(report.difference, None);
    }

    #[test]
    fn every_program_of_the_corpus_leads_to_what_was_recorded_in_every_tier() {
        let compiler = Compiler::new().unwrap();
        let programs = corpus::load(&shared("corpus"), "").unwrap();
        let mut compared = 0;
        for program in &programs {
            let pre = program.pre_state();
            let outcome = Plain::new(program).outcome().unwrap();
            assert_eq!(
                outcome.difference(&program.expected),
                None,
                "{}",
                program.name
            );
            for tier in [
                Tier::Interpreter,
                Tier::Native(Level::Quick),
                Tier::Native(Level::Full),
                Tier::Auto,
            ] {
                let mut side = Ours::new(program, &pre, &compiler, tier, false).unwrap();
                let difference = side.outcome().unwrap().difference(&program.expected);
                assert_eq!(difference, None, "{} {tier:?}", program.name);
                compared += 1;
            }
        }
        assert_eq!(compared, 4 * 168);
    }

    #[test]
    fn a_program_that_changes_the_state_finds_the_same_state_at_every_run() {
        let compiler = Compiler::new().unwrap();
        for name in ["counter", "weth", "curve_stableswap"] {
            let programs = corpus::load(&shared("corpus"), name).unwrap();
            let pre = programs[0].pre_state();
            let mut plain = Plain::new(&programs[0]);
            let mut ours =
                Ours::new(&programs[0], &pre, &compiler, Tier::Interpreter, false).unwrap();
            for _ in 0..3 {
                // The gas of a second store to the same slot would differ.
                plain.run().unwrap();
                ours.run().unwrap();
            }
            let outcome = plain.outcome().unwrap();
            assert_eq!(outcome.difference(&programs[0].expected), None);
        }
    }
}
