//! Past blocks, indexes by address, and the tools of `zvm db`.

use std::path::Path;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_rpc_types_eth::EIP1186AccountProofResponse;
use alloy_trie::proof::verify_proof;
use alloy_trie::{Nibbles, TrieAccount};
use serde_json::{Value, json};

use crate::process::{Server, zvm};

/// Deploys code that adds one to slot 0 and logs the new value as a topic when called with nothing, and returns slot 0
/// when called with something.
const COUNTER: &str =
    "0x602080600b6000396000f3366014576000546001018060005560006000a1005b60005460005260206000f3";
const TO: &str = "0x00000000000000000000000000000000000000ee";

struct World {
    server: Server,
    from: Value,
    contract: Value,
}

impl World {
    /// A node with a counter in block 1.
    fn new(data: &Path, flags: &[&str]) -> Self {
        let server = Server::start(data, flags);
        let from = server.result("eth_accounts", json!([]))[0].clone();
        let hash = server.result(
            "eth_sendTransaction",
            json!([{ "from": from, "data": COUNTER, "gas": "0x30d40" }]),
        );
        let contract = server.receipt(&hash)["contractAddress"].clone();
        Self {
            server,
            from,
            contract,
        }
    }

    /// One block that counts, and one with a transfer.
    fn count(&self) {
        for request in [
            json!({ "from": self.from, "to": self.contract, "gas": "0x186a0" }),
            json!({ "from": self.from, "to": TO, "value": "0x7" }),
        ] {
            let hash = self.server.result("eth_sendTransaction", json!([request]));
            assert_eq!(self.server.receipt(&hash)["status"], "0x1");
        }
    }

    /// What is answered about a block, by number, hash or tag.
    fn answers(&self, block: &Value) -> Vec<Value> {
        let ask = |method, params| self.server.result(method, params);
        let read = json!({ "to": self.contract, "data": "0x01" });
        let add = json!({ "from": self.from, "to": self.contract });
        vec![
            ask("eth_getBalance", json!([TO, block])),
            ask("eth_getBalance", json!([self.from, block])),
            ask("eth_getTransactionCount", json!([self.from, block])),
            ask("eth_getCode", json!([self.contract, block])),
            ask("eth_getStorageAt", json!([self.contract, "0x0", block])),
            ask("eth_call", json!([read, block])),
            ask("eth_estimateGas", json!([add, block])),
            ask(
                "eth_getProof",
                json!([self.contract, ["0x0", "0x5"], block]),
            ),
            ask("zvm_getContractInfo", json!([self.contract, block])),
        ]
    }
}

fn block(number: u64) -> Value {
    json!(format!("{number:#x}"))
}

fn verify(proof: &Value, state_root: B256) {
    let proof: EIP1186AccountProofResponse = serde_json::from_value(proof.clone()).unwrap();
    let account = TrieAccount::new(
        proof.nonce,
        proof.balance,
        proof.storage_hash,
        proof.code_hash,
    );
    let prove = |root, key: &[u8], value: Option<Vec<u8>>, nodes: &[Bytes]| {
        verify_proof(root, Nibbles::unpack(keccak256(key)), value, nodes).unwrap();
    };
    prove(
        state_root,
        proof.address.as_slice(),
        Some(alloy_rlp::encode(account)),
        &proof.account_proof,
    );
    for slot in &proof.storage_proof {
        let value = (slot.value != U256::ZERO).then(|| alloy_rlp::encode(slot.value));
        let key = slot.key.as_b256();
        prove(proof.storage_hash, key.as_slice(), value, &slot.proof);
    }
}

