//! Chains from files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::process::{Server, zvm};

/// Where the chain ends, by `headfcu.json`.
const HEAD: &str = "0xd226371d0b1551adb03fb52b71f08e3e11247fe9b1af994768af8cdaa8e7dcd7";
/// Exchanges of methods this node has, at least.
const EXCHANGES: usize = 60;
/// Of methods this node has, exchanges it answers otherwise, and why.
const DIFFERENT: [(&str, &str); 1] = [(
    "eth_sendRawTransaction/send-blob-tx.io",
    "blob sidecars are not taken",
)];

/// The folder of the unpacked archive; `None` where the tests are to run without external data.
fn unpack(into: &Path) -> Option<PathBuf> {
    let archive =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance/rpc-compat.tar.zst");
    let set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1" || value == "true");
    if !archive.exists() && set("ZVM_WITHOUT_FIXTURES") {
        assert!(!set("CI"), "ZVM_WITHOUT_FIXTURES must not be set in CI");
        eprintln!(
            "left out: {} is not there and ZVM_WITHOUT_FIXTURES is set",
            archive.display()
        );
        return None;
    }
    let file =
        File::open(&archive).unwrap_or_else(|error| panic!("{}: {error}", archive.display()));
    tar::Archive::new(zstd::Decoder::new(file).unwrap())
        .unpack(into)
        .unwrap();
    Some(into.join("rpc-compat"))
}

fn import(files: &Path, data: &Path, chain: &Path) -> (Output, String, String) {
    let output = zvm()
        .args(["db", "import", "--genesis"])
        .arg(files.join("genesis.json"))
        .arg("--database-path")
        .arg(data)
        .arg(chain)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, complained) = (text(&output.stdout), text(&output.stderr));
    (output, printed, complained)
}

#[test]
fn rpc_compat_chain_imports_and_ends_at_the_stated_head() {
    let folder = tempfile::tempdir().unwrap();
    let Some(files) = unpack(folder.path()) else {
        return;
    };
    let data = folder.path().join("data");
    let (output, printed, complained) = import(&files, &data, &files.join("chain.rlp"));
    assert!(output.status.success(), "{complained}");
    assert!(printed.contains(&format!("head 54 {HEAD}")), "{printed}");
    let (output, printed, _) = import(&files, &data, &files.join("chain.rlp"));
    assert!(
        output.status.success() && printed.contains("0 blocks imported, 54 known before"),
        "{printed}"
    );

    let genesis = files.join("genesis.json");
    let server = Server::start(&data, &["--genesis", genesis.to_str().unwrap()]);
    assert_eq!(
        server.result("eth_getBlockByNumber", json!(["latest", false]))["hash"],
        HEAD
    );
    let (mut compared, mut different) = (0, Vec::new());
    for exchange in exchanges(&files) {
        // What is sent would make blocks and move the head.
        let sends = exchange.request["method"]
            .as_str()
            .unwrap()
            .starts_with("eth_send");
        if exchange.by_schema_only
            || sends && !DIFFERENT.iter().any(|(name, _)| *name == exchange.name)
        {
            continue;
        }
        let answer = server.ask(
            exchange.request["method"].as_str().unwrap(),
            exchange.request["params"].clone(),
        );
        if answer["error"]["code"] == -32601 {
            continue;
        }
        compared += 1;
        let same = match (answer.get("error"), exchange.answer.get("error")) {
            (Some(found), Some(wanted)) => found["code"] == wanted["code"],
            _ => answer["result"] == exchange.answer["result"],
        };
        if !same {
            different.push(exchange.name);
        }
    }
    assert_eq!(different, DIFFERENT.map(|(name, _)| name));
    assert!(
        compared >= EXCHANGES,
        "only {compared} exchanges were compared"
    );
    server.stop();
}

#[test]
fn a_bad_block_is_named_with_its_rule_and_what_was_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let Some(files) = unpack(folder.path()) else {
        return;
    };
    let mut chain = std::fs::read(files.join("chain.rlp")).unwrap();
    // Another byte in the state root of the last block, which comes 91 bytes after the beginning of the header.
    let last = chain.len() - last_block_length(&chain);
    chain[last + 100] ^= 1;
    let path = folder.path().join("bad.rlp");
    std::fs::write(&path, &chain).unwrap();
    let data = folder.path().join("data");
    let (output, printed, complained) = import(&files, &data, &path);
    assert!(!output.status.success());
    assert!(printed.contains("head 53 "), "{printed}");
    assert!(
        complained.contains("block 54") && complained.contains("stateRoot"),
        "{complained}"
    );

    std::fs::write(&path, &chain[..chain.len() - 1]).unwrap();
    let (output, _, complained) = import(&files, &folder.path().join("cut"), &path);
    assert!(
        !output.status.success() && complained.contains("no whole RLP list"),
        "{complained}"
    );
}

/// Bytes of the last item of concatenated RLP lists.
fn last_block_length(chain: &[u8]) -> usize {
    let mut rest = chain;
    loop {
        let mut payload = rest;
        let header = alloy_rlp::Header::decode(&mut payload).unwrap();
        let length = rest.len() - payload.len() + header.payload_length;
        if length == rest.len() {
            return length;
        }
        rest = &rest[length..];
    }
}

struct Exchange {
    name: String,
    /// The answer depends on the client and is only an example.
    by_schema_only: bool,
    request: Value,
    answer: Value,
}

fn exchanges(files: &Path) -> Vec<Exchange> {
    let mut found = Vec::new();
    for folder in std::fs::read_dir(files)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
    {
        for path in std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let line = |start: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(start));
                serde_json::from_str::<Value>(line.unwrap_or_else(|| panic!("{}", path.display())))
                    .unwrap()
            };
            found.push(Exchange {
                name: path.strip_prefix(files).unwrap().display().to_string(),
                by_schema_only: text.contains("speconly"),
                request: line(">> "),
                answer: line("<< "),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
