//! Transactions to blocks: chain specification, transaction validity, block execution, receipts, block building.

pub mod builder;
pub mod chain;
pub mod chain_spec;
pub mod dao;
pub mod difficulty;
pub mod executor;
pub mod genesis;
pub mod header;
pub mod history;
pub mod ingress;
pub mod node;
pub mod ommers;
pub mod parallel;
pub mod pipeline;
pub mod pool;
pub mod receipt;
pub mod requests;
pub mod rewards;
pub mod roots;
pub mod simulate;
pub mod transaction;
pub mod view;

#[cfg(feature = "fixtures")]
pub mod fixtures;
