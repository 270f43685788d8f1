use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::compiler::Compiler;
use zvm_runtimes::isa::{Isa, assemble};

const ENGINE: B256 = B256::repeat_byte(0xee);
const LIMIT: u64 = 1 << 20;

fn folder() -> TempDir {
    tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .unwrap()
}

fn open(folder: &TempDir, limit: u64) -> DiskCache {
    DiskCache::open_as(folder.path(), limit, ENGINE).unwrap()
}

fn key(number: u8) -> Key {
    Key {
        code_hash: B256::repeat_byte(number),
        spec: SpecId::OSAKA,
        level: Level::Quick,
    }
}

fn image(code: usize) -> Image {
    Image {
        code: (0..code).map(|byte| byte as u8).collect(),
        entries: [1, 0, 0x8002].into(),
        symbols: [(0, 0), (5, 2)].into(),
        level: Level::Quick,
        bytecode: 3,
        clif: 17,
    }
}

/// The only file of a store with one image.
fn only_file(cache: &DiskCache) -> PathBuf {
    let files: Vec<_> = fs::read_dir(&cache.folder).unwrap().collect();
    assert_eq!(files.len(), 1);
    files.into_iter().next().unwrap().unwrap().path()
}

fn bytes_on_disk(folder: &TempDir) -> u64 {
    let entries = fs::read_dir(folder.path()).unwrap();
    entries
        .map(|entry| blocks(entry.unwrap().metadata().unwrap().len()))
        .sum()
}

#[test]
fn compiled_code_comes_back_after_a_restart_and_for_its_key_only() {
    let folder = folder();
    let code = assemble(Isa::Evm, "PUSH1 1 PUSH0 MSTORE PUSH1 32 PUSH0 RETURN").unwrap();
    let compiler = Compiler::new().unwrap();
    let mut images = Vec::new();
    for level in [Level::Quick, Level::Full] {
        let image = compiler.compile(&code, SpecId::OSAKA, level).unwrap();
        let key = Key { level, ..key(1) };
        images.push((key, image));
    }
    let cache = DiskCache::open(folder.path(), LIMIT).unwrap();
    for (key, image) in &images {
        assert_eq!(cache.get(key), None);
        cache.put(key, image);
        assert_eq!(cache.get(key).as_ref(), Some(image));
    }
    drop(cache);
    let cache = DiskCache::open(folder.path(), LIMIT).unwrap();
    for (key, image) in &images {
        assert_eq!(cache.get(key).as_ref(), Some(image));
        for other in [
            Key {
                code_hash: B256::repeat_byte(2),
                ..*key
            },
            Key {
                spec: SpecId::PRAGUE,
                ..*key
            },
        ] {
            assert_eq!(cache.get(&other), None);
        }
    }
    let statistics = cache.statistics();
    assert_eq!(
        (statistics.hits, statistics.misses, statistics.files),
        (2, 4, 2)
    );
    drop(cache);
    // Another engine finds none of them.
    let cache = open(&folder, LIMIT);
    assert_eq!(cache.get(&images[0].0), None);
    assert_eq!(cache.statistics().misses, 1);
}

#[test]
fn the_format_is_as_documented() {
    let bytes = format::encode(&ENGINE, &key(7), &image(6));
    let mut expected = b"zvmunit1".to_vec();
    expected.extend([0xee; 32]);
    expected.extend([7; 32]);
    expected.extend([SpecId::OSAKA as u8, 0, 0, 0]);
    expected.extend([3, 0, 0, 0, 17, 0, 0, 0, 6, 0, 0, 0, 2, 0, 0, 0]);
    expected.extend([0, 1, 2, 3, 4, 5]);
    expected.extend([1, 0, 0, 0, 2, 0x80]);
    expected.extend([0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 2, 0, 0, 0]);
    let checksum = keccak256(&expected);
    expected.extend(checksum);
    assert_eq!(bytes, expected);
}

#[test]
fn a_file_with_any_bit_flipped_cut_off_or_longer_is_ignored() {
    let folder = folder();
    let cache = open(&folder, LIMIT);
    cache.put(&key(1), &image(20));
    let path = only_file(&cache);
    let whole = fs::read(&path).unwrap();
    let mut tried = 0;
    let mut ignored = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        assert_eq!(cache.get(&key(1)), None);
        tried += 1;
    };
    for bit in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        ignored(&bytes);
    }
    for length in 0..whole.len() {
        ignored(&whole[..length]);
    }
    ignored(&[whole.as_slice(), &[0]].concat());
    ignored(&[whole.as_slice(), &whole].concat());
    assert_eq!(tried, whole.len() as u64 * 9 + 2);
    assert_eq!(cache.statistics().damaged, tried);
    fs::write(&path, &whole).unwrap();
    assert_eq!(cache.get(&key(1)), Some(image(20)));
}

