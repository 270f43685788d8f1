//! The interpreter is the oracle: random programs give the same status, gas, refund, output, logs and storage natively,
//! at every gas limit.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use proptest::prelude::*;
use zvm_jit::compiler::{Compiler, Level};
use zvm_jit::tier::Eager;
use zvm_runtimes::evm::{Fork, FrameRunner, Machine, ReadError, StateReader, cfg_env};
use zvm_runtimes::isa::{Isa, assemble};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::{BlockEnv, TxEnv};
use zvm_runtimes::revm::state::AccountInfo;

const CONTRACT: Address = Address::repeat_byte(0xcc);
const OTHER: Address = Address::repeat_byte(0xdd);

static LEVELS: LazyLock<[Arc<Eager>; 2]> = LazyLock::new(|| {
    [Level::Quick, Level::Full].map(|level| {
        Arc::new(Eager::new(
            Compiler::new().expect("a known processor"),
            level,
        ))
    })
});

/// Two contracts: the program, and one that adds to a slot and returns it.
struct World(Bytecode, Bytecode);

impl World {
    fn new(code: &[u8]) -> Self {
        let other =
            "PUSH0 SLOAD CALLDATASIZE ADD DUP1 PUSH0 SSTORE PUSH0 MSTORE PUSH1 32 PUSH0 RETURN";
        let other = assemble(Isa::Evm, other).expect("assembles");
        Self(
            Bytecode::new_legacy(code.to_vec().into()),
            Bytecode::new_legacy(other.into()),
        )
    }
}

impl StateReader for World {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        let code = match *address {
            CONTRACT => &self.0,
            OTHER => &self.1,
            _ => return Ok(None),
        };
        Ok(Some(AccountInfo {
            nonce: 1,
            code_hash: code.hash_slow(),
            code: None,
            ..AccountInfo::default()
        }))
    }
    fn storage(&self, _: &Address, slot: &U256) -> Result<U256, ReadError> {
        Ok(if slot.bit(0) {
            U256::from(7)
        } else {
            U256::ZERO
        })
    }
    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        Ok(if *hash == self.0.hash_slow() {
            self.0.clone()
        } else {
            self.1.clone()
        })
    }
    fn has_storage(&self, _: &Address) -> Result<bool, ReadError> {
        Ok(false)
    }
    fn block_hash(&self, _: u64) -> Result<B256, ReadError> {
        Ok(B256::ZERO)
    }
}

/// Everything that can be seen of a run.
fn run(
    world: &World,
    gas_limit: u64,
    runner: Option<Arc<dyn FrameRunner>>,
) -> (String, BTreeMap<(Address, U256), U256>, u64) {
    let fork = Fork::LATEST;
    let mut machine = Machine::new(
        cfg_env(fork, 1, fork.default_blob_params()),
        BlockEnv::default(),
        world,
    );
    if let Some(runner) = runner {
        machine.set_runner(runner);
    }
    let tx = TxEnv {
        kind: TxKind::Call(CONTRACT),
        gas_limit,
        data: Bytes::from_static(
            b"\x01\x02\x03 some calldata that is longer than one word of memory",
        ),
        chain_id: Some(1),
        ..TxEnv::default()
    };
    let result = machine.execute(tx);
    let used = result.as_ref().map_or(0, |result| result.tx_gas_used());
    let slots = machine
        .state()
        .accounts()
        .iter()
        .flat_map(|(address, account)| {
            account
                .storage
                .iter()
                .map(|(slot, value)| ((*address, *slot), value.present))
        })
        .collect();
    // Native code charges a section's gas at once: which kind of out of gas a frame reports may differ.
    let result = format!("{result:?}")
        .replace("OutOfGas(Memory)", "OutOfGas(Basic)")
        .replace("OutOfGas(MemoryLimit)", "OutOfGas(Basic)")
        .replace("OutOfGas(InvalidOperand)", "OutOfGas(Basic)");
    (result, slots, used)
}

