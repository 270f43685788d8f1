//! The file format that `perf inject --jit` reads: version 1, as in `tools/perf/Documentation/jitdump-specification.txt`
//! of Linux. Numbers are in the machine's own order.

use core::ffi::c_void;
use std::fs::File;
use std::io::{self, Write as _};
use std::ptr::null_mut;

use alloy_primitives::B256;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::time::{ClockId, clock_gettime};

use crate::unit::Unit;

const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER: u32 = 40;
/// Record: code was loaded.
const CODE_LOAD: u32 = 0;
/// Of a record of that kind, without name and code.
const CODE_LOAD_HEADER: usize = 56;
/// ELF's number of the machine.
const MACHINE: u32 = if cfg!(target_arch = "aarch64") {
    183
} else {
    62
};
const PAGE: usize = 4096;

/// An open dump.
pub(super) struct JitDump {
    file: File,
    /// By this mapping `perf record` learns of the file.
    marker: Marker,
    /// Records so far: each has its own number.
    index: u64,
}

struct Marker(*mut c_void);

// SAFETY: the address is only given back to the system, which any thread may do.
unsafe impl Send for Marker {}

impl Drop for Marker {
    fn drop(&mut self) {
        // SAFETY: the mapping is `Marker`'s own and nobody reads it.
        if let Err(error) = unsafe { munmap(self.0, PAGE) } {
            tracing::debug!(%error, "a page stays mapped");
        }
    }
}

impl JitDump {
    pub(super) fn new(mut file: File) -> io::Result<Self> {
        let mut header = Vec::with_capacity(HEADER as usize);
        for number in [MAGIC, VERSION, HEADER, MACHINE, 0, std::process::id()] {
            header.extend(number.to_ne_bytes());
        }
        header.extend(now().to_ne_bytes());
        // No flags: the times are those of the monotonic clock.
        header.extend(0u64.to_ne_bytes());
        file.write_all(&header)?;
        // SAFETY: a new mapping where the system wants it; nobody reads or executes it.
        let marker = unsafe {
            mmap(
                null_mut(),
                PAGE,
                ProtFlags::READ | ProtFlags::EXEC,
                MapFlags::PRIVATE,
                &file,
                0,
            )
        }?;
        Ok(Self {
            file,
            marker: Marker(marker),
            index: 0,
        })
    }

    /// Writes one record for each symbol of a unit.
    pub(super) fn load(&mut self, unit: &Unit, code_hash: &B256) -> io::Result<()> {
        debug_assert!(!self.marker.0.is_null());
        let (code, process) = (unit.code(), std::process::id());
        let mut records = Vec::with_capacity(code.len() + unit.symbols().len() * 96);
        for symbol in super::symbols(unit, code_hash) {
            let code = &code[symbol.offset..][..symbol.size];
            let size = CODE_LOAD_HEADER + symbol.name.len() + 1 + code.len();
            for number in [CODE_LOAD, size as u32] {
                records.extend(number.to_ne_bytes());
            }
            records.extend(now().to_ne_bytes());
            // Process and thread: the code is the whole process's.
            for number in [process, process] {
                records.extend(number.to_ne_bytes());
            }
            let address = code.as_ptr().addr() as u64;
            for number in [address, address, code.len() as u64, self.index] {
                records.extend(number.to_ne_bytes());
            }
            records.extend(symbol.name.as_bytes());
            records.push(0);
            records.extend(code);
            self.index += 1;
        }
        self.file.write_all(&records)
    }
}

/// Nanoseconds of the clock that `perf record -k mono` stamps samples with.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
