//! What is sent: signed transactions, and the chain they are for.

use alloy_consensus::{SignableTransaction as _, TxEip1559};
use alloy_primitives::{Address, Bytes, Signature, TxKind, U256, keccak256};
use rayon::prelude::*;
use secp256k1::{Message, SECP256K1, SecretKey};
use zvm_engine::genesis::Genesis;
use zvm_engine::transaction::{self, Tx};
use zvm_storage::{AccountChange, AccountInfo};

use super::{LoadError, Options, contracts, uniswap};

const CHAIN_ID: u64 = 31_337;
/// Of every transaction: far above what blocks that are at most half full ask for.
const FEE_CAP: u128 = 2_000_000_000;

/// What the transactions do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Plain transfers.
    Transfers,
    /// Token transfers.
    Erc20,
    /// Swaps by the router of Uniswap v2.
    Uniswap,
    /// Two plain transfers to each token transfer.
    Mixed,
    /// Every transaction writes one slot.
    Hot,
}

impl Workload {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Transfers => "transfers",
            Self::Erc20 => "erc20",
            Self::Uniswap => "uniswap",
            Self::Mixed => "mixed",
            Self::Hot => "hot",
        }
    }

    /// Gas limit of the largest of its transactions.
    pub(super) fn gas(self) -> u64 {
        match self {
            Self::Transfers => 21_000,
            Self::Erc20 | Self::Mixed => 70_000,
            Self::Uniswap => 250_000,
            Self::Hot => 50_000,
        }
    }
}

/// A chain and the transactions to be sent to it.
pub(super) struct Load {
    pub(super) genesis: Genesis,
    /// To be in blocks before the rest is sent.
    pub(super) setup: Vec<Bytes>,
    /// For each of those that send, in their order.
    pub(super) streams: Vec<Vec<Bytes>>,
    pub(super) transactions: Vec<Tx>,
}

pub(super) struct Account {
    key: SecretKey,
    pub(super) address: Address,
}

impl Account {
    pub(super) fn new(index: u64) -> Self {
        let mut bytes = keccak256(index.to_be_bytes()).0;
        loop {
            if let Ok(key) = SecretKey::from_byte_array(bytes) {
                let public = key.public_key(SECP256K1).serialize_uncompressed();
                let address = Address::from_raw_public_key(&public[1..]);
                return Self { key, address };
            }
            bytes = keccak256(bytes).0;
        }
    }

    pub(super) fn sign(
        &self,
        nonce: u64,
        to: TxKind,
        value: u64,
        gas_limit: u64,
        input: Bytes,
    ) -> Tx {
        let tx = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit,
            max_fee_per_gas: FEE_CAP,
            max_priority_fee_per_gas: 1,
            to,
            value: U256::from(value),
            input,
            ..TxEip1559::default()
        };
        let message = Message::from_digest(tx.signature_hash().0);
        let (parity, rs) = SECP256K1
            .sign_ecdsa_recoverable(message, &self.key)
            .serialize_compact();
        let signature = Signature::from_bytes_and_parity(&rs, i32::from(parity) == 1);
        tx.into_signed(signature).into()
    }
}

/// A repeatable choice for transaction `index`.
fn choice(index: u64, purpose: u64) -> u64 {
    let mut mixed =
        index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ purpose.wrapping_mul(0xd1b5_4a32_d192_ed03);
    mixed ^= mixed >> 29;
    mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^ (mixed >> 32)
}

impl Load {
    pub(super) fn new(options: &Options) -> Result<Self, LoadError> {
        let accounts: Vec<_> = (0..options.accounts as u64)
            .into_par_iter()
            .map(Account::new)
            .collect();
        let addresses: Vec<_> = accounts.iter().map(|account| account.address).collect();
        let deployer = Account::new(u64::MAX);
        let gas_limit = 2 * options.outstanding as u64 * options.workload.gas();
        let mut genesis = Genesis::development(
            CHAIN_ID,
            gas_limit,
            &[&addresses[..], &[deployer.address]].concat(),
            U256::from(10).pow(U256::from(24)),
        );
        let token = Address::repeat_byte(0x20);
        let balances = addresses
            .iter()
            .map(|owner| (contracts::balance_slot(*owner, 0), U256::from(1_u64 << 60)));
        put_contract(&mut genesis, token, contracts::token(), balances);
        let counter = Address::repeat_byte(0xcc);
        put_contract(&mut genesis, counter, contracts::counter(), []);
        let (setup, swap) = match options.workload {
            Workload::Uniswap => {
                let market = uniswap::market(&mut genesis, &deployer, &addresses)?;
                (market.setup, Some((market.router, market.path)))
            }
            _ => (Vec::new(), None),
        };
        let transactions: Vec<Tx> = (0..options.transactions as u64)
            .into_par_iter()
            .map(|index| {
                let from = index % accounts.len() as u64;
                let nonce = index / accounts.len() as u64;
                let sender = &accounts[from as usize];
                let to = match choice(index, 1) % 100 < u64::from(options.conflict) {
                    true => addresses[0],
                    false => addresses[(choice(index, 2) % accounts.len() as u64) as usize],
                };
                let erc20 = || {
                    sender.sign(
                        nonce,
                        TxKind::Call(token),
                        0,
                        70_000,
                        contracts::transfer_input(to, 1),
                    )
                };
                let transfer = || sender.sign(nonce, TxKind::Call(to), 1, 21_000, Bytes::new());
                match options.workload {
                    Workload::Transfers => transfer(),
                    Workload::Erc20 => erc20(),
                    Workload::Mixed if index % 3 == 2 => erc20(),
                    Workload::Mixed => transfer(),
                    Workload::Hot => {
                        sender.sign(nonce, TxKind::Call(counter), 0, 50_000, Bytes::new())
                    }
                    Workload::Uniswap => {
                        let (router, path) = swap.expect("the market was made");
                        let input = uniswap::swap_input(path, sender.address);
                        sender.sign(nonce, TxKind::Call(router), 0, 250_000, input)
                    }
                }
            })
            .collect();
        let mut streams = vec![Vec::new(); options.submitters];
        for (index, tx) in transactions.iter().enumerate() {
            // An account's transactions go through one stream, in the order of their nonces.
            streams[index % accounts.len() % options.submitters].push(transaction::encode(tx));
        }
        Ok(Self {
            genesis,
            setup,
            streams,
            transactions,
        })
    }
}

pub(super) fn put_contract(
    genesis: &mut Genesis,
    address: Address,
    code: Bytes,
    slots: impl IntoIterator<Item = (U256, U256)>,
) {
    let code_hash = keccak256(&code);
    genesis.state.codes.insert(code_hash, code);
    let change = AccountChange {
        info: Some(AccountInfo {
            nonce: 1,
            balance: U256::ZERO,
            code_hash,
        }),
        wipe_storage: false,
        slots: slots.into_iter().collect(),
    };
    genesis.state.accounts.insert(address, change);
}
