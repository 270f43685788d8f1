//! `zvm db import`.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use eyre::{WrapErr as _, bail, eyre};
use zvm_engine::chain::Chain;
use zvm_net::settings::Kept;
use zvm_storage::{EXPORT_MAGIC, JournaledStore, LmdbOptions, LmdbStore, Retention};

use super::Folder;
use crate::cli::server::read_genesis;

/// Imports an export of a store into a new store, or a file of RLP blocks, as geth exports them, into a chain.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Genesis file of the chain, in geth's format; for a file of blocks.
    #[arg(long, value_name = "FILE.json")]
    genesis: Option<PathBuf>,
    /// Of a file of blocks: blocks before the head whose states can be read, or archive for all.
    #[arg(long, value_name = "BLOCKS|archive", default_value_t = Retention::default().state.into())]
    state_history: Kept,
    /// Of a file of blocks: blocks before the head whose bodies, receipts and indexes are kept, or archive for all.
    #[arg(long, value_name = "BLOCKS|archive", default_value_t = Retention::default().blocks.into())]
    block_history: Kept,
    /// Of an export: not there or empty; of a file of blocks: made if it is not there.
    #[command(flatten)]
    folder: Folder,
    /// What `zvm db export` wrote, or the blocks.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl ImportArgs {
    pub(super) fn run(self) -> eyre::Result<ExitCode> {
        let named = |error| eyre!("cannot read {}: {error}", self.file.display());
        let mut file = File::open(&self.file).map_err(named)?;
        let mut start = Vec::new();
        let length = EXPORT_MAGIC.len() as u64;
        (&mut file)
            .take(length)
            .read_to_end(&mut start)
            .map_err(named)?;
        let mut input = std::io::BufReader::new((&start[..]).chain(file));
        let mut out = std::io::stdout();
        if start == EXPORT_MAGIC {
            let restored = LmdbStore::restore(LmdbOptions::new(&self.folder.path), &mut input)
                .wrap_err_with(|| self.file.display().to_string())?;
            writeln!(out, "{} entries imported", restored.rows)?;
            return Ok(ExitCode::SUCCESS);
        }
        let Some(genesis) = &self.genesis else {
            bail!(
                "{} is no export of a store; for a file of blocks --genesis is needed",
                self.file.display()
            );
        };
        let genesis = read_genesis(genesis)?;
        let mut file = Vec::new();
        input.read_to_end(&mut file).map_err(named)?;
        let store = JournaledStore::open(super::journaled(&self.folder.path))?;
        let chain = Chain::open(Arc::new(store), &genesis)?.with_retention(Retention {
            state: self.state_history.0,
            blocks: self.block_history.0,
        });
        let imported = import(&chain, &file).wrap_err_with(|| self.file.display().to_string());
        let head = chain.head();
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
