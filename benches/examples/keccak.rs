//! Nanoseconds of processor time a hash: ours (distinct inputs, one input again and again) and the library's, taking turns.
//! `cargo run --release -p zvm-benches --example keccak`

use std::hint::black_box;

use zvm_engine::fixtures::replay::{median, thread_cpu_seconds};
use zvm_runtimes::evm::keccak256;

const HASHES: u64 = 20_000;

fn nanoseconds(mut hash: impl FnMut(u64)) -> f64 {
    let start = thread_cpu_seconds();
    for index in 0..HASHES {
        hash(index);
    }
    (thread_cpu_seconds() - start) * 1e9 / HASHES as f64
}

fn main() {
    println!(
        "{:>8} {:>10} {:>10} {:>10}",
        "bytes", "distinct", "same", "library"
    );
    for length in [20, 32, 64, 85, 135, 136, 512, 4096] {
        let mut input = vec![0x5a; length];
        let mut times: [Vec<f64>; 3] = Default::default();
        for round in 0..15u64 {
            let distinct = nanoseconds(|index| {
                input[..8].copy_from_slice(&(index + round * HASHES).to_le_bytes());
                black_box(keccak256(black_box(&input)));
            });
            let same = nanoseconds(|_| {
                black_box(keccak256(black_box(&input)));
            });
            let library = nanoseconds(|index| {
                input[..8].copy_from_slice(&index.to_le_bytes());
                black_box(alloy_primitives::keccak256(black_box(&input)));
            });
            for (times, time) in times.iter_mut().zip([distinct, same, library]) {
                times.push(time);
            }
        }
        let [distinct, same, library] = times.map(median);
        println!("{length:>8} {distinct:>10.1} {same:>10.1} {library:>10.1}");
    }
}
