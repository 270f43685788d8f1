//! Executing and compiling at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use parking_lot::Mutex;

use crate::source::{behind, in_place, tiers, wait_until};
use crate::world::{World, assembled, call, cfg, countdown, machine, run, run_number};
use zvm_jit::tier::Settings;
use zvm_runtimes::evm::Fork;

/// Two countdowns with a read of the slow slot between them.
fn slow(rounds: u64) -> String {
    let slot = World::SLOW;
    format!(
        "PUSH0 PUSH4 {rounds} :first JUMPDEST DUP1 DUP3 ADD SWAP2 POP PUSH1 1 SWAP1 SUB DUP1 PUSH2 @first JUMPI POP \
         PUSH1 {slot} SLOAD ADD PUSH4 {rounds} :second JUMPDEST DUP1 DUP3 ADD SWAP2 POP PUSH1 1 SWAP1 SUB DUP1 PUSH2 \
         @second JUMPI POP PUSH0 MSTORE GAS PUSH1 32 MSTORE PUSH1 64 PUSH0 RETURN"
    )
}

#[test]
fn a_loop_is_picked_up_when_its_code_is_ready() {
    let (auto, watch) = tiers(Settings {
        full: false,
        ..behind(1_000)
    });
    watch.close();
    let seen = Arc::clone(&watch);
    let waits = Arc::clone(&auto);
    // The first loop made the code hot; the second begins when it is compiled.
    let world = World::of(&slow(3_000)).on_slow_read(move || {
        wait_until("the code is hot", || !seen.asked().is_empty());
        seen.open();
        wait_until("the code is compiled", || waits.statistics().units == 1);
    });
    let found = run(&world, 5_000_000, Some(auto.clone()));
    let counts = auto.statistics();
    assert_eq!(
        (counts.picked_up, counts.interpreted, counts.native),
        (1, 1, 0)
    );
    assert!(counts.entries >= 1);
    // Both loops burn as much: about half of it natively.
    assert!(
        counts.native_gas > 50_000 && counts.interpreted_gas > 50_000,
        "{counts:?}"
    );
    assert_eq!(found, run(&World::of(&slow(3_000)), 5_000_000, None));
}

#[test]
fn a_unit_is_evicted_while_another_thread_runs_it() {
    // Room for one unit.
    let (auto, _) = tiers(Settings {
        units: 1,
        full: false,
        ..in_place(0)
    });
    let plain = World::of(&slow(200));
    let expected = run(&plain, 1_000_000, None);
    let evicting = Arc::clone(&auto);
    let evicted = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&evicted);
    let world = World::of(&slow(200)).on_slow_read(move || {
        if evicting.statistics().native == 0 {
            return;
        }
        // The reader's thread is inside the unit. Another makes it leave the cache and calls new code, which lies where
        // memory that was given back too early would be taken again.
        let auto = Arc::clone(&evicting);
        let other = thread::spawn(move || {
            let world = World::new((0..20).map(|number| assembled(&countdown(900 + number))));
            for number in 0..20 {
                for _ in 0..3 {
                    let runner = Some(Arc::clone(&auto) as _);
                    run_number(&world, number, 1_000_000, runner);
                }
            }
        });
        other.join().expect("the other thread is well");
        flag.store(evicting.statistics().evicted > 0, Ordering::Relaxed);
    });
    for _ in 0..3 {
        assert_eq!(run(&world, 1_000_000, Some(auto.clone())), expected);
    }
    assert!(evicted.load(Ordering::Relaxed));
}

#[test]
fn many_threads_run_compile_and_evict_at_once() {
    const THREADS: usize = 8;
    const CODES: usize = 40;
    let world = Arc::new(World::new(
        (0..CODES).map(|number| assembled(&countdown(50 + number as u64))),
    ));
    let expected: Vec<_> = (0..CODES)
        .map(|number| run_number(&world, number, 500_000, None))
        .collect();
    for settings in [in_place(100), behind(100)] {
        let (auto, _) = tiers(Settings {
            units: 12,
            profiles: 64,
            queue: 8,
            slice: 16,
            ..settings
        });
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (auto, world, expected) = (&auto, &world, &expected);
                scope.spawn(move || {
                    for round in 0..300 {
                        let number = (round * (thread + 1)) % CODES;
                        let runner = Some(Arc::clone(auto) as _);
                        let mut machine = machine(world, cfg(Fork::LATEST), runner);
                        assert_eq!(call(&mut machine, number, 500_000), expected[number]);
                    }
                });
            }
        });
        let counts = auto.statistics();
        assert_eq!(counts.native + counts.interpreted, THREADS as u64 * 300);
        assert!(counts.units <= 12, "{counts:?}");
    }
}

#[test]
fn a_pause_does_not_block_and_nothing_is_begun_in_it() {
    let world = World::new((0..2).map(|number| assembled(&countdown(100 + number))));
    let (auto, watch) = tiers(Settings {
        full: false,
        ..behind(0)
    });
    let call = |number| {
        let runner = Some(auto.clone() as _);
        run_number(&world, number, 500_000, runner)
    };
    watch.close();
    wait_until("a compilation is under way", || {
        call(0);
        watch.asked().len() == 1
    });
    // Under way and held up: pausing, executing and resuming do not wait for it.
    auto.pause();
    call(1);
    call(1);
    assert_eq!(auto.statistics().queue, 1);
    watch.open();
    wait_until("the first is ready", || auto.statistics().compiled == 1);
    let native = auto.statistics().native;
    call(0);
    // What is compiled is used, what waits goes on waiting.
    assert_eq!(auto.statistics().native, native + 1);
    assert_eq!((auto.statistics().queue, watch.asked().len()), (1, 1));
    auto.resume();
    auto.settle();
    let counts = auto.statistics();
    assert_eq!((counts.compiled, counts.queue, counts.compiling), (2, 0, 0));
}

#[test]
fn the_end_waits_for_no_more_than_the_compilation_under_way() {
    let world = World::new((0..30).map(|number| assembled(&countdown(100 + number))));
    let (auto, watch) = tiers(behind(0));
    watch.close();
    for number in 0..30 {
        let runner = Some(auto.clone() as _);
        run_number(&world, number, 500_000, runner);
    }
    wait_until("a compilation is under way", || watch.asked().len() == 1);
    assert_eq!(auto.statistics().queue, 29);
    // Nothing else is begun before the end comes.
    auto.pause();
    let ending = thread::spawn(move || drop(auto));
    watch.open();
    ending.join().expect("it ends");
    assert_eq!(watch.asked().len(), 1);
}

#[test]
fn counts_of_threads_that_have_ended_are_kept() {
    let world = Arc::new(World::of(&countdown(10)));
    let (auto, _) = tiers(in_place(u64::MAX));
    let lock = Arc::new(Mutex::new(()));
    for _ in 0..5 {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (auto, world, lock) =
                    (Arc::clone(&auto), Arc::clone(&world), Arc::clone(&lock));
                thread::spawn(move || {
                    let _one_at_a_time = lock.lock();
                    run(&world, 100_000, Some(auto));
                })
            })
            .collect();
        for thread in threads {
            thread.join().expect("it runs");
        }
    }
    assert_eq!(auto.statistics().interpreted, 20);
}
