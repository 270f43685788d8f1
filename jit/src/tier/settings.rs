//! What may be chosen.

use crate::compiler::Level;

/// How much the tiers may use, and when they act. Results never depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Gas that a code must burn in the interpreter to be compiled, whatever its size. `None`: by the rule of
    /// [`super::policy`].
    pub threshold: Option<u64>,
    /// Threads that compile. With none, code is compiled in place by the thread that finds it hot: nothing then depends
    /// on time, which is for tests.
    pub threads: usize,
    /// Compilations that may wait. The least valuable is dropped.
    pub queue: usize,
    /// Bytes of native code and its tables.
    pub memory: usize,
    /// Codes compiled at the same time.
    pub units: usize,
    /// Codes whose gas is counted, with those refused and compiled; each takes some 300 bytes.
    pub profiles: usize,
    /// Instructions that the interpreter executes in one frame before it looks whether there is native code by now.
    pub slice: u32,
    /// Compiles every code at this level before its first instruction, in place; initcode, too.
    pub eager: Option<Level>,
    /// Compiles again, better, what goes on burning gas.
    pub full: bool,
    /// Counts the instructions that native code and the interpreter execute, each by what made it so. Native code is
    /// slower by that, and is neither stored nor taken from a store.
    pub count: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            threshold: None,
            threads: 1,
            queue: DEFAULT_QUEUE,
            memory: DEFAULT_MEMORY,
            units: 8_192,
            profiles: 32_768,
            slice: 1_024,
            eager: None,
            full: true,
            count: false,
        }
    }
}

impl Settings {
    /// These, but every code is compiled at `level` before its first instruction, also initcode, which otherwise never is.
    #[must_use]
    pub fn eager(self, level: Level) -> Self {
        Self {
            eager: Some(level),
            threads: 0,
            full: false,
            ..self
        }
    }
}

/// [`Settings::queue`]
pub const DEFAULT_QUEUE: usize = 1_024;
/// [`Settings::memory`]
pub const DEFAULT_MEMORY: usize = 256 << 20;
