//! What ran how is counted exactly, and what often fails is mended or given up.

use std::sync::Arc;

use crate::source::{in_place, tiers};
use crate::world::{World, assembled, call, cfg, countdown, machine, run, run_number};
use zvm_jit::compiler::Level;
use zvm_jit::profile::Width;
use zvm_jit::tier::{Auto, Settings, Statistics};
use zvm_runtimes::evm::Fork;

fn counting(settings: Settings) -> Settings {
    Settings {
        count: true,
        ..settings
    }
}

/// Runs contract 0 as often as is said, each time with the interpreter's result.
fn runs(world: &World, auto: &Arc<Auto>, times: usize) -> Statistics {
    let expected = run(world, 1_000_000, None);
    for _ in 0..times {
        assert_eq!(run(world, 1_000_000, Some(auto.clone())), expected);
    }
    auto.statistics()
}

/// A function called from two places, a call of another contract, hashes and slots.
fn of_all_kinds() -> World {
    let target = alloy_primitives::hex::encode(World::address(1));
    let caller = format!(
        "PUSH1 7 PUSH1 @one PUSH1 @double JUMP :one JUMPDEST PUSH1 @two SWAP1 PUSH1 @double JUMP :two JUMPDEST PUSH0 MSTORE \
         PUSH1 32 PUSH0 KECCAK256 PUSH1 3 SLOAD ADD PUSH1 1 SSTORE PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH20 0x{target} GAS CALL \
         PUSH1 2 SSTORE STOP :double JUMPDEST DUP1 ADD SWAP1 JUMP"
    );
    World::new([assembled(&caller), assembled(&countdown(50))])
}

#[test]
fn native_and_interpreted_instructions_add_up_to_all_of_them() {
    for world in [of_all_kinds(), World::of(&countdown(40))] {
        let (interpreter, _) = tiers(counting(in_place(u64::MAX)));
        let all = runs(&world, &interpreter, 1);
        assert_eq!(all.native_instructions, 0);
        assert_eq!(all.steps_cold, all.interpreted_instructions);
        assert_eq!(all.native_share(), None);
        let all = all.interpreted_instructions;
        assert!(all > 30);
        for level in [Level::Quick, Level::Full] {
            let (eager, _) = tiers(counting(Settings::default().eager(level)));
            let counts = runs(&world, &eager, 3);
            assert_eq!(counts.native_instructions, 3 * all, "{level:?} {counts:?}");
            assert_eq!(counts.interpreted_instructions, 0);
            assert_eq!(counts.native_share(), Some(1.0));
            assert!(counts.called_instructions < counts.native_instructions / 2);
        }
        for slice in [1, 3, 64] {
            let settings = Settings {
                slice,
                ..in_place(300)
            };
            let (auto, _) = tiers(counting(settings));
            let counts = runs(&world, &auto, 5);
            let sum = counts.native_instructions + counts.interpreted_instructions;
            assert_eq!(sum, 5 * all, "slice {slice} {counts:?}");
            assert!(counts.steps_cold > 0 && counts.native_instructions > 0);
        }
    }
}

#[test]
fn code_that_is_not_asked_to_counts_nothing() {
    let world = World::of(&countdown(40));
    let (auto, _) = tiers(Settings::default().eager(Level::Quick));
    let counts = runs(&world, &auto, 3);
    assert_eq!((counts.native, counts.native_instructions), (3, 0));
}

#[test]
fn initcode_is_compiled_where_every_code_is() {
    let world = World::of("STOP");
    let (auto, watch) = tiers(counting(Settings::default().eager(Level::Quick)));
    let mut machine = machine(&world, cfg(Fork::LATEST), Some(auto.clone()));
    let result = machine.execute(zvm_runtimes::revm::context::TxEnv {
        kind: alloy_primitives::TxKind::Create,
        data: assembled(&countdown(5)).into(),
        gas_limit: 1_000_000,
        chain_id: Some(1),
        ..Default::default()
    });
    assert!(result.expect("valid").is_success());
    let counts = auto.statistics();
    assert_eq!(
        (watch.asked().len(), counts.interpreted_instructions),
        (1, 0)
    );
    assert!(counts.native_instructions > 50);
}

