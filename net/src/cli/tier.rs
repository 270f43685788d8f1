//! How code is executed: the flags of the commands that execute, and what they say about it at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde::Serialize;
use zvm_jit::compiler::{Compiler, Level};
use zvm_jit::disk::DiskCache;
use zvm_jit::tier::{self, Auto, Native, Settings, Statistics};
use zvm_net::settings::{DEFAULT_JIT_CACHE_BYTES, DatabaseType, Jit, Threshold};
use zvm_runtimes::evm::FrameRunner;

/// How code is executed. Results do not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Tier {
    /// By the interpreter.
    #[default]
    Interpreter,
    /// Natively: every code is compiled before its first instruction.
    Jit,
    /// By the interpreter until it is hot, then natively.
    Auto,
}

/// What the commands that execute take.
#[derive(Debug, Clone, Args)]
pub struct TierArgs {
    /// How code is executed.
    #[arg(long, value_enum, default_value_t)]
    tier: Tier,
    /// Gas that a code burns in the interpreter before it is compiled; auto goes by its size and what is measured.
    #[arg(long, value_name = "GAS|auto", default_value_t)]
    jit_threshold: Threshold,
    /// Threads that compile; with 0, hot code is compiled in place.
    #[arg(long, default_value_t = 1)]
    jit_threads: usize,
    /// Bytes of native code and its tables.
    #[arg(long, value_name = "BYTES", default_value_t = tier::DEFAULT_MEMORY)]
    jit_memory: usize,
    /// Compilations that may wait.
    #[arg(long, default_value_t = tier::DEFAULT_QUEUE)]
    jit_queue: usize,
    /// Count the instructions that native code and the interpreter execute, by what made it so. Native code is slower by
    /// that, and not kept. With `--tier jit` they are counted unless `--jit-cache` is given.
    #[arg(long, conflicts_with = "jit_cache")]
    jit_count: bool,
    /// Folder where compiled code is kept for the next time.
    #[arg(long, value_name = "DIR")]
    jit_cache: Option<PathBuf>,
}

/// A tier made ready.
#[derive(Debug, Clone)]
pub struct Runner {
    tier: Tier,
    auto: Option<Arc<Auto>>,
}

impl TierArgs {
    /// Makes the tier ready.
    ///
    /// # Errors
    /// The compiler does not know this processor, or there are no threads.
    pub fn runner(&self) -> eyre::Result<Runner> {
        let settings = Settings {
            threshold: self.jit_threshold.0,
            threads: self.jit_threads,
            memory: self.jit_memory,
            queue: self.jit_queue,
            count: self.jit_count || self.tier == Tier::Jit && self.jit_cache.is_none(),
            ..Settings::default()
        };
        let settings = match self.tier {
            Tier::Interpreter => None,
            Tier::Jit => Some(settings.eager(Level::Quick)),
            Tier::Auto => Some(settings),
        };
        let auto = settings
            .map(|settings| {
                let store = self.jit_cache.as_deref().map(open_store).transpose()?;
                let source = Native::new(Compiler::new()?, settings.memory, store);
                eyre::Ok(Arc::new(Auto::new(source, settings)?))
            })
            .transpose()?;
        Ok(Runner {
            tier: self.tier,
            auto,
        })
    }
}

impl Runner {
    /// As the engine takes it.
    pub fn frames(&self) -> Option<Arc<dyn FrameRunner>> {
        self.auto.clone().map(|auto| auto as Arc<dyn FrameRunner>)
    }

