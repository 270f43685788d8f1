//! Valid inputs, from which a mutation reaches further than from nothing.

use std::collections::VecDeque;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{SignableTransaction, TxEip1559, TxEip2930, TxEip4844, TxEip7702, TxLegacy};
use alloy_eips::eip2930::{AccessList, AccessListItem};
use alloy_eips::eip7702::Authorization;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, hex};
use secp256k1::{Message, SECP256K1, SecretKey};
use zvm_engine::builder::{BlockTemplate, Skipped, TransactionSource};
use zvm_engine::chain::Chain;
use zvm_engine::genesis::Genesis;
use zvm_engine::transaction::{self, Tx};
use zvm_runtimes::container::{Container, Target, Version};
use zvm_storage::MemoryStore;

const CHAIN_ID: u64 = 31_337;
const GWEI: u128 = 1_000_000_000;
const KEY: [u8; 32] = [0x42; 32];

/// Stores its call data's first word in slot 0, logs it and returns it.
const CODE: [u8; 24] = hex!("5f3580 5f55 5f52 60aa 60205f a1 60205f f3 5b5b5b5b5b5b5b");

/// Valid inputs of a target; none for a name that is no target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "transaction_decode" => transactions()
            .iter()
            .map(|tx| transaction::encode(tx).to_vec())
            .collect(),
        "block_decode" => blocks(),
        "container_parse" => containers(),
        "genesis_json" => genesis_files(),
        "trie_batches" => diffs(),
        "evm_bytecode" => programs(),
        _ => Vec::new(),
    }
}

/// The chain the seeds are for.
pub fn genesis() -> Genesis {
    let balance = U256::from(10).pow(U256::from(22));
    Genesis::development(CHAIN_ID, 30_000_000, &[sender()], balance)
}

fn secret_key() -> SecretKey {
    SecretKey::from_byte_array(KEY).expect("below the order")
}

fn sender() -> Address {
    let public = secret_key().public_key(SECP256K1).serialize_uncompressed();
    Address::from_raw_public_key(&public[1..])
}

fn signature(hash: B256) -> Signature {
    let signed = SECP256K1.sign_ecdsa_recoverable(Message::from_digest(hash.0), &secret_key());
    let (recovery, rs) = signed.serialize_compact();
    Signature::from_bytes_and_parity(&rs, i32::from(recovery) == 1)
}

fn sign<T: SignableTransaction<Signature>>(tx: T) -> Tx
where
    Tx: From<alloy_consensus::Signed<T>>,
{
    let signature = signature(tx.signature_hash());
    tx.into_signed(signature).into()
}

/// One transaction of every type, and a legacy one without chain id, with consecutive nonces.
fn transactions() -> Vec<Tx> {
    let to = Address::with_last_byte(0xee);
    let input = Bytes::from_static(b"\x00\x01 call data");
    let access_list = AccessList(vec![AccessListItem {
        address: to,
        storage_keys: vec![B256::ZERO, B256::with_last_byte(1)],
    }]);
    let authorization = Authorization {
        chain_id: U256::from(CHAIN_ID),
        address: to,
        nonce: 1,
    };
    let authorization_hash = authorization.signature_hash();
    vec![
        sign(TxLegacy {
            chain_id: Some(CHAIN_ID),
            nonce: 0,
            gas_price: 2 * GWEI,
            gas_limit: 21_000,
            to: TxKind::Call(to),
            value: U256::from(7),
            input: Bytes::new(),
        }),
        sign(TxLegacy {
            chain_id: None,
            nonce: 1,
            gas_price: 2 * GWEI,
            gas_limit: 200_000,
            to: TxKind::Create,
            value: U256::ZERO,
            input: CODE.into(),
        }),
        sign(TxEip2930 {
            chain_id: CHAIN_ID,
            nonce: 2,
            gas_price: 2 * GWEI,
            gas_limit: 100_000,
            to: TxKind::Call(to),
            value: U256::from(1),
            access_list: access_list.clone(),
            input: input.clone(),
        }),
        sign(TxEip1559 {
            chain_id: CHAIN_ID,
            nonce: 3,
            gas_limit: 100_000,
            max_fee_per_gas: 3 * GWEI,
            max_priority_fee_per_gas: GWEI,
            to: TxKind::Call(to),
            value: U256::from(1),
            access_list: access_list.clone(),
            input: input.clone(),
        }),
        sign(TxEip4844 {
            chain_id: CHAIN_ID,
            nonce: 4,
            gas_limit: 100_000,
            max_fee_per_gas: 3 * GWEI,
            max_priority_fee_per_gas: GWEI,
            to,
            value: U256::ZERO,
            access_list: access_list.clone(),
            blob_versioned_hashes: vec![versioned_hash()],
            max_fee_per_blob_gas: GWEI,
            input: input.clone(),
        }),
        sign(TxEip7702 {
            chain_id: CHAIN_ID,
            nonce: 5,
            gas_limit: 100_000,
            max_fee_per_gas: 3 * GWEI,
            max_priority_fee_per_gas: GWEI,
            to,
            value: U256::ZERO,
            access_list,
            authorization_list: vec![authorization.into_signed(signature(authorization_hash))],
            input,
        }),
    ]
}

