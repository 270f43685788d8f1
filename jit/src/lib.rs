//! Bytecode to native code: decode → blocks → words → Cranelift → code memory.

pub mod abi;
pub mod code;
pub mod ir;
mod lower;
pub mod pure;
pub mod run;
pub mod tier;
pub mod unit;
mod words;
