//! EVM execution: forks, the state a block executes on, the journal and the machine that runs transactions.
//!
//! Everything here is concrete, not generic over the database: the interpreter loop, its instruction functions and the
//! journal are instantiated once, in this crate, and optimised once (see the package settings in the workspace
//! manifest). Callers hand in a [`StateReader`] as a trait object.

mod fork;
mod frames;
mod instructions;
mod journal;
mod keccak;
mod machine;
mod slots;
mod state;
mod versions;
mod workspace;

pub use fork::{BlobParams, Fork, UnknownFork};
pub use journal::{BlockJournal, LoadedAccount, sload_warm};
pub use keccak::keccak256;
pub use machine::{
    Context, FrameRunner, Instructions, Machine, MachineError, SYSTEM_ADDRESS, SYSTEM_CALL_GAS,
    cfg_env,
};
pub use state::{
    AccountState, Accounts, BlockState, EmptyReader, ReadError, RecentChange, Slot, StateReader,
};
pub use versions::{
    Access, Conflict, Foreseen, ForeseenAccount, Speculation, VersionReader, Versions,
};
