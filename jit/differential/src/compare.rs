//! Executes a case by the interpreter and natively and says where they differ.

use core::fmt;
use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_primitives::{Address, B256, U256, hex};
use zvm_jit::compiler::{Compiler, Refused};
use zvm_runtimes::evm::{Fork, Machine, cfg_env};
use zvm_runtimes::isa::{Isa, listing};
use zvm_runtimes::revm::context::result::{ExecutionResult, HaltReason, OutOfGasError};

use crate::case::{Case, World};
use crate::tier::{Log, Native, OutOfGas, Recorder, Statistics, Tier};

/// An account that the transaction changed: existence, balance, nonce, code hash, and the slots written.
pub type Change = (Option<(U256, u64, B256)>, bool, BTreeMap<U256, U256>);

/// Everything that can be seen of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// Status, gas, refund, output, logs; an out-of-gas halt without its kind.
    pub result: Result<ExecutionResult, String>,
    /// What was seen of its frames.
    pub log: Log,
    /// What it changed.
    pub changes: BTreeMap<Address, Change>,
}

impl Observation {
    /// Gas used.
    pub fn gas_used(&self) -> u64 {
        self.result.as_ref().map_or(0, ExecutionResult::tx_gas_used)
    }
}

/// Native code did something else than the interpreter.
#[derive(Debug, Clone)]
pub struct Difference {
    /// How it was run.
    pub tier: Tier,
    /// The gas limit of the transaction.
    pub gas_limit: u64,
    /// What differs, the interpreter's first.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} at gas limit {}: {}",
            self.tier, self.gas_limit, self.what
        )
    }
}

/// How out-of-gas frames ended by the interpreter and natively, where that is not the same, and how often.
pub type Kinds = BTreeMap<(String, String), u64>;

/// Executes cases by one tier.
#[derive(Debug, Clone)]
pub struct Runner {
    native: Arc<Native>,
    recorder: Arc<Recorder>,
}

impl Runner {
    /// Executes by `tier`, natively what `compiler` compiles.
    pub fn new(tier: Tier, compiler: Compiler) -> Self {
        let native = Arc::new(Native::new(compiler));
        let recorder = Arc::new(Recorder::new(tier, Arc::clone(&native)));
        Self { native, recorder }
    }

    /// Runs frames, for a machine of one's own.
    pub fn recorder(&self) -> Arc<Recorder> {
        Arc::clone(&self.recorder)
    }

    /// What was compiled and run natively.
    pub fn statistics(&self) -> Statistics {
        self.native.statistics()
    }

    /// Executes a case.
    pub fn observe(&self, case: &Case) -> Observation {
        observe(case, &World::new(case), case.gas_limit(), &self.recorder)
    }
}

/// Executes cases by all tiers.
#[derive(Debug)]
pub struct Comparison {
    native: Arc<Native>,
    oracle: Arc<Recorder>,
    tiers: Vec<(Tier, Arc<Recorder>)>,
    /// The one difference that is allowed, counted.
    pub kinds: Kinds,
    /// Transactions executed, by all tiers.
    pub executed: u64,
}

impl Comparison {
    /// Compares the interpreter with all native tiers.
    ///
    /// # Errors
    /// There is no compiler for this processor.
    pub fn new() -> Result<Self, Refused> {
        Ok(Self::with(Compiler::new()?, &Tier::NATIVE))
    }

    /// Compares the interpreter with `tiers`, compiled by `compiler`.
    pub fn with(compiler: Compiler, tiers: &[Tier]) -> Self {
        let native = Arc::new(Native::new(compiler));
        let recorder = |tier| Arc::new(Recorder::new(tier, Arc::clone(&native)));
        Self {
            oracle: recorder(Tier::Interpreter),
            tiers: tiers.iter().map(|tier| (*tier, recorder(*tier))).collect(),
            native,
            kinds: Kinds::new(),
            executed: 0,
        }
    }

    /// What was compiled and run natively.
    pub fn statistics(&self) -> Statistics {
        self.native.statistics()
    }

    /// Executes `case` by the interpreter and by every tier.
    ///
    /// # Errors
    /// The first difference.
    pub fn check(&mut self, case: &Case) -> Result<Observation, Box<Difference>> {
        let world = World::new(case);
        self.check_at(case, &world, case.gas_limit())
    }

