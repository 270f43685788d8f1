//! The machine that runs the transactions of one block.

use std::sync::Arc;

use alloy_primitives::{Address, Bytes, TxKind, U256, address};
use revm::context::result::{EVMError, ExecutionResult, InvalidTransaction};
use revm::context::{BlockEnv, CfgEnv, ContextSetters, Evm, TxEnv};
use revm::context_interface::JournalTr;
use revm::handler::instructions::EthInstructions;
use revm::handler::{EthPrecompiles, Handler, MainnetHandler};
use revm::inspector::{Inspector, InspectorHandler};
use revm::interpreter::Interpreter;
use revm::interpreter::interpreter::EthInterpreter;

use super::fork::{BlobParams, Fork};
use super::frames::{EvmError, FrameLoop, Frames, MachineEvm};
use super::instructions::instructions;
use super::journal::BlockJournal;
use super::state::{BlockState, ReadError, StateReader};
use super::versions::{Speculation, VersionReader};
use super::workspace::Workspace;

/// The sender of system calls (EIP-4788, EIP-2935, EIP-7002, EIP-7251).
pub const SYSTEM_ADDRESS: Address = address!("fffffffffffffffffffffffffffffffffffffffe");
/// The gas a system call may burn (EIP-4788: 30,000,000, outside the block's gas limit).
pub const SYSTEM_CALL_GAS: u64 = 30_000_000;

/// What frames execute against: the block, the transaction, the configuration and the journal.
pub type Context<'a> = revm::Context<BlockEnv, TxEnv, CfgEnv, BlockState<'a>, BlockJournal<'a>, ()>;

/// The interpreter's instructions and their static gas under the block's fork.
pub type Instructions<'a> = EthInstructions<EthInterpreter, Context<'a>>;

/// Runs the frames of a machine in place of the interpreter's loop, with the same results.
pub trait FrameRunner: Send + Sync + core::fmt::Debug {
    /// Runs a frame from where it stands until it ends or waits for a call: until the interpreter has its next action.
    /// The action stays where it is; moved about it would cost more than many a frame.
    fn run<'a>(
        &self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    );
}

/// A transaction that cannot be part of the block, or a block that cannot be executed.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// The transaction breaks a rule of the chain. The state is as before it.
    #[error("invalid transaction: {0}")]
    Invalid(#[from] InvalidTransaction),
    /// The block's environment lacks a field the fork needs.
    #[error("block environment: {0}")]
    Header(String),
    /// The state below could not be read.
    #[error(transparent)]
    State(#[from] ReadError),
    /// A precompile reported an error that is not a result.
    #[error("precompile: {0}")]
    Precompile(String),
}

impl From<EvmError> for MachineError {
    fn from(error: EvmError) -> Self {
        match error {
            EVMError::Transaction(invalid) => Self::Invalid(invalid),
            EVMError::Header(header) => Self::Header(header.to_string()),
            EVMError::Database(read) => Self::State(read),
            EVMError::Custom(text) => Self::Precompile(text),
            EVMError::CustomAny(any) => Self::Precompile(any.to_string()),
        }
    }
}

/// The execution configuration of a block: rules of `fork`, the blob schedule in force and the chain's id.
///
/// Blob limit per transaction: the block's maximum, and six from Osaka on (EIP-7594).
pub fn cfg_env(fork: Fork, chain_id: u64, blobs: Option<BlobParams>) -> CfgEnv {
    let mut cfg = CfgEnv::new()
        .with_spec_and_mainnet_gas_params(fork.spec_id())
        .with_chain_id(chain_id);
    if let Some(blobs) = blobs {
        let per_transaction = if fork >= Fork::Osaka {
            blobs.max.min(6)
        } else {
            blobs.max
        };
        cfg.max_blobs_per_tx = Some(per_transaction);
        cfg.blob_base_fee_update_fraction = Some(blobs.update_fraction);
    }
    cfg
}

/// Runs transactions one after the other on the state of a block.
///
/// Instruction tables, frame stack and memory are built once and reused by every transaction.
pub struct Machine<'a> {
    /// Always there between calls; taken out while a traced transaction runs under another inspector type.
    evm: Option<MachineEvm<'a, ()>>,
    runner: Option<Arc<dyn FrameRunner>>,
    /// More frames were made than the next machine should inherit.
    deep: bool,
}

