//! The host path: a corpus program or the recorded blocks under plain revm, our interpreter tier and native code, taking
//! turns. `cargo run --release -p zvm-benches --example host -- NAME COUNT [MODE]`: COUNT calls in one block; MODE
//! (`plain`, `interpreter`, `native`) runs that alone for a profiler.

use std::hint::black_box;
use std::sync::Arc;

use zvm_benches::{Workload, shared};
use zvm_engine::fixtures::replay::{self, median, thread_cpu_seconds};
use zvm_jit::tier::Eager;
use zvm_jit::unit::{Compiler, Level};
use zvm_runtimes::evm::FrameRunner;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MODES: [&str; 3] = ["plain", "interpreter", "native"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "weth".into());
    let count: u64 = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let only = arguments.next();
    let seconds: f64 = arguments.next().map_or(Ok(0.3), |text| text.parse())?;
    let eager = Arc::new(Eager::new(Compiler::new()?, Level::Full));
    let runner: Arc<dyn FrameRunner> = eager.clone();
    let mut run: Box<dyn FnMut(usize)> = if name == "blocks" {
        let blocks = replay::load(&[shared("blocks")])?;
        let envs: Vec<_> = blocks.iter().map(|block| block.tx_envs()).collect();
        Box::new(move |mode| {
            for (block, envs) in blocks.iter().zip(&envs) {
                match mode {
                    0 => drop(black_box(block.execute_plain(envs).expect("executes"))),
                    1 => drop(black_box(block.execute(None).expect("executes"))),
                    _ => drop(black_box(block.execute(Some(&runner)).expect("executes"))),
                }
            }
        })
    } else {
        let workload = Workload::corpus(&shared(&format!("corpus/{name}.json")), count)?;
        Box::new(move |mode| match mode {
            0 => drop(black_box(workload.execute_plain().expect("executes"))),
            1 => drop(black_box(workload.execute().expect("executes"))),
            _ => drop(black_box(
                workload.execute_tiered(runner.clone()).expect("executes"),
            )),
        })
    };
    let per = if name == "blocks" { 1.0 } else { count as f64 };
    if let Some(mode) = only {
        let mode = MODES
            .iter()
            .position(|known| *known == mode)
            .ok_or("mode")?;
        run(mode);
        let start = thread_cpu_seconds();
        while thread_cpu_seconds() - start < seconds {
            run(mode);
        }
        return Ok(());
    }
    let mut times: [Vec<f64>; 3] = Default::default();
    let mut runs = 1;
    for round in 0..12 {
        for offset in 0..3 {
            let mode = (round + offset) % 3;
            let start = thread_cpu_seconds();
            for _ in 0..runs {
                run(mode);
            }
            let time = (thread_cpu_seconds() - start) / runs as f64;
            if round > 0 {
                times[mode].push(time / per * 1e6);
            } else if mode == 0 {
                runs = ((0.03 / time) as usize).clamp(1, 5000);
            }
        }
    }
    let [plain, interpreter, native] = times.map(median);
    println!(
        "{name:32} {count:5}  plain {plain:10.2} µs  interpreter {interpreter:10.2} ({:.2})  native {native:10.2} ({:.2})",
        plain / interpreter,
        plain / native
    );
    Ok(())
}
