//! Processor time of threads and memory, as the system counts them.

use std::collections::BTreeMap;
use std::{fs, io};

/// What the threads of the process do, by how their names begin.
const STAGES: [(&str, &str); 6] = [
    ("recovery-", "recovery"),
    ("block-producer", "execute"),
    ("block-sealer", "root"),
    ("block-writer", "journal"),
    ("block-announcer", "announce"),
    // The system keeps 15 bytes of a name.
    ("block-announce", "announce"),
];

/// Seconds of processor time of the threads that are at work on a stage. The others have none to speak of.
pub(super) fn by_thread() -> io::Result<BTreeMap<&'static str, f64>> {
    let mut by_stage: BTreeMap<_, _> = STAGES.iter().map(|(_, stage)| (*stage, 0.0)).collect();
    for task in fs::read_dir("/proc/self/task")? {
        let folder = task?.path();
        // A thread may have ended since the folder was read.
        let (Ok(name), Ok(times)) = (
            fs::read_to_string(folder.join("comm")),
            fs::read_to_string(folder.join("schedstat")),
        ) else {
            continue;
        };
        let stage = STAGES.iter().find(|(begins, _)| name.starts_with(begins));
        if let (Some((_, stage)), Some(time)) = (stage, seconds(&times)) {
            *by_stage.entry(*stage).or_insert(0.0) += time;
        }
    }
    Ok(by_stage)
}

/// Seconds of processor time of the thread that asks.
pub(super) fn this_thread() -> f64 {
    let times = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    seconds(&times).unwrap_or_default()
}

/// The first figure of `schedstat`.
fn seconds(schedstat: &str) -> Option<f64> {
    let nanoseconds: f64 = schedstat.split(' ').next()?.parse().ok()?;
    Some(nanoseconds * 1e-9)
}

/// Seconds of processor time of the threads that recover senders.
pub(super) fn process() -> f64 {
    by_thread().map_or(0.0, |stages| {
        stages.get("recovery").copied().unwrap_or_default()
    })
}

/// The most memory the process has had, in megabytes; 0 where the system does not say.
pub(super) fn peak_rss_mb() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().split(' ').next()?.parse::<f64>().ok());
    kilobytes.unwrap_or_default() / 1024.0
}
