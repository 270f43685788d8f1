//! Blocks on several cores give what they give in order.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use zvm_engine::fixtures::replay;
use zvm_engine::parallel::{AccessListBuilder, Parallel};

fn shared(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared")
        .join(path)
}

fn pool(threads: usize) -> Arc<rayon::ThreadPool> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
    Arc::new(pool.build().unwrap())
}

#[test]
fn recorded_blocks_give_what_was_recorded_with_every_number_of_workers() {
    let blocks = replay::load(&[shared("blocks")]).unwrap();
    assert_eq!(blocks.len(), 40);
    let pool = pool(8);
    let (mut parallel_blocks, mut executions, mut transactions) = (0, 0, 0);
    for block in &blocks {
        let mut lists = Vec::new();
        for workers in [1, 2, 4, 8] {
            for disturb in [None, Some(block.header.number ^ workers as u64)] {
                let parallel = Parallel {
                    pool: Some(pool.clone()),
                    disturb,
                    least: 1,
                    ..Parallel::with_workers(NonZeroUsize::new(workers).unwrap())
                };
                let mut list = AccessListBuilder::default();
                let (outcome, statistics) = block.execute_on(None, &parallel, &mut list).unwrap();
                let compared = block.compare(&outcome);
                assert_eq!(compared, Ok(()), "{} {workers}", block.header.number);
                lists.push(list.finish());
                parallel_blocks += u64::from(!statistics.in_order);
                executions += statistics.executions;
                transactions += statistics.transactions;
            }
        }
        assert!(lists.windows(2).all(|pair| pair[0] == pair[1]));
    }
    println!("{parallel_blocks} runs, {executions} executions of {transactions} transactions");
    assert!(parallel_blocks > 200);
}
