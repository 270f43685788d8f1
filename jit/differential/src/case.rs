//! What is executed: a transaction to a program, among accounts that it may call.

use std::sync::{Arc, LazyLock};

use alloy_primitives::{Address, B256, Bytes, KECCAK256_EMPTY, TxKind, U256, hex, keccak256};
use zvm_runtimes::evm::{Fork, ReadError, StateReader};
use zvm_runtimes::isa::{Isa, assemble as assemble_text};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::{BlockEnv, TxEnv};
use zvm_runtimes::revm::state::AccountInfo;

use crate::asm::{Item, assemble};
use crate::choices::{Choices, mix};
use crate::generate;

/// The sender of the transaction.
pub const SENDER: Address = Address::with_last_byte(0x5e);
/// Where the program lies.
pub const PROGRAM: Address = Address::with_last_byte(0xc0);
const OTHER: u8 = 0xc1;
const DELEGATED_TO_PROGRAM: Address = Address::with_last_byte(0xc2);
const DELEGATED_TO_OTHER: u8 = 0xc3;
const FIRST_HELPER: u8 = 0xc4;

/// Contracts that do one thing each, from [`FIRST_HELPER`] on.
const HELPERS: [&str; 6] = [
    // Adds to a slot and returns it.
    "PUSH1 0 SLOAD CALLDATASIZE ADD DUP1 PUSH1 0 SSTORE PUSH1 0 MSTORE PUSH1 32 PUSH1 0 RETURN",
    // Reverts with its input.
    "CALLDATASIZE PUSH1 0 PUSH1 0 CALLDATACOPY CALLDATASIZE PUSH1 0 REVERT",
    // Returns its input.
    "CALLDATASIZE PUSH1 0 PUSH1 0 CALLDATACOPY CALLDATASIZE PUSH1 0 RETURN",
    // Gives its balance away.
    "CALLER SELFDESTRUCT",
    // Burns all its gas.
    "INVALID",
    // Calls back whoever called, with half its gas.
    "PUSH1 0 PUSH1 0 PUSH1 0 PUSH1 0 PUSH1 0 CALLER PUSH1 2 GAS DIV CALL PUSH1 0 MSTORE PUSH1 32 PUSH1 0 RETURN",
];

/// What can be worth calling: the accounts above, precompiles, an account without code, one that does not exist.
const ADDRESSES: [u8; 16] = [
    0xc0, 0xc0, 0xc0, 0xc1, 0xc1, 0xc2, 0xc3, 0xc4, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 4, 0xee,
];

/// Code for CREATE, each within one word.
static INITCODES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    [
        "STOP",
        // Deploys code that counts its calls.
        "PUSH8 0x6000546001016000 PUSH1 0 MSTORE PUSH2 0x5500 PUSH1 32 MSTORE8 PUSH1 9 PUSH1 24 RETURN",
        // Deploys code that loops over a computed jump.
        "PUSH8 0x5b60005180525600 PUSH1 0 MSTORE PUSH1 8 PUSH1 24 RETURN",
        // Deploys code that destroys itself.
        "PUSH2 0x33ff PUSH1 0 MSTORE PUSH1 2 PUSH1 30 RETURN",
        // Code that no fork since London accepts.
        "PUSH1 0xef PUSH1 0 MSTORE8 PUSH1 1 PUSH1 0 RETURN",
        "PUSH1 7 PUSH1 0 SSTORE PUSH1 4 PUSH1 0 REVERT",
        "CALLER SELFDESTRUCT",
        "PUSH1 3 JUMPDEST PUSH1 1 SWAP1 SUB DUP1 PUSH1 2 JUMPI PUSH1 9 PUSH1 1 SSTORE STOP",
        "GAS PUSH1 0 SSTORE INVALID",
    ]
    .map(|text| assemble_text(Isa::Evm, text).expect("assembles"))
    .to_vec()
});

/// Programs that main programs call: few, so that they are compiled once.
const OTHERS: u64 = 48;

/// A case's text has a line that cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot be read: {0}")]
pub struct Unreadable(String);

/// A transaction to a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The program.
    pub items: Vec<Item>,
    /// The code of the contract beside it.
    pub other: Arc<[u8]>,
    /// Input.
    pub calldata: Vec<u8>,
    /// Gas beyond the intrinsic gas.
    pub gas: u64,
    /// Wei sent.
    pub value: u64,
    /// Rules.
    pub fork: Fork,
    /// To an account that has delegated to the program (EIP-7702).
    pub delegated: bool,
}

