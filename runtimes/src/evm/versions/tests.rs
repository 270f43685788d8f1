use alloy_primitives::map::HashMap;
use alloy_primitives::{Bytes, TxKind, address};
use revm::context::{BlockEnv, TxEnv};

use super::*;
use crate::evm::{Fork, Machine, cfg_env};

const RICH: Address = address!("00000000000000000000000000000000000000a1");
const OTHER: Address = address!("00000000000000000000000000000000000000a2");
const FRESH: Address = address!("00000000000000000000000000000000000000a3");
/// PUSH1 0 SLOAD PUSH1 1 ADD PUSH1 0 SSTORE
const COUNTER: Address = address!("00000000000000000000000000000000000000c1");
/// PUSH1 a1 BALANCE PUSH1 0 SSTORE
const READER: Address = address!("00000000000000000000000000000000000000c2");
const BENEFICIARY: Address = address!("00000000000000000000000000000000000000cb");

/// A world that counts what is read from it.
#[derive(Default)]
struct World {
    reads: Mutex<HashMap<(Address, Option<U256>), u32>>,
}

fn program(address: &Address) -> Option<Bytecode> {
    let code: &'static [u8] = match *address {
        COUNTER => &[0x60, 0, 0x54, 0x60, 1, 0x01, 0x60, 0, 0x55],
        READER => &[0x60, 0xa1, 0x31, 0x60, 0, 0x55],
        _ => return None,
    };
    Some(Bytecode::new_legacy(Bytes::from_static(code)))
}

impl World {
    fn note(&self, address: &Address, slot: Option<U256>) {
        *self.reads.lock().entry((*address, slot)).or_default() += 1;
    }
}

impl StateReader for World {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        self.note(address, None);
        let balance = match *address {
            RICH | OTHER => U256::from(1_000_000_u64),
            COUNTER | READER => U256::ZERO,
            _ => return Ok(None),
        };
        let code_hash = program(address).map_or(KECCAK256_EMPTY, |code| code.hash_slow());
        Ok(Some(AccountInfo {
            balance,
            code_hash,
            code: None,
            ..AccountInfo::default()
        }))
    }
    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        self.note(address, Some(*slot));
        Ok(U256::ZERO)
    }
    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        let programs = [COUNTER, READER].iter().filter_map(program);
        let mut found = programs.filter(|code| code.hash_slow() == *hash);
        found.next().ok_or_else(|| ReadError::new("no such code"))
    }
    fn has_storage(&self, _: &Address) -> Result<bool, ReadError> {
        Ok(false)
    }
    fn block_hash(&self, _: u64) -> Result<B256, ReadError> {
        Ok(B256::ZERO)
    }
}

fn tx(from: Address, to: Address, value: u64, nonce: u64) -> TxEnv {
    TxEnv {
        caller: from,
        kind: TxKind::Call(to),
        value: U256::from(value),
        nonce,
        gas_limit: 100_000,
        gas_price: 1,
        ..TxEnv::default()
    }
}

/// A block under way with one worker that does what it is told.
struct Bench<'v> {
    versions: &'v Versions,
    reader: &'v VersionReader<'v>,
    machine: Machine<'v>,
    spare: Speculation,
}

impl Bench<'_> {
    fn early(&mut self, index: u32, tx: TxEnv) {
        self.run(index, tx, false);
        self.versions.publish(index, &mut self.spare);
    }

    fn run(&mut self, index: u32, tx: TxEnv, in_turn: bool) {
        self.machine
            .execute_early(index, tx, self.reader, &mut self.spare, in_turn);
    }

    /// Decides about a transaction; whether it held.
    fn decide(&mut self, index: u32) -> bool {
        let base = self.reader.base();
        self.versions
            .take(index, base, |_, check| (check.is_ok(), check.is_ok()))
            .unwrap()
    }

    fn again(&mut self, index: u32, tx: TxEnv) {
        self.run(index, tx, true);
        assert!(
            matches!(self.spare.result, Some(Ok(_))),
            "{:?}",
            self.spare.result
        );
        let base = self.reader.base();
        self.versions.keep(index, &self.spare, base).unwrap();
    }
}

