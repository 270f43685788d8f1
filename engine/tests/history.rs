//! The state at past blocks of a chain, and taking blocks back: over random blocks of transfers, writes, contracts that
//! are destroyed and contracts that are created again where one was.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use alloy_consensus::transaction::Recovered;
use alloy_consensus::{SignableTransaction as _, TxLegacy};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256, address, hex, keccak256};
use alloy_rpc_types_eth::TransactionRequest;
use alloy_rpc_types_eth::state::EvmOverrides;
use proptest::collection::vec;
use proptest::prelude::*;
use secp256k1::{Message, SECP256K1, SecretKey};
use zvm_engine::builder::{BlockTemplate, Skipped, TransactionSource};
use zvm_engine::chain::{Chain, ChainError};
use zvm_engine::genesis::Genesis;
use zvm_engine::simulate::Simulator;
use zvm_engine::transaction::Tx;
use zvm_storage::{
    MemoryStore, Retention, Snapshot, StateAt, Store, StoreError, Table, account_proof, deployment,
    read_account, read_code, read_slot, rebuild_root,
};

/// Deploys what it is called with by CREATE2, salt 0.
const FACTORY: [u8; 27] =
    hex!("6010 80 600b 6000 39 6000 f3 36 6000 6000 37 6000 36 6000 6000 f5 50 00");
/// With 64 bytes writes the second word to the slot of the first and logs the slot, with 32 returns the slot, with
/// others ends itself.
const WRITER: [u8; 57] = hex!(
    "602e 80 600b 6000 39 6000 f3
     36 6040 14 601d 57 36 6020 14 6010 57 33 ff
     5b 6000 35 54 6000 52 6020 6000 f3
     5b 6020 35 6000 35 55 6000 35 6000 6000 a1 00"
);
const STRANGER: Address = address!("00000000000000000000000000000000000000aa");
const SLOTS: u64 = 5;

/// Before Cancun, so that a contract can end itself.
fn genesis(owner: Address) -> Genesis {
    let json = format!(
        r#"{{"config":{{"chainId":31337,"homesteadBlock":0,"eip150Block":0,"eip155Block":0,"eip158Block":0,
        "byzantiumBlock":0,"constantinopleBlock":0,"petersburgBlock":0,"istanbulBlock":0,"berlinBlock":0,
        "londonBlock":0,"mergeNetsplitBlock":0,"terminalTotalDifficulty":0,"terminalTotalDifficultyPassed":true,
        "shanghaiTime":0}},"difficulty":"0x0","gasLimit":"0x1c9c380",
        "alloc":{{"{owner:?}":{{"balance":"0xffffffffffffffffffffffff"}}}}}}"#
    );
    Genesis::from_json(json.as_bytes()).unwrap()
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Transfer(u8),
    Create,
    Write(u64, u64),
    Destroy,
}

fn actions() -> impl Strategy<Value = Action> {
    prop_oneof![
        2 => any::<u8>().prop_map(Action::Transfer),
        3 => Just(Action::Create),
        6 => (0..SLOTS, 0..3_u64).prop_map(|(slot, value)| Action::Write(slot, value)),
        2 => Just(Action::Destroy),
    ]
}

struct World {
    chain: Chain,
    store: Arc<MemoryStore>,
    key: SecretKey,
    owner: Address,
    factory: Address,
    writer: Address,
    nonce: u64,
}

impl World {
    /// A chain whose first block deploys the factory.
    fn new(retention: Retention) -> Self {
        let key = SecretKey::from_byte_array([1; 32]).unwrap();
        let public = key.public_key(SECP256K1).serialize_uncompressed();
        let owner = Address::from_raw_public_key(&public[1..]);
        let store = Arc::new(MemoryStore::new());
        let chain = Chain::open(Arc::clone(&store) as Arc<dyn Store>, &genesis(owner)).unwrap();
        let factory = owner.create(0);
        let mut world = Self {
            chain: chain.with_retention(retention),
            store,
            key,
            owner,
            factory,
            writer: factory.create2(B256::ZERO, keccak256(WRITER)),
            nonce: 0,
        };
        let deploy = world.sign(TxKind::Create, 0, FACTORY.to_vec());
        world.build(vec![deploy]);
        world
    }

