//! `zvm-bench storage`: the journaled store beside the simple design, one durable transaction a block on the tables.

mod commit;
mod load;
mod memory;
mod readers;
mod reads;
pub mod root;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use zvm_storage::{
    JournaledOptions, JournaledStore, LmdbOptions, LmdbStore, Store, StoreError, Table,
};

pub use commit::{Commit, Merge};
pub use memory::Memory;
pub use readers::Readers;
pub use reads::ReadNs;

/// What is measured.
#[derive(Debug, Clone, Args)]
pub struct StorageArgs {
    /// Slots in the store before anything is measured (52 bytes of key, 32 of value).
    #[arg(long, default_value = "1000000")]
    pub entries: u64,
    /// Updates of one block; one in ten is a new slot.
    #[arg(long, default_value = "10000")]
    pub updates: u64,
    /// Blocks on each side; medians count.
    #[arg(long, default_value = "11")]
    pub blocks: u32,
    /// Blocks in the overlay while it is read; four are two seconds of 20,000 updates a second.
    #[arg(long, default_value = "4")]
    pub overlay_blocks: u64,
    /// Blocks of transfers over which memory is watched; 0 leaves that out.
    #[arg(long, default_value = "2000")]
    pub transfer_blocks: u32,
    /// Accounts in the states whose root is computed after a block, one after the other; 0 leaves that out.
    #[arg(
        long,
        value_name = "COUNT",
        value_delimiter = ',',
        default_value = "10000,100000,1000000"
    )]
    pub root_accounts: Vec<u64>,
    /// Folder for the stores; made and removed [default: in the system's folder for temporary files].
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// All figures. Times are of the wall.
#[derive(Debug, Serialize)]
pub struct StorageReport {
    /// Slots before anything was measured.
    pub entries: u64,
    /// Time of a block's commit.
    pub commit: Commit,
    /// What moving the journal's commits to the tables costs.
    pub merge: Merge,
    /// Time of one read of a random slot, in nanoseconds.
    pub read_ns: ReadNs,
    /// Block times beside readers.
    pub readers: Readers,
    /// Memory of the process over many blocks.
    pub memory: Option<Memory>,
    /// The state root of a block.
    pub root: Option<root::Root>,
    /// Resident memory at the end, in MB.
    pub rss_mb: f64,
    /// Bytes of file.
    pub bytes_per: BytesPer,
}

/// Bytes of pages of the tables, divided by entries.
#[derive(Debug, Serialize)]
pub struct BytesPer {
    /// A slot without its trie.
    pub slot: f64,
    /// An account with its place in the trie; of the blocks of transfers.
    pub account_with_trie: Option<f64>,
}

/// Measures.
///
/// # Errors
/// Those of the stores; of the folder; of the blocks whose roots are computed.
pub fn storage(
    args: &StorageArgs,
    progress: &mut dyn FnMut(&str),
) -> Result<StorageReport, root::RootBenchError> {
    let parent = args.folder.clone().unwrap_or_else(std::env::temp_dir);
    let folder = tempfile::tempdir_in(&parent).map_err(|source| StoreError::Io {
        op: "make a folder in",
        path: parent,
        source,
    })?;
    let path = |name: &str| folder.path().join(name);
    progress("loading");
    let single = LmdbStore::open(LmdbOptions::new(path("single")))?;
    load::fill(&single, args.entries)?;
    drop(single);
    // The same file: both sides begin with the same pages.
    load::copy(&path("single"), &path("journaled"))?;
    let single = LmdbStore::open(LmdbOptions::new(path("single")))?;
    let journaled = JournaledStore::open(JournaledOptions {
        // What is measured says when to merge.
        merge_interval: std::time::Duration::from_secs(3600),
        merge_bytes: 64 << 20,
        ..JournaledOptions::new(path("journaled"))
    })?;
    progress("reads");
    let read_ns = reads::reads(&single, &journaled, args)?;
    progress("commits");
    let (commit, merge) = commit::commits(&single, &journaled, args)?;
    let slots = journaled.stats()?[Table::Storage.index()];
    drop(journaled);
    progress("readers");
    let readers = readers::readers(&path("journaled"), args)?;
    progress("memory");
    let (memory, account_with_trie) = match args.transfer_blocks {
        0 => (None, None),
        blocks => {
            let (memory, bytes) = memory::transfers(&path("transfers"), blocks)?;
            (Some(memory), Some(bytes))
        }
    };
    progress("roots");
    let root = match args.root_accounts.contains(&0) {
        true => None,
        false => {
            let options = root::Options {
                accounts: args.root_accounts.clone(),
                ..root::Options::default()
            };
            Some(root::run(&path("roots"), &options)?)
        }
    };
    Ok(StorageReport {
        entries: args.entries,
        root,
        commit,
        merge,
        read_ns,
        readers,
        memory,
        rss_mb: memory::rss_mb(),
        bytes_per: BytesPer {
            slot: slots.bytes as f64 / slots.entries.max(1) as f64,
            account_with_trie,
        },
    })
}

/// The middle one.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples.get(samples.len() / 2).copied().unwrap_or_default()
}
