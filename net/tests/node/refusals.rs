//! What the node does not take: foreign web pages, values that cannot work, requests that contradict themselves.

use serde_json::json;

use crate::process::{Server, post, upgrade, zvm};
use crate::requests::{ALICE, BOB, development};

#[test]
fn a_foreign_web_page_reaches_the_node_neither_by_http_nor_by_websocket() {
    let (_folder, closed) = development(&[]);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId" }).to_string();
    let status = |server: &Server, headers: &[(&str, &str)]| {
        post(&server.address, &body, headers).unwrap().status
    };
    let evil = ("Origin", "http://evil.example");
    assert_eq!(status(&closed, &[]), 200);
    assert_eq!(status(&closed, &[evil]), 403);
    assert_eq!(upgrade(&closed.address, &[]).unwrap(), 101);
    assert_eq!(upgrade(&closed.address, &[evil]).unwrap(), 403);
    // A name that was pointed at this machine.
    assert_eq!(status(&closed, &[("Host", "evil.example")]), 403);
    assert_eq!(status(&closed, &[("Host", "evil.example"), evil]), 403);
    assert_eq!(status(&closed, &[("Host", "localhost:8545")]), 200);

    let (_folder, listed) = development(&["--enable-cors=http://page.example"]);
    let page = ("Origin", "http://page.example");
    assert_eq!(status(&listed, &[page]), 200);
    assert_eq!(status(&listed, &[evil]), 403);
    assert_eq!(upgrade(&listed.address, &[page]).unwrap(), 101);
    assert_eq!(upgrade(&listed.address, &[evil]).unwrap(), 403);

    let (_folder, open) = development(&["--enable-cors=http://page.example,*"]);
    assert_eq!(status(&open, &[evil]), 200);
    assert_eq!(upgrade(&open.address, &[evil]).unwrap(), 101);
}

#[test]
fn a_refused_value_is_named_with_its_variable() {
    let output = zvm()
        .args(["config", "check"])
        .env("ZVM_RPC_PORT", "abc")
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        complaint.contains("'abc'") && complaint.contains("variable ZVM_RPC_PORT"),
        "{complaint}"
    );
    let output = zvm()
        .args(["config", "check", "--rpc-port=abc"])
        .env("ZVM_RPC_PORT", "1")
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaint.contains("--rpc-port") && !complaint.contains("ZVM_RPC_PORT"),
        "{complaint}"
    );
}

#[test]
fn the_printed_configuration_is_a_file_that_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = folder.path().join("genesis.json");
    std::fs::write(&genesis, "{}").unwrap();
    let file = folder.path().join("zvm.toml");
    let check = |flags: &[&str]| {
        let output = zvm()
            .args(["config", "check"])
            .args(flags)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    };
    for flags in [
        vec!["--enable-cors=http://page.example"],
        vec!["--genesis", genesis.to_str().unwrap()],
    ] {
        let printed = check(&flags);
        std::fs::write(&file, &printed).unwrap();
        assert_eq!(check(&["--config", file.to_str().unwrap()]), printed);
        assert_eq!(printed.contains("chain-id"), flags.len() == 1, "{printed}");
    }
}

#[test]
fn a_genesis_on_which_no_block_could_be_made_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let genesis = folder.path().join("genesis.json");
    let config = json!({
        "chainId": 7, "homesteadBlock": 0, "eip150Block": 0, "eip155Block": 0, "eip158Block": 0,
        "byzantiumBlock": 0, "constantinopleBlock": 0, "petersburgBlock": 0, "istanbulBlock": 0,
        "berlinBlock": 0, "londonBlock": 0, "terminalTotalDifficulty": 0,
        "terminalTotalDifficultyPassed": true, "shanghaiTime": 0, "cancunTime": 0, "pragueTime": 0,
        "blobSchedule": {
            "cancun": { "target": 3, "max": 6, "baseFeeUpdateFraction": 3338477 },
            "prague": { "target": 6, "max": 9, "baseFeeUpdateFraction": 5007716 },
        },
    });
    let text = json!({
        "config": config, "difficulty": "0x0", "gasLimit": "0x1c9c380", "timestamp": "0x0", "alloc": {},
    });
    std::fs::write(&genesis, text.to_string()).unwrap();
    let output = zvm()
        .args([
            "server",
            "--rpc-port",
            "0",
            "--database-type",
            "memory",
            "--genesis",
        ])
        .arg(&genesis)
        .output()
        .unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert!(
        !output.status.success()
            && complaint.contains("genesis.json")
            && complaint
                .to_lowercase()
                .contains("0x00000961ef480eb55e80d19ad83579a64c007002"),
        "{complaint}"
    );
}

#[test]
fn fields_of_different_transaction_types_are_refused_and_none_is_dropped() {
    let (_folder, server) = development(&[]);
    let authorization = json!({
        "chainId": "0x0", "address": BOB, "nonce": "0x0", "yParity": "0x0", "r": "0x1", "s": "0x1",
    });
    let request = |fields: serde_json::Value| {
        let mut request = json!({ "from": ALICE, "to": BOB, "gas": "0x186a0" });
        let all = request.as_object_mut().unwrap();
        all.extend(fields.as_object().unwrap().clone());
        json!([request])
    };
    for contradiction in [
        json!({ "gasPrice": "0x77359400", "authorizationList": [authorization] }),
        json!({ "gasPrice": "0x77359400", "type": "0x2" }),
        json!({ "maxFeePerGas": "0x77359400", "type": "0x0" }),
        json!({ "type": "0x4" }),
    ] {
        for method in ["eth_sendTransaction", "eth_signTransaction"] {
            let (code, text) = server.error(method, request(contradiction.clone()));
            assert_eq!(code, -32602, "{contradiction}: {text}");
        }
    }
    for (fields, ty) in [
        (json!({ "type": "0x0" }), "0x0"),
        (json!({ "type": "0x1" }), "0x1"),
        (json!({ "type": "0x2" }), "0x2"),
        (
            json!({ "authorizationList": [authorization], "type": "0x4" }),
            "0x4",
        ),
    ] {
        let signed = server.result("eth_signTransaction", request(fields));
        assert_eq!(signed["tx"]["type"], ty, "{signed}");
    }
}

#[test]
fn the_receipt_of_a_failed_creation_names_the_address_of_the_attempt() {
    let (_folder, server) = development(&[]);
    // INVALID as init code.
    let request = json!([{ "from": ALICE, "data": "0xfe", "gas": "0x186a0" }]);
    let hash = server.result("eth_sendTransaction", request);
    let receipt = server.receipt(&hash);
    assert_eq!(
        (&receipt["status"], &receipt["contractAddress"]),
        (
            &json!("0x0"),
            &json!("0x5fbdb2315678afecb367f032d93f642f64180aa3")
        )
    );
}
