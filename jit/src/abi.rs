//! What native code and the engine agree on: the frame, the exits, the calls back.
//!
//! Native code is `extern "C" fn(frame, sp, gas, entry) -> exit`:
//!
//! | value | meaning |
//! |---|---|
//! | `frame` | the [`NativeFrame`] |
//! | `sp` | address just above the top of the EVM stack, which grows upwards, 32 bytes a word, limbs little-endian |
//! | `gas` | gas left, below 2^63 |
//! | `entry` | index of the entry to start with |
//! | exit | [`LEAVE`]: `pc`, `sp` and `gas` of the frame say where the interpreter goes on; [`DONE`]: the interpreter has its action |
//!
//! The stack and the memory are the interpreter's own, so that leaving copies nothing. Whatever native code calls it
//! finds in the frame: the code itself holds no address, and can be stored and loaded anywhere.

use core::mem::offset_of;

use alloy_primitives::U256;

/// Exit: the interpreter goes on at `pc`.
pub const LEAVE: i64 = 0;
/// Exit: the frame has ended or waits for a call; the interpreter's action says which.
pub const DONE: i64 = 1;

/// Bytes of the longest code: [`NativeFrame::pc`] has the reason above them when native code leaves.
pub const MAX_CODE: usize = (1 << REASON) - 1;
/// Where the reason begins in [`NativeFrame::pc`], in bits: both fit into one immediate operand.
pub const REASON: u32 = 28;

/// Why native code leaves to the interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Leave {
    /// A jump to a JUMPDEST that has no entry. What a computed jump leaves with, which knows its target alone.
    Jump,
    /// A region that the stack is too low or too high for.
    Stack,
    /// A loop entered from outside with other words, or less memory, than it takes for granted.
    Loop,
    /// A word in a loop got wider than it was taken to be.
    Width,
    /// An instruction that is not compiled, or not active under the fork.
    Opcode,
}

/// Number of [`Leave`]s.
pub const LEAVES: usize = 5;

impl Leave {
    /// All of them, in order of their numbers.
    pub const ALL: [Self; LEAVES] = [
        Self::Jump,
        Self::Stack,
        Self::Loop,
        Self::Width,
        Self::Opcode,
    ];

    /// What native code writes where it leaves at `pc`.
    pub const fn at(self, pc: usize) -> u64 {
        pc as u64 | (self as u64) << REASON
    }

    /// The pc and the reason that native code wrote.
    pub fn read(written: u64) -> (usize, Self) {
        // Nothing else is ever written; a computed jump writes its target alone.
        let reason = Self::ALL.get((written >> REASON) as usize);
        (
            written as usize & MAX_CODE,
            reason.copied().unwrap_or(Self::Jump),
        )
    }
}

/// In a unit's table of entries, by pc: nothing may jump here.
pub const NO_ENTRY: u16 = 0;
/// A JUMPDEST that native code has no entry for.
pub const INTERPRETED: u16 = 0x7fff;
/// Set where the frame may be entered from outside but nothing may jump.
pub const NO_JUMP: u16 = 0x8000;

/// Executes an instruction: frame, stack pointer, gas, pc. Returns the gas left, or a negative number if the frame has
/// ended or waits.
pub type Execute = unsafe extern "C" fn(*mut NativeFrame, *mut U256, u64, u64) -> i64;
/// Makes room in memory: frame, offset, length, gas. Returns as [`Execute`].
pub type Expand = unsafe extern "C" fn(*mut NativeFrame, u64, u64, u64) -> i64;
/// Ends the frame: frame, reason.
pub type Halt = unsafe extern "C" fn(*mut NativeFrame, u64);
/// Writes a word about the call: frame, where to, which ([`Env`]).
pub type Environment = unsafe extern "C" fn(*mut NativeFrame, *mut U256, u64);
/// Writes a word of the call's data: frame, where to, offset.
pub type CallData = unsafe extern "C" fn(*mut NativeFrame, *mut U256, u64);
/// Computes on the words from the given one upwards, the topmost being the first operand; the result goes to the given one.
pub type Compute = unsafe extern "C" fn(*mut U256);

/// The frame as native code sees it.
#[derive(Debug)]
#[repr(C)]
pub struct NativeFrame {
    /// Bottom of the EVM stack.
    pub stack: *mut U256,
    /// Written when native code leaves.
    pub sp: *mut U256,
    /// Written when native code leaves.
    pub gas: u64,
    /// Written when native code leaves: see [`Leave::at`].
    pub pc: u64,
    /// First byte of the frame's memory. Calls back that may move it write it again.
    pub memory: *mut u8,
    /// Bytes of memory, a multiple of 32.
    pub memory_len: u64,
    /// Offsets at which 32 bytes of memory begin: `memory_len` - 31, or 0.
    pub memory_words: u64,
    /// Bytes of the call's data.
    pub calldata_len: u64,
    /// Bytes that the last call returned.
    pub returndata_len: u64,
    /// The unit's table of entries, an item per byte of code.
    pub entries: *const u16,
    /// Guards that fail on purpose: counts down to zero, only in code compiled so.
    pub stress: u64,
    /// See [`Execute`]; by [`Helper`].
    pub execute: [Execute; HELPERS],
    /// See [`Expand`].
    pub expand: Expand,
    /// See [`Halt`].
    pub halt: Halt,
    /// See [`Environment`].
    pub environment: Environment,
    /// See [`CallData`].
    pub calldata: CallData,
    /// See [`Compute`]; by [`Pure`].
    pub pure: [Compute; PURE],
    /// The engine's own context of the calls back.
    pub host: *mut core::ffi::c_void,
    /// Instructions executed, only in code compiled so. One that fails, or that the frame ends or waits at, is one.
    pub executed: u64,
    /// How many of [`NativeFrame::executed`] were executed by a call back ([`Execute`]).
    pub called: u64,
}

