//! Programs as pieces that can be taken out or exchanged while jumps still find their targets.

use std::collections::BTreeMap;

use alloy_primitives::U256;
use zvm_runtimes::isa::{Isa, JumpDests, Op, disassemble};

/// A piece of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// An opcode without immediate.
    Op(u8),
    /// A push of that many bytes, 0 to 32.
    Push(u8, U256),
    /// A push of where a label lies, in two bytes or more.
    PushLabel(u8, u16),
    /// A JUMPDEST.
    Label(u16),
    /// Bytes as they are.
    Raw(Vec<u8>),
}

const JUMPDEST: u8 = 0x5b;
const PUSH0: u8 = 0x5f;

impl Item {
    /// The shortest push of a word.
    pub fn push(word: U256) -> Self {
        Self::Push(word.byte_len() as u8, word)
    }

    /// A push of a label's offset.
    pub fn target(label: u16) -> Self {
        Self::PushLabel(2, label)
    }

    fn len(&self) -> usize {
        match self {
            Self::Op(_) | Self::Label(_) => 1,
            Self::Push(size, _) | Self::PushLabel(size, _) => 1 + usize::from(*size),
            Self::Raw(bytes) => bytes.len(),
        }
    }
}

/// The bytes of a program. A label that is not defined lies at 0; one defined twice lies where it was first.
pub fn assemble(items: &[Item]) -> Vec<u8> {
    let mut labels = BTreeMap::new();
    let mut offset = 0;
    for item in items {
        if let Item::Label(label) = item {
            labels.entry(*label).or_insert(offset);
        }
        offset += item.len();
    }
    let mut code = Vec::with_capacity(offset);
    let push = |code: &mut Vec<u8>, size: u8, word: U256| {
        code.push(PUSH0 + size);
        code.extend_from_slice(&word.to_be_bytes::<32>()[32 - usize::from(size)..]);
    };
    for item in items {
        match item {
            Item::Op(byte) => code.push(*byte),
            Item::Label(_) => code.push(JUMPDEST),
            Item::Push(size, word) => push(&mut code, *size, *word),
            Item::PushLabel(size, label) => {
                let at = labels.get(label).copied().unwrap_or(0);
                push(&mut code, *size, U256::from(at));
            }
            Item::Raw(bytes) => code.extend_from_slice(bytes),
        }
    }
    code
}

/// Takes bytes apart. A pushed word that is the offset of a JUMPDEST counts as a label, so that the program survives the
/// removal of instructions; assembled again it is the same code.
pub fn lift(code: &[u8]) -> Vec<Item> {
    let targets = JumpDests::analyse(Isa::Evm, code);
    let mut items = Vec::new();
    for instruction in disassemble(Isa::Evm, code) {
        let item = match instruction.info {
            Some(info) if instruction.truncated => {
                let mut bytes = vec![info.byte(Isa::Evm).unwrap_or(instruction.byte)];
                bytes.extend_from_slice(instruction.immediate);
                Item::Raw(bytes)
            }
            Some(info) => match info.op {
                Op::JumpDest => match u16::try_from(instruction.pc) {
                    Ok(pc) => Item::Label(pc),
                    Err(_) => Item::Op(JUMPDEST),
                },
                Op::Push(size) => {
                    let word = instruction.value();
                    match u16::try_from(word) {
                        Ok(pc) if size >= 2 && targets.contains(pc.into()) => {
                            Item::PushLabel(size, pc)
                        }
                        _ => Item::Push(size, word),
                    }
                }
                _ if instruction.immediate.is_empty() => Item::Op(instruction.byte),
                _ => {
                    let mut bytes = vec![instruction.byte];
                    bytes.extend_from_slice(instruction.immediate);
                    Item::Raw(bytes)
                }
            },
            None => Item::Raw(vec![instruction.byte]),
        };
        items.push(item);
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_apart_assembles_to_the_same_bytes() {
        let code = [
            0x60, 0x05, 0x61, 0x00, 0x08, 0x56, 0xfe, 0x0c, 0x5b, 0x5f, 0xe6, 0x5b, 0x7f, 1, 2,
        ];
        let items = lift(&code);
        assert!(items.contains(&Item::PushLabel(2, 8)));
        assert_eq!(assemble(&items), code);
    }

    #[test]
    fn a_jump_finds_its_target_when_what_lies_between_is_taken_out() {
        let mut items = vec![
            Item::target(7),
            Item::Op(0x56),
            Item::Raw(vec![0; 9]),
            Item::Label(7),
        ];
        assert_eq!(assemble(&items)[..4], [0x61, 0, 13, 0x56]);
        items.remove(2);
        assert_eq!(assemble(&items), [0x61, 0, 4, 0x56, 0x5b]);
    }
}
