//! `zvm db`: tools for stores in LMDB. The node must not run on the store meanwhile.

mod import;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use alloy_primitives::Address;
use clap::{Args, Subcommand};
use eyre::{WrapErr as _, bail, eyre};
use serde::Serialize;
use zvm_engine::{history, receipt};
use zvm_storage::{
    Batch, JournaledOptions, JournaledStore, LmdbOptions, LmdbStore, MAX_ABI, SCHEMA_VERSION,
    Store as _,
};

use import::ImportArgs;

/// Tools for stores. The node must not run on the store meanwhile.
#[derive(Debug, Subcommand)]
pub enum DbCommand {
    /// Prints the head, what is kept, and entries and bytes of every table.
    Stats(StatsArgs),
    /// Checks that everything in the store fits together; fails if it does not.
    Verify(Folder),
    /// Brings a store that an older version wrote to this one's schema.
    Migrate(Folder),
    /// Copies the store into a file without free pages and puts that in place of the old one.
    Compact(Folder),
    /// Writes all of a store to one file, with checks.
    Export(ExportArgs),
    /// Imports an export into a new store, or blocks into a chain.
    Import(ImportArgs),
    /// Takes the last blocks back.
    Unwind(UnwindArgs),
    /// Keeps the ABI of a contract.
    SetAbi(SetAbiArgs),
}

/// Where the store is.
#[derive(Debug, Args)]
pub struct Folder {
    /// Folder of the store.
    #[arg(
        id = "database_path",
        long = "database-path",
        value_name = "DIR",
        default_value = "./zvm-data"
    )]
    path: PathBuf,
}

