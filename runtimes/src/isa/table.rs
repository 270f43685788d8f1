//! The table: one row per operation, for every numbering.
//!
//! Static gas follows the yellow paper and, per fork, EIP-150, EIP-1884, EIP-2929 and EIP-8038. Constantinople never
//! ran without the fix of Petersburg, so its opcodes start there.

use super::{
    Isa,
    op::{Flags, GasSchedule, Op, OpInfo, ZvmByte},
};
use revm::primitives::hardfork::SpecId::{
    AMSTERDAM, BERLIN, BYZANTIUM, CANCUN, FRONTIER, HOMESTEAD, ISTANBUL, LONDON, OSAKA, PETERSBURG,
    SHANGHAI, TANGERINE,
};

const ZERO: GasSchedule = &[(FRONTIER, 0)];
const BASE: GasSchedule = &[(FRONTIER, 2)];
const VERY_LOW: GasSchedule = &[(FRONTIER, 3)];
const LOW: GasSchedule = &[(FRONTIER, 5)];
const MID: GasSchedule = &[(FRONTIER, 8)];
const CALL: GasSchedule = &[(FRONTIER, 40), (TANGERINE, 700), (BERLIN, 100)];
const LOG: GasSchedule = &[(FRONTIER, 375)];

const HASHES: Flags = Flags::MEMORY.union(Flags::DYNAMIC_GAS);
const COPIES: Flags = Flags::MEMORY.union(Flags::DYNAMIC_GAS);
const ACCOUNT: Flags = Flags::HOST.union(Flags::DYNAMIC_GAS);
const CALLS: Flags = Flags::HOST
    .union(Flags::MEMORY)
    .union(Flags::DYNAMIC_GAS)
    .union(Flags::READS_GAS)
    .union(Flags::SUSPENDS);
const CREATES: Flags = CALLS.union(Flags::WRITES_STATE);
const LOGS: Flags = Flags::HOST
    .union(Flags::MEMORY)
    .union(Flags::DYNAMIC_GAS)
    .union(Flags::WRITES_STATE);

/// A row without a byte in any numbering; the methods below add them.
const fn row(
    op: Op,
    mnemonic: &'static str,
    inputs: u8,
    outputs: u8,
    gas: GasSchedule,
    meaning: &'static str,
) -> OpInfo {
    OpInfo {
        op,
        mnemonic,
        native_mnemonic: None,
        legacy_mnemonic: None,
        meaning,
        immediate: 0,
        inputs,
        outputs,
        gas,
        native_gas: None,
        flags: Flags::NONE,
        evm: None,
        zvm: None,
        legacy: None,
    }
}

impl OpInfo {
    const fn evm(mut self, byte: u8) -> Self {
        self.evm = Some(byte);
        self
    }

    const fn zvm(mut self, byte: u8) -> Self {
        self.zvm = Some(ZvmByte { byte, version: 1 });
        self
    }

    const fn zvm2(mut self, byte: u8) -> Self {
        self.zvm = Some(ZvmByte { byte, version: 2 });
        self
    }

    const fn legacy(mut self, byte: u8) -> Self {
        self.legacy = Some(byte);
        self
    }

    const fn with(mut self, flags: Flags) -> Self {
        self.flags = self.flags.union(flags);
        self
    }

    const fn immediate(mut self, size: u8) -> Self {
        self.immediate = size;
        self
    }

    const fn native_gas(mut self, gas: u16) -> Self {
        self.native_gas = Some(gas);
        self
    }

    const fn native_name(mut self, name: &'static str) -> Self {
        self.native_mnemonic = Some(name);
        self
    }

    const fn legacy_name(mut self, name: &'static str) -> Self {
        self.legacy_mnemonic = Some(name);
        self
    }
}

const fn push(size: u8, mnemonic: &'static str) -> OpInfo {
    row(
        Op::Push(size),
        mnemonic,
        0,
        1,
        VERY_LOW,
        "push the immediate, big-endian",
    )
    .immediate(size)
    .evm(0x5f + size)
}

const fn dup(n: u8, mnemonic: &'static str) -> OpInfo {
    row(
        Op::Dup(n),
        mnemonic,
        n,
        n + 1,
        VERY_LOW,
        "push a copy of the n-th item",
    )
    .evm(0x7f + n)
}