    fn sign(&mut self, to: TxKind, value: u64, input: Vec<u8>) -> Recovered<Tx> {
        let tx = TxLegacy {
            chain_id: Some(31337),
            nonce: self.nonce,
            gas_price: 10_000_000_000,
            gas_limit: 300_000,
            to,
            value: U256::from(value),
            input: input.into(),
        };
        self.nonce += 1;
        let message = Message::from_digest(tx.signature_hash().0);
        let signature = SECP256K1.sign_ecdsa_recoverable(message, &self.key);
        let (recovery, rs) = signature.serialize_compact();
        let signature = Signature::from_bytes_and_parity(&rs, i32::from(recovery) == 1);
        Recovered::new_unchecked(Tx::from(tx.into_signed(signature)), self.owner)
    }

    fn act(&mut self, actions: &[Action]) {
        let transactions = actions.iter().map(|action| match *action {
            Action::Transfer(value) => self.sign(TxKind::Call(STRANGER), value.into(), Vec::new()),
            Action::Create => self.sign(TxKind::Call(self.factory), 0, WRITER.to_vec()),
            Action::Write(slot, value) => {
                let words = [slot, value].map(|word| U256::from(word).to_be_bytes::<32>());
                self.sign(TxKind::Call(self.writer), 0, words.concat())
            }
            Action::Destroy => self.sign(TxKind::Call(self.writer), 0, Vec::new()),
        });
        let transactions = transactions.collect();
        self.build(transactions);
    }

    fn build(&mut self, transactions: Vec<Recovered<Tx>>) {
        struct Queue(VecDeque<Recovered<Tx>>);
        impl TransactionSource for Queue {
            fn next(&mut self, _: u64) -> Option<Recovered<Tx>> {
                self.0.pop_front()
            }
            fn skipped(&mut self, _: Recovered<Tx>, why: Skipped) {
                panic!("{why}");
            }
        }
        let template = BlockTemplate {
            gas_limit: 30_000_000,
            ..BlockTemplate::default()
        };
        let mut queue = Queue(transactions.into());
        self.chain.build(&template, &mut queue).unwrap();
    }

