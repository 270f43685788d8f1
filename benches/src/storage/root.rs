//! The state root of a block: its time by the size of the state, beside a rebuild, and on top of the block's
//! execution.

use std::path::Path;
use std::time::Instant;

use alloy_primitives::{Address, B256, U256, keccak256};
use serde::Serialize;
use zvm_engine::roots::BlockRoot;
use zvm_engine::view::{CodeCache, StateView, state_diff};
use zvm_runtimes::evm::{BlockState, Fork, Machine, cfg_env};
use zvm_runtimes::revm::context::{BlockEnv, TxEnv};
use zvm_runtimes::revm::primitives::TxKind;
use zvm_storage::{
    AccountChange, AccountInfo, Batch, LmdbOptions, LmdbStore, StateDiff, Store, StoreError,
    apply_state, rebuild_root,
};

/// Changed accounts of the block: half of them senders, half contracts.
const ACCOUNTS: u64 = 2_000;
/// Slots each contract writes; with [`ACCOUNTS`] 5,000 in all.
const SLOTS: u64 = 5;
/// Slots a contract has before.
const SLOTS_BEFORE: u64 = 10;
/// One account in so many is a contract.
const CONTRACT_EVERY: u64 = 10;
/// Accounts committed at once while the state is made.
const TOGETHER: u64 = 50_000;

/// What is measured.
#[derive(Clone, Debug)]
pub struct Options {
    /// Sizes of the state, in accounts; the figures beside execution are those of the last but one, or of the only.
    pub accounts: Vec<u64>,
    /// How often each is measured; medians count.
    pub repeat: usize,
}

impl Default for Options {
    /// 10,000, 100,000 and 1,000,000 accounts, 7 times.
    fn default() -> Self {
        Self {
            accounts: vec![10_000, 100_000, 1_000_000],
            repeat: 7,
        }
    }
}

/// Figures of one size.
#[derive(Clone, Debug, Serialize)]
pub struct BySize {
    /// Accounts in the state.
    pub accounts: u64,
    /// Milliseconds from the diff to the root and its writes, on all threads.
    pub ms: f64,
    /// The same on one thread.
    pub one_thread_ms: f64,
    /// Nanoseconds a changed account or slot, on all threads.
    pub ns_per_entry: f64,
    /// Milliseconds of a rebuild from the flat tables.
    pub rebuild_ms: f64,
    /// Milliseconds to execute the block, without any root.
    pub execution_ms: f64,
    /// Milliseconds to execute it and have its root and writes, the root worked on meanwhile.
    pub overlapped_ms: f64,
    /// The same, the root worked on only after the block, by one thread.
    pub after_ms: f64,
}

/// Figures of the state root.
#[derive(Clone, Debug, Serialize)]
pub struct Root {
    /// Milliseconds of a block's root.
    pub ms: f64,
    /// Milliseconds of a rebuild.
    pub rebuild_ms: f64,
    /// What the root adds to the time of execution when overlapped, as a share of that time.
    pub share_of_execution: f64,
    /// By the size of the state.
    pub by_accounts: Vec<BySize>,
}

/// A measurement failed.
#[derive(Debug, thiserror::Error)]
pub enum RootBenchError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The block does not execute as it should.
    #[error("the block: {0}")]
    Block(String),
    /// Two ways to one root differ.
    #[error("{way} gives the root {found}, not {expected}")]
    Differs {
        /// Which.
        way: &'static str,
        /// Its root.
        found: B256,
        /// The other.
        expected: B256,
    },
}