/// Arguments of `zvm db stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    #[command(flatten)]
    folder: Folder,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `zvm db export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    #[command(flatten)]
    folder: Folder,
    /// The file to write; `-` writes to standard output.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Arguments of `zvm db unwind`.
#[derive(Debug, Args)]
pub struct UnwindArgs {
    #[command(flatten)]
    folder: Folder,
    /// The block that becomes the head.
    #[arg(long, value_name = "NUMBER")]
    to: u64,
}

/// Arguments of `zvm db set-abi`.
#[derive(Debug, Args)]
pub struct SetAbiArgs {
    #[command(flatten)]
    folder: Folder,
    /// The contract; all others with its code get the ABI too.
    #[arg(value_name = "ADDRESS")]
    address: Address,
    /// The ABI, a JSON array.
    #[arg(value_name = "FILE.json")]
    file: PathBuf,
}

impl DbCommand {
    /// Does it.
    pub fn run(self) -> eyre::Result<ExitCode> {
        match self {
            Self::Stats(args) => args.run(),
            Self::Verify(folder) => verify(&folder),
            Self::Migrate(folder) => migrate(&folder),
            Self::Compact(folder) => compact(&folder),
            Self::Export(args) => args.run(),
            Self::Import(args) => args.run(),
            Self::Unwind(args) => args.run(),
            Self::SetAbi(args) => args.run(),
        }
    }
}

impl Folder {
    /// How the store is opened, which must be there: a tool never makes one.
    fn options(&self) -> eyre::Result<LmdbOptions> {
        if !self.path.join("data.mdb").exists() {
            bail!("{} holds no store", self.path.display());
        }
        Ok(LmdbOptions::new(&self.path))
    }

    fn open(&self) -> eyre::Result<JournaledStore> {
        self.options()?;
        Ok(JournaledStore::open(journaled(&self.path))?)
    }
}

/// How a tool opens a store: its one reader may take its time.
fn journaled(path: &Path) -> JournaledOptions {
    let mut options = JournaledOptions::new(path);
    options.snapshot_limit = Duration::from_secs(u64::from(u32::MAX));
    options
}

#[derive(Debug, Serialize)]
struct Stats {
    schema: u32,
    head: Option<HeadStats>,
    /// First block whose state can be read.
    state_from: u64,
    /// First block, after block 0, whose body, receipts and indexes are kept.
    blocks_from: u64,
    file_bytes: u64,
    journal: JournalStats,
    tables: Vec<TableStats>,
}

/// The journal, and what was in it and not in the tables when the store was opened.
#[derive(Debug, Serialize)]
struct JournalStats {
    file_bytes: u64,
    /// Number of the last commit.
    last: u64,
    /// Number of the last commit that is in the tables.
    merged: u64,
    /// Commits that were replayed.
    replayed: u64,
    overlay_entries: u64,
    overlay_bytes: u64,
}

#[derive(Debug, Serialize)]
struct HeadStats {
    number: u64,
    hash: alloy_primitives::B256,
}

#[derive(Debug, Serialize)]
struct TableStats {
    name: &'static str,
    entries: u64,
    bytes: u64,
}

impl StatsArgs {
    fn run(self) -> eyre::Result<ExitCode> {
        let store = self.folder.open()?;
        let tables = store.stats()?;
        let snapshot = store.snapshot()?;
        let kept = zvm_storage::retained(&*snapshot)?;
        let journal = store.statistics();
        let stats = Stats {
            schema: SCHEMA_VERSION,
            head: zvm_storage::head(&*snapshot)?.map(|(number, hash)| HeadStats { number, hash }),
            state_from: kept.state,
            blocks_from: kept.blocks,
            file_bytes: std::fs::metadata(store.path().join("data.mdb"))?.len(),
            journal: JournalStats {
                file_bytes: journal.journal_bytes,
                last: journal.last,
                merged: journal.merged,
                replayed: store.recovery().replayed,
                overlay_entries: journal.overlay_entries,
                overlay_bytes: journal.overlay_bytes,
            },
            tables: tables
                .into_iter()
                .map(|stats| TableStats {
                    name: stats.table.name(),
                    entries: stats.entries,
                    bytes: stats.bytes,
                })
                .collect(),
        };
        let mut out = std::io::stdout();
        if self.json {
            writeln!(out, "{}", serde_json::to_string_pretty(&stats)?)?;
        } else {
            stats.print(&mut out)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Stats {
    fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        match &self.head {
            Some(head) => {
                let number = head.number;
                writeln!(out, "head        {number} {}", head.hash)?;
                writeln!(out, "states      of blocks {} to {number}", self.state_from)?;
                let blocks = self.blocks_from;
                writeln!(
                    out,
                    "bodies      of blocks {blocks} to {number}, and of block 0"
                )?;
            }
            None => writeln!(out, "head        none: the store is empty")?,
        }
        writeln!(out, "schema      version {}", self.schema)?;
        writeln!(out, "file        {} bytes", self.file_bytes)?;
        let journal = &self.journal;
        writeln!(
            out,
            "journal     {} bytes, commits up to {}, {} in the tables, {} replayed",
            journal.file_bytes, journal.last, journal.merged, journal.replayed
        )?;
        writeln!(
            out,
            "overlay     {} entries, {} bytes of memory",
            journal.overlay_entries, journal.overlay_bytes
        )?;
        writeln!(out)?;
        let heads = ("table", "entries", "bytes", "bytes/entry");
        writeln!(
            out,
            "{:<22}{:>14}{:>16}{:>14}",
            heads.0, heads.1, heads.2, heads.3
        )?;
        for TableStats {
            name,
            entries,
            bytes,
        } in &self.tables
        {
            let each = bytes.checked_div(*entries).unwrap_or_default();
            writeln!(out, "{name:<22}{entries:>14}{bytes:>16}{each:>14}")?;
        }
        Ok(())
    }
}

fn verify(folder: &Folder) -> eyre::Result<ExitCode> {
    let store = folder.open()?;
    let found = zvm_storage::verify(&*store.snapshot()?, Some(&receipt::receipts_root))?;
    let mut out = std::io::stdout();
    for (kind, count) in &found.checked {
        writeln!(out, "{kind:<18}{count:>14} checked")?;
    }
    if found.fault_count == 0 {
        writeln!(out, "no faults")?;
        return Ok(ExitCode::SUCCESS);
    }
    for fault in &found.faults {
        writeln!(out, "fault: {fault}")?;
    }
    let (count, named) = (found.fault_count, found.faults.len());
    writeln!(out, "{count} faults, the first {named} are above")?;
    Ok(ExitCode::FAILURE)
}

fn migrate(folder: &Folder) -> eyre::Result<ExitCode> {
    let migrated = LmdbStore::migrate(folder.options()?, &history::format_of_code)?;
    let mut out = std::io::stdout();
    if migrated.from == migrated.to {
        writeln!(out, "the store has schema version {} already", migrated.to)?;
    } else {
        writeln!(
            out,
            "schema version {} to {}: {} blocks indexed",
            migrated.from, migrated.to, migrated.blocks
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

fn compact(folder: &Folder) -> eyre::Result<ExitCode> {
    // What is in the journal alone must be in the tables first.
    folder.open()?.merge_all()?;
    let compacted = LmdbStore::compact(folder.options()?)?;
    writeln!(
        std::io::stdout(),
        "{} entries: {} bytes to {} bytes",
        compacted.entries,
        compacted.before,
        compacted.after
    )?;
    Ok(ExitCode::SUCCESS)
}

impl ExportArgs {
    fn run(self) -> eyre::Result<ExitCode> {
        let store = self.folder.open()?;
        let snapshot = store.snapshot()?;
        if self.file == Path::new("-") {
            zvm_storage::export(&*snapshot, &mut std::io::stdout().lock())?;
            return Ok(ExitCode::SUCCESS);
        }
        // A file with the name that was asked for is whole.
        let mut partial = self.file.clone().into_os_string();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let named = |error| eyre!("cannot write {}: {error}", partial.display());
        let mut out = BufWriter::new(File::create(&partial).map_err(named)?);
        let written = zvm_storage::export(&*snapshot, &mut out).and_then(|written| {
            let synced = out.get_ref().sync_all();
            synced
                .map_err(zvm_storage::DumpError::Write)
                .map(|()| written)
        });
        let written = match written {
            Ok(written) => written,
            Err(error) => {
                // What is left is of no use, and the error that counts is the first.
                let _ = std::fs::remove_file(&partial);
                return Err(error).wrap_err_with(|| partial.display().to_string());
            }
        };
        std::fs::rename(&partial, &self.file).map_err(named)?;
        writeln!(
            std::io::stdout(),
            "{} entries in {} bytes exported",
            written.rows,
            written.bytes
        )?;
        Ok(ExitCode::SUCCESS)
    }
}

impl UnwindArgs {
    fn run(self) -> eyre::Result<ExitCode> {
        let store = self.folder.open()?;
        let taken = history::unwind(&store, self.to)?;
        let snapshot = store.snapshot()?;
        let mut out = std::io::stdout();
        if let Some((number, hash)) = zvm_storage::head(&*snapshot)? {
            writeln!(out, "head {number} {hash}")?;
        }
        writeln!(out, "{taken} blocks taken back")?;
        Ok(ExitCode::SUCCESS)
    }
}

impl SetAbiArgs {
    fn run(self) -> eyre::Result<ExitCode> {
        let text = std::fs::read(&self.file)
            .map_err(|error| eyre!("cannot read {}: {error}", self.file.display()))?;
        if text.len() > MAX_ABI {
            bail!("{} is longer than {MAX_ABI} bytes", self.file.display());
        }
        let _: Vec<serde_json::Value> = serde_json::from_slice(&text)
            .wrap_err_with(|| format!("{} is no ABI", self.file.display()))?;
        let store = self.folder.open()?;
        let account = zvm_storage::read_account(&*store.snapshot()?, &self.address)?;
        let account = account
            .filter(|account| account.code_hash != alloy_primitives::KECCAK256_EMPTY)
            .ok_or_else(|| eyre!("there is no contract at {}", self.address))?;
        let mut batch = Batch::new();
        zvm_storage::put_abi(&mut batch, &account.code_hash, &text);
        store.commit(&batch)?;
        writeln!(std::io::stdout(), "kept for code {}", account.code_hash)?;
        Ok(ExitCode::SUCCESS)
    }
}
