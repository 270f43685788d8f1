//! The ways of executing one program: plain revm, and this engine in each tier.

use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, thread};

use zvm_engine::fixtures::replay::PreState;
use zvm_jit::compiler::{Compiler, Level};
use zvm_jit::tier::{Auto, Native, Settings, Statistics};
use zvm_runtimes::evm::{FrameRunner, Machine};
use zvm_runtimes::revm::context::{Context, TxEnv};
use zvm_runtimes::revm::database::InMemoryDB;
use zvm_runtimes::revm::handler::MainnetContext;
use zvm_runtimes::revm::{ExecuteEvm, MainBuilder, MainnetEvm};

use crate::corpus::Program;
use crate::outcome::Outcome;
use crate::sample::Subject;

/// No compilation of the corpus takes as long on an idle machine.
const QUIET: Duration = Duration::from_secs(1);

/// How this engine runs frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// By the interpreter.
    Interpreter,
    /// Natively, every code compiled at this level before its first instruction.
    Native(Level),
    /// As the node does: by the interpreter, and natively once that pays.
    Auto,
}

impl Tier {
    /// What runs the frames, without any compiled code yet.
    ///
    /// # Errors
    /// The system gives no thread to compile in.
    pub fn runner(self, compiler: &Compiler) -> io::Result<Runner> {
        let settings = match self {
            Self::Interpreter => return Ok(Runner::default()),
            Self::Native(level) => Settings::default().eager(level),
            Self::Auto => Settings::default(),
        };
        let source = Native::new(compiler.clone(), settings.memory, None);
        let tiers = Arc::new(Auto::new(source, settings)?);
        let frames: Arc<dyn FrameRunner> = tiers.clone();
        Ok(Runner {
            tiers: Some((tiers, frames)),
        })
    }
}

/// What runs frames, with the code it has compiled by now.
#[derive(Debug, Clone, Default)]
pub struct Runner {
    /// Twice the same.
    tiers: Option<(Arc<Auto>, Arc<dyn FrameRunner>)>,
}

impl Runner {
    /// `None`: the interpreter.
    pub fn frames(&self) -> Option<&Arc<dyn FrameRunner>> {
        self.tiers.as_ref().map(|tiers| &tiers.1)
    }

    /// What ran how, unless all is interpreted.
    pub fn statistics(&self) -> Option<Statistics> {
        self.tiers.as_ref().map(|tiers| tiers.0.statistics())
    }

    /// Waits until nothing is left to compile: nothing waits, and nothing was finished for longer than a compilation takes.
    pub fn settle(&self) {
        let Some((tiers, _)) = &self.tiers else {
            return;
        };
        let finished = |now: &Statistics| now.compiled + now.refused;
        let (mut before, mut since) = (tiers.statistics(), Instant::now());
        while since.elapsed() < QUIET {
            thread::sleep(QUIET / 50);
            let now = tiers.statistics();
            if now.queue > 0 || finished(&now) != finished(&before) {
                (before, since) = (now, Instant::now());
            }
        }
    }
}

/// The ways of executing a program that a user can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideName {
    /// [`Plain`]
    Plain,
    /// [`Ours`]
    Ours(Tier),
}

/// Executes `program` `runs` times on one side, for a profiler to watch. With code compiled before, except for `auto`.
///
/// # Errors
/// A run does not use the gas it should; there is no compiler for this processor.
pub fn repeat(program: &Program, side: SideName, runs: u32) -> Result<(), String> {
    let pre = program.pre_state();
    let compiler = Compiler::new().map_err(|error| error.to_string())?;
    let (mut plain, mut ours);
    let subject: &mut dyn Subject = match side {
        SideName::Plain => {
            plain = Plain::new(program);
            &mut plain
        }
        SideName::Ours(tier) => {
            ours = Ours::new(program, &pre, &compiler, tier, false)?;
            &mut ours
        }
    };
    for _ in 0..runs {
        subject.run()?;
    }
    Ok(())
}

