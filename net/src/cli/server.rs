//! `zvm server`.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use alloy_primitives::KECCAK256_EMPTY;
use clap::Args;
use eyre::{WrapErr as _, bail, eyre};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use zvm_engine::chain::Chain;
use zvm_engine::genesis::Genesis;
use zvm_engine::ingress::Senders;
use zvm_engine::node::{Node, NodeSettings};
use zvm_engine::pool::PoolLimits;
use zvm_engine::requests::REQUEST_CONTRACTS;
use zvm_net::accounts::{self, Accounts};
use zvm_net::rpc::{Rpc, RpcLimits};
use zvm_net::server::Serving;
use zvm_net::settings::{DEFAULT_BLOCK_GAS_LIMIT, DatabaseType, Durability, Options, Settings};
use zvm_runtimes::evm::{Fork, FrameRunner};
use zvm_storage::{JournaledOptions, JournaledStore, MemoryStore, Retention, Store};

use super::tier;

/// The node. Each flag can also be an environment variable or an entry of the file, in this order.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// TOML file with the names of the flags as entries.
    #[arg(long, env = "ZVM_CONFIG", value_name = "FILE.toml")]
    config: Option<PathBuf>,
    #[command(flatten)]
    options: Options,
}

impl ServerArgs {
    /// The effective settings.
    pub fn settings(self) -> eyre::Result<Settings> {
        Ok(Settings::new(self.options, self.config.as_deref())?)
    }

    /// Runs the node until it is told to end.
    pub fn run(self) -> eyre::Result<ExitCode> {
        let settings = self.settings()?;
        let filter = EnvFilter::try_new(&settings.log_level).wrap_err("log-level")?;
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .init();
        settings.profile.start().wrap_err("profile")?;
        rayon::ThreadPoolBuilder::new()
            .num_threads(settings.threads)
            .build_global()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(settings.threads)
            .enable_all()
            .build()?;
        runtime.block_on(serve(&settings))?;
        Ok(ExitCode::SUCCESS)
    }
}

async fn serve(settings: &Settings) -> eyre::Result<()> {
    let accounts = if settings.has_genesis() {
        Accounts::none()
    } else {
        Accounts::development()?
    };
    let jit = tier::of_node(settings)?;
    let runner = jit.clone().map(|jit| jit as Arc<dyn FrameRunner>);
    let chain = Arc::new(
        open_chain(settings, &accounts)?
            .with_runner(runner)
            .with_senders(Arc::new(Senders::with_capacity(settings.sender_cache))),
    );
    let node_settings = NodeSettings {
        block_time: (settings.block_time > 0).then(|| Duration::from_secs(settings.block_time)),
        gas_limit: (settings.block_gas_limit > 0).then_some(settings.block_gas_limit),
        pool: PoolLimits {
            transactions: settings.pool_max_transactions,
            bytes: settings.pool_max_bytes,
            per_sender: settings.pool_max_per_sender,
            per_sender_bytes: settings.pool_max_bytes_per_sender,
            transaction_bytes: settings.pool_max_transaction_bytes,
            displaced: settings.pool_max_displaced,
            price_bump: settings.pool_price_bump.into(),
            min_priority_fee: settings.pool_min_priority_fee.into(),
            held_lifetime: Duration::from_secs(settings.pool_held_seconds),
        },
        in_flight: settings.blocks_in_flight,
        gather: Duration::from_millis(settings.block_gather),
        ..NodeSettings::default()
    };
    // Before the address is printed, so that whoever reads it can end the node at once.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let node = Node::start(Arc::clone(&chain), node_settings)?;
    let limits = RpcLimits {
        gas_cap: settings.rpc_gas_cap,
        logs: settings.rpc_max_logs,
        transactions: settings.rpc_max_transactions,
        proof_changes: settings.rpc_max_proof_changes,
        concurrent: settings.rpc_max_concurrent,
        sync_wait: Duration::from_millis(settings.rpc_max_sync_wait),
    };
    let module = Rpc::new(Arc::clone(&node), accounts.clone(), limits).into_module()?;
    let serving = match Serving::start(module, settings).await {
        Ok(serving) => serving,
        Err(error) => {
            node.stop();
            return Err(error.into());
        }
    };
    let mut out = std::io::stdout();
    writeln!(out, "{}", greeting(&chain, &accounts))?;
    writeln!(
        out,
        "Listening on http://{0} and ws://{0}",
        serving.address()
    )?;

    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("ending");
    serving.stop().await;
    tokio::task::spawn_blocking(move || node.stop()).await?;
    if let Some(jit) = jit {
        for line in tier::summary(&jit.statistics()).lines() {
            tracing::info!("{line}");
        }
    }
    Ok(())
}

