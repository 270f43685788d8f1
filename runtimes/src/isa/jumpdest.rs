//! Jump-destination analysis.

use super::{Isa, Op};

/// The offsets a jump may land on: every JUMPDEST that is not inside an immediate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JumpDests {
    bits: Vec<u64>,
    len: usize,
}

impl JumpDests {
    /// Analyses `code` in time and space linear in its size.
    pub fn analyse(isa: Isa, code: &[u8]) -> Self {
        let mut bits = vec![0u64; code.len().div_ceil(64)];
        let mut pc = 0;
        while let Some(&byte) = code.get(pc) {
            let mut next = pc + 1;
            if let Some(info) = isa.op(byte) {
                if info.op == Op::JumpDest {
                    bits[pc / 64] |= 1 << (pc % 64);
                } else if info.hides_immediate() {
                    next += usize::from(info.immediate);
                }
            }
            pc = next;
        }
        Self {
            bits,
            len: code.len(),
        }
    }

    /// Whether a jump to `pc` is allowed. Offsets outside the code are not.
    #[inline]
    pub fn contains(&self, pc: usize) -> bool {
        self.bits
            .get(pc / 64)
            .is_some_and(|word| word >> (pc % 64) & 1 == 1)
    }

    /// The allowed offsets, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.len).filter(|&pc| self.contains(pc))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jumpdest_inside_an_immediate_is_no_destination() {
        let dests = JumpDests::analyse(Isa::Evm, &[0x60, 0x5b, 0x5b, 0x61, 0x5b]);
        assert_eq!(dests.iter().collect::<Vec<_>>(), [2]);
        let dests = JumpDests::analyse(Isa::Zvm2, &[0x11, 0xa3, 0xa3, 0x1f, 0xa3, 0xa3]);
        assert_eq!(dests.iter().collect::<Vec<_>>(), [2, 5]);
    }

    #[test]
    fn version_2_immediates_are_code_in_version_1() {
        let dests = JumpDests::analyse(Isa::Zvm1, &[0x1f, 0xa3]);
        assert_eq!(dests.iter().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn an_eip_8024_immediate_never_hides_a_jumpdest() {
        assert!(JumpDests::analyse(Isa::Evm, &[0xe6, 0x5b]).contains(1));
    }

    #[test]
    fn nothing_outside_the_code_is_a_destination() {
        let dests = JumpDests::analyse(Isa::Evm, &[0x5b]);
        assert!(dests.contains(0));
        assert!(!dests.contains(1));
        assert!(!dests.contains(usize::MAX));
    }
}
