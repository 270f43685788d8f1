//! How code is executed.

use std::sync::Arc;

use clap::ValueEnum;
use zvm_jit::compiler::{Compiler, Level};
use zvm_jit::tier::Eager;
use zvm_runtimes::evm::FrameRunner;

/// How code is executed. Results do not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// By the interpreter.
    #[default]
    Interpreter,
    /// Natively: every code is compiled before its first instruction.
    Jit,
}

/// A tier made ready.
#[derive(Debug, Clone, Default)]
pub struct Runner(Option<Arc<Eager>>);

impl Tier {
    /// Makes the tier ready.
    ///
    /// # Errors
    /// The compiler does not know this processor.
    pub fn runner(self) -> eyre::Result<Runner> {
        Ok(Runner(match self {
            Self::Interpreter => None,
            Self::Jit => Some(Arc::new(Eager::new(Compiler::new()?, Level::Quick))),
        }))
    }
}

impl Runner {
    /// As the engine takes it.
    pub fn frames(&self) -> Option<Arc<dyn FrameRunner>> {
        self.0.clone().map(|eager| eager as Arc<dyn FrameRunner>)
    }

    /// Says on standard error what ran how.
    pub fn report(&self) {
        if let Some(eager) = &self.0 {
            let counts = eager.statistics();
            eprintln!(
                "compiled {} codes ({} bytes to {}), refused {}; native code entered {} times, left {} instructions to \
                 the interpreter, which ran {} frames alone",
                counts.compiled,
                counts.bytecode_bytes,
                counts.native_bytes,
                counts.refused,
                counts.entries,
                counts.left,
                counts.interpreted,
            );
        }
    }
}
