//! What an operation is, independent of its byte.

use super::Isa;
use revm::primitives::hardfork::SpecId;
use std::ops::BitOr;

/// A semantic operation. Both instruction sets share it: an `Op` has one meaning, one stack shape and one
/// immediate size wherever it is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(
    missing_docs,
    reason = "each variant is described by its row of the table"
)]
pub enum Op {
    Stop,
    Nop,
    Add,
    Mul,
    Sub,
    Div,
    SDiv,
    Mod,
    SMod,
    AddMod,
    MulMod,
    Exp,
    SignExtend,
    Lt,
    Gt,
    SLt,
    SGt,
    Eq,
    IsZero,
    And,
    Or,
    Xor,
    Not,
    Byte,
    Shl,
    Shr,
    Sar,
    Clz,
    Keccak256,
    Sha256,
    Ripemd160,
    Blake2b,
    TableHash,
    EcRecover,
    Ed25519Verify,
    PqVerifyDilithium,
    PqVerifySphincs,
    Address,
    Balance,
    Origin,
    Caller,
    CallValue,
    CallDataLoad,
    CallDataSize,
    CallDataCopy,
    CodeSize,
    CodeCopy,
    GasPrice,
    ExtCodeSize,
    ExtCodeCopy,
    ReturnDataSize,
    ReturnDataCopy,
    ExtCodeHash,
    BlockHash,
    Coinbase,
    Timestamp,
    Number,
    /// The block's difficulty before the Merge, its RANDAO mix after (EIP-4399).
    Difficulty,
    PrevRandao,
    GasLimit,
    ChainId,
    SelfBalance,
    BaseFee,
    BlobHash,
    BlobBaseFee,
    SlotNum,
    Pop,
    MLoad,
    MStore,
    MStore8,
    SLoad,
    SStore,
    Jump,
    JumpI,
    Pc,
    MSize,
    Gas,
    JumpDest,
    TLoad,
    TStore,
    MCopy,
    /// PUSH0 to PUSH32: the number is the immediate's size in bytes.
    Push(u8),
    /// DUP1 to DUP16: the number counts from 1 at the top of the stack.
    Dup(u8),
    /// SWAP1 to SWAP16: the number is the depth below the top.
    Swap(u8),
    /// LOG0 to LOG4: the number of topics.
    Log(u8),
    /// DUPN of EIP-8024, whose immediate avoids the bytes of JUMPDEST and PUSH.
    DupN,
    /// SWAPN of EIP-8024.
    SwapN,
    /// EXCHANGE of EIP-8024.
    Exchange,
    /// Native DUPN: n = immediate + 1.
    DupImm,
    /// Native SWAPN: n = immediate + 1.
    SwapImm,
    Create,
    Call,
    CallCode,
    Return,
    DelegateCall,
    Create2,
    StaticCall,
    Revert,
    Invalid,
    SelfDestruct,
}

/// What an operation does beyond computing on the stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u16);

impl Flags {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// The frame ends with this operation.
    pub const TERMINATES: Self = Self(1);
    /// Control may continue elsewhere than at the next instruction.
    pub const JUMPS: Self = Self(1 << 1);
    /// The frame ends exceptionally, whatever the operands.
    pub const HALTS: Self = Self(1 << 2);
    /// The effect depends on the exact gas left.
    pub const READS_GAS: Self = Self(1 << 3);
    /// The cost has a part that depends on operands or state.
    pub const DYNAMIC_GAS: Self = Self(1 << 4);
    /// Asks the host: journal, accounts, block or transaction.
    pub const HOST: Self = Self(1 << 5);
    /// Fails in a static frame (EIP-214); CALL does so only when it transfers value.
    pub const WRITES_STATE: Self = Self(1 << 6);
    /// Reads or writes memory, and may expand it.
    pub const MEMORY: Self = Self(1 << 7);
    /// Suspends the frame while another one runs.
    pub const SUSPENDS: Self = Self(1 << 8);
    /// The depth of the stack that is reached depends on the immediate; `inputs` and `outputs` give the net change.
    pub const VARIABLE_STACK: Self = Self(1 << 9);

