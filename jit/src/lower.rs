//! From words to Cranelift's intermediate code: one function for all regions of a code.
//!
//! The function starts with a dispatch over its entries, which computed jumps share: entering from outside and jumping
//! are the same. Within a region the stack is addressed from its height at the root, so that pushing and popping moves
//! nothing. What ends the frame goes through shared cold exits without any state: nobody looks at it again.

mod statements;
mod ways;

use std::collections::HashMap;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block as ClifBlock, BlockArg, BlockCall, Function, InstBuilder as _, JumpTableData,
    MemFlagsData, SigRef, Signature, SourceLoc, Value as ClifValue, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use crate::abi::{DONE, Halted, INTERPRETED, LEAVE, offset};
use crate::code::{BasicBlock, Blocks, End};
use crate::ir::{self, Region};
use crate::unit::SHARED;
use crate::words::{Limb, Word, Words, limbs_for};

/// The signature of native code; see [`crate::abi`].
pub fn signature(call_conv: CallConv) -> Signature {
    signature_of(call_conv, 4, 1)
}

fn signature_of(call_conv: CallConv, params: usize, returns: usize) -> Signature {
    let mut signature = Signature::new(call_conv);
    let word = || AbiParam::new(types::I64);
    signature
        .params
        .extend(std::iter::repeat_with(word).take(params));
    signature
        .returns
        .extend(std::iter::repeat_with(word).take(returns));
    signature
}

/// The blocks of a function that may be entered from outside, in order of their index there.
pub fn entries(code: &ir::Function) -> Vec<usize> {
    let mut entries = Vec::new();
    for region in &code.regions {
        for (position, (index, block)) in region.blocks.iter().enumerate() {
            if position == 0 || block.entry.is_some() {
                entries.push(*index);
            }
        }
    }
    entries
}

/// How to lower.
#[derive(Debug, Clone, Copy)]
pub struct Options<'b> {
    /// Bounds computed jumps.
    pub code_len: usize,
    /// Makes guards fail.
    pub stress: bool,
    /// The code's blocks, whose instructions are counted when they are entered.
    pub counted: Option<&'b Blocks>,
}

/// Fills `function` with the code's translation.
pub fn lower(
    isa: &dyn TargetIsa,
    function: &mut Function,
    context: &mut FunctionBuilderContext,
    code: &ir::Function,
    options: Options<'_>,
) {
    let conv = isa.default_call_conv();
    function.signature = signature(conv);
    let mut builder = FunctionBuilder::new(function, context);
    let start = builder.create_block();
    builder.append_block_params_for_function_params(start);
    builder.switch_to_block(start);
    // A profile names each instruction by its block, and what all blocks share by this.
    builder.set_srcloc(SourceLoc::new(SHARED));
    let params = builder.block_params(start).to_vec();
    let block = |builder: &mut FunctionBuilder<'_>, params: usize, cold: bool| {
        let block = builder.create_block();
        for _ in 0..params {
            builder.append_block_param(block, types::I64);
        }
        if cold {
            builder.set_cold_block(block);
        }
        block
    };
    let shared = Shared {
        dispatch: block(&mut builder, 4, false),
        jump: block(&mut builder, 3, false),
        leave: block(&mut builder, 3, true),
        done: block(&mut builder, 0, true),
        out_of_gas: block(&mut builder, 0, true),
        invalid_jump: block(&mut builder, 0, true),
        execute: builder.import_signature(signature_of(conv, 4, 1)),
        halt: builder.import_signature(signature_of(conv, 2, 0)),
        write: builder.import_signature(signature_of(conv, 3, 0)),
        compute: builder.import_signature(signature_of(conv, 1, 0)),
    };
    let names = entries(code);
    let mut made = |params: usize| -> Vec<ClifBlock> {
        names
            .iter()
            .map(|_| block(&mut builder, params, false))
            .collect()
    };
    let (gates, entries) = (made(0), made(2));
    let (frame, sp, gas, index) = (params[0], params[1], params[2], params[3]);
    let args = [index, index, sp, gas].map(BlockArg::from);
    builder.ins().jump(shared.dispatch, &args);
    let mut lowering = Lowering {
        builder,
        frame,
        shared,
        entry: names.into_iter().zip(entries.iter().copied()).collect(),
        stress: options.stress,
        counted: options.counted,
        region: &Region::default(),
        blocks: HashMap::new(),
        inherited: HashMap::new(),
        words: Vec::new(),
        base: sp,
        gas,
    };
    lowering.exits();
    lowering.dispatch(&gates, &entries, options.code_len);
    for region in &code.regions {
        lowering.region(region);
    }
    lowering.builder.seal_all_blocks();
    lowering.builder.finalize(isa.frontend_config());
}