    /// The name of the tier.
    pub fn name(&self) -> String {
        self.tier
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What ran how, if there is more than one way.
    pub fn statistics(&self) -> Option<Statistics> {
        self.auto.as_ref().map(|auto| auto.statistics())
    }

    /// `report` with what ran how beside it, for `--json`.
    pub fn with_statistics<'r, R: Serialize>(&self, report: &'r R) -> impl Serialize + use<'r, R> {
        #[derive(Serialize)]
        struct Reported<'r, R> {
            #[serde(flatten)]
            report: &'r R,
            #[serde(skip_serializing_if = "Option::is_none")]
            jit: Option<Statistics>,
            /// The part of all instructions that native code executed, if they are counted.
            #[serde(skip_serializing_if = "Option::is_none")]
            native_share: Option<f64>,
        }
        Reported {
            report,
            jit: self.statistics(),
            native_share: self.statistics().and_then(|counts| counts.native_share()),
        }
    }

    /// Says on standard error what ran how.
    pub fn report(&self) {
        if let Some(counts) = self.statistics() {
            eprintln!("{}", summary(&counts));
        }
    }
}

/// What the node executes frames with, besides the interpreter.
///
/// # Errors
/// As [`TierArgs::runner`].
pub fn of_node(settings: &zvm_net::settings::Settings) -> eyre::Result<Option<Arc<Auto>>> {
    let tiers = Settings {
        threshold: settings.jit_threshold.0,
        threads: settings.jit_threads,
        memory: settings.jit_memory,
        queue: settings.jit_queue,
        ..Settings::default()
    };
    let tiers = match settings.jit {
        Jit::Off => return Ok(None),
        Jit::On => tiers,
        Jit::Eager => tiers.eager(Level::Quick),
    };
    let kept = settings.jit_cache_bytes > 0 && settings.database_type == DatabaseType::Lmdb;
    let folder = settings.database_path.join("native");
    // Without a store code is compiled again after a start, which is no reason not to start.
    let store = kept
        .then(|| DiskCache::open(&folder, settings.jit_cache_bytes))
        .transpose()
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "compiled code is not kept");
            None
        });
    let source = Native::new(Compiler::new()?, tiers.memory, store);
    Ok(Some(Arc::new(Auto::new(source, tiers)?)))
}

/// What ran how, in a few lines.
pub fn summary(counts: &Statistics) -> String {
    let mut text = format!(
        "compiled {} codes quick in {} ms and {} full in {} ms, refused {}, loaded {}; {} units of {} bytes from {} in use, {} \
         evicted, {} compiled again without an assumption, {} given up\nnative code entered {} times, left {} instructions to \
         the interpreter; {} runs of frames native, {} interpreted, {} of them picked up by native code; gas {} native, {} \
         interpreted",
        counts.compiled_quick,
        counts.compile_quick_us / 1_000,
        counts.compiled_full,
        counts.compile_full_us / 1_000,
        counts.refused,
        counts.loaded,
        counts.units,
        counts.native_bytes,
        counts.bytecode_bytes,
        counts.evicted,
        counts.distrusted,
        counts.given_up + counts.slower,
        counts.entries,
        counts.left,
        counts.native,
        counts.interpreted,
        counts.picked_up,
        counts.native_gas,
        counts.interpreted_gas,
    );
    // What is not zero, by its name in the JSON.
    let table = |prefix: &str| -> String {
        let fields = counts.fields().filter_map(|field| {
            let kind = field.name.strip_prefix(prefix)?;
            (field.value > 0).then(|| format!(" {kind} {}", field.value))
        });
        fields.collect()
    };
    let left = table("left_");
    if !left.is_empty() {
        text += &format!("\nnative code left, times by reason:{left}");
    }
    if let Some(share) = counts.native_share() {
        text += &format!(
            "\n{} instructions native ({} of them by calls back), {} interpreted: {:.3} % native",
            counts.native_instructions,
            counts.called_instructions,
            counts.interpreted_instructions,
            100.0 * share,
        );
        let steps = table("steps_");
        if !steps.is_empty() {
            text += &format!("\ninterpreted, instructions by reason:{steps}");
        }
    }
    text
}

fn open_store(folder: &Path) -> eyre::Result<DiskCache> {
    Ok(DiskCache::open(folder, DEFAULT_JIT_CACHE_BYTES)?)
}
