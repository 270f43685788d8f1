//! Where units come from.

use zvm_runtimes::revm::primitives::hardfork::SpecId;

use super::record::Key;
use crate::compiler::{Compiler, Level, Refused};
use crate::disk::{self, DiskCache};
use crate::memory::CodeMemory;
use crate::perf;
use crate::unit::Unit;

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

/// The compiler, the memory its code goes to, and the store that may have the code already.
#[derive(Debug)]
pub struct Native {
    compiler: Compiler,
    memory: CodeMemory,
    store: Option<DiskCache>,
}

impl Native {
    /// Native code of at most `memory` bytes; what is compiled is kept in `store` and looked for there first.
    pub fn new(compiler: Compiler, memory: usize, store: Option<DiskCache>) -> Self {
        Self {
            compiler,
            memory: CodeMemory::new(memory),
            store,
        }
    }
}

impl Source for Native {
    fn make(&self, request: &Request<'_>) -> Result<Unit, Refused> {
        let key = disk::Key {
            code_hash: request.key.hash,
            spec: request.spec(),
            level: request.level,
        };
        let stored = self.store.as_ref().and_then(|store| store.get(&key));
        let image = match stored {
            Some(image) => image,
            None => {
                let image = self
                    .compiler
                    .compile(request.code, request.spec(), request.level)?;
                if let Some(store) = &self.store {
                    store.put(&key, &image);
                }
                image
            }
        };
        let unit = Unit::load(image, &self.memory)
            .map_err(|error| Refused::Memory(error.to_string()))?;
        perf::register(&unit, &request.key.hash);
        Ok(unit)
    }
}
