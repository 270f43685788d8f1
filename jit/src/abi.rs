//! What native code and the engine agree on: the frame, the exits, the calls back.
//!
//! Native code is `extern "C" fn(frame, sp, gas, entry) -> exit`:
//!
//! | value | meaning |
//! |---|---|
//! | `frame` | the [`NativeFrame`] |
//! | `sp` | address just above the top of the EVM stack, which grows upwards, 32 bytes a word, limbs little-endian |
//! | `gas` | gas left |
//! | `entry` | index of the block to start with |
//! | exit | [`LEAVE`]: `pc`, `sp` and `gas` of the frame say where the interpreter goes on; [`DONE`]: the interpreter has its action |
//!
//! The stack and the memory are the interpreter's own, so that leaving copies nothing.

use core::mem::offset_of;

use alloy_primitives::U256;

/// Exit: the interpreter goes on at `pc`.
pub const LEAVE: i64 = 0;
/// Exit: the frame has ended or waits for a call; the interpreter's action says which.
pub const DONE: i64 = 1;

/// The frame as native code sees it.
#[derive(Debug)]
#[repr(C)]
pub struct NativeFrame {
    /// Bottom of the EVM stack.
    pub stack: *mut U256,
    /// Written before every call back and exit.
    pub sp: *mut U256,
    /// Written before every call back and exit; calls back leave what is left.
    pub gas: u64,
    /// Written before every call back and exit.
    pub pc: u64,
    /// First byte of the frame's memory. Calls back that may move it write it again.
    pub memory: *mut u8,
    /// Bytes of memory, a multiple of 32.
    pub memory_len: u64,
    /// For every byte of code, one more than the index of the block that a jump there enters; 0 where none may.
    pub jump_map: *const u32,
    /// Executes the instruction at `pc` by the interpreter's own function. Returns 0 to go on.
    pub step: unsafe extern "C" fn(*mut NativeFrame) -> u64,
    /// Grows the memory to hold `offset..offset + len`. Returns 0 if that is not possible here.
    pub expand: unsafe extern "C" fn(*mut NativeFrame, u64, u64) -> u64,
    /// Pure operations on `words`: operands in order of popping, result in the first.
    pub pure: [unsafe extern "C" fn(*mut [U256; 3]); PURE],
    /// Operands and result of `pure`.
    pub words: [U256; 3],
    /// The engine's own context of the calls back.
    pub host: *mut core::ffi::c_void,
}

/// Number of [`Pure`] operations.
pub const PURE: usize = 12;

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
    /// [`NativeFrame::jump_map`]
    pub const JUMP_MAP: i32 = offset_of!(NativeFrame, jump_map) as i32;
    /// [`NativeFrame::step`]
    pub const STEP: i32 = offset_of!(NativeFrame, step) as i32;
    /// [`NativeFrame::expand`]
    pub const EXPAND: i32 = offset_of!(NativeFrame, expand) as i32;
    /// [`NativeFrame::words`]
    pub const WORDS: i32 = offset_of!(NativeFrame, words) as i32;

    /// The function of a pure operation.
    pub const fn pure(pure: Pure) -> i32 {
        (offset_of!(NativeFrame, pure) + 8 * pure as usize) as i32
    }
}

/// The type of native code.
pub type Entry = unsafe extern "C" fn(*mut NativeFrame, *mut U256, u64, u64) -> i64;