    /// The flags with their names, for printing.
    pub const NAMES: [(Self, &'static str); 10] = [
        (Self::TERMINATES, "terminates"),
        (Self::JUMPS, "jumps"),
        (Self::HALTS, "halts"),
        (Self::READS_GAS, "reads gas"),
        (Self::DYNAMIC_GAS, "dynamic gas"),
        (Self::HOST, "host"),
        (Self::WRITES_STATE, "writes state"),
        (Self::MEMORY, "memory"),
        (Self::SUSPENDS, "suspends"),
        (Self::VARIABLE_STACK, "variable stack"),
    ];

    /// Whether every flag of `other` is set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

/// Static gas by fork, oldest first. The first entry is the fork that introduced the operation; each entry holds
/// until the next one.
pub type GasSchedule = &'static [(SpecId, u16)];

/// The byte of an operation in native bytecode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZvmByte {
    /// The byte.
    pub byte: u8,
    /// The first container version that has it: 1 or 2.
    pub version: u8,
}

/// A row of the table: everything there is to know about an operation.
#[derive(Clone, Debug)]
pub struct OpInfo {
    /// The operation.
    pub op: Op,
    /// Its name where the numbering has no other one; see [`OpInfo::mnemonic`].
    pub(super) mnemonic: &'static str,
    /// Its name in native bytecode and ISA 0, where that differs.
    pub(super) native_mnemonic: Option<&'static str>,
    /// Its name in ISA 0, where that differs from the native one.
    pub(super) legacy_mnemonic: Option<&'static str>,
    /// What it does, in one line; a is the top of the stack, b the next.
    pub meaning: &'static str,
    /// Bytes of immediate data after the opcode.
    pub immediate: u8,
    /// Stack items it needs.
    pub inputs: u8,
    /// Stack items it leaves in place of its inputs.
    pub outputs: u8,
    /// Gas charged before it runs, by fork, as the EVM prices it.
    pub gas: GasSchedule,
    /// Gas charged before it runs in native bytecode and ISA 0, where that page gives a number of its own.
    pub native_gas: Option<u16>,
    /// Its effects.
    pub flags: Flags,
    /// Its EVM byte.
    pub evm: Option<u8>,
    /// Its byte in native bytecode.
    pub zvm: Option<ZvmByte>,
    /// Its byte in ISA 0.
    pub legacy: Option<u8>,
}

impl OpInfo {
    /// The byte that encodes the operation in `isa`.
    pub const fn byte(&self, isa: Isa) -> Option<u8> {
        match (isa, self.zvm) {
            (Isa::Evm, _) => self.evm,
            (Isa::Zvm0, _) => self.legacy,
            (Isa::Zvm1, Some(ZvmByte { byte, version: 1 }))
            | (Isa::Zvm2, Some(ZvmByte { byte, .. })) => Some(byte),
            (Isa::Zvm1 | Isa::Zvm2, _) => None,
        }
    }

    /// The operation's name in `isa`.
    pub const fn mnemonic(&self, isa: Isa) -> &'static str {
        match (isa, self.native_mnemonic, self.legacy_mnemonic) {
            (Isa::Zvm0, _, Some(name)) => name,
            (Isa::Zvm0 | Isa::Zvm1 | Isa::Zvm2, Some(name), _) => name,
            _ => self.mnemonic,
        }
    }

    /// The fork that introduced the operation. It holds for native bytecode too, which follows the EVM rule of the
    /// active fork; operations the EVM does not have are there from the first fork on.
    pub const fn introduced(&self) -> SpecId {
        self.gas[0].0
    }

    /// Whether the operation exists in `spec`; before that it is not activated.
    #[inline]
    pub const fn active(&self, spec: SpecId) -> bool {
        spec.is_enabled_in(self.introduced())
    }

    /// Gas charged before the operation runs, `None` where `spec` does not have it. What depends on operands or
    /// state comes on top ([`Flags::DYNAMIC_GAS`]); SSTORE, CREATE and the like are dynamic throughout.
    pub const fn static_gas(&self, isa: Isa, spec: SpecId) -> Option<u16> {
        if !self.active(spec) {
            return None;
        }
        if let (Isa::Zvm0 | Isa::Zvm1 | Isa::Zvm2, Some(gas)) = (isa, self.native_gas) {
            return Some(gas);
        }
        let mut i = self.gas.len();
        while i > 0 {
            i -= 1;
            if spec.is_enabled_in(self.gas[i].0) {
                return Some(self.gas[i].1);
            }
        }
        None
    }

    /// Whether every flag of `flags` is set.
    #[inline]
    pub const fn has(&self, flags: Flags) -> bool {
        self.flags.contains(flags)
    }

    /// Whether the bytes after the opcode are data for the jump-destination analysis.
    ///
    /// The immediates of EIP-8024 are not: they avoid the byte of JUMPDEST instead, so that the analysis of code
    /// deployed earlier stays what it was.
    pub const fn hides_immediate(&self) -> bool {
        self.immediate > 0 && !matches!(self.op, Op::DupN | Op::SwapN | Op::Exchange)
    }

    /// Whether `first` may start the immediate. Only EIP-8024 forbids some bytes; with one of them the instruction
    /// is invalid and the byte is decoded as an opcode.
    pub const fn accepts_immediate(&self, first: u8) -> bool {
        match self.op {
            Op::DupN | Op::SwapN => first <= 90 || first >= 128,
            Op::Exchange => first <= 81 || first >= 128,
            _ => true,
        }
    }
}
