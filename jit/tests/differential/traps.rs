//! Where compilers for this machine went wrong, each by name.

use std::sync::Arc;

use alloy_primitives::{Address, Bytes, TxKind, U256};
use zvm_differential::bombs;
use zvm_differential::case::{Case, PROGRAM, SENDER, World};
use zvm_differential::compare::{Comparison, Observation, Runner};
use zvm_differential::tier::Tier;
use zvm_jit::compiler::{Compiler, Level};
use zvm_jit::tier::Eager;
use zvm_runtimes::evm::{Fork, Machine, cfg_env};
use zvm_runtimes::isa::{Isa, assemble};
use zvm_runtimes::revm::context::TxEnv;
use zvm_runtimes::revm::context::either::Either;
use zvm_runtimes::revm::context::transaction::{
    Authorization, RecoveredAuthority, RecoveredAuthorization,
};

fn case(text: &str, gas: u64) -> Case {
    let code = assemble(Isa::Evm, text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Case::of_code(&code, gas)
}

fn check(case: &Case) -> Observation {
    let mut comparison = Comparison::new().expect("a known processor");
    match comparison.check(case) {
        Ok(observation) => observation,
        Err(difference) => panic!(
            "{difference}\n{}",
            zvm_differential::compare::describe(case)
        ),
    }
}

/// At every gas limit up to `gas` beyond the intrinsic, in steps so that there are about 3,000.
fn sweep(text: &str, gas: u64) {
    let case = case(text, gas);
    let mut comparison = Comparison::new().expect("a known processor");
    if let Err(difference) = comparison.sweep(&case, 3_000) {
        panic!(
            "{difference}\n{}",
            zvm_differential::compare::describe(&case)
        );
    }
}

/// The words a program returned.
fn words(observation: &Observation) -> Vec<U256> {
    let result = observation.result.as_ref().expect("a valid transaction");
    assert!(result.is_success(), "{result:?}");
    let output = result.output().expect("output");
    output.chunks(32).map(U256::from_be_slice).collect()
}

#[test]
fn gas_runs_out_before_or_after_other_failures_as_in_the_interpreter() {
    for (text, gas) in [
        // Underflow, a wrong jump and an undefined opcode behind effects.
        ("PUSH1 1 PUSH0 SSTORE POP", 23_000),
        (
            "PUSH1 1 PUSH0 TSTORE PUSH0 PUSH0 LOG0 PUSH2 0xffff JUMP",
            1_200,
        ),
        ("PUSH1 1 PUSH0 MSTORE CALLER BALANCE .data 0x0c", 3_000),
        // Underflow within what may be one section with what runs out of gas.
        ("PUSH1 2 PUSH1 3 MUL MUL ADD", 60),
        ("PUSH1 1 PUSH2 0x4000 MSTORE POP POP", 4_000),
        // Overflow behind what costs much.
        (
            "PUSH2 1023 JUMPDEST DUP1 PUSH1 1 SWAP1 SUB DUP1 PUSH1 3 JUMPI PUSH0 SLOAD PUSH0 PUSH0",
            33_000,
        ),
        // The stipend rule of SSTORE (EIP-2200) against plain lack of gas.
        (
            "PUSH1 1 PUSH0 SSTORE PUSH1 2 PUSH0 SSTORE PUSH1 3 PUSH0 SSTORE",
            25_500,
        ),
        // A loop that ends by an underflow when its counter is used up.
        (
            "PUSH1 5 JUMPDEST PUSH1 1 SWAP1 SUB DUP1 PUSH1 2 JUMPI POP POP",
            400,
        ),
    ] {
        sweep(text, gas);
    }
}

/// Found by random programs: the interpreter takes an opcode's static gas before it asks whether the fork has it. The
/// frame loses its gas in either case; what differs is the reason that traces and RPC errors name.
#[test]
fn gas_runs_out_before_an_opcode_turns_out_not_to_be_active() {
    let mut comparison = Comparison::new().expect("a known processor");
    for (text, fork) in [
        ("PUSH1 2 BLOBHASH", Fork::Istanbul),
        ("PUSH1 2 TLOAD", Fork::Berlin),
        ("PUSH1 2 PUSH1 1 TSTORE", Fork::London),
        ("PUSH0", Fork::Berlin),
        ("PUSH1 1 PUSH1 1 SHL", Fork::Byzantium),
        ("PUSH1 1 PUSH1 1 PUSH1 1 MCOPY", Fork::Shanghai),
        ("PUSH1 1 CLZ", Fork::Prague),
        ("CHAINID", Fork::Petersburg),
        ("RETURNDATASIZE", Fork::Tangerine),
        ("CALLER .data 0xe7", Fork::LATEST),
        ("CALLER .data 0x4b", Fork::LATEST),
    ] {
        let mut case = case(text, 0);
        case.fork = fork;
        for gas in (0..20).chain([100, 2_000, 30_000]) {
            case.gas = gas;
            if let Err(difference) = comparison.check(&case) {
                panic!("{text} under {fork}: {difference}");
            }
        }
    }
}

#[test]
fn blocks_alike_but_for_where_they_go_stay_apart() {
    // Two pairs of equal bytes: one pair falls into different blocks, the other returns to different places.
    let text = "PUSH1 0 PUSH1 @a JUMP
        :a JUMPDEST PUSH1 1 ADD
        :b JUMPDEST PUSH1 10 MUL PUSH1 @c JUMP
        :c JUMPDEST PUSH1 1 ADD
        :d JUMPDEST PUSH1 @first PUSH1 @f JUMP
        :first JUMPDEST PUSH1 @second PUSH1 @g JUMP
        :f JUMPDEST SWAP1 PUSH1 3 ADD SWAP1 JUMP
        :g JUMPDEST SWAP1 PUSH1 3 ADD SWAP1 JUMP
        :second JUMPDEST PC PUSH1 32 MSTORE PUSH1 @third PUSH1 @h JUMP
        :third JUMPDEST PUSH1 @fourth PUSH1 @i JUMP
        :h JUMPDEST PC ADD JUMP
        :i JUMPDEST PC ADD JUMP
        :fourth JUMPDEST PUSH0 MSTORE MSIZE PUSH0 RETURN";
    let text = text.replace(
        ":h JUMPDEST PC ADD JUMP",
        ":h JUMPDEST SWAP1 PC ADD SWAP1 JUMP",
    );
    let text = text.replace(
        ":i JUMPDEST PC ADD JUMP",
        ":i JUMPDEST SWAP1 PC ADD SWAP1 JUMP",
    );
    let found = words(&check(&case(&text, 10_000)));
    let code = case(&text, 0).code();
    let places: Vec<_> = (0..code.len())
        .filter(|at| code[*at..].starts_with(&[0x90, 0x58, 0x01, 0x90, 0x56]))
        .collect();
    assert_eq!(places.len(), 2);
    assert_eq!(
        found[0],
        U256::from(11 + 3 + 3 + places[0] + 1 + places[1] + 1)
    );
}

#[test]
fn nothing_read_before_a_call_is_taken_for_what_is_there_after_it() {
    // Called with input it changes storage; without, it calls itself and others and reads again.
    let text = "CALLDATASIZE PUSH1 @inner JUMPI
        PUSH1 5 PUSH0 SSTORE PUSH1 6 PUSH1 2 TSTORE PUSH1 77 PUSH0 MSTORE
        PUSH0 SLOAD PUSH1 2 TLOAD PUSH0 MLOAD GAS MSIZE RETURNDATASIZE SELFBALANCE
        PUSH1 32 PUSH0 PUSH1 1 PUSH0 PUSH1 3 ADDRESS GAS CALL
        PUSH0 SLOAD PUSH1 2 TLOAD PUSH0 MLOAD GAS MSIZE RETURNDATASIZE SELFBALANCE
        PUSH1 64 PUSH0 PUSH1 32 PUSH1 16 PUSH1 2 PUSH1 0xc6 GAS CALL
        PUSH0 PUSH0 PUSH1 3 PUSH0 PUSH1 0xc4 GAS DELEGATECALL
        PUSH0 SLOAD PUSH0 MLOAD MSIZE RETURNDATASIZE SELFBALANCE
        PUSH1 2 PUSH1 5 SSTORE PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH1 0xc5 GAS CALL PUSH1 5 SLOAD
        PUSH2 32 MSTORE PUSH2 64 MSTORE PUSH2 96 MSTORE PUSH2 128 MSTORE PUSH2 160 MSTORE PUSH2 192 MSTORE
        PUSH2 224 MSTORE PUSH2 256 MSTORE PUSH2 288 MSTORE PUSH2 320 MSTORE PUSH2 352 MSTORE PUSH2 384 MSTORE
        PUSH2 416 MSTORE PUSH2 448 MSTORE PUSH2 480 MSTORE PUSH2 512 MSTORE PUSH2 544 MSTORE PUSH2 576 MSTORE
        PUSH2 608 MSTORE MSIZE PUSH0 RETURN
        :inner JUMPDEST PUSH1 9 PUSH0 SSTORE PUSH1 8 PUSH1 2 TSTORE PUSH1 0xaa PUSH0 MSTORE PUSH1 32 PUSH0 RETURN";
    let case = case(text, 400_000);
    let found = words(&check(&case));
    // The word written by the inner call over 77, and the slot it changed.
    assert!(found.contains(&U256::from(0xaa)) && found.contains(&U256::from(9)));
    sweep(text, 110_000);
}

#[test]
fn what_a_static_call_forbids_fails_whoever_runs_it() {
    for forbidden in [
        "PUSH1 1 PUSH0 SSTORE",
        "PUSH0 PUSH0 SSTORE",
        "PUSH1 1 PUSH0 TSTORE",
        "PUSH0 PUSH0 LOG0",
        "PUSH1 1 PUSH0 PUSH0 LOG1",
        "PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 LOG4",
        "PUSH0 PUSH0 PUSH0 CREATE",
        "PUSH0 PUSH0 PUSH0 PUSH0 CREATE2",
        "CALLER SELFDESTRUCT",
        "PUSH0 PUSH0 PUSH0 PUSH0 PUSH1 1 PUSH1 0xc4 GAS CALL",
        // Allowed: no value, or none of this account's.
        "PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH1 0xc4 GAS CALL",
        "PUSH0 PUSH0 PUSH0 PUSH0 PUSH1 1 PUSH1 0xc4 GAS CALLCODE",
        // Forbidden behind one more call.
        "PUSH0 PUSH0 PUSH0 PUSH0 PUSH1 0xc4 GAS DELEGATECALL",
        // Too few operands, too little gas, or memory out of reach as well: which failure is it?
        "PUSH0 LOG0",
        "PUSH1 1 PUSH1 1 NOT LOG0",
        "SSTORE",
    ] {
        let text = format!(
            "CALLDATASIZE PUSH1 @inner JUMPI
             PUSH0 PUSH0 PUSH1 1 PUSH0 ADDRESS PUSH2 3000 STATICCALL
             PUSH0 PUSH0 PUSH1 1 PUSH0 ADDRESS GAS STATICCALL
             PUSH0 MSTORE PUSH1 32 MSTORE RETURNDATASIZE PUSH1 64 MSTORE GAS PUSH1 96 MSTORE MSIZE PUSH0 RETURN
             :inner JUMPDEST {forbidden} STOP"
        );
        check(&case(&text, 60_000));
        // Not static the same code may do it.
        let mut direct = case(&text, 200_000);
        direct.calldata = vec![1];
        check(&direct);
    }
}

#[test]
fn memory_is_paid_for_in_the_interpreters_order() {
    for (text, gas) in [
        (
            "PUSH1 1 PUSH2 0x1000 MSTORE PUSH2 0x2000 MLOAD PUSH0 SLOAD PUSH2 0x3000 MSTORE8",
            9_000,
        ),
        (
            "PUSH2 0x800 PUSH2 0x400 KECCAK256 PUSH2 0x1000 MSTORE MSIZE PUSH0 RETURN",
            2_000,
        ),
        (
            "PUSH2 0x400 PUSH0 PUSH2 0x400 CALLDATACOPY PUSH2 0x400 PUSH0 PUSH2 0xc00 CODECOPY",
            1_000,
        ),
        (
            "PUSH2 0x400 PUSH2 0x800 PUSH0 MCOPY MSIZE PUSH0 MSTORE",
            1_000,
        ),
        (
            "PUSH2 0x400 PUSH2 0x400 LOG0 PUSH2 0x1000 PUSH0 LOG0",
            45_000,
        ),
        // Returned data out of bounds, memory not to be paid, both.
        ("PUSH1 1 PUSH0 PUSH2 0x2000 RETURNDATACOPY", 3_000),
        ("PUSH0 PUSH1 1 PUSH0 RETURNDATACOPY", 100),
        // A call's two regions are paid before anything is called, warm or cold.
        (
            "PUSH2 0x400 PUSH2 0x400 PUSH2 0x200 PUSH2 0x1800 PUSH0 PUSH1 0xc6 GAS CALL MSIZE PUSH0 RETURN",
            6_000,
        ),
        ("PUSH2 0x4000 PUSH0 RETURN", 4_000),
        ("PUSH2 0x4000 PUSH0 REVERT", 4_000),
        ("PUSH2 0x2000 PUSH0 PUSH0 CREATE", 40_000),
    ] {
        sweep(text, gas);
    }
    for text in [
        // Nothing at an offset that nothing could reach is free.
        "PUSH0 PUSH0 NOT KECCAK256 PUSH0 PUSH0 PUSH0 NOT CALLDATACOPY PUSH0 PUSH0 NOT PUSH0 NOT MCOPY MSIZE PUSH0 SSTORE PUSH0 PUSH0 NOT RETURN",
        "PUSH0 PUSH0 NOT LOG0 PUSH0 PUSH0 NOT PUSH0 PUSH0 NOT PUSH0 PUSH1 0xc6 GAS CALL MSIZE PUSH0 SSTORE",
        // Sums that wrap around, in 64 and in 256 bits.
        "PUSH1 1 PUSH8 0xffffffffffffffff MSTORE",
        "PUSH1 1 PUSH8 0xffffffffffffffe0 MSTORE",
        "PUSH1 1 PUSH9 0x010000000000000000 MSTORE",
        "PUSH8 0xffffffffffffffe1 MLOAD",
        "PUSH1 32 NOT MLOAD",
        "PUSH1 1 NOT MLOAD",
        "PUSH1 1 PUSH4 0xffffffff MSTORE8",
        "PUSH1 32 PUSH8 0xffffffffffffffff KECCAK256",
        "PUSH8 0xffffffffffffffff PUSH1 32 KECCAK256",
        "PUSH1 32 PUSH8 0xffffffffffffffff PUSH0 MCOPY",
        "PUSH1 2 PUSH8 0xffffffffffffffff PUSH0 CALLDATACOPY PUSH1 32 PUSH0 RETURN",
        "PUSH1 1 PUSH8 0xffffffffffffffff PUSH0 RETURNDATACOPY",
    ] {
        check(&case(text, 100_000));
    }
}

/// Found by a sweep: a block that ended by falling into the next never gave back its section's gas.
#[test]
fn memory_that_cannot_grow_in_a_block_that_falls_through_ends_the_frame_alike() {
    sweep(
        "JUMPDEST PUSH1 1 PUSH2 0x4000 MSTORE PUSH1 1 PUSH1 1 ADD POP PC POP JUMPDEST PUSH0 JUMP",
        4_000,
    );
}

#[test]
fn a_push_that_the_end_of_the_code_cuts_off_is_the_last_instruction() {
    let mut comparison = Comparison::new().expect("a known processor");
    for size in 1..=32u8 {
        for kept in 0..size {
            // Reached by falling and by a jump over it into its immediate, which is no target.
            let mut code = assemble(
                Isa::Evm,
                "PUSH0 CALLDATALOAD PUSH1 8 JUMPI PUSH1 1 JUMPDEST",
            )
            .expect("assembles");
            code.push(0x5f + size);
            code.extend(vec![0x5b; usize::from(kept)]);
            let mut case = Case::of_code(&code, 1_000);
            for calldata in [vec![], vec![1; 32]] {
                case.calldata = calldata;
                if let Err(difference) = comparison.check(&case) {
                    panic!("PUSH{size} with {kept} bytes: {difference}");
                }
            }
        }
    }
    // A stack that is full before it.
    for size in [1u8, 2, 32] {
        let mut code = assemble(
            Isa::Evm,
            "PUSH2 1023 JUMPDEST DUP1 PUSH1 1 SWAP1 SUB DUP1 PUSH1 3 JUMPI",
        )
        .expect("assembles");
        code.push(0x5f + size);
        check(&Case::of_code(&code, 60_000));
        code.splice(1..3, [0x04, 0x00]);
        check(&Case::of_code(&code, 60_000));
    }
}

#[test]
fn a_jumpdest_byte_inside_an_immediate_is_no_target() {
    let code = assemble(
        Isa::Evm,
        "PUSH0 CALLDATALOAD JUMP JUMPDEST PUSH1 0x5b PUSH2 0x5b5b JUMPDEST PUSH32 0x5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b5b
         PUSH0 MSTORE PUSH1 0x7f POP JUMPDEST PC PUSH0 MSTORE MSIZE PUSH0 RETURN JUMPDEST PUSH4 0x5b5b5b5b PUSH2 0x5b",
    )
    .expect("assembles");
    let mut comparison = Comparison::new().expect("a known processor");
    let mut case = Case::of_code(&code, 2_000);
    let mut succeeded = 0;
    for target in 0..=code.len() as u64 + 2 {
        for word in [
            U256::from(target),
            U256::from(target) | U256::ONE << 32,
            U256::from(target) | U256::ONE << 64,
        ] {
            case.calldata = word.to_be_bytes::<32>().to_vec();
            match comparison.check(&case) {
                Ok(observation) => {
                    succeeded +=
                        u64::from(observation.result.is_ok_and(|result| result.is_success()))
                }
                Err(difference) => panic!("to {word:x}: {difference}"),
            }
        }
    }
    // The four that are instructions, and to them only.
    assert_eq!(succeeded, 4);
}

#[test]
fn pc_gas_and_msize_are_exact_wherever_they_are_asked() {
    for text in [
        "GAS PUSH0 MSTORE GAS PUSH1 32 MSTORE PUSH1 3 PUSH1 4 MUL GAS PUSH1 64 MSTORE GAS GAS SUB PUSH1 96 MSTORE PC PUSH1 128 MSTORE MSIZE PUSH0 RETURN",
        "MSIZE PUSH1 31 MLOAD POP MSIZE PUSH1 64 PUSH0 KECCAK256 POP MSIZE PUSH1 200 MSTORE PUSH1 232 MSTORE PUSH2 264 MSTORE MSIZE PUSH0 RETURN",
        "PUSH1 20 JUMPDEST GAS DUP2 PUSH1 32 MUL MSTORE MSIZE DUP2 PUSH1 33 MUL MSTORE8 PUSH1 1 SWAP1 SUB DUP1 PUSH1 2 JUMPI PC PUSH0 MSTORE MSIZE PUSH0 RETURN",
        // A loop that ends when so much gas is left.
        "JUMPDEST PUSH2 1000 GAS GT PUSH1 0 JUMPI GAS PUSH0 MSTORE MSIZE PUSH0 RETURN",
        "JUMPDEST PC PUSH1 5 ADD JUMP JUMPDEST GAS PUSH2 300 LT PC PUSH1 9 ADD JUMPI JUMPDEST POP",
        "PUSH0 JUMPDEST PUSH1 1 ADD DUP1 PUSH1 9 EQ ISZERO PUSH1 1 JUMPI GAS SWAP1 POP GAS PUSH0 SSTORE GAS PUSH0 MSTORE MSIZE PUSH0 RETURN",
    ] {
        check(&case(text, 100_000));
        sweep(text, 3_000);
    }
}

/// Transactions one after the other on one machine, by every tier; what they return, all being successful.
fn transactions(fork: Fork, case: &Case, transactions: &[TxEnv]) -> Vec<Vec<U256>> {
    let compiler = Compiler::new().expect("a known processor");
    let run = |tier| {
        let runner = Runner::new(tier, compiler.clone());
        let world = World::new(case);
        let cfg = cfg_env(fork, 1, fork.default_blob_params());
        let mut machine = Machine::new(cfg, Case::block(), &world);
        machine.set_runner(runner.recorder());
        let outcomes: Vec<_> = transactions
            .iter()
            .map(|tx| {
                let result = machine.execute(tx.clone()).expect("a valid transaction");
                let log = runner.recorder().take();
                (result, log.frames, log.warm)
            })
            .collect();
        if matches!(tier, Tier::Native(_)) {
            assert!(runner.statistics().entries > 0);
        }
        outcomes
    };
    let expected = run(Tier::Interpreter);
    for tier in Tier::NATIVE {
        for (index, (found, expected)) in run(tier).iter().zip(&expected).enumerate() {
            assert_eq!(found, expected, "{tier}, transaction {index}");
        }
    }
    expected
        .iter()
        .map(|(result, ..)| {
            assert!(result.is_success(), "{result:?}");
            let output = result.output().map_or(&[][..], |output| output);
            output.chunks(32).map(U256::from_be_slice).collect()
        })
        .collect()
}

fn call(to: Address, nonce: u64, data: &[u8]) -> TxEnv {
    TxEnv {
        caller: SENDER,
        nonce,
        kind: TxKind::Call(to),
        data: Bytes::copy_from_slice(data),
        gas_limit: 1_000_000,
        chain_id: Some(1),
        ..TxEnv::default()
    }
}

/// A factory. Called with 33 bytes or more it keeps the word behind the first byte as the code to deploy, deploys by
/// CREATE2 with an initcode that asks it for that code, calls what it deployed, calls it with input (upon which it
/// destroys itself), calls it again, and returns what the calls returned. Called without input it returns the code.
const FACTORY: &str = "CALLDATASIZE PUSH1 @deploy JUMPI
    PUSH1 0 SLOAD PUSH1 0 MSTORE PUSH1 32 PUSH1 0 RETURN
    :deploy JUMPDEST PUSH1 1 CALLDATALOAD PUSH1 0 SSTORE
    PUSH27 0x60206000600060006000335af15060206000f30000000000000000 PUSH1 40 SHL PUSH1 0 MSTORE
    PUSH1 0 PUSH1 27 PUSH1 0 PUSH1 0 CREATE2
    DUP1 PUSH2 0x100 MSTORE
    PUSH1 32 PUSH1 0x20 PUSH1 0 PUSH1 0 PUSH1 0 DUP6 GAS CALL PUSH2 0x120 MSTORE
    PUSH1 32 PUSH1 0x40 PUSH1 0 CALLDATALOAD PUSH1 248 SHR PUSH1 0 PUSH1 0 DUP6 GAS CALL PUSH2 0x140 MSTORE
    PUSH1 32 PUSH1 0x60 PUSH1 0 PUSH1 0 PUSH1 0 DUP6 GAS CALL PUSH2 0x160 MSTORE
    EXTCODESIZE PUSH2 0x180 MSTORE MSIZE PUSH1 0 RETURN";

/// Code for the factory: returns `number`, and destroys itself when called with input.
fn returning(number: u8) -> [u8; 32] {
    let text = format!(
        "CALLDATASIZE PUSH1 @end JUMPI PUSH1 {number} PUSH1 0 MSTORE PUSH1 32 PUSH1 0 RETURN :end JUMPDEST CALLER SELFDESTRUCT"
    );
    let code = assemble(Isa::Evm, &text).expect("assembles");
    let mut word = [0; 32];
    word[..code.len()].copy_from_slice(&code);
    word
}

#[test]
fn code_that_is_destroyed_and_created_anew_runs_as_what_it_is() {
    let factory = case(FACTORY, 0);
    // The first byte of the input is how many bytes of input the deployed code gets: none, or so many that it ends.
    let deploy = |nonce, number, input: u8| {
        call(
            PROGRAM,
            nonce,
            &[[input].as_slice(), &returning(number)].concat(),
        )
    };
    for fork in [Fork::Shanghai, Fork::Cancun, Fork::LATEST] {
        let returned = transactions(
            fork,
            &factory,
            &[
                deploy(0, 1, 1),
                deploy(1, 2, 1),
                deploy(2, 2, 0),
                deploy(3, 3, 0),
                deploy(4, 3, 1),
            ],
        );
        let address = returned[0][8];
        assert!(!address.is_zero());
        // Both codes ran at the same address, and each returned its own number.
        for (words, number) in returned.iter().zip([1, 2, 2]) {
            assert_eq!(
                (words[8], words[1]),
                (address, U256::from(number)),
                "{fork}"
            );
        }
        // The third was not destroyed, so that the fourth is a collision.
        assert_eq!(returned[3][8], U256::ZERO, "{fork}");
    }
}

#[test]
fn code_goes_on_after_its_account_is_destroyed() {
    let text = "CALLDATASIZE PUSH1 @inner JUMPI
        PUSH1 32 PUSH0 PUSH1 1 PUSH0 PUSH0 ADDRESS GAS CALL
        PUSH1 0 SLOAD PUSH1 9 PUSH1 0 SSTORE PUSH1 0 SLOAD SELFBALANCE ADDRESS EXTCODESIZE ADDRESS EXTCODEHASH
        PUSH0 PUSH0 PUSH1 1 PUSH0 PUSH0 ADDRESS GAS CALL
        PUSH1 3 PUSH1 4 MUL PUSH1 64 MSTORE PUSH1 96 MSTORE PUSH1 128 MSTORE PUSH1 160 MSTORE PUSH1 192 MSTORE MSIZE PUSH0 RETURN
        :inner JUMPDEST PUSH1 0xc8 SELFDESTRUCT";
    for fork in [Fork::London, Fork::LATEST] {
        let text = text.replace("PUSH0", "PUSH1 0");
        let mut case = case(&text, 300_000);
        case.fork = fork;
        check(&case);
        let calls: Vec<_> = (0..3).map(|nonce| call(PROGRAM, nonce, &[])).collect();
        assert_eq!(transactions(fork, &case, &calls).len(), 3);
    }
}

#[test]
fn a_delegated_account_runs_the_code_it_delegates_to_now() {
    let authority = Address::repeat_byte(0xaa);
    let delegate = |nonce, authority_nonce, to| TxEnv {
        tx_type: 4,
        authorization_list: vec![Either::Right(RecoveredAuthorization::new_unchecked(
            Authorization {
                chain_id: U256::from(1),
                address: to,
                nonce: authority_nonce,
            },
            RecoveredAuthority::Valid(authority),
        ))],
        ..call(authority, nonce, &[7])
    };
    let case = case(
        "ADDRESS PUSH0 MSTORE PUSH0 SLOAD PUSH1 1 ADD DUP1 PUSH0 SSTORE PUSH1 32 MSTORE CODESIZE PUSH1 64 MSTORE
         ADDRESS EXTCODESIZE PUSH1 96 MSTORE MSIZE PUSH0 RETURN",
        0,
    );
    let helper = Address::with_last_byte(0xc4);
    let returned = transactions(
        Fork::LATEST,
        &case,
        &[
            delegate(0, 0, PROGRAM),
            call(authority, 1, &[]),
            delegate(2, 1, helper),
            call(authority, 3, &[1, 2]),
            delegate(4, 2, Address::ZERO),
            call(authority, 5, &[]),
            delegate(6, 3, PROGRAM),
        ],
    );
    let lengths: Vec<_> = returned.iter().map(Vec::len).collect();
    assert_eq!(lengths, [4, 4, 1, 1, 0, 0, 4]);
}

#[test]
fn one_code_under_other_rules_another_chain_or_in_another_block_is_other_native_code_or_asks() {
    // One compiler and one store of units for all of them.
    let text = "PUSH1 0 SLOAD GAS CHAINID NUMBER TIMESTAMP DIFFICULTY BASEFEE GASLIMIT COINBASE
        PUSH1 0 MSTORE PUSH1 32 MSTORE PUSH1 64 MSTORE PUSH1 96 MSTORE PUSH1 128 MSTORE PUSH1 160 MSTORE PUSH1 192 MSTORE
        PUSH1 224 MSTORE MSIZE PUSH1 0 RETURN";
    for text in [
        text,
        "PUSH0 PUSH0 SSTORE GAS PUSH1 0 MSTORE MSIZE PUSH1 0 RETURN",
        "PUSH1 7 CLZ PUSH1 0 MSTORE MSIZE PUSH1 0 RETURN",
    ] {
        let case = case(text, 0);
        for level in [Level::Quick, Level::Full] {
            let compiler = Compiler::new().expect("a known processor");
            let native = Runner::new(Tier::Native(level), compiler.clone());
            let oracle = Runner::new(Tier::Interpreter, compiler);
            let mut seen = std::collections::BTreeSet::new();
            let forks = [
                Fork::Istanbul,
                Fork::Berlin,
                Fork::London,
                Fork::Shanghai,
                Fork::Osaka,
            ];
            for (fork, chain, number) in forks
                .into_iter()
                .flat_map(|fork| [(fork, 1u64, 300u64), (fork, 5, 300), (fork, 1, 301)])
            {
                let run = |runner: &Runner| {
                    let world = World::new(&case);
                    let mut block = Case::block();
                    block.number = U256::from(number);
                    block.timestamp += U256::from(number);
                    let cfg = cfg_env(fork, chain, fork.default_blob_params());
                    let mut machine = Machine::new(cfg, block, &world);
                    machine.set_runner(runner.recorder());
                    let tx = TxEnv {
                        chain_id: Some(chain),
                        ..call(PROGRAM, 0, &[])
                    };
                    format!("{:?} {:?}", machine.execute(tx), runner.recorder().take())
                };
                let expected = run(&oracle);
                assert_eq!(run(&native), expected, "{level:?} {fork} chain {chain}");
                seen.insert(expected);
            }
            assert!(seen.len() > 1);
        }
    }
}

#[test]
fn a_code_that_was_refused_is_not_compiled_again() {
    // Far more than any contract, all of it one block: no compiler that bounds its work takes it.
    let code = assemble(Isa::Evm, "PUSH0 CALLDATALOAD SLOAD PUSH0 SSTORE")
        .expect("assembles")
        .repeat(40_000);
    let case = Case::of_code(&code, 1_000);
    let world = World::new(&case);
    let eager = Arc::new(Eager::new(
        Compiler::new().expect("a known processor"),
        Level::Quick,
    ));
    let fork = Fork::LATEST;
    let mut machine = Machine::new(
        cfg_env(fork, 1, fork.default_blob_params()),
        Case::block(),
        &world,
    );
    machine.set_runner(eager.clone());
    for nonce in 0..5 {
        let result = machine.execute(TxEnv {
            gas_limit: 30_000,
            ..call(PROGRAM, nonce, &[])
        });
        assert!(result.is_ok_and(|result| result.is_halt()));
    }
    let statistics = eager.statistics();
    assert_eq!((statistics.refused, statistics.compiled), (1, 0));
    assert_eq!(statistics.interpreted, 5);
}

#[test]
fn there_is_a_bomb_for_each_that_the_design_names() {
    let names: Vec<_> = bombs::all().iter().map(|bomb| bomb.name).collect();
    for named in [
        "JUMPDEST",
        "DUP1 MUL of a live word",
        "JUMPDEST PUSH0 CALLDATALOAD JUMP",
        "MSIZE DUP1 MSTORE",
    ] {
        assert!(names.contains(&named), "{named}");
    }
}

#[test]
fn programs_that_went_wrong_elsewhere_do_the_same_natively() {
    for text in [
        // A jump into an immediate, to nowhere, beyond 64 bits.
        "PUSH1 4 JUMP PUSH1 0x5b STOP",
        "PUSH2 0xffff JUMP",
        "PUSH32 0x0100000000000000000000000000000000000000000000000000000000000003 JUMP JUMPDEST STOP",
        // JUMPI last in the code, with a false and a true condition.
        "PUSH0 PUSH1 4 JUMPI",
        "JUMPDEST PUSH1 1 PUSH0 JUMPI",
        // A JUMPI to nowhere that is not taken.
        "PUSH0 PUSH2 0xffff JUMPI STOP",
        "PUSH0 CALLDATALOAD PUSH0 NOT JUMPI STOP",
        // Division by zero of narrow words.
        "PUSH0 PUSH1 5 PUSH0 CALLDATALOAD PUSH1 0xf0 SHR DIV PUSH0 MSTORE PUSH1 32 PUSH0 RETURN",
        "PUSH0 CALLDATALOAD PUSH1 0xf8 SHR PUSH1 1 SUB DUP1 PUSH1 9 MOD PUSH0 MSTORE PUSH1 32 PUSH0 RETURN",
        // Calls of the host in a loop, some cold, some warm.
        "PUSH1 3 JUMPDEST DUP1 SLOAD DUP2 PUSH1 7 ADD BALANCE ADD POP PUSH1 1 SWAP1 SUB DUP1 PUSH1 2 JUMPI STOP",
        // Recursion until the gas or the depth ends.
        "PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 ADDRESS GAS CALL PUSH0 MSTORE PUSH1 32 PUSH0 RETURN",
        // What is created, and the nonce and balance it needs.
        "PUSH1 0xff PUSH2 0xffff CREATE GAS PUSH0 MSTORE MSIZE PUSH0 RETURN",
        "PUSH3 0xc001 PUSH0 PUSH0 CREATE GAS PUSH0 MSTORE MSIZE PUSH0 RETURN",
    ] {
        for gas in [0, 10, 9_000, 39_000, 979_000, 10_000_000] {
            check(&case(text, gas));
        }
    }
}
