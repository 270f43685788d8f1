//! Where native code lies: a budget of executable memory that units take parts of.
//!
//! Parts are multiples of 64 bytes in one range of addresses, mapped by chunks of 2 MiB as long as they hold
//! code. cranelift-jit copies and finishes the code through its own interface for memory ([`Provider`]), one module a
//! unit; the module is not needed afterwards, because there is nothing to relocate.

use core::fmt;
use std::io;
use std::sync::Arc;

use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable as _};
use cranelift_jit::{BranchProtection, JITBuilder, JITMemoryKind, JITMemoryProvider, JITModule};
use cranelift_module::{Module as _, ModuleError, ModuleResult, default_libcall_names};
use parking_lot::Mutex;

use crate::arena::{Arena, Backing, CHUNK, PAGE};
use crate::extents::Extents;
use crate::perf;

/// The most that code may want its first byte to be aligned to: parts begin at multiples of it.
const ALIGNMENT: u64 = 64;

/// Why code cannot be made executable.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// No free part is large enough. Dropping units changes that.
    #[error("no room for {wanted} bytes of native code within {limit}")]
    Full {
        /// Bytes of the code.
        wanted: usize,
        /// Bytes in all.
        limit: usize,
    },
    /// The system refused.
    #[error("code memory: {what}: {source}")]
    System {
        /// The request.
        what: &'static str,
        /// Its answer.
        source: io::Error,
    },
    /// Cranelift refused.
    #[error("code memory: cranelift: {0}")]
    Backend(String),
}

/// What the memory holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryStatistics {
    /// Units that lie in it.
    pub units: usize,
    /// Bytes that they take, each rounded up to 64, or to a page while names are written into a perf map.
    pub live: usize,
    /// Bytes that are mapped, a multiple of 2 MiB. Pages without code take no memory.
    pub mapped: usize,
    /// Bytes that may be mapped.
    pub limit: usize,
    /// Units that were put into it since the start.
    pub loaded: u64,
    /// Units there was no room for since the start.
    pub refused: u64,
}

/// Executable memory with a limit. Clones are the same memory, which lives as long as it or a unit in it does.
#[derive(Debug, Clone)]
pub struct CodeMemory(Arc<Inner>);

struct Inner {
    limit: usize,
    /// Stated by tests; else what the profile wants when the first unit is loaded.
    backing: Option<Backing>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Made with the first unit: a process that never compiles reserves nothing.
    place: Option<Place>,
    statistics: MemoryStatistics,
}

struct Place {
    arena: Arc<Arena>,
    isa: OwnedTargetIsa,
    free: Extents,
    /// Units that lie in each chunk at least in part.
    residents: Vec<u32>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CodeMemory")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl CodeMemory {
    /// Memory for so many bytes of native code, rounded up to 2 MiB, at most 128 GiB.
    pub fn new(limit: usize) -> Self {
        Self::with(limit, None)
    }

    fn with(limit: usize, backing: Option<Backing>) -> Self {
        Self(Arc::new(Inner {
            limit: limit.clamp(1, 128 << 30).next_multiple_of(CHUNK),
            backing,
            state: Mutex::default(),
        }))
    }

    /// What it holds.
    pub fn statistics(&self) -> MemoryStatistics {
        MemoryStatistics {
            limit: self.0.limit,
            ..self.0.state.lock().statistics
        }
    }

    /// Copies position-independent code to where it can be executed.
    pub(crate) fn load(&self, code: &[u8]) -> Result<Part, MemoryError> {
        let (part, isa) = self.take(code.len())?;
        let backend = |error: ModuleError| match error {
            ModuleError::Allocation { err: source } => MemoryError::System {
                what: "writing code",
                source,
            },
            error => MemoryError::Backend(error.to_string()),
        };
        let mut builder = JITBuilder::with_isa(isa, default_libcall_names());
        builder.memory_provider(Box::new(Provider {
            arena: Arc::clone(&part.arena),
            offset: part.offset,
            length: part.length,
            staged: Vec::new(),
        }));
        let mut module = JITModule::new(builder);
        // The module copies bytes; what they take and return is not its business.
        let signature = module.make_signature();
        let function = module
            .declare_anonymous_function(&signature)
            .map_err(backend)?;
        module
            .define_function_bytes(function, ALIGNMENT, code, &[])
            .map_err(backend)?;
        module.finalize_definitions().map_err(backend)?;
        Ok(part)
    }

    /// A part that nobody else has, mapped, with what it held before.
    fn take(&self, bytes: usize) -> Result<(Part, OwnedTargetIsa), MemoryError> {
        let mut state = self.0.state.lock();
        let State { place, statistics } = &mut *state;
        let place = match place {
            Some(place) => place,
            None => {
                let backing = self.0.backing.unwrap_or_else(perf::backing);
                place.insert(Place::new(self.0.limit, backing)?)
            }
        };
        let granule = place.arena.granule();
        let granules = u32::try_from(bytes.max(1).div_ceil(granule));
        let Some((granules, start)) = granules
            .ok()
            .and_then(|granules| Some((granules, place.free.take(granules)?)))
        else {
            statistics.refused += 1;
            return Err(MemoryError::Full {
                wanted: bytes,
                limit: self.0.limit,
            });
        };
        // From here on it is given back when it is dropped.
        let (offset, length) = (start as usize * granule, granules as usize * granule);
        for chunk in chunks(offset, length) {
            if place.residents[chunk] == 0
                && let Err(source) = place.arena.map(chunk)
            {
                // What was mapped for this part is unmapped again, and the range is free again.
                for before in chunks(offset, length).take_while(|before| *before < chunk) {
                    place.leave(before, statistics);
                }
                place.free.give(start, granules);
                return Err(MemoryError::System {
                    what: "mapping",
                    source,
                });
            }
            if place.residents[chunk] == 0 {
                statistics.mapped += CHUNK;
            }
            place.residents[chunk] += 1;
        }
        statistics.units += 1;
        statistics.live += length;
        statistics.loaded += 1;
        let part = Part {
            memory: Arc::clone(&self.0),
            arena: Arc::clone(&place.arena),
            offset,
            length,
        };
        Ok((part, Arc::clone(&place.isa)))
    }
}

