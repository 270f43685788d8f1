//! A compiler that can be watched, held up and broken.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use alloy_primitives::B256;
use parking_lot::{Condvar, Mutex};
use zvm_jit::compiler::{Compiler, Level, Refused};
use zvm_jit::profile::Profile;
use zvm_jit::tier::{Auto, Key, Made, Native, Request, Settings, Source};

/// What the watched compiler shares with the test.
#[derive(Debug, Default)]
pub struct Watch {
    /// Every request, in the order they came.
    asked: Mutex<Vec<(Key, Level)>>,
    closed: Mutex<bool>,
    opened: Condvar,
    /// Codes it refuses, and those it panics at.
    pub refuses: Mutex<HashSet<(B256, Level)>>,
    pub panics: Mutex<HashSet<B256>>,
    /// Codes it finds no memory for.
    pub crowded: Mutex<HashSet<B256>>,
    /// The last profile it was given, by code.
    pub profiles: Mutex<HashMap<B256, Profile>>,
    /// Units it claims to have at hand.
    pub stored: Mutex<HashSet<(B256, Level)>>,
}

impl Watch {
    /// What was asked for.
    pub fn asked(&self) -> Vec<(Key, Level)> {
        self.asked.lock().clone()
    }

    /// Holds compilations up at their start.
    pub fn close(&self) {
        *self.closed.lock() = true;
    }

    /// Lets them go on.
    pub fn open(&self) {
        *self.closed.lock() = false;
        self.opened.notify_all();
    }
}

#[derive(Debug)]
struct Watched(Arc<Watch>);

impl Source for Watched {
    fn is_stored(&self, key: &Key, level: Level) -> bool {
        self.0.stored.lock().contains(&(key.hash, level))
    }

    fn make(&self, request: &Request<'_>) -> Result<Made, Refused> {
        static COMPILER: OnceLock<Native> = OnceLock::new();
        let compiler = COMPILER.get_or_init(|| {
            let compiler = Compiler::new().expect("a known processor");
            Native::new(compiler, 1 << 30, None)
        });
        self.0.asked.lock().push((request.key, request.level));
        let mut closed = self.0.closed.lock();
        while *closed {
            self.0.opened.wait(&mut closed);
        }
        drop(closed);
        assert!(
            !self.0.panics.lock().contains(&request.key.hash),
            "a fault of the compiler, for the test"
        );
        let asked = (request.key.hash, request.level);
        if self.0.refuses.lock().contains(&asked) {
            return Err(Refused::Backend("for the test".to_owned()));
        }
        if let Some(profile) = request.profile {
            let mut profiles = self.0.profiles.lock();
            profiles.insert(request.key.hash, profile.clone());
        }
        if self.0.crowded.lock().contains(&request.key.hash) {
            return Err(Refused::Memory("for the test".to_owned()));
        }
        compiler.make(request)
    }
}

/// Tiers with a watched compiler.
pub fn tiers(settings: Settings) -> (Arc<Auto>, Arc<Watch>) {
    let watch = Arc::new(Watch::default());
    let auto = Auto::new(Watched(Arc::clone(&watch)), settings).expect("threads");
    (Arc::new(auto), watch)
}

/// Hot at once, compiled in place.
pub fn in_place(threshold: u64) -> Settings {
    Settings {
        threshold: Some(threshold),
        threads: 0,
        ..Settings::default()
    }
}

/// Hot at once, compiled by one thread.
pub fn behind(threshold: u64) -> Settings {
    Settings {
        threads: 1,
        ..in_place(threshold)
    }
}

/// Waits for something that another thread does.
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if done() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("waited in vain: {what}");
}
