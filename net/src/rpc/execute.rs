//! Calls and estimates.

use alloy_primitives::U64;
use alloy_rpc_types_eth::state::{EvmOverrides, StateOverride};
use alloy_rpc_types_eth::{BlockOverrides, TransactionRequest};
use zvm_engine::simulate::Simulator;

use super::args::{Args, BlockRef};
use super::{Reply, Rpc, RpcError, reply};

fn prepare<'a>(
    rpc: &'a Rpc,
    args: &mut Args,
) -> Result<(Simulator<'a>, TransactionRequest, EvmOverrides), RpcError> {
    let request = args.required::<TransactionRequest>(0)?;
    let block = args.optional::<BlockRef>(1)?;
    let overrides = EvmOverrides {
        state: args.optional::<StateOverride>(2)?,
        block: args.optional::<BlockOverrides>(3)?.map(Box::new),
    };
    let state = rpc.view()?.into_state(block)?;
    Ok((
        Simulator::on(rpc.chain(), state, rpc.limits.gas_cap)?,
        request,
        overrides,
    ))
}

/// `eth_call`
pub(super) fn call(rpc: &Rpc, mut args: Args) -> Reply {
    let (simulator, request, overrides) = prepare(rpc, &mut args)?;
    reply(&simulator.call(&request, &overrides)?)
}

/// `eth_estimateGas`
pub(super) fn estimate_gas(rpc: &Rpc, mut args: Args) -> Reply {
    let (simulator, request, overrides) = prepare(rpc, &mut args)?;
    reply(&U64::from(simulator.estimate_gas(&request, &overrides)?))
}
