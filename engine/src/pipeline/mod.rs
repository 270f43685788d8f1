//! A block in steps that can overlap with those of the next one: execution, sealing, the durable write.
//!
//! [`Chain::execute`] takes transactions and works on the state after the parent, which may itself be in flight: executed
//! and not durable. [`Chain::seal`] computes the roots and with them the hash; it needs the parent's hash.
//! [`Chain::append`] makes the block durable and the head.
//!
//! A block's hash is known when its root is, but its child executes meanwhile. What the child may read of the hash are
//! `BLOCKHASH` of its parent and the slot of EIP-2935, which the system call at the start of the child writes. A child that
//! runs ahead makes no such call: its view of the state shows the slot as the call leaves it, whoever reads it or the
//! block hash waits until the parent is sealed, and sealing adds the slot to what the child changed. That is exact only
//! where the contract is the one of the EIP; with another code, and before Byzantium, where receipts hold state roots, a
//! block is executed when its parent is durable.

mod execute;
mod flight;
mod seal;
mod view;

pub(crate) use execute::Executed;
pub use flight::Lost;
pub(crate) use flight::{Flight, Parent};
pub(crate) use seal::{Layer, Sealed};