/// What all regions share.
struct Shared {
    /// Index of the entry, target pc, stack pointer, gas.
    dispatch: ClifBlock,
    /// Target pc, stack pointer, gas.
    jump: ClifBlock,
    /// Pc, stack pointer, gas.
    leave: ClifBlock,
    done: ClifBlock,
    out_of_gas: ClifBlock,
    invalid_jump: ClifBlock,
    execute: SigRef,
    halt: SigRef,
    write: SigRef,
    compute: SigRef,
}

/// A word as it was computed.
#[derive(Clone, Copy)]
enum Computed {
    Word(Word),
    /// Of a comparison.
    Flag(ClifValue),
}

struct Lowering<'a> {
    builder: FunctionBuilder<'a>,
    frame: ClifValue,
    shared: Shared,
    /// Per block that may be entered: stack pointer and gas.
    entry: HashMap<usize, ClifBlock>,
    stress: bool,
    counted: Option<&'a Blocks>,
    region: &'a Region,
    /// Blocks of the region.
    blocks: HashMap<usize, ClifBlock>,
    /// Base and gas with which control comes to a block with one way in.
    inherited: HashMap<usize, (ClifValue, ClifValue)>,
    words: Vec<Option<Computed>>,
    /// The address of slot 0.
    base: ClifValue,
    gas: ClifValue,
}

impl<'a> Lowering<'a> {
    fn words(&mut self) -> Words<'_, 'a> {
        Words {
            builder: &mut self.builder,
        }
    }

    fn number(&mut self, number: u64) -> ClifValue {
        self.builder.ins().iconst(types::I64, number as i64)
    }

    fn field(&mut self, offset: i32) -> ClifValue {
        self.builder
            .ins()
            .load(types::I64, MemFlagsData::trusted(), self.frame, offset)
    }

    fn set_field(&mut self, value: ClifValue, offset: i32) {
        self.builder
            .ins()
            .store(MemFlagsData::trusted(), value, self.frame, offset);
    }

    /// The address of a slot.
    fn at(&mut self, slot: i32) -> ClifValue {
        match slot {
            0 => self.base,
            slot => self
                .builder
                .ins()
                .iadd_imm_s(self.base, i64::from(slot) * 32),
        }
    }

    /// Counts the instructions of a block, in code compiled so.
    fn count(&mut self, block: &BasicBlock) {
        // The instruction that ends the frame is none of the block's.
        let halt = usize::from(matches!(block.end, End::Halt(_)));
        let all = block.instructions.len() + halt;
        let sum = self.field(offset::EXECUTED);
        let sum = self.builder.ins().iadd_imm_s(sum, all as i64);
        self.set_field(sum, offset::EXECUTED);
    }

    /// Counts an instruction executed by a call back, in code compiled so.
    fn count_call(&mut self) {
        if self.counted.is_some() {
            let sum = self.field(offset::CALLED);
            let sum = self.builder.ins().iadd_imm_s(sum, 1);
            self.set_field(sum, offset::CALLED);
        }
    }

    fn cold(&mut self) -> ClifBlock {
        let block = self.builder.create_block();
        self.builder.set_cold_block(block);
        block
    }

    fn exits(&mut self) {
        self.builder.switch_to_block(self.shared.leave);
        let params = self.builder.block_params(self.shared.leave).to_vec();
        for (value, offset) in params
            .into_iter()
            .zip([offset::PC, offset::SP, offset::GAS])
        {
            self.set_field(value, offset);
        }
        let leave = self.number(LEAVE as u64);
        self.builder.ins().return_(&[leave]);

        for (block, reason) in [
            (self.shared.out_of_gas, Halted::OutOfGas),
            (self.shared.invalid_jump, Halted::InvalidJump),
        ] {
            self.builder.switch_to_block(block);
            let reason = self.number(reason as u64);
            let function = self.field(offset::HALT);
            self.builder
                .ins()
                .call_indirect(self.shared.halt, function, &[self.frame, reason]);
            self.builder.ins().jump(self.shared.done, &[]);
        }

        self.builder.switch_to_block(self.shared.done);
        let done = self.number(DONE as u64);
        self.builder.ins().return_(&[done]);
    }

