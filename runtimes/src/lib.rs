//! What bytecode means: the opcode table, EVM execution on revm-interpreter, bytecode formats and traces.
