//! What bytecode means: the opcode table, EVM execution on revm-interpreter, bytecode formats and traces.

pub mod container;
pub mod detect;
pub mod evm;
pub mod isa;
pub mod trace;

/// The interpreter's family, for the types of transactions, blocks and results.
pub use revm;
