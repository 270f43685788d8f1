//! What the runner says of single files, right and wrong ones.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;
use zvm_engine::fixtures::report::Report;
use zvm_engine::fixtures::runner::Workers;
use zvm_engine::fixtures::statetest::{self, StateTestOptions};
use zvm_runtimes::trace::TraceOptions;

const SENDER: &str = "0xa94f5374fce5edbc8e2a8697c15331677e6ebf0b";
const CALLED: &str = "0x1000000000000000000000000000000000000000";
/// Keccak of the RLP of no logs.
const NO_LOGS: &str = "0x1dcc4de8dec75d7aab85b567b6ccd41ad312451b948a7413f0a142fd40d49347";
const ZERO: &str = "0x0000000000000000000000000000000000000000000000000000000000000000";

/// A call with `value` to code that stores 1, which must lead to `root`.
fn state_test(value: &str, root: &str, exception: &str) -> String {
    format!(
        r#"{{"call": {{
        "env": {{"currentCoinbase": "0x2adc25665018aa1fe0e6bc666dac8fc2697ff9ba", "currentGasLimit": "0x989680",
            "currentNumber": "0x01", "currentTimestamp": "0x03e8", "currentDifficulty": "0x00",
            "currentRandom": "{ZERO}", "currentBaseFee": "0x0a"}},
        "pre": {{
            "{SENDER}": {{"balance": "0x0de0b6b3a7640000", "nonce": "0x00", "code": "0x", "storage": {{}}}},
            "{CALLED}": {{"balance": "0x00", "nonce": "0x00", "code": "0x6001600055", "storage": {{}}}}}},
        "transaction": {{"data": ["0x"], "gasLimit": ["0x0186a0"], "value": ["{value}"], "nonce": "0x00",
            "gasPrice": "0x0a", "to": "{CALLED}", "sender": "{SENDER}",
            "secretKey": "0x45a915e4d060149eb4365960e6a7a45f334393093061116b197e3240065ff2d8"}},
        "post": {{"London": [{{"hash": "{root}", "logs": "{NO_LOGS}", {exception}
            "indexes": {{"data": 0, "gas": 0, "value": 0}},
            "state": {{"{CALLED}": {{"balance": "0x05", "nonce": "0x00", "code": "0x6001600055",
                "storage": {{"0x00": "0x02"}}}}}}}}]}}
        }}}}"#
    )
}

fn write(folder: &TempDir, text: &str) -> PathBuf {
    let path = folder.path().join("test.json");
    fs::write(&path, text).unwrap();
    path
}

fn run(text: &str) -> Report {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, text);
    statetest::run(&[path], StateTestOptions::default(), Workers::default()).unwrap()
}

/// The root that the runner computed, from what it says of a wrong one.
fn computed_root(text: &str) -> String {
    let report = run(text);
    let reason = &report.failed[0].reason;
    let root = reason.strip_prefix("state root ").expect(reason);
    root[..66].to_owned()
}

#[test]
fn a_wrong_root_is_explained_account_by_account() {
    let report = run(&state_test("0x05", ZERO, ""));
    assert_eq!((report.cases, report.executed, report.passed), (1, 1, 0));
    let failure = &report.failed[0];
    assert_eq!(failure.case, "call/London/0");
    assert!(failure.path.ends_with("test.json"));
    let slot = format!("{CALLED} slot 0x0 0x1, expected 0x2");
    let sender = "0xa94f5374Fce5edBC8E2a8697C15331677e6EbF0B exists and must not";
    for part in [slot.as_str(), sender] {
        assert!(failure.reason.contains(part), "{}", failure.reason);
    }
}

#[test]
fn the_right_root_passes_and_an_expected_rejection_must_happen() {
    let root = computed_root(&state_test("0x05", ZERO, ""));
    assert!(run(&state_test("0x05", &root, "")).all_passed());
    let report = run(&state_test("0x05", &root, r#""expectException": "any","#));
    assert!(report.failed[0].reason.starts_with("accepted"), "{report}");
}

#[test]
fn a_value_over_256_bits_rejects_the_transaction_and_leaves_the_world_as_it_was() {
    let value = format!("0x:bigint 0x1{}", "0".repeat(64));
    let expected = r#""expectException": "any","#;
    let root = computed_root(&state_test(&value, ZERO, expected));
    assert!(run(&state_test(&value, &root, expected)).all_passed());
    let report = run(&state_test(&value, &root, ""));
    assert!(
        report.failed[0].reason.starts_with("rejected: value"),
        "{report}"
    );
}

#[test]
fn a_file_that_is_no_state_test_fails_with_the_place_in_it() {
    for text in ["{", "[]", r#"{"a": {"env": {}}}"#] {
        let report = run(text);
        assert_eq!(report.failed.len(), 1);
        assert!(
            report.failed[0].reason.contains("line 1 column"),
            "{report}"
        );
    }
}

#[test]
fn a_trace_has_a_line_a_step_and_ends_with_the_state_root() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, &state_test("0x05", ZERO, ""));
    let mut trace = Vec::new();
    let report = statetest::run_traced(
        &[path],
        StateTestOptions::default(),
        TraceOptions::default(),
        &mut trace,
    )
    .unwrap();
    assert_eq!(report.executed, 1);
    let trace = String::from_utf8(trace).unwrap();
    let lines: Vec<serde_json::Value> = trace
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let names: Vec<_> = lines
        .iter()
        .filter_map(|line| line["opName"].as_str())
        .collect();
    assert_eq!(names, ["PUSH1", "PUSH1", "SSTORE", "STOP"]);
    let root = lines.last().unwrap()["stateRoot"].as_str().unwrap();
    assert!(report.failed[0].reason.contains(root));
}
