//! `zvm run`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use alloy_primitives::{
    Address, B256, Bytes, KECCAK256_EMPTY, TxKind, U256, address, hex, keccak256,
};
use clap::Args;
use eyre::{WrapErr as _, bail, eyre};
use zvm_engine::simulate::revert_reason;
use zvm_jit::profile::{Profile, Watcher};
use zvm_net::profiling::Profiling;
use zvm_runtimes::detect::{self, Format};
use zvm_runtimes::evm::{Fork, FrameRunner, Machine, ReadError, StateReader, cfg_env};
use zvm_runtimes::revm::bytecode::Bytecode;
use zvm_runtimes::revm::context::result::ExecutionResult;
use zvm_runtimes::revm::context::{BlockEnv, TxEnv};
use zvm_runtimes::revm::state::AccountInfo;
use zvm_runtimes::trace::{TraceOptions, Tracer};

use super::tier::{Runner, TierArgs};

/// Where the contract is put.
const CONTRACT: Address = address!("000000000000000000000000000000000000c0de");

/// Gas limit of a call if none is given.
const GAS: u64 = 100_000_000;

/// Runs one contract and prints what it did.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The contract: its deployed code as hex, as bytes or in a container (`.zvmc`).
    file: PathBuf,
    /// Input of the call, in hex.
    #[arg(long, value_name = "HEX", default_value = "", value_parser = hex_bytes)]
    calldata: Bytes,
    /// Wei sent with the call.
    #[arg(long, value_name = "WEI", default_value = "0")]
    value: U256,
    /// Gas limit of the transaction that calls; the gas of the transaction itself is part of it.
    #[arg(long, default_value_t = GAS)]
    gas: u64,
    /// Sender of the transaction.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "0x000000000000000000000000000000000000ca11"
    )]
    caller: Address,
    /// What the code is; found out by its first bytes if not given.
    #[arg(long, value_name = "evm|zvm|wasm|zvm0")]
    format: Option<Format>,
    /// Rules of this fork.
    #[arg(long, default_value_t = Fork::Osaka)]
    fork: Fork,
    /// Writes an EIP-3155 trace to standard error.
    #[arg(long)]
    trace: bool,
    /// Names of native code for `perf`: off, perfmap (/tmp/perf-PID.map) or jitdump (./jit-PID.dump).
    #[arg(long, value_name = "off|perfmap|jitdump", default_value = "off")]
    profile: Profiling,
    #[command(flatten)]
    tier: TierArgs,
}

pub(super) fn hex_bytes(text: &str) -> Result<Bytes, hex::FromHexError> {
    hex::decode(text).map(Bytes::from)
}

impl RunArgs {
    /// Does it. The status is a failure if the call did not succeed.
    pub fn run(self) -> eyre::Result<ExitCode> {
        self.profile.start().wrap_err("profile")?;
        let file = std::fs::read(&self.file)
            .map_err(|error| eyre!("cannot read {}: {error}", self.file.display()))?;
        let bytes = code_of(&self.file, file)?;
        let located = detect::locate(&bytes, self.format)
            .wrap_err_with(|| self.file.display().to_string())?;
        if located.format != Format::Evm {
            bail!(
                "{} is {} code: this build executes EVM code only",
                self.file.display(),
                located.format
            );
        }
        let world = World::new(located.code, self.caller);
        let runner = self.tier.runner()?;
        let result = self.execute(&world, &runner)?;
        print(&result, &runner, &mut std::io::stdout().lock()).wrap_err("standard output")?;
        runner.report();
        Ok(if result.is_success() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }

    fn execute(&self, world: &World, runner: &Runner) -> eyre::Result<ExecutionResult> {
        let tx = TxEnv {
            caller: self.caller,
            gas_limit: self.gas,
            kind: TxKind::Call(CONTRACT),
            value: self.value,
            data: self.calldata.clone(),
            ..TxEnv::default()
        };
        let mut machine = world.machine(self.fork, self.gas);
        if let Some(frames) = runner.frames() {
            machine.set_runner(frames);
        }
        if !self.trace {
            return Ok(machine.execute(tx)?);
        }
        let writer = BufWriter::new(std::io::stderr().lock());
        let (result, tracer) =
            machine.execute_traced(tx, Tracer::new(writer, TraceOptions::default()));
        let result = result?;
        tracer.finish().wrap_err("the trace")?;
        Ok(result)
    }
}

/// Calls a code with this input and watches what it does.
pub(super) fn watch(code: &[u8], fork: Fork, calldata: Bytes) -> eyre::Result<Profile> {
    let caller = Address::ZERO;
    let world = World::new(code, caller);
    let watcher = Arc::new(Watcher::new(world.code_hash()));
    let mut machine = world.machine(fork, GAS);
    machine.set_runner(Arc::clone(&watcher) as Arc<dyn FrameRunner>);
    machine.execute(TxEnv {
        caller,
        gas_limit: GAS,
        kind: TxKind::Call(CONTRACT),
        data: calldata,
        ..TxEnv::default()
    })?;
    drop(machine);
    let watcher = Arc::into_inner(watcher).ok_or_else(|| eyre!("the call still runs"))?;
    Ok(watcher.into_profile())
}

/// The code in a file: hex digits, with or without `0x` and white space, or the bytes as they are.
///
/// A file that looks like text is hex and nothing else: a mistyped digit must not make another program of it.
pub(super) fn code_of(path: &Path, file: Vec<u8>) -> eyre::Result<Vec<u8>> {
    let trimmed = file.trim_ascii();
    if trimmed.is_empty() {
        bail!("{} is empty: no code", path.display());
    }
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    let prefixed = trimmed.strip_prefix(b"0x");
    if prefixed.is_none() && !trimmed.iter().all(is_text) {
        return Ok(file);
    }
    let text = prefixed.unwrap_or(trimmed);
    let start = file.len() - file.trim_ascii_start().len() + (trimmed.len() - text.len());
    let mut digits = Vec::with_capacity(text.len());
    for (at, byte) in text.iter().enumerate() {
        if byte.is_ascii_hexdigit() {
            digits.push(*byte);
        } else if !byte.is_ascii_whitespace() {
            bail!(
                "{}: {:?} at byte {} is no hex digit",
                path.display(),
                char::from(*byte),
                start + at
            );
        }
    }
    if digits.is_empty() {
        bail!("{} has no code after 0x", path.display());
    }
    hex::decode(digits).wrap_err_with(|| path.display().to_string())
}

fn print(result: &ExecutionResult, runner: &Runner, out: &mut impl Write) -> std::io::Result<()> {
    let status = match result {
        ExecutionResult::Success { reason, .. } => format!("success ({reason:?})"),
        ExecutionResult::Revert { output, .. } => match revert_reason(output) {
            Some(reason) => format!("reverted: {reason}"),
            None => "reverted".to_owned(),
        },
        ExecutionResult::Halt { reason, .. } => format!("halted: {reason:?}"),
    };
    writeln!(out, "status: {status}")?;
    writeln!(
        out,
        "output: {}",
        result.output().cloned().unwrap_or_default()
    )?;
    writeln!(out, "gas:    {}", result.tx_gas_used())?;
    writeln!(out, "logs:   {}", result.logs().len())?;
    for log in result.logs() {
        let topics: Vec<String> = log.topics().iter().map(ToString::to_string).collect();
        writeln!(
            out,
            "  {} [{}] {}",
            log.address,
            topics.join(", "),
            log.data.data
        )?;
    }
    writeln!(out, "tier:   {}", runner.name())
}

/// A state with the contract and a caller who can pay anything.
struct World {
    code: Bytecode,
    caller: Address,
}

impl World {
    fn new(code: &[u8], caller: Address) -> Self {
        Self {
            code: Bytecode::new_legacy(code.to_vec().into()),
            caller,
        }
    }

