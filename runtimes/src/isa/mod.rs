//! The instruction sets.
//!
//! One table ([`TABLE`]) describes every operation once. A numbering ([`Isa`]) says which byte stands for which
//! operation; everything else (lookup, disassembler, assembler, jump-destination analysis, the printed reference)
//! is derived from the table, so that two numberings cannot disagree on what an operation means.

mod assemble;
mod disassemble;
mod jumpdest;
mod op;
mod reference;
mod table;

pub use assemble::{AssembleError, AssembleErrorKind, assemble};
pub use disassemble::{Disassembly, Instruction, disassemble, listing, source};
pub use jumpdest::JumpDests;
pub use op::{Flags, GasSchedule, Op, OpInfo, ZvmByte};
pub use reference::reference;
pub use table::{RESERVED, Reserved, TABLE};

use std::{fmt, str::FromStr};

/// A numbering of the operations: which byte encodes which [`Op`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// The Ethereum Virtual Machine.
    Evm,
    /// Native bytecode, container version 1.
    Zvm1,
    /// Native bytecode, container version 2: version 1 and the opcodes marked v2.
    Zvm2,
    /// The legacy numbering "ISA 0".
    Zvm0,
}

impl Isa {
    /// Every numbering, in the order of the printed reference.
    pub const ALL: [Self; 4] = [Self::Evm, Self::Zvm1, Self::Zvm2, Self::Zvm0];

    /// The row of the operation that `byte` encodes, `None` for an invalid opcode.
    ///
    /// Says nothing about forks: see [`OpInfo::active`].
    #[inline]
    pub fn op(self, byte: u8) -> Option<&'static OpInfo> {
        table::lookup(self, byte)
    }

    /// The row whose mnemonic in this numbering is `mnemonic`, ignoring ASCII case.
    pub fn op_by_mnemonic(self, mnemonic: &str) -> Option<&'static OpInfo> {
        TABLE.iter().find(|info| {
            info.byte(self).is_some() && info.mnemonic(self).eq_ignore_ascii_case(mnemonic)
        })
    }

    /// The name used on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Evm => "evm",
            Self::Zvm1 => "zvm1",
            Self::Zvm2 => "zvm2",
            Self::Zvm0 => "zvm0",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text names no instruction set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown instruction set {0:?}: expected evm, zvm1, zvm2 or zvm0")]
pub struct UnknownIsa(pub String);

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == s)
            .ok_or_else(|| UnknownIsa(s.to_owned()))
    }
}
