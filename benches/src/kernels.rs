//! Three loops as EVM code and as the Rust one would write by hand: the bound of what compiling can give.

use core::hint::black_box;

use alloy_primitives::{B256, Bytes, U256, keccak256};
use serde::Serialize;
use zvm_runtimes::isa::{Isa, assemble};

use crate::compute::{ProgramReport, expecting_what_plain_revm_does};
use crate::corpus::Program;
use crate::sample::{Subject, calibrate, median_of, time};
use crate::side::{Plain, Side as _};

/// A loop of which there is an EVM and a Rust version. Both take the number of rounds and return one word.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Name.
    pub name: &'static str,
    rounds: u64,
    /// Assembler text; the word below the counter is the result at `:end`.
    source: &'static str,
    native: fn(u64) -> U256,
}

/// One kernel in every tier beside native Rust.
#[derive(Debug, Clone, Serialize)]
pub struct KernelReport {
    /// Nanoseconds of processor time of the Rust version.
    pub native_ns: f64,
    /// The EVM version.
    #[serde(flatten)]
    pub program: ProgramReport,
}

/// Fibonacci numbers modulo 2²⁵⁶: one addition a round.
const ADD: &str = "
    PUSH0 PUSH1 1                   ; a b
    PUSH0 CALLDATALOAD              ; a b n
:loop JUMPDEST
    DUP1 ISZERO PUSH1 @end JUMPI
    SWAP2                           ; n b a
    DUP2 ADD                        ; n b a+b
    SWAP1 SWAP2                     ; b a+b n
    PUSH1 1 SWAP1 SUB
    PUSH1 @loop JUMP
:end JUMPDEST
    POP POP
    PUSH0 MSTORE PUSH1 32 PUSH0 RETURN";

fn add(rounds: u64) -> U256 {
    let (mut a, mut b) = (U256::ZERO, U256::from(1));
    for _ in 0..rounds {
        (a, b) = (b, a.wrapping_add(b));
    }
    a
}

/// x ← x · M + n, then x ← x + x / (n + D), with M of 256 bits and D of 128: operands of all widths.
const MULTIPLY_DIVIDE: &str = "
    PUSH1 1                         ; x
    PUSH0 CALLDATALOAD              ; x n
:loop JUMPDEST
    DUP1 ISZERO PUSH1 @end JUMPI
    SWAP1                           ; n x
    PUSH32 0x9e3779b97f4a7c15f39cc0605cedc8341082276bf3a27251f86c6a11d0c18e95 MUL
    DUP2 ADD                        ; n x
    DUP2 PUSH16 0xd1342543de82ef95000000000000002d ADD
    DUP2 DIV ADD                    ; n x
    SWAP1                           ; x n
    PUSH1 1 SWAP1 SUB
    PUSH1 @loop JUMP
:end JUMPDEST
    POP
    PUSH0 MSTORE PUSH1 32 PUSH0 RETURN";

fn multiply_divide(rounds: u64) -> U256 {
    let factor = U256::from_be_bytes(alloy_primitives::hex!(
        "9e3779b97f4a7c15f39cc0605cedc8341082276bf3a27251f86c6a11d0c18e95"
    ));
    let divisor = U256::from(0xd134_2543_de82_ef95_0000_0000_0000_002d_u128);
    let mut x = U256::from(1);
    for round in (1..=rounds).rev() {
        let round = U256::from(round);
        x = x.wrapping_mul(factor).wrapping_add(round);
        x = x.wrapping_add(x / round.wrapping_add(divisor));
    }
    x
}

/// h ← keccak256(h).
const KECCAK: &str = "
    PUSH0 CALLDATALOAD              ; n
:loop JUMPDEST
    DUP1 ISZERO PUSH1 @end JUMPI
    PUSH1 32 PUSH0 KECCAK256 PUSH0 MSTORE
    PUSH1 1 SWAP1 SUB
    PUSH1 @loop JUMP
:end JUMPDEST
    PUSH1 32 PUSH0 RETURN";

fn keccak(rounds: u64) -> U256 {
    let mut hash = B256::ZERO;
    for _ in 0..rounds {
        hash = keccak256(hash);
    }
    hash.into()
}

/// The kernels.
pub fn all() -> [Kernel; 3] {
    [
        Kernel {
            name: "kernel_add",
            rounds: 100_000,
            source: ADD,
            native: add,
        },
        Kernel {
            name: "kernel_multiply_divide",
            rounds: 20_000,
            source: MULTIPLY_DIVIDE,
            native: multiply_divide,
        },
        Kernel {
            name: "kernel_keccak",
            rounds: 10_000,
            source: KECCAK,
            native: keccak,
        },
    ]
}

impl Kernel {
    /// The EVM version, expected to return what the Rust version does.
    ///
    /// # Errors
    /// It does not.
    pub fn program(&self) -> Result<Program, String> {
        let code = assemble(Isa::Evm, self.source).map_err(|error| error.to_string())?;
        let calldata = Bytes::from(U256::from(self.rounds).to_be_bytes_vec());
        let mut program =
            expecting_what_plain_revm_does(Program::of_code(self.name, code, calldata))?;
        program.expected.status = "Return".into();
        program.expected.output_len = 32;
        program.expected.output_hash = keccak256(self.native().to_be_bytes::<32>());
        match Plain::new(&program)
            .outcome()?
            .difference(&program.expected)
        {
            None => Ok(program),
            Some(difference) => Err(format!("{}: {difference}", self.name)),
        }
    }

    /// The Rust version.
    pub fn native(&self) -> U256 {
        // The number of rounds must not be known, or the loop could be folded.
        (self.native)(black_box(self.rounds))
    }

    /// Median seconds of the Rust version.
    ///
    /// # Errors
    /// Never; the signature is that of all measurements.
    pub fn native_seconds(&self, repetitions: usize, shortest: f64) -> Result<f64, String> {
        let mut subject = Native(self);
        let runs = calibrate(&mut subject, shortest)?;
        let mut times = Vec::with_capacity(repetitions);
        for _ in 0..repetitions {
            times.push(time(&mut subject, runs)?);
        }
        Ok(median_of(&times, |time| time.cpu))
    }
}

struct Native<'k>(&'k Kernel);

impl Subject for Native<'_> {
    fn run(&mut self) -> Result<(), String> {
        black_box(self.0.native());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_evm_version_of_every_kernel_returns_what_the_rust_version_does() {
        for kernel in all() {
            for rounds in [0, 1, 2, 1000] {
                let kernel = Kernel { rounds, ..kernel };
                kernel.program().unwrap();
            }
        }
        assert_eq!(add(10), U256::from(55));
    }
}
