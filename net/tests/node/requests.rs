//! Requests and answers of a development node.

use serde_json::{Value, json};

use crate::process::{Server, http, post, zvm};

pub const ALICE: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
pub const BOB: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";

/// Deployed code with `set(uint256)`, which emits `Set(uint256)`, and `get()`; anything else reverts with `Error("no")`.
const RUNTIME: &str = "5f3560e01c80636d4ce63c146039576360fe47b1146042576308c379a060e01b5f5260206004526002602452616e6f\
    60f01b60445260645ffd5b5f545f5260205ff35b600435805f555f527fdf7a95aebff315db1b7716215d602ab537373cdb769232aae6055c\
    06e798425b60205fa100";
const SET_TOPIC: &str = "0xdf7a95aebff315db1b7716215d602ab537373cdb769232aae6055c06e798425b";

pub fn development(flags: &[&str]) -> (tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), flags);
    (folder, server)
}

fn deploy(server: &Server) -> String {
    let code = format!("0x60718060095f395ff3{RUNTIME}");
    let hash = server.result(
        "eth_sendTransaction",
        json!([{ "from": ALICE, "data": code }]),
    );
    let receipt = server.receipt(&hash);
    assert_eq!(receipt["status"], "0x1");
    receipt["contractAddress"].as_str().unwrap().to_owned()
}

fn set(value: u64) -> String {
    format!("0x60fe47b1{value:064x}")
}

fn word(value: u64) -> String {
    format!("0x{value:064x}")
}

#[test]
fn a_contract_is_deployed_called_and_transacted_with() {
    let (_folder, server) = development(&[]);
    assert!(
        server
            .greeting()
            .contains("0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80")
    );
    assert_eq!(server.result("eth_chainId", json!([])), "0x7a69");
    assert_eq!(
        server
            .result("eth_accounts", json!([]))
            .as_array()
            .unwrap()
            .len(),
        10
    );
    let contract = deploy(&server);
    assert_eq!(
        server.result("eth_getCode", json!([contract, "latest"])),
        format!("0x{RUNTIME}")
    );
    let call = json!({ "to": contract, "input": "0x6d4ce63c" });
    assert_eq!(server.result("eth_call", json!([call, "latest"])), word(0));

    let request = json!({ "from": ALICE, "to": contract, "data": set(5) });
    let hash = server.result("eth_sendTransaction", json!([request]));
    let receipt = server.receipt(&hash);
    assert_eq!(
        (&receipt["status"], &receipt["logs"][0]["topics"][0]),
        (&json!("0x1"), &json!(SET_TOPIC))
    );
    assert_eq!(server.result("eth_call", json!([call])), word(5));
    assert_eq!(
        server.result("eth_getStorageAt", json!([contract, "0x0", "latest"])),
        word(5)
    );
    assert_eq!(
        server.result("eth_getTransactionCount", json!([ALICE, "pending"])),
        "0x2"
    );

    let filter = json!({ "fromBlock": "earliest", "address": contract, "topics": [SET_TOPIC] });
    let logs = server.result("eth_getLogs", json!([filter]));
    assert_eq!(logs.as_array().unwrap().len(), 1);
    assert_eq!(logs[0]["transactionHash"], hash);

    let tx = server.result("eth_getTransactionByHash", json!([hash]));
    assert_eq!(tx["blockHash"], receipt["blockHash"]);
    let block = server.result("eth_getBlockByHash", json!([receipt["blockHash"], true]));
    assert_eq!(block["transactions"][0], tx);
    let receipts = server.result("eth_getBlockReceipts", json!([receipt["blockNumber"]]));
    assert_eq!(receipts[0], receipt);
    let history = server.result("eth_feeHistory", json!(["0x4", "latest", [50]]));
    assert_eq!(
        history["baseFeePerGas"].as_array().unwrap().len(),
        1 + history["gasUsedRatio"].as_array().unwrap().len()
    );
    server.stop();
}

