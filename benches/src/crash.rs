//! `zvm-crash`: kills the node under load and checks what it finds afterwards.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use alloy_primitives::B256;
use clap::Parser;
use eyre::{WrapErr as _, bail, ensure, eyre};
use serde_json::{Value, json};
use zvm_storage::{FAULT_POINTS, JournaledOptions, JournaledStore, Snapshot, Store as _};

/// Accounts that send at the same time.
const CLIENTS: usize = 4;
/// Within this time a node that runs reaches its point of fault, or is killed.
const PATIENCE: Duration = Duration::from_secs(3);
/// Within this time a node starts.
const START: Duration = Duration::from_secs(60);

#[derive(Debug, Parser)]
#[command(
    name = "zvm-crash",
    about = "Kills the node under load and checks what is left"
)]
struct Args {
    /// The node, built with the feature `faults`.
    #[arg(long)]
    node: PathBuf,
    /// How often it is killed.
    #[arg(long, default_value = "100")]
    kills: u64,
    /// Chooses the moments.
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Durability of the node.
    #[arg(long, default_value = "full")]
    durability: String,
    /// Blocks before the head that are checked after each kill; all of them are after the last one.
    #[arg(long, default_value = "200")]
    checked_blocks: u64,
}

fn main() -> eyre::Result<ExitCode> {
    let args = Args::parse();
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let mut random = args.seed;
    let mut acknowledged: Vec<String> = Vec::new();
    let mut killed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut known = 0;
    for kill in 0..args.kills {
        // Every second kill is at a point of fault, each point in turn.
        let point = (kill % 2 == 1).then(|| FAULT_POINTS[(kill / 2) as usize % FAULT_POINTS.len()]);
        let moment = next(&mut random);
        let reached = load_and_kill(&args, &data, point, moment, &mut acknowledged)
            .wrap_err_with(|| format!("kill {kill} at {point:?}"))?;
        let name = if reached {
            point.unwrap_or("random")
        } else {
            "random"
        };
        *killed.entry(name).or_default() += 1;
        let all = kill + 1 == args.kills;
        let blocks = if all { u64::MAX } else { args.checked_blocks };
        let new = if all { 0 } else { known };
        check(&data, blocks, &acknowledged[new..])
            .wrap_err_with(|| format!("after kill {kill} at {point:?}"))?;
        known = acknowledged.len();
        if kill % 50 == 49 {
            eprintln!("{} kills, {known} transactions acknowledged", kill + 1);
        }
    }
    for (point, kills) in &killed {
        println!("{point:20} {kills:>6} kills");
    }
    println!(
        "{} kills, {} acknowledged transactions, none lost; roots and indexes as they should be",
        args.kills,
        acknowledged.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// SplitMix64.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Ends the node however the driver ends.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts the node, sends transactions, and sees it die. Returns whether it died at its point of fault.
fn load_and_kill(
    args: &Args,
    data: &Path,
    point: Option<&str>,
    moment: u64,
    acknowledged: &mut Vec<String>,
) -> eyre::Result<bool> {
    let mut command = Command::new(&args.node);
    command
        .args([
            "server",
            "--rpc-port",
            "0",
            "--log-level",
            "warn",
            "--jit",
            "off",
        ])
        .args(["--database-merge-interval", "20", "--database-durability"])
        .arg(&args.durability)
        .arg("--database-path")
        .arg(data)
        .stdout(Stdio::piped());
    if let Some(point) = point {
        command.env("ZVM_FAULT", format!("{point}:kill:{}", 1 + moment % 12));
    }
    let mut node = Node(command.spawn()?);
    let Some(address) = address(&mut node, point.is_some())? else {
        return Ok(true);
    };
    let served = Mutex::new(Vec::new());
    let accounts = ask(&address, "eth_accounts", json!([]));
    thread::scope(|scope| {
        if let Ok(accounts) = &accounts {
            for client in 0..CLIENTS {
                let (from, address, served) = (&accounts[client], &address, &served);
                scope.spawn(move || {
                    // Ends with the node.
                    while let Ok(hash) = transact(address, from) {
                        if let Ok(mut served) = served.lock() {
                            served.push(hash);
                        }
                    }
                });
            }
        }
        let begun = Instant::now();
        let limit = match point {
            Some(_) => PATIENCE,
            None => Duration::from_millis(5 + moment % 400),
        };
        let mut reached = false;
        while begun.elapsed() < limit && !reached {
            thread::sleep(Duration::from_millis(2));
            reached = node.0.try_wait()?.is_some();
        }
        node.0.kill()?;
        node.0.wait()?;
        Ok::<_, eyre::Report>(reached)
    })
    .and_then(|reached| {
        ensure!(
            reached <= point.is_some(),
            "the node ended though nobody killed it"
        );
        let served = served
            .into_inner()
            .map_err(|_| eyre!("a client panicked"))?;
        acknowledged.extend(served);
        Ok(reached)
    })
}

/// Where the node listens; `None` if it died before, as it may at a point of fault.
fn address(node: &mut Node, may_die: bool) -> eyre::Result<Option<String>> {
    let out = node.0.stdout.take().ok_or_else(|| eyre!("no output"))?;
    let (send, receive) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("http://") {
                let address = rest.split_whitespace().next().unwrap_or_default();
                let _ = send.send(address.to_owned());
            }
        }
    });
    match receive.recv_timeout(START) {
        Ok(address) => Ok(Some(address)),
        Err(mpsc::RecvTimeoutError::Disconnected) if may_die => {
            node.0.wait()?;
            Ok(None)
        }
        Err(error) => Err(eyre!("the node did not start: {error}")),
    }
}

