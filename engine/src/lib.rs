//! Transactions to blocks: chain specification, transaction validity, block execution, receipts, block building.

#[cfg(feature = "fixtures")]
pub mod fixtures;