#[test]
fn errors_have_the_codes_and_texts_clients_look_for() {
    let (_folder, server) = development(&["--rpc-max-batch", "3", "--rpc-max-logs", "2"]);
    let contract = deploy(&server);
    let answer = server.ask(
        "eth_call",
        json!([{ "to": contract, "data": "0xdeadbeef" }]),
    );
    assert_eq!(
        (&answer["error"]["code"], &answer["error"]["message"]),
        (&json!(3), &json!("execution reverted: no"))
    );
    assert!(
        answer["error"]["data"]
            .as_str()
            .unwrap()
            .starts_with("0x08c379a0")
    );
    assert_eq!(
        server
            .error(
                "eth_estimateGas",
                json!([{ "to": contract, "data": "0xdeadbeef" }])
            )
            .0,
        3
    );

    let parse = |body: &str| {
        serde_json::from_str::<Value>(&post(&server.address, body, &[]).unwrap().body).unwrap()
    };
    assert_eq!(parse("{nonsense")["error"]["code"], -32700);
    assert_eq!(
        parse("{\"jsonrpc\":\"2.0\",\"id\":7}")["error"]["code"],
        -32600
    );
    assert_eq!(server.error("eth_nothing", json!([])).0, -32601);
    assert_eq!(
        server.error("eth_getBalance", json!([])),
        (-32602, "missing value for required argument 0".to_owned())
    );
    assert_eq!(server.error("eth_getBalance", json!(["0x1"])).0, -32602);
    assert_eq!(
        server
            .error("eth_getBlockByNumber", json!(["0x01", false]))
            .0,
        -32602
    );
    let both = json!([{ "to": contract, "data": "0x01", "input": "0x02" }]);
    assert_eq!(server.error("eth_call", both).0, -32602);
    let same = json!([{ "to": contract, "data": "0x6d4ce63c", "input": "0x6d4ce63c" }]);
    assert_eq!(server.result("eth_call", same), word(0));

    let (code, text) = server.error("eth_getBalance", json!([ALICE, "0x99"]));
    assert!(
        code == -32000 && text == "header not found",
        "{code} {text}"
    );
    let (code, text) = server.error(
        "eth_sendTransaction",
        json!([{ "from": contract, "to": BOB }]),
    );
    assert!(
        code == -32000 && text.starts_with("unknown account"),
        "{code} {text}"
    );
    let low = json!([{ "from": ALICE, "to": BOB, "nonce": "0x0", "gas": "0x5208" }]);
    let (code, text) = server.error("eth_sendTransaction", low);
    assert!(
        code == -32000 && text.starts_with("nonce too low"),
        "{code} {text}"
    );
    let gas = json!([{ "from": ALICE, "to": BOB, "gas": "0x5207" }]);
    assert!(
        server
            .error("eth_sendTransaction", gas)
            .1
            .starts_with("intrinsic gas too low")
    );

    for value in 0..3 {
        let hash = server.result(
            "eth_sendTransaction",
            json!([{ "from": ALICE, "to": contract, "data": set(value) }]),
        );
        server.receipt(&hash);
    }
    let (code, text) = server.error(
        "eth_getLogs",
        json!([{ "fromBlock": "0x0", "toBlock": "0x4" }]),
    );
    assert!(
        code == -32005 && text.contains("limit of 2 logs") && text.contains("0x0 to 0x3"),
        "{code} {text}"
    );
    assert_eq!(
        server
            .result(
                "eth_getLogs",
                json!([{ "fromBlock": "0x0", "toBlock": "0x3" }])
            )
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let entry = |id: u64| json!({ "jsonrpc": "2.0", "id": id, "method": "eth_chainId" });
    let batch = parse(&json!([entry(1), entry(2), { "id": 3 }]).to_string());
    let codes: Vec<_> = batch
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer["error"]["code"].as_i64())
        .collect();
    assert_eq!(codes, [None, None, Some(-32600)]);
    let large = parse(&json!([entry(1), entry(2), entry(3), entry(4)]).to_string());
    assert!(large["error"]["code"].is_i64(), "{large}");
    server.stop();
}