/// A way of executing one program.
pub trait Side: Subject {
    /// One run in full, on the state before the call, by whatever is compiled by now.
    ///
    /// # Errors
    /// The transaction is refused.
    fn outcome(&mut self) -> Result<Outcome, String>;
}

/// The peer: revm as it comes, with its own handler, context, journal and in-memory database.
pub struct Plain {
    evm: MainnetEvm<MainnetContext<InMemoryDB>>,
    tx: TxEnv,
    gas: u64,
}

impl Plain {
    /// Ready to run `program`.
    pub fn new(program: &Program) -> Self {
        let mut context: MainnetContext<InMemoryDB> =
            Context::new(program.database(), program.cfg.spec);
        context.cfg = program.cfg.clone();
        context.block = program.block.clone();
        Self {
            evm: context.build_mainnet(),
            tx: program.tx.clone(),
            gas: program.expected.gas_used,
        }
    }
}

impl Side for Plain {
    fn outcome(&mut self) -> Result<Outcome, String> {
        let outcome = self
            .evm
            .transact(self.tx.clone())
            .map_err(|error| error.to_string())?;
        Ok(Outcome::of_plain(&outcome.result, &outcome.state))
    }
}

impl Subject for Plain {
    fn run(&mut self) -> Result<(), String> {
        // The changes are handed out and dropped: the next run finds the same state.
        let outcome = self
            .evm
            .transact(self.tx.clone())
            .map_err(|error| error.to_string())?;
        same_gas(outcome.result.tx_gas_used(), self.gas)
    }
}

/// This engine.
pub struct Ours<'a> {
    machine: Machine<'a>,
    program: &'a Program,
    pre: &'a PreState,
    compiler: &'a Compiler,
    tier: Tier,
    runner: Runner,
    cold: bool,
}

impl<'a> Ours<'a> {
    /// Ready to run `program` on `pre`. With `cold` every sample begins without any compiled code.
    ///
    /// # Errors
    /// There is no compiler for this processor.
    pub fn new(
        program: &'a Program,
        pre: &'a PreState,
        compiler: &'a Compiler,
        tier: Tier,
        cold: bool,
    ) -> Result<Self, String> {
        let mut ours = Self {
            machine: Machine::new(program.cfg.clone(), program.block.clone(), pre),
            program,
            pre,
            compiler,
            tier,
            runner: Runner::default(),
            cold,
        };
        ours.renew()?;
        Ok(ours)
    }

    fn renew(&mut self) -> Result<(), String> {
        self.runner = self
            .tier
            .runner(self.compiler)
            .map_err(|error| error.to_string())?;
        if let Some(runner) = self.runner.frames() {
            self.machine.set_runner(Arc::clone(runner));
        }
        Ok(())
    }
}

impl Side for Ours<'_> {
    fn outcome(&mut self) -> Result<Outcome, String> {
        let program = self.program;
        // A machine of its own, because the changes must be kept to be seen.
        let mut machine = Machine::new(program.cfg.clone(), program.block.clone(), self.pre);
        if let Some(runner) = self.runner.frames() {
            machine.set_runner(Arc::clone(runner));
        }
        let result = machine
            .execute(program.tx.clone())
            .map_err(|error| error.to_string())?;
        Ok(Outcome::of_block(&result, machine.state()))
    }
}

impl Subject for Ours<'_> {
    fn prepare(&mut self) -> Result<(), String> {
        if self.cold { self.renew() } else { Ok(()) }
    }

    fn run(&mut self) -> Result<(), String> {
        let result = self
            .machine
            .call(self.program.tx.clone())
            .map_err(|error| error.to_string())?;
        same_gas(result.tx_gas_used(), self.program.expected.gas_used)
    }
}

fn same_gas(used: u64, expected: u64) -> Result<(), String> {
    if used == expected {
        Ok(())
    } else {
        Err(format!("used {used} gas, expected {expected}"))
    }
}
