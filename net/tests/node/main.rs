//! The built binary, used as its users use it.

mod clients;
mod durability;
mod history;
mod import;
mod process;
mod refusals;
mod requests;
