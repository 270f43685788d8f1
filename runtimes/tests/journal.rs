//! One machine for many transactions, which keeps accounts and slots between them, against a new machine for each, which
//! loads everything again: the same results and the same state, whatever the transactions do.

use std::collections::HashMap;

use alloy_primitives::{Address, B256, Bytes, TxKind, U256};
use proptest::prelude::*;
use zvm_runtimes::evm::{BlockState, Fork, Machine, ReadError, StateReader, cfg_env};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::{BlockEnv, CfgEnv, TxEnv};
use zvm_runtimes::revm::state::AccountInfo;

const STORE: Address = Address::repeat_byte(0xa0);
const CALLER: Address = Address::repeat_byte(0xb0);
const BOMB: Address = Address::repeat_byte(0xc0);
const EMPTY: Address = Address::repeat_byte(0xe0);
const SENDERS: [Address; 2] = [Address::repeat_byte(1), Address::repeat_byte(2)];

/// Reads slot `word 0`, writes `word 1` there, reads it again; reverts if `word 2` is not zero; returns both values and the
/// gas left.
const STORE_CODE: &str = "600035546000526020356000355560003554602052\
    5a604052604035156025576000 6000fd5b60606000f3";
/// Calls the store with its own input twice and the bomb once, passing a wei, and remembers the outcomes.
const CALLER_CODE: &str = "608060006000376060608060806000600073a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a05af1\
    606060e060806000600073a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a05af101\
    600060006000600060603573c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c05af1016000356101000155\
    6101406000f3";
/// Gives what it has to `word 0` and ends.
const BOMB_CODE: &str = "600035ff";
fn code(text: &str) -> Bytecode {
    let digits: String = text.split_whitespace().collect();
    Bytecode::new_legacy(digits.parse::<Bytes>().expect("hex digits"))
}

struct World(HashMap<Address, AccountInfo>, HashMap<B256, Bytecode>);

impl World {
    fn new() -> Self {
        let (mut accounts, mut codes) = (HashMap::new(), HashMap::new());
        let contracts = [
            (STORE, STORE_CODE),
            (CALLER, CALLER_CODE),
            (BOMB, BOMB_CODE),
        ];
        for (address, text) in contracts {
            let code = code(text);
            let info = AccountInfo {
                balance: U256::from(1000),
                nonce: 1,
                code_hash: code.hash_slow(),
                code: None,
                ..AccountInfo::default()
            };
            codes.insert(info.code_hash, code);
            accounts.insert(address, info);
        }
        for sender in SENDERS {
            accounts.insert(
                sender,
                AccountInfo {
                    balance: U256::from(10).pow(U256::from(18)),
                    code: None,
                    ..AccountInfo::default()
                },
            );
        }
        Self(accounts, codes)
    }
}

impl StateReader for World {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        Ok(self.0.get(address).cloned())
    }
    fn storage(&self, address: &Address, slot: &U256) -> Result<U256, ReadError> {
        let written = *address == STORE && *slot == U256::from(1);
        Ok(U256::from(if written { 7 } else { 0 }))
    }
    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        self.1
            .get(hash)
            .cloned()
            .ok_or_else(|| ReadError::new("no such code"))
    }
    fn has_storage(&self, address: &Address) -> Result<bool, ReadError> {
        Ok(*address == STORE)
    }
    fn block_hash(&self, _: u64) -> Result<B256, ReadError> {
        Ok(B256::ZERO)
    }
}

fn transaction() -> impl Strategy<Value = TxEnv> {
    let small = || {
        prop_oneof![
            3 => (0u64..3).prop_map(U256::from),
            1 => Just(U256::from_be_slice(EMPTY.as_slice())),
        ]
    };
    let target = prop_oneof![
        3 => Just(TxKind::Call(STORE)),
        4 => Just(TxKind::Call(CALLER)),
        2 => Just(TxKind::Call(BOMB)),
        1 => Just(TxKind::Call(EMPTY)),
        1 => Just(TxKind::Call(SENDERS[1])),
        1 => Just(TxKind::Call(Address::with_last_byte(3))),
        1 => Just(TxKind::Create),
    ];
    let words = [small(), small(), small(), small()];
    let gas = prop_oneof![4 => Just(300_000u64), 1 => 53_000u64..110_000];
    (0usize..2, target, 0u64..3, words, gas).prop_map(|(sender, kind, value, words, gas_limit)| {
        let data: Vec<u8> = match kind {
            // Writes slot 0 and, for an odd first word, ends itself at once; leaves no code otherwise.
            TxKind::Create if words[0].bit(0) => vec![0x60, 1, 0x60, 0, 0x55, 0x33, 0xff],
            TxKind::Create => vec![0x60, 1, 0x60, 0, 0x55, 0],
            TxKind::Call(_) => words
                .iter()
                .flat_map(|word| word.to_be_bytes::<32>())
                .collect(),
        };
        TxEnv {
            caller: SENDERS[sender],
            kind,
            value: U256::from(value),
            data: data.into(),
            gas_limit,
            gas_price: 1,
            chain_id: Some(1),
            ..TxEnv::default()
        }
    })
}

