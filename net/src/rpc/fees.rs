//! What gas costs and has cost.

use alloy_consensus::{Header, Transaction as _};
use alloy_primitives::{U64, U128};
use alloy_rpc_types_eth::FeeHistory;
use zvm_engine::header;

use super::args::{Args, BlockTag};
use super::recent::StoredBlock;
use super::{Reply, Rpc, RpcError, View, reply, shape};

/// The priority fee that is suggested, in wei per gas. Blocks of a development chain are rarely full, and a block in
/// the making takes any fee; the value is what most clients would fill in by themselves.
pub(super) const SUGGESTED_PRIORITY_FEE: u128 = 1_000_000_000;

/// Blocks one `eth_feeHistory` answers.
const MOST_BLOCKS: u64 = 1_024;
/// Percentiles one `eth_feeHistory` takes.
const MOST_PERCENTILES: usize = 100;

/// `eth_gasPrice`: base fee of the next block and the suggested priority fee.
pub(super) fn gas_price(rpc: &Rpc, _: Args) -> Reply {
    let next = rpc.node.next_block(&rpc.chain().head());
    reply(&U128::from(
        u128::from(next.base_fee) + SUGGESTED_PRIORITY_FEE,
    ))
}

/// `eth_maxPriorityFeePerGas`
pub(super) fn max_priority_fee(_: &Rpc, _: Args) -> Reply {
    reply(&U128::from(SUGGESTED_PRIORITY_FEE))
}

/// `eth_baseFee`: of the next block.
pub(super) fn base_fee(rpc: &Rpc, _: Args) -> Reply {
    let next = rpc.node.next_block(&rpc.chain().head());
    reply(&U64::from(next.base_fee))
}

/// `eth_blobBaseFee`: of the next block.
pub(super) fn blob_base_fee(rpc: &Rpc, _: Args) -> Reply {
    let next = rpc.node.next_block(&rpc.chain().head());
    reply(&U128::from(next.blob_gas_price))
}

/// The number of blocks: a quantity, or a number as some clients send it.
fn block_count(args: &mut Args) -> Result<u64, RpcError> {
    let value = args.required::<serde_json::Value>(0)?;
    let count = match value.as_u64() {
        Some(count) => Ok(count),
        None => <u64 as super::args::Arg>::from_json(value),
    };
    count.map_err(|reason| RpcError::InvalidParams(format!("invalid argument 0: {reason}")))
}

/// `eth_feeHistory`
pub(super) fn fee_history(rpc: &Rpc, mut args: Args) -> Reply {
    let count = block_count(&mut args)?.min(MOST_BLOCKS);
    let newest = args.required::<BlockTag>(1)?;
    let percentiles = args.optional::<Vec<f64>>(2)?.unwrap_or_default();
    check_percentiles(&percentiles)?;
    let view = rpc.view()?;
    let newest = view.number(newest);
    if newest > view.head {
        return Err(RpcError::Refused(format!(
            "request beyond head block: requested {newest}, head {}",
            view.head
        )));
    }
    let count = count.min(newest.saturating_add(1));
    let mut history = FeeHistory {
        oldest_block: newest + 1 - count,
        ..FeeHistory::default()
    };
    if count == 0 {
        history.oldest_block = 0;
        return reply(&history);
    }
    let mut rewards = Vec::new();
    let mut last = None;
    for number in history.oldest_block..=newest {
        let header = zvm_storage::header(view.snapshot(), number)?
            .ok_or_else(|| RpcError::Internal(format!("block {number} is missing")))?;
        history
            .base_fee_per_gas
            .push(u128::from(header.base_fee_per_gas.unwrap_or_default()));
        history
            .gas_used_ratio
            .push(ratio(header.gas_used, header.gas_limit));
        history.base_fee_per_blob_gas.push(blob_fee(rpc, &header));
        let blob_limit = rpc
            .chain()
            .spec()
            .blob_params(rpc.chain().fork_of(&header))
            .map_or(0, |params| {
                params.max * alloy_eips::eip4844::DATA_GAS_PER_BLOB
            });
        history
            .blob_gas_used_ratio
            .push(ratio(header.blob_gas_used.unwrap_or_default(), blob_limit));
        if !percentiles.is_empty() {
            rewards.push(block_rewards(&view, number, &percentiles)?);
        }
        last = Some(header);
    }
    if let Some(last) = last {
        let (base_fee, blob_fee) = following(rpc, &view, &last)?;
        history.base_fee_per_gas.push(u128::from(base_fee));
        history.base_fee_per_blob_gas.push(blob_fee);
    }
    history.reward = (!percentiles.is_empty()).then_some(rewards);
    reply(&history)
}

