//! One code's native code: compiled, in executable memory, given back when nobody can be inside any more.

use core::fmt;
use std::sync::Arc;

use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable as _};
use cranelift_frontend::FunctionBuilderContext;
use cranelift_jit::{JITBuilder, JITModule};
use cranelift_module::{Linkage, Module as _, default_libcall_names};
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use crate::abi::Entry;
use crate::{code, ir, lower};

/// How much is spent on a compilation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Level {
    /// Little: no optimisation, registers in one pass.
    Quick,
    /// More: Cranelift's optimisation and backtracking register allocation.
    Full,
}

/// Why a code is not compiled. Tried again it would fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Nothing to compile.
    #[error("the code is empty")]
    Empty,
    /// More statements than a compilation may have: time and memory are bounded by them.
    #[error("{statements} statements are more than {limit}")]
    TooLarge {
        /// Of the code.
        statements: usize,
        /// Allowed.
        limit: usize,
    },
    /// Cranelift refused; a fault of this compiler.
    #[error("cranelift: {0}")]
    Backend(String),
}

/// Statements a compilation may have.
pub const MAX_STATEMENTS: usize = 60_000;

/// Compiles code for this machine.
#[derive(Clone)]
pub struct Compiler {
    quick: OwnedTargetIsa,
    full: OwnedTargetIsa,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler")
            .field("target", &self.full.triple().to_string())
            .finish()
    }
}

impl Compiler {
    /// A compiler for the processor it runs on.
    ///
    /// # Errors
    /// Cranelift does not know the processor.
    pub fn new() -> Result<Self, Refused> {
        let isa = |options: &[(&str, &str)]| {
            let mut flags = settings::builder();
            let common = [
                ("is_pic", "false"),
                ("use_colocated_libcalls", "false"),
                ("preserve_frame_pointers", "true"),
                ("unwind_info", "false"),
                (
                    "enable_verifier",
                    if cfg!(debug_assertions) {
                        "true"
                    } else {
                        "false"
                    },
                ),
            ];
            for (name, value) in common.iter().chain(options) {
                flags
                    .set(name, value)
                    .map_err(|error| Refused::Backend(format!("{name}: {error}")))?;
            }
            cranelift_native::builder()
                .map_err(|error| Refused::Backend(error.to_owned()))?
                .finish(settings::Flags::new(flags))
                .map_err(|error| Refused::Backend(error.to_string()))
        };
        Ok(Self {
            quick: isa(&[("opt_level", "none"), ("regalloc_algorithm", "single_pass")])?,
            full: isa(&[
                ("opt_level", "speed"),
                ("regalloc_algorithm", "backtracking"),
            ])?,
        })
    }

    /// Compiles EVM code under the rules of a fork.
    ///
    /// # Errors
    /// The code cannot be compiled, now or ever.
    pub fn compile(&self, bytes: &[u8], spec: SpecId, level: Level) -> Result<Unit, Refused> {
        if bytes.is_empty() {
            return Err(Refused::Empty);
        }
        let blocks = code::blocks(bytes, spec);
        let words = ir::translate(&blocks);
        let statements = words
            .blocks
            .iter()
            .map(|block| block.statements.len() + 1)
            .sum();
        if statements > MAX_STATEMENTS {
            return Err(Refused::TooLarge {
                statements,
                limit: MAX_STATEMENTS,
            });
        }
        let isa = match level {
            Level::Quick => &self.quick,
            Level::Full => &self.full,
        };
        let backend = |error: &dyn fmt::Display| Refused::Backend(error.to_string());
        let mut module = JITModule::new(JITBuilder::with_isa(
            Arc::clone(isa),
            default_libcall_names(),
        ));
        let mut context = module.make_context();
        lower::lower(
            &**isa,
            &mut context.func,
            &mut FunctionBuilderContext::new(),
            &words,
            bytes.len(),
        );
        let function = module
            .declare_function("code", Linkage::Export, &context.func.signature)
            .map_err(|error| backend(&error))?;
        // From here on the memory is given back whatever happens.
        let mut memory = Memory(Some(module));
        let Some(module) = memory.0.as_mut() else {
            return Err(Refused::Backend("no module".to_owned()));
        };
        module
            .define_function(function, &mut context)
            .map_err(|error| backend(&format!("{error:?}")))?;
        let size = context
            .compiled_code()
            .map_or(0, |code| code.code_buffer().len());
        module
            .finalize_definitions()
            .map_err(|error| backend(&error))?;
        let address = module.get_finalized_function(function);
        // SAFETY: the function was compiled with the signature of `Entry` (`lower::signature`) and lives as long as
        // `memory`, which the unit keeps.
        let entry = unsafe { core::mem::transmute::<*const u8, Entry>(address) };
        Ok(Unit {
            entry,
            size,
            bytecode: bytes.len(),
            level,
            jump_map: blocks.jump_map,
            entries: blocks.entries,
            _memory: memory,
        })
    }
}

struct Memory(Option<JITModule>);

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(module) = self.0.take() {
            // SAFETY: a unit is shared by `Arc`, and whoever runs it holds one: here nobody runs it.
            unsafe { module.free_memory() };
        }
    }
}

/// A code's native code.
pub struct Unit {
    entry: Entry,
    size: usize,
    bytecode: usize,
    level: Level,
    jump_map: Box<[u32]>,
    entries: Box<[u32]>,
    _memory: Memory,
}

// SAFETY: the module is not used after the compilation but to free its memory, which may happen on any thread; the code
// is read-only and keeps no state of its own.
unsafe impl Send for Unit {}
// SAFETY: as above.
unsafe impl Sync for Unit {}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unit")
            .field("level", &self.level)
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Unit {
    /// The code's address.
    pub fn entry(&self) -> Entry {
        self.entry
    }

    /// Bytes of native code.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Bytes of the code it was made from.
    pub fn bytecode(&self) -> usize {
        self.bytecode
    }

    /// How it was compiled.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The index to enter at `pc`, where one may.
    pub fn entry_at(&self, pc: usize) -> Option<u32> {
        self.entries
            .get(pc)
            .copied()
            .filter(|index| *index > 0)
            .map(|index| index - 1)
    }

    /// See [`crate::abi::NativeFrame::jump_map`].
    pub fn jump_map(&self) -> &[u32] {
        &self.jump_map
    }
}