    /// Executes on this state, in a block of its own.
    fn machine(&self, fork: Fork, gas: u64) -> Machine<'_> {
        let mut cfg = cfg_env(fork, 1, fork.default_blob_params());
        // The gas limit is the caller's choice here, not a rule of blocks (EIP-7825).
        cfg.tx_gas_limit_cap = Some(u64::MAX);
        cfg.disable_block_gas_limit = true;
        let block = BlockEnv {
            number: U256::from(1),
            timestamp: U256::from(1),
            gas_limit: gas,
            basefee: 0,
            prevrandao: (fork >= Fork::Paris).then_some(B256::ZERO),
            ..BlockEnv::default()
        };
        Machine::new(cfg, block, self)
    }

    fn code_hash(&self) -> B256 {
        keccak256(self.code.original_byte_slice())
    }
}

impl StateReader for World {
    fn account(&self, address: &Address) -> Result<Option<AccountInfo>, ReadError> {
        let mut account = AccountInfo::default();
        if *address == self.caller {
            account.balance = U256::MAX >> 1;
        }
        if *address == CONTRACT {
            account.nonce = 1;
            account.code_hash = self.code_hash();
            account.code = Some(self.code.clone());
        }
        Ok((*address == self.caller || *address == CONTRACT).then_some(account))
    }

    fn storage(&self, _: &Address, _: &U256) -> Result<U256, ReadError> {
        Ok(U256::ZERO)
    }

    fn code(&self, hash: &B256) -> Result<Bytecode, ReadError> {
        if *hash == self.code_hash() {
            return Ok(self.code.clone());
        }
        if *hash == KECCAK256_EMPTY {
            return Ok(Bytecode::default());
        }
        Err(ReadError::new(format!("no code with hash {hash}")))
    }

    fn has_storage(&self, _: &Address) -> Result<bool, ReadError> {
        Ok(false)
    }

    fn block_hash(&self, _: u64) -> Result<B256, ReadError> {
        Ok(B256::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_with_white_space_and_anything_else_is_bytes() {
        let read = |text: &[u8]| code_of(Path::new("x"), text.to_vec());
        assert_eq!(read(b"0x60 01\n").unwrap(), [0x60, 0x01]);
        assert_eq!(read(&[0x60, 0x01]).unwrap(), [0x60, 0x01]);
        // 0xff is no character, so this is no text.
        assert_eq!(read(b"60\xff").unwrap(), b"60\xff");
    }

    #[test]
    fn text_that_is_not_hex_is_refused_with_its_place() {
        for (text, reason) in [
            (b"0x60zz".as_slice(), "x: 'z' at byte 4 is no hex digit"),
            (b"\n 60 0q", "x: 'q' at byte 6 is no hex digit"),
            (b"0x60\xff", "x: 'ÿ' at byte 4 is no hex digit"),
            (b"PUSH1 1", "x: 'P' at byte 0 is no hex digit"),
            (b"", "x is empty: no code"),
            (b" \n", "x is empty: no code"),
            (b"0x\n", "x has no code after 0x"),
            (b"0x600", "x"),
        ] {
            let error = code_of(Path::new("x"), text.to_vec()).unwrap_err();
            assert_eq!(error.to_string(), reason);
        }
    }
}
