//! Logs.

use alloy_rpc_types_eth::{self as eth, Filter, FilterBlockOption};

use super::args::{Args, BlockRef, BlockTag, LogFilter};
use super::recent::StoredBlock;
use super::{Reply, Rpc, RpcError, View, reply, shape};

/// `eth_getLogs`
pub(super) fn logs(rpc: &Rpc, mut args: Args) -> Reply {
    let filter = args.required::<LogFilter>(0)?;
    let view = rpc.view()?;
    let (from, to) = range(&view, &filter.filter)?;
    // Block 0, which is kept always, has no logs.
    if to > 0 {
        zvm_storage::retained(view.snapshot())?.check_block(view.snapshot(), from.max(1))?;
    }
    let mut found = Vec::new();
    let mut append = |number| {
        if let Some(block) = view.block(number)? {
            append_matching(&block, &filter, &mut found);
        }
        if found.len() > rpc.limits.logs {
            return Err(too_many(rpc.limits.logs, from, number, to));
        }
        Ok(())
    };
    let query = filter.query();
    if query.is_open() {
        // Every block with logs is asked for.
        for number in from.max(1)..=to {
            let header = zvm_storage::header(view.snapshot(), number)?
                .ok_or_else(|| RpcError::Internal(format!("block {number} is missing")))?;
            if !header.logs_bloom.is_zero() {
                append(number)?;
            }
        }
    } else {
        for number in zvm_storage::matching_blocks(view.snapshot(), &query, from, to) {
            append(number?)?;
        }
    }
    reply(&found)
}

/// The limit, and what to ask for instead.
fn too_many(limit: usize, from: u64, reached: u64, to: u64) -> RpcError {
    let advice = if reached > from {
        format!(
            "ask for blocks {from:#x} to {:#x} and then from {reached:#x} to {to:#x}",
            reached - 1
        )
    } else {
        format!(
            "block {reached:#x} alone has more: add an address or topics, or use eth_getBlockReceipts"
        )
    };
    RpcError::TooLarge(format!(
        "query exceeds the limit of {limit} logs in one answer; {advice}"
    ))
}

/// First and last block of a filter.
fn range(view: &View<'_>, filter: &Filter) -> Result<(u64, u64), RpcError> {
    let (from, to) = match filter.block_option {
        FilterBlockOption::AtBlockHash(hash) => {
            let number = view
                .resolve(BlockRef::Hash(hash))?
                .ok_or_else(|| RpcError::Refused("unknown block".to_owned()))?;
            return Ok((number, number));
        }
        FilterBlockOption::Range {
            from_block,
            to_block,
        } => {
            let number = |bound: Option<eth::BlockNumberOrTag>| {
                view.number(match bound {
                    Some(eth::BlockNumberOrTag::Number(number)) => BlockTag::Number(number),
                    Some(eth::BlockNumberOrTag::Earliest) => BlockTag::Earliest,
                    _ => BlockTag::Head,
                })
            };
            (number(from_block), number(to_block))
        }
    };
    if from > to {
        return Err(RpcError::InvalidParams(format!(
            "invalid block range params: {from:#x} is after {to:#x}"
        )));
    }
    if to > view.head {
        return Err(RpcError::InvalidParams(
            "block range extends beyond current head block".to_owned(),
        ));
    }
    Ok((from, to))
}

/// Appends the logs of a block that the filter lets through.
pub(super) fn append_matching(block: &StoredBlock, filter: &LogFilter, found: &mut Vec<eth::Log>) {
    let mut log_index = 0;
    for (index, (receipt, tx)) in block
        .receipts
        .iter()
        .zip(&block.body.transactions)
        .enumerate()
    {
        for log in &receipt.logs {
            if filter.matches(log) {
                found.push(shape::log(block, *tx.hash(), index, log_index, log.clone()));
            }
            log_index += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_says_how_to_go_on() {
        let text = too_many(10, 5, 9, 20).to_string();
        assert!(
            text.contains("limit of 10")
                && text.contains("0x5 to 0x8")
                && text.contains("from 0x9 to 0x14"),
            "{text}"
        );
        assert!(
            too_many(10, 5, 5, 20)
                .to_string()
                .contains("add an address or topics")
        );
    }
}
