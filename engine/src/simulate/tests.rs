use super::*;

use std::sync::Arc;

use alloy_consensus::transaction::Recovered;
use alloy_primitives::{Address, B256, address, bytes};
use alloy_rpc_types_eth::state::{AccountOverride, StateOverride};
use zvm_storage::MemoryStore;

use crate::builder::{BlockTemplate, Skipped, TransactionSource};
use crate::genesis::Genesis;
use crate::transaction::Tx;

const RICH: Address = address!("00000000000000000000000000000000000000aa");
const CODE: Address = address!("00000000000000000000000000000000000000cc");

fn chain() -> Chain {
    let genesis = Genesis::development(
        31337,
        30_000_000,
        &[RICH],
        U256::from(1_000_000_000_000_000_000_u64),
    );
    Chain::open(Arc::new(MemoryStore::new()), &genesis).unwrap()
}

fn to(address: Address) -> TransactionRequest {
    TransactionRequest {
        from: Some(RICH),
        to: Some(TxKind::Call(address)),
        ..TransactionRequest::default()
    }
}

fn with_code(code: Bytes) -> EvmOverrides {
    let account = AccountOverride {
        code: Some(code),
        ..AccountOverride::default()
    };
    EvmOverrides {
        state: Some(StateOverride::from_iter([(CODE, account)])),
        block: None,
    }
}

fn word(value: u64) -> Bytes {
    B256::from(U256::from(value)).into()
}

/// Returns the word on the stack.
fn returning(code: &[u8]) -> Bytes {
    [code, &[0x5f, 0x52, 0x60, 0x20, 0x5f, 0xf3]]
        .concat()
        .into()
}

#[test]
fn a_plain_transfer_needs_exactly_its_intrinsic_gas() {
    let chain = chain();
    let simulator = Simulator::at_head(&chain, DEFAULT_GAS_CAP).unwrap();
    assert_eq!(
        simulator
            .estimate_gas(&to(Address::repeat_byte(1)), &EvmOverrides::default())
            .unwrap(),
        21_000
    );
}

#[test]
fn an_estimate_is_the_least_gas_that_succeeds() {
    let chain = chain();
    let simulator = Simulator::at_head(&chain, DEFAULT_GAS_CAP).unwrap();
    // A slot is set and cleared for a refund, then more than 30,000 gas must be left: what is needed is more than what
    // is used.
    let code = bytes!("60015f55 5f5f55 617530 5a 11 6012 57 5f5ffd 5b 00");
    let overrides = with_code(code);
    let least = simulator.estimate_gas(&to(CODE), &overrides).unwrap();
    let run = |gas| {
        let request = TransactionRequest {
            gas: Some(gas),
            ..to(CODE)
        };
        simulator
            .execute(&request, &overrides)
            .is_ok_and(|result| result.is_success())
    };
    assert!(run(least));
    assert!(!run(least - 1));
}

