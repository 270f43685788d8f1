//! The node as others see it: JSON-RPC over HTTP and WebSocket on one port, and its settings.
//!
//! Every method is a call on the engine or a read on a snapshot of the store; nothing is decided here that another
//! way in would have to decide again.

pub mod accounts;
pub mod profiling;
pub mod rpc;
pub mod server;
pub mod settings;
