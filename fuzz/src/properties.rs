//! The properties. Each function takes any bytes and panics where its property does not hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::transaction::{Recovered, SignerRecoverable as _, Transaction as _};
use alloy_primitives::{Address, B256, Bytes, TxKind, U256, keccak256};
use zvm_engine::builder::{BlockTemplate, Skipped, TransactionSource};
use zvm_engine::chain::{Chain, decode_block, genesis_header};
use zvm_engine::genesis::Genesis;
use zvm_engine::header::{blob_gas_used, validate_body};
use zvm_engine::transaction::{self, Tx};
use zvm_runtimes::container::Container;
use zvm_runtimes::detect::{Format, locate};
use zvm_runtimes::evm::{BlockState, Fork, Machine, ReadError, StateReader, cfg_env};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::{BlockEnv, TxEnv};
use zvm_runtimes::revm::state::AccountInfo as RevmAccountInfo;
use zvm_runtimes::trace::{TraceOptions, Tracer};
use zvm_storage::{
    AccountChange, AccountInfo, Batch, MemoryStore, StateDiff, Store, apply_state, rebuild_root,
    state_root,
};

use super::seeds;

/// Bytes that decode are the encoding of what they decode to; two libraries agree on who signed; no rule panics.
pub fn transaction_decode(bytes: &[u8]) {
    let Ok(tx) = transaction::decode(bytes) else {
        return;
    };
    assert_eq!(transaction::encode(&tx)[..], *bytes, "not canonical");
    let sender = transaction::recover(&tx).ok();
    assert_eq!(
        sender,
        tx.recover_signer_unchecked().ok(),
        "libsecp256k1 and k256 disagree"
    );
    for fork in Fork::all() {
        for chain_id in [1, tx.chain_id().unwrap_or_default()] {
            if transaction::validate(&tx, fork, chain_id).is_ok() {
                assert!(transaction::intrinsic_gas(&tx, fork) <= tx.gas_limit());
                assert!(transaction::max_cost(&tx).is_some());
            }
        }
    }
    if let Some(sender) = sender {
        assert_eq!(transaction::tx_env(&tx, sender).nonce, tx.nonce());
    }
}

/// A block that decodes survives encoding; importing it makes it the head or leaves the chain as it was.
pub fn block_decode(bytes: &[u8]) {
    let Ok(block) = decode_block(bytes) else {
        return;
    };
    assert_eq!(
        alloy_rlp::encode(&block),
        bytes,
        "two encodings of one block"
    );
    let _ = blob_gas_used(&block.body.transactions);
    for fork in Fork::all() {
        let _ = validate_body(fork, &block.header, &block.body);
    }
    let (store, chain) = open(&seeds::genesis());
    let before = chain.head().hash;
    let after = match chain.import(block) {
        Ok(imported) => imported.hash,
        Err(_) => before,
    };
    assert_eq!(chain.head().hash, after);
    assert_state_is_that_of_the_head(&store, &chain);
}

/// A container that parses is the encoding of what it parses to; code found in bytes is a part of them.
pub fn container_parse(bytes: &[u8]) {
    if let Ok(container) = Container::parse(bytes, None) {
        assert_eq!(container.encode().as_deref(), Ok(bytes));
        let _ = container.abi();
    }
    let formats = [Format::Evm, Format::Zvm, Format::ZvmLegacy, Format::Wasm];
    for named in formats.map(Some).into_iter().chain([None]) {
        if let Ok(located) = locate(bytes, named) {
            assert!(bytes.ends_with(located.code) || located.container.is_some());
            let _ = located.isa();
        }
    }
}

/// A genesis file that is accepted opens a chain whose state has the stated root, that opens again, and on which a
/// block can be built; a second chain from the same file then accepts that block.
pub fn genesis_json(bytes: &[u8]) {
    let Ok(genesis) = Genesis::from_json(bytes) else {
        return;
    };
    let (store, chain) = open(&genesis);
    assert_eq!(chain.head().hash, genesis_header(&genesis).hash_slow());
    assert_state_is_that_of_the_head(&store, &chain);
    let again = Chain::open(store.clone(), &genesis).expect("opens again");
    assert_eq!(again.head().hash, chain.head().hash);
    let template = BlockTemplate {
        gas_limit: 30_000_000,
        ..BlockTemplate::default()
    };
    // No block can follow where the rules refuse every header: a time or a number at the end of its range.
    if let Ok(built) = chain.build(&template, &mut NoTransactions) {
        let (_, follower) = open(&genesis);
        let imported = follower
            .import(built.block)
            .expect("accepts what was built");
        assert_eq!(imported.hash, built.hash);
        assert_state_is_that_of_the_head(&store, &chain);
    }
}

