//! Codes made to be expensive to compile, of the size of the largest contract or near it.

use alloy_primitives::U256;

use crate::asm::{Item, assemble};
use crate::choices::Choices;

/// Largest contract (EIP-170), bytes.
pub const LARGEST: usize = 24_576;

/// A code and what it is.
#[derive(Debug, Clone)]
pub struct Bomb {
    /// What it attacks.
    pub name: &'static str,
    /// Its bytes.
    pub code: Vec<u8>,
}

/// Repeats `unit` up to the size of the largest contract, behind `head`.
fn repeat(name: &'static str, head: &[u8], unit: &[u8]) -> Bomb {
    let mut code = head.to_vec();
    while code.len() + unit.len() <= LARGEST {
        code.extend_from_slice(unit);
    }
    Bomb { name, code }
}

/// Makes pieces by number until the code is as large as the largest contract.
fn fill(name: &'static str, head: &[Item], mut piece: impl FnMut(u16) -> Vec<Item>) -> Bomb {
    let mut items = head.to_vec();
    let mut length = assemble(&items).len();
    for index in 0.. {
        let more = piece(index);
        let size = assemble(&more).len();
        if length + size > LARGEST || index == u16::MAX {
            break;
        }
        length += size;
        items.extend(more);
    }
    Bomb {
        name,
        code: assemble(&items),
    }
}

fn op(byte: u8) -> Item {
    Item::Op(byte)
}

fn small(number: u64) -> Item {
    Item::push(U256::from(number))
}

/// Every bomb.
pub fn all() -> Vec<Bomb> {
    // Sixteen words that nobody knows.
    let live: Vec<u8> = (0..16).flat_map(|index| [0x60, index * 3, 0x35]).collect();
    let with_live = |rest: &[u8]| [live.as_slice(), rest].concat();
    let live_items: Vec<Item> = (0..16u64)
        .flat_map(|index| [small(index * 3), op(0x35)])
        .collect();
    let mut bombs = vec![
        repeat("JUMPDEST", &[], &[0x5b]),
        repeat(
            "JUMPDEST PUSH0 CALLDATALOAD JUMP",
            &[],
            &[0x5b, 0x5f, 0x35, 0x56],
        ),
        repeat("DUP1 MUL of a live word", &[0x5f, 0x35], &[0x80, 0x02]),
        repeat("MSIZE DUP1 MSTORE", &[], &[0x59, 0x80, 0x52]),
        repeat("DUP1 SDIV", &[0x5f, 0x35], &[0x80, 0x05]),
        repeat("DUP1 ADD", &[0x5f, 0x35], &[0x80, 0x01]),
        repeat("DUP1 SHL", &[0x5f, 0x35], &[0x80, 0x1b]),
        repeat("SWAP16", &with_live(&[0x5f]), &[0x9f]),
        repeat(
            "SWAP16 to SWAP1 of live words",
            &with_live(&[0x5f, 0x35]),
            &(0x90..=0x9f).collect::<Vec<u8>>(),
        ),
        repeat(
            "DUP MULMOD",
            &with_live(&[]),
            &[0x8f, 0x8f, 0x8f, 0x09, 0x50],
        ),
        repeat(
            "DUP ADDMOD kept",
            &with_live(&[]),
            &[0x80, 0x82, 0x84, 0x08, 0x90, 0x50],
        ),
        repeat("EXP", &[0x5f, 0x35], &[0x80, 0x0a]),
        repeat("CALLDATALOAD JUMP", &[], &[0x5f, 0x35, 0x56]),
        repeat("CALLDATALOAD JUMPI", &[0x5b], &[0x5f, 0x35, 0x80, 0x57]),
        repeat(
            "CALL",
            &[],
            &[0x5f, 0x5f, 0x5f, 0x5f, 0x5f, 0x30, 0x5a, 0xf1, 0x50],
        ),
        repeat("SLOAD of SLOAD", &[0x5f], &[0x54]),
        repeat("KECCAK256", &[], &[0x60, 0x20, 0x5f, 0x20, 0x5f, 0x52]),
        repeat(
            "LOG4",
            &with_live(&[]),
            &[0x80, 0x82, 0x84, 0x86, 0x60, 0x20, 0x5f, 0xa4],
        ),
        repeat("MLOAD of MLOAD", &[0x5f, 0x35], &[0x51]),
        repeat(
            "SIGNEXTEND BYTE SAR",
            &with_live(&[]),
            &[0x81, 0x0b, 0x82, 0x1a, 0x83, 0x1d],
        ),
        repeat("GAS", &[], &[0x5a, 0x50]),
        repeat("PC and POP", &[], &[0x58, 0x50]),
        repeat("undefined opcode", &[], &[0x0c]),
        repeat("STOP", &[], &[0x00]),
        repeat("INVALID between JUMPDESTs", &[], &[0x5b, 0xfe]),
        repeat(
            "comparison of comparisons",
            &with_live(&[]),
            &[0x80, 0x82, 0x10, 0x84, 0x12, 0x15, 0x90, 0x50],
        ),
        // Rounds of 16 words, each the sum of two of the round before: all live, none known.
        repeat(
            "sums of sixteen live words",
            &with_live(&[]),
            &[0x8f, 0x81, 0x01, 0x9f, 0x50],
        ),
    ];
    let mut choices = Choices::from_seed(24);
    bombs.push(Bomb {
        name: "random bytes",
        code: (0..LARGEST).map(|_| choices.below(256) as u8).collect(),
    });
    bombs.push(repeat("PUSH32 flood", &[], &{
        let mut unit = vec![0x7f];
        unit.extend([0xa5; 32]);
        unit
    }));
    bombs.push(repeat("PUSH32 XOR chain", &[0x5f, 0x35], &{
        let mut unit = vec![0x7f];
        unit.extend([0xa5; 32]);
        unit.push(0x18);
        unit
    }));
    // 16 live words, a branch every 8 bytes, each to a block of its own.
    bombs.push(fill(
        "sixteen live words, JUMPI every 8 bytes",
        &live_items,
        |index| {
            vec![
                op(0x8f),
                op(0x90),
                Item::target(index),
                op(0x57),
                Item::Label(index),
                op(0x5b),
            ]
        },
    ));
    bombs.push(fill(
        "DUP chain with JUMPI to the next block",
        &live_items,
        |index| {
            let dup = 0x80 + (index % 16) as u8;
            vec![
                op(dup),
                op(0x81),
                op(0x01),
                op(0x80),
                Item::target(index),
                op(0x57),
                Item::Label(index),
                op(0x50),
            ]
        },
    ));
    // Every block can reach every other: a dispatcher of computed jumps over small blocks.
    bombs.push(fill(
        "jump table of thousands",
        &[small(0), op(0x35), op(0x56)],
        |index| {
            vec![
                Item::Label(index),
                small(1),
                op(0x01),
                op(0x80),
                op(0x35),
                op(0x56),
            ]
        },
    ));
    bombs.push(fill(
        "comparisons to thousands of selectors",
        &[small(0), op(0x35)],
        |index| {
            vec![
                op(0x80),
                Item::Push(4, U256::from(u32::from(index) * 7919)),
                op(0x14),
                Item::target(index),
                op(0x57),
                Item::Label(index),
            ]
        },
    ));
    bombs.push(fill(
        "calls of one function from thousands of places",
        &[
            Item::target(60_001),
            op(0x56),
            Item::Label(60_000),
            op(0x90),
            small(3),
            op(0x02),
            op(0x90),
            op(0x56),
            Item::Label(60_001),
            small(7),
        ],
        |index| {
            vec![
                Item::target(index),
                op(0x90),
                Item::target(60_000),
                op(0x56),
                Item::Label(index),
            ]
        },
    ));
    bombs.push(fill("functions that call the next", &[small(1)], |index| {
        // Each pushes an address to return to and jumps on: the stack of addresses is what the control flow depends on.
        vec![
            Item::target(index),
            Item::target(index + 20_000),
            op(0x56),
            Item::Label(index),
            op(0x01),
            Item::Label(index + 20_000),
        ]
    }));
    bombs.push(nested_loops(500));
    bombs.push(irreducible());
    for bomb in &mut bombs {
        bomb.code.truncate(LARGEST);
    }
    bombs
}

