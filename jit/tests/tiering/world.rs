//! A state of contracts, and everything that can be seen of a call.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use zvm_runtimes::evm::{Fork, FrameRunner, Machine, ReadError, StateReader, cfg_env};
use zvm_runtimes::isa::{Isa, assemble};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::{BlockEnv, CfgEnv, TxEnv};
use zvm_runtimes::revm::state::AccountInfo;

type OnRead = Box<dyn Fn() + Send + Sync>;

/// Contracts by number, and what happens while slot [`World::SLOW`] is read.
#[derive(Default)]
pub struct World {
    codes: Vec<(B256, Bytecode)>,
    by_hash: HashMap<B256, usize>,
    on_slow_read: Option<OnRead>,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} contracts", self.codes.len())
    }
}

impl World {
    /// Reading this slot does what the test wants in the middle of a frame.
    pub const SLOW: U256 = U256::from_limbs([99, 0, 0, 0]);

    /// Contracts 0, 1, … of these codes.
    pub fn new(codes: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let codes: Vec<(B256, Bytecode)> = codes
            .into_iter()
            .map(|code| Bytecode::new_legacy(code.into()))
            .map(|code| (code.hash_slow(), code))
            .collect();
        let by_hash = codes
            .iter()
            .enumerate()
            .map(|(number, (hash, _))| (*hash, number))
            .collect();
        Self {
            codes,
            by_hash,
            on_slow_read: None,
        }
    }

    /// One contract, in assembler text.
    pub fn of(text: &str) -> Self {
        Self::new([assembled(text)])
    }

    /// Does this while [`World::SLOW`] is read.
    #[must_use]
    pub fn on_slow_read(mut self, action: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_slow_read = Some(Box::new(action));
        self
    }

    /// The address of a contract.
    pub fn address(number: usize) -> Address {
        Address::left_padding_from(&(number as u64 + 0xc000_0000).to_be_bytes())
    }

    /// The hash of its code.
    pub fn hash(&self, number: usize) -> B256 {
        self.codes[number].0
    }
}

/// Code from assembler text.
pub fn assembled(text: &str) -> Vec<u8> {
    assemble(Isa::Evm, text).expect("assembles")
}

/// Counts down from the last word of the call data (0: from `rounds`) and stores and returns what it summed up.
pub fn countdown(rounds: u64) -> String {
    format!(
        "PUSH0 PUSH8 {rounds} :loop JUMPDEST DUP1 PUSH1 7 MUL DUP3 ADD SWAP2 POP PUSH1 1 SWAP1 SUB DUP1 PUSH2 @loop \
         JUMPI POP DUP1 PUSH1 1 SSTORE PUSH0 MSTORE GAS PUSH1 32 MSTORE PUSH1 64 PUSH0 RETURN"
    )
}

impl StateReader for World {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        let number = u64::from_be_bytes(address[12..].try_into().expect("eight bytes"));
        let code = number
            .checked_sub(0xc000_0000)
            .and_then(|number| self.codes.get(number as usize));
        Ok(code.map(|(hash, _)| AccountInfo {
            nonce: 1,
            code_hash: *hash,
            code: None,
            ..AccountInfo::default()
        }))
    }
    fn storage(&self, _: &Address, slot: &U256) -> Result<U256, ReadError> {
        if *slot == Self::SLOW
            && let Some(action) = &self.on_slow_read
        {
            action();
        }
        Ok(slot.saturating_add(U256::from(5)))
    }
    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        let number = self.by_hash.get(hash);
        Ok(number.map_or_else(Bytecode::default, |number| self.codes[*number].1.clone()))
    }
    fn has_storage(&self, _: &Address) -> Result<bool, ReadError> {
        Ok(false)
    }
    fn block_hash(&self, _: u64) -> Result<B256, ReadError> {
        Ok(B256::ZERO)
    }
}

/// Status, output, logs, gas, refund and the slots that were changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen(String, BTreeMap<(Address, U256), U256>);

/// The configuration of a fork.
pub fn cfg(fork: Fork) -> CfgEnv {
    let mut cfg = cfg_env(fork, 1, fork.default_blob_params());
    // Long loops are what is tested.
    cfg.tx_gas_limit_cap = Some(u64::MAX);
    cfg.disable_block_gas_limit = true;
    cfg
}

/// A machine on the world.
pub fn machine<'w>(
    world: &'w World,
    cfg: CfgEnv,
    runner: Option<Arc<dyn FrameRunner>>,
) -> Machine<'w> {
    let block = BlockEnv {
        prevrandao: Some(B256::ZERO),
        ..BlockEnv::default()
    };
    let mut machine = Machine::new(cfg, block, world);
    if let Some(runner) = runner {
        machine.set_runner(runner);
    }
    machine
}

/// Calls a contract.
pub fn call(machine: &mut Machine<'_>, number: usize, gas_limit: u64) -> Seen {
    let result = machine.execute(TxEnv {
        kind: TxKind::Call(World::address(number)),
        gas_limit,
        data: Bytes::from_static(b"some calldata that is longer than one word of memory"),
        nonce: machine
            .state()
            .accounts()
            .get(&Address::ZERO)
            .and_then(|account| account.info())
            .map_or(0, |info| info.nonce),
        chain_id: Some(1),
        ..TxEnv::default()
    });
    let slots = machine
        .state()
        .accounts()
        .iter()
        .flat_map(|(address, account)| {
            let slots = account.storage.iter();
            slots.map(|(slot, value)| ((*address, *slot), value.present()))
        })
        .collect();
    Seen(format!("{result:?}"), slots)
}

/// Calls contract 0 on a new machine.
pub fn run(world: &World, gas_limit: u64, runner: Option<Arc<dyn FrameRunner>>) -> Seen {
    run_number(world, 0, gas_limit, runner)
}

/// Calls a contract on a new machine.
pub fn run_number(
    world: &World,
    number: usize,
    gas_limit: u64,
    runner: Option<Arc<dyn FrameRunner>>,
) -> Seen {
    let mut machine = machine(world, cfg(Fork::LATEST), runner);
    call(&mut machine, number, gas_limit)
}