fn cfg(fork: Fork) -> CfgEnv {
    let mut cfg = cfg_env(fork, 1, fork.default_blob_params());
    cfg.disable_nonce_check = true;
    cfg
}

/// Everything that is known of the accounts, in an order.
fn contents(state: &BlockState<'_>) -> Vec<String> {
    let mut lines: Vec<_> = state
        .accounts()
        .iter()
        .map(|(address, account)| {
            let slots = account.storage.iter();
            let mut slots: Vec<_> = slots
                .map(|(key, slot)| (*key, slot.original, slot.present(), slot.written))
                .collect();
            slots.sort_unstable();
            let info = |info: Option<&AccountInfo>| {
                info.map(|info| (info.balance, info.nonce, info.code_hash))
            };
            format!(
                "{address} {:?} {:?} wiped {} touched {} {slots:?}",
                info(account.original.as_ref()),
                info(account.info()),
                account.wiped,
                account.touched
            )
        })
        .collect();
    lines.sort_unstable();
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_machine_that_keeps_accounts_does_what_one_does_that_loads_them(
        fork in prop_oneof![
            Just(Fork::Frontier), Just(Fork::Byzantium), Just(Fork::Berlin), Just(Fork::London),
            Just(Fork::Cancun), Just(Fork::Osaka),
        ],
        transactions in prop::collection::vec((transaction(), 0u8..8), 1..24),
    ) {
        let (world, block) = (World::new(), BlockEnv { beneficiary: SENDERS[1], ..BlockEnv::default() });
        let mut kept = Machine::new(cfg(fork), block.clone(), &world);
        let mut loaded = BlockState::new(&world);
        for (transaction, how) in transactions {
            let mut fresh = Machine::with_state(cfg(fork), block.clone(), loaded);
            match how {
                // Dropped after the execution, outside of a transaction, between changes: what was kept is stale then.
                0 => {
                    let refuse = |_: &_| Err::<(), _>(());
                    let a = kept.execute_if(transaction.clone(), refuse).map_err(|error| error.to_string());
                    let b = fresh.execute_if(transaction, refuse).map_err(|error| error.to_string());
                    prop_assert_eq!(a, b);
                }
                1 => {
                    let address = if transaction.value.is_zero() { EMPTY } else { transaction.caller };
                    kept.credit(address, U256::from(5)).unwrap();
                    fresh.credit(address, U256::from(5)).unwrap();
                }
                _ => {
                    let a = kept.execute(transaction.clone()).map_err(|error| error.to_string());
                    let b = fresh.execute(transaction).map_err(|error| error.to_string());
                    prop_assert_eq!(a, b);
                }
            }
            loaded = fresh.into_state();
            prop_assert_eq!(contents(kept.state()), contents(&loaded));
        }
    }
}

#[test]
fn the_programs_do_what_they_are_there_for() {
    let world = World::new();
    let mut machine = Machine::new(cfg(Fork::London), BlockEnv::default(), &world);
    let words = [1u64, 2, 0, 1].map(U256::from);
    let data: Vec<u8> = words
        .iter()
        .flat_map(|word| word.to_be_bytes::<32>())
        .collect();
    let call = TxEnv {
        caller: SENDERS[0],
        kind: TxKind::Call(CALLER),
        data: data.into(),
        gas_limit: 300_000,
        gas_price: 1,
        chain_id: Some(1),
        ..TxEnv::default()
    };
    let result = machine.execute(call).unwrap();
    assert!(result.is_success());
    let output = result.output().unwrap();
    let word = |index: usize| U256::from_be_slice(&output[32 * index..][..32]);
    // What the slot held before the first call, and between the two.
    assert_eq!((word(4), word(5)), (U256::from(7), U256::from(2)));
    assert_eq!(word(7), U256::from(2));
    let accounts = machine.state().accounts();
    assert_eq!(
        accounts[&STORE].storage[&U256::from(1)].present(),
        U256::from(2)
    );
    // Three calls succeeded; the bomb is gone.
    assert_eq!(
        accounts[&CALLER].storage[&U256::from(0x101)].present(),
        U256::from(3)
    );
    assert_eq!(accounts[&BOMB].info(), None);
}
