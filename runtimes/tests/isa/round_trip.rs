//! Assembler, disassembler and analysis agree with each other and with revm on any code.

use proptest::prelude::*;
use revm::bytecode::Bytecode;
use zvm_runtimes::isa::{Isa, JumpDests, assemble, disassemble, source};

fn isa() -> impl Strategy<Value = Isa> {
    prop::sample::select(Isa::ALL.to_vec())
}

/// Code with many pushes and jump destinations, which plain random bytes have too few of.
fn code() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![
            any::<u8>(),
            0x5bu8..=0x7f,
            0xe6u8..=0xe8,
            0x11u8..=0x21,
            Just(0xa3),
            Just(0x5b),
            Just(0x52)
        ],
        0..300,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_code_survives_disassembling_and_assembling(isa in isa(), code in code()) {
        prop_assert_eq!(assemble(isa, &source(isa, &code)), Ok(code));
    }

    #[test]
    fn every_byte_belongs_to_exactly_one_instruction(isa in isa(), code in code()) {
        let mut pc = 0;
        for instruction in disassemble(isa, &code) {
            prop_assert_eq!(instruction.pc, pc);
            prop_assert_eq!(instruction.byte, code[pc]);
            pc += 1 + instruction.immediate.len();
            prop_assert!(instruction.truncated || instruction.next_pc() == pc);
        }
        prop_assert_eq!(pc, code.len());
    }

    #[test]
    fn evm_jump_destinations_are_those_of_revm(code in code()) {
        let ours = JumpDests::analyse(Isa::Evm, &code);
        let analysed = Bytecode::new_legacy(code.clone().into());
        let theirs = analysed.legacy_jump_table().expect("legacy code is analysed");
        for pc in 0..code.len() + 40 {
            prop_assert_eq!(ours.contains(pc), theirs.is_valid(pc), "offset {}", pc);
        }
    }

    #[test]
    fn the_disassembler_and_the_analysis_see_the_same_jump_destinations(isa in isa(), code in code()) {
        use zvm_runtimes::isa::Op;
        let listed: Vec<usize> = disassemble(isa, &code)
            .filter(|i| i.info.is_some_and(|info| info.op == Op::JumpDest))
            .map(|i| i.pc)
            .collect();
        let dests = JumpDests::analyse(isa, &code);
        // The analysis of the EVM steps into the immediates of EIP-8024, which the disassembler shows as data when
        // they are legal; a legal one is never a JUMPDEST but may be read as a PUSH that hides one.
        if isa != Isa::Evm || !code.iter().any(|byte| (0xe6..=0xe8).contains(byte)) {
            prop_assert_eq!(dests.iter().collect::<Vec<_>>(), listed);
        }
    }

    #[test]
    fn the_assembler_never_panics(isa in isa(), text in "(\\PC|[ \\n:@;#/]|PUSH|0x|\\.data ){0,60}") {
        let _ = assemble(isa, &text);
    }
}