/// A program, and what must have been counted when it ran natively.
type Leaving = (&'static str, fn(&Statistics) -> [u64; 2]);

#[test]
fn whoever_leaves_native_code_is_counted_with_the_instructions_that_follow() {
    let programs: [Leaving; 4] = [
        // The JUMPDEST is named by nobody: its place is computed.
        (
            "PUSH1 3 PUSH1 5 ADD JUMP STOP STOP JUMPDEST PUSH1 1 PUSH0 SSTORE STOP",
            |counts| [counts.left_jump, counts.steps_jump],
        ),
        // POP of an empty stack.
        ("POP STOP", |counts| [counts.left_stack, counts.steps_stack]),
        // A counter that goes beyond 64 bits after some turns.
        (
            "PUSH8 0xfffffffffffffff0 :loop JUMPDEST PUSH1 3 ADD DUP1 PUSH9 0x010000000000000030 GT PUSH1 @loop JUMPI STOP",
            |counts| [counts.left_width, counts.steps_width],
        ),
        // No opcode of this fork.
        ("PUSH1 1 SLOTNUM STOP", |counts| {
            [counts.left_opcode, counts.steps_opcode]
        }),
    ];
    for (text, of) in programs {
        for level in [Level::Quick, Level::Full] {
            let world = World::of(text);
            let (auto, _) = tiers(counting(Settings::default().eager(level)));
            let counts = runs(&world, &auto, 1);
            let [left, interpreted] = of(&counts);
            assert!(left > 0 && interpreted > 0, "{text} {counts:?}");
            let all = counts.left_jump
                + counts.left_stack
                + counts.left_loop
                + counts.left_width
                + counts.left_opcode;
            assert!(left == all || text.contains("loop"), "{text} {counts:?}");
            assert!(counts.interpreted_instructions >= interpreted);
        }
    }
}

#[test]
fn ends_of_frames_are_counted_by_what_they_are() {
    let world = of_all_kinds();
    let (auto, _) = tiers(Settings::default().eager(Level::Quick));
    let counts = runs(&world, &auto, 2);
    assert_eq!(
        (counts.suspended, counts.out_of_gas, counts.failed),
        (2, 0, 0)
    );
    let expected = run(&world, 24_000, None);
    assert_eq!(run(&world, 24_000, Some(auto.clone())), expected);
    assert!(auto.statistics().out_of_gas > 0);
    let world = World::of("PUSH1 1 JUMP");
    assert_eq!(runs(&world, &auto, 1).failed, 1);
}

/// Counts beyond 64 bits in every call.
const WIDE: &str = "PUSH8 0xfffffffffffffff0 :loop JUMPDEST PUSH1 3 ADD DUP1 PUSH9 0x010000000000000030 GT PUSH1 @loop JUMPI \
                    PUSH1 1 SSTORE GAS PUSH1 2 SSTORE STOP";

#[test]
fn a_loop_whose_assumptions_often_fail_is_compiled_again_without_them() {
    let world = World::of(WIDE);
    for level in [Level::Quick, Level::Full] {
        let settings = Settings {
            eager: Some(level),
            ..in_place(u64::MAX)
        };
        let (auto, watch) = tiers(settings);
        let before = runs(&world, &auto, 15);
        assert_eq!((before.distrusted, before.compiled), (0, 1), "{before:?}");
        assert!(before.left_width >= 15);
        let then = runs(&world, &auto, 5);
        assert_eq!((then.distrusted, then.compiled, then.units), (1, 2, 1));
        assert!(watch.profiles.lock()[&world.hash(0)].distrusts(9));
        let after = runs(&world, &auto, 50);
        let left = |counts: &Statistics| (counts.left_width, counts.left_loop, counts.left);
        assert_eq!(left(&after), left(&then), "{level:?}");
        assert_eq!((after.distrusted, after.given_up), (1, 0));
    }
}

#[test]
fn places_that_computed_jumps_often_miss_become_entries() {
    let world = World::of(
        "PUSH1 3 PUSH1 5 ADD JUMP STOP STOP JUMPDEST PUSH1 15 PUSH1 7 ADD JUMP STOP STOP STOP STOP STOP STOP STOP JUMPDEST \
         PUSH1 1 PUSH0 SSTORE STOP",
    );
    let (auto, watch) = tiers(Settings {
        eager: Some(Level::Quick),
        ..in_place(u64::MAX)
    });
    let before = runs(&world, &auto, 15);
    assert_eq!((before.distrusted, before.compiled), (0, 1));
    assert!(before.left_jump >= 15, "{before:?}");
    // The second is seen when the first is no longer missed.
    let then = runs(&world, &auto, 30);
    assert_eq!((then.distrusted, then.compiled, then.units), (2, 3, 1));
    assert_eq!(watch.profiles.lock()[&world.hash(0)].places().len(), 2);
    let after = runs(&world, &auto, 50);
    assert_eq!((after.left_jump, after.left), (then.left_jump, then.left));
}

#[test]
fn code_for_which_native_code_does_nothing_goes_back_to_the_interpreter() {
    // The first instruction is one that is not compiled.
    let world = World::of("SLOTNUM STOP");
    let (auto, watch) = tiers(Settings::default().eager(Level::Quick));
    let counts = runs(&world, &auto, 200);
    assert_eq!((counts.given_up, counts.units), (1, 0), "{counts:?}");
    assert!(
        counts.native < 100 && counts.interpreted > 100,
        "{counts:?}"
    );
    assert_eq!(watch.asked().len(), 1);
}

#[test]
fn a_refusal_for_lack_of_memory_is_not_for_good() {
    let world = World::of(&countdown(100));
    let (auto, watch) = tiers(in_place(1_000));
    watch.crowded.lock().insert(world.hash(0));
    let crowded = runs(&world, &auto, 5);
    assert_eq!((crowded.units, crowded.refused), (0, 0));
    // It has to earn every try.
    assert!(
        crowded.no_room >= 2 && crowded.no_room <= 5 * 20,
        "{crowded:?}"
    );
    watch.crowded.lock().clear();
    let free = runs(&world, &auto, 5);
    assert_eq!((free.units, free.compiled_quick), (1, 1));
}

#[test]
fn what_the_interpreter_saw_reaches_the_compiler() {
    // Adds by a function that returns to its caller, in a loop, to a word beyond 64 bits.
    let text = "PUSH10 0xffffffffffffffffffff PUSH2 300 :loop JUMPDEST SWAP1 PUSH1 @back PUSH1 @more JUMP :back JUMPDEST \
                SWAP1 PUSH1 1 SWAP1 SUB DUP1 PUSH1 @loop JUMPI STOP :more JUMPDEST SWAP1 PUSH1 1 ADD SWAP1 JUMP";
    let world = World::of(text);
    let (auto, watch) = tiers(Settings {
        slice: 64,
        ..in_place(8_000)
    });
    let counts = runs(&world, &auto, 4);
    assert!((1..=4).contains(&counts.watched), "{counts:?}");
    assert!(counts.compiled > 0);
    let profiles = watch.profiles.lock();
    let profile = &profiles[&world.hash(0)];
    let code = assembled(text);
    let jumpdests: Vec<usize> = (0..code.len()).filter(|pc| code[*pc] == 0x5b).collect();
    assert!(profile.back_edges(jumpdests[0]) > 3, "{profile}");
    // The function ends with its return.
    let (targets, all) = profile.targets(code.len() - 1).expect("seen");
    assert_eq!((targets[0].0, targets.len(), all), (jumpdests[1], 1, true));
    assert_eq!(profile.width(code.len() - 3), Some(Width::Two), "{profile}");
}

#[test]
fn watching_and_recompiling_change_no_result_on_any_thread() {
    let world = World::new([assembled(WIDE), assembled(&countdown(60))]);
    let (auto, _) = tiers(Settings {
        slice: 8,
        ..in_place(1)
    });
    let expected = [0, 1].map(|number| run_number(&world, number, 900_000, None));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..200 {
                    let number = round % 2;
                    let mut machine = machine(&world, cfg(Fork::LATEST), Some(auto.clone()));
                    assert_eq!(call(&mut machine, number, 900_000), expected[number]);
                }
            });
        }
    });
    assert!(auto.statistics().distrusted >= 1);
}
