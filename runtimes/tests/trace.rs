//! Traces of small programs, line by line.

use revm::{
    Context, ExecuteEvm, InspectEvm, MainBuilder, MainContext,
    context::TxEnv,
    database::{CacheDB, EmptyDB},
    primitives::{Address, B256, Bytes, TxKind, U256, address, hardfork::SpecId},
    state::{AccountInfo, Bytecode},
};
use std::io::{self, Write};
use zvm_runtimes::{
    isa::{Isa, assemble},
    trace::{TraceOptions, Tracer, write_state_root},
};

const MAIN: Address = address!("0x1000000000000000000000000000000000000000");
const OTHER: Address = address!("0x0000000000000000000000000000000000000aaa");

fn trace_into<W: Write>(
    writer: W,
    options: TraceOptions,
    gas: u64,
    contracts: &[(Address, &str)],
) -> io::Result<W> {
    let mut db = CacheDB::new(EmptyDB::default());
    for (address, text) in contracts {
        let code = Bytecode::new_legacy(assemble(Isa::Evm, text).expect("assembles").into());
        db.insert_account_info(*address, AccountInfo::default().with_code(code));
        db.insert_account_storage(*address, U256::from(1), U256::from(0x22))
            .expect("inserts");
    }
    let tx = TxEnv::builder()
        .gas_limit(gas)
        .kind(TxKind::Call(MAIN))
        .data(Bytes::new())
        .build()
        .expect("builds");
    let mut evm = Context::mainnet()
        .with_db(db)
        .modify_cfg_chained(|cfg| cfg.set_spec_and_mainnet_gas_params(SpecId::OSAKA))
        .build_mainnet_with_inspector(Tracer::new(writer, options));
    evm.inspect_one_tx(tx).expect("runs");
    evm.finalize();
    evm.inspector.finish()
}

fn trace(options: TraceOptions, gas: u64, contracts: &[(Address, &str)]) -> String {
    String::from_utf8(trace_into(Vec::new(), options, gas, contracts).expect("writes"))
        .expect("is text")
}

fn assert_lines(actual: &str, expected: &[&str]) {
    for (i, (actual, expected)) in actual.lines().zip(expected).enumerate() {
        assert_eq!(actual, *expected, "line {i}");
    }
    assert_eq!(actual.lines().count(), expected.len(), "{actual}");
}

#[test]
fn arithmetic_memory_and_storage() {
    let code = "PUSH1 2 PUSH1 3 ADD PUSH0 MSTORE PUSH1 1 SLOAD PUSH1 9 PUSH1 1 SSTORE PUSH1 32 PUSH0 RETURN";
    assert_lines(
        &trace(TraceOptions::default(), 100_000, &[(MAIN, code)]),
        &[
            r#"{"pc":0,"op":96,"gas":"0x13498","gasCost":"0x3","memSize":0,"stack":[],"depth":1,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":2,"op":96,"gas":"0x13495","gasCost":"0x3","memSize":0,"stack":["0x2"],"depth":1,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":4,"op":1,"gas":"0x13492","gasCost":"0x3","memSize":0,"stack":["0x2","0x3"],"depth":1,"refund":0,"opName":"ADD"}"#,
            r#"{"pc":5,"op":95,"gas":"0x1348f","gasCost":"0x2","memSize":0,"stack":["0x5"],"depth":1,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":6,"op":82,"gas":"0x1348d","gasCost":"0x6","memSize":0,"stack":["0x5","0x0"],"depth":1,"refund":0,"opName":"MSTORE"}"#,
            r#"{"pc":7,"op":96,"gas":"0x13487","gasCost":"0x3","memSize":32,"stack":[],"depth":1,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":9,"op":84,"gas":"0x13484","gasCost":"0x834","memSize":32,"stack":["0x1"],"depth":1,"refund":0,"opName":"SLOAD"}"#,
            r#"{"pc":10,"op":96,"gas":"0x12c50","gasCost":"0x3","memSize":32,"stack":["0x22"],"depth":1,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":12,"op":96,"gas":"0x12c4d","gasCost":"0x3","memSize":32,"stack":["0x22","0x9"],"depth":1,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":14,"op":85,"gas":"0x12c4a","gasCost":"0xb54","memSize":32,"stack":["0x22","0x9","0x1"],"depth":1,"refund":0,"opName":"SSTORE"}"#,
            r#"{"pc":15,"op":96,"gas":"0x120f6","gasCost":"0x3","memSize":32,"stack":["0x22"],"depth":1,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":17,"op":95,"gas":"0x120f3","gasCost":"0x2","memSize":32,"stack":["0x22","0x20"],"depth":1,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":18,"op":243,"gas":"0x120f1","gasCost":"0x0","memSize":32,"stack":["0x22","0x20","0x0"],"depth":1,"refund":0,"opName":"RETURN"}"#,
            r#"{"output":"0000000000000000000000000000000000000000000000000000000000000005","gasUsed":"0x13a7","pass":true}"#,
        ],
    );
}

