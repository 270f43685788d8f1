//! The printed reference.

use super::{Flags, Isa, OpInfo, RESERVED};
use std::fmt::Write;

const INTRODUCTION: &str = "\
# Instruction sets

Generated from the opcode table; do not edit. `UPDATE=1 cargo test -p zvm-runtimes --test isa` rewrites it.

a is the top of the stack, b the next item, and so on. Static gas is what is charged before the instruction runs;
entries such as `berlin 100` say from which fork on a price holds, the first fork being the one that introduced the
operation. Effects: dynamic gas = a further cost depends on operands or state; host = asks for state, block or
transaction; memory = may expand memory; reads gas = depends on the exact gas left; writes state = fails in a static
call (CALL only with value); suspends = another frame runs; variable stack = the depth reached depends on the
immediate. An immediate cut off by the end of the code is padded right with zeros. Every other byte is an invalid
opcode, which consumes all gas of the frame.
";

/// The reference of every numbering as Markdown.
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    section(&mut text, "EVM", Isa::Evm);
    // Version 2 contains version 1, so one table serves both.
    section(&mut text, "Native bytecode (ZVM)", Isa::Zvm2);
    text.push_str("\nReserved bytes:\n\n| hex | name | status |\n|---|---|---|\n");
    for reserved in RESERVED {
        let bytes = if reserved.first == reserved.last {
            format!("{:02x}", reserved.first)
        } else {
            format!("{:02x}–{:02x}", reserved.first, reserved.last)
        };
        put(
            &mut text,
            format_args!("| {bytes} | {} | {} |\n", reserved.name, reserved.reason),
        );
    }
    section(&mut text, "Legacy numbering (ISA 0)", Isa::Zvm0);
    text
}

fn section(text: &mut String, title: &str, isa: Isa) {
    let native = isa == Isa::Zvm2;
    put(
        text,
        format_args!(
            "\n## {title}\n\n| hex | mnemonic |{} immediate | in→out | static gas | meaning | effects |\n",
            if native { " since |" } else { "" }
        ),
    );
    put(
        text,
        format_args!(
            "|---|---|{}---|---|---|---|---|\n",
            if native { "---|" } else { "" }
        ),
    );
    for byte in 0..=u8::MAX {
        let Some(info) = isa.op(byte) else { continue };
        put(
            text,
            format_args!("| {byte:02x} | {} |", info.mnemonic(isa)),
        );
        if native {
            put(
                text,
                format_args!(" v{} |", info.zvm.map_or(0, |zvm| zvm.version)),
            );
        }
        let immediate = if info.immediate == 0 {
            String::new()
        } else {
            info.immediate.to_string()
        };
        put(
            text,
            format_args!(
                " {immediate} | {}→{} | {} | {} | {} |\n",
                info.inputs,
                info.outputs,
                gas(info, isa),
                info.meaning,
                effects(info.flags)
            ),
        );
    }
}

fn gas(info: &OpInfo, isa: Isa) -> String {
    if let (Some(gas), true) = (info.native_gas, isa != Isa::Evm) {
        return gas.to_string();
    }
    let from_start = info.introduced() == revm::primitives::hardfork::SpecId::FRONTIER;
    let entries = info.gas.iter().enumerate().map(|(i, (fork, gas))| {
        if i == 0 && from_start {
            gas.to_string()
        } else {
            format!(
                "{} {gas}",
                format!("{fork:?}").to_lowercase().replace('_', " ")
            )
        }
    });
    entries.collect::<Vec<_>>().join(", ")
}

fn effects(flags: Flags) -> String {
    let names = Flags::NAMES
        .iter()
        .filter(|(flag, _)| flags.contains(*flag))
        .map(|(_, name)| *name);
    names.collect::<Vec<_>>().join(", ")
}

fn put(text: &mut String, args: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(args);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::TABLE;

    #[test]
    fn the_reference_names_every_operation() {
        let text = reference();
        for info in &TABLE {
            for isa in Isa::ALL {
                if let Some(byte) = info.byte(isa) {
                    assert!(
                        text.contains(&format!("| {byte:02x} | {} |", info.mnemonic(isa))),
                        "{info:?}"
                    );
                }
            }
        }
    }
}
