//! Memory and file over many blocks of transfers.

use std::collections::BTreeMap;
use std::path::Path;

use alloy_primitives::{Address, U256};
use serde::Serialize;
use zvm_storage::{
    AccountChange, AccountInfo, Batch, Durability, JournaledOptions, JournaledStore, StateDiff,
    Store, StoreError, Table, apply_state,
};

use super::load::Random;

/// Accounts that send and receive.
const ACCOUNTS: u64 = 100_000;
/// Accounts that a block changes.
const CHANGED: u64 = 100;

/// Resident memory and file of tables, in MB.
#[derive(Debug, Serialize)]
pub struct Memory {
    /// Blocks.
    pub blocks: u32,
    /// After the first fifth.
    pub early_rss_mb: f64,
    /// At the end.
    pub late_rss_mb: f64,
    /// The greatest after the first fifth over the least.
    pub spread: f64,
    /// The file after the first fifth.
    pub early_file_mb: f64,
    /// The file at the end.
    pub late_file_mb: f64,
}

/// Anonymous resident memory of this process in MB: pages of mapped files are the system's to keep or drop.
pub fn rss_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:")?.strip_suffix("kB"));
    line.and_then(|kb| kb.trim().parse::<f64>().ok())
        .map_or(0.0, |kb| kb / 1024.0)
}

/// Runs blocks of changed balances; returns also the bytes of an account with its part of the trie.
pub fn transfers(path: &Path, blocks: u32) -> Result<(Memory, f64), StoreError> {
    let mut options = JournaledOptions::new(path);
    options.state.durability = Durability::Relaxed;
    options.overlay_bytes = 64 << 20;
    options.merge_bytes = 8 << 20;
    let store = JournaledStore::open(options)?;
    let commit = |accounts: &mut dyn Iterator<Item = u64>, nonce: u64| {
        let change = |account: u64| {
            let info = AccountInfo {
                nonce,
                balance: U256::from(account + 1) << 60,
                ..AccountInfo::default()
            };
            let address = Address::left_padding_from(&super::load::key(account)[..20]);
            let change = AccountChange {
                info: Some(info),
                ..AccountChange::default()
            };
            (address, change)
        };
        let diff = StateDiff {
            accounts: accounts.map(change).collect(),
            codes: BTreeMap::new(),
        };
        let mut batch = Batch::new();
        apply_state(&*store.snapshot()?, &diff, &mut batch)?;
        store.commit(&batch)
    };
    for first in (0..ACCOUNTS).step_by(10_000) {
        commit(&mut (first..first + 10_000), 0)?;
    }
    let file =
        || std::fs::metadata(path.join("data.mdb")).map_or(0.0, |data| data.len() as f64 / 1e6);
    let mut random = Random(6);
    let mut samples = Vec::new();
    for number in 0..blocks {
        let nonce = 1 + u64::from(number);
        commit(&mut (0..CHANGED).map(|_| random.below(ACCOUNTS)), nonce)?;
        if number >= blocks / 5 && number % (blocks / 100).max(1) == 0 {
            samples.push((rss_mb(), file()));
        }
    }
    samples.push((rss_mb(), file()));
    store.merge_all()?;
    let stats = store.stats()?;
    let of = |table: Table| stats[table.index()];
    let bytes = of(Table::Accounts).bytes + of(Table::AccountTrie).bytes;
    let all = samples.iter().map(|sample| sample.0);
    let (least, most) = all.fold((f64::MAX, 0.0_f64), |(least, most), rss| {
        (least.min(rss), most.max(rss))
    });
    let (early, late) = (samples[0], samples[samples.len() - 1]);
    let memory = Memory {
        blocks,
        early_rss_mb: early.0,
        late_rss_mb: late.0,
        spread: most / least,
        early_file_mb: early.1,
        late_file_mb: late.1,
    };
    Ok((memory, bytes as f64 / ACCOUNTS as f64))
}
