//! `zvm db`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Subcommand};
use eyre::{WrapErr as _, bail, eyre};
use zvm_engine::chain::Chain;
use zvm_storage::{JournaledOptions, JournaledStore, Store as _};

use super::server::read_genesis;

/// Tools for stores.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Imports blocks into the chain of a store and prints the head.
    Import(ImportArgs),
    /// Prints what the tables, the journal and the overlay hold.
    Stats(StatsArgs),
}

/// Prints what a store holds.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Folder of the store.
    #[arg(long, value_name = "DIR", default_value = "./zvm-data")]
    database_path: PathBuf,
}

/// Imports a file of RLP blocks one after the other, as geth exports them.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Genesis file of the chain, in geth's format.
    #[arg(long, value_name = "FILE.json")]
    genesis: PathBuf,
    /// Folder of the store; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = "./zvm-data")]
    database_path: PathBuf,
    /// The blocks.
    #[arg(value_name = "CHAIN.rlp")]
    blocks: PathBuf,
}

impl DbCommand {
    /// Does it.
    pub fn run(self) -> eyre::Result<ExitCode> {
        match self {
            Self::Import(args) => args.run(),
            Self::Stats(args) => args.run(),
        }
    }
}

impl StatsArgs {
    fn run(self) -> eyre::Result<ExitCode> {
        if !self.database_path.join("data.mdb").exists() {
            bail!("there is no store at {}", self.database_path.display());
        }
        let store = JournaledStore::open(JournaledOptions::new(&self.database_path))?;
        let mut out = std::io::stdout();
        for table in store.stats()? {
            writeln!(
                out,
                "{:16} {:>12} entries {:>14} bytes",
                table.table, table.entries, table.bytes
            )?;
        }
        let journal = store.statistics();
        writeln!(
            out,
            "journal: last commit {}, merged up to {}, {} replayed, {} bytes in the file",
            journal.last,
            journal.merged,
            store.recovery().replayed,
            journal.journal_bytes
        )?;
        writeln!(
            out,
            "overlay: {} entries in {} runs, {} bytes of memory",
            journal.overlay_entries, journal.overlay_runs, journal.overlay_bytes
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

impl ImportArgs {
    fn run(self) -> eyre::Result<ExitCode> {
        let genesis = read_genesis(&self.genesis)?;
        let file = std::fs::read(&self.blocks)
            .map_err(|error| eyre!("cannot read {}: {error}", self.blocks.display()))?;
        let store = JournaledStore::open(JournaledOptions::new(&self.database_path))?;
        let chain = Chain::open(Arc::new(store), &genesis)?;
        let imported = import(&chain, &file).wrap_err_with(|| self.blocks.display().to_string());
        let head = chain.head();
        let mut out = std::io::stdout();
        writeln!(out, "head {} {}", head.header.number, head.hash)?;
        let (imported, known) = imported?;
        writeln!(out, "{imported} blocks imported, {known} known before")?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Imports concatenated RLP blocks; returns how many were imported and how many the chain had already.
///
/// A block that is not valid ends the import; the blocks before it stay.
fn import(chain: &Chain, file: &[u8]) -> eyre::Result<(u64, u64)> {
    let (mut imported, mut known) = (0, 0);
    let mut rest = file;
    while !rest.is_empty() {
        let offset = file.len() - rest.len();
        let (block, after) =
            split_item(rest).ok_or_else(|| eyre!("at byte {offset}: no whole RLP list"))?;
        rest = after;
        let (number, hash) =
            identify(block).ok_or_else(|| eyre!("at byte {offset}: the RLP is no block"))?;
        if number <= chain.head().header.number {
            let here = zvm_storage::block_hash(&*chain.snapshot()?, number)?;
            if here != Some(hash) {
                bail!(
                    "block {number}: the chain has {} there, the file {hash}",
                    here.unwrap_or_default()
                );
            }
            known += 1;
            continue;
        }
        chain
            .import_rlp(block)
            .wrap_err_with(|| format!("block {number}"))?;
        imported += 1;
    }
    Ok((imported, known))
}

/// The first RLP item, a list, and what follows it.
fn split_item(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut payload = bytes;
    let header = alloy_rlp::Header::decode(&mut payload).ok()?;
    let length = bytes.len() - payload.len() + header.payload_length;
    (header.list && length <= bytes.len()).then(|| bytes.split_at(length))
}

/// Number and hash of a block, read from its header alone.
fn identify(block: &[u8]) -> Option<(u64, alloy_primitives::B256)> {
    use alloy_rlp::Decodable as _;
    let mut payload = block;
    alloy_rlp::Header::decode(&mut payload).ok()?;
    let header = alloy_consensus::Header::decode(&mut payload).ok()?;
    Some((header.number, header.hash_slow()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_that_ends_early_is_not_split() {
        assert_eq!(
            split_item(&[0xc1, 0x01, 0x02]),
            Some((&[0xc1, 0x01][..], &[0x02][..]))
        );
        assert_eq!(split_item(&[0xc2, 0x01]), None);
        assert_eq!(split_item(&[0x01]), None);
        assert_eq!(split_item(&[0xff, 0xff, 0xff]), None);
    }
}
