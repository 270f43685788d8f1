//! `zvm config`.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Subcommand;

use super::server::ServerArgs;

/// Tools for the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Reads flags, environment and file as `zvm server` does and prints the effective configuration as TOML.
    Check(ServerArgs),
}

impl ConfigCommand {
    /// Does it.
    pub fn run(self) -> eyre::Result<ExitCode> {
        let Self::Check(args) = self;
        let settings = args.settings()?;
        let mut stated = toml::Table::try_from(&settings)?;
        if settings.has_genesis() {
            // The genesis file states it, and what is printed must be a file that `--config` takes.
            stated.remove("chain-id");
        }
        std::io::stdout().write_all(toml::to_string(&stated)?.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}