fn check(code: &[u8], gas_limit: u64) -> Result<u64, TestCaseError> {
    let world = World::new(code);
    let expected = run(&world, gas_limit, None);
    for eager in LEVELS.iter() {
        let found = run(&world, gas_limit, Some(eager.clone()));
        prop_assert_eq!(
            &found,
            &expected,
            "{:?} at gas limit {} of {}",
            eager,
            gas_limit,
            alloy_primitives::hex::encode(code)
        );
    }
    Ok(expected.2)
}

/// A literal near something where operations change their mind.
fn literal() -> impl Strategy<Value = Vec<u8>> {
    let power = (0usize..=255, 0u8..3, any::<bool>()).prop_map(|(bit, minus, negate)| {
        let word = (U256::from(1) << bit).wrapping_sub(U256::from(minus));
        if negate { word.wrapping_neg() } else { word }
    });
    let small = (0u64..600).prop_map(U256::from);
    let any = any::<[u64; 4]>().prop_map(U256::from_limbs);
    prop_oneof![3 => small, 3 => power, 1 => any].prop_map(|word| {
        let bytes = word.to_be_bytes_trimmed_vec();
        let mut code = vec![0x5f + bytes.len() as u8];
        code.extend(bytes);
        code
    })
}

/// A piece of code that leaves the stack no lower than it found it, most of the time.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let arithmetic = prop::sample::select(vec![
        0x01u8, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0a, 0x0b, 0x10, 0x11, 0x12, 0x13, 0x14, 0x16,
        0x17, 0x18, 0x1a, 0x1b, 0x1c, 0x1d,
    ]);
    let unary = prop::sample::select(vec![0x15u8, 0x19, 0x1e, 0x35, 0x51, 0x54, 0x5c]);
    let push = prop::sample::select(vec![
        0x30u8, 0x33, 0x34, 0x36, 0x38, 0x3a, 0x3d, 0x42, 0x43, 0x46, 0x47, 0x58, 0x59, 0x5a,
    ]);
    prop_oneof![
        6 => literal(),
        6 => (literal(), arithmetic.clone()).prop_map(|(mut code, op)| { code.push(op); code }),
        3 => arithmetic.prop_map(|op| vec![op]),
        2 => (literal(), literal(), prop::sample::select(vec![0x08u8, 0x09])).prop_map(|(mut a, b, op)| { a.extend(b); a.push(op); a }),
        3 => unary.prop_map(|op| vec![op]),
        3 => push.prop_map(|op| vec![op]),
        6 => (0x80u8..=0x8f).prop_map(|op| vec![op]),
        4 => (0x90u8..=0x9f).prop_map(|op| vec![op]),
        1 => Just(vec![0x50]),
        // Memory: MSTORE, MSTORE8, KECCAK256, CALLDATACOPY at small offsets.
        4 => (0u8..200, prop::sample::select(vec![0x52u8, 0x53])).prop_map(|(at, op)| vec![0x60, at, op]),
        1 => (0u8..70, 0u8..70).prop_map(|(length, at)| vec![0x60, length, 0x60, at, 0x20]),
        1 => (0u8..70, 0u8..70).prop_map(|(length, at)| vec![0x60, length, 0x60, 3, 0x60, at, 0x37]),
        // SSTORE, TSTORE, LOG1.
        1 => (0u8..4, prop::sample::select(vec![0x55u8, 0x5d])).prop_map(|(slot, op)| vec![0x60, slot, op]),
        1 => (0u8..70).prop_map(|length| vec![0x60, length, 0x5f, 0xa1]),
        // CALL of the other contract.
        1 => (0u8..64).prop_map(|length| {
            let mut code = vec![0x60, 32, 0x5f, 0x60, length, 0x5f, 0x5f, 0x73];
            code.extend(OTHER);
            code.extend([0x62, 0, 0xff, 0xff, 0xf1]);
            code
        }),
    ]
}