#[test]
fn past_blocks_answer_as_they_did_while_they_were_the_head() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(&folder.path().join("data"), &[]);
    let mut recorded = Vec::new();
    for _ in 0..6 {
        world.count();
        recorded.push(world.answers(&json!("latest")));
    }
    let mut proved = 0;
    for (turn, expected) in recorded.iter().enumerate() {
        let number = 1 + 2 * (turn as u64 + 1);
        assert_eq!(&world.answers(&block(number)), expected);
        let header = world
            .server
            .result("eth_getBlockByNumber", json!([block(number), false]));
        let by_hash = json!({ "blockHash": header["hash"] });
        assert_eq!(&world.answers(&by_hash), expected);
        let root: B256 = serde_json::from_value(header["stateRoot"].clone()).unwrap();
        verify(&expected[7], root);
        proved += 1;
    }
    assert_eq!(proved, 6);
    for tag in ["safe", "finalized", "pending"] {
        assert_eq!(&world.answers(&json!(tag)), recorded.last().unwrap());
    }
    let earliest = world
        .server
        .result("eth_getCode", json!([world.contract, "earliest"]));
    assert_eq!(earliest, "0x");
    let (code, message) = world.server.error("eth_getBalance", json!([TO, block(99)]));
    assert_eq!((code, message.as_str()), (-32000, "header not found"));
    world.server.stop();
}

#[test]
fn what_is_not_retained_is_refused_with_what_is() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let world = World::new(&data, &["--state-history", "3", "--block-history", "5"]);
    for _ in 0..5 {
        world.count();
    }
    // The head is block 11.
    let read = |number| json!([world.contract, "0x0", block(number)]);
    world.server.result("eth_getStorageAt", read(8));
    let (code, message) = world.server.error("eth_getStorageAt", read(7));
    assert!(
        code == -32000
            && message.contains("state of block 7")
            && message.contains("blocks 8 to 11"),
        "{message}"
    );
    let whole = |number| json!([block(number), true]);
    world.server.result("eth_getBlockByNumber", whole(6));
    world.server.result("eth_getBlockByNumber", whole(0));
    let (_, message) = world.server.error("eth_getBlockByNumber", whole(5));
    assert!(message.contains("blocks 6 to 11"), "{message}");
    let logs = |from| json!([{ "fromBlock": block(from), "address": world.contract }]);
    assert_eq!(
        world
            .server
            .result("eth_getLogs", logs(6))
            .as_array()
            .unwrap()
            .len(),
        3
    );
    let (_, message) = world.server.error("eth_getLogs", logs(0));
    assert!(message.contains("blocks 6 to 11"), "{message}");
    world.server.stop();
}

#[test]
fn logs_and_transactions_are_found_by_address_and_topic() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(&folder.path().join("data"), &[]);
    for _ in 0..6 {
        world.count();
    }
    let logs = |filter: Value| {
        let found = world.server.result("eth_getLogs", json!([filter]));
        found.as_array().unwrap().clone()
    };
    let all = logs(json!({ "fromBlock": "earliest" }));
    assert_eq!(all.len(), 6);
    assert_eq!(
        logs(json!({ "fromBlock": "earliest", "address": world.contract })),
        all
    );
    let third = format!("{:#x}", B256::with_last_byte(3));
    let found = logs(json!({ "fromBlock": "earliest", "topics": [[third]] }));
    assert_eq!(found, all[2..3]);
    assert!(logs(json!({ "fromBlock": "earliest", "address": TO })).is_empty());
    assert!(logs(json!({ "fromBlock": "earliest", "topics": [third, third] })).is_empty());

    let listed = |method, params| {
        let answer = world.server.result(method, params);
        let transactions = answer["transactions"].as_array().unwrap().clone();
        (transactions, answer["next"].clone())
    };
    let (sent, next) = listed("zvm_getTransactionsBySender", json!([world.from]));
    assert_eq!((sent.len(), next), (13, Value::Null));
    let (mut paged, mut next) = (Vec::new(), json!({}));
    while !next.is_null() {
        let page = listed(
            "zvm_getTransactionsBySender",
            json!([world.from, next, "0x5"]),
        );
        paged.extend(page.0);
        next = page.1;
    }
    assert_eq!(paged, sent);
    let (received, _) = listed("zvm_getTransactionsByRecipient", json!([TO]));
    assert_eq!(received.len(), 6);
    // The one that created it, and those that called it.
    let (called, _) = listed("zvm_getTransactionsByRecipient", json!([world.contract]));
    assert_eq!(called.len(), 7);
    let info = world
        .server
        .result("zvm_getContractInfo", json!([world.contract]));
    assert_eq!(info["transactionHash"], called[0]["hash"]);
    assert_eq!(
        (&info["deployer"], &info["block"]),
        (&world.from, &json!("0x1"))
    );
    assert_eq!(
        (&info["format"], &info["abi"]),
        (&json!("evm"), &Value::Null)
    );
    assert!(
        world
            .server
            .result("zvm_getContractInfo", json!([TO]))
            .is_null()
    );
    world.server.stop();
}