const fn swap(n: u8, mnemonic: &'static str) -> OpInfo {
    row(
        Op::Swap(n),
        mnemonic,
        n + 1,
        n + 1,
        VERY_LOW,
        "exchange a with the item n below it",
    )
    .evm(0x8f + n)
}

const fn log(topics: u8, mnemonic: &'static str) -> OpInfo {
    row(
        Op::Log(topics),
        mnemonic,
        topics + 2,
        0,
        LOG,
        "log memory [a, a + b) with the topics c, d, …",
    )
    .evm(0xa0 + topics)
    .zvm(0xf8 + topics)
    .with(LOGS)
}

/// Every operation of every numbering, in the order of the EVM's bytes, then what only native bytecode has.
#[rustfmt::skip] // One row a line keeps the table readable as a table.
pub static TABLE: [OpInfo; 166] = [
    row(Op::Stop, "STOP", 0, 0, ZERO, "end the frame without output").evm(0x00).zvm(0x00).legacy(0x63).native_name("HALT").with(Flags::TERMINATES),
    row(Op::Add, "ADD", 2, 1, VERY_LOW, "a + b").evm(0x01).zvm(0x30).legacy(0x10),
    row(Op::Mul, "MUL", 2, 1, LOW, "a × b").evm(0x02).zvm(0x32).legacy(0x12),
    row(Op::Sub, "SUB", 2, 1, VERY_LOW, "a − b").evm(0x03).zvm(0x31).legacy(0x11),
    row(Op::Div, "DIV", 2, 1, LOW, "a ÷ b, 0 if b is 0").evm(0x04).zvm(0x33).legacy(0x13),
    row(Op::SDiv, "SDIV", 2, 1, LOW, "a ÷ b signed, 0 if b is 0").evm(0x05).zvm(0x34),
    row(Op::Mod, "MOD", 2, 1, LOW, "a mod b, 0 if b is 0").evm(0x06).zvm(0x35).legacy(0x14),
    row(Op::SMod, "SMOD", 2, 1, LOW, "a mod b signed, 0 if b is 0").evm(0x07).zvm(0x36),
    row(Op::AddMod, "ADDMOD", 3, 1, MID, "(a + b) mod c without overflow").evm(0x08).zvm(0x37),
    row(Op::MulMod, "MULMOD", 3, 1, MID, "(a × b) mod c without overflow").evm(0x09).zvm(0x38),
    row(Op::Exp, "EXP", 2, 1, &[(FRONTIER, 10)], "a to the power of b").evm(0x0a).zvm(0x39).with(Flags::DYNAMIC_GAS),
    row(Op::SignExtend, "SIGNEXTEND", 2, 1, LOW, "extend the sign of b from byte a").evm(0x0b).zvm(0x3a),

    row(Op::Lt, "LT", 2, 1, VERY_LOW, "a < b").evm(0x10).zvm(0x50).legacy(0x20),
    row(Op::Gt, "GT", 2, 1, VERY_LOW, "a > b").evm(0x11).zvm(0x51).legacy(0x21),
    row(Op::SLt, "SLT", 2, 1, VERY_LOW, "a < b signed").evm(0x12).zvm(0x52),
    row(Op::SGt, "SGT", 2, 1, VERY_LOW, "a > b signed").evm(0x13).zvm(0x53),
    row(Op::Eq, "EQ", 2, 1, VERY_LOW, "a = b").evm(0x14).zvm(0x54).legacy(0x22),
    row(Op::IsZero, "ISZERO", 1, 1, VERY_LOW, "a = 0").evm(0x15).zvm(0x55),
    row(Op::And, "AND", 2, 1, VERY_LOW, "bitwise and").evm(0x16).zvm(0x56).legacy(0x24),
    row(Op::Or, "OR", 2, 1, VERY_LOW, "bitwise or").evm(0x17).zvm(0x57).legacy(0x25),
    row(Op::Xor, "XOR", 2, 1, VERY_LOW, "bitwise exclusive or").evm(0x18).zvm(0x58).legacy(0x26),
    row(Op::Not, "NOT", 1, 1, VERY_LOW, "bitwise complement").evm(0x19).zvm(0x59).legacy(0x23),
    row(Op::Byte, "BYTE", 2, 1, VERY_LOW, "byte a of b, from the most significant").evm(0x1a).zvm(0x5a),
    row(Op::Shl, "SHL", 2, 1, &[(PETERSBURG, 3)], "b shifted left by a bits").evm(0x1b).zvm(0x5b).native_gas(8),
    row(Op::Shr, "SHR", 2, 1, &[(PETERSBURG, 3)], "b shifted right by a bits").evm(0x1c).zvm(0x5c).native_gas(8),
    row(Op::Sar, "SAR", 2, 1, &[(PETERSBURG, 3)], "b shifted right by a bits, signed").evm(0x1d).zvm(0x5d).native_gas(8),
    row(Op::Clz, "CLZ", 1, 1, &[(OSAKA, 5)], "leading zero bits of a (EIP-7939)").evm(0x1e),

    row(Op::Keccak256, "KECCAK256", 2, 1, &[(FRONTIER, 30)], "keccak256 of memory [a, a + b)").evm(0x20).zvm(0x70).legacy(0x80).with(HASHES),

    row(Op::Address, "ADDRESS", 0, 1, BASE, "address of the executing account").evm(0x30).zvm(0xb0),
    row(Op::Balance, "BALANCE", 1, 1, &[(FRONTIER, 20), (TANGERINE, 400), (ISTANBUL, 700), (BERLIN, 100)], "balance of account a, in wei").evm(0x31).zvm(0xb1).with(ACCOUNT),
    row(Op::Origin, "ORIGIN", 0, 1, BASE, "sender of the transaction").evm(0x32).zvm(0xb2).with(Flags::HOST),
    row(Op::Caller, "CALLER", 0, 1, BASE, "address of the caller").evm(0x33).zvm(0xb3).legacy(0x70),
    row(Op::CallValue, "CALLVALUE", 0, 1, BASE, "value sent with the call, in wei").evm(0x34).zvm(0xb4).legacy(0x71),
    row(Op::CallDataLoad, "CALLDATALOAD", 1, 1, VERY_LOW, "32 bytes of call data at a, zero-padded").evm(0x35).zvm(0xb5).legacy(0x72),
    row(Op::CallDataSize, "CALLDATASIZE", 0, 1, BASE, "size of the call data, in bytes").evm(0x36).zvm(0xb6).legacy(0x73),
    row(Op::CallDataCopy, "CALLDATACOPY", 3, 0, VERY_LOW, "copy c bytes of call data at b to memory at a").evm(0x37).zvm(0xb7).with(COPIES),
    row(Op::CodeSize, "CODESIZE", 0, 1, BASE, "size of the executing code, in bytes").evm(0x38).zvm(0xb8),
    row(Op::CodeCopy, "CODECOPY", 3, 0, VERY_LOW, "copy c bytes of the executing code at b to memory at a").evm(0x39).zvm(0xb9).with(COPIES),
    row(Op::GasPrice, "GASPRICE", 0, 1, BASE, "effective gas price, in wei").evm(0x3a).zvm(0xba).with(Flags::HOST),
    row(Op::ExtCodeSize, "EXTCODESIZE", 1, 1, &[(FRONTIER, 20), (TANGERINE, 700), (BERLIN, 100), (AMSTERDAM, 200)], "size of the code of account a, in bytes").evm(0x3b).zvm(0xbb).with(ACCOUNT),
    row(Op::ExtCodeCopy, "EXTCODECOPY", 4, 0, &[(FRONTIER, 20), (TANGERINE, 700), (BERLIN, 100), (AMSTERDAM, 200)], "copy d bytes of the code of account a at c to memory at b").evm(0x3c).zvm(0xbc).with(ACCOUNT.union(Flags::MEMORY)),
    row(Op::ReturnDataSize, "RETURNDATASIZE", 0, 1, &[(BYZANTIUM, 2)], "size of the last call's output, in bytes (EIP-211)").evm(0x3d).zvm(0xbd),
    row(Op::ReturnDataCopy, "RETURNDATACOPY", 3, 0, &[(BYZANTIUM, 3)], "copy c bytes of the last call's output at b to memory at a (EIP-211)").evm(0x3e).zvm(0xbe).with(COPIES),
    row(Op::ExtCodeHash, "EXTCODEHASH", 1, 1, &[(PETERSBURG, 400), (ISTANBUL, 700), (BERLIN, 100)], "hash of the code of account a (EIP-1052)").evm(0x3f).zvm(0xbf).with(ACCOUNT),

    row(Op::BlockHash, "BLOCKHASH", 1, 1, &[(FRONTIER, 20)], "hash of block a, 0 if not among the last 256").evm(0x40).zvm(0xc0).with(Flags::HOST),
    row(Op::Coinbase, "COINBASE", 0, 1, BASE, "fee recipient of the block").evm(0x41).zvm(0xc1).with(Flags::HOST),
    row(Op::Timestamp, "TIMESTAMP", 0, 1, BASE, "time of the block, in seconds since 1970").evm(0x42).zvm(0xc2).with(Flags::HOST),
    row(Op::Number, "NUMBER", 0, 1, BASE, "number of the block").evm(0x43).zvm(0xc3).with(Flags::HOST),
    row(Op::Difficulty, "DIFFICULTY", 0, 1, BASE, "difficulty of the block; from the Merge on its RANDAO mix (EIP-4399), in native bytecode always").evm(0x44).zvm(0xc4).with(Flags::HOST),
    row(Op::GasLimit, "GASLIMIT", 0, 1, BASE, "gas limit of the block").evm(0x45).zvm(0xc6).with(Flags::HOST),
    row(Op::ChainId, "CHAINID", 0, 1, &[(ISTANBUL, 2)], "chain id (EIP-1344)").evm(0x46).zvm(0xc7).with(Flags::HOST),
    row(Op::SelfBalance, "SELFBALANCE", 0, 1, &[(ISTANBUL, 5)], "balance of the executing account, in wei (EIP-1884)").evm(0x47).zvm(0xc8).with(Flags::HOST),
    row(Op::BaseFee, "BASEFEE", 0, 1, &[(LONDON, 2)], "base fee of the block, in wei (EIP-3198)").evm(0x48).zvm(0xc9).with(Flags::HOST),
    row(Op::BlobHash, "BLOBHASH", 1, 1, &[(CANCUN, 3)], "versioned hash of the transaction's blob a (EIP-4844)").evm(0x49).zvm2(0xca).with(Flags::HOST),
    row(Op::BlobBaseFee, "BLOBBASEFEE", 0, 1, &[(CANCUN, 2)], "blob base fee of the block, in wei (EIP-7516)").evm(0x4a).zvm2(0xcb).with(Flags::HOST),
    row(Op::SlotNum, "SLOTNUM", 0, 1, &[(AMSTERDAM, 2)], "consensus slot of the block (EIP-7843)").evm(0x4b).with(Flags::HOST),

    row(Op::Pop, "POP", 1, 0, BASE, "drop a").evm(0x50).zvm(0x10).legacy(0x05),
    row(Op::MLoad, "MLOAD", 1, 1, VERY_LOW, "32 bytes of memory at a").evm(0x51).zvm(0x80).legacy(0x30).with(Flags::MEMORY.union(Flags::DYNAMIC_GAS)),
    row(Op::MStore, "MSTORE", 2, 0, VERY_LOW, "store b to memory at a, 32 bytes").evm(0x52).zvm(0x81).legacy(0x31).with(Flags::MEMORY.union(Flags::DYNAMIC_GAS)),
    row(Op::MStore8, "MSTORE8", 2, 0, VERY_LOW, "store the low byte of b to memory at a").evm(0x53).zvm(0x82).with(Flags::MEMORY.union(Flags::DYNAMIC_GAS)),
    row(Op::SLoad, "SLOAD", 1, 1, &[(FRONTIER, 50), (TANGERINE, 200), (ISTANBUL, 800), (BERLIN, 100)], "storage slot a").evm(0x54).zvm(0x90).legacy(0x40).with(ACCOUNT),
    row(Op::SStore, "SSTORE", 2, 0, ZERO, "store b to storage slot a").evm(0x55).zvm(0x91).legacy(0x41).with(ACCOUNT.union(Flags::WRITES_STATE).union(Flags::READS_GAS)),
    row(Op::Jump, "JUMP", 1, 0, MID, "continue at a, which must be a JUMPDEST").evm(0x56).zvm(0xa0).legacy(0x50).with(Flags::JUMPS),
    row(Op::JumpI, "JUMPI", 2, 0, &[(FRONTIER, 10)], "continue at a if b is not 0").evm(0x57).zvm(0xa1).legacy(0x51).with(Flags::JUMPS),
    row(Op::Pc, "PC", 0, 1, BASE, "offset of this instruction").evm(0x58).zvm(0xa2).native_gas(3),
    row(Op::MSize, "MSIZE", 0, 1, BASE, "size of the memory, in bytes").evm(0x59).zvm(0x83).legacy(0x32).native_gas(3),
    row(Op::Gas, "GAS", 0, 1, BASE, "gas left after this instruction").evm(0x5a).zvm2(0xad).with(Flags::READS_GAS),
    row(Op::JumpDest, "JUMPDEST", 0, 0, &[(FRONTIER, 1)], "a jump may land here").evm(0x5b).zvm(0xa3).legacy(0x52),
    row(Op::TLoad, "TLOAD", 1, 1, &[(CANCUN, 100)], "transient storage slot a (EIP-1153)").evm(0x5c).zvm(0x92).with(Flags::HOST),
    row(Op::TStore, "TSTORE", 2, 0, &[(CANCUN, 100)], "store b to transient storage slot a (EIP-1153)").evm(0x5d).zvm(0x93).with(Flags::HOST.union(Flags::WRITES_STATE)),
    row(Op::MCopy, "MCOPY", 3, 0, &[(CANCUN, 3)], "copy c bytes of memory at b to memory at a (EIP-5656)").evm(0x5e).zvm2(0x84).with(COPIES),

    row(Op::Push(0), "PUSH0", 0, 1, &[(SHANGHAI, 2)], "push 0 (EIP-3855)").evm(0x5f).zvm2(0x21),
    push(1, "PUSH1").zvm(0x11).legacy(0x01),
    push(2, "PUSH2").zvm(0x12).legacy(0x02),
    push(3, "PUSH3"),
    push(4, "PUSH4").zvm(0x13).legacy(0x03),
    push(5, "PUSH5"),
    push(6, "PUSH6"),
    push(7, "PUSH7"),
    push(8, "PUSH8").zvm(0x14).legacy(0x04),
    push(9, "PUSH9"),
    push(10, "PUSH10"),
    push(11, "PUSH11"),
    push(12, "PUSH12"),
    push(13, "PUSH13"),
    push(14, "PUSH14"),
    push(15, "PUSH15"),
    push(16, "PUSH16").zvm(0x15),
    push(17, "PUSH17"),
    push(18, "PUSH18"),
    push(19, "PUSH19"),
    push(20, "PUSH20"),
    push(21, "PUSH21"),
    push(22, "PUSH22"),
    push(23, "PUSH23"),
    push(24, "PUSH24"),
    push(25, "PUSH25"),
    push(26, "PUSH26"),
    push(27, "PUSH27"),
    push(28, "PUSH28"),
    push(29, "PUSH29"),
    push(30, "PUSH30"),
    push(31, "PUSH31"),
    push(32, "PUSH32").zvm(0x16),

    dup(1, "DUP1").zvm(0x17).legacy(0x06).legacy_name("DUP"),
    dup(2, "DUP2").zvm(0x18),
    dup(3, "DUP3").zvm(0x19),
    dup(4, "DUP4").zvm(0x1a),
    dup(5, "DUP5"),
    dup(6, "DUP6"),
    dup(7, "DUP7"),
    dup(8, "DUP8"),
    dup(9, "DUP9"),
    dup(10, "DUP10"),
    dup(11, "DUP11"),
    dup(12, "DUP12"),
    dup(13, "DUP13"),
    dup(14, "DUP14"),
    dup(15, "DUP15"),
    dup(16, "DUP16"),

    swap(1, "SWAP1").zvm(0x1b).legacy(0x07).legacy_name("SWAP"),
    swap(2, "SWAP2").zvm(0x1c),
    swap(3, "SWAP3").zvm(0x1d),
    swap(4, "SWAP4").zvm(0x1e),
    swap(5, "SWAP5"),
    swap(6, "SWAP6"),
    swap(7, "SWAP7"),
    swap(8, "SWAP8"),
    swap(9, "SWAP9"),
    swap(10, "SWAP10"),
    swap(11, "SWAP11"),
    swap(12, "SWAP12"),
    swap(13, "SWAP13"),
    swap(14, "SWAP14"),
    swap(15, "SWAP15"),
    swap(16, "SWAP16"),

    log(0, "LOG0"),
    log(1, "LOG1"),
    log(2, "LOG2"),
    log(3, "LOG3"),
    log(4, "LOG4"),

    row(Op::DupN, "DUPN", 0, 1, &[(AMSTERDAM, 3)], "push a copy of the item the immediate names (EIP-8024)").evm(0xe6).immediate(1).with(Flags::VARIABLE_STACK),
    row(Op::SwapN, "SWAPN", 0, 0, &[(AMSTERDAM, 3)], "exchange a with the item the immediate names (EIP-8024)").evm(0xe7).immediate(1).with(Flags::VARIABLE_STACK),
    row(Op::Exchange, "EXCHANGE", 0, 0, &[(AMSTERDAM, 3)], "exchange the two items the immediate names (EIP-8024)").evm(0xe8).immediate(1).with(Flags::VARIABLE_STACK),

    row(Op::Create, "CREATE", 3, 1, ZERO, "create a contract with a wei from memory [b, b + c)").evm(0xf0).zvm(0xab).with(CREATES),
    row(Op::Call, "CALL", 7, 1, CALL, "call b with gas a, value c, input [d, d + e), output [f, f + g)").evm(0xf1).zvm(0xa4).legacy(0x60).with(CALLS.union(Flags::WRITES_STATE)),
    row(Op::CallCode, "CALLCODE", 7, 1, CALL, "as CALL, with this account's storage").evm(0xf2).zvm(0xa5).with(CALLS),
    row(Op::Return, "RETURN", 2, 0, ZERO, "end the frame with output memory [a, a + b)").evm(0xf3).zvm(0xa8).legacy(0x61).with(Flags::TERMINATES.union(Flags::MEMORY).union(Flags::DYNAMIC_GAS)),
    row(Op::DelegateCall, "DELEGATECALL", 6, 1, &[(HOMESTEAD, 40), (TANGERINE, 700), (BERLIN, 100)], "as CALLCODE, keeping caller and value (EIP-7)").evm(0xf4).zvm(0xa6).with(CALLS),
    row(Op::Create2, "CREATE2", 4, 1, &[(PETERSBURG, 0)], "as CREATE, at an address that follows from salt d (EIP-1014)").evm(0xf5).zvm(0xac).with(CREATES),
    row(Op::StaticCall, "STATICCALL", 6, 1, &[(BYZANTIUM, 700), (BERLIN, 100)], "as CALL without value, and state cannot change (EIP-214)").evm(0xfa).zvm(0xa7).with(CALLS),
    row(Op::Revert, "REVERT", 2, 0, &[(BYZANTIUM, 0)], "undo the frame with output memory [a, a + b) (EIP-140)").evm(0xfd).zvm(0xa9).legacy(0x62).with(Flags::TERMINATES.union(Flags::MEMORY).union(Flags::DYNAMIC_GAS)),
    row(Op::Invalid, "INVALID", 0, 0, ZERO, "undo the frame and consume its gas (EIP-141)").evm(0xfe).zvm2(0xae).with(Flags::TERMINATES.union(Flags::HALTS)),
    row(Op::SelfDestruct, "SELFDESTRUCT", 1, 0, &[(FRONTIER, 0), (TANGERINE, 5000)], "end the frame, send the balance to a and, within the creating transaction, delete the account (EIP-6780)").evm(0xff).zvm(0xaa).with(Flags::TERMINATES.union(Flags::HOST).union(Flags::DYNAMIC_GAS).union(Flags::WRITES_STATE)),

    row(Op::Nop, "NOP", 0, 0, &[(FRONTIER, 1)], "nothing").zvm(0x01),
    row(Op::DupImm, "DUPN", 0, 1, VERY_LOW, "push a copy of the n-th item, n = immediate + 1").zvm2(0x1f).immediate(1).with(Flags::VARIABLE_STACK),
    row(Op::SwapImm, "SWAPN", 0, 0, VERY_LOW, "exchange a with the item n below it, n = immediate + 1").zvm2(0x20).immediate(1).with(Flags::VARIABLE_STACK),
    row(Op::Sha256, "SHA256", 2, 1, &[(FRONTIER, 60)], "SHA-256 of memory [a, a + b); 12 gas a word more").zvm(0x71).with(HASHES),
    row(Op::Ripemd160, "RIPEMD160", 2, 1, &[(FRONTIER, 600)], "RIPEMD-160 of memory [a, a + b), zero-extended; 120 gas a word more").zvm(0x72).with(HASHES),
    row(Op::Blake2b, "BLAKE2B", 2, 1, &[(FRONTIER, 30)], "BLAKE2b-256 of memory [a, a + b); 6 gas a word more").zvm(0x73).with(HASHES),
    row(Op::PrevRandao, "PREVRANDAO", 0, 1, BASE, "RANDAO mix of the block (EIP-4399)").zvm(0xc5).with(Flags::HOST),
    row(Op::TableHash, "TABLEHASH", 2, 1, &[(FRONTIER, 30)], "keccak256 of slot b and key a, 32 bytes each").zvm(0xd2),
    row(Op::PqVerifyDilithium, "PQ_VERIFY_DILITHIUM", 6, 1, ZERO, "ML-DSA (FIPS 204): key [a, a + b), signature [c, c + d), message [e, e + f); 1 if valid").zvm(0xf0).with(HASHES),
    row(Op::PqVerifySphincs, "PQ_VERIFY_SPHINCS", 6, 1, ZERO, "SLH-DSA (FIPS 205): key [a, a + b), signature [c, c + d), message [e, e + f); 1 if valid").zvm(0xf2).with(HASHES),
    row(Op::EcRecover, "ECRECOVER", 4, 1, &[(FRONTIER, 3000)], "address that signed hash a with v b, r c, s d, 0 if none").legacy(0x81),
    row(Op::Ed25519Verify, "ED25519_VERIFY", 4, 1, ZERO, "Ed25519: message [a, a + b), signature at c, key at d; 1 if valid").legacy(0x82).with(HASHES),
];

