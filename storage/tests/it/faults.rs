use crate::lmdb::OTHER_PROCESS;
use crate::{dump, open_journaled, small_journaled};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use zvm_storage::{Batch, FAULT_POINTS, JournaledOptions, JournaledStore, Store, Table};

const ACKNOWLEDGED: &str = "acknowledged ";
/// Commits of one child at most.
const COMMITS: u32 = 60;

/// Starts this binary again as the test `name`, with a shell's commands before it.
fn child(name: &str, folder: &Path, shell: &str, fault: &str) -> (bool, String) {
    let binary = std::env::current_exe().unwrap();
    let output = Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" \"$@\"")])
        .arg(binary)
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(OTHER_PROCESS, folder)
        .env("ZVM_FAULT", fault)
        .stderr(Stdio::inherit())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.success(), said)
}

fn acknowledged(said: &str) -> Vec<u32> {
    said.lines()
        .filter_map(|line| line.split_once(ACKNOWLEDGED)?.1.parse().ok())
        .collect()
}

fn entry(number: u32) -> Batch {
    let mut batch = Batch::new();
    batch.put(Table::Codes, number.to_be_bytes(), vec![number as u8; 4000]);
    // One that every commit changes, so that a commit which is applied twice or in another order is seen.
    batch.put(Table::Meta, b"node/last", number.to_be_bytes());
    batch
}

/// The numbers that are there, which must be all up to the last one committed.
fn numbers(store: &JournaledStore) -> u32 {
    let rows = dump(store);
    let codes: Vec<u32> = rows
        .iter()
        .filter(|(table, ..)| *table == Table::Codes)
        .map(|(_, key, value)| {
            let number = u32::from_be_bytes(key[..].try_into().unwrap());
            assert_eq!(*value, vec![number as u8; 4000]);
            number
        })
        .collect();
    let count = codes.len() as u32;
    assert!(codes.iter().copied().eq(0..count), "{codes:?}");
    let last = rows.iter().find(|(_, key, _)| key == b"node/last");
    let last = last.map(|(.., value)| u32::from_be_bytes(value[..].try_into().unwrap()) + 1);
    assert_eq!(last.unwrap_or(0), count);
    count
}

/// A store that merges only when it is told to.
fn slow(path: &Path) -> JournaledOptions {
    JournaledOptions {
        merge_bytes: usize::MAX,
        merge_interval: Duration::from_secs(3600),
        ..small_journaled(path)
    }
}

#[test]
fn a_process_killed_at_any_point_of_a_write_keeps_every_acknowledged_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut known = 0;
    let mut killed = Vec::new();
    for round in 0..2_u32 {
        for point in FAULT_POINTS {
            let at = 1 + round * 3;
            let (ended, said) = child(
                "faults::commits_and_merges",
                folder.path(),
                "",
                &format!("{point}:kill:{at}"),
            );
            if !ended {
                killed.push(point);
            }
            let last = acknowledged(&said).last().map_or(known, |last| last + 1);
            let store = JournaledStore::open(slow(folder.path())).unwrap();
            let found = numbers(&store);
            // One more may be written and not yet acknowledged.
            assert!(
                found == last || found == last + 1,
                "{point}: {found} of {last}"
            );
            // Something to replay for the next one.
            store.commit(&entry(found)).unwrap();
            known = found + 1;
        }
    }
    for point in FAULT_POINTS {
        assert!(killed.contains(&point), "{point} was never reached");
    }
}

#[test]
fn a_write_that_fails_is_said_and_what_was_acknowledged_stays_readable() {
    for fault in ["eio", "enospc"] {
        for point in FAULT_POINTS {
            // These are no writes of a commit or of a merge.
            if ["journal.created", "overlay.published", "replay.record"].contains(&point) {
                continue;
            }
            let folder = tempfile::tempdir().unwrap();
            let (ended, said) = child(
                "faults::commits_until_an_error",
                folder.path(),
                "",
                &format!("{point}:{fault}:4"),
            );
            assert!(ended, "{point}: {said}");
            let kept = acknowledged(&said).len() as u32;
            let found = numbers(&open_journaled(folder.path()));
            assert!(
                found == kept || found == kept + 1,
                "{point}: {found} of {kept}"
            );
        }
    }
}

#[test]
fn a_file_system_without_room_is_said_and_what_was_acknowledged_stays_readable() {
    let folder = tempfile::tempdir().unwrap();
    // A limit on the size of files stands for a full file system: the write comes back with an error.
    let (ended, said) = child(
        "faults::commits_until_an_error",
        folder.path(),
        "trap '' XFSZ; ulimit -f 400;",
        "",
    );
    assert!(ended, "{said}");
    // The second if a part of the pages was still written.
    let reasons = ["no space left", "for want of room"];
    assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
    let kept = acknowledged(&said).len() as u32;
    assert!(kept > 5, "{said}");
    let store = open_journaled(folder.path());
    assert_eq!(numbers(&store), kept);
    // There is room again.
    store.commit(&entry(kept)).unwrap();
    store.merge_all().unwrap();
    assert_eq!(numbers(&store), kept + 1);
}

#[test]
#[ignore = "started as a process of its own by a_process_killed_at_any_point_of_a_write_keeps_every_acknowledged_commit"]
fn commits_and_merges() {
    let path = std::env::var_os(OTHER_PROCESS).unwrap();
    let store = JournaledStore::open(slow(path.as_ref())).unwrap();
    let first = numbers(&store);
    for number in first..first + COMMITS {
        store.commit(&entry(number)).unwrap();
        println!("{ACKNOWLEDGED}{number}");
        if number % 4 == 3 {
            store.merge_all().unwrap();
        }
    }
}

#[test]
#[ignore = "started as a process of its own by the tests of write errors"]
fn commits_until_an_error() {
    let path = std::env::var_os(OTHER_PROCESS).unwrap();
    let store = JournaledStore::open(JournaledOptions {
        overlay_bytes: 40_000,
        ..small_journaled(path.as_ref())
    })
    .unwrap();
    let mut written = 0;
    let error = loop {
        assert!(written < 5000, "no error came");
        match store.commit(&entry(written)) {
            Ok(()) => {
                println!("{ACKNOWLEDGED}{written}");
                written += 1;
            }
            Err(error) => break error,
        }
    };
    println!("said {error}");
    // All that was acknowledged is there, and nothing of what was refused.
    assert_eq!(numbers(&store), written);
}
