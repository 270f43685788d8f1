use super::*;
use crate::compiler::Compiler;
use crate::memory::CodeMemory;
use zvm_runtimes::isa::{Isa, assemble};
use zvm_runtimes::revm::primitives::hardfork::SpecId;

const HASH: B256 = B256::repeat_byte(0xab);

fn unit(level: Level, memory: &CodeMemory) -> Unit {
    let program =
        ":a JUMPDEST PUSH1 1 PUSH0 MLOAD SUB PUSH0 MSTORE CALLVALUE PUSH1 @a JUMPI CALLER POP STOP";
    let code = assemble(Isa::Evm, program).unwrap();
    let image = Compiler::new()
        .unwrap()
        .compile(&code, SpecId::OSAKA, level)
        .unwrap();
    Unit::load(image, memory).unwrap()
}

/// Name, address and size of what must be in a file.
fn expected(unit: &Unit) -> Vec<(String, usize, usize)> {
    let start = unit.code().as_ptr().addr();
    symbols(unit, &HASH)
        .map(|symbol| (symbol.name, start + symbol.offset, symbol.size))
        .collect()
}

#[test]
fn symbols_cover_all_code_and_name_each_block() {
    let memory = CodeMemory::new(1);
    for (level, word) in [(Level::Quick, "quick"), (Level::Full, "full")] {
        let unit = unit(level, &memory);
        let symbols = expected(&unit);
        let mut end = unit.code().as_ptr().addr();
        for (_, start, size) in &symbols {
            assert_eq!(*start, end);
            end += size;
        }
        assert_eq!(end, unit.code().as_ptr_range().end.addr());
        for pc in ["0", "c", "shared"] {
            let name = format!("evm:abababab:{word}:{pc}");
            assert!(symbols.iter().any(|symbol| symbol.0 == name), "{symbols:?}");
        }
    }
}

#[test]
fn a_perf_map_has_one_line_for_each_symbol_of_each_unit() {
    let folder = tempfile::tempdir().unwrap();
    let memory = CodeMemory::new(1);
    let recorder = Recorder::create(Format::PerfMap, folder.path()).unwrap();
    let units = [Level::Quick, Level::Full].map(|level| unit(level, &memory));
    for unit in &units {
        recorder.register(unit, &HASH);
    }
    let path = folder
        .path()
        .join(format!("perf-{}.map", std::process::id()));
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<_> = text
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            let [start, size, name] = fields[..] else {
                panic!("{line}");
            };
            let number = |text| usize::from_str_radix(text, 16).unwrap();
            (name.to_owned(), number(start), number(size))
        })
        .collect();
    assert_eq!(lines, units.iter().flat_map(expected).collect::<Vec<_>>());
}

/// Reads numbers and bytes off the front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, count: usize) -> &'a [u8] {
        self.0.split_off(..count).unwrap()
    }
    fn u32(&mut self) -> u32 {
        u32::from_ne_bytes(self.bytes(4).try_into().unwrap())
    }
    fn u64(&mut self) -> u64 {
        u64::from_ne_bytes(self.bytes(8).try_into().unwrap())
    }
}

#[test]
fn a_jitdump_tells_units_at_one_address_apart_by_time_and_holds_their_code() {
    let folder = tempfile::tempdir().unwrap();
    let memory = CodeMemory::new(1);
    let recorder = Recorder::create(Format::JitDump, folder.path()).unwrap();
    let mut wanted = Vec::new();
    let mut addresses = Vec::new();
    for level in [Level::Quick, Level::Full, Level::Quick] {
        // The one before is gone: its address is used again.
        let unit = unit(level, &memory);
        recorder.register(&unit, &HASH);
        addresses.push(unit.code().as_ptr().addr());
        for (name, start, size) in expected(&unit) {
            let offset = start - unit.code().as_ptr().addr();
            let code = unit.code()[offset..][..size].to_vec();
            wanted.push((name, start, code));
        }
    }
    assert_eq!(addresses[0], addresses[2]);
    let path = folder
        .path()
        .join(format!("jit-{}.dump", std::process::id()));
    let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
    let marker = mapped
        .lines()
        .find(|line| line.ends_with(path.to_str().unwrap()));
    assert!(
        marker.is_some_and(|line| line.contains(" r-xp ")),
        "{mapped}"
    );

    let bytes = std::fs::read(&path).unwrap();
    let mut reader = Reader(&bytes);
    assert_eq!(
        (reader.u32(), reader.u32(), reader.u32()),
        (0x4a69_5444, 1, 40)
    );
    let machine = if cfg!(target_arch = "x86_64") {
        62
    } else {
        183
    };
    assert_eq!((reader.u32(), reader.u32()), (machine, 0));
    assert_eq!(reader.u32(), std::process::id());
    let mut last = reader.u64();
    assert_eq!(reader.u64(), 0);
    for (index, (name, start, code)) in (0u64..).zip(wanted) {
        let whole = reader.0.len();
        assert_eq!(reader.u32(), 0);
        let size = reader.u32() as usize;
        let time = reader.u64();
        assert!(time >= last);
        last = time;
        assert_eq!(
            (reader.u32(), reader.u32()),
            (std::process::id(), std::process::id())
        );
        assert_eq!((reader.u64(), reader.u64()), (start as u64, start as u64));
        assert_eq!((reader.u64(), reader.u64()), (code.len() as u64, index));
        assert_eq!(reader.bytes(name.len()), name.as_bytes());
        assert_eq!(reader.bytes(1), [0]);
        assert_eq!(reader.bytes(code.len()), code);
        assert_eq!(whole - reader.0.len(), size);
    }
    assert!(reader.0.is_empty());
}

#[test]
fn a_file_of_names_is_made_anew_and_never_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let victim = folder.path().join("victim");
    std::fs::write(&victim, "kept").unwrap();
    let path = folder
        .path()
        .join(format!("perf-{}.map", std::process::id()));
    std::os::unix::fs::symlink(&victim, &path).unwrap();
    let recorder = Recorder::create(Format::PerfMap, folder.path()).unwrap();
    recorder.register(&unit(Level::Quick, &CodeMemory::new(1)), &HASH);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "kept");
    assert!(path.symlink_metadata().unwrap().is_file());
}
