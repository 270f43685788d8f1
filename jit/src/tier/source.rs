//! Where units come from.

use zvm_runtimes::revm::primitives::hardfork::SpecId;

use super::record::Key;
use crate::unit::{Compiler, Level, Refused, Unit};

/// One code to be made native.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// Which code, under which rules.
    pub key: Key,
    /// The code itself.
    pub code: &'r [u8],
    /// How much to spend.
    pub level: Level,
    /// What the interpreter saw of it.
    pub profile: &'r Profile,
}

impl Request<'_> {
    /// The fork whose rules hold.
    pub fn spec(&self) -> SpecId {
        self.key.spec
    }
}

/// What was seen of a code while it was interpreted. May only change how fast the native code is, never what it does;
/// an empty one is right for every code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// Targets that jumps without a constant before them were seen to take, as (pc of the jump, target), in ascending
    /// order, each once.
    pub jumps: Vec<(u32, u32)>,
}

/// Makes units. The compiler is one; another may look into a store first and put there what the compiler made.
///
/// Called by background threads at the same time, and by threads that execute if the settings say so.
pub trait Source: Send + Sync + core::fmt::Debug {
    /// Makes the unit of a code.
    ///
    /// # Errors
    /// The code cannot be compiled, now or ever: it is not asked for again.
    fn make(&self, request: &Request<'_>) -> Result<Unit, Refused>;
}

impl Source for Compiler {
    fn make(&self, request: &Request<'_>) -> Result<Unit, Refused> {
        self.compile(request.code, request.spec(), request.level)
    }
}
