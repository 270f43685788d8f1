//! Executable memory that this process cannot write: pages of an anonymous file, mapped for execution only.
//!
//! Code is written through the file descriptor (`pwrite`), so no page is mapped writable at any address at any time, and
//! parts of one page can be written while other parts of it run. See `docs/code-memory.md` for the alternatives.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use wasmtime_internal_jit_icache_coherence::{clear_cache, pipeline_flush_mt};

/// What is mapped and unmapped at a time.
pub(crate) const CHUNK: usize = 2 << 20;

/// A range of addresses of which chunks are mapped to the same range of an anonymous file.
#[derive(Debug)]
pub(crate) struct Arena {
    /// Of the reservation.
    reserved: NonNull<c_void>,
    /// Bytes before the first chunk, which begins at a multiple of its size.
    slack: usize,
    chunks: usize,
    file: File,
}

// SAFETY: the pointer is an address: nothing is read or written through it here, and the system calls on the range may
// come from any thread.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves addresses for so many chunks; no memory yet.
    pub(crate) fn reserve(chunks: usize) -> io::Result<Self> {
        let length = chunks * CHUNK;
        let file = memfd_create("zvm-native-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, length as u64)?;
        // SAFETY: a new mapping where the system wants it.
        let reserved = unsafe {
            mmap_anonymous(
                null_mut(),
                length + CHUNK,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::NORESERVE,
            )
        }?;
        let reserved = NonNull::new(reserved).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            reserved,
            slack: reserved.as_ptr().addr().wrapping_neg() % CHUNK,
            chunks,
            file: file.into(),
        })
    }

    /// Where the byte at an offset of the file is, or would be, mapped.
    pub(crate) fn address(&self, offset: usize) -> *const u8 {
        assert!(offset <= self.chunks * CHUNK, "an offset of this arena");
        self.reserved
            .as_ptr()
            .cast::<u8>()
            .wrapping_add(self.slack + offset)
    }

    /// Makes a chunk readable and executable.
    pub(crate) fn map(&self, chunk: usize) -> io::Result<()> {
        assert!(chunk < self.chunks, "a chunk of this arena");
        let offset = chunk * CHUNK;
        // SAFETY: the range lies within the reservation, which nothing else uses; what was mapped there has no units.
        unsafe {
            mmap(
                self.address(offset).cast_mut().cast(),
                CHUNK,
                ProtFlags::READ | ProtFlags::EXEC,
                MapFlags::SHARED | MapFlags::FIXED,
                &self.file,
                offset as u64,
            )
        }?;
        Ok(())
    }

    /// Takes a chunk's mapping and memory away; its addresses stay reserved.
    ///
    /// # Safety
    /// Nobody executes code of the chunk or will before it is mapped again.
    pub(crate) unsafe fn unmap(&self, chunk: usize) -> io::Result<()> {
        assert!(chunk < self.chunks, "a chunk of this arena");
        let offset = chunk * CHUNK;
        // SAFETY: as for `map`; nobody uses what was mapped, as the caller promises.
        unsafe {
            mmap_anonymous(
                self.address(offset).cast_mut().cast(),
                CHUNK,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        }?;
        // SAFETY: as the caller promises.
        unsafe { self.discard(offset, CHUNK) }
    }

    /// Gives the memory of a range back; it reads as zeros.
    ///
    /// # Safety
    /// Nobody executes code of the range.
    pub(crate) unsafe fn discard(&self, offset: usize, length: usize) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, offset as u64, length as u64)?)
    }

    /// Writes code where a chunk is mapped.
    ///
    /// # Safety
    /// Nobody executes code of the range.
    pub(crate) unsafe fn write(&self, offset: usize, code: &[u8]) -> io::Result<()> {
        self.file.write_all_at(code, offset as u64)?;
        // SAFETY: the range is mapped readable.
        unsafe { clear_cache(self.address(offset).cast(), code.len()) }?;
        pipeline_flush_mt()
    }

    /// Bytes of memory that the file has.
    #[cfg(test)]
    pub(crate) fn resident(&self) -> u64 {
        use std::os::unix::fs::MetadataExt as _;
        self.file.metadata().unwrap().blocks() * 512
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let length = self.chunks * CHUNK + CHUNK;
        // SAFETY: all parts hold the arena: there are none, so nobody executes code of it.
        if let Err(error) = unsafe { munmap(self.reserved.as_ptr(), length) } {
            tracing::warn!(%error, "code memory stays mapped");
        }
    }
}