#[test]
fn a_whole_file_of_another_engine_or_key_is_ignored_under_this_name() {
    let folder = folder();
    let cache = open(&folder, LIMIT);
    cache.put(&key(1), &image(20));
    let path = only_file(&cache);
    let level = Key {
        level: Level::Full,
        ..key(1)
    };
    let spec = Key {
        spec: SpecId::LONDON,
        ..key(1)
    };
    for (engine, other) in [
        (B256::ZERO, key(1)),
        (ENGINE, key(2)),
        (ENGINE, level),
        (ENGINE, spec),
    ] {
        fs::write(&path, format::encode(&engine, &other, &image(20))).unwrap();
        assert_eq!(cache.get(&key(1)), None);
    }
    assert_eq!(cache.statistics().foreign, 4);
    // The next compilation mends it.
    cache.put(&key(1), &image(21));
    assert_eq!(cache.get(&key(1)), Some(image(21)));
}

#[test]
fn a_file_that_others_may_write_or_read_is_ignored() {
    let folder = folder();
    let cache = open(&folder, LIMIT);
    cache.put(&key(1), &image(20));
    let path = only_file(&cache);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o600);
    let mut exposed = 0;
    for bit in 0..6 {
        fs::set_permissions(&path, Permissions::from_mode(0o600 | 1 << bit)).unwrap();
        assert_eq!(cache.get(&key(1)), None);
        exposed += 1;
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(cache.get(&key(1)).is_some());
    // A link to a file that is right in itself.
    let elsewhere = folder.path().join("elsewhere");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    assert_eq!(cache.get(&key(1)), None);
    // A folder in place of a file.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert_eq!(cache.get(&key(1)), None);
    exposed += 2;
    fs::remove_dir(&path).unwrap();
    assert_eq!(cache.statistics().exposed, exposed);
    assert_eq!(cache.get(&key(1)), None);
    fs::rename(&elsewhere, &path).unwrap();
    assert!(cache.get(&key(1)).is_some());
    // Only root can give a file to another user; anybody else sees the same by being another user.
    let metadata = fs::metadata(&path).unwrap();
    assert!(private(metadata.uid(), &metadata));
    assert!(!private(metadata.uid() + 1, &metadata));
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        assert_eq!(cache.get(&key(1)), None);
        assert_eq!(cache.statistics().exposed, exposed + 1);
    }
}

#[test]
fn a_folder_that_others_may_write_is_refused_and_a_new_one_is_private() {
    let folder = folder();
    let inner = folder.path().join("a/b");
    drop(DiskCache::open_as(&inner, LIMIT, ENGINE).unwrap());
    assert_eq!(fs::metadata(&inner).unwrap().mode() & 0o7777, 0o700);
    for mode in [0o701, 0o720, 0o755, 0o1777] {
        fs::set_permissions(&inner, Permissions::from_mode(mode)).unwrap();
        let error = DiskCache::open_as(&inner, LIMIT, ENGINE).unwrap_err();
        assert!(matches!(error, OpenError::Exposed { mode: found, .. } if found == mode));
    }
    fs::set_permissions(&inner, Permissions::from_mode(0o700)).unwrap();
    let link = folder.path().join("link");
    symlink(&inner, &link).unwrap();
    assert!(matches!(
        DiskCache::open_as(&link, LIMIT, ENGINE),
        Err(OpenError::Io { .. })
    ));
}

#[test]
fn one_process_at_a_time_has_the_store() {
    let folder = folder();
    let first = open(&folder, LIMIT);
    let error = DiskCache::open_as(folder.path(), LIMIT, ENGINE).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(first);
    drop(open(&folder, LIMIT));
}

#[test]
fn what_an_interrupted_write_left_is_removed_and_what_is_not_ours_stays() {
    let folder = folder();
    let (left, other) = (folder.path().join("new"), folder.path().join("README"));
    fs::write(&left, "half").unwrap();
    fs::write(&other, "mine").unwrap();
    let cache = open(&folder, LIMIT);
    assert!(!left.exists() && other.exists());
    assert_eq!(cache.statistics().files, 0);
}

