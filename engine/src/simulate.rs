//! Calls that change nothing: `eth_call` and `eth_estimateGas`.
//!
//! A call runs on a snapshot and holds no lock, so it delays neither blocks nor other readers. What bounds its time is
//! gas: a call gets at most [`Simulator::gas_cap`], whatever it asks for.

mod overrides;
mod revert;

use std::sync::Arc;

use alloy_consensus::Header;
use alloy_primitives::{Bytes, KECCAK256_EMPTY, TxKind, U256};
use alloy_rpc_types_eth::state::EvmOverrides;
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use zvm_runtimes::evm::{Fork, Machine, MachineError, ReadError, StateReader as _, cfg_env};
use zvm_runtimes::revm::context::either::Either;
use zvm_runtimes::revm::context::result::{
    ExecutionResult, HaltReason, InvalidTransaction, OutOfGasError, Output,
};
use zvm_runtimes::revm::context::{BlockEnv, CfgEnv, TxEnv};
use zvm_runtimes::revm::context_interface::block::BlobExcessGasAndPrice;
use zvm_storage::{Snapshot, StoreError, Table};

use crate::chain::Chain;
use crate::header;
use crate::transaction::{self, MAX_TX_GAS};
use crate::view::StateView;
use overrides::OverriddenReader;
pub use revert::revert_reason;

/// Gas a call gets at most where nothing else is configured, as in geth.
pub const DEFAULT_GAS_CAP: u64 = 50_000_000;

/// Gas of a transfer to an account without code.
const TRANSFER_GAS: u64 = 21_000;
/// Gas a call with value hands on for free.
const CALL_STIPEND: u64 = 2_300;

/// A call cannot be run, or did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The request contradicts itself or the chain.
    #[error("{0}")]
    Request(String),
    /// The call breaks a rule that transactions have.
    #[error("{0}")]
    Invalid(String),
    /// The call reverted.
    #[error("execution reverted{}", revert_reason(output).map(|reason| format!(": {reason}")).unwrap_or_default())]
    Reverted {
        /// What it returned.
        output: Bytes,
    },
    /// The call ran into an exceptional halt.
    #[error("{0}")]
    Halted(String),
    /// No gas limit within the allowance is enough.
    #[error("gas required exceeds allowance ({0})")]
    GasRequired(u64),
    /// The state could not be read, or the machine failed.
    #[error(transparent)]
    Machine(MachineError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ReadError> for SimulateError {
    fn from(error: ReadError) -> Self {
        Self::Machine(MachineError::State(error))
    }
}

/// Runs calls on the state after the head.
pub struct Simulator<'a> {
    chain: &'a Chain,
    snapshot: Box<dyn Snapshot + 'a>,
    header: Header,
    fork: Fork,
    gas_cap: u64,
}

/// What a call runs with.
struct Prepared {
    cfg: CfgEnv,
    block: BlockEnv,
    tx: TxEnv,
}

impl<'a> Simulator<'a> {
    /// A simulator on the head as it is now, in the environment of the head itself. `gas_cap` bounds every call.
    ///
    /// # Errors
    /// [`SimulateError::Store`].
    pub fn at_head(chain: &'a Chain, gas_cap: u64) -> Result<Self, SimulateError> {
        Self::on(chain, chain.snapshot()?, gas_cap)
    }

    /// A simulator on the head of `snapshot`, one of `chain`: what else is read from it is of the same block.
    ///
    /// # Errors
    /// [`SimulateError::Store`].
    pub fn on(
        chain: &'a Chain,
        snapshot: Box<dyn Snapshot + 'a>,
        gas_cap: u64,
    ) -> Result<Self, SimulateError> {
        let missing = |reason: &str| StoreError::Corrupt {
            table: Table::Meta,
            key: "head".to_owned(),
            reason: reason.to_owned(),
        };
        let (number, _) = zvm_storage::head(&*snapshot)?.ok_or_else(|| missing("is not there"))?;
        let header = zvm_storage::header(&*snapshot, number)?
            .ok_or_else(|| missing("names a block that is not there"))?;
        let fork = chain.fork_of(&header);
        Ok(Self {
            chain,
            snapshot,
            header,
            fork,
            gas_cap,
        })
    }

    /// The header of the block whose state is used.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The most gas a call gets.
    pub fn gas_cap(&self) -> u64 {
        self.gas_cap
    }

    /// Runs a call and returns what it returned.
    ///
    /// Nonce and EIP-3607 are not checked. Fees are zero unless given; if given, the balance must cover them.
    ///
    /// # Errors
    /// Also when the call reverts or halts.
    pub fn call(
        &self,
        request: &TransactionRequest,
        overrides: &EvmOverrides,
    ) -> Result<Bytes, SimulateError> {
        match self.execute(request, overrides)? {
            ExecutionResult::Success {
                output: Output::Call(output) | Output::Create(output, _),
                ..
            } => Ok(output),
            ExecutionResult::Revert { output, .. } => Err(SimulateError::Reverted { output }),
            ExecutionResult::Halt { reason, .. } => Err(SimulateError::Halted(halt_text(&reason))),
        }
    }

