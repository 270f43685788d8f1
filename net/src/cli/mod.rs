//! The command line.

mod config;
mod conformance;
mod db;
mod jit;
mod replay;
mod run;
mod server;
mod tier;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue};
use clap::{Parser, Subcommand};

/// Ethereum-compatible virtual machine and node.
#[derive(Debug, Parser)]
#[command(name = "zvm", version, about, max_term_width = 120)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the node: a development chain if nothing else is configured.
    Server(server::ServerArgs),
    /// Runs one contract and prints what it did.
    Run(run::RunArgs),
    /// Executes recorded blocks on their pre-state and compares the results.
    Replay(replay::ReplayArgs),
    /// Runs state tests: files, folders and `.tar.zst` archives.
    Statetest(conformance::StateTestArgs),
    /// Runs blockchain tests: files, folders and `.tar.zst` archives.
    Blocktest(conformance::BlockTestArgs),
    /// Tools for the compiler.
    #[command(subcommand)]
    Jit(jit::JitCommand),
    /// Tools for stores.
    #[command(subcommand)]
    Db(db::DbCommand),
    /// Tools for the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Reads the command line and does what it says.
pub fn run() -> eyre::Result<ExitCode> {
    let arguments = arguments(std::env::args_os());
    let cli = Cli::try_parse_from(&arguments).unwrap_or_else(|error| {
        let variable = variable_of(&error, &arguments);
        drop(error.print());
        if let Some(name) = variable {
            eprintln!("\nThe value is that of the environment variable {name}.");
        }
        std::process::exit(error.exit_code())
    });
    match cli.command {
        Command::Server(args) => args.run(),
        Command::Run(args) => args.run(),
        Command::Replay(args) => args.run(),
        Command::Statetest(args) => args.run(),
        Command::Blocktest(args) => args.run(),
        Command::Jit(command) => command.run(),
        Command::Db(command) => command.run(),
        Command::Config(command) => command.run(),
    }
}

/// The environment variable a refused value comes from: what `clap` says names the flag only.
fn variable_of(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = argument.split([' ', '=', '[']).next()?;
    let given = arguments.iter().any(|given| {
        given
            .to_str()
            .and_then(|given| given.strip_prefix(flag))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    });
    let name = flag.strip_prefix("--")?.replace('-', "_").to_uppercase();
    let name = format!("ZVM_{name}");
    (!given && std::env::var_os(&name).is_some()).then_some(name)
}

/// The name `zvm-server` is an alias of `zvm server`.
fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.into_iter().collect();
    let alias = arguments.first().is_some_and(|name| {
        Path::new(name)
            .file_stem()
            .is_some_and(|stem| stem == "zvm-server")
    });
    if alias {
        arguments.insert(1, "server".into());
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn zvm_server_is_zvm_server() {
        let given = ["/usr/bin/zvm-server", "--rpc-port", "0"].map(OsString::from);
        let read = Cli::try_parse_from(arguments(given)).unwrap();
        assert!(matches!(read.command, Command::Server(_)));
    }
}