fn with_bench(world: &World, run: impl FnOnce(&mut Bench<'_>)) -> BlockState<'_> {
    let mut state = BlockState::new(world);
    let versions = Versions::new(&mut state, BENEFICIARY, 8);
    {
        let reader = VersionReader::new(&versions, world);
        let block = BlockEnv {
            beneficiary: BENEFICIARY,
            ..BlockEnv::default()
        };
        let machine = Machine::early(cfg_env(Fork::Cancun, 1, None), block, &reader);
        run(&mut Bench {
            versions: &versions,
            reader: &reader,
            machine,
            spare: Speculation::default(),
        });
    }
    versions.finish(&mut state);
    state
}

fn balance(state: &BlockState<'_>, address: Address) -> u64 {
    let info = state.accounts()[&address].info();
    info.map_or(0, |info| info.balance.to())
}

#[test]
fn credits_and_debits_of_one_account_are_in_nobodys_way() {
    let world = World::default();
    let state = with_bench(&world, |bench| {
        // All four executed on the state before the block, the last to be decided first.
        for (index, tx) in [
            (3, tx(OTHER, RICH, 5, 1)),
            (2, tx(RICH, OTHER, 7, 1)),
            (1, tx(OTHER, RICH, 11, 0)),
            (0, tx(RICH, OTHER, 13, 0)),
        ] {
            bench.early(index, tx);
        }
        for index in 0..4 {
            assert!(bench.decide(index), "{index}");
        }
    });
    assert_eq!(
        balance(&state, RICH),
        1_000_000 - 13 + 11 - 7 + 5 - 2 * 21_000
    );
    assert_eq!(
        balance(&state, OTHER),
        1_000_000 + 13 - 11 + 7 - 5 - 2 * 21_000
    );
    assert_eq!(balance(&state, BENEFICIARY), 4 * 21_000);
    assert_eq!(state.accounts()[&RICH].info().unwrap().nonce, 2);
}

#[test]
fn a_debit_that_is_not_covered_in_its_turn_is_executed_again() {
    let world = World::default();
    with_bench(&world, |bench| {
        bench.early(1, tx(RICH, FRESH, 700_000, 1));
        bench.early(0, tx(RICH, OTHER, 700_000, 0));
        assert!(bench.decide(0));
        assert!(!bench.decide(1));
        bench.run(1, tx(RICH, FRESH, 700_000, 1), true);
        assert!(matches!(
            bench.spare.result,
            Some(Err(MachineError::Invalid(_)))
        ));
    });
}

#[test]
fn whoever_reads_a_balance_or_a_slot_must_have_read_the_right_value() {
    let world = World::default();
    let state = with_bench(&world, |bench| {
        bench.early(1, tx(OTHER, COUNTER, 0, 0));
        bench.early(2, tx(OTHER, READER, 0, 1));
        bench.early(0, tx(RICH, COUNTER, 0, 0));
        assert!(bench.decide(0));
        assert!(!bench.decide(1), "the slot");
        bench.again(1, tx(OTHER, COUNTER, 0, 0));
        assert!(!bench.decide(2), "the balance");
        bench.again(2, tx(OTHER, READER, 0, 1));
        // What was published before is seen by those after it, so nothing is in the way.
        bench.early(3, tx(RICH, COUNTER, 0, 1));
        bench.early(4, tx(OTHER, COUNTER, 0, 2));
        assert!(bench.decide(3) && bench.decide(4));
    });
    let slot = |address: Address| state.accounts()[&address].storage[&U256::ZERO].present();
    assert_eq!(slot(COUNTER), U256::from(4));
    assert!(slot(READER) < U256::from(1_000_000));
}

#[test]
fn a_value_that_came_back_is_the_right_value() {
    let world = World::default();
    with_bench(&world, |bench| {
        bench.early(2, tx(OTHER, READER, 0, 0));
        // The reader runs before the two that move the balance away and back, as if fees were nothing.
        bench.early(0, tx(RICH, FRESH, 0, 0));
        assert!(bench.decide(0));
        bench.early(1, tx(FRESH, RICH, 0, 0));
        assert!(!bench.decide(1), "it cannot pay");
        assert!(!bench.decide(2), "the fee is gone");
    });
}

#[test]
fn the_state_below_is_read_once() {
    let world = World::default();
    with_bench(&world, |bench| {
        for index in 0..6 {
            bench.early(index, tx(RICH, COUNTER, 0, u64::from(index)));
        }
        for index in 0..6 {
            assert!(bench.decide(index), "{index}");
        }
    });
    let reads = world.reads.lock();
    assert!(reads.contains_key(&(COUNTER, Some(U256::ZERO))));
    assert!(reads.values().all(|count| *count == 1), "{reads:?}");
}
