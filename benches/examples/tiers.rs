//! Corpus programs by the interpreter and natively at both levels: processor time, medians, taking turns.
//! `cargo run --release -p zvm-benches --example tiers [PART OF A NAME]`

use std::sync::Arc;

use zvm_benches::{Workload, shared};
use zvm_engine::fixtures::replay::{median, thread_cpu_seconds};
use zvm_jit::tier::Eager;
use zvm_jit::compiler::{Compiler, Level};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const REPETITIONS: usize = 7;

fn seconds(runs: usize, run: impl Fn()) -> f64 {
    let start = thread_cpu_seconds();
    for _ in 0..runs {
        run();
    }
    (thread_cpu_seconds() - start) / runs as f64
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let mut paths: Vec<_> = std::fs::read_dir(shared("corpus"))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    });
    paths.retain(|path| path.to_string_lossy().contains(&wanted));
    paths.sort();
    println!(
        "{:42} {:>12} {:>6} {:>6} {:>10} {:>10}",
        "program", "µs", "quick", "full", "native", "bytecode"
    );
    for path in paths {
        let workload = match Workload::corpus(&path, 1) {
            Ok(workload) => workload,
            Err(reason) => {
                println!("left out: {reason}");
                continue;
            }
        };
        let eager =
            |level| Ok::<_, zvm_jit::compiler::Refused>(Arc::new(Eager::new(Compiler::new()?, level)));
        let (quick, full) = (eager(Level::Quick)?, eager(Level::Full)?);
        let expected = workload.execute()?;
        for tier in [&quick, &full] {
            let (gas, _) = workload.execute_tiered(tier.clone())?;
            assert_eq!(gas, expected, "{}", workload.name);
        }
        let interpret = || drop(workload.execute());
        let native = |tier: &Arc<Eager>| drop(workload.execute_tiered(tier.clone()));
        let runs = ((0.01 / seconds(1, interpret)) as usize).clamp(1, 500);
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..REPETITIONS {
            a.push(seconds(runs, interpret));
            b.push(seconds(runs, || native(&quick)));
            c.push(seconds(runs, || native(&full)));
        }
        let (a, b, c) = (median(a), median(b), median(c));
        let counts = full.statistics();
        println!(
            "{:42} {:>12.1} {:>6.2} {:>6.2} {:>10} {:>10}",
            workload.name,
            a * 1e6,
            a / b,
            a / c,
            counts.native_bytes,
            counts.bytecode_bytes
        );
    }
    Ok(())
}
