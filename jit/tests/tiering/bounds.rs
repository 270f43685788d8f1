//! Refusals stick, the queue, the cache and the profiles keep their bounds.

use crate::source::{behind, in_place, tiers, wait_until};
use crate::world::{World, assembled, cfg, countdown, machine, run, run_number};
use zvm_jit::compiler::Level;
use zvm_jit::tier::Settings;
use zvm_runtimes::evm::Fork;

/// A small contract unlike all others.
fn small(number: u64) -> Vec<u8> {
    assembled(&format!(
        "PUSH8 {number} PUSH1 3 ADD DUP1 MUL PUSH0 MSTORE PUSH1 32 PUSH0 RETURN"
    ))
}

#[test]
fn a_refusal_sticks_and_a_panic_is_one() {
    let world = World::new((0..3).map(|number| assembled(&countdown(100 + number))));
    let (auto, watch) = tiers(in_place(0));
    watch.refuses.lock().insert((world.hash(0), Level::Quick));
    watch.panics.lock().insert(world.hash(1));
    for _ in 0..10 {
        for number in 0..3 {
            let seen = |runner| run_number(&world, number, 500_000, runner);
            assert_eq!(seen(Some(auto.clone())), seen(None));
        }
    }
    let asked = |number| {
        let hash = world.hash(number);
        let asked = watch.asked();
        asked.iter().filter(|(key, _)| key.hash == hash).count()
    };
    // The last is asked for at both levels.
    assert_eq!([asked(0), asked(1), asked(2)], [1, 1, 2]);
    let counts = auto.statistics();
    assert_eq!((counts.refused_backend, counts.refused_panic), (1, 1));
    assert_eq!((counts.refused, counts.compiled), (2, 2));
}

#[test]
fn a_refusal_of_the_full_level_leaves_the_quick_one_in_use() {
    let world = World::of(&countdown(300));
    let (auto, watch) = tiers(in_place(1));
    watch.refuses.lock().insert((world.hash(0), Level::Full));
    let expected = run(&world, 1_000_000, None);
    for _ in 0..20 {
        assert_eq!(run(&world, 1_000_000, Some(auto.clone())), expected);
    }
    let counts = auto.statistics();
    assert_eq!((counts.compiled_quick, counts.compiled_full), (1, 0));
    assert_eq!(
        (counts.refused, counts.units, watch.asked().len()),
        (1, 1, 2)
    );
    assert!(counts.native >= 19, "{counts:?}");
}

#[test]
fn a_panic_of_a_thread_that_compiles_leaves_it_at_work() {
    let world = World::new((0..2).map(|number| assembled(&countdown(100 + number))));
    let (auto, watch) = tiers(behind(0));
    watch.panics.lock().insert(world.hash(0));
    let expected = [0, 1].map(|number| run_number(&world, number, 500_000, None));
    for number in [0, 1] {
        wait_until("both are tried", || {
            let runner = Some(auto.clone() as _);
            let seen = run_number(&world, number, 500_000, runner);
            assert_eq!(seen, expected[number]);
            let counts = auto.statistics();
            [counts.refused_panic, counts.compiled_quick][number] == 1
        });
    }
}

#[test]
fn a_full_queue_keeps_what_is_worth_most() {
    let world = World::new((0..6).map(|number| assembled(&countdown(100 + number))));
    let (auto, watch) = tiers(Settings {
        queue: 2,
        full: false,
        ..behind(0)
    });
    // The thread is busy with the first, so that the others wait.
    watch.close();
    let call = |number| {
        let runner = Some(auto.clone() as _);
        run_number(&world, number, 500_000, runner)
    };
    wait_until("the thread is busy", || {
        call(0);
        !watch.asked().is_empty()
    });
    for (number, calls) in [(1, 1), (2, 9), (3, 2), (4, 5), (5, 1)] {
        for _ in 0..calls {
            call(number);
        }
        assert!(auto.statistics().queue <= 2);
    }
    watch.open();
    wait_until("all that wait are compiled", || {
        auto.statistics().compiled == 3
    });
    let hashes: Vec<_> = watch.asked().iter().map(|(key, _)| key.hash).collect();
    assert_eq!(hashes, [world.hash(0), world.hash(2), world.hash(4)]);
    assert!(auto.statistics().dropped >= 3);
}