#[test]
fn a_call_costs_what_it_forwards_and_a_failed_one_goes_on_in_its_caller() {
    let main = "PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH2 0xaaa PUSH2 1000 CALL POP";
    let other = "PUSH1 1 PUSH0 MSTORE8 PUSH1 1 PUSH0 REVERT";
    let options = TraceOptions {
        return_data: true,
        ..TraceOptions::default()
    };
    assert_lines(
        &trace(options, 100_000, &[(MAIN, main), (OTHER, other)]),
        &[
            r#"{"pc":0,"op":95,"gas":"0x13498","gasCost":"0x2","memSize":0,"stack":[],"returnData":"0x","depth":1,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":1,"op":95,"gas":"0x13496","gasCost":"0x2","memSize":0,"stack":["0x0"],"returnData":"0x","depth":1,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":2,"op":95,"gas":"0x13494","gasCost":"0x2","memSize":0,"stack":["0x0","0x0"],"returnData":"0x","depth":1,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":3,"op":95,"gas":"0x13492","gasCost":"0x2","memSize":0,"stack":["0x0","0x0","0x0"],"returnData":"0x","depth":1,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":4,"op":95,"gas":"0x13490","gasCost":"0x2","memSize":0,"stack":["0x0","0x0","0x0","0x0"],"returnData":"0x","depth":1,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":5,"op":97,"gas":"0x1348e","gasCost":"0x3","memSize":0,"stack":["0x0","0x0","0x0","0x0","0x0"],"returnData":"0x","depth":1,"refund":0,"opName":"PUSH2"}"#,
            r#"{"pc":8,"op":97,"gas":"0x1348b","gasCost":"0x3","memSize":0,"stack":["0x0","0x0","0x0","0x0","0x0","0xaaa"],"returnData":"0x","depth":1,"refund":0,"opName":"PUSH2"}"#,
            r#"{"pc":11,"op":241,"gas":"0x13488","gasCost":"0xe10","memSize":0,"stack":["0x0","0x0","0x0","0x0","0x0","0xaaa","0x3e8"],"returnData":"0x","depth":1,"refund":0,"opName":"CALL"}"#,
            r#"{"pc":0,"op":96,"gas":"0x3e8","gasCost":"0x3","memSize":0,"stack":[],"returnData":"0x","depth":2,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":2,"op":95,"gas":"0x3e5","gasCost":"0x2","memSize":0,"stack":["0x1"],"returnData":"0x","depth":2,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":3,"op":83,"gas":"0x3e3","gasCost":"0x6","memSize":0,"stack":["0x1","0x0"],"returnData":"0x","depth":2,"refund":0,"opName":"MSTORE8"}"#,
            r#"{"pc":4,"op":96,"gas":"0x3dd","gasCost":"0x3","memSize":32,"stack":[],"returnData":"0x","depth":2,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":6,"op":95,"gas":"0x3da","gasCost":"0x2","memSize":32,"stack":["0x1"],"returnData":"0x","depth":2,"refund":0,"opName":"PUSH0"}"#,
            r#"{"pc":7,"op":253,"gas":"0x3d8","gasCost":"0x0","memSize":32,"stack":["0x1","0x0"],"returnData":"0x","depth":2,"refund":0,"opName":"REVERT","error":"execution reverted"}"#,
            r#"{"pc":12,"op":80,"gas":"0x12a50","gasCost":"0x2","memSize":0,"stack":["0x0"],"returnData":"0x01","depth":1,"refund":0,"opName":"POP"}"#,
            r#"{"pc":13,"op":0,"gas":"0x12a4e","gasCost":"0x0","memSize":0,"stack":[],"returnData":"0x01","depth":1,"refund":0,"opName":"STOP"}"#,
            r#"{"output":"","gasUsed":"0xa4a","pass":true}"#,
        ],
    );
}

#[test]
fn out_of_gas_costs_all_that_was_left() {
    assert_lines(
        &trace(
            TraceOptions::default(),
            21_005,
            &[(MAIN, "PUSH1 1 PUSH1 2 ADD")],
        ),
        &[
            r#"{"pc":0,"op":96,"gas":"0x5","gasCost":"0x3","memSize":0,"stack":[],"depth":1,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":2,"op":96,"gas":"0x2","gasCost":"0x2","memSize":0,"stack":["0x1"],"depth":1,"refund":0,"opName":"PUSH1","error":"out of gas"}"#,
            r#"{"output":"","gasUsed":"0x5","pass":false,"error":"out of gas"}"#,
        ],
    );
    assert_lines(
        &trace(
            TraceOptions::default(),
            21_010,
            &[(MAIN, "PUSH1 1 PUSH4 0xffffff MSTORE")],
        ),
        &[
            r#"{"pc":0,"op":96,"gas":"0xa","gasCost":"0x3","memSize":0,"stack":[],"depth":1,"refund":0,"opName":"PUSH1"}"#,
            r#"{"pc":2,"op":99,"gas":"0x7","gasCost":"0x3","memSize":0,"stack":["0x1"],"depth":1,"refund":0,"opName":"PUSH4"}"#,
            r#"{"pc":7,"op":82,"gas":"0x4","gasCost":"0x4","memSize":0,"stack":["0x1","0xffffff"],"depth":1,"refund":0,"opName":"MSTORE","error":"out of gas"}"#,
            r#"{"output":"","gasUsed":"0xa","pass":false,"error":"out of gas"}"#,
        ],
    );
}