/// What is said at the start: the accounts with their keys, and where the chain stands.
fn greeting(chain: &Chain, accounts: &Accounts) -> String {
    let mut lines = Vec::new();
    let keys: Vec<_> = accounts.keys().collect();
    if !keys.is_empty() {
        lines.push(format!(
            "Accounts of the mnemonic \"{}\", 10000 ETH each.",
            accounts::MNEMONIC
        ));
        lines.push("Their keys are known to everybody: use them for development only.".to_owned());
        lines.extend(
            keys.iter()
                .enumerate()
                .map(|(index, (address, key))| format!("({index}) {address} {key}")),
        );
    }
    let head = chain.head();
    lines.push(format!(
        "Chain {}, block {} {}",
        chain.spec().chain_id,
        head.header.number,
        head.hash
    ));
    lines.join("\n")
}

fn open_chain(settings: &Settings, accounts: &Accounts) -> eyre::Result<Chain> {
    let genesis = if settings.has_genesis() {
        read_genesis(&settings.genesis)?
    } else {
        let gas_limit = match settings.block_gas_limit {
            0 => DEFAULT_BLOCK_GAS_LIMIT,
            limit => limit,
        };
        Genesis::development(
            settings.chain_id,
            gas_limit,
            &accounts.addresses(),
            accounts::BALANCE,
        )
    };
    let store: Arc<dyn Store> = match settings.database_type {
        DatabaseType::Lmdb => Arc::new(open_store(settings)?),
        DatabaseType::Memory => Arc::new(MemoryStore::new()),
    };
    let chain = Chain::open(store, &genesis).wrap_err_with(|| match settings.database_type {
        DatabaseType::Lmdb => format!("the chain in {}", settings.database_path.display()),
        DatabaseType::Memory => "the chain in memory".to_owned(),
    })?;
    let chain = chain.with_retention(Retention {
        state: settings.state_history.0,
        blocks: settings.block_history.0,
    });
    if settings.has_genesis() {
        require_request_contracts(&chain)
            .wrap_err_with(|| settings.genesis.display().to_string())?;
    }
    Ok(chain)
}

/// The store of the node, with what its journal gave.
fn open_store(settings: &Settings) -> eyre::Result<JournaledStore> {
    let mut options = JournaledOptions::new(&settings.database_path);
    options.state.durability = match settings.database_durability {
        Durability::Full => zvm_storage::Durability::Full,
        Durability::Relaxed => zvm_storage::Durability::Relaxed,
    };
    options.overlay_bytes = settings.database_overlay_bytes;
    options.merge_interval = Duration::from_millis(settings.database_merge_interval);
    options.snapshot_limit = Duration::from_secs(settings.database_snapshot_seconds);
    options.drop_damaged_end = settings.database_drop_damaged_end;
    let store = JournaledStore::open(options)?;
    let recovery = store.recovery();
    if recovery.replayed > 0 {
        tracing::info!("{} commits replayed from the journal", recovery.replayed);
    }
    if let Some(reason) = &recovery.dropped {
        tracing::warn!("the end of the journal was dropped: {reason}");
    }
    Ok(store)
}

/// From Prague on no block is valid without the contracts of EIP-7002 and EIP-7251: a chain without them could not be
/// continued, which is better said before transactions are taken.
fn require_request_contracts(chain: &Chain) -> eyre::Result<()> {
    let head = chain.head();
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.as_secs());
    let timestamp = now.max(head.header.timestamp.saturating_add(1));
    if chain.fork_after(&head, timestamp) < Fork::Prague {
        return Ok(());
    }
    let snapshot = chain.snapshot()?;
    for (_, address) in REQUEST_CONTRACTS {
        let account = zvm_storage::read_account(&*snapshot, &address)?;
        if account.is_none_or(|account| account.code_hash == KECCAK256_EMPTY) {
            bail!(
                "no code at {address}: from Prague on every block needs this contract \
                 (EIP-7002, EIP-7251), so no block could be made"
            );
        }
    }
    Ok(())
}

/// Reads a genesis file; the error names it.
pub fn read_genesis(path: &std::path::Path) -> eyre::Result<Genesis> {
    let text =
        std::fs::read(path).map_err(|error| eyre!("cannot read {}: {error}", path.display()))?;
    Genesis::from_json(&text).wrap_err_with(|| path.display().to_string())
}