    /// Computed jumps and the way in. Stack pointer and gas go to the entries through the frame: passed as arguments
    /// they would be moved for every entry there is before the one is chosen.
    fn dispatch(&mut self, gates: &[ClifBlock], entries: &[ClifBlock], code_len: usize) {
        self.builder.switch_to_block(self.shared.jump);
        let params = self.builder.block_params(self.shared.jump).to_vec();
        let (target, sp, gas) = (params[0], params[1], params[2]);
        let inside = self.builder.create_block();
        let short = self
            .builder
            .ins()
            .icmp_imm_u(IntCC::UnsignedLessThan, target, code_len as i64);
        self.builder
            .ins()
            .brif(short, inside, &[], self.shared.invalid_jump, &[]);
        self.builder.switch_to_block(inside);
        let table = self.field(offset::ENTRIES);
        let place = self.builder.ins().ishl_imm_u(target, 1);
        let place = self.builder.ins().iadd(table, place);
        let found = self
            .builder
            .ins()
            .uload16(types::I64, MemFlagsData::trusted(), place, 0);
        let index = self.builder.ins().iadd_imm_s(found, -1);
        let args = [index, target, sp, gas].map(BlockArg::from);
        self.builder.ins().jump(self.shared.dispatch, &args);

        self.builder.switch_to_block(self.shared.dispatch);
        let params = self.builder.block_params(self.shared.dispatch).to_vec();
        let (index, target, sp, gas) = (params[0], params[1], params[2], params[3]);
        let outside = self.cold();
        self.set_field(sp, offset::SP);
        self.set_field(gas, offset::GAS);
        let short = self.builder.ins().ireduce(types::I32, index);
        let pool = &mut self.builder.func.dfg.value_lists;
        // Each its own: a call's list of arguments must not be shared with another's.
        let calls: Vec<_> = gates
            .iter()
            .map(|gate| BlockCall::new(*gate, [], pool))
            .collect();
        let table = JumpTableData::new(BlockCall::new(outside, [], pool), &calls);
        let table = self.builder.create_jump_table(table);
        self.builder.ins().br_table(short, table);

        self.builder.switch_to_block(outside);
        let known = self
            .builder
            .ins()
            .icmp_imm_s(IntCC::Equal, index, i64::from(INTERPRETED) - 1);
        let args = [target, sp, gas].map(BlockArg::from);
        self.builder.ins().brif(
            known,
            self.shared.leave,
            &args,
            self.shared.invalid_jump,
            &[],
        );

        for (gate, entry) in gates.iter().zip(entries) {
            self.builder.switch_to_block(*gate);
            let args = [offset::SP, offset::GAS].map(|at| BlockArg::from(self.field(at)));
            self.builder.ins().jump(*entry, &args);
        }
    }

    fn region(&mut self, region: &'a Region) {
        self.region = region;
        self.words.clear();
        self.words.resize(region.definitions.len(), None);
        self.blocks.clear();
        self.inherited.clear();
        for (index, block) in &region.blocks {
            let made = self.builder.create_block();
            if block.entry.is_some() || block.arrivals != 1 {
                for param in &block.params {
                    for _ in 0..limbs_for(region.bits(*param)) {
                        self.builder.append_block_param(made, types::I64);
                    }
                }
                self.builder.append_block_param(made, types::I64);
                self.builder.append_block_param(made, types::I64);
            }
            self.blocks.insert(*index, made);
        }
        for (position, (index, block)) in region.blocks.iter().enumerate() {
            self.builder.set_srcloc(SourceLoc::new(block.pc as u32));
            let made = self.blocks[index];
            if let Some(entry) = &block.entry {
                self.loop_entry(*index, block, entry);
            } else if position == 0 {
                self.root_entry(*index, block);
            }
            self.builder.switch_to_block(made);
            let mut values = self.builder.block_params(made).to_vec().into_iter();
            for param in &block.params {
                let mut limbs = [Limb::Known(0); 4];
                let count = limbs_for(region.bits(*param));
                for (limb, value) in limbs.iter_mut().zip(values.by_ref().take(count)) {
                    *limb = Limb::Value(value);
                }
                self.set(*param, Computed::Word(Word(limbs)));
            }
            if let (Some(base), Some(gas)) = (values.next(), values.next()) {
                (self.base, self.gas) = (base, gas);
            } else if let Some(inherited) = self.inherited.get(index) {
                (self.base, self.gas) = *inherited;
            }
            if let Some(blocks) = self.counted {
                self.count(&blocks.blocks[*index]);
            }
            for statement in &block.statements {
                self.statement(statement);
            }
            self.terminator(&block.terminator);
        }
    }
}
