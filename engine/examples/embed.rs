// A chain in memory and a contract called on its newest state.

use std::sync::Arc;

use alloy_primitives::{TxKind, U256, address};
use zvm_engine::{chain::Chain, genesis::Genesis, header::block_env, view::StateView};
use zvm_runtimes::evm::{Machine, cfg_env};
use zvm_runtimes::revm::context::TxEnv;
use zvm_storage::MemoryStore;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A contract that returns 2 + 3. `LmdbStore::open` instead of `MemoryStore::new` keeps the chain in a folder.
    let genesis = Genesis::from_json(
        br#"{
            "config": {"chainId": 7, "terminalTotalDifficulty": 0, "shanghaiTime": 0},
            "gasLimit": "0x1c9c380",
            "alloc": {
                "0x00000000000000000000000000000000000000aa": {"code": "0x60036002015f5260205ff3"},
                "0x00000000000000000000000000000000000000bb": {"balance": "1000000000000000000"}
            }
        }"#,
    )?;
    let chain = Chain::open(Arc::new(MemoryStore::new()), &genesis)?;

    let head = chain.head();
    let snapshot = chain.snapshot()?;
    let fork = chain.fork_of(&head.header);
    let view = StateView::new(&*snapshot, chain.codes()).with_fork(fork);
    let spec = chain.spec();
    let mut machine = Machine::new(
        cfg_env(fork, spec.chain_id, spec.blob_params(fork)),
        block_env(spec, fork, &head.header),
        &view,
    );
    // A transaction like any other, whose changes are dropped.
    let result = machine.call(TxEnv {
        caller: address!("00000000000000000000000000000000000000bb"),
        chain_id: Some(spec.chain_id),
        kind: TxKind::Call(address!("00000000000000000000000000000000000000aa")),
        gas_limit: 100_000,
        gas_price: u128::from(head.header.base_fee_per_gas.unwrap_or_default()),
        ..TxEnv::default()
    })?;
    println!("{} gas", result.tx_gas_used());
    let output = result.into_output().unwrap_or_default();
    assert_eq!(U256::try_from_be_slice(&output), Some(U256::from(5)));
    Ok(())
}
