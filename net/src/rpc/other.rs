//! What is not about blocks, state or transactions: the node itself, hashes, the pool.

use std::collections::BTreeMap;
use std::sync::Arc;

use alloy_consensus::Transaction as _;
use alloy_primitives::{Address, Bytes, U64, keccak256};
use serde::Serialize;
use zvm_engine::pool::Pooled;

use super::args::Args;
use super::methods::METHODS;
use super::shape::{self, RpcTransaction};
use super::{Reply, Rpc, reply};

/// `eth_chainId`
pub(super) fn chain_id(rpc: &Rpc, _: Args) -> Reply {
    reply(&U64::from(rpc.chain().spec().chain_id))
}

/// `eth_syncing`: the node makes its own blocks and is never behind.
pub(super) fn syncing(_: &Rpc, _: Args) -> Reply {
    reply(&false)
}

/// `net_version`: the chain id in decimal.
pub(super) fn net_version(rpc: &Rpc, _: Args) -> Reply {
    reply(&rpc.chain().spec().chain_id.to_string())
}

/// `net_listening`
pub(super) fn net_listening(_: &Rpc, _: Args) -> Reply {
    reply(&true)
}

/// `net_peerCount`
pub(super) fn net_peer_count(_: &Rpc, _: Args) -> Reply {
    reply(&U64::ZERO)
}

/// `web3_clientVersion`
pub(super) fn client_version(_: &Rpc, _: Args) -> Reply {
    reply(concat!("zvm/v", env!("CARGO_PKG_VERSION")))
}

/// `web3_sha3`
pub(super) fn sha3(_: &Rpc, mut args: Args) -> Reply {
    reply(&keccak256(args.required::<Bytes>(0)?))
}

/// `rpc_modules`
pub(super) fn modules(_: &Rpc, _: Args) -> Reply {
    let modules: BTreeMap<&str, &str> = METHODS
        .iter()
        .filter_map(|method| Some((method.name.split_once('_')?.0, "1.0")))
        .collect();
    reply(&modules)
}

/// `txpool_status`
pub(super) fn txpool_status(rpc: &Rpc, _: Args) -> Reply {
    #[derive(Serialize)]
    struct Status {
        pending: U64,
        queued: U64,
    }
    let status = rpc.node.pool().status();
    reply(&Status {
        pending: U64::from(status.ready),
        queued: U64::from(status.held),
    })
}

/// By decimal nonce.
type ByNonce = BTreeMap<String, RpcTransaction>;

/// `txpool_content`: senders with the checksum of EIP-55, as geth writes them there.
pub(super) fn txpool_content(rpc: &Rpc, _: Args) -> Reply {
    #[derive(Serialize)]
    struct Content {
        pending: BTreeMap<String, ByNonce>,
        queued: BTreeMap<String, ByNonce>,
    }
    let by_sender = |waiting: Vec<Arc<Pooled>>| {
        let mut senders: BTreeMap<String, ByNonce> = BTreeMap::new();
        for pooled in waiting {
            let transactions = senders
                .entry(pooled.tx.signer().to_checksum(None))
                .or_default();
            transactions.insert(pooled.tx.nonce().to_string(), shape::pending(&pooled));
        }
        senders
    };
    let (ready, held) = rpc.node.pool().content();
    reply(&Content {
        pending: by_sender(ready),
        queued: by_sender(held),
    })
}

/// `txpool_contentFrom`
pub(super) fn txpool_content_from(rpc: &Rpc, mut args: Args) -> Reply {
    #[derive(Serialize)]
    struct Content {
        pending: ByNonce,
        queued: ByNonce,
    }
    let from = args.required::<Address>(0)?;
    let of_sender = |waiting: Vec<Arc<Pooled>>| {
        waiting
            .iter()
            .map(|pooled| (pooled.tx.nonce().to_string(), shape::pending(pooled)))
            .collect()
    };
    let (ready, held) = rpc.node.pool().content_from(&from);
    reply(&Content {
        pending: of_sender(ready),
        queued: of_sender(held),
    })
}