/// Measures, in a store made in `folder`.
///
/// # Errors
/// [`RootBenchError`]; among them that two ways to a root differ.
pub fn run(folder: &Path, options: &Options) -> Result<Root, RootBenchError> {
    let mut by_accounts = Vec::new();
    for accounts in &options.accounts {
        let store = LmdbStore::open(LmdbOptions {
            durability: zvm_storage::Durability::Relaxed,
            ..LmdbOptions::new(folder.join(accounts.to_string()))
        })?;
        fill(&store, *accounts)?;
        by_accounts.push(measure(&store, *accounts, options.repeat)?);
    }
    let shown = by_accounts
        .iter()
        .find(|size| size.accounts == 1_000_000)
        .or(by_accounts.last())
        .ok_or_else(|| RootBenchError::Block("no size was asked for".into()))?;
    Ok(Root {
        ms: shown.ms,
        rebuild_ms: shown.rebuild_ms,
        share_of_execution: shown.overlapped_ms / shown.execution_ms - 1.0,
        by_accounts,
    })
}

fn address(index: u64) -> Address {
    Address::from_word(keccak256(index.to_be_bytes()))
}

/// Code that adds one to each of the [`SLOTS`] slots its input names.
fn code() -> Vec<u8> {
    let step = |slot: u64| {
        let [calldataload, dup1, sload, push1, add, swap1, sstore] =
            [0x35, 0x80, 0x54, 0x60, 0x01, 0x90, 0x55];
        let word = (32 * slot) as u8;
        [
            push1,
            word,
            calldataload,
            dup1,
            sload,
            push1,
            1,
            add,
            swap1,
            sstore,
        ]
    };
    (0..SLOTS).flat_map(step).collect()
}

/// Accounts with a balance; every tenth is a contract with slots.
fn fill(store: &LmdbStore, accounts: u64) -> Result<(), RootBenchError> {
    let code = code();
    let code_hash = keccak256(&code);
    for first in (0..accounts).step_by(TOGETHER as usize) {
        let mut diff = StateDiff::default();
        diff.codes.insert(code_hash, code.clone().into());
        for index in first..(first + TOGETHER).min(accounts) {
            diff.accounts
                .insert(address(index), account(index, code_hash));
        }
        let mut batch = Batch::new();
        apply_state(&*store.snapshot()?, &diff, &mut batch)?;
        store.commit(&batch)?;
    }
    Ok(())
}

fn is_contract(index: u64) -> bool {
    index.is_multiple_of(CONTRACT_EVERY)
}

fn account(index: u64, code_hash: B256) -> AccountChange {
    let mut info = AccountInfo {
        balance: U256::from(1_000_000_000_000_000_000_u64) + U256::from(index),
        ..AccountInfo::default()
    };
    let mut change = AccountChange::default();
    if is_contract(index) {
        info.nonce = 1;
        info.code_hash = code_hash;
        change.slots = (0..SLOTS_BEFORE)
            .map(|slot| (U256::from(slot), U256::from(index + 1)))
            .collect();
    }
    change.info = Some(info);
    change
}

/// The block: each sender calls another contract, which writes its slots.
fn block(accounts: u64) -> Vec<TxEnv> {
    let calls = ACCOUNTS / 2;
    let contracts = accounts / CONTRACT_EVERY;
    // Spread over the state, each once.
    let call = |index: u64| {
        let contract = index * contracts / calls * CONTRACT_EVERY;
        let sender = contract + 1 + index % (CONTRACT_EVERY - 1);
        let slots = (0..SLOTS).map(|slot| U256::from((index + 2 * slot) % SLOTS_BEFORE));
        let input: Vec<u8> = slots.flat_map(|slot| slot.to_be_bytes::<32>()).collect();
        TxEnv {
            caller: address(sender),
            kind: TxKind::Call(address(contract)),
            data: input.into(),
            gas_limit: 100_000,
            chain_id: Some(1),
            ..TxEnv::default()
        }
    };
    (0..calls).map(call).collect()
}