    /// Runs a call and returns all of its result.
    ///
    /// # Errors
    /// The call could not be run.
    pub fn execute(
        &self,
        request: &TransactionRequest,
        overrides: &EvmOverrides,
    ) -> Result<ExecutionResult, SimulateError> {
        let view = StateView::new(&*self.snapshot, self.chain.codes()).with_fork(self.fork);
        let reader = OverriddenReader::new(&view, overrides)?;
        let Prepared { cfg, block, tx } = self.prepare(request, overrides)?;
        let (caller, base_fee) = (tx.caller, block.basefee);
        let cap = tx.gas_price;
        self.machine(cfg, block, &reader)
            .call(tx)
            .map_err(|error| match error {
                MachineError::Invalid(error) => {
                    SimulateError::Invalid(invalid_text(&error, caller, cap, base_fee))
                }
                other => SimulateError::Machine(other),
            })
    }

    fn machine<'r>(
        &self,
        cfg: CfgEnv,
        block: BlockEnv,
        reader: &'r OverriddenReader<'r>,
    ) -> Machine<'r> {
        let mut machine = Machine::new(cfg, block, reader);
        if let Some(runner) = self.chain.runner() {
            machine.set_runner(Arc::clone(runner));
        }
        machine
    }

    /// The least gas limit with which the call succeeds.
    ///
    /// # Errors
    /// Why it does not succeed with the most gas it may have.
    pub fn estimate_gas(
        &self,
        request: &TransactionRequest,
        overrides: &EvmOverrides,
    ) -> Result<u64, SimulateError> {
        let view = StateView::new(&*self.snapshot, self.chain.codes()).with_fork(self.fork);
        let reader = OverriddenReader::new(&view, overrides)?;
        let Prepared { cfg, block, tx } = self.prepare(request, overrides)?;
        let mut allowance = match request.gas {
            Some(gas) if gas >= TRANSFER_GAS => gas,
            _ => block.gas_limit,
        };
        if tx.gas_price > 0 {
            let balance = reader.account(&tx.caller)?.unwrap_or_default().balance;
            let blobs = U256::from(tx.blob_hashes.len())
                * U256::from(alloy_eips::eip4844::DATA_GAS_PER_BLOB);
            let fixed = tx
                .value
                .saturating_add(blobs * U256::from(tx.max_fee_per_blob_gas));
            let left = balance.checked_sub(fixed).ok_or_else(|| {
                SimulateError::Invalid(format!(
                    "insufficient funds for transfer: address {}",
                    tx.caller
                ))
            })?;
            let affordable = left / U256::from(tx.gas_price);
            allowance = allowance.min(u64::try_from(affordable).unwrap_or(u64::MAX));
        }
        allowance = allowance.min(self.gas_cap);
        if self.fork >= Fork::Osaka {
            allowance = allowance.min(MAX_TX_GAS);
        }

        let (caller, base_fee, cap) = (tx.caller, block.basefee, tx.gas_price);
        let plain_transfer = match tx.kind {
            TxKind::Call(to) => {
                tx.data.is_empty()
                    && tx.access_list.is_empty()
                    && tx.authorization_list.is_empty()
                    && reader
                        .account(&to)?
                        .is_none_or(|account| account.code_hash == KECCAK256_EMPTY)
            }
            TxKind::Create => false,
        };
        let mut machine = self.machine(cfg, block, &reader);
        // `None`: this gas limit is too low.
        let mut run = |gas_limit: u64| -> Result<Option<ExecutionResult>, SimulateError> {
            match machine.call(TxEnv {
                gas_limit,
                ..tx.clone()
            }) {
                Ok(result) => Ok(Some(result)),
                Err(MachineError::Invalid(
                    InvalidTransaction::CallGasCostMoreThanGasLimit { .. }
                    | InvalidTransaction::GasFloorMoreThanGasLimit { .. },
                )) => Ok(None),
                Err(MachineError::Invalid(error)) => Err(SimulateError::Invalid(invalid_text(
                    &error, caller, cap, base_fee,
                ))),
                Err(other) => Err(SimulateError::Machine(other)),
            }
        };
        let succeeds =
            |result: Option<ExecutionResult>| result.is_some_and(|result| result.is_success());
        if plain_transfer && allowance >= TRANSFER_GAS && succeeds(run(TRANSFER_GAS)?) {
            return Ok(TRANSFER_GAS);
        }
        let result = match run(allowance)? {
            None => return Err(SimulateError::GasRequired(allowance)),
            Some(ExecutionResult::Revert { output, .. }) => {
                return Err(SimulateError::Reverted { output });
            }
            Some(ExecutionResult::Halt {
                reason: HaltReason::OutOfGas(_),
                ..
            }) => {
                return Err(SimulateError::GasRequired(allowance));
            }
            Some(ExecutionResult::Halt { reason, .. }) => {
                return Err(SimulateError::Halted(halt_text(&reason)));
            }
            Some(result) => result,
        };
        // Refunds come at the end: what was used before them is the least that can be enough, as a rule.
        let mut too_low = result.tx_gas_used().saturating_sub(1);
        let mut enough = allowance;
        let guess = result
            .gas()
            .total_gas_spent()
            .saturating_add(CALL_STIPEND)
            .saturating_mul(64)
            / 63;
        if guess > too_low && guess < enough {
            if succeeds(run(guess)?) {
                enough = guess;
            } else {
                too_low = guess;
            }
        }
        while too_low + 1 < enough {
            // Most calls need little more than they use: look near the lower end first.
            let middle = (too_low + (enough - too_low) / 2)
                .min(too_low.saturating_mul(2))
                .max(too_low + 1);
            if succeeds(run(middle)?) {
                enough = middle;
            } else {
                too_low = middle;
            }
        }
        Ok(enough)
    }

    fn prepare(
        &self,
        request: &TransactionRequest,
        overrides: &EvmOverrides,
    ) -> Result<Prepared, SimulateError> {
        let spec = self.chain.spec();
        let mut cfg = cfg_env(self.fork, spec.chain_id, spec.blob_params(self.fork));
        cfg.disable_nonce_check = true;
        cfg.disable_eip3607 = true;
        cfg.disable_block_gas_limit = true;
        // EIP-7825 is a rule for transactions of blocks.
        cfg.tx_gas_limit_cap = Some(u64::MAX);
        let mut block = header::block_env(spec, self.fork, &self.header);
        if let Some(changes) = &overrides.block {
            override_block(&mut block, changes, self.fork)?;
        }
        let tx = self.tx_env(request)?;
        // With a price of zero the base fee counts as zero, for the check and for `BASEFEE`, as in geth.
        if tx.gas_price == 0 {
            block.basefee = 0;
        }
        if !tx.blob_hashes.is_empty()
            && tx.max_fee_per_blob_gas == 0
            && let Some(price) = &mut block.blob_excess_gas_and_price
        {
            price.blob_gasprice = 0;
        }
        Ok(Prepared { cfg, block, tx })
    }

    fn tx_env(&self, request: &TransactionRequest) -> Result<TxEnv, SimulateError> {
        let chain_id = self.chain.spec().chain_id;
        let refuse = |text: String| Err(SimulateError::Request(text));
        if let Some(found) = request.chain_id
            && found != chain_id
        {
            return refuse(format!(
                "chainId does not match node's (have={found}, want={chain_id})"
            ));
        }
        if request.gas_price.is_some()
            && (request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some())
        {
            return refuse(
                "both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified".to_owned(),
            );
        }
        let data = match (&request.input.input, &request.input.data) {
            (Some(input), Some(data)) if input != data => {
                return refuse("both \"data\" and \"input\" are set and not equal".to_owned());
            }
            (input, data) => input
                .as_ref()
                .or(data.as_ref())
                .cloned()
                .unwrap_or_default(),
        };
        let blob_hashes = request.blob_versioned_hashes.clone().unwrap_or_default();
        let authorizations = request.authorization_list.as_deref().unwrap_or_default();
        let dynamic =
            request.max_fee_per_gas.is_some() || request.max_priority_fee_per_gas.is_some();
        let tx_type = if !authorizations.is_empty() {
            4
        } else if !blob_hashes.is_empty() {
            3
        } else if dynamic {
            2
        } else {
            u8::from(request.access_list.is_some())
        };
        let priority = request.max_priority_fee_per_gas.unwrap_or_default();
        let gas_price = request
            .gas_price
            .or(request.max_fee_per_gas)
            .unwrap_or_default();
        if let Some(cap) = request.max_fee_per_gas.or(dynamic.then_some(0))
            && priority > cap
        {
            return refuse(format!(
                "maxFeePerGas ({cap}) < maxPriorityFeePerGas ({priority})"
            ));
        }
        Ok(TxEnv {
            tx_type,
            caller: request.from.unwrap_or_default(),
            gas_limit: request.gas.unwrap_or(self.gas_cap).min(self.gas_cap),
            gas_price,
            kind: request.to.unwrap_or(TxKind::Create),
            value: request.value.unwrap_or_default(),
            data,
            nonce: request.nonce.unwrap_or_default(),
            chain_id: Some(chain_id),
            access_list: request.access_list.clone().unwrap_or_default(),
            gas_priority_fee: (tx_type >= 2).then_some(priority),
            blob_hashes,
            max_fee_per_blob_gas: request.max_fee_per_blob_gas.unwrap_or_default(),
            authorization_list: authorizations
                .iter()
                .map(|signed| Either::Right(transaction::recover_authorization(signed)))
                .collect(),
        })
    }
}

