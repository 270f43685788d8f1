//! What storage costs.

pub mod root;