/// Executes the block with `after` called after each transaction.
fn execute<'a>(
    view: &'a StateView<'a>,
    block: &[TxEnv],
    after: &mut dyn FnMut(u64, &mut BlockState<'_>) -> Result<(), StoreError>,
) -> Result<BlockState<'a>, RootBenchError> {
    let env = BlockEnv {
        gas_limit: 1 << 40,
        ..BlockEnv::default()
    };
    let mut machine = Machine::new(cfg_env(Fork::Cancun, 1, None), env, view);
    let mut gas_used = 0;
    for tx in block {
        let result = machine.execute(tx.clone());
        let result = result.map_err(|error| RootBenchError::Block(error.to_string()))?;
        if !result.is_success() {
            return Err(RootBenchError::Block(format!("{result:?}")));
        }
        gas_used += result.tx_gas_used();
        after(gas_used, machine.state_mut())?;
    }
    Ok(machine.into_state())
}

fn measure(store: &LmdbStore, accounts: u64, repeat: usize) -> Result<BySize, RootBenchError> {
    let block = block(accounts);
    let codes = CodeCache::default();
    let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let alone = alone.map_err(|error| RootBenchError::Block(error.to_string()))?;
    let mut times: [Vec<f64>; 5] = Default::default();
    let mut entries = 0;
    let started = Instant::now();
    let rebuilt = rebuild_root(&*store.snapshot()?)?;
    let rebuild_ms = milliseconds(started);
    same(
        "the rebuild",
        rebuilt,
        zvm_storage::state_root(&*store.snapshot()?)?,
    )?;
    // Once more than counts: the first warms the caches.
    for round in 0..=repeat {
        let snapshot = store.snapshot()?;
        let snapshot = &*snapshot;
        let view = StateView::new(snapshot, &codes).with_fork(Fork::Cancun);

        let started = Instant::now();
        let state = execute(&view, &block, &mut |_, _| Ok(()))?;
        let execution = milliseconds(started);

        let diff = state_diff(&state);
        entries = diff.entries();
        let started = Instant::now();
        let mut expected = Batch::new();
        let root = apply_state(snapshot, &diff, &mut expected)?;
        let together = milliseconds(started);

        let mut batch = Batch::new();
        let (one, found) = alone.install(|| {
            let started = Instant::now();
            let found = apply_state(&*store.snapshot()?, &diff, &mut batch)?;
            Ok::<_, StoreError>((milliseconds(started), found))
        })?;
        same("one thread", found, root)?;

        let started = Instant::now();
        let (found, overlapped) = std::thread::scope(|scope| {
            let mut task = BlockRoot::new(scope, snapshot, true);
            let mut state = execute(&view, &block, &mut |gas_used, state| {
                task.executed(gas_used, state)
            })?;
            let mut batch = Batch::new();
            let found = task.finish(&mut state, &mut batch)?;
            let time = milliseconds(started);
            if batch != expected {
                return Err(RootBenchError::Block("other writes when overlapped".into()));
            }
            Ok((found, time))
        })?;
        same("the overlapped", found, root)?;

        let (after, found) = alone.install(|| {
            let started = Instant::now();
            let snapshot = store.snapshot()?;
            let view = StateView::new(&*snapshot, &codes).with_fork(Fork::Cancun);
            let state = execute(&view, &block, &mut |_, _| Ok(()))?;
            let found = apply_state(&*snapshot, &state_diff(&state), &mut Batch::new())?;
            Ok::<_, RootBenchError>((milliseconds(started), found))
        })?;
        same("one after the other", found, root)?;
        if round > 0 {
            let measured = [execution, together, one, overlapped, after];
            for (times, time) in times.iter_mut().zip(measured) {
                times.push(time);
            }
        }
    }
    let [execution_ms, ms, one_thread_ms, overlapped_ms, after_ms] = times.map(median);
    Ok(BySize {
        accounts,
        ms,
        one_thread_ms,
        ns_per_entry: ms * 1e6 / entries as f64,
        rebuild_ms,
        execution_ms,
        overlapped_ms,
        after_ms,
    })
}

fn same(way: &'static str, found: B256, expected: B256) -> Result<(), RootBenchError> {
    match found == expected {
        true => Ok(()),
        false => Err(RootBenchError::Differs {
            way,
            found,
            expected,
        }),
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
