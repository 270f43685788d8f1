//! Bytecode to native code: decode → blocks → words → Cranelift → code memory.

pub mod abi;
mod arena;
pub mod build;
pub mod code;
pub mod compiler;
pub mod counts;
pub mod disk;
pub mod explain;
mod extents;
pub mod flow;
mod fold;
pub mod ir;
mod lower;
pub mod memory;
pub mod perf;
pub mod profile;
pub mod pure;
pub mod run;
mod state;
pub mod tier;
pub mod unit;
mod words;