#[test]
fn a_nonce_gap_waits_in_the_pool_and_a_better_paid_transaction_replaces_it() {
    let (_folder, server) = development(&[]);
    let send = |nonce: &str, fee: &str| {
        let request = json!({
            "from": BOB, "to": ALICE, "gas": "0x5208", "nonce": nonce,
            "maxFeePerGas": fee, "maxPriorityFeePerGas": fee,
        });
        server.ask("eth_sendTransaction", json!([request]))
    };
    let first = send("0x1", "0x77359400")["result"].take();
    assert_eq!(
        server.result("txpool_status", json!([])),
        json!({ "pending": "0x0", "queued": "0x1" })
    );
    let pending = server.result("eth_getTransactionByHash", json!([first]));
    assert!(
        pending["blockHash"].is_null() && pending["from"] == BOB,
        "{pending}"
    );
    let text = send("0x1", "0x77359401")["error"]["message"].take();
    assert!(
        text.as_str()
            .unwrap()
            .starts_with("replacement transaction underpriced"),
        "{text}"
    );
    let second = send("0x1", "0xb2d05e00")["result"].take();
    assert!(
        server
            .result("eth_getTransactionByHash", json!([first]))
            .is_null()
    );
    send("0x0", "0x77359400");
    assert_eq!(server.receipt(&second)["status"], "0x1");
    assert_eq!(
        server.result("txpool_status", json!([])),
        json!({ "pending": "0x0", "queued": "0x0" })
    );
    server.stop();
}

#[test]
fn web_pages_of_other_origins_are_served_only_if_enabled() {
    let preflight = |server: &Server| {
        let headers = [
            ("Origin", "http://page.example"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type"),
        ];
        http(&server.address, "OPTIONS", "", &headers).unwrap()
    };
    let (_folder, closed) = development(&[]);
    assert!(
        !preflight(&closed)
            .head
            .contains("access-control-allow-origin")
    );
    let (_folder, open) = development(&["--enable-cors"]);
    let answer = preflight(&open);
    assert!(
        answer.status == 200 && answer.head.contains("access-control-allow-origin: *"),
        "{}",
        answer.head
    );
    let (_folder, listed) = development(&["--enable-cors=http://page.example"]);
    assert!(
        preflight(&listed)
            .head
            .contains("access-control-allow-origin: http://page.example")
    );
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId" }).to_string();
    let answer = post(&listed.address, &body, &[("Origin", "http://page.example")]).unwrap();
    assert!(
        answer.status == 200 && answer.head.contains("access-control-allow-origin"),
        "{}",
        answer.head
    );
}

#[test]
fn a_request_that_is_too_large_is_refused() {
    let (_folder, server) = development(&["--rpc-max-request-bytes", "1000"]);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "web3_sha3", "params": [format!("0x{}", "00".repeat(1000))] });
    assert_eq!(
        post(&server.address, &body.to_string(), &[])
            .unwrap()
            .status,
        413
    );
    assert_eq!(server.result("net_peerCount", json!([])), "0x0");
}

#[test]
fn the_configuration_is_read_from_flags_then_environment_then_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zvm.toml");
    std::fs::write(&file, "rpc-port = 1\nchain-id = 2\nblock-time = 3\n").unwrap();
    let check = |flags: &[&str]| {
        let output = zvm()
            .args(["config", "check", "--rpc-port", "10", "--config"])
            .arg(&file)
            .args(flags)
            .env("ZVM_CHAIN_ID", "20")
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (success, printed, _) = check(&[]);
    assert!(success);
    for line in [
        "rpc-port = 10",
        "chain-id = 20",
        "block-time = 3",
        "database-type = \"lmdb\"",
    ] {
        assert!(
            printed.lines().any(|found| found == line),
            "{line} in {printed}"
        );
    }
    let (success, _, refused) = check(&["--database-type", "rocksdb"]);
    assert!(
        !success && refused.contains("not in this build"),
        "{refused}"
    );
}

#[test]
fn a_contract_in_a_file_is_run_and_traced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("contract.hex");
    std::fs::write(&path, format!("0x{RUNTIME}\n")).unwrap();
    let run = |flags: &[&str]| zvm().arg("run").arg(&path).args(flags).output().unwrap();
    let output = run(&["--calldata", &set(9), "--trace"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        output.status.success()
            && printed.contains("status: success")
            && printed.contains(SET_TOPIC),
        "{printed}"
    );
    let trace = String::from_utf8(output.stderr).unwrap();
    let first: Value = serde_json::from_str(trace.lines().next().unwrap()).unwrap();
    assert_eq!(
        (&first["pc"], &first["op"], &first["depth"]),
        (&json!(0), &json!(0x5f), &json!(1))
    );
    let output = run(&[]);
    assert!(!output.status.success());
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("status: reverted: no")
    );
    let output = run(&["--format", "wasm"]);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("this build executes EVM code only")
    );
}
