//! Disassembler.

use super::{Isa, OpInfo};
use alloy_primitives::U256;
use std::fmt::{self, Write};

/// An instruction as it lies in the code.
#[derive(Clone, Copy, Debug)]
pub struct Instruction<'a> {
    /// Offset of the opcode in the code.
    pub pc: usize,
    /// The opcode.
    pub byte: u8,
    /// The operation, `None` for an invalid opcode.
    pub info: Option<&'static OpInfo>,
    /// The immediate's bytes that are in the code.
    pub immediate: &'a [u8],
    /// Whether the end of the code cut the immediate off.
    pub truncated: bool,
    isa: Isa,
}

impl Instruction<'_> {
    /// The immediate as a number: big-endian, and zero-padded on the right if the end of the code cut it off.
    /// 0 without an immediate.
    pub fn value(&self) -> U256 {
        let size = self
            .info
            .map_or(0, |info| usize::from(info.immediate))
            .min(32);
        let mut word = [0; 32];
        for (to, from) in word[32 - size..].iter_mut().zip(self.immediate) {
            *to = *from;
        }
        U256::from_be_bytes(word)
    }

    /// Offset of the next instruction; may lie past the end of the code only for a truncated one.
    pub fn next_pc(&self) -> usize {
        self.pc + 1 + self.info.map_or(0, |info| usize::from(info.immediate))
    }

    /// The operation's name, `None` for an invalid opcode.
    pub fn mnemonic(&self) -> Option<&'static str> {
        self.info.map(|info| info.mnemonic(self.isa))
    }
}

/// Prints the instruction as the assembler reads it back. What has no text of its own, an invalid opcode or a
/// truncated immediate, is printed as data.
impl fmt::Display for Instruction<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.mnemonic() {
            Some(mnemonic) if !self.truncated => {
                f.write_str(mnemonic)?;
                if self.immediate.is_empty() {
                    return Ok(());
                }
                f.write_str(" 0x")?;
                None
            }
            _ => {
                f.write_str(".data 0x")?;
                Some(self.byte)
            }
        };
        prefix
            .iter()
            .chain(self.immediate)
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The instructions of a code, in order. See [`disassemble`].
#[derive(Clone, Debug)]
pub struct Disassembly<'a> {
    isa: Isa,
    code: &'a [u8],
    pc: usize,
}

impl<'a> Iterator for Disassembly<'a> {
    type Item = Instruction<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let pc = self.pc;
        let (&byte, rest) = self.code.get(pc..)?.split_first()?;
        let info = self.isa.op(byte).filter(|info| {
            info.immediate == 0 || info.accepts_immediate(rest.first().copied().unwrap_or(0))
        });
        let wanted = info.map_or(0, |info| usize::from(info.immediate));
        let immediate = &rest[..wanted.min(rest.len())];
        self.pc = pc + 1 + immediate.len();
        Some(Instruction {
            pc,
            byte,
            info,
            immediate,
            truncated: immediate.len() < wanted,
            isa: self.isa,
        })
    }
}

/// Decodes `code` from its first byte on. Every byte belongs to exactly one instruction.
pub fn disassemble(isa: Isa, code: &[u8]) -> Disassembly<'_> {
    Disassembly { isa, code, pc: 0 }
}

/// The disassembly as text, one instruction a line after its offset in hex.
pub fn listing(isa: Isa, code: &[u8]) -> String {
    let mut text = String::new();
    for instruction in disassemble(isa, code) {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:06x}  {instruction}", instruction.pc);
    }
    text
}

/// The disassembly as text that [`assemble`](super::assemble) turns into exactly `code` again.
pub fn source(isa: Isa, code: &[u8]) -> String {
    let mut text = String::new();
    for instruction in disassemble(isa, code) {
        let _ = writeln!(text, "{instruction}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_immediate_cut_off_by_the_end_of_code_is_padded_right_with_zeros() {
        let code = [0x63, 0xab, 0xcd];
        let instruction = disassemble(Isa::Evm, &code)
            .next()
            .expect("one instruction");
        assert!(instruction.truncated);
        assert_eq!(instruction.value(), U256::from(0xabcd_0000u32));
        assert_eq!(instruction.next_pc(), 5);
        assert_eq!(instruction.to_string(), ".data 0x63abcd");
    }

    #[test]
    fn a_listing_shows_offsets_and_invalid_opcodes() {
        assert_eq!(
            listing(Isa::Evm, &[0x60, 0x01, 0x5f, 0x0c, 0x00]),
            "000000  PUSH1 0x01\n000002  PUSH0\n000003  .data 0x0c\n000004  STOP\n"
        );
        assert_eq!(
            listing(Isa::Zvm1, &[0x00, 0x21]),
            "000000  HALT\n000001  .data 0x21\n"
        );
        assert_eq!(
            listing(Isa::Zvm2, &[0x1f, 0x03, 0x21]),
            "000000  DUPN 0x03\n000002  PUSH0\n"
        );
        assert_eq!(
            listing(Isa::Zvm0, &[0x01, 0x02, 0x06, 0x07]),
            "000000  PUSH1 0x02\n000002  DUP\n000003  SWAP\n"
        );
    }

    #[test]
    fn a_forbidden_eip_8024_immediate_is_decoded_as_an_opcode() {
        let names: Vec<_> = disassemble(Isa::Evm, &[0xe6, 0x5b, 0xe6, 0x00])
            .map(|i| i.to_string())
            .collect();
        assert_eq!(names, [".data 0xe6", "JUMPDEST", "DUPN 0x00"]);
    }
}
