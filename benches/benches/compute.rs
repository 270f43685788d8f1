//! Corpus programs and kernels in every tier beside plain revm, and the kernels in Rust.
//! `cargo bench -p zvm-benches --bench compute -- NAME` for some of them.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zvm_benches::corpus::{self, Group, Program};
use zvm_benches::sample::Subject;
use zvm_benches::side::{Ours, Plain, Tier};
use zvm_benches::{kernels, shared};
use zvm_jit::compiler::{Compiler, Level};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TIERS: [(&str, Tier); 3] = [
    ("interpreter", Tier::Interpreter),
    ("quick", Tier::Native(Level::Quick)),
    ("full", Tier::Native(Level::Full)),
];

fn run(subject: &mut dyn Subject) {
    if let Err(reason) = subject.run() {
        panic!("{reason}");
    }
}

fn program(criterion: &mut Criterion, compiler: &Compiler, program: &Program) {
    let mut group = criterion.benchmark_group(&program.name);
    group.throughput(Throughput::Elements(program.expected.gas_used));
    let mut plain = Plain::new(program);
    group.bench_function("plain revm", |bencher| bencher.iter(|| run(&mut plain)));
    let pre = program.pre_state();
    for (name, tier) in TIERS {
        let mut ours = Ours::new(program, &pre, compiler, tier, false).expect("compiles");
        group.bench_function(name, |bencher| bencher.iter(|| run(&mut ours)));
    }
    group.finish();
}

fn corpus_programs(criterion: &mut Criterion) {
    let compiler = Compiler::new().expect("a compiler for this processor");
    let programs = corpus::load(&shared("corpus"), "").expect("../shared/corpus is there");
    for one in programs.iter().filter(|one| one.group == Group::Corpus) {
        program(criterion, &compiler, one);
    }
}

fn native_kernels(criterion: &mut Criterion) {
    let compiler = Compiler::new().expect("a compiler for this processor");
    for kernel in kernels::all() {
        criterion
            .benchmark_group(kernel.name)
            .bench_function("native Rust", |bencher| {
                bencher.iter(|| black_box(kernel.native()));
            });
        let evm = kernel.program().expect("gives what the Rust version does");
        program(criterion, &compiler, &evm);
    }
}

fn compilation(criterion: &mut Criterion) {
    let compiler = Compiler::new().expect("a compiler for this processor");
    let programs = corpus::load(&shared("corpus"), "").expect("../shared/corpus is there");
    for name in ["fibonacci-calldata", "weth", "snailtracer", "seaport"] {
        let one = programs.iter().find(|one| one.name == name);
        let one = one.expect("in the corpus");
        let codes = one.codes();
        let mut group = criterion.benchmark_group(format!("compile {name}"));
        group.sample_size(10);
        group.throughput(Throughput::Bytes(
            codes.iter().map(|code| code.len() as u64).sum(),
        ));
        for level in [Level::Quick, Level::Full] {
            group.bench_function(format!("{level:?}").to_lowercase(), |bencher| {
                bencher.iter(|| {
                    for code in &codes {
                        black_box(
                            compiler
                                .compile(code, one.spec_id(), level)
                                .expect("compiles"),
                        );
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, native_kernels, corpus_programs, compilation);
criterion_main!(benches);