    /// What can be asked of a state, with what calls on it return.
    fn answers<'a>(&'a self, snapshot: Box<dyn Snapshot + 'a>) -> Vec<String> {
        let mut answers = Vec::new();
        let coinbase = Address::ZERO;
        for address in [self.owner, self.factory, self.writer, STRANGER, coinbase] {
            let account = read_account(&*snapshot, &address).unwrap();
            let code = account.map(|account| read_code(&*snapshot, &account.code_hash).unwrap());
            answers.push(format!("{address} {account:?} {code:?}"));
            for slot in (0..SLOTS).map(U256::from) {
                answers.push(read_slot(&*snapshot, &address, &slot).unwrap().to_string());
            }
        }
        let root = rebuild_root(&*snapshot).unwrap();
        let simulator = Simulator::on(&self.chain, snapshot, 1_000_000).unwrap();
        assert_eq!(simulator.header().state_root, root);
        for slot in 0..SLOTS {
            let input = U256::from(slot).to_be_bytes::<32>().to_vec();
            let request = TransactionRequest::default()
                .to(self.writer)
                .input(Bytes::from(input).into());
            let output = simulator.call(&request, &EvmOverrides::default()).unwrap();
            answers.push(output.to_string());
        }
        answers
    }

    fn dump(&self) -> Vec<(Table, Vec<u8>, Vec<u8>)> {
        let snapshot = self.store.snapshot().unwrap();
        let mut rows = Vec::new();
        for table in Table::all() {
            snapshot
                .scan(table, &[], &mut |key, value| {
                    rows.push((table, key.to_vec(), value.to_vec()));
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
        rows
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_past_block_answers_as_it_did_while_it_was_the_head(
        blocks in vec(vec(actions(), 0..6), 1..24),
    ) {
        let mut world = World::new(Retention::ARCHIVE);
        let mut recorded = Vec::new();
        for actions in &blocks {
            world.act(actions);
            recorded.push(world.answers(world.store.snapshot().unwrap()));
        }
        for (number, expected) in (2..).zip(&recorded) {
            let at = StateAt::new(world.store.snapshot().unwrap(), number).unwrap();
            prop_assert_eq!(&world.answers(Box::new(at)), expected);
            let snapshot = world.store.snapshot().unwrap();
            let slots = [U256::ZERO, U256::ONE];
            let proof = account_proof(&*snapshot, number, &world.writer, &slots, u64::MAX).unwrap();
            let header = zvm_storage::header(&*snapshot, number).unwrap().unwrap();
            prop_assert_eq!(proof.state_root, header.state_root);
        }
    }

    #[test]
    fn unwinding_a_chain_gives_the_store_it_had_and_the_chain_goes_on(
        blocks in vec(vec(actions(), 0..6), 1..16), kept in 0..16_usize,
    ) {
        let kept = kept.min(blocks.len() - 1);
        let mut world = World::new(Retention::ARCHIVE);
        let mut dumps = vec![(world.dump(), world.nonce)];
        for actions in &blocks {
            world.act(actions);
            dumps.push((world.dump(), world.nonce));
        }
        let to = kept as u64 + 1;
        prop_assert_eq!(world.chain.unwind(to).unwrap(), blocks.len() as u64 + 1 - to);
        prop_assert_eq!(world.chain.head().header.number, to);
        prop_assert_eq!(&world.dump(), &dumps[kept].0);
        // The same blocks again give the same store again.
        world.nonce = dumps[kept].1;
        for (actions, (dump, _)) in blocks.iter().zip(&dumps[1..]).skip(kept) {
            world.act(actions);
            prop_assert_eq!(&world.dump(), dump);
        }
    }
}

#[test]
fn a_block_outside_of_the_retention_is_refused_with_what_is_kept() {
    let retention = Retention {
        state: Some(4),
        blocks: Some(6),
    };
    let mut world = World::new(retention);
    for value in 0..20 {
        world.act(&[Action::Create, Action::Write(1, value)]);
    }
    let snapshot = world.store.snapshot().unwrap();
    let kept = zvm_storage::retained(&*snapshot).unwrap();
    assert_eq!((kept.state, kept.blocks), (17, 15));
    assert!(zvm_storage::body(&*snapshot, 14).unwrap().is_none());
    assert!(zvm_storage::body(&*snapshot, 15).unwrap().is_some());
    assert!(zvm_storage::header(&*snapshot, 3).unwrap().is_some());
    drop(snapshot);
    let before = world.dump();
    let error = world.chain.unwind(12).unwrap_err();
    assert!(
        matches!(
            error,
            ChainError::Store(StoreError::NotRetained {
                number: 12,
                first: 17,
                last: 21,
                ..
            })
        ),
        "{error}"
    );
    assert_eq!(world.dump(), before);
    assert_eq!(world.chain.unwind(17).unwrap(), 4);
}

#[test]
fn a_contract_is_known_with_the_transaction_that_deployed_it() {
    let mut world = World::new(Retention::ARCHIVE);
    world.act(&[Action::Create]);
    world.act(&[Action::Write(1, 1), Action::Destroy]);
    world.act(&[Action::Transfer(1), Action::Create]);
    let snapshot = world.store.snapshot().unwrap();
    let read = |address, number| deployment(&*snapshot, address, number).unwrap();
    let factory = read(&world.factory, 9).unwrap();
    let creation = factory.creation.unwrap();
    assert_eq!((factory.block, creation.index), (1, 0));
    assert_eq!(creation.deployer, world.owner);
    assert_eq!(
        zvm_engine::history::deployment_format(&factory),
        Some(zvm_runtimes::detect::Format::Evm)
    );
    // By a contract: known where the block had one transaction only.
    assert_eq!(read(&world.writer, 1), None);
    let first = read(&world.writer, 2).unwrap();
    assert_eq!((first.block, first.creation), (2, Some(creation)));
    let again = read(&world.writer, 9).unwrap();
    assert_eq!((again.block, again.creation), (4, None));
    assert_eq!(again.code_hash, first.code_hash);
}
