//! Names the engine that is built, for the store of compiled code: what another compiler made must not be executed by
//! this one. Also compiled by `tests/build_id.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// All that decides what native code does: the compiler and what its code calls, the tables of opcodes and gas, and the
/// exact dependencies.
const SOURCES: [&str; 6] = [
    "build.rs",
    "Cargo.toml",
    "src",
    "../runtimes/Cargo.toml",
    "../runtimes/src",
    "../Cargo.lock",
];

fn main() {
    let mut hash = Fnv::default();
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
        hash.tree(Path::new(source)).unwrap_or_else(|error| {
            panic!("the sources of the engine cannot be read: {source}: {error}")
        });
    }
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output();
    hash.part(&version.map(|output| output.stdout).unwrap_or_default());
    println!("cargo:rustc-env=ZVM_ENGINE_BUILD={:032x}", hash.0);
}

/// FNV-1a of 128 bits over parts with their lengths. It tells versions apart; it does not resist forgery, which owner
/// and permissions of the store keep out.
pub struct Fnv(pub u128);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Fnv {
    /// A file, or the files of a folder in the order of their names; names count.
    pub fn tree(&mut self, path: &Path) -> std::io::Result<()> {
        if path.is_dir() {
            let entries = std::fs::read_dir(path)?;
            let mut paths = entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<std::io::Result<Vec<PathBuf>>>()?;
            paths.sort();
            return paths.iter().try_for_each(|path| self.tree(path));
        }
        self.part(path.as_os_str().as_encoded_bytes());
        self.part(&std::fs::read(path)?);
        Ok(())
    }

    fn part(&mut self, bytes: &[u8]) {
        for byte in (bytes.len() as u64).to_le_bytes().iter().chain(bytes) {
            self.0 ^= u128::from(*byte);
            self.0 = self.0.wrapping_mul((1 << 88) + 0x13b);
        }
    }
}
