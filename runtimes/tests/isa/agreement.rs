//! The table says what revm does, and no numbering contradicts another.

use revm::{
    bytecode::opcode::OPCODE_INFO, interpreter::instructions::gas_table_spec,
    primitives::hardfork::SpecId,
};
use std::collections::HashSet;
use zvm_runtimes::isa::{Flags, Isa, Op, RESERVED, TABLE};

fn every_spec() -> impl Iterator<Item = SpecId> {
    (0..=u8::MAX).map_while(SpecId::try_from_u8)
}

#[test]
fn every_evm_byte_has_the_name_and_shape_revm_gives_it() {
    for byte in 0..=u8::MAX {
        let ours = Isa::Evm.op(byte);
        let theirs = OPCODE_INFO[usize::from(byte)];
        assert_eq!(ours.is_some(), theirs.is_some(), "opcode {byte:#04x}");
        let (Some(ours), Some(theirs)) = (ours, theirs) else {
            continue;
        };
        assert_eq!(ours.mnemonic(Isa::Evm), theirs.name());
        assert_eq!(ours.inputs, theirs.inputs(), "{}", theirs.name());
        assert_eq!(ours.outputs, theirs.outputs(), "{}", theirs.name());
        assert_eq!(ours.immediate, theirs.immediate_size(), "{}", theirs.name());
        assert_eq!(
            ours.has(Flags::TERMINATES),
            theirs.is_terminating(),
            "{}",
            theirs.name()
        );
    }
}

#[test]
fn static_gas_is_what_revm_charges_in_every_fork() {
    let mut compared = 0;
    for spec in every_spec() {
        let table = gas_table_spec(spec);
        for byte in 0..=u8::MAX {
            let Some(info) = Isa::Evm.op(byte) else {
                continue;
            };
            if let Some(gas) = info.static_gas(Isa::Evm, spec) {
                assert_eq!(
                    gas,
                    table[usize::from(byte)],
                    "{} in {spec:?}",
                    info.mnemonic(Isa::Evm)
                );
                compared += 1;
            }
        }
    }
    assert!(compared > 1900, "only {compared} prices compared");
}

/// Every operation is run alone on a stack that suits it; revm reports those its fork does not have.
#[test]
fn an_operation_is_active_exactly_where_revm_runs_it() {
    use revm::{
        bytecode::Bytecode,
        interpreter::{
            InstructionResult, Interpreter, SharedMemory,
            host::DummyHost,
            instructions::instruction_table,
            interpreter::{EthInterpreter, ExtBytecode, InputsImpl},
        },
        primitives::{Bytes, U256},
    };
    let instructions = instruction_table::<EthInterpreter, DummyHost>();
    for spec in every_spec() {
        let gas = gas_table_spec(spec);
        for byte in 0..=u8::MAX {
            let Some(info) = Isa::Evm.op(byte) else {
                continue;
            };
            if info.op == Op::Difficulty {
                // It cannot be run here, as revm's dummy host has no RANDAO mix.
                assert!(info.active(spec));
                continue;
            }
            let code = Bytecode::new_legacy(Bytes::from(vec![byte]));
            let mut interpreter = Interpreter::<EthInterpreter>::new(
                SharedMemory::new(),
                ExtBytecode::new(code),
                InputsImpl::default(),
                false,
                spec,
                u64::MAX,
            );
            for _ in 0..20 {
                assert!(interpreter.stack.push(U256::ZERO));
            }
            let mut host = DummyHost::new(spec);
            let result = interpreter.step(&instructions, &gas, &mut host);
            let refused = result == Err(InstructionResult::NotActivated);
            assert_eq!(
                refused,
                !info.active(spec),
                "{} in {spec:?}: {result:?}",
                info.mnemonic(Isa::Evm)
            );
        }
    }
}

#[test]
fn each_numbering_encodes_an_operation_in_at_most_one_byte() {
    for isa in Isa::ALL {
        let mut seen = HashSet::new();
        let mut names = HashSet::new();
        for byte in 0..=u8::MAX {
            let Some(info) = isa.op(byte) else { continue };
            assert_eq!(info.byte(isa), Some(byte));
            assert!(seen.insert(info.op), "{:?} twice in {isa}", info.op);
            assert!(
                names.insert(info.mnemonic(isa)),
                "{} twice in {isa}",
                info.mnemonic(isa)
            );
            let found = isa
                .op_by_mnemonic(info.mnemonic(isa))
                .expect("its own mnemonic finds it");
            assert_eq!(found.op, info.op);
        }
    }
}

#[test]
fn an_operation_has_one_row_and_so_one_shape_in_every_numbering() {
    let mut seen = HashSet::new();
    for info in &TABLE {
        assert!(seen.insert(info.op), "{:?} has two rows", info.op);
        assert!(
            Isa::ALL.iter().any(|&isa| info.byte(isa).is_some()),
            "{:?} has no byte",
            info.op
        );
        assert!(
            info.gas
                .windows(2)
                .all(|pair| (pair[0].0 as u8) < pair[1].0 as u8),
            "{:?}: forks ascend",
            info.op
        );
    }
}

