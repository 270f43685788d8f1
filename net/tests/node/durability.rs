//! What was answered outlives the process.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::{PATIENCE, Server, ask};

/// Receipts to wait for before the node is killed.
const SERVED: usize = 200;
/// Each with an account of its own.
const CLIENTS: usize = 4;

/// Sends transfers and reads their receipts until the connection fails.
fn load(
    address: &str,
    from: &Value,
    served: &Mutex<HashMap<String, Value>>,
    count: &AtomicUsize,
) -> std::io::Result<()> {
    loop {
        let request = json!({ "from": from, "to": "0x00000000000000000000000000000000000000ee", "value": "0x1", "gas": "0x5208" });
        let hash = ask(address, "eth_sendTransaction", json!([request]))?["result"].take();
        loop {
            let receipt =
                ask(address, "eth_getTransactionReceipt", json!([hash]))?["result"].take();
            if !receipt.is_null() {
                served
                    .lock()
                    .unwrap()
                    .insert(hash.as_str().unwrap_or_default().to_owned(), receipt);
                count.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
    }
}

#[test]
fn kill_9_keeps_every_transaction_whose_receipt_was_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start(&data, &[]);
    let accounts = server.result("eth_accounts", json!([]));
    let served = Mutex::new(HashMap::new());
    let count = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (address, from, served, count) =
                (&server.address, &accounts[client], &served, &count);
            scope.spawn(move || load(address, from, served, count));
        }
        let start = Instant::now();
        while count.load(Ordering::SeqCst) < SERVED {
            assert!(
                start.elapsed() < PATIENCE,
                "{} receipts",
                count.load(Ordering::SeqCst)
            );
            std::thread::sleep(Duration::from_millis(1));
        }
        // SIGKILL, while all clients are at it.
        server.child.kill().unwrap();
        server.child.wait().unwrap();
    });
    let served = served.into_inner().unwrap();
    assert!(served.len() >= SERVED);

    let server = Server::start(&data, &[]);
    for (hash, receipt) in &served {
        assert_eq!(
            server.result("eth_getTransactionReceipt", json!([hash])),
            *receipt
        );
    }
    // The chain is whole: every block names its parent, and the state is what the blocks did.
    let head = server.result("eth_blockNumber", json!([]));
    let head = u64::from_str_radix(head.as_str().unwrap().trim_start_matches("0x"), 16).unwrap();
    let mut parent = Value::Null;
    let mut transfers = 0;
    for number in 0..=head {
        let block = server.result(
            "eth_getBlockByNumber",
            json!([format!("{number:#x}"), false]),
        );
        assert!(
            parent.is_null() || block["parentHash"] == parent,
            "block {number}"
        );
        parent = block["hash"].clone();
        transfers += block["transactions"].as_array().unwrap().len();
    }
    let balance = server.result(
        "eth_getBalance",
        json!(["0x00000000000000000000000000000000000000ee", "latest"]),
    );
    assert_eq!(balance, format!("{transfers:#x}"));
    assert!(transfers >= served.len());
    // And it goes on.
    let request = json!({ "from": accounts[0], "to": accounts[1], "value": "0x1" });
    let hash = server.result("eth_sendTransaction", json!([request]));
    assert_eq!(server.receipt(&hash)["status"], "0x1");
    server.stop();
}