/// The incremental root after any sequence of diffs is the root rebuilt from the flat state.
pub fn trie_batches(bytes: &[u8]) {
    let mut input = Input(bytes);
    let store = MemoryStore::new();
    // A rebuild grows with the state: more diffs would only make each run slower.
    for _ in 0..12 {
        if input.is_empty() {
            break;
        }
        let diff = input.diff();
        let mut batch = Batch::new();
        let root = {
            let snapshot = store.snapshot().expect("memory");
            apply_state(&*snapshot, &diff, &mut batch).expect("applies")
        };
        store.commit(&batch).expect("memory");
        let snapshot = store.snapshot().expect("memory");
        assert_eq!(state_root(&*snapshot).expect("reads"), root);
        assert_eq!(rebuild_root(&*snapshot).expect("reads"), root);
    }
}

/// Any code ends, within its gas, creates no wei, and does under a tracer what it does without one.
pub fn evm_bytecode(bytes: &[u8]) {
    let mut input = Input(bytes);
    let forks: Vec<Fork> = Fork::all().collect();
    let fork = forks[usize::from(input.byte()) % forks.len()];
    // Enough for creates and precompiles, little enough that an endless loop ends soon.
    let gas_limit = 21_000 + u64::from(input.short()) * 4;
    let shape = input.byte();
    let calldata = input.bytes(usize::from(shape >> 4));
    let split = usize::from(input.byte());
    let code = input.0;
    let (first, second) = code.split_at(split.min(code.len()));
    let world = World::new(first, second);
    let tx = TxEnv {
        caller: SENDER,
        gas_limit,
        gas_price: 2,
        kind: if shape & 1 == 0 {
            TxKind::Call(CONTRACT)
        } else {
            TxKind::Create
        },
        value: U256::from(shape >> 1 & 1),
        data: if shape & 1 == 0 {
            calldata.to_vec().into()
        } else {
            Bytes::copy_from_slice(code)
        },
        ..TxEnv::default()
    };
    let block = BlockEnv {
        number: U256::from(300),
        beneficiary: Address::with_last_byte(0xcb),
        gas_limit: 30_000_000,
        ..BlockEnv::default()
    };
    let cfg = cfg_env(fork, 1, fork.default_blob_params());

    let mut machine = Machine::new(cfg.clone(), block.clone(), &world);
    let result = machine.execute(tx.clone());
    if let Ok(result) = &result {
        assert!(result.tx_gas_used() <= gas_limit, "more gas than the limit");
    }
    assert_no_wei_is_created(machine.state());

    let mut traced = Machine::new(cfg, block, &world);
    let tracer = Tracer::new(std::io::sink(), TraceOptions::default());
    let (under_tracer, tracer) = traced.execute_traced(tx, tracer);
    tracer.finish().expect("a sink takes everything");
    match (result, under_tracer) {
        (Ok(plain), Ok(traced)) => assert_eq!(plain, traced),
        (Err(plain), Err(traced)) => assert_eq!(plain.to_string(), traced.to_string()),
        (plain, traced) => panic!("{plain:?} without a tracer, {traced:?} with one"),
    }
    assert_eq!(balances(machine.state()), balances(traced.state()));
}

fn open(genesis: &Genesis) -> (Arc<MemoryStore>, Chain) {
    let store = Arc::new(MemoryStore::new());
    let chain = Chain::open(store.clone(), genesis).expect("an empty store takes any genesis");
    (store, chain)
}

fn assert_state_is_that_of_the_head(store: &MemoryStore, chain: &Chain) {
    let snapshot = store.snapshot().expect("memory");
    let root = chain.head().header.state_root;
    assert_eq!(state_root(&*snapshot).expect("reads"), root);
    assert_eq!(rebuild_root(&*snapshot).expect("reads"), root);
}