/// Pieces in blocks; blocks end with jumps forward or back, known and computed, so that there are loops.
fn program() -> impl Strategy<Value = Vec<u8>> {
    let block = (prop::collection::vec(piece(), 0..12), 0u8..8, 0usize..8);
    (
        prop::collection::vec(literal(), 4..20),
        prop::collection::vec(block, 1..8),
    )
        .prop_map(|(literals, blocks)| {
            let mut code: Vec<u8> = literals.concat();
            let mut starts = Vec::new();
            let mut patches = Vec::new();
            for (pieces, end, target) in &blocks {
                starts.push(code.len());
                code.push(0x5b);
                code.extend(pieces.concat());
                let computed = end % 2 == 1;
                // A jump is to a known word or to the sum of two, which the compiler may or may not see through; a
                // conditional one asks the word on top.
                if *end < 6 {
                    patches.push((code.len() + 1, target % blocks.len(), computed));
                    code.extend([0x61, 0, 0]);
                    if computed {
                        // By way of memory nobody sees through it.
                        code.extend([0x5f, 0x52, 0x5f, 0x51]);
                    }
                    code.push(if *end < 4 { 0x57 } else { 0x56 });
                }
            }
            code.extend([0x60, 64, 0x5f, 0xf3]);
            for (at, target, _) in patches {
                let pc = starts[target] as u16;
                code[at..at + 2].copy_from_slice(&pc.to_be_bytes());
            }
            code
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_programs_do_the_same_natively(code in program(), gas in 21_500u64..200_000) {
        check(&code, gas)?;
    }

    #[test]
    fn random_bytes_do_the_same_natively(code in prop::collection::vec(any::<u8>(), 1..300)) {
        check(&code, 100_000)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_gas_limit_up_to_what_is_used_ends_the_same_way(code in program()) {
        let used = check(&code, 60_000)?;
        for gas_limit in (21_400..=used + 20).step_by(7) {
            check(&code, gas_limit)?;
        }
    }
}

/// Found by the sweep above: a block that ends by falling into the next never gave back the section's gas.
#[test]
fn memory_that_cannot_grow_in_a_block_that_falls_through_fails_for_memory() {
    let code = assemble(
        Isa::Evm,
        "JUMPDEST PUSH1 1 PUSH2 0x4000 MSTORE PUSH1 1 PUSH1 1 ADD POP PC POP JUMPDEST PUSH0 JUMP",
    )
    .expect("assembles");
    let used = check(&code, 60_000).expect("equal");
    for gas_limit in 21_000..=used.min(24_000) {
        check(&code, gas_limit).expect("equal");
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
        // MSIZE and GAS see what was done before; an offset beyond memory.
        "PUSH1 1 PUSH1 100 MSTORE MSIZE GAS SSTORE MSIZE PUSH0 SSTORE",
        "PUSH1 1 NOT MLOAD",
        "PUSH1 1 PUSH8 0xffffffffffffffff MSTORE",
        "PUSH1 1 PUSH4 0xffffffff MSTORE8",
        // Overflow and underflow after an effect.
        "PUSH1 1 PUSH0 SSTORE POP",
        "JUMPDEST PUSH1 1 PUSH1 2 PUSH0 SSTORE PUSH0 JUMP",
        // Division by zero of narrow words.
        "PUSH0 PUSH1 5 PUSH0 CALLDATALOAD PUSH1 0xf0 SHR DIV PUSH0 MSTORE PUSH1 32 PUSH0 RETURN",
        "PUSH0 CALLDATALOAD PUSH1 0xf8 SHR PUSH1 1 SUB DUP1 PUSH1 9 MOD PUSH0 MSTORE PUSH1 32 PUSH0 RETURN",
    ] {
        let code = assemble(Isa::Evm, text).expect(text);
        for gas_limit in [21_000, 21_010, 30_000, 60_000, 1_000_000] {
            check(&code, gas_limit).expect(text);
        }
    }
}