fn override_block(
    block: &mut BlockEnv,
    changes: &BlockOverrides,
    fork: Fork,
) -> Result<(), SimulateError> {
    if let Some(number) = changes.number {
        block.number = number;
    }
    if let Some(difficulty) = changes.difficulty {
        block.difficulty = difficulty;
    }
    if let Some(time) = changes.time {
        block.timestamp = U256::from(time);
    }
    if let Some(gas_limit) = changes.gas_limit {
        block.gas_limit = gas_limit;
    }
    if let Some(coinbase) = changes.coinbase {
        block.beneficiary = coinbase;
    }
    if let Some(random) = changes.random.filter(|_| fork >= Fork::Paris) {
        block.prevrandao = Some(random);
    }
    if let Some(base_fee) = changes.base_fee {
        block.basefee = u64::try_from(base_fee).map_err(|_| {
            SimulateError::Request(format!("baseFeePerGas {base_fee} does not fit 64 bits"))
        })?;
    }
    if let Some(price) = changes.blob_base_fee {
        let blob_gasprice = u128::try_from(price).map_err(|_| {
            SimulateError::Request(format!("blobBaseFee {price} does not fit 128 bits"))
        })?;
        let excess_blob_gas = block
            .blob_excess_gas_and_price
            .map_or(0, |before| before.excess_blob_gas);
        block.blob_excess_gas_and_price = Some(BlobExcessGasAndPrice {
            excess_blob_gas,
            blob_gasprice,
        });
    }
    if changes.beacon_root.is_some() {
        return Err(SimulateError::Request(
            "block override beaconRoot has no meaning for a call".to_owned(),
        ));
    }
    Ok(())
}