/// Bytes of native bytecode that have a name but no operation: they are invalid opcodes.
#[derive(Clone, Copy, Debug)]
pub struct Reserved {
    /// The first byte.
    pub first: u8,
    /// The last byte.
    pub last: u8,
    /// What the bytes are kept for.
    pub name: &'static str,
    /// Why they are invalid.
    pub reason: &'static str,
}

/// The reserved bytes of native bytecode.
pub const RESERVED: [Reserved; 3] = [
    Reserved {
        first: 0xe0,
        last: 0xec,
        name: "token and topic services",
        reason: "services of another chain: invalid opcode unless the host supplies them",
    },
    Reserved {
        first: 0xf1,
        last: 0xf1,
        name: "PQ_VERIFY_FALCON",
        reason: "invalid opcode until the standard is final",
    },
    Reserved {
        first: 0xf3,
        last: 0xf3,
        name: "PQ_KEYGEN",
        reason: "invalid opcode for ever: keys made on a chain are neither secret nor deterministic",
    },
];

/// Marks a byte without an operation in [`INDEX`].
const NO_ROW: u8 = u8::MAX;

/// For each numbering, the row of each byte. A byte given to two operations does not compile.
static INDEX: [[u8; 256]; 4] = [
    index(Isa::Evm),
    index(Isa::Zvm1),
    index(Isa::Zvm2),
    index(Isa::Zvm0),
];

const fn index(isa: Isa) -> [u8; 256] {
    assert!(TABLE.len() < NO_ROW as usize, "row numbers must fit a byte");
    let mut index = [NO_ROW; 256];
    let mut i = 0;
    while i < TABLE.len() {
        if let Some(byte) = TABLE[i].byte(isa) {
            assert!(
                index[byte as usize] == NO_ROW,
                "one byte must not encode two operations"
            );
            index[byte as usize] = i as u8;
        }
        i += 1;
    }
    index
}

/// The row `byte` encodes in `isa`.
#[inline]
pub(super) fn lookup(isa: Isa, byte: u8) -> Option<&'static OpInfo> {
    let numbering = match isa {
        Isa::Evm => 0,
        Isa::Zvm1 => 1,
        Isa::Zvm2 => 2,
        Isa::Zvm0 => 3,
    };
    TABLE.get(usize::from(INDEX[numbering][usize::from(byte)]))
}