impl<'a> Machine<'a> {
    /// A machine for one block on top of `reader`.
    pub fn new(cfg: CfgEnv, block: BlockEnv, reader: &'a dyn StateReader) -> Self {
        Self::with_state(cfg, block, BlockState::new(reader))
    }

    /// A machine that goes on from the changes in `state`.
    pub fn with_state(cfg: CfgEnv, block: BlockEnv, state: BlockState<'a>) -> Self {
        let spec = cfg.spec;
        let Workspace {
            frames,
            local,
            slots,
        } = Workspace::take();
        let mut journal = BlockJournal::new(state);
        journal.set_slots(slots);
        journal.set_spec_id(spec);
        let context = Context {
            block,
            cfg,
            tx: TxEnv::default(),
            journaled_state: journal,
            chain: (),
            local,
            error: Ok(()),
        };
        Self {
            evm: Some(Evm {
                ctx: context,
                inspector: (),
                instruction: instructions(spec),
                precompiles: EthPrecompiles::new(spec),
                frame_stack: frames,
            }),
            runner: None,
            deep: false,
        }
    }

    /// Runs frames by `runner` from now on; traced transactions stay with the interpreter.
    pub fn set_runner(&mut self, runner: Arc<dyn FrameRunner>) {
        self.runner = Some(runner);
    }

