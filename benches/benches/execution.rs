//! Transfers, ERC-20 transfers and one mainnet block, each beside plain revm.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zvm_benches::{Workload, shared};
use zvm_engine::fixtures::replay;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn workload(criterion: &mut Criterion, workload: &Workload) {
    let mut group = criterion.benchmark_group(&workload.name);
    group.throughput(Throughput::Elements(workload.len() as u64));
    group.bench_function("zvm", |bencher| {
        bencher.iter(|| black_box(workload.execute().expect("executes")))
    });
    group.bench_function("plain revm", |bencher| {
        bencher.iter(|| {
            black_box(workload.execute_plain().expect("executes"))
                .results
                .len()
        });
    });
    group.finish();
}

fn transfers(criterion: &mut Criterion) {
    workload(criterion, &Workload::transfers(1000));
}

fn erc20(criterion: &mut Criterion) {
    let weth =
        Workload::corpus(&shared("corpus/weth.json"), 1000).expect("../shared/corpus is there");
    workload(criterion, &weth);
    let erc20 = Workload::corpus(&shared("corpus/erc20_transfer.json"), 1)
        .expect("../shared/corpus is there");
    workload(criterion, &erc20);
}

fn mainnet_block(criterion: &mut Criterion) {
    let path = shared("blocks/19426586.json.zst");
    let blocks = replay::load(&[path]).expect("../shared/blocks is there");
    for block in &blocks {
        let mut group = criterion.benchmark_group(format!("block {}", block.header.number));
        group.throughput(Throughput::Elements(block.header.gas_used));
        let envs = block.tx_envs();
        group.bench_function("zvm", |bencher| {
            bencher.iter(|| black_box(block.execute(None).expect("executes")))
        });
        group.bench_function("plain revm", |bencher| {
            bencher.iter(|| {
                black_box(block.execute_plain(&envs).expect("executes"))
                    .results
                    .len()
            });
        });
        group.finish();
    }
}

criterion_group!(benches, transfers, erc20, mainnet_block);
criterion_main!(benches);
