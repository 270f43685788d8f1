//! Real clients.

use std::path::Path;
use std::process::Command;

use crate::process::Server;

/// Says that this machine has no npm and the clients are left out; not allowed where CI is set.
const WITHOUT: &str = "ZVM_WITHOUT_NPM";

#[test]
fn ethers_viem_and_cast_deploy_call_and_transact() {
    let set = |name: &str| std::env::var(name).is_ok_and(|value| value == "1" || value == "true");
    if set(WITHOUT) {
        assert!(!set("CI"), "{WITHOUT} must not be set in CI");
        eprintln!("the clients are left out: {WITHOUT} is set");
        return;
    }
    let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    if !clients.join("node_modules").is_dir() {
        let status = Command::new("npm")
            .args(["install", "--no-audit", "--no-fund"])
            .current_dir(&clients)
            .status()
            .unwrap_or_else(|error| {
                panic!("npm does not run ({error}); {WITHOUT}=1 leaves the clients out")
            });
        assert!(status.success(), "npm install: {status}");
    }
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("data"), &[]);
    let output = Command::new("node")
        .arg("check.mjs")
        .args([
            format!("http://{}", server.address),
            format!("ws://{}", server.address),
        ])
        .current_dir(&clients)
        .output()
        .expect("node runs");
    let printed = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{complained}");
    assert_eq!(printed, "ethers ok\nviem ok\ncast ok\n", "{complained}");
    server.stop();
}