/// Loops within loops: each header is reached from the one around it and from its own end.
fn nested_loops(depth: u16) -> Bomb {
    let mut items = Vec::new();
    for index in 0..depth {
        items.extend([small(2), Item::Label(index)]);
    }
    for index in (0..depth).rev() {
        items.extend([
            small(1),
            op(0x90),
            op(0x03),
            op(0x80),
            Item::target(index),
            op(0x57),
            op(0x50),
        ]);
    }
    Bomb {
        name: "500 nested loops",
        code: assemble(&items),
    }
}

/// Blocks that jump forth and back by turns, so that no loop has one header.
fn irreducible() -> Bomb {
    let blocks = 2_200u16;
    let head = [small(0), op(0x35)];
    fill("irreducible control flow", &head, |index| {
        let far = (u32::from(index) * 1_103 % u32::from(blocks)) as u16;
        vec![
            Item::Label(index),
            small(1),
            op(0x01),
            op(0x80),
            Item::target(far),
            op(0x57),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bombs_have_names_of_their_own_and_are_as_large_as_a_contract_may_be() {
        let bombs = all();
        let names: std::collections::BTreeSet<_> = bombs.iter().map(|bomb| bomb.name).collect();
        assert_eq!(names.len(), bombs.len());
        for bomb in &bombs {
            assert!(bomb.code.len() <= LARGEST, "{}", bomb.name);
            let nested = bomb.name == "500 nested loops";
            assert!(
                nested || bomb.code.len() > LARGEST - 64,
                "{}: {}",
                bomb.name,
                bomb.code.len()
            );
        }
    }
}
