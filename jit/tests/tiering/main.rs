//! The tiers: when code is compiled changes nothing but speed, and everything is bounded.

mod bounds;
mod counts;
mod source;
mod threads;
mod world;

use std::sync::Arc;

use alloy_primitives::{Bytes, TxKind};
use source::{in_place, tiers};
use world::{World, call, cfg, countdown, machine, run, run_number};
use zvm_jit::compiler::Level;
use zvm_jit::tier::Settings;
use zvm_runtimes::evm::Fork;
use zvm_runtimes::revm::context::TxEnv;
use zvm_runtimes::revm::context_interface::cfg::{GasId, GasParams};

#[test]
fn tier_up_in_the_middle_of_a_loop_gives_the_same_result() {
    let world = World::of(&countdown(300));
    let mut picked_up = 0;
    for gas_limit in [21_000, 22_000, 30_000, 45_000, 60_000, 1_000_000] {
        let expected = run(&world, gas_limit, None);
        for threshold in [0, 1, 100, 1_000, 5_000] {
            for slice in [1, 2, 7, 64, 1_024] {
                let settings = Settings {
                    slice,
                    ..in_place(threshold)
                };
                let (auto, _) = tiers(settings);
                for _ in 0..3 {
                    let found = run(&world, gas_limit, Some(auto.clone()));
                    assert_eq!(
                        found, expected,
                        "gas limit {gas_limit}, threshold {threshold}, slice {slice}"
                    );
                }
                picked_up += auto.statistics().picked_up;
            }
        }
    }
    assert!(picked_up > 50, "{picked_up} frames were picked up");
}

#[test]
fn a_frame_that_calls_is_taken_up_after_the_call() {
    let target = alloy_primitives::hex::encode(World::address(1));
    let caller = format!(
        "PUSH0 PUSH1 20 :loop JUMPDEST PUSH0 PUSH0 PUSH1 32 PUSH0 PUSH0 PUSH20 0x{target} PUSH2 60000 CALL POP PUSH0 \
         MLOAD DUP3 ADD SWAP2 POP PUSH1 1 SWAP1 SUB DUP1 PUSH2 @loop JUMPI POP PUSH0 MSTORE PUSH1 32 PUSH0 RETURN"
    );
    let world = World::new([world::assembled(&caller), world::assembled(&countdown(40))]);
    let expected = run(&world, 3_000_000, None);
    for slice in [1, 5, 1_024] {
        let (auto, watch) = tiers(Settings {
            slice,
            ..in_place(2_000)
        });
        assert_eq!(run(&world, 3_000_000, Some(auto.clone())), expected);
        let hashes: Vec<_> = watch.asked().iter().map(|(key, _)| key.hash).collect();
        assert!(hashes.contains(&world.hash(0)) && hashes.contains(&world.hash(1)));
        let counts = auto.statistics();
        assert!(counts.native > 20 && counts.interpreted > 1, "{counts:?}");
    }
}

#[test]
fn code_that_goes_on_burning_gas_is_compiled_at_the_full_level_once() {
    let world = World::of(&countdown(300));
    let expected = run(&world, 1_000_000, None);
    let (auto, watch) = tiers(in_place(1));
    for _ in 0..20 {
        assert_eq!(run(&world, 1_000_000, Some(auto.clone())), expected);
    }
    let levels: Vec<Level> = watch.asked().iter().map(|(_, level)| *level).collect();
    assert_eq!(levels, [Level::Quick, Level::Full]);
    let counts = auto.statistics();
    assert_eq!((counts.compiled_quick, counts.compiled_full), (1, 1));
    assert_eq!((counts.units, counts.refused, counts.evicted), (1, 0, 0));
}

#[test]
fn the_gas_of_calls_and_of_failures_is_not_the_codes_own() {
    // Calls with all the gas there is, and fails: 60 gas of its own at most.
    let target = alloy_primitives::hex::encode(World::address(1));
    let caller =
        format!("PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH20 0x{target} GAS CALL PUSH1 2 JUMPDEST JUMP");
    let burner = ":loop JUMPDEST PUSH1 @loop JUMP";
    let world = World::new([world::assembled(&caller), world::assembled(burner)]);
    let (auto, watch) = tiers(in_place(100_000));
    let expected = run(&world, 20_000_000, None);
    assert_eq!(run(&world, 20_000_000, Some(auto.clone())), expected);
    let hashes: Vec<_> = watch.asked().iter().map(|(key, _)| key.hash).collect();
    // The loop that burnt it is compiled while it runs; who called it is not.
    assert_eq!(hashes, [world.hash(1)]);
}