/// Runs `zvm db`; returns whether it succeeded, and what it printed.
fn db(command: &str, data: &Path, args: &[&str]) -> (bool, String) {
    let output = zvm()
        .args(["db", command, "--database-path"])
        .arg(data)
        .args(args)
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&printed).into_owned(),
    )
}

/// As [`db`], and must succeed.
fn done(command: &str, data: &Path, args: &[&str]) -> String {
    let (success, printed) = db(command, data, args);
    assert!(success, "{command}: {printed}");
    printed
}

#[test]
fn a_store_is_verified_exported_imported_compacted_unwound_and_served_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let world = World::new(&data, &[]);
    for _ in 0..4 {
        world.count();
    }
    let (success, printed) = db("verify", &data, &[]);
    assert!(!success && printed.contains("already open"), "{printed}");
    let third = world.answers(&block(5));
    let last = world.answers(&block(9));
    let contract: Address = serde_json::from_value(world.contract.clone()).unwrap();
    let World {
        server,
        from,
        contract: address,
    } = world;
    server.stop();

    assert!(done("verify", &data, &[]).contains("no faults"));
    let stats: Value = serde_json::from_str(&done("stats", &data, &["--json"])).unwrap();
    assert_eq!(
        (&stats["head"]["number"], &stats["state_from"]),
        (&json!(9), &json!(0))
    );
    assert!(done("stats", &data, &[]).contains("of blocks 0 to 9"));
    let abi = folder.path().join("abi.json");
    std::fs::write(&abi, r#"[{"type":"fallback"}]"#).unwrap();
    let contract = contract.to_string();
    done("set-abi", &data, &[&contract, abi.to_str().unwrap()]);

    let dump = folder.path().join("dump");
    let dump = dump.to_str().unwrap();
    done("export", &data, &[dump]);
    let copy = folder.path().join("copy");
    done("import", &copy, &[dump]);
    let (success, printed) = db("import", &copy, &[dump]);
    assert!(
        !success && printed.contains("empty or not there"),
        "{printed}"
    );
    assert!(done("verify", &copy, &[]).contains("no faults"));
    done("compact", &copy, &[]);
    let again = folder.path().join("again");
    let again = again.to_str().unwrap();
    done("export", &copy, &[again]);
    assert_eq!(std::fs::read(dump).unwrap(), std::fs::read(again).unwrap());

    assert!(done("unwind", &copy, &["--to", "5"]).contains("4 blocks taken back"));
    assert!(done("verify", &copy, &[]).contains("no faults"));
    let (success, printed) = db("unwind", &copy, &["--to", "7"]);
    assert!(!success && printed.contains("blocks 0 to 5"), "{printed}");
    assert!(done("migrate", &copy, &[]).contains("already"));
    let (success, printed) = db("stats", &folder.path().join("none"), &[]);
    assert!(!success && printed.contains("holds no store"), "{printed}");

    let world = World {
        server: Server::start(&copy, &[]),
        from,
        contract: address,
    };
    let with_abi = |mut answers: Vec<Value>| {
        answers[8]["abi"] = json!([{ "type": "fallback" }]);
        answers
    };
    assert_eq!(world.answers(&json!("latest")), with_abi(third));
    world.count();
    world.count();
    // The same transactions on the same state.
    assert_eq!(world.answers(&json!("latest"))[4..6], last[4..6]);
    world.server.stop();
}