/// Sends a transfer and waits for its receipt: then it is acknowledged.
fn transact(address: &str, from: &Value) -> eyre::Result<String> {
    let request = json!({ "from": from, "to": from, "value": "0x1", "gas": "0x5208" });
    let hash = ask(address, "eth_sendTransaction", json!([request]))?;
    loop {
        if !ask(address, "eth_getTransactionReceipt", json!([hash]))?.is_null() {
            return Ok(hash.as_str().unwrap_or_default().to_owned());
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// One JSON-RPC request.
fn ask(address: &str, method: &str, params: Value) -> eyre::Result<Value> {
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(START))?;
    write!(
        stream,
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| eyre!("no whole answer"))?;
    let mut answer: Value = serde_json::from_str(body)?;
    if let Some(error) = answer.get("error") {
        bail!("{method}: {error}");
    }
    Ok(answer["result"].take())
}

/// Opens the store as it was left and checks it.
fn check(data: &Path, blocks: u64, acknowledged: &[String]) -> eyre::Result<()> {
    if !data.join("data.mdb").exists() {
        ensure!(acknowledged.is_empty(), "there is no store");
        return Ok(());
    }
    let store = JournaledStore::open(JournaledOptions::new(data))?;
    ensure!(store.recovery().dropped.is_none(), "{:?}", store.recovery());
    let snapshot = store.snapshot()?;
    let snapshot = &*snapshot;
    let Some((head, hash)) = zvm_storage::head(snapshot)? else {
        ensure!(acknowledged.is_empty(), "there is no head");
        return Ok(());
    };
    let header =
        zvm_storage::header(snapshot, head)?.ok_or_else(|| eyre!("no header of the head"))?;
    let root = zvm_storage::rebuild_root(snapshot)?;
    ensure!(
        root == header.state_root,
        "the root of block {head} is {root}, its header says {}",
        header.state_root
    );
    ensure!(
        zvm_storage::state_root(snapshot)? == root,
        "the stored trie has another root"
    );
    ensure!(
        zvm_storage::block_hash(snapshot, head)? == Some(hash),
        "the head has another hash than its block"
    );
    for number in (head.saturating_sub(blocks)..=head).rev() {
        check_block(snapshot, number).wrap_err_with(|| format!("block {number}"))?;
    }
    for hash in acknowledged {
        let hash: B256 = hash.parse()?;
        let place = zvm_storage::transaction_location(snapshot, &hash)?
            .ok_or_else(|| eyre!("the acknowledged transaction {hash} is lost"))?;
        let body = zvm_storage::body(snapshot, place.block)?.unwrap_or_default();
        let found = body.transactions.get(place.index as usize);
        ensure!(
            found.is_some_and(|found| *found.tx_hash() == hash),
            "the index names a wrong place of {hash}"
        );
    }
    Ok(())
}

/// A block and the indexes that lead to it and to its transactions.
fn check_block(snapshot: &dyn Snapshot, number: u64) -> eyre::Result<()> {
    let (hash, header) =
        zvm_storage::sealed_header(snapshot, number)?.ok_or_else(|| eyre!("no header"))?;
    ensure!(header.hash_slow() == hash, "the hash is wrong");
    ensure!(
        zvm_storage::block_number(snapshot, &hash)? == Some(number),
        "the hash leads elsewhere"
    );
    if let Some(parent) = number.checked_sub(1) {
        ensure!(
            zvm_storage::block_hash(snapshot, parent)? == Some(header.parent_hash),
            "the parent is another block"
        );
    }
    let body = zvm_storage::body(snapshot, number)?.ok_or_else(|| eyre!("no body"))?;
    let receipts = zvm_storage::receipts(snapshot, number)?.ok_or_else(|| eyre!("no receipts"))?;
    let senders = zvm_storage::senders(snapshot, number)?.ok_or_else(|| eyre!("no senders"))?;
    let count = body.transactions.len();
    ensure!(
        receipts.len() == count && senders.len() == count,
        "{count} transactions, {} receipts, {} senders",
        receipts.len(),
        senders.len()
    );
    for (index, transaction) in body.transactions.iter().enumerate() {
        let place = zvm_storage::transaction_location(snapshot, transaction.tx_hash())?;
        ensure!(
            place.is_some_and(|place| (place.block, place.index as usize) == (number, index)),
            "transaction {index} is not where the index says"
        );
    }
    Ok(())
}