#[test]
fn forks_never_share_code() {
    // Cold and warm slots cost differently from Berlin on, and PUSH0 exists from Shanghai on.
    let text = "PUSH1 0 PUSH1 40 :loop JUMPDEST DUP1 SLOAD DUP1 BALANCE ADD DUP3 ADD SWAP2 POP PUSH1 1 SWAP1 SUB DUP1 \
                PUSH1 @loop JUMPI POP PUSH1 1 SSTORE GAS PUSH1 2 SSTORE PUSH0 STOP";
    let world = World::of(text);
    let forks = [
        Fork::Frontier,
        Fork::Byzantium,
        Fork::Istanbul,
        Fork::Berlin,
        Fork::Cancun,
        Fork::Osaka,
    ];
    let (auto, watch) = tiers(Settings {
        slice: 16,
        ..in_place(1)
    });
    for round in 0..4 {
        for fork in forks {
            let seen = |runner| call(&mut machine(&world, cfg(fork), runner), 0, 2_000_000);
            let expected = seen(None);
            assert_eq!(seen(Some(auto.clone())), expected, "{fork}, {round}");
        }
    }
    for fork in forks {
        let quick = watch
            .asked()
            .iter()
            .filter(|(key, level)| (key.spec, *level) == (fork.spec_id(), Level::Quick))
            .count();
        assert_eq!(quick, 1, "{fork}");
    }
    assert_eq!(auto.statistics().units, forks.len() as u64);
}

#[test]
fn a_chain_with_gas_costs_of_its_own_is_interpreted() {
    let world = World::of("PUSH1 3 PUSH1 2 EXP PUSH1 1 SSTORE GAS PUSH1 2 SSTORE STOP");
    let mut own = cfg(Fork::LATEST);
    let mut params = GasParams::new_spec(own.spec);
    params.override_gas([(GasId::exp_byte_gas(), 1_234)]);
    own.set_gas_params(params);
    let (auto, watch) = tiers(in_place(0));
    for (cfg, native) in [
        (own.clone(), false),
        (cfg(Fork::LATEST), true),
        (own, false),
    ] {
        let before = auto.statistics().native;
        for _ in 0..3 {
            let seen = |runner| call(&mut machine(&world, cfg.clone(), runner), 0, 1_000_000);
            assert_eq!(seen(Some(auto.clone())), seen(None));
        }
        assert_eq!(auto.statistics().native > before, native);
        assert!(native || watch.asked().len() <= 2);
    }
}

#[test]
fn initcode_is_never_compiled() {
    let world = World::of("STOP");
    // Burns a lot and deploys nothing.
    let initcode = world::assembled(
        "PUSH2 2000 :loop JUMPDEST PUSH1 1 SWAP1 SUB DUP1 PUSH1 @loop JUMPI PUSH0 PUSH0 RETURN",
    );
    let (auto, watch) = tiers(in_place(0));
    let mut machine = machine(&world, cfg(Fork::LATEST), Some(auto.clone()));
    for nonce in 0..4 {
        let result = machine.execute(TxEnv {
            kind: TxKind::Create,
            data: Bytes::from(initcode.clone()),
            gas_limit: 1_000_000,
            nonce,
            chain_id: Some(1),
            ..TxEnv::default()
        });
        assert!(result.expect("valid").is_success());
    }
    assert_eq!(watch.asked(), []);
    assert_eq!(auto.statistics().profiles, 0);
}

#[test]
fn code_that_is_stored_runs_natively_from_the_start_at_the_best_level_there_is() {
    let world = World::new((0..3).map(|number| world::assembled(&countdown(100 + number))));
    let (auto, watch) = tiers(in_place(u64::MAX));
    let stored = [(0, Level::Quick), (0, Level::Full), (1, Level::Quick)];
    let stored = stored.map(|(number, level)| (world.hash(number), level));
    watch.stored.lock().extend(stored);
    for _ in 0..3 {
        for number in 0..3 {
            let seen = |runner| run_number(&world, number, 500_000, runner);
            assert_eq!(seen(Some(auto.clone())), seen(None));
        }
    }
    let asked: Vec<_> = watch
        .asked()
        .iter()
        .map(|(key, level)| (key.hash, *level))
        .collect();
    assert_eq!(asked, stored[1..]);
    let counts = auto.statistics();
    assert_eq!((counts.native, counts.interpreted), (6, 3));
}

#[test]
fn several_tiers_on_one_thread_keep_apart() {
    let world = World::of(&countdown(100));
    let expected = run(&world, 1_000_000, None);
    let (one, seen_by_one) = tiers(in_place(0));
    let (other, seen_by_other) = tiers(in_place(u64::MAX));
    for _ in 0..5 {
        assert_eq!(run(&world, 1_000_000, Some(one.clone())), expected);
        assert_eq!(run(&world, 1_000_000, Some(other.clone())), expected);
    }
    assert_eq!(seen_by_one.asked().len(), 2);
    assert_eq!(seen_by_other.asked(), []);
    assert_eq!(other.statistics().interpreted, 5);
    assert_eq!(Arc::strong_count(&one), 1);
}