#[test]
fn a_revert_surfaces_with_its_data() {
    let chain = chain();
    let simulator = Simulator::at_head(&chain, DEFAULT_GAS_CAP).unwrap();
    // Reverts with one byte.
    let overrides = with_code(bytes!("60ff5f5360015ffd"));
    for result in [
        simulator.call(&to(CODE), &overrides).map(drop),
        simulator.estimate_gas(&to(CODE), &overrides).map(drop),
    ] {
        match result {
            Err(SimulateError::Reverted { output }) => assert_eq!(output, bytes!("ff")),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_endless_loop_ends_at_the_gas_cap() {
    let chain = chain();
    let simulator = Simulator::at_head(&chain, 1_000_000).unwrap();
    let overrides = with_code(bytes!("5b5f56"));
    let request = TransactionRequest {
        gas: Some(u64::MAX),
        ..to(CODE)
    };
    assert_eq!(
        simulator
            .call(&request, &overrides)
            .unwrap_err()
            .to_string(),
        "out of gas"
    );
    let estimate = simulator
        .estimate_gas(&to(CODE), &overrides)
        .unwrap_err()
        .to_string();
    assert_eq!(estimate, "gas required exceeds allowance (1000000)");
}

#[test]
fn fees_are_checked_only_if_given() {
    let chain = chain();
    let simulator = Simulator::at_head(&chain, DEFAULT_GAS_CAP).unwrap();
    let poor = TransactionRequest {
        from: Some(Address::repeat_byte(2)),
        ..to(Address::repeat_byte(1))
    };
    assert!(simulator.call(&poor, &EvmOverrides::default()).is_ok());
    let priced = TransactionRequest {
        gas_price: Some(2_000_000_000),
        ..poor.clone()
    };
    let text = simulator
        .call(&priced, &EvmOverrides::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("insufficient funds for gas * price + value"),
        "{text}"
    );
    let below = TransactionRequest {
        max_fee_per_gas: Some(1),
        gas: Some(21_000),
        ..to(Address::repeat_byte(1))
    };
    let text = simulator
        .call(&below, &EvmOverrides::default())
        .unwrap_err()
        .to_string();
    assert!(
        text.starts_with("max fee per gas less than block base fee"),
        "{text}"
    );
    let value = TransactionRequest {
        value: Some(U256::from(1)),
        ..poor
    };
    assert!(simulator.call(&value, &EvmOverrides::default()).is_err());
}

#[test]
fn overrides_hold_for_the_call_and_leave_no_trace() {
    let chain = chain();
    let simulator = Simulator::at_head(&chain, DEFAULT_GAS_CAP).unwrap();
    // SLOAD(0), NUMBER, BASEFEE with zero fees.
    let sload = returning(&[0x5f, 0x54]);
    let slots = [(B256::ZERO, B256::from(U256::from(7)))]
        .into_iter()
        .collect();
    let account = AccountOverride {
        code: Some(sload.clone()),
        state_diff: Some(slots),
        ..AccountOverride::default()
    };
    let overrides = EvmOverrides {
        state: Some(StateOverride::from_iter([(CODE, account)])),
        block: None,
    };
    assert_eq!(simulator.call(&to(CODE), &overrides).unwrap(), word(7));
    assert_eq!(
        simulator.call(&to(CODE), &with_code(sload)).unwrap(),
        word(0)
    );
    assert_eq!(
        simulator.call(&to(CODE), &EvmOverrides::default()).unwrap(),
        Bytes::new()
    );
    let mut number = with_code(returning(&[0x43]));
    assert_eq!(simulator.call(&to(CODE), &number).unwrap(), word(0));
    number.block = Some(Box::new(BlockOverrides {
        number: Some(U256::from(99)),
        ..BlockOverrides::default()
    }));
    assert_eq!(simulator.call(&to(CODE), &number).unwrap(), word(99));
    assert_eq!(
        simulator
            .call(&to(CODE), &with_code(returning(&[0x48])))
            .unwrap(),
        word(0)
    );
}

#[test]
fn contradictions_are_refused() {
    let chain = chain();
    let simulator = Simulator::at_head(&chain, DEFAULT_GAS_CAP).unwrap();
    let call = |request: TransactionRequest| {
        simulator
            .call(&request, &EvmOverrides::default())
            .unwrap_err()
    };
    let both = TransactionRequest {
        gas_price: Some(1),
        max_fee_per_gas: Some(1),
        ..to(CODE)
    };
    assert!(matches!(call(both), SimulateError::Request(_)));
    assert!(matches!(
        call(TransactionRequest {
            chain_id: Some(1),
            ..to(CODE)
        }),
        SimulateError::Request(_)
    ));
    let tip = TransactionRequest {
        max_priority_fee_per_gas: Some(1),
        ..to(CODE)
    };
    assert!(matches!(call(tip), SimulateError::Request(_)));
}

/// Offers nothing.
struct Nothing;

impl TransactionSource for Nothing {
    fn next(&mut self, _: u64) -> Option<Recovered<Tx>> {
        None
    }

    fn skipped(&mut self, _: Recovered<Tx>, _: Skipped) {}
}

#[test]
fn a_simulator_on_a_snapshot_stays_on_its_block_when_another_becomes_the_head() {
    let chain = chain();
    let snapshot = chain.snapshot().unwrap();
    chain
        .build(&BlockTemplate::default(), &mut Nothing)
        .unwrap();
    assert_eq!(chain.head().header.number, 1);
    let simulator = Simulator::on(&chain, snapshot, DEFAULT_GAS_CAP).unwrap();
    assert_eq!(simulator.header().number, 0);
    // NUMBER
    let answer = simulator.call(&to(CODE), &with_code(returning(&[0x43])));
    assert_eq!(answer.unwrap(), word(0));
}
