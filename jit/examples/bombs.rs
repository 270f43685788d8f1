//! What each bomb costs: processor time, bytes and peak memory of its compilation, for the notes; tests bound counts.
//! `cargo run --release -p zvm-jit --example bombs [PART OF A NAME]`

use std::fs;
use std::time::Instant;

use zvm_differential::bombs;
use zvm_jit::compiler::{Compiler, Level};
use zvm_runtimes::evm::Fork;

/// Largest resident size since [`forget_peak`], KiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .unwrap_or_default()
}

fn forget_peak() {
    // 5: resets the peak (proc(5)). Where that is not allowed the peaks only rise.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let compiler = Compiler::new()?;
    println!(
        "{:48} {:>6} {:>5} {:>9} {:>10} {:>9}  outcome",
        "bomb", "bytes", "level", "ms", "native", "peak KiB"
    );
    for bomb in bombs::all() {
        if !bomb.name.contains(&wanted) {
            continue;
        }
        for level in [Level::Quick, Level::Full] {
            forget_peak();
            let before = peak();
            let start = Instant::now();
            let outcome = compiler.compile(&bomb.code, Fork::LATEST.spec_id(), level);
            let ms = start.elapsed().as_secs_f64() * 1e3;
            let (native, text) = match &outcome {
                Ok(image) => (image.code().len(), "compiled".to_owned()),
                Err(refused) => (0, refused.to_string()),
            };
            println!(
                "{:48} {:>6} {:>5} {ms:>9.2} {native:>10} {:>9}  {text}",
                bomb.name,
                bomb.code.len(),
                if level == Level::Quick {
                    "quick"
                } else {
                    "full"
                },
                peak().saturating_sub(before)
            );
        }
    }
    Ok(())
}