#[test]
fn failures_of_every_sort_are_named() {
    for (code, error) in [
        ("ADD", "stack underflow"),
        (".data 0x0c", "invalid opcode"),
        ("INVALID", "invalid opcode"),
        ("SLOTNUM", "invalid opcode"),
        ("PUSH0 JUMP", "invalid jump destination"),
        (
            "PUSH1 1 PUSH0 PUSH0 RETURNDATACOPY",
            "return data out of bounds",
        ),
        (
            ":again JUMPDEST PUSH0 PUSH1 @again JUMP",
            "stack limit reached 1024",
        ),
    ] {
        let text = trace(TraceOptions::default(), 1_000_000, &[(MAIN, code)]);
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        let [.., step, summary] = lines.as_slice() else {
            panic!("{code}: {text}")
        };
        assert_eq!(step["error"], error, "{code}");
        assert_eq!(summary["error"], error, "{code}");
        assert_eq!(summary["pass"], false, "{code}");
        assert_eq!(
            summary["gasUsed"],
            format!("{:#x}", 1_000_000 - 21_000),
            "{code}"
        );
    }
}

#[test]
fn optional_fields_appear_only_when_asked_for() {
    let main = "PUSH1 7 PUSH1 2 SSTORE PUSH1 1 SLOAD PUSH0 MSTORE STOP";
    let plain = trace(TraceOptions::default(), 100_000, &[(MAIN, main)]);
    for field in ["memory", "storage", "returnData"] {
        assert!(!plain.contains(&format!("\"{field}\"")), "{field}");
    }
    let all = TraceOptions {
        memory: true,
        storage: true,
        return_data: true,
    };
    let full = trace(all, 100_000, &[(MAIN, main)]);
    let lines: Vec<serde_json::Value> = full
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let slot = |n: u64| format!("{}", B256::from(U256::from(n)));
    assert_eq!(lines[2]["storage"], serde_json::json!({ slot(2): slot(7) }));
    assert_eq!(
        lines[4]["storage"],
        serde_json::json!({ slot(1): slot(0x22), slot(2): slot(7) })
    );
    assert_eq!(lines[5].get("storage"), None);
    assert_eq!(lines[6]["memory"], "0x");
    assert_eq!(lines[7]["memory"], slot(0x22));
    assert_eq!(lines[7]["returnData"], "0x");
}

#[test]
fn the_refund_counter_is_the_transactions_not_the_frames() {
    let main =
        "PUSH0 PUSH1 1 SSTORE PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH2 0xaaa PUSH2 0xffff CALL STOP";
    let other = "PUSH0 PUSH1 1 SSTORE STOP";
    let text = trace(
        TraceOptions::default(),
        200_000,
        &[(MAIN, main), (OTHER, other)],
    );
    let refunds: Vec<(u64, u64)> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter_map(|line| Some((line["depth"].as_u64()?, line["refund"].as_u64()?)))
        .collect();
    assert_eq!(refunds[2], (1, 0));
    assert_eq!(refunds[3], (1, 4800));
    let inner: Vec<u64> = refunds
        .iter()
        .filter(|(depth, _)| *depth == 2)
        .map(|(_, refund)| *refund)
        .collect();
    assert_eq!(inner, [4800, 4800, 4800, 9600]);
    assert_eq!(refunds.last(), Some(&(1, 9600)));
}

#[test]
fn an_error_of_the_writer_is_kept_and_nothing_is_written_after_it() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(1)
                .ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let run = |lines| {
        trace_into(
            Full(lines),
            TraceOptions::default(),
            100_000,
            &[(MAIN, "PUSH0 PUSH0 ADD STOP")],
        )
    };
    assert_eq!(
        run(2).err().map(|error| error.kind()),
        Some(io::ErrorKind::StorageFull)
    );
    assert_eq!(run(5).expect("five lines fit").0, 0);
}

#[test]
fn the_state_root_line_is_that_of_geth() {
    let mut line = Vec::new();
    write_state_root(&mut line, B256::repeat_byte(0xab)).expect("writes");
    assert_eq!(
        line,
        format!("{{\"stateRoot\": \"0x{}\"}}\n", "ab".repeat(32)).as_bytes()
    );
}
