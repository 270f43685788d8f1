//! The opcode table against revm's own tables, and the derived tools against each other.

mod agreement;
mod reference;
mod round_trip;
