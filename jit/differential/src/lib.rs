//! Random programs that the interpreter and native code must execute alike.
//!
//! [`generate`] makes programs from decisions ([`choices::Choices`]: a seed or a fuzzer's bytes), [`real`] from
//! contracts; [`case`] puts them among accounts and into a transaction; [`compare`] executes a case by the interpreter
//! and by every native tier and compares all that can be seen; [`minimise`] makes what differs small. The tests of
//! `zvm-jit` use a stable sample, the program `soak` as many as one has time for, the fuzz target `jit` what libFuzzer
//! finds.

pub mod asm;
pub mod bombs;
pub mod case;
pub mod choices;
pub mod compare;
pub mod generate;
pub mod minimise;
pub mod property;
pub mod real;
pub mod soak;
pub mod tier;
