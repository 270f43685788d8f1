use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::compiler::Level;
use crate::unit::{Image, Unit};

/// Code of this length that returns `number`.
fn returning(number: u16, length: usize) -> Image {
    #[cfg(target_arch = "x86_64")]
    let mut code = {
        let [low, high] = number.to_le_bytes();
        // mov eax, number; ret
        vec![0xb8, low, high, 0, 0, 0xc3]
    };
    #[cfg(target_arch = "aarch64")]
    let mut code = {
        // movz x0, number; ret
        let words = [0xd280_0000 | u32::from(number) << 5, 0xd65f_03c0];
        words.map(u32::to_le_bytes).concat()
    };
    code.resize(length.max(code.len()), 0xcc);
    Image {
        code,
        entries: Box::default(),
        symbols: Box::default(),
        level: Level::Quick,
        bytecode: 0,
        clif: 0,
    }
}

fn call(unit: &Unit) -> i64 {
    let null = core::ptr::null_mut();
    // SAFETY: the code of `returning` uses none of its arguments, and the unit is alive.
    unsafe { unit.entry()(null, null.cast(), 0, 0) }
}

fn address(unit: &Unit) -> usize {
    unit.entry() as usize
}

fn resident(memory: &CodeMemory) -> u64 {
    let state = memory.0.state.lock();
    let arena = &state.place.as_ref().unwrap().arena;
    arena.resident().expect("code in a file")
}

/// Permissions and sizes of what is mapped within the range.
fn mappings(range: core::ops::Range<usize>) -> Vec<(String, usize)> {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let start = usize::from_str_radix(start, 16).ok()?;
            let end = usize::from_str_radix(end, 16).ok()?;
            let inside = start >= range.start && end <= range.end;
            inside.then(|| (fields.next().unwrap_or_default().to_owned(), end - start))
        })
        .collect()
}

fn reservation(memory: &CodeMemory) -> core::ops::Range<usize> {
    let state = memory.0.state.lock();
    let arena = &state.place.as_ref().unwrap().arena;
    let start = arena.address(0, 0).addr();
    start..start + memory.0.limit
}

#[test]
fn no_page_of_code_is_writable_while_units_come_and_go() {
    for (backing, executable) in [(Backing::File, "r-xs"), (Backing::Pages, "r-xp")] {
        come_and_go(&CodeMemory::with(64 << 20, Some(backing)), executable);
    }
}

fn come_and_go(memory: &CodeMemory, executable: &str) {
    let mut units = Vec::new();
    for number in 0..200u16 {
        let unit = Unit::load(returning(number, 5000 * usize::from(number)), memory);
        units.push(unit.unwrap());
        if number % 3 == 0 {
            units.swap_remove(units.len() / 2);
        }
        if units.iter().map(Unit::size).sum::<usize>() > 12 << 20 {
            units.drain(..units.len() / 2);
        }
        let mapped = mappings(reservation(memory));
        let found = mapped
            .iter()
            .any(|(permissions, _)| permissions == executable);
        assert_eq!(found, !units.is_empty());
        for (permissions, _) in mapped {
            assert!(permissions == executable || permissions == "---p");
        }
    }
}

#[test]
fn room_is_used_again_and_an_empty_chunk_is_unmapped() {
    let memory = CodeMemory::new(8 << 20);
    let load = |number: u16, length| Unit::load(returning(number, length), &memory).unwrap();
    let (first, second) = (load(1, 1 << 20), load(2, 3 << 20));
    assert_eq!(memory.statistics().mapped, 4 << 20);
    let place = address(&first);
    drop(first);
    assert_eq!(memory.statistics().live, 3 << 20);
    // The hole fits and is preferred to what was never used.
    let third = load(3, 1000);
    assert_eq!(address(&third), place);
    assert_eq!((call(&second), call(&third)), (2, 3));
    drop(second);
    assert_eq!(memory.statistics().mapped, 2 << 20);
    let executable = |mapped: Vec<(String, usize)>| {
        let executable = mapped.iter().filter(|(flags, _)| flags.contains('x'));
        executable.map(|(_, size)| size).sum::<usize>()
    };
    assert_eq!(executable(mappings(reservation(&memory))), 2 << 20);
    drop(third);
    let statistics = memory.statistics();
    assert_eq!(
        (statistics.units, statistics.live, statistics.mapped),
        (0, 0, 0)
    );
    assert_eq!(executable(mappings(reservation(&memory))), 0);
    assert_eq!(resident(&memory), 0);
}