    fn check_at(
        &mut self,
        case: &Case,
        world: &World,
        gas_limit: u64,
    ) -> Result<Observation, Box<Difference>> {
        let expected = observe(case, world, gas_limit, &self.oracle);
        self.executed += 1;
        for (tier, recorder) in &self.tiers {
            let found = observe(case, world, gas_limit, recorder);
            self.executed += 1;
            if let Some(what) = difference(&expected, &found) {
                return Err(Box::new(Difference {
                    tier: *tier,
                    gas_limit,
                    what,
                }));
            }
            let kinds = expected.log.out_of_gas.iter().zip(&found.log.out_of_gas);
            for (expected, found) in kinds.filter(|(expected, found)| expected != found) {
                let name = |kind: &OutOfGas| format!("{kind:?}");
                *self.kinds.entry((name(expected), name(found))).or_default() += 1;
            }
        }
        Ok(expected)
    }

    /// Executes `case` at every gas limit from the intrinsic gas to what it uses, or at about `most` of them in even
    /// steps. Returns how many.
    ///
    /// # Errors
    /// The first difference.
    pub fn sweep(&mut self, case: &Case, most: u64) -> Result<u64, Box<Difference>> {
        let world = World::new(case);
        let used = self.check_at(case, &world, case.gas_limit())?.gas_used();
        // A fifth of what was used may have been refunded (EIP-3529), half before London.
        let used = (used * if case.fork >= Fork::London { 5 } else { 8 } / 4).min(case.gas_limit());
        let least = case.intrinsic_gas();
        let step = (used.saturating_sub(least) / most.max(1)).max(1) as usize;
        let mut limits = 0;
        for gas_limit in (least..=used + 2).step_by(step) {
            self.check_at(case, &world, gas_limit)?;
            limits += 1;
        }
        Ok(limits)
    }
}

fn observe(case: &Case, world: &World, gas_limit: u64, recorder: &Arc<Recorder>) -> Observation {
    let fork = case.fork;
    let cfg = cfg_env(fork, 1, fork.default_blob_params());
    let mut machine = Machine::new(cfg, Case::block(), world);
    machine.set_runner(recorder.clone());
    let mut result = machine
        .execute(case.transaction(gas_limit))
        .map_err(|error| error.to_string());
    if let Ok(ExecutionResult::Halt {
        reason: HaltReason::OutOfGas(kind),
        ..
    }) = &mut result
    {
        *kind = OutOfGasError::Basic;
    }
    let changes = machine
        .state()
        .accounts()
        .iter()
        .filter(|(_, account)| account.touched)
        .map(|(address, account)| {
            let info = account.info();
            let slots = account.storage.iter().filter(|(_, slot)| slot.written);
            let change = (
                info.map(|info| (info.balance, info.nonce, info.code_hash)),
                account.wiped,
                slots.map(|(key, slot)| (*key, slot.present())).collect(),
            );
            (*address, change)
        })
        .collect();
    Observation {
        result,
        log: recorder.take(),
        changes,
    }
}

/// The first thing that differs; the kinds of out-of-gas ends do not count.
fn difference(expected: &Observation, found: &Observation) -> Option<String> {
    let (a, b) = (&expected.log.frames, &found.log.frames);
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        if a != b {
            return Some(format!(
                "frame event {index}\n  expected {a:?}\n  found    {b:?}"
            ));
        }
    }
    if a.len() != b.len() {
        return Some(format!("{} frame events, found {}", a.len(), b.len()));
    }
    if expected.result != found.result {
        return Some(format!(
            "result\n  expected {:?}\n  found    {:?}",
            expected.result, found.result
        ));
    }
    if expected.log.warm != found.log.warm {
        return Some(format!(
            "warm\n  expected {:?}\n  found    {:?}",
            expected.log.warm, found.log.warm
        ));
    }
    (expected.changes != found.changes).then(|| {
        format!(
            "changes\n  expected {:?}\n  found    {:?}",
            expected.changes, found.changes
        )
    })
}

/// A case as somebody needs it to repeat it by hand.
pub fn describe(case: &Case) -> String {
    let code = case.code();
    format!(
        "code 0x{}\nother 0x{}\ncalldata 0x{}\ngas {} beyond the intrinsic\nvalue {}\nfork {}\ndelegated {}\n{}",
        hex::encode(&code),
        hex::encode(&case.other),
        hex::encode(&case.calldata),
        case.gas,
        case.value,
        case.fork,
        case.delegated,
        listing(Isa::Evm, &code)
    )
}
