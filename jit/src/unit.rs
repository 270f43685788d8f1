//! A code's native code: as bytes that can be kept, and as a function that can be entered.

use core::fmt;

use crate::abi::{Entry, INTERPRETED, NO_JUMP};
use crate::compiler::Level;
use crate::memory::{CodeMemory, MemoryError, Part};

/// Stands for a pc in [`Image::symbols`] where code belongs to no basic block: prologue, dispatch, exits. Not the largest
/// number, which Cranelift takes for "no place known".
pub const SHARED: u32 = u32::MAX - 1;

/// A code compiled: position-independent machine code and its tables, without relocations, because all that it calls it
/// finds through [`crate::abi::NativeFrame`].
///
/// Only this crate makes and changes images: who runs one need not ask where its bytes come from.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    /// Machine code; entered at its first byte.
    pub(crate) code: Vec<u8>,
    /// Per byte of bytecode 0 where nobody may enter, else one more than the index to enter with, and [`NO_JUMP`].
    pub(crate) entries: Box<[u16]>,
    /// (offset in `code`, pc of the basic block or [`SHARED`]), ascending by offset; each reaches to the next.
    pub(crate) symbols: Box<[(u32, u32)]>,
    /// How it was compiled.
    pub(crate) level: Level,
    /// Length of the bytecode in bytes.
    pub(crate) bytecode: u32,
    /// Instructions of Cranelift's intermediate code.
    pub(crate) clif: u32,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Image")
            .field("level", &self.level)
            .field("code", &self.code.len())
            .field("bytecode", &self.bytecode)
            .finish_non_exhaustive()
    }
}

impl Image {
    /// Machine code; entered at its first byte.
    pub fn code(&self) -> &[u8] {
        &self.code
    }

    /// Per byte of bytecode 0 where nobody may enter, else one more than the index to enter with, and [`NO_JUMP`].
    pub fn entries(&self) -> &[u16] {
        &self.entries
    }

    /// (offset in the machine code, pc of the basic block or [`SHARED`]), ascending by offset; each reaches to the next.
    pub fn symbols(&self) -> &[(u32, u32)] {
        &self.symbols
    }

    /// How it was compiled.
    pub fn level(&self) -> Level {
        self.level
    }

    /// Length of the bytecode in bytes.
    pub fn bytecode(&self) -> usize {
        self.bytecode as usize
    }

    /// Instructions of Cranelift's intermediate code that it was made from.
    pub fn clif(&self) -> usize {
        self.clif as usize
    }
}

/// A code's native code where it can be executed. Its memory is given back with the last reference: whoever runs a unit
/// holds one.
pub struct Unit {
    entry: Entry,
    size: usize,
    bytecode: usize,
    level: Level,
    entries: Box<[u16]>,
    symbols: Box<[(u32, u32)]>,
    /// What `entry` points into.
    part: Part,
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit")
            .field("level", &self.level)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Unit {
    /// Makes an image executable.
    ///
    /// # Errors
    /// There is no room, which making room by dropping units may change, or the system refuses.
    pub fn load(image: Image, memory: &CodeMemory) -> Result<Self, MemoryError> {
        let part = memory.load(&image.code)?;
        // SAFETY: images come from the compiler, which gave the code the signature of `Entry` (`lower::signature`), or
        // from a store that gives back what it was given; the part is executable and lives as long as the unit.
        let entry = unsafe { core::mem::transmute::<*const u8, Entry>(part.address()) };
        Ok(Self {
            entry,
            size: image.code.len(),
            bytecode: image.bytecode as usize,
            level: image.level,
            entries: image.entries,
            symbols: image.symbols,
            part,
        })
    }

    /// The code's address.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// The machine code where it is executed.
    pub fn code(&self) -> &[u8] {
        // SAFETY: the part is mapped readable, and nobody writes it as long as the unit has it.
        unsafe { core::slice::from_raw_parts(self.part.address(), self.size) }
    }

    /// Bytes of native code.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of memory that dropping the unit frees: native code, tables and itself.
    pub fn footprint(&self) -> usize {
        self.part.length()
            + size_of_val(&*self.entries)
            + size_of_val(&*self.symbols)
            + size_of::<Self>()
    }

    /// Bytes of the code it was made from.
    pub fn bytecode(&self) -> usize {
        self.bytecode
    }

    /// How it was compiled.
    pub fn level(&self) -> Level {
        self.level
    }

    /// See [`Image::entries`].
    pub fn entries(&self) -> &[u16] {
        &self.entries
    }

    /// See [`Image::symbols`].
    pub fn symbols(&self) -> &[(u32, u32)] {
        &self.symbols
    }

    /// The index to enter at `pc`, where one may.
    pub fn entry_at(&self, pc: usize) -> Option<u32> {
        self.entries
            .get(pc)
            .map(|entry| entry & !NO_JUMP)
            .filter(|entry| *entry > 0 && *entry != INTERPRETED)
            .map(|entry| u32::from(entry) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compiler::Compiler;
    use zvm_runtimes::isa::{Isa, assemble};
    use zvm_runtimes::revm::primitives::hardfork::SpecId;

    #[test]
    fn an_image_names_its_blocks_and_says_where_they_are_entered() {
        let program = ":a JUMPDEST PUSH1 1 PUSH0 MLOAD SUB PUSH0 MSTORE CALLVALUE PUSH1 @a JUMPI CALLER POP STOP";
        let code = assemble(Isa::Evm, program).unwrap();
        for level in [Level::Quick, Level::Full] {
            let image = Compiler::new()
                .unwrap()
                .compile(&code, SpecId::OSAKA, level)
                .unwrap();
            assert_eq!((image.level(), image.bytecode()), (level, code.len()));
            assert!(image.clif() > 0);
            let behind = code.len() - 3;
            let mut entries = vec![0; code.len()];
            entries[0] = 1;
            assert_eq!(image.entries(), entries);
            let symbols = image.symbols();
            assert!(symbols.is_sorted_by(|a, b| a.0 < b.0));
            assert_eq!(symbols[0].0, 0);
            for pc in [0, behind as u32, SHARED] {
                assert!(symbols.iter().any(|symbol| symbol.1 == pc), "{symbols:?}");
            }
            let unit = Unit::load(image, &CodeMemory::new(1)).unwrap();
            assert_eq!(unit.entry_at(0), Some(0));
            // Only control from within the region comes behind the JUMPI.
            assert_eq!((unit.entry_at(behind), unit.entry_at(code.len())), (None, None));
        }
    }
}