#[test]
fn what_was_dropped_from_the_queue_comes_back_when_it_goes_on_burning() {
    let world = World::new((0..3).map(|number| assembled(&countdown(100 + number))));
    let (auto, _) = tiers(Settings {
        queue: 1,
        ..behind(0)
    });
    wait_until("all are compiled", || {
        for number in 0..3 {
            let runner = Some(auto.clone() as _);
            run_number(&world, number, 500_000, runner);
        }
        auto.statistics().compiled_quick == 3
    });
}

#[test]
fn the_cache_keeps_its_budget_and_what_is_used_most() {
    let world = World::new((0..400).map(small));
    let units = |memory, units| {
        let (auto, _) = tiers(Settings {
            memory,
            units,
            full: false,
            ..in_place(0)
        });
        for number in 0..400 {
            // The first is called all the time.
            for number in [0, number, number, number, 0, 0, 0, 0] {
                let runner = Some(auto.clone() as _);
                let seen = run_number(&world, number, 100_000, runner);
                drop(seen);
                assert!(auto.statistics().native_bytes <= memory as u64);
            }
        }
        let before = auto.statistics();
        assert_eq!(
            before.compiled,
            before.units + before.evicted + before.no_room
        );
        let runner = Some(auto.clone() as _);
        run_number(&world, 0, 100_000, runner);
        let after = auto.statistics();
        assert_eq!(
            (after.native - before.native, after.compiled),
            (1, before.compiled)
        );
        after
    };
    let all = units(usize::MAX >> 1, 1_000);
    assert_eq!((all.units, all.evicted), (400, 0));
    let by_memory = units(all.native_bytes as usize / 10, 1_000);
    assert!(
        by_memory.evicted > 100 && by_memory.units <= 40,
        "{by_memory:?}"
    );
    let by_number = units(usize::MAX >> 1, 16);
    assert!(
        by_number.evicted > 100 && by_number.units <= 16,
        "{by_number:?}"
    );
}

#[test]
fn one_unit_that_is_larger_than_the_budget_is_not_kept() {
    let world = World::of(&countdown(100));
    let (auto, watch) = tiers(Settings {
        memory: 64,
        ..in_place(0)
    });
    for _ in 0..4 {
        let expected = run(&world, 100_000, None);
        assert_eq!(run(&world, 100_000, Some(auto.clone())), expected);
    }
    let counts = auto.statistics();
    assert_eq!(
        (counts.units, counts.native_bytes, counts.native),
        (0, 0, 0)
    );
    assert_eq!(counts.no_room, watch.asked().len() as u64);
    assert!(counts.no_room > 0);
}

#[test]
fn two_hundred_thousand_contracts_stay_within_the_bounds() {
    const CONTRACTS: u64 = 200_000;
    const MEMORY: usize = 1 << 20;
    let settings = Settings {
        memory: MEMORY,
        units: 256,
        queue: 64,
        profiles: 4_096,
        ..behind(1)
    };
    let (auto, watch) = tiers(settings);
    let mut frames = 0;
    for first in (0..CONTRACTS).step_by(1_000) {
        let world = World::new((first..first + 1_000).map(small));
        let mut machine = machine(&world, cfg(Fork::LATEST), Some(auto.clone()));
        for number in 0..1_000 {
            let seen = machine.call(zvm_runtimes::revm::context::TxEnv {
                kind: alloy_primitives::TxKind::Call(World::address(number)),
                gas_limit: 100_000,
                chain_id: Some(1),
                ..Default::default()
            });
            assert!(seen.expect("valid").is_success());
            frames += 1;
        }
        let counts = auto.statistics();
        assert!(counts.native_bytes <= MEMORY as u64, "{counts:?}");
        assert!(counts.units <= 256 && counts.queue <= 64, "{counts:?}");
        assert!(counts.profiles <= 4_096, "{counts:?}");
    }
    assert_eq!(frames, CONTRACTS);
    let counts = auto.statistics();
    assert_eq!(counts.native + counts.interpreted, CONTRACTS);
    wait_until("what waits is compiled", || {
        auto.statistics().queue == 0 && auto.statistics().compiled > 0
    });
    assert!(
        watch
            .asked()
            .iter()
            .all(|(_, level)| *level == Level::Quick)
    );
    assert!(auto.statistics().native_bytes <= MEMORY as u64);
}