#[test]
fn a_full_store_forgets_what_was_used_least_recently_also_across_restarts() {
    let folder = folder();
    let cache = open(&folder, 4 * BLOCK);
    for number in 1..=4 {
        cache.put(&key(number), &image(100));
    }
    assert!(cache.get(&key(1)).is_some());
    cache.put(&key(5), &image(100));
    assert!(cache.get(&key(2)).is_none() && cache.get(&key(1)).is_some());
    assert_eq!(cache.statistics().evicted, 1);
    // Larger than all together: nothing is removed for it.
    cache.put(&key(6), &image(4 * BLOCK as usize));
    let statistics = cache.statistics();
    assert_eq!((statistics.files, statistics.no_room), (4, 1));
    for (number, age) in [(1, 10), (3, 30), (4, 20), (5, 40)] {
        let file = File::open(cache.path(&cache.name(&key(number)))).unwrap();
        let time = SystemTime::now() - std::time::Duration::from_secs(age);
        file.set_modified(time).unwrap();
    }
    drop(cache);
    let cache = open(&folder, 2 * BLOCK);
    assert_eq!(bytes_on_disk(&folder), 2 * BLOCK);
    assert!(cache.get(&key(1)).is_some() && cache.get(&key(4)).is_some());
}

#[test]
fn threads_that_put_and_get_keep_the_limit_and_never_see_half_an_image() {
    let folder = folder();
    const SIZE: u64 = 8 * BLOCK;
    let cache = open(&folder, SIZE);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..200u8 {
                    let number = round.wrapping_mul(thread + 1) % 12;
                    cache.put(&key(number), &image(usize::from(number) * 500 + 10));
                    let other = (number + thread) % 12;
                    if let Some(found) = cache.get(&key(other)) {
                        assert_eq!(found, image(usize::from(other) * 500 + 10));
                    }
                    assert!(cache.statistics().bytes <= SIZE);
                }
            });
        }
    });
    let statistics = cache.statistics();
    assert_eq!((statistics.damaged, statistics.failed), (0, 0));
    assert!(statistics.stored > 0 && statistics.evicted > 0);
    assert_eq!(bytes_on_disk(&folder), statistics.bytes);
}

proptest! {
    #[test]
    fn bytes_that_nobody_wrote_are_never_an_image(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(format::decode(&ENGINE, &key(1), &bytes).is_err());
    }

    /// With a right checksum, as if somebody had made the file: it is refused or it is what is written for an image.
    #[test]
    fn contents_are_checked_behind_the_checksum(
        numbers in prop::array::uniform4(0u32..60),
        tail in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = format::address(&ENGINE, &key(1)).to_vec();
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.extend(&tail);
        let checksum = keccak256(&bytes);
        bytes.extend(checksum);
        if let Ok(image) = format::decode(&ENGINE, &key(1), &bytes) {
            prop_assert_eq!(format::encode(&ENGINE, &key(1), &image), bytes);
        }
    }
}

/// Bytes a file may have in the second process of the test below.
const FULL: usize = 16 << 10;

#[test]
fn a_disk_that_fills_up_in_the_middle_of_writing_costs_that_image_and_nothing_else() {
    const NAME: &str = "disk::tests::a_disk_that_fills_up_in_the_middle_of_writing_costs_that_image_and_nothing_else";
    const SECOND: &str = "ZVM_TEST_WITH_A_FULL_DISK";
    if std::env::var_os(SECOND).is_none() {
        // A process of its own, for which writing fails once a file has so many bytes; what fitted is written.
        let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", FULL / 512);
        let output = std::process::Command::new("/bin/sh")
            .arg("-c")
            .arg(limited)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", NAME])
            .env(SECOND, "")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}");
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    let folder = folder();
    let cache = open(&folder, LIMIT);
    let (small, large) = (image(100), image(4 * FULL));
    cache.put(&key(1), &small);
    cache.put(&key(2), &large);
    // Again, in place of one that is there.
    cache.put(&key(1), &large);
    cache.put(&key(3), &small);
    let statistics = cache.statistics();
    assert_eq!((statistics.stored, statistics.failed), (2, 2));
    let found = [1, 2, 3].map(|number| cache.get(&key(number)));
    assert_eq!(found, [None, None, Some(small.clone())]);
    // No half of a file is left.
    assert_eq!(cache.statistics().bytes, bytes_on_disk(&folder));
    drop(cache);
    let cache = open(&folder, LIMIT);
    let found = [1, 2, 3].map(|number| cache.get(&key(number)));
    assert_eq!(found, [None, None, Some(small)]);
    assert_eq!(cache.statistics().damaged, 0);
}
