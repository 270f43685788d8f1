//! Which code runs natively, and since when.
//!
//! A frame begins in the interpreter. What it burns is counted for its code ([`profiles`]); what has burnt more than
//! compiling costs ([`policy`]) waits in a queue ([`queue`]) for a thread of low priority, and its native code is used
//! from the next frame on, or from the next slice of instructions of a frame that still runs ([`frame`]), while the
//! [`cache`] has room. Nothing that executes ever waits for a compilation.
//!
//! ```text
//! frame ──► local (per thread: code → record, unit) ──► frame: slices of the interpreter │ native code
//!              │ not there                                   │ portions of gas
//!              ▼                                             ▼
//!           profiles (record of a code) ◄───────────────── shared ──► queue ──► workers ──► source (compiler)
//!              ▲                                                                   │
//!              └────────────────────────── cache (units in use) ◄──────────────────┘
//! ```

mod cache;
mod frame;
mod local;
pub mod policy;
mod profiles;
mod queue;
mod record;
mod settings;
mod shared;
mod source;
mod statistics;

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use alloy_primitives::B256;
use zvm_runtimes::evm::{Context, FrameRunner, Instructions};
use zvm_runtimes::revm::interpreter::Interpreter;
use zvm_runtimes::revm::interpreter::interpreter::EthInterpreter;

pub use record::Key;
pub use settings::{DEFAULT_MEMORY, DEFAULT_QUEUE, Settings};
pub use source::{Made, Native, Request, Source};
pub use statistics::{Field, Kind, Statistics};

use crate::compiler::{Compiler, Level};
use crate::counts::Interpreted;
use local::{LOCAL, Local};
use shared::Shared;

/// The lowest priority a thread can have: it runs when nobody else wants to.
const NICE: i32 = 19;

/// Starts in the interpreter and compiles what is hot.
#[derive(Debug)]
pub struct Auto {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Auto {
    /// Starts the threads that compile.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn new(source: impl Source + 'static, settings: Settings) -> std::io::Result<Self> {
        let threads = settings.threads;
        let mut auto = Self {
            shared: Arc::new(Shared::new(Box::new(source), settings)),
            workers: Vec::with_capacity(threads),
        };
        for number in 0..threads {
            let shared = Arc::clone(&auto.shared);
            let worker = thread::Builder::new()
                .name(format!("zvm-jit-{number}"))
                .spawn(move || work(&shared))?;
            auto.workers.push(worker);
        }
        Ok(auto)
    }

    /// Starts no more compilations until [`Auto::resume`]. What is compiled goes on being used, what gets hot waits in
    /// the queue. Does not wait for a compilation under way.
    pub fn pause(&self) {
        self.shared.queue.set_paused(true);
    }

    /// Ends a [`Auto::pause`].
    pub fn resume(&self) {
        self.shared.queue.set_paused(false);
    }

    /// Waits until nothing waits for a compilation and none is under way: to measure what was compiled. In a
    /// [`Auto::pause`] that may be never.
    pub fn settle(&self) {
        self.shared.queue.settle();
    }

    /// What ran how.
    pub fn statistics(&self) -> Statistics {
        self.shared.statistics()
    }
}

impl Drop for Auto {
    /// Waits for compilations under way, which are bounded, and drops those that wait.
    fn drop(&mut self) {
        self.shared.queue.end();
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::error!("a thread that compiles had panicked");
            }
        }
    }
}

/// A thread that compiles what is worth it, until the end.
fn work(shared: &Shared) {
    // On Linux this is the thread's priority, not the process's.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread that compiles keeps its priority");
    }
    while let Some(job) = shared.queue.pop() {
        shared.compile(&job);
        shared.queue.done();
    }
}

impl FrameRunner for Auto {
    fn run<'a>(
        &self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        let Some(hash) = self.hash(interpreter) else {
            return self
                .shared
                .apart(Interpreted::Initcode, interpreter, context, instructions);
        };
        // Taken out while the frame runs: a frame that ever ran inside of another's would find nothing and begin anew.
        let mut local = Local::of(LOCAL.take(), &self.shared);
        let spec = context.cfg.spec;
        if local.is_mainnet(spec, &context.cfg.gas_params) {
            let key = Key { hash, spec };
            self.shared
                .run(&mut local, &key, interpreter, context, instructions);
        } else {
            self.shared
                .apart(Interpreted::Rules, interpreter, context, instructions);
        }
        // What took its place is what a frame inside of this one left.
        drop(LOCAL.replace(Some(local)));
    }
}

impl Auto {
    /// The hash of the code, unless it is initcode, which runs once and is compiled only where every code is.
    #[inline]
    fn hash(&self, interpreter: &mut Interpreter<EthInterpreter>) -> Option<B256> {
        let initcode = interpreter.input.bytecode_address.is_none();
        if interpreter.bytecode.is_empty() || initcode && self.shared.settings.eager.is_none() {
            return None;
        }
        // A called code comes with its hash. This way of asking reads it where it lies; the other copies it first.
        Some(interpreter.bytecode.get_or_calculate_hash()).filter(|hash| !hash.is_zero())
    }
}

/// Compiles every code before its first instruction.
#[derive(Debug)]
pub struct Eager(Auto);

impl Eager {
    /// Compiles at `level`.
    pub fn new(compiler: Compiler, level: Level) -> Self {
        let settings = Settings::default().eager(level);
        let source = Native::new(compiler, settings.memory, None);
        Self(Auto {
            shared: Arc::new(Shared::new(Box::new(source), settings)),
            workers: Vec::new(),
        })
    }

    /// What ran how.
    pub fn statistics(&self) -> Statistics {
        self.0.statistics()
    }
}

impl FrameRunner for Eager {
    fn run<'a>(
        &self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        self.0.run(interpreter, context, instructions)
    }
}