struct NoTransactions;

impl TransactionSource for NoTransactions {
    fn next(&mut self, _: u64) -> Option<Recovered<Tx>> {
        None
    }
    fn skipped(&mut self, _: Recovered<Tx>, _: Skipped) {}
}

/// Bytes taken from the front; zeros when there are none left.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// Few addresses, slots and values, so that diffs meet each other's leaves and branches collapse.
    fn diff(&mut self) -> StateDiff {
        let accounts = (0..1 + self.byte() % 8).map(|_| {
            let address = Address::with_last_byte(self.byte() % 24);
            let shape = self.byte();
            let info = (!shape.is_multiple_of(8)).then(|| AccountInfo {
                nonce: u64::from(shape >> 6),
                balance: U256::from(self.byte()) << usize::from(shape),
                ..AccountInfo::default()
            });
            let slots = (0..(shape >> 3) % 8).map(|_| {
                let slot = U256::from(self.byte() % 24);
                let value = self.byte();
                (slot, U256::from(value / 2) << usize::from(value))
            });
            let change = AccountChange {
                info,
                wipe_storage: shape % 8 == 1,
                slots: slots.collect(),
            };
            (address, change)
        });
        StateDiff {
            accounts: accounts.collect(),
            codes: BTreeMap::new(),
        }
    }
}

const SENDER: Address = Address::with_last_byte(0x5e);
const CONTRACT: Address = Address::with_last_byte(0xc0);
const OTHER: Address = Address::with_last_byte(0xc1);

/// A sender with ether and two contracts, at addresses that one push names.
struct World {
    accounts: BTreeMap<Address, RevmAccountInfo>,
    codes: BTreeMap<B256, Bytecode>,
}

impl World {
    fn new(first: &[u8], second: &[u8]) -> Self {
        let mut world = Self {
            accounts: BTreeMap::new(),
            codes: BTreeMap::new(),
        };
        world.accounts.insert(
            SENDER,
            RevmAccountInfo {
                balance: U256::from(10).pow(U256::from(18)),
                ..RevmAccountInfo::default()
            },
        );
        for (address, code) in [(CONTRACT, first), (OTHER, second)] {
            let code_hash = keccak256(code);
            world.accounts.insert(
                address,
                RevmAccountInfo {
                    balance: U256::from(1000),
                    nonce: 1,
                    code_hash,
                    ..RevmAccountInfo::default()
                },
            );
            let code = Bytecode::new_legacy(Bytes::copy_from_slice(code));
            world.codes.insert(code_hash, code);
        }
        world
    }
}

impl StateReader for World {
    fn account(&self, address: &Address) -> Result<Option<RevmAccountInfo>, ReadError> {
        Ok(self.accounts.get(address).cloned().map(|mut info| {
            info.code = None;
            info
        }))
    }

    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        let written = *address == CONTRACT && *slot < U256::from(4);
        Ok(if written {
            *slot + U256::ONE
        } else {
            U256::ZERO
        })
    }

    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        let code = self.codes.get(hash).cloned();
        code.ok_or_else(|| ReadError::new(format!("no code with hash {hash}")))
    }

    fn has_storage(&self, address: &Address) -> Result<bool, ReadError> {
        Ok(*address == CONTRACT)
    }

    fn block_hash(&self, number: u64) -> Result<B256, ReadError> {
        Ok(keccak256(number.to_be_bytes()))
    }
}

fn balances(state: &BlockState<'_>) -> BTreeMap<Address, Option<U256>> {
    let balance = |info: Option<&RevmAccountInfo>| info.map(|info| info.balance);
    state
        .accounts()
        .iter()
        .map(|(address, account)| (*address, balance(account.info())))
        .collect()
}

fn assert_no_wei_is_created(state: &BlockState<'_>) {
    let sum = |balances: &mut dyn Iterator<Item = U256>| balances.fold(U256::ZERO, |a, b| a + b);
    let accounts = state.accounts().values();
    let before = sum(&mut accounts
        .clone()
        .flat_map(|account| &account.original)
        .map(|info| info.balance));
    let after = sum(&mut accounts
        .flat_map(|account| account.info())
        .map(|info| info.balance));
    assert!(
        after <= before,
        "{after} wei after, {before} before, fees included"
    );
}
