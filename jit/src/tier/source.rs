//! Where units come from.

use zvm_runtimes::revm::primitives::hardfork::SpecId;

use super::record::Key;
use crate::compiler::{Compiler, Level, Options, Refused};
use crate::disk::{self, DiskCache};
use crate::memory::CodeMemory;
use crate::perf;
use crate::profile::Profile;
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
    /// What was seen of the code.
    pub profile: Option<&'r Profile>,
    /// Whether the code is to count what it executes. Such code is not stored.
    pub count: bool,
}

impl Request<'_> {
    /// The fork whose rules hold.
    pub fn spec(&self) -> SpecId {
        self.key.spec
    }
}

/// A unit, and where it came from.
#[derive(Debug)]
pub struct Made {
    /// The unit.
    pub unit: Unit,
    /// Whether it was stored. What that took says nothing of what compiling takes.
    pub stored: bool,
}

/// Makes units. The compiler is one; another may look into a store first and put there what the compiler made.
///
/// Called by background threads at the same time, and by threads that execute if the settings say so.
pub trait Source: Send + Sync + core::fmt::Debug {
    /// Makes the unit of a code.
    ///
    /// # Errors
    /// The code cannot be compiled, now or ever: it is not asked for again. [`Refused::Memory`] alone may go away when
    /// units are given back.
    fn make(&self, request: &Request<'_>) -> Result<Made, Refused>;

    /// Whether the unit is at hand, so that making it costs next to nothing. Called by threads that execute: it must
    /// not wait.
    fn is_stored(&self, _key: &Key, _level: Level) -> bool {
        false
    }
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

fn stored_as(key: &Key, level: Level) -> disk::Key {
    disk::Key {
        code_hash: key.hash,
        spec: key.spec,
        level,
    }
}

impl Source for Native {
    fn is_stored(&self, key: &Key, level: Level) -> bool {
        let store = self.store.as_ref();
        store.is_some_and(|store| store.contains(&stored_as(key, level)))
    }

    fn make(&self, request: &Request<'_>) -> Result<Made, Refused> {
        let key = stored_as(&request.key, request.level);
        let store = self.store.as_ref().filter(|_| !request.count);
        // What is stored has the assumptions that failed.
        let failed = request.profile.is_some_and(Profile::failed);
        let stored = store.filter(|_| !failed).and_then(|store| store.get(&key));
        let was_stored = stored.is_some();
        let image = match stored {
            Some(image) => image,
            None => {
                let options = Options {
                    level: request.level,
                    profile: request.profile,
                    count: request.count,
                };
                let image =
                    self.compiler
                        .compile_with(request.code, request.spec(), options, &mut ())?;
                if let Some(store) = store {
                    store.put(&key, &image);
                }
                image
            }
        };
        let unit =
            Unit::load(image, &self.memory).map_err(|error| Refused::Memory(error.to_string()))?;
        perf::register(&unit, &request.key.hash);
        Ok(Made {
            unit,
            stored: was_stored,
        })
    }
}
