//! From code to an image: runs the steps in order and refuses what would cost too much.

use core::fmt;

use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::OwnedTargetIsa;
use cranelift_codegen::settings::{self, Configurable as _};
use cranelift_codegen::{Context, Final, MachSrcLoc};
use cranelift_frontend::FunctionBuilderContext;
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use crate::abi::{self, INTERPRETED, NO_ENTRY, NO_JUMP};
use crate::profile::Profile;
use crate::unit::{Image, SHARED};
use crate::{build, code, flow, ir, lower};

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
    /// More than a compilation may have: time and memory are bounded by it.
    #[error("{count} {what} are more than {limit}")]
    TooLarge {
        /// What is too many: instructions, blocks, bytes or entries.
        what: &'static str,
        /// How many there are, or were estimated.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The native code found no memory.
    #[error("{0}")]
    Memory(String),
    /// Cranelift refused; a fault of this compiler.
    #[error("cranelift: {0}")]
    Backend(String),
}

/// What a compilation may cost. Time and memory are bounded by the counts that they were seen to grow with (a code of
/// 24 KB made to be dear takes up to a quarter of a second at these bounds): Cranelift cannot be interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Instructions of Cranelift's intermediate code.
    pub clif: usize,
    /// Its blocks.
    pub blocks: usize,
    /// Bytes of native code for each byte of bytecode, above [`Limits::FREE`].
    pub growth: usize,
}

impl Limits {
    /// Bytes of native code that any code may have.
    pub const FREE: usize = 1 << 14;

    /// Those of a level.
    pub const fn of(level: Level) -> Self {
        match level {
            Level::Quick => Self {
                clif: 180_000,
                blocks: 13_000,
                growth: 60,
            },
            Level::Full => Self {
                clif: 128_000,
                blocks: 8_300,
                growth: 32,
            },
        }
    }
}

/// How a code is compiled. What the code does never depends on it.
#[derive(Debug, Clone, Copy)]
pub struct Options<'p> {
    /// How much is spent.
    pub level: Level,
    /// What was seen of the code.
    pub profile: Option<&'p Profile>,
    /// Makes code that counts the instructions it executes, for [`crate::run::executed`].
    pub count: bool,
}

impl Options<'_> {
    /// Without a profile, not counting.
    pub const fn of(level: Level) -> Self {
        Self {
            level,
            profile: None,
            count: false,
        }
    }
}

/// Steps of a compilation whose time is of interest, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Stage {
    /// Bytes to basic blocks.
    Code,
    /// Blocks to regions and loops.
    Flow,
    /// Regions to words, folded on the way, with their ranges.
    Build,
    /// Words to Cranelift's intermediate code.
    Lower,
    /// Cranelift.
    Backend,
    /// The tables beside the machine code.
    Tables,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Code,
        Self::Flow,
        Self::Build,
        Self::Lower,
        Self::Backend,
        Self::Tables,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Flow => "flow",
            Self::Build => "build",
            Self::Lower => "lower",
            Self::Backend => "backend",
            Self::Tables => "tables",
        }
    }
}

/// Watches a compilation.
pub trait Observer {
    /// A stage is done.
    fn done(&mut self, _stage: Stage) {}

    /// The intermediate code that Cranelift gets.
    fn lowered(&mut self, _function: &Function) {}

    /// Whether Cranelift is to write what it makes as text.
    fn reads_assembly(&self) -> bool {
        false
    }
}

/// Watches nothing.
impl Observer for () {}

/// All that the steps made.
pub(crate) struct Compilation {
    pub(crate) image: Image,
    pub(crate) blocks: code::Blocks,
    pub(crate) flow: flow::Flow,
    pub(crate) words: ir::Function,
    /// If the observer reads it.
    pub(crate) assembly: Option<String>,
}

/// Compiles code for this machine.
#[derive(Clone)]
pub struct Compiler {
    quick: OwnedTargetIsa,
    full: OwnedTargetIsa,
    stress: bool,
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
            stress: false,
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
    pub fn compile(&self, bytes: &[u8], spec: SpecId, level: Level) -> Result<Image, Refused> {
        self.compile_with(bytes, spec, Options::of(level), &mut ())
    }