/// The chunks that a part lies in.
fn chunks(offset: usize, length: usize) -> core::ops::RangeInclusive<usize> {
    offset / CHUNK..=(offset + length - 1) / CHUNK
}

impl Place {
    fn new(limit: usize, backing: Backing) -> Result<Self, MemoryError> {
        let backend = |error: &dyn fmt::Display| MemoryError::Backend(error.to_string());
        // What cranelift-jit wants of whoever uses it; nothing is compiled with it.
        let mut flags = settings::builder();
        flags
            .set("is_pic", "false")
            .map_err(|error| backend(&error))?;
        let isa = cranelift_native::builder()
            .map_err(|error| backend(&error))?
            .finish(settings::Flags::new(flags))
            .map_err(|error| backend(&error))?;
        let chunks = limit / CHUNK;
        let arena = Arena::reserve(chunks, backing).map_err(|source| MemoryError::System {
            what: "reserving",
            source,
        })?;
        Ok(Self {
            free: Extents::new((limit / arena.granule()) as u32),
            arena: Arc::new(arena),
            isa,
            residents: vec![0; chunks],
        })
    }

    /// One unit less in a chunk.
    fn leave(&mut self, chunk: usize, statistics: &mut MemoryStatistics) {
        self.residents[chunk] -= 1;
        if self.residents[chunk] > 0 {
            return;
        }
        // SAFETY: no unit lies in the chunk, and who executes code holds its unit.
        match unsafe { self.arena.unmap(chunk) } {
            Ok(()) => {}
            // It is mapped over when it is next used.
            Err(error) => tracing::warn!(%error, "a chunk of code memory stays mapped"),
        }
        statistics.mapped -= CHUNK;
    }
}

/// A part of the memory, given back when dropped. It may be dropped by any thread, but only when nobody executes it.
#[derive(Debug)]
pub(crate) struct Part {
    memory: Arc<Inner>,
    /// That of `memory`, without the lock.
    arena: Arc<Arena>,
    offset: usize,
    length: usize,
}

impl Part {
    /// Where its first byte is executed.
    pub(crate) fn address(&self) -> *const u8 {
        self.arena.address(self.offset, self.length)
    }

    /// Bytes of code memory that it takes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let mut state = self.memory.state.lock();
        let State { place, statistics } = &mut *state;
        let Some(place) = place else {
            return;
        };
        let granule = self.arena.granule();
        let granules = |bytes: usize| (bytes / granule) as u32;
        let (start, length) = place
            .free
            .give(granules(self.offset), granules(self.length));
        for chunk in chunks(self.offset, self.length) {
            place.leave(chunk, statistics);
        }
        // Pages that held code of this part and hold none now: under the lock, before another can take them.
        let free = start as usize * granule..(start + length) as usize * granule;
        let first = (self.offset / PAGE * PAGE).max(free.start.next_multiple_of(PAGE));
        let end = (self.offset + self.length)
            .next_multiple_of(PAGE)
            .min(free.end / PAGE * PAGE);
        if first < end {
            // SAFETY: the range is free, and who executes code holds its unit.
            if let Err(error) = unsafe { self.arena.discard(first, end - first) } {
                tracing::warn!(%error, "free code memory is kept");
            }
        }
        statistics.units -= 1;
        statistics.live -= self.length;
    }
}

/// What a module of cranelift-jit sees of a [`Part`]: it fills a buffer, which is then written to the part.
struct Provider {
    arena: Arc<Arena>,
    offset: usize,
    length: usize,
    staged: Vec<u8>,
}

impl JITMemoryProvider for Provider {
    fn allocate(&mut self, size: usize, align: u64, kind: JITMemoryKind) -> io::Result<*mut u8> {
        let code = matches!(kind, JITMemoryKind::Executable) && self.staged.is_empty();
        if !code || size > self.length || align > ALIGNMENT {
            return Err(io::Error::other("code without data is expected, once"));
        }
        self.staged = vec![0; size];
        Ok(self.staged.as_mut_ptr())
    }

    unsafe fn free_memory(&mut self) {
        self.staged = Vec::new();
    }

    fn finalize(&mut self, _: BranchProtection) -> ModuleResult<()> {
        // SAFETY: the part is new, so nobody executes it; it is mapped.
        unsafe { self.arena.write(self.offset, &self.staged) }
            .map_err(|err| ModuleError::Allocation { err })
    }
}

#[cfg(test)]
mod tests;