fn check_percentiles(percentiles: &[f64]) -> Result<(), RpcError> {
    if percentiles.len() > MOST_PERCENTILES {
        return Err(RpcError::InvalidParams(format!(
            "over the query limit {MOST_PERCENTILES} of percentiles"
        )));
    }
    let within = percentiles
        .iter()
        .all(|percentile| (0.0..=100.0).contains(percentile));
    if !within || !percentiles.is_sorted_by(|a, b| a < b) {
        return Err(RpcError::InvalidParams(
            "invalid reward percentile: they must be between 0 and 100 and ascend".to_owned(),
        ));
    }
    Ok(())
}

fn ratio(used: u64, limit: u64) -> f64 {
    if limit == 0 {
        0.0
    } else {
        used as f64 / limit as f64
    }
}

fn blob_fee(rpc: &Rpc, header: &Header) -> u128 {
    let fork = rpc.chain().fork_of(header);
    header
        .excess_blob_gas
        .and_then(|excess| header::blob_gas_price(rpc.chain().spec(), fork, excess))
        .unwrap_or_default()
}

/// Base fee and blob gas price of the block after `last`, which may be the one that is to come.
fn following(rpc: &Rpc, view: &View<'_>, last: &Header) -> Result<(u64, u128), RpcError> {
    if let Some(next) = zvm_storage::header(view.snapshot(), last.number + 1)? {
        return Ok((
            next.base_fee_per_gas.unwrap_or_default(),
            blob_fee(rpc, &next),
        ));
    }
    let next = rpc.node.next_block(&rpc.chain().head());
    let base_fee = header::next_base_fee(next.fork, last).unwrap_or_default();
    let spec = rpc.chain().spec();
    let blob_fee = header::next_excess_blob_gas(spec, next.fork, last)
        .and_then(|excess| header::blob_gas_price(spec, next.fork, excess))
        .unwrap_or_default();
    Ok((base_fee, blob_fee))
}

/// The priority fees at `percentiles` of the gas of a block.
fn block_rewards(view: &View<'_>, number: u64, percentiles: &[f64]) -> Result<Vec<u128>, RpcError> {
    let block = view
        .block(number)?
        .ok_or_else(|| RpcError::Internal(format!("block {number} is missing")))?;
    Ok(rewards_at(&paid(&block), percentiles))
}

/// Priority fee and gas of each transaction, cheapest first.
fn paid(block: &StoredBlock) -> Vec<(u128, u64)> {
    let base_fee = block.header.base_fee_per_gas.unwrap_or_default();
    let mut paid: Vec<_> = block
        .body
        .transactions
        .iter()
        .enumerate()
        .map(|(index, tx)| {
            (
                tx.effective_tip_per_gas(base_fee).unwrap_or_default(),
                shape::gas_used(block, index),
            )
        })
        .collect();
    paid.sort_unstable();
    paid
}

fn rewards_at(paid: &[(u128, u64)], percentiles: &[f64]) -> Vec<u128> {
    let total: u64 = paid.iter().map(|(_, gas)| gas).sum();
    percentiles
        .iter()
        .map(|percentile| {
            let wanted = (total as f64 * percentile / 100.0) as u64;
            let mut sum = 0;
            let at = paid.iter().find(|(_, gas)| {
                sum += gas;
                sum >= wanted
            });
            at.or(paid.last()).map_or(0, |(fee, _)| *fee)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_are_weighted_by_gas() {
        let paid = [(1, 50), (2, 25), (9, 25)];
        assert_eq!(
            rewards_at(&paid, &[0.0, 50.0, 51.0, 75.0, 76.0, 100.0]),
            [1, 1, 2, 2, 9, 9]
        );
        assert_eq!(rewards_at(&[], &[50.0]), [0]);
    }

    #[test]
    fn percentiles_out_of_order_or_range_are_refused() {
        assert!(check_percentiles(&[0.0, 50.0, 100.0]).is_ok());
        assert!(check_percentiles(&[50.0, 50.0]).is_err());
        assert!(check_percentiles(&[101.0]).is_err());
        assert!(check_percentiles(&[f64::NAN]).is_err());
    }
}