/// Why native code ends a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Halted {
    /// Static gas.
    OutOfGas,
    /// A jump to where none may go.
    InvalidJump,
}

/// Number of [`Helper`]s.
pub const HELPERS: usize = 3;

/// Who executes an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Helper {
    /// The interpreter's own function, whatever the instruction.
    Step,
    /// SLOAD.
    SLoad,
    /// KECCAK256.
    Keccak256,
}

/// Words about the call and the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the EVM's names")]
#[repr(u64)]
pub enum Env {
    Address,
    Caller,
    CallValue,
}

/// Numbers in the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the EVM's names")]
pub enum Field {
    MSize,
    CallDataSize,
    ReturnDataSize,
}

/// Number of [`Pure`] operations.
pub const PURE: usize = 13;

/// Operations that native code leaves to Rust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(usize)]
pub enum Pure {
    /// a / b
    Div,
    /// Signed a / b
    SDiv,
    /// a % b
    Mod,
    /// Signed a % b
    SMod,
    /// (a + b) % c
    AddMod,
    /// (a * b) % c
    MulMod,
    /// b << a
    Shl,
    /// b >> a
    Shr,
    /// Signed b >> a
    Sar,
    /// Byte a of b
    Byte,
    /// b with the sign of its byte a extended
    SignExtend,
    /// Leading zero bits of a
    Clz,
    /// a * b
    Mul,
}

impl Pure {
    /// How many words it takes.
    pub const fn operands(self) -> usize {
        match self {
            Self::AddMod | Self::MulMod => 3,
            Self::Clz => 1,
            _ => 2,
        }
    }
}

/// Offsets of the fields in bytes, for loads and stores.
pub mod offset {
    use super::*;

    /// [`NativeFrame::stack`]
    pub const STACK: i32 = offset_of!(NativeFrame, stack) as i32;
    /// [`NativeFrame::sp`]
    pub const SP: i32 = offset_of!(NativeFrame, sp) as i32;
    /// [`NativeFrame::gas`]
    pub const GAS: i32 = offset_of!(NativeFrame, gas) as i32;
    /// [`NativeFrame::pc`]
    pub const PC: i32 = offset_of!(NativeFrame, pc) as i32;
    /// [`NativeFrame::memory`]
    pub const MEMORY: i32 = offset_of!(NativeFrame, memory) as i32;
    /// [`NativeFrame::memory_len`]
    pub const MEMORY_LEN: i32 = offset_of!(NativeFrame, memory_len) as i32;
    /// [`NativeFrame::memory_words`]
    pub const MEMORY_WORDS: i32 = offset_of!(NativeFrame, memory_words) as i32;
    /// [`NativeFrame::entries`]
    pub const ENTRIES: i32 = offset_of!(NativeFrame, entries) as i32;
    /// [`NativeFrame::stress`]
    pub const STRESS: i32 = offset_of!(NativeFrame, stress) as i32;
    /// [`NativeFrame::executed`]
    pub const EXECUTED: i32 = offset_of!(NativeFrame, executed) as i32;
    /// [`NativeFrame::called`]
    pub const CALLED: i32 = offset_of!(NativeFrame, called) as i32;
    /// [`NativeFrame::expand`]
    pub const EXPAND: i32 = offset_of!(NativeFrame, expand) as i32;
    /// [`NativeFrame::halt`]
    pub const HALT: i32 = offset_of!(NativeFrame, halt) as i32;
    /// [`NativeFrame::environment`]
    pub const ENVIRONMENT: i32 = offset_of!(NativeFrame, environment) as i32;
    /// [`NativeFrame::calldata`]
    pub const CALLDATA: i32 = offset_of!(NativeFrame, calldata) as i32;

    /// A field's number.
    pub const fn field(field: Field) -> i32 {
        match field {
            Field::MSize => MEMORY_LEN,
            Field::CallDataSize => offset_of!(NativeFrame, calldata_len) as i32,
            Field::ReturnDataSize => offset_of!(NativeFrame, returndata_len) as i32,
        }
    }

    /// Who executes an instruction.
    pub const fn execute(helper: Helper) -> i32 {
        (offset_of!(NativeFrame, execute) + 8 * helper as usize) as i32
    }

    /// The function of a pure operation.
    pub const fn pure(pure: Pure) -> i32 {
        (offset_of!(NativeFrame, pure) + 8 * pure as usize) as i32
    }
}

/// The type of native code.
pub type Entry = unsafe extern "C" fn(*mut NativeFrame, *mut U256, u64, u64) -> i64;