#[test]
fn beyond_the_limit_there_is_an_error_until_a_unit_is_dropped() {
    let memory = CodeMemory::new(1);
    assert_eq!(memory.statistics().limit, CHUNK);
    let whole = Unit::load(returning(1, CHUNK), &memory).unwrap();
    let granule = 64;
    let refused = |length| match Unit::load(returning(2, length), &memory) {
        Err(MemoryError::Full { wanted, limit }) => (wanted, limit) == (length, CHUNK),
        other => panic!("{other:?}"),
    };
    assert!(refused(6));
    drop(whole);
    assert!(refused(CHUNK + 1));
    let part = Unit::load(returning(2, 6), &memory).unwrap();
    assert!(refused(CHUNK - granule + 1));
    Unit::load(returning(3, CHUNK - granule), &memory).unwrap();
    assert_eq!(call(&part), 2);
    assert_eq!(memory.statistics().refused, 3);
}

#[test]
fn ten_thousand_small_units_share_pages() {
    let rss = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            let number = line.split_ascii_whitespace().nth(1).unwrap();
            number.parse::<usize>().unwrap() * 1024
        };
        (line("RssAnon"), line("RssShmem"))
    };
    let memory = CodeMemory::new(64 << 20);
    let before = rss();
    let units: Vec<_> = (0..10_000u16)
        .map(|number| Unit::load(returning(number, 400), &memory).unwrap())
        .collect();
    for (number, unit) in (0..).zip(&units) {
        assert_eq!(call(unit), number);
    }
    let after = rss();
    let statistics = memory.statistics();
    println!(
        "10,000 units of 400 bytes: {} bytes of code memory resident, {} live, {} mapped; RssShmem +{}, RssAnon +{}",
        resident(&memory),
        statistics.live,
        statistics.mapped,
        after.1 - before.1,
        after.0.saturating_sub(before.0),
    );
    assert_eq!(statistics.live, 10_000 * 448);
    assert_eq!(
        resident(&memory) as usize,
        statistics.live.next_multiple_of(PAGE)
    );
}

#[test]
fn pages_without_code_are_given_back_within_a_chunk() {
    let memory = CodeMemory::new(CHUNK);
    let mut units: Vec<_> = (0..100)
        .map(|number| Unit::load(returning(number, 1000), &memory).unwrap())
        .collect();
    let last = units.pop().unwrap();
    assert_eq!(resident(&memory), 25 * PAGE as u64);
    // From the middle outwards, so that pages become free from both sides.
    while !units.is_empty() {
        units.remove(units.len() / 2);
        for unit in &units {
            assert!((0..99).contains(&call(unit)));
        }
    }
    assert_eq!(resident(&memory), PAGE as u64);
    assert_eq!(call(&last), 99);
}

#[test]
fn units_run_while_others_come_and_go_beside_them() {
    for backing in [Backing::File, Backing::Pages] {
        run_beside(&CodeMemory::with(2 * CHUNK, Some(backing)));
    }
}

fn run_beside(memory: &CodeMemory) {
    const ROUNDS: u64 = 300;
    let kept: Vec<Arc<Unit>> = (0..50)
        .map(|number| Arc::new(Unit::load(returning(number, 300), memory).unwrap()))
        .collect();
    let (done, calls) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    for (number, unit) in (0..).zip(&kept) {
                        assert_eq!(call(unit), number);
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let writers: Vec<_> = (0..2u16)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let number = (round as u16) << 1 | writer;
                        // Small ones between the kept ones, large ones that map and unmap the second chunk.
                        let length = if round % 10 == 0 { CHUNK / 2 } else { 300 };
                        let units: Vec<_> = (0..5)
                            .filter_map(|_| Unit::load(returning(number, length), memory).ok())
                            .collect();
                        assert!(round % 10 == 0 || units.len() == 5);
                        for unit in &units {
                            assert_eq!(call(unit), i64::from(number));
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
    });
    assert!(calls.load(Ordering::Relaxed) > 0);
    assert_eq!(memory.statistics().units, kept.len());
    drop(kept);
    assert_eq!(memory.statistics().mapped, 0);
}

#[test]
fn a_unit_outlives_the_handle_of_its_memory() {
    let memory = CodeMemory::new(CHUNK);
    let unit = Unit::load(returning(7, 100), &memory).unwrap();
    drop(memory);
    assert_eq!(call(&unit), 7);
}
