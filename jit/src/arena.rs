//! Executable memory that is never writable where it is executable, and as a rule never writable at all. See
//! `docs/code-memory.md` for the alternatives.

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{FallocateFlags, MemfdFlags, fallocate, ftruncate, memfd_create};
use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};
use wasmtime_internal_jit_icache_coherence::{clear_cache, pipeline_flush_mt};

/// What is mapped and unmapped at a time.
pub(crate) const CHUNK: usize = 2 << 20;

/// What the system takes and gives.
pub(crate) const PAGE: usize = 4096;

/// Where the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backing {
    /// In an anonymous file that is mapped for execution only and written through its descriptor: no page is mapped
    /// writable at any address at any time, and parts of a page can be written while others run.
    File,
    /// In anonymous memory whose pages are made writable, filled and made executable: for `perf`, which looks names up
    /// in a map for nothing else. No two parts share a page, because what runs must not become writable.
    Pages,
}

/// A range of addresses of which chunks are mapped.
#[derive(Debug)]
pub(crate) struct Arena {
    /// Of the reservation.
    reserved: NonNull<c_void>,
    /// Bytes before the first chunk, which begins at a multiple of its size.
    slack: usize,
    chunks: usize,
    /// None for [`Backing::Pages`].
    file: Option<File>,
}

// SAFETY: the pointer is an address; what is done at it is either a system call, which may come from any thread, or the
// caller's promise that nobody else uses the range.
unsafe impl Send for Arena {}
// SAFETY: as above.
unsafe impl Sync for Arena {}

impl Arena {
    /// Reserves addresses for so many chunks; no memory yet.
    pub(crate) fn reserve(chunks: usize, backing: Backing) -> io::Result<Self> {
        let length = chunks * CHUNK;
        let file = match backing {
            Backing::File => {
                let file = memfd_create("zvm-native-code", MemfdFlags::CLOEXEC)?;
                ftruncate(&file, length as u64)?;
                Some(file.into())
            }
            Backing::Pages => None,
        };
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
            file,
        })
    }

    /// Parts must be multiples of it: a page, or else a cache line, so that writing one part does not disturb a
    /// processor that runs the next.
    pub(crate) fn granule(&self) -> usize {
        if self.file.is_some() { 64 } else { PAGE }
    }

    /// Where the bytes of a range are, or would be, mapped.
    pub(crate) fn address(&self, offset: usize, length: usize) -> *const u8 {
        let end = offset.checked_add(length);
        assert!(
            end.is_some_and(|end| end <= self.chunks * CHUNK),
            "a range of this arena"
        );
        let reserved = self.reserved.as_ptr().cast::<u8>();
        reserved.wrapping_add(self.slack + offset)
    }

    /// Makes a chunk readable and executable.
    pub(crate) fn map(&self, chunk: usize) -> io::Result<()> {
        let offset = chunk * CHUNK;
        let start = self.address(offset, CHUNK).cast_mut().cast();
        let protection = ProtFlags::READ | ProtFlags::EXEC;
        // SAFETY: the range lies within the reservation, which nothing else uses; what was mapped there has no units.
        unsafe {
            match &self.file {
                Some(file) => {
                    let flags = MapFlags::SHARED | MapFlags::FIXED;
                    mmap(start, CHUNK, protection, flags, file, offset as u64)
                }
                None => {
                    let flags = MapFlags::PRIVATE | MapFlags::FIXED;
                    mmap_anonymous(start, CHUNK, protection, flags)
                }
            }
        }?;
        Ok(())
    }

    /// Takes a chunk's mapping and memory away; its addresses stay reserved.
    ///
    /// # Safety
    /// Nobody executes code of the chunk or will before it is mapped again.
    pub(crate) unsafe fn unmap(&self, chunk: usize) -> io::Result<()> {
        let offset = chunk * CHUNK;
        // SAFETY: as for `map`; nobody uses what was mapped, as the caller promises.
        unsafe {
            mmap_anonymous(
                self.address(offset, CHUNK).cast_mut().cast(),
                CHUNK,
                ProtFlags::empty(),
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
            )
        }?;
        // SAFETY: as the caller promises.
        unsafe { self.discard(offset, CHUNK) }
    }

    /// Gives the memory of whole pages back; mapped again or still, they read as zeros.
    ///
    /// # Safety
    /// Nobody executes code of the range.
    pub(crate) unsafe fn discard(&self, offset: usize, length: usize) -> io::Result<()> {
        let start = self.address(offset, length).cast_mut().cast();
        match &self.file {
            Some(file) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(file, flags, offset as u64, length as u64)?;
            }
            // SAFETY: the range is the arena's, and nobody uses it, as the caller promises.
            None => unsafe { madvise(start, length, Advice::LinuxDontNeed) }?,
        }
        Ok(())
    }

    /// Writes code where a chunk is mapped.
    ///
    /// # Safety
    /// Nobody executes code of the granules that the range touches, and nobody else writes them.
    pub(crate) unsafe fn write(&self, offset: usize, code: &[u8]) -> io::Result<()> {
        let length = code.len().next_multiple_of(self.granule());
        let start = self.address(offset, length).cast_mut();
        match &self.file {
            Some(file) => file.write_all_at(code, offset as u64)?,
            None => {
                let writable = MprotectFlags::READ | MprotectFlags::WRITE;
                let executable = MprotectFlags::READ | MprotectFlags::EXEC;
                // SAFETY: granules are pages here, so as the caller promises nobody else uses these, which are mapped.
                unsafe {
                    mprotect(start.cast(), length, writable)?;
                    start.copy_from_nonoverlapping(code.as_ptr(), code.len());
                    mprotect(start.cast(), length, executable)?;
                }
            }
        }
        // SAFETY: the range is mapped readable.
        unsafe { clear_cache(start.cast(), code.len()) }?;
        pipeline_flush_mt()
    }

    /// Bytes of memory that the file has, if there is one.
    #[cfg(test)]
    pub(crate) fn resident(&self) -> Option<u64> {
        use std::os::unix::fs::MetadataExt as _;
        let file = self.file.as_ref()?;
        Some(file.metadata().unwrap().blocks() * 512)
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