    /// Compiles EVM code under the rules of a fork, while somebody watches.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn compile_with(
        &self,
        bytes: &[u8],
        spec: SpecId,
        options: Options<'_>,
        observer: &mut impl Observer,
    ) -> Result<Image, Refused> {
        let compilation = self.pipeline(bytes, spec, options, observer)?;
        Ok(compilation.image)
    }

    /// The steps in order.
    pub(crate) fn pipeline(
        &self,
        bytes: &[u8],
        spec: SpecId,
        options: Options<'_>,
        observer: &mut impl Observer,
    ) -> Result<Compilation, Refused> {
        if bytes.is_empty() {
            return Err(Refused::Empty);
        }
        within("bytes of code", bytes.len(), abi::MAX_CODE)?;
        let (stress, level) = (self.stress, options.level);
        let places = options.profile.map_or_else(Vec::new, Profile::places);
        let blocks = code::blocks_with(bytes, spec, &places);
        observer.done(Stage::Code);
        let flow = flow::analyse(&blocks);
        observer.done(Stage::Flow);
        let profile = options.profile;
        let how = build::Options {
            level,
            stress,
            profile,
        };
        let words = build::translate(&blocks, &flow, bytes.len(), how);
        observer.done(Stage::Build);
        // By estimate before the work, by count after the cheap part of it.
        let limits = Limits::of(level);
        let (clif, made) = words.cost();
        within("instructions", clif, limits.clif)?;
        within("blocks", made, limits.blocks)?;
        let isa = self.isa(level);
        let mut context = Context::new();
        let mut builder = FunctionBuilderContext::new();
        let how = lower::Options {
            code_len: bytes.len(),
            stress,
            counted: options.count.then_some(&blocks),
        };
        lower::lower(&**isa, &mut context.func, &mut builder, &words, how);
        let clif = context.func.dfg.num_insts();
        observer.lowered(&context.func);
        observer.done(Stage::Lower);
        within("instructions", clif, limits.clif)?;
        within("blocks", context.func.dfg.num_blocks(), limits.blocks)?;
        context.set_disasm(observer.reads_assembly());
        let compiled = context
            .compile(&**isa, &mut ControlPlane::default())
            .map_err(|error| Refused::Backend(format!("{:?}", error.inner)))?;
        observer.done(Stage::Backend);
        // What an image holds runs wherever it lies.
        if let Some(relocation) = compiled.buffer.relocs().first() {
            return Err(Refused::Backend(format!("relocation {relocation:?}")));
        }
        let growth = Limits::FREE + limits.growth * bytes.len();
        within("bytes", compiled.code_buffer().len(), growth)?;
        let image = Image {
            code: compiled.code_buffer().to_vec(),
            entries: entries(&blocks, &lower::entries(&words), bytes.len())?,
            symbols: symbols(compiled.buffer.get_srclocs_sorted()),
            level,
            bytecode: bytes.len() as u32,
            clif: clif as u32,
        };
        observer.done(Stage::Tables);
        Ok(Compilation {
            image,
            blocks,
            flow,
            words,
            assembly: compiled.vcode.clone(),
        })
    }

    /// What Cranelift makes code for at a level.
    pub(crate) fn isa(&self, level: Level) -> &OwnedTargetIsa {
        match level {
            Level::Quick => &self.quick,
            Level::Full => &self.full,
        }
    }

    /// From now on every guard also fails by the frame's counter; for tests of what happens then.
    pub fn set_stress(&mut self, stress: bool) {
        self.stress = stress;
    }
}

fn within(what: &'static str, count: usize, limit: usize) -> Result<(), Refused> {
    if count <= limit {
        return Ok(());
    }
    Err(Refused::TooLarge { what, count, limit })
}

/// Where native code may be entered; see [`Image::entries`].
fn entries(
    blocks: &code::Blocks,
    entered: &[usize],
    code_len: usize,
) -> Result<Box<[u16]>, Refused> {
    let limit = usize::from(INTERPRETED - 1);
    within("entries", entered.len(), limit)?;
    let mut entries = vec![NO_ENTRY; code_len].into_boxed_slice();
    for pc in &blocks.jumpdests {
        entries[*pc] = INTERPRETED;
    }
    for (index, block) in (1..).zip(entered) {
        let pc = blocks.blocks[*block].pc;
        let jumps = entries[pc] == INTERPRETED;
        entries[pc] = if jumps { index } else { index | NO_JUMP };
    }
    Ok(entries)
}

/// Where the code of each block begins; see [`Image::symbols`]. What Cranelift put between without a place of its own
/// (moves, jumps) belongs to what stands before it.
fn symbols(places: &[MachSrcLoc<Final>]) -> Box<[(u32, u32)]> {
    let mut symbols = vec![(0, SHARED)];
    for place in places.iter().filter(|place| !place.loc.is_default()) {
        let (start, pc) = (place.start, place.loc.bits());
        match symbols.last_mut() {
            Some((_, last)) if *last == pc => {}
            Some((at, last)) if *at == start => *last = pc,
            _ => symbols.push((start, pc)),
        }
    }
    symbols.into_boxed_slice()
}
