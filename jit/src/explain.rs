//! Every step of a compilation as text: what `zvm jit explain` prints and golden tests compare.

use core::fmt::Write as _;

use cranelift_codegen::ir::Function;
use zvm_runtimes::revm::primitives::hardfork::SpecId;

use crate::compiler::{Compiler, Observer, Options, Refused};
use crate::unit::Image;
use crate::{code, flow, ir};

/// A step of a compilation, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Instructions as basic blocks.
    Blocks,
    /// Regions and loops.
    Flow,
    /// Words in static single assignment form, folded, with their ranges.
    Words,
    /// Cranelift's intermediate code.
    Clif,
    /// Machine code as Cranelift writes it.
    Native,
}

impl Step {
    /// All steps.
    pub const ALL: [Self; 5] = [
        Self::Blocks,
        Self::Flow,
        Self::Words,
        Self::Clif,
        Self::Native,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Blocks => "blocks",
            Self::Flow => "flow",
            Self::Words => "words",
            Self::Clif => "clif",
            Self::Native => "native",
        }
    }
}

impl core::str::FromStr for Step {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|step| step.name() == name)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::name).join(", ");
                format!("no step is called {name}; there are {names}")
            })
    }
}

/// What each step of a compilation made.
#[derive(Debug)]
pub struct Explanation {
    blocks: code::Blocks,
    flow: flow::Flow,
    words: ir::Function,
    function: Function,
    native: String,
    image: Image,
}

/// Keeps what the pipeline does not.
struct Keeper {
    function: Function,
}

impl Observer for Keeper {
    fn lowered(&mut self, function: &Function) {
        self.function = function.clone();
    }

    fn reads_assembly(&self) -> bool {
        true
    }
}

impl Compiler {
    /// Compiles and keeps every step.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn explain(
        &self,
        bytes: &[u8],
        spec: SpecId,
        options: Options<'_>,
    ) -> Result<Explanation, Refused> {
        let mut keeper = Keeper {
            function: Function::new(),
        };
        let made = self.pipeline(bytes, spec, options, &mut keeper)?;
        Ok(Explanation {
            blocks: made.blocks,
            flow: made.flow,
            words: made.words,
            function: keeper.function,
            native: made.assembly.unwrap_or_default(),
            image: made.image,
        })
    }
}

impl Explanation {
    /// A step of the whole code.
    pub fn step(&self, step: Step) -> String {
        match step {
            Step::Blocks => self.blocks.to_string(),
            Step::Flow => self.flow.to_string(),
            Step::Words => self.words.to_string(),
            Step::Clif => self.function.display().to_string(),
            Step::Native => self.native.clone(),
        }
    }

    /// A step of the block that holds `pc`. None if nothing of the code there was compiled.
    pub fn step_at(&self, step: Step, pc: usize) -> Option<String> {
        let index = self
            .blocks
            .blocks
            .iter()
            .rposition(|block| block.pc <= pc)?;
        let start = self.blocks.blocks[index].pc as u32;
        let (region, _) = self.flow.place[index]?;
        let mut text = String::new();
        match step {
            Step::Blocks => text = section(&self.blocks.to_string(), &format!("b{index} ")),
            Step::Flow => {
                let (_, height) = self.flow.place[index]?;
                let blocks = &self.flow.regions[region].blocks;
                let _ = writeln!(text, "b{index} height {height} in the region of {blocks:?}");
            }
            Step::Words => {
                let region = self.words.regions.get(region)?.to_string();
                text = section(&region, &format!("b{index} "));
            }
            Step::Clif => {
                for block in self.function.layout.blocks() {
                    for inst in self.function.layout.block_insts(block) {
                        if self.function.srcloc(inst).bits() == start {
                            let _ = writeln!(text, "{}", self.function.dfg.display_inst(inst));
                        }
                    }
                }
            }
            Step::Native => {
                let (code, symbols) = (self.image.code(), self.image.symbols());
                for (position, (from, pc)) in symbols.iter().enumerate() {
                    let to = symbols
                        .get(position + 1)
                        .map_or(code.len(), |(to, _)| *to as usize);
                    if *pc == start {
                        let bytes = code.get(*from as usize..to).unwrap_or_default();
                        let bytes = alloy_primitives::hex::encode(bytes);
                        let _ = writeln!(text, "{from:#x}..{to:#x} {bytes}");
                    }
                }
            }
        }
        Some(text)
    }

    /// Bytes of machine code.
    pub fn size(&self) -> usize {
        self.image.code().len()
    }

    /// Instructions of Cranelift's intermediate code.
    pub fn clif(&self) -> usize {
        self.function.dfg.num_insts()
    }
}

/// The line that begins so, with the lines below it that are indented.
fn section(text: &str, begins: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.starts_with(begins));
    let mut section = String::new();
    if let Some(first) = lines.next() {
        section.push_str(first);
        section.push('\n');
    }
    for line in lines.take_while(|line| line.starts_with(' ')) {
        section.push_str(line);
        section.push('\n');
    }
    section
}