/// A blob hash of version 1 (EIP-4844).
fn versioned_hash() -> B256 {
    let mut hash = B256::with_last_byte(9);
    hash[0] = 1;
    hash
}

struct Queue(VecDeque<Recovered<Tx>>);

impl TransactionSource for Queue {
    fn next(&mut self, _: u64) -> Option<Recovered<Tx>> {
        self.0.pop_front()
    }
    fn skipped(&mut self, tx: Recovered<Tx>, why: Skipped) {
        panic!("a seed is not valid: {tx:?}: {why}");
    }
}

/// An empty block and one with a transaction of every type.
fn blocks() -> Vec<Vec<u8>> {
    let genesis = genesis();
    let template = BlockTemplate {
        timestamp: 12,
        gas_limit: 30_000_000,
        ..BlockTemplate::default()
    };
    [Vec::new(), transactions()]
        .map(|transactions| {
            let chain = Chain::open(std::sync::Arc::new(MemoryStore::new()), &genesis)
                .expect("an empty store takes any genesis");
            let signed = transactions
                .into_iter()
                .map(|tx| transaction::into_recovered(tx).expect("was signed"));
            let built = chain
                .build(&template, &mut Queue(signed.collect()))
                .expect("builds");
            alloy_rlp::encode(&built.block)
        })
        .into()
}

fn containers() -> Vec<Vec<u8>> {
    let abi = r#"{"functions":[]}"#;
    let targets = [
        Target::Native { legacy: false },
        Target::Native { legacy: true },
        Target::Evm,
        Target::Wasm,
    ];
    let contained = targets.into_iter().flat_map(|target| {
        ["", abi].map(|abi| {
            let container = Container {
                version: Version::V2,
                target,
                code: &CODE,
                abi,
            };
            container.encode().expect("is valid")
        })
    });
    let bare = [
        b"\0asm\x01\0\0\0".to_vec(),
        [&hex!("ef0100")[..], &[0x11; 20]].concat(),
        CODE.to_vec(),
    ];
    contained.chain(bare).collect()
}

fn genesis_files() -> Vec<Vec<u8>> {
    let frontier = r#"{"config":{"chainId":1},"difficulty":"0x20000","gasLimit":"0x1388","alloc":{
        "0x00000000000000000000000000000000000000aa":{"balance":"0x10"}}}"#;
    let osaka = r#"{"config":{"chainId":31337,"homesteadBlock":0,"eip150Block":0,"eip155Block":0,"eip158Block":0,
        "byzantiumBlock":0,"constantinopleBlock":0,"petersburgBlock":0,"istanbulBlock":0,"berlinBlock":0,"londonBlock":0,
        "terminalTotalDifficulty":0,"shanghaiTime":0,"cancunTime":0,"pragueTime":0,"osakaTime":0,"blobSchedule":{
        "cancun":{"target":3,"max":6,"baseFeeUpdateFraction":3338477},
        "prague":{"target":6,"max":9,"baseFeeUpdateFraction":5007716},
        "osaka":{"target":6,"max":9,"baseFeeUpdateFraction":5007716}}},
        "nonce":"0x1","timestamp":"10","extraData":"0x00","gasLimit":30000000,"baseFeePerGas":"0x7","alloc":{
        "00000000000000000000000000000000000000aa":{"balance":"1000000000000000000000","nonce":"0x1",
        "code":"0x6000","storage":{"0x0":"0x01"}}}}"#;
    [frontier, osaka]
        .map(|text| text.as_bytes().to_vec())
        .into()
}

fn diffs() -> Vec<Vec<u8>> {
    let rising = (0..=255).collect();
    let mixed = (0..600u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    vec![rising, mixed]
}

/// Fork, gas, shape, split, then code: see `evm_bytecode` in the properties.
fn programs() -> Vec<Vec<u8>> {
    let calls_other = hex!("5f5f5f5f600160c15af1 5f5f5f5f60c15af4 5f5f5f5f60c15afa");
    let creates = hex!("60205f6000f0 50 60015f60205ff5 ff");
    let loops = hex!("5f5b600101805a11600157 5f5260205fa0 30ff");
    let programs: [&[u8]; 4] = [&CODE, &calls_other, &creates, &loops];
    let header = |fork: u8, shape: u8, code: &[u8]| {
        let split = u8::try_from(code.len()).unwrap_or(u8::MAX);
        [&[fork, 0x80, 0, shape, split], code].concat()
    };
    programs
        .iter()
        .flat_map(|code| {
            [(0, 0), (13, 2), (18, 0), (18, 3)]
                .map(|(fork, shape)| [header(fork, shape, code), CODE.to_vec()].concat())
        })
        .collect()
}
