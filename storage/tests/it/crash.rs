use crate::lmdb::OTHER_PROCESS;
use crate::open;
use alloy_primitives::{Address, B256, U256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use zvm_storage::{
    AccountChange, AccountInfo, Batch, StateDiff, Store, apply_state, get_meta, put_meta,
    rebuild_root, state_root,
};

const ACKNOWLEDGED: &str = "acknowledged ";
const KILLS: u32 = 20;

/// Round `round` of the writer: it touches old and new accounts, so that pages are freed and used again.
fn diff(round: u64) -> StateDiff {
    changes(round, 255)
}

/// Changes, wipes and deletes some of the first `among` accounts, always the same in a round.
pub(crate) fn changes(round: u64, among: u8) -> StateDiff {
    let account = |n: u64| {
        let hash = alloy_primitives::keccak256((round * 7 + n).to_be_bytes());
        let address = Address::from_word(B256::with_last_byte(hash[0] % among));
        let info = AccountInfo {
            nonce: round,
            ..AccountInfo::default()
        };
        let change = AccountChange {
            info: (hash[1] > 40).then_some(info),
            wipe_storage: hash[2] < 30,
            slots: (0..u64::from(hash[3] % 16))
                .map(|slot| (U256::from(slot + n), U256::from(round % 3)))
                .collect(),
        };
        (address, change)
    };
    StateDiff {
        accounts: (0..20).map(account).collect(),
        codes: BTreeMap::new(),
    }
}

#[test]
fn kill_9_keeps_every_acknowledged_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = 0;
    for kill in 0..KILLS {
        let mut writer = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::commits_until_it_is_killed"])
            .args(["--ignored", "--nocapture"])
            .env(OTHER_PROCESS, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut rounds = BufReader::new(writer.stdout.take().unwrap())
            .lines()
            .map_while(Result::ok)
            // The harness begins its own line before the first.
            .filter_map(|line| line.split_once(ACKNOWLEDGED)?.1.parse::<u64>().ok());
        for _ in 0..=kill * 3 {
            last = rounds
                .next()
                .expect("the writer goes on until it is killed");
        }
        writer.kill().unwrap();
        // What it said before it died counts too.
        last = rounds.last().unwrap_or(last);
        writer.wait().unwrap();
        let store = open(folder.path());
        let snapshot = store.snapshot().unwrap();
        let found = get_meta(snapshot.as_ref(), "round").unwrap().unwrap();
        let found = u64::from_be_bytes(found[..].try_into().unwrap());
        // One more may be written and not yet acknowledged.
        assert!(found == last || found == last + 1, "{found} after {last}");
        let root = get_meta(snapshot.as_ref(), "root").unwrap().unwrap();
        let root = B256::from_slice(&root);
        assert_eq!(state_root(snapshot.as_ref()).unwrap(), root);
        assert_eq!(rebuild_root(snapshot.as_ref()).unwrap(), root);
    }
    assert!(last > u64::from(KILLS));
}

#[test]
#[ignore = "started as a process of its own by kill_9_keeps_every_acknowledged_commit"]
fn commits_until_it_is_killed() {
    let path = std::env::var_os(OTHER_PROCESS).unwrap();
    let store = open(path.as_ref());
    let before = get_meta(store.snapshot().unwrap().as_ref(), "round").unwrap();
    let mut round = before.map_or(0, |round| u64::from_be_bytes(round[..].try_into().unwrap()));
    loop {
        round += 1;
        let mut batch = Batch::new();
        let snapshot = store.snapshot().unwrap();
        let root = apply_state(snapshot.as_ref(), &diff(round), &mut batch).unwrap();
        put_meta(&mut batch, "round", &round.to_be_bytes());
        put_meta(&mut batch, "root", root.as_slice());
        store.commit(&batch).unwrap();
        println!("{ACKNOWLEDGED}{round}");
    }
}
