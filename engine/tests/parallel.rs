//! Blocks on several cores give what they give in order.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use zvm_engine::fixtures::{generate, replay};
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
                parallel_blocks += u64::from(statistics.in_order == 0);
                executions += statistics.executions;
                transactions += statistics.transactions;
            }
        }
        assert!(lists.windows(2).all(|pair| pair[0] == pair[1]));
    }
    println!("{parallel_blocks} runs, {executions} executions of {transactions} transactions");
    assert!(parallel_blocks > 200);
}

/// Blocks made up at random that are executed by default; `ZVM_GENERATED_BLOCKS` says another number, `ZVM_GENERATED_FIRST`
/// where to begin.
const GENERATED: u64 = 400;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn generated_blocks_are_the_same_with_every_number_of_workers_and_any_schedule() {
    let pool = pool(8);
    let first = number("ZVM_GENERATED_FIRST", 0);
    let count = number("ZVM_GENERATED_BLOCKS", GENERATED);
    let (mut included, mut skipped, mut failed, mut conflicts) = (0, 0, 0, 0);
    let mut in_order = 0;
    let (mut listed, mut listed_conflicts, mut lied_conflicts) = (0, 0, 0);
    for seed in first..first + count {
        let block = generate::random_block(seed);
        let alone = Parallel::with_workers(NonZeroUsize::MIN);
        let (expected, list, _) = generate::build(&block, &alone, false).unwrap();
        assert!(list.is_none());
        included += expected.receipts.len();
        skipped += expected.skipped.len();
        failed += expected
            .receipts
            .iter()
            .filter(|receipt| !receipt.success)
            .count();
        let mut first_list: Option<alloy_eip7928::BlockAccessList> = None;
        for workers in [1, 2, 4, 8] {
            let window = [64, 3, 16][seed as usize % 3];
            let parallel = Parallel {
                pool: Some(pool.clone()),
                disturb: (seed % 2 == workers % 3 % 2).then_some(seed + workers),
                least: 1,
                window,
                ..Parallel::with_workers(NonZeroUsize::new(workers as usize).unwrap())
            };
            // One worker by itself would be the plain loop.
            let wants_list = workers == 1 || seed % 2 == 0;
            let (ours, list, statistics) = generate::build(&block, &parallel, wants_list).unwrap();
            in_order += statistics.in_order;
            assert!(!wants_list || statistics.in_order == 0);
            conflicts += statistics.conflicts;
            if let Some(difference) = generate::difference(&ours, &expected) {
                panic!(
                    "generated block {seed} ({}), {workers} workers: {difference}",
                    block.fork
                );
            }
            if let Some(list) = list {
                let first = first_list.get_or_insert_with(|| list.clone());
                assert!(*first == list, "access list of {seed}, {workers} workers");
            }
        }
        // A block of the transactions that were included, followed with its list, and with one that lies.
        let mut block = block;
        let included = expected.included.iter();
        let kept =
            included.map(|index| (block.transactions[*index].clone(), block.senders[*index]));
        (block.transactions, block.senders) = kept.unzip();
        let (alone, ..) = generate::build(&block, &alone, false).unwrap();
        let mut list = first_list.unwrap();
        for lies in [false, true] {
            if lies {
                for account in &mut list {
                    for change in &mut account.balance_changes {
                        change.post_balance ^= alloy_primitives::U256::from(1);
                    }
                    for slot in &mut account.storage_changes {
                        slot.changes
                            .retain(|change| change.block_access_index.get() % 3 != 0);
                    }
                }
            }
            let parallel = Parallel {
                pool: Some(pool.clone()),
                least: 1,
                ..Parallel::with_workers(NonZeroUsize::new(4).unwrap())
            };
            let (ours, _, statistics) =
                generate::build_listed(&block, Some(&list), &parallel, false).unwrap();
            if let Some(difference) = generate::difference(&ours, &alone) {
                panic!("generated block {seed} with a list, lies: {lies}: {difference}");
            }
            if lies {
                lied_conflicts += statistics.conflicts;
            } else {
                listed += statistics.transactions;
                listed_conflicts += statistics.conflicts;
            }
        }
    }
    println!(
        "with lists: {listed} transactions, {listed_conflicts} conflicts; with lists that lie: {lied_conflicts}"
    );
    println!(
        "{count} blocks from {first}: {included} transactions ({failed} failed), {skipped} left out; {conflicts} conflicts in 4 \
         executions, {in_order} executed in order"
    );
    if count >= 100 {
        assert!(conflicts > 100 && failed > 100 && skipped > 100);
    }
}