    fn evm(&mut self) -> &mut MachineEvm<'a, ()> {
        self.evm
            .as_mut()
            .expect("the machine is whole between calls")
    }

    fn context(&self) -> &Context<'a> {
        &self
            .evm
            .as_ref()
            .expect("the machine is whole between calls")
            .ctx
    }

    /// Executes a transaction and keeps its changes. After an error the state is as before it.
    pub fn execute(&mut self, tx: TxEnv) -> Result<ExecutionResult, MachineError> {
        let result = self.run(tx);
        self.settle(result, true)
    }

    /// Executes a transaction and keeps its changes if `accept` takes the result. Otherwise, and after an error, the
    /// state is as before it.
    pub fn execute_if<E>(
        &mut self,
        tx: TxEnv,
        accept: impl FnOnce(&ExecutionResult) -> Result<(), E>,
    ) -> Result<Result<ExecutionResult, E>, MachineError> {
        let result = self.run(tx);
        let refused = result.as_ref().ok().and_then(|result| accept(result).err());
        let result = self.settle(result, refused.is_none())?;
        Ok(refused.map_or(Ok(result), Err))
    }

    fn run(&mut self, tx: TxEnv) -> Result<ExecutionResult, EvmError> {
        let evm = self
            .evm
            .as_mut()
            .expect("the machine is whole between calls");
        evm.ctx.set_tx(tx);
        let runner = self.runner.as_deref();
        let deep = &mut self.deep;
        FrameLoop::new().run(&mut Frames { evm, runner, deep })
    }

    /// Executes a transaction and drops its changes.
    pub fn call(&mut self, tx: TxEnv) -> Result<ExecutionResult, MachineError> {
        let result = self.run(tx);
        self.settle(result, false)
    }

    /// Executes a transaction under an inspector and keeps its changes.
    pub fn execute_traced<I: Inspector<Context<'a>>>(
        &mut self,
        tx: TxEnv,
        inspector: I,
    ) -> (Result<ExecutionResult, MachineError>, I) {
        let mut evm = self
            .evm
            .take()
            .expect("the machine is whole between calls")
            .with_inspector(inspector);
        evm.ctx.set_tx(tx);
        let result = MainnetHandler::<_, EvmError, _>::default().inspect_run(&mut evm);
        let MachineEvm {
            ctx,
            inspector,
            instruction,
            precompiles,
            frame_stack,
        } = evm;
        self.evm = Some(Evm {
            ctx,
            inspector: (),
            instruction,
            precompiles,
            frame_stack,
        });
        (self.settle(result, true), inspector)
    }

    /// A call by [`SYSTEM_ADDRESS`] with [`SYSTEM_CALL_GAS`], outside of the block's gas, fees and nonces.
    pub fn system_call(
        &mut self,
        target: Address,
        data: Bytes,
    ) -> Result<ExecutionResult, MachineError> {
        let evm = self
            .evm
            .as_mut()
            .expect("the machine is whole between calls");
        evm.ctx.set_tx(TxEnv {
            caller: SYSTEM_ADDRESS,
            kind: TxKind::Call(target),
            data,
            gas_limit: SYSTEM_CALL_GAS,
            ..TxEnv::default()
        });
        let runner = None;
        let deep = &mut self.deep;
        let result = FrameLoop::new().run_system_call(&mut Frames { evm, runner, deep });
        self.settle(result, true)
    }

    fn settle(
        &mut self,
        result: Result<ExecutionResult, EvmError>,
        keep: bool,
    ) -> Result<ExecutionResult, MachineError> {
        let journal = &mut self.evm().ctx.journaled_state;
        if let Some(read) = journal.take_failed_read() {
            journal.discard();
            return Err(MachineError::State(read));
        }
        if keep && result.is_ok() {
            journal.commit();
        } else {
            journal.discard();
        }
        result.map_err(MachineError::from)
    }

    /// Executes the next transaction on what a [`VersionReader`] shows, for [`Versions`](super::Versions) to decide about.
    ///
    /// The machine's reader must be `reader`, and the machine must have been made by [`Machine::early`].
    pub fn execute_early(
        &mut self,
        index: u32,
        tx: TxEnv,
        reader: &VersionReader<'_>,
        speculation: &mut Speculation,
        in_turn: bool,
    ) {
        let predicted = (!in_turn).then_some((tx.caller, tx.nonce));
        reader.begin(index, predicted);
        let journal = &mut self.evm().ctx.journaled_state;
        speculation.accounts.clear();
        core::mem::swap(
            &mut journal.block_state_mut().accounts,
            &mut speculation.accounts,
        );
        journal.take_fee();
        let result = self.execute(tx);
        let journal = &mut self.evm().ctx.journaled_state;
        core::mem::swap(
            &mut journal.block_state_mut().accounts,
            &mut speculation.accounts,
        );
        speculation.fee = journal.take_fee();
        speculation.result = Some(result);
        reader.end(speculation);
    }

    /// A machine for transactions before their turn.
    pub fn early(cfg: CfgEnv, block: BlockEnv, reader: &'a VersionReader<'a>) -> Self {
        let mut state = BlockState::new(reader);
        state.early = true;
        Self::with_state(cfg, block, state)
    }

    /// Adds to a balance outside of any transaction; see [`BlockState::credit`].
    pub fn credit(&mut self, address: Address, amount: U256) -> Result<(), MachineError> {
        let clear_empty = self.context().cfg.spec >= Fork::SpuriousDragon.spec_id();
        self.state_mut()
            .credit(address, amount, clear_empty)
            .map_err(MachineError::State)
    }

    /// The changes so far.
    pub fn state(&self) -> &BlockState<'a> {
        self.context().journaled_state.block_state()
    }

    /// The changes so far.
    pub fn state_mut(&mut self) -> &mut BlockState<'a> {
        self.evm().ctx.journaled_state.block_state_mut()
    }

    /// The block's environment.
    pub fn block(&self) -> &BlockEnv {
        &self.context().block
    }

    /// The execution configuration. Changing the fork needs a new machine.
    pub fn cfg(&self) -> &CfgEnv {
        &self.context().cfg
    }

    /// Ends the block.
    pub fn into_state(mut self) -> BlockState<'a> {
        let evm = self.evm.take().expect("the machine is whole between calls");
        recycle(evm, self.deep)
    }
}

/// Keeps for the thread's next machine what outlives this one.
fn recycle<'a>(evm: MachineEvm<'a, ()>, deep: bool) -> BlockState<'a> {
    let Evm {
        mut ctx,
        frame_stack,
        ..
    } = evm;
    if !deep {
        Workspace {
            frames: frame_stack,
            local: ctx.local,
            slots: ctx.journaled_state.take_slots(),
        }
        .give_back();
    }
    ctx.journaled_state.into_block_state()
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        if let Some(evm) = self.evm.take() {
            recycle(evm, self.deep);
        }
    }
}