impl Case {
    /// A structured random program.
    pub fn structured(choices: &mut Choices<'_>) -> Self {
        let fork = fork(choices);
        let items = generate::program(choices, fork.spec_id(), &ADDRESSES, &INITCODES);
        Self::around(choices, items, fork)
    }

    /// A program with whatever surrounds it chosen.
    pub fn around(choices: &mut Choices<'_>, items: Vec<Item>, fork: Fork) -> Self {
        let mut calldata: Vec<u8> = (0..choices.below(5))
            .flat_map(|_| choices.word().to_be_bytes::<32>())
            .collect();
        if choices.chance(1, 3) {
            calldata.truncate(calldata.len().saturating_sub(choices.below(40) as usize));
        }
        Self {
            items,
            other: other(choices.below(OTHERS), fork),
            calldata,
            gas: match choices.weighted(&[2, 5, 5, 1]) {
                0 => choices.below(3_000),
                1 => choices.between(3_000, 30_000),
                2 => choices.between(30_000, 90_000),
                _ => choices.between(90_000, 300_000),
            },
            value: choices.weighted(&[6, 1]) as u64,
            fork,
            delegated: fork >= Fork::Prague && choices.chance(1, 16),
        }
    }

    /// Code as it is, called by a transaction without input under the newest fork.
    pub fn of_code(code: &[u8], gas: u64) -> Self {
        Self {
            items: crate::asm::lift(code),
            other: Arc::from([]),
            calldata: Vec::new(),
            gas,
            value: 0,
            fork: Fork::LATEST,
            delegated: false,
        }
    }

    /// Reads what [`describe`](crate::compare::describe) writes; other lines do not count.
    ///
    /// # Errors
    /// A line that counts cannot be read.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let mut case = Self::of_code(&[], 0);
        for line in text.lines() {
            let Some((name, value)) = line.split_once(' ') else {
                continue;
            };
            let value = value.split_whitespace().next().unwrap_or_default();
            let unreadable = || Unreadable(line.to_owned());
            let bytes = || hex::decode(value).map_err(|_| unreadable());
            let number = || value.parse().map_err(|_| unreadable());
            match name {
                "code" => case.items = crate::asm::lift(&bytes()?),
                "other" => case.other = bytes()?.into(),
                "calldata" => case.calldata = bytes()?,
                "gas" => case.gas = number()?,
                "value" => case.value = number()?,
                "fork" => case.fork = value.parse().map_err(|_| unreadable())?,
                "delegated" => case.delegated = value == "true",
                _ => {}
            }
        }
        Ok(case)
    }

    /// The program's bytes.
    pub fn code(&self) -> Vec<u8> {
        assemble(&self.items)
    }

    /// The transaction.
    pub fn transaction(&self, gas_limit: u64) -> TxEnv {
        TxEnv {
            caller: SENDER,
            kind: TxKind::Call(if self.delegated {
                DELEGATED_TO_PROGRAM
            } else {
                PROGRAM
            }),
            value: U256::from(self.value),
            data: Bytes::copy_from_slice(&self.calldata),
            gas_limit,
            chain_id: Some(1),
            ..TxEnv::default()
        }
    }

    /// The gas limit of the transaction: intrinsic gas and [`Case::gas`].
    pub fn gas_limit(&self) -> u64 {
        self.intrinsic_gas().saturating_add(self.gas)
    }

    /// Gas that the transaction costs before the first instruction, and the least that it must pay (EIP-2028, EIP-7623).
    pub fn intrinsic_gas(&self) -> u64 {
        let zeros = self.calldata.iter().filter(|byte| **byte == 0).count() as u64;
        let others = self.calldata.len() as u64 - zeros;
        let non_zero = if self.fork >= Fork::Istanbul { 16 } else { 68 };
        let plain = 4 * zeros + non_zero * others;
        let floor = if self.fork >= Fork::Prague {
            10 * zeros + 40 * others
        } else {
            0
        };
        21_000 + plain.max(floor)
    }

    /// The block.
    pub fn block() -> BlockEnv {
        BlockEnv {
            number: U256::from(300),
            timestamp: U256::from(1_700_000_000u64),
            beneficiary: Address::with_last_byte(0xcb),
            gas_limit: 30_000_000,
            prevrandao: Some(B256::repeat_byte(0x5a)),
            difficulty: U256::from(0x2_0000),
            ..BlockEnv::default()
        }
    }
}

