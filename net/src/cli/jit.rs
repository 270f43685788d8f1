//! `zvm jit`.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use alloy_primitives::Bytes;
use clap::{Args, Subcommand, ValueEnum};
use eyre::{WrapErr as _, bail, eyre};
use zvm_jit::compiler::{Compiler, Level, Options};
use zvm_jit::explain::Step;
use zvm_runtimes::detect::{self, Format};
use zvm_runtimes::evm::Fork;

use super::run::{code_of, hex_bytes, watch};

/// Tools for the compiler.
#[derive(Debug, Subcommand)]
pub enum JitCommand {
    /// Prints what each step of the compiler makes of a code.
    Explain(ExplainArgs),
}

/// Arguments of `zvm jit explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The contract: its deployed code as hex, as bytes or in a container (`.zvmc`).
    file: PathBuf,
    /// Only the basic block that holds this offset of the code, in decimal or with 0x.
    #[arg(long, value_name = "PC", value_parser = offset)]
    at: Option<usize>,
    /// Only this step: blocks, flow, words, clif or native.
    #[arg(long)]
    step: Option<Step>,
    /// How much is spent on the compilation.
    #[arg(long, value_enum, default_value_t)]
    level: LevelArg,
    /// Call the code with this input first, by the interpreter, print the profile of what it did, and compile with that.
    #[arg(long, value_name = "HEX", value_parser = hex_bytes)]
    calldata: Option<Bytes>,
    /// Rules of this fork.
    #[arg(long, default_value_t = Fork::Osaka)]
    fork: Fork,
}

/// A level by its name.
#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum LevelArg {
    Quick,
    #[default]
    Full,
}

fn offset(text: &str) -> Result<usize, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => usize::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

impl JitCommand {
    /// Does it.
    pub fn run(self) -> eyre::Result<ExitCode> {
        match self {
            Self::Explain(args) => args.run(),
        }
    }
}

impl ExplainArgs {
    fn run(self) -> eyre::Result<ExitCode> {
        let file = std::fs::read(&self.file)
            .map_err(|error| eyre!("cannot read {}: {error}", self.file.display()))?;
        let bytes = code_of(&self.file, file)?;
        let located =
            detect::locate(&bytes, None).wrap_err_with(|| self.file.display().to_string())?;
        if located.format != Format::Evm {
            bail!(
                "{} is {} code: only EVM code is compiled",
                self.file.display(),
                located.format
            );
        }
        let level = match self.level {
            LevelArg::Quick => Level::Quick,
            LevelArg::Full => Level::Full,
        };
        let profile = self
            .calldata
            .map(|calldata| watch(located.code, self.fork, calldata))
            .transpose()?;
        let options = Options {
            profile: profile.as_ref(),
            ..Options::of(level)
        };
        let explained = Compiler::new()?
            .explain(located.code, self.fork.spec_id(), options)
            .wrap_err_with(|| self.file.display().to_string())?;
        let steps: Vec<Step> = match self.step {
            Some(step) => vec![step],
            None => Step::ALL.to_vec(),
        };
        let mut out = std::io::stdout().lock();
        if let Some(profile) = &profile {
            writeln!(out, "---- profile\n{}", profile.to_string().trim_end())?;
        }
        for step in steps {
            let text = match self.at {
                None => explained.step(step),
                Some(pc) => explained
                    .step_at(step, pc)
                    .ok_or_else(|| eyre!("nothing at {pc} is ever reached"))?,
            };
            writeln!(out, "---- {}\n{}", step.name(), text.trim_end())?;
        }
        if self.at.is_none() && self.step.is_none() {
            writeln!(
                out,
                "---- {} bytes of code, {} instructions of Cranelift, {} bytes of machine code",
                located.code.len(),
                explained.clif(),
                explained.size()
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