/// The rule a call breaks, in the words clients of geth look for.
fn invalid_text(
    error: &InvalidTransaction,
    caller: alloy_primitives::Address,
    cap: u128,
    base_fee: u64,
) -> String {
    match error {
        InvalidTransaction::LackOfFundForMaxFee { fee, balance } => {
            format!(
                "insufficient funds for gas * price + value: address {caller} have {balance} want {fee}"
            )
        }
        InvalidTransaction::CallGasCostMoreThanGasLimit {
            initial_gas,
            gas_limit,
        } => {
            format!("intrinsic gas too low: have {gas_limit}, want {initial_gas}")
        }
        InvalidTransaction::GasFloorMoreThanGasLimit {
            gas_floor,
            gas_limit,
        } => {
            format!("insufficient gas for floor data gas cost: have {gas_limit}, want {gas_floor}")
        }
        InvalidTransaction::GasPriceLessThanBasefee => {
            format!(
                "max fee per gas less than block base fee: address {caller}, maxFeePerGas: {cap}, baseFee: {base_fee}"
            )
        }
        other => other.to_string(),
    }
}

/// An exceptional halt in the words of geth.
fn halt_text(reason: &HaltReason) -> String {
    match reason {
        HaltReason::OutOfGas(OutOfGasError::Basic | OutOfGasError::Precompile) => {
            "out of gas".to_owned()
        }
        HaltReason::OutOfGas(kind) => format!("out of gas: {kind}"),
        HaltReason::OpcodeNotFound | HaltReason::InvalidFEOpcode | HaltReason::NotActivated => {
            "invalid opcode".to_owned()
        }
        HaltReason::InvalidJump => "invalid jump destination".to_owned(),
        HaltReason::StackUnderflow => "stack underflow".to_owned(),
        HaltReason::StackOverflow => "stack limit reached 1024".to_owned(),
        HaltReason::OutOfOffset => "return data out of bounds".to_owned(),
        HaltReason::CreateCollision => "contract address collision".to_owned(),
        HaltReason::CreateContractSizeLimit => "max code size exceeded".to_owned(),
        HaltReason::CreateInitCodeSizeLimit => "max initcode size exceeded".to_owned(),
        HaltReason::CreateContractStartingWithEF => {
            "invalid code: must not begin with 0xef".to_owned()
        }
        HaltReason::StateChangeDuringStaticCall | HaltReason::CallNotAllowedInsideStatic => {
            "write protection".to_owned()
        }
        HaltReason::OutOfFunds => "insufficient balance for transfer".to_owned(),
        HaltReason::CallTooDeep => "max call depth exceeded".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
