//! One archive with the count it must not fall below.

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use zvm_engine::fixtures::report::Report;
use zvm_engine::fixtures::source::SourceError;

/// One set at a time: each uses all threads, and the processor time of a report is that of the process.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// An archive of test files.
pub struct Set {
    /// File name without `.tar.zst`.
    pub archive: &'static str,
    /// Cases executed when this was last recorded.
    pub executed: u64,
}

impl Set {
    /// Runs the set, prints its counts and fails when a case fails or fewer cases than recorded were executed.
    pub fn check(&self, run: impl FnOnce(PathBuf) -> Result<Report, SourceError>) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/conformance");
        let path = folder.join(format!("{}.tar.zst", self.archive));
        if !path.is_file() {
            println!(
                "{}: nothing ran, {} is not there",
                self.archive,
                path.display()
            );
            let waived = std::env::var_os("ZVM_WITHOUT_FIXTURES").is_some_and(|value| value == "1");
            let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
            assert!(
                waived && !ci,
                "test data is missing; ZVM_WITHOUT_FIXTURES=1 runs the tests without it"
            );
            return;
        }
        let _guard = ONE_AT_A_TIME.lock();
        let report = run(path).unwrap_or_else(|error| panic!("{error}"));
        println!("{}\n{report}", self.archive);
        assert!(report.all_passed(), "{} cases failed", report.failed.len());
        assert!(
            report.executed >= self.executed,
            "{} cases executed, {} recorded",
            report.executed,
            self.executed
        );
    }
}