/// The newest most of the time.
fn fork(choices: &mut Choices<'_>) -> Fork {
    const OLDER: [Fork; 10] = [
        Fork::Prague,
        Fork::Cancun,
        Fork::Shanghai,
        Fork::London,
        Fork::Berlin,
        Fork::Istanbul,
        Fork::Byzantium,
        Fork::SpuriousDragon,
        Fork::Tangerine,
        Fork::Frontier,
    ];
    if choices.chance(1, 6) {
        choices.pick(&OLDER)
    } else {
        Fork::LATEST
    }
}

fn other(index: u64, fork: Fork) -> Arc<[u8]> {
    let mut choices = Choices::from_seed(mix(index));
    let items = generate::program(&mut choices, fork.spec_id(), &ADDRESSES, &INITCODES);
    assemble(&items).into()
}

/// The accounts of a case.
pub struct World {
    codes: Vec<(Address, B256, Bytecode)>,
}

static HELPER_CODES: LazyLock<Vec<(Address, B256, Bytecode)>> = LazyLock::new(|| {
    let mut codes: Vec<_> = (FIRST_HELPER..)
        .zip(HELPERS)
        .map(|(last, text)| {
            let code = assemble_text(Isa::Evm, text).expect("assembles");
            (
                Address::with_last_byte(last),
                keccak256(&code),
                Bytecode::new_legacy(code.into()),
            )
        })
        .collect();
    for (address, to) in [
        (DELEGATED_TO_PROGRAM, PROGRAM),
        (
            Address::with_last_byte(DELEGATED_TO_OTHER),
            Address::with_last_byte(OTHER),
        ),
    ] {
        let code = Bytecode::new_eip7702(to);
        codes.push((address, code.hash_slow(), code));
    }
    codes
});

impl World {
    /// The accounts around a case's program.
    pub fn new(case: &Case) -> Self {
        let code = case.code();
        let mut codes = Vec::with_capacity(2 + HELPER_CODES.len());
        for (address, code) in [
            (PROGRAM, code.into()),
            (
                Address::with_last_byte(OTHER),
                Bytes::copy_from_slice(&case.other),
            ),
        ] {
            codes.push((address, keccak256(&code), Bytecode::new_legacy(code)));
        }
        // Delegations have a meaning since EIP-7702 only.
        let helpers = if case.fork >= Fork::Prague {
            HELPER_CODES.len()
        } else {
            HELPERS.len()
        };
        codes.extend(HELPER_CODES.iter().take(helpers).cloned());
        Self { codes }
    }
}

impl StateReader for World {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        let info = |balance: u64, nonce, code_hash| {
            Some(AccountInfo {
                balance: U256::from(balance),
                nonce,
                code_hash,
                code: None,
                ..AccountInfo::default()
            })
        };
        if *address == SENDER {
            return Ok(info(1 << 60, 0, KECCAK256_EMPTY));
        }
        if *address == Address::with_last_byte(0xca) {
            return Ok(info(5, 0, KECCAK256_EMPTY));
        }
        let found = self.codes.iter().find(|code| code.0 == *address);
        Ok(found.and_then(|(_, hash, _)| info(1_000, 1, *hash)))
    }

    fn storage(&self, _: &Address, slot: &U256) -> Result<U256, ReadError> {
        // Words at edges that no compiler sees, and zeros.
        const EDGES: [U256; 8] = [
            U256::ZERO,
            U256::MAX,
            U256::from_limbs([u64::MAX, 0, 0, 0]),
            U256::from_limbs([u64::MAX, u64::MAX, 0, 0]),
            U256::from_limbs([7, 0, 0, 0]),
            U256::from_limbs([0, 0, 0, 1 << 63]),
            U256::from_limbs([0, 1, 0, 0]),
            U256::ZERO,
        ];
        Ok(EDGES[slot.byte(0) as usize % EDGES.len()])
    }

    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        let found = self.codes.iter().find(|code| code.1 == *hash);
        found
            .map(|code| code.2.clone())
            .ok_or_else(|| ReadError::new(format!("no code with hash {hash}")))
    }

    fn has_storage(&self, _: &Address) -> Result<bool, ReadError> {
        Ok(false)
    }

    fn block_hash(&self, number: u64) -> Result<B256, ReadError> {
        Ok(B256::from(U256::from(number) << 100))
    }
}
