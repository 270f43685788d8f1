//! The engine's build id changes with whatever it is made of.

#[path = "../build.rs"]
#[allow(dead_code)]
mod build;

use std::fs;
use std::path::Path;

fn id(folder: &Path) -> u128 {
    let mut hash = build::Fnv::default();
    hash.tree(folder).unwrap();
    hash.0
}

#[test]
fn the_build_id_changes_with_every_file_name_and_byte() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("b")).unwrap();
    fs::write(path("a"), "one").unwrap();
    fs::write(path("b/c"), "two").unwrap();
    let first = id(folder.path());
    assert_eq!(id(folder.path()), first);
    let mut seen = vec![first];
    let mut differs = || {
        let id = id(folder.path());
        assert!(!seen.contains(&id));
        seen.push(id);
    };
    fs::write(path("a"), "oneX").unwrap();
    differs();
    fs::write(path("a"), "onet").unwrap();
    fs::write(path("b/c"), "wo").unwrap();
    differs();
    fs::rename(path("b/c"), path("b/d")).unwrap();
    differs();
    fs::write(path("b/e"), "").unwrap();
    differs();
}