#[test]
fn version_2_contains_version_1_and_adds_exactly_eight_operations() {
    let mut added = Vec::new();
    for byte in 0..=u8::MAX {
        match (Isa::Zvm1.op(byte), Isa::Zvm2.op(byte)) {
            (Some(one), Some(two)) => assert_eq!(one.op, two.op),
            (None, Some(two)) => added.push((byte, two.op)),
            (Some(one), None) => panic!("{:?} is missing from version 2", one.op),
            (None, None) => {}
        }
    }
    let expected = [
        (0x1f, Op::DupImm),
        (0x20, Op::SwapImm),
        (0x21, Op::Push(0)),
        (0x84, Op::MCopy),
        (0xad, Op::Gas),
        (0xae, Op::Invalid),
        (0xca, Op::BlobHash),
        (0xcb, Op::BlobBaseFee),
    ];
    assert_eq!(added, expected);
}

#[test]
fn native_numbers_replace_the_price_of_the_fork() {
    let price = |isa: Isa, name: &str| {
        isa.op_by_mnemonic(name)
            .and_then(|info| info.static_gas(isa, SpecId::OSAKA))
    };
    for (name, gas) in [
        ("NOP", 1),
        ("SHL", 8),
        ("SHR", 8),
        ("SAR", 8),
        ("MSIZE", 3),
        ("PC", 3),
        ("SHA256", 60),
        ("RIPEMD160", 600),
        ("BLAKE2B", 30),
        ("TABLEHASH", 30),
        ("SLOAD", 100),
    ] {
        assert_eq!(price(Isa::Zvm1, name), Some(gas), "{name}");
    }
    assert_eq!(price(Isa::Evm, "SHL"), Some(3));
    assert_eq!(price(Isa::Zvm0, "MSIZE"), Some(3));
    assert_eq!(price(Isa::Zvm0, "ECRECOVER"), Some(3000));
}

/// The numberings as the specification page lists them: first byte, then the names from there on.
#[test]
fn native_bytes_are_those_of_the_specification() {
    const PAGE: &[(u8, &str)] = &[
        (0x00, "HALT NOP"),
        (
            0x10,
            "POP PUSH1 PUSH2 PUSH4 PUSH8 PUSH16 PUSH32 DUP1 DUP2 DUP3 DUP4 SWAP1 SWAP2 SWAP3 SWAP4",
        ),
        (
            0x30,
            "ADD SUB MUL DIV SDIV MOD SMOD ADDMOD MULMOD EXP SIGNEXTEND",
        ),
        (
            0x50,
            "LT GT SLT SGT EQ ISZERO AND OR XOR NOT BYTE SHL SHR SAR",
        ),
        (0x70, "KECCAK256 SHA256 RIPEMD160 BLAKE2B"),
        (0x80, "MLOAD MSTORE MSTORE8 MSIZE"),
        (0x90, "SLOAD SSTORE TLOAD TSTORE"),
        (
            0xa0,
            "JUMP JUMPI PC JUMPDEST CALL CALLCODE DELEGATECALL STATICCALL RETURN REVERT SELFDESTRUCT",
        ),
        (0xab, "CREATE CREATE2"),
        (
            0xb0,
            "ADDRESS BALANCE ORIGIN CALLER CALLVALUE CALLDATALOAD CALLDATASIZE CALLDATACOPY CODESIZE CODECOPY",
        ),
        (
            0xba,
            "GASPRICE EXTCODESIZE EXTCODECOPY RETURNDATASIZE RETURNDATACOPY EXTCODEHASH",
        ),
        (
            0xc0,
            "BLOCKHASH COINBASE TIMESTAMP NUMBER DIFFICULTY PREVRANDAO GASLIMIT CHAINID SELFBALANCE BASEFEE",
        ),
        (0xd2, "TABLEHASH"),
        (0xf0, "PQ_VERIFY_DILITHIUM"),
        (0xf2, "PQ_VERIFY_SPHINCS"),
        (0xf8, "LOG0 LOG1 LOG2 LOG3 LOG4"),
    ];
    const LEGACY: &[(u8, &str)] = &[
        (0x01, "PUSH1 PUSH2 PUSH4 PUSH8 POP DUP SWAP"),
        (0x10, "ADD SUB MUL DIV MOD"),
        (0x20, "LT GT EQ NOT AND OR XOR"),
        (0x30, "MLOAD MSTORE MSIZE"),
        (0x40, "SLOAD SSTORE"),
        (0x50, "JUMP JUMPI JUMPDEST"),
        (0x60, "CALL RETURN REVERT HALT"),
        (0x70, "CALLER CALLVALUE CALLDATALOAD CALLDATASIZE"),
        (0x80, "KECCAK256 ECRECOVER ED25519_VERIFY"),
    ];
    for (isa, page) in [(Isa::Zvm1, PAGE), (Isa::Zvm0, LEGACY)] {
        let mut expected = [None; 256];
        for &(first, names) in page {
            for (i, name) in names.split(' ').enumerate() {
                expected[usize::from(first) + i] = Some(name);
            }
        }
        for byte in 0..=u8::MAX {
            let name = isa.op(byte).map(|info| info.mnemonic(isa));
            assert_eq!(name, expected[usize::from(byte)], "{isa} {byte:#04x}");
        }
    }
}

#[test]
fn reserved_bytes_are_invalid_opcodes() {
    for reserved in RESERVED {
        for byte in reserved.first..=reserved.last {
            assert!(
                Isa::Zvm1.op(byte).is_none() && Isa::Zvm2.op(byte).is_none(),
                "{byte:#04x}"
            );
        }
    }
}
