//! From words to Cranelift's intermediate code: one function for all regions of a code.
//!
//! The function starts with a dispatch over its entries, which computed jumps share: entering from outside and jumping
//! are the same. Within a region the stack is addressed from its height at the root, so that pushing and popping moves
//! nothing. What ends the frame goes through shared cold exits without any state: nobody looks at it again.

use std::collections::HashMap;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block as ClifBlock, BlockArg, BlockCall, Function, InstBuilder as _, JumpTableData,
    MemFlagsData, SigRef, Signature, SourceLoc, Value as ClifValue, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};

use crate::abi::{DONE, Halted, INTERPRETED, LEAVE, offset};
use crate::ir::{
    self, Binary, Block, Def, Edge, Region, Statement, Target, Terminator, Unary, Write,
};
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

/// Fills `function` with the code's translation. `code_len` bounds computed jumps; `stress` makes guards fail.
pub fn lower(
    isa: &dyn TargetIsa,
    function: &mut Function,
    context: &mut FunctionBuilderContext,
    code: &ir::Function,
    code_len: usize,
    stress: bool,
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
        stress,
        region: &Region::default(),
        blocks: HashMap::new(),
        inherited: HashMap::new(),
        words: Vec::new(),
        base: sp,
        gas,
    };
    lowering.exits();
    lowering.dispatch(&gates, &entries, code_len);
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
            for statement in &block.statements {
                self.statement(statement);
            }
            self.terminator(&block.terminator);
        }
    }

    /// Whether the stack is too low or too high for the region, `sp` being at this height of it.
    fn bad_stack(&mut self, sp: ClifValue, height: i32) -> Option<ClifValue> {
        let (needs, grows) = (
            i64::from(self.region.needs + height),
            i64::from(self.region.grows - height),
        );
        if needs <= 0 && grows <= 0 {
            return None;
        }
        let stack = self.field(offset::STACK);
        let depth = self.builder.ins().isub(sp, stack);
        // From `needs` to 1024 - `grows` words: one comparison.
        let least = needs.max(0) * 32;
        let room = (1024 - grows.max(0)) * 32 - least;
        if room < 0 {
            return Some(self.number(1));
        }
        let above = match least {
            0 => depth,
            least => self.builder.ins().iadd_imm_s(depth, -least),
        };
        Some(
            self.builder
                .ins()
                .icmp_imm_u(IntCC::UnsignedGreaterThan, above, room),
        )
    }

    /// The frame's counter reaches zero.
    fn stressed(&mut self) -> ClifValue {
        let left = self.field(offset::STRESS);
        let left = self.builder.ins().iadd_imm_s(left, -1);
        self.set_field(left, offset::STRESS);
        self.builder.ins().icmp_imm_s(IntCC::Equal, left, 0)
    }

    fn either(&mut self, one: Option<ClifValue>, other: Option<ClifValue>) -> Option<ClifValue> {
        match (one, other) {
            (Some(one), Some(other)) => {
                let wide = |lowering: &mut Self, value| {
                    if lowering.builder.func.dfg.value_type(value) == types::I64 {
                        value
                    } else {
                        lowering.builder.ins().uextend(types::I64, value)
                    }
                };
                let (one, other) = (wide(self, one), wide(self, other));
                Some(self.builder.ins().bor(one, other))
            }
            (one, other) => one.or(other),
        }
    }

    fn root_entry(&mut self, index: usize, block: &Block) {
        let entry = self.entry[&index];
        self.builder.switch_to_block(entry);
        let params = self.builder.block_params(entry).to_vec();
        let (sp, gas) = (params[0], params[1]);
        let mut bad = self.bad_stack(sp, 0);
        if self.stress {
            let stressed = self.stressed();
            bad = self.either(bad, Some(stressed));
        }
        let inside = self.blocks[&index];
        let args = [sp, gas].map(BlockArg::from);
        self.enter(bad, block.pc, &args, inside, &args);
    }

    fn enter(
        &mut self,
        bad: Option<ClifValue>,
        pc: usize,
        state: &[BlockArg; 2],
        inside: ClifBlock,
        args: &[BlockArg],
    ) {
        let Some(bad) = bad else {
            self.builder.ins().jump(inside, args);
            return;
        };
        let pc = self.number(pc as u64);
        let out = [BlockArg::from(pc), state[0], state[1]];
        self.builder
            .ins()
            .brif(bad, self.shared.leave, &out, inside, args);
    }

    /// From outside into a loop: reads what the header takes, and checks what it takes for granted.
    fn loop_entry(&mut self, index: usize, block: &Block, way: &ir::Entry) {
        let entry = self.entry[&index];
        self.builder.switch_to_block(entry);
        let params = self.builder.block_params(entry).to_vec();
        let (sp, gas) = (params[0], params[1]);
        self.base = sp;
        self.base = self.at(-block.height);
        let mut bad = self.bad_stack(sp, block.height);
        if self.stress {
            let stressed = self.stressed();
            bad = self.either(bad, Some(stressed));
        }
        if way.memory > 0 {
            let size = self.field(offset::MEMORY_LEN);
            let small =
                self.builder
                    .ins()
                    .icmp_imm_u(IntCC::UnsignedLessThan, size, way.memory as i64);
            bad = self.either(bad, Some(small));
        }
        let base = self.base;
        for (slot, value) in &way.consts {
            let held = self.words().load(base, slot * 32, 256);
            let known = self.word(*value);
            let difference = self.words().xor(held, known);
            let difference = self.words().any(difference);
            bad = self.either(bad, Some(difference));
        }
        let mut args = Vec::new();
        for (slot, param) in &way.params {
            let word = self.words().load(base, slot * 32, 256);
            let count = limbs_for(self.region.bits(*param));
            if count == 1 {
                let above = self.words().above(word);
                bad = self.either(bad, above);
            }
            self.push_args(word, count, &mut args);
        }
        args.extend([BlockArg::from(base), BlockArg::from(gas)]);
        let inside = self.blocks[&index];
        let state = [sp, gas].map(BlockArg::from);
        self.enter(bad, block.pc, &state, inside, &args);
    }

    fn push_args(&mut self, word: Word, count: usize, args: &mut Vec<BlockArg>) {
        for limb in word.0.into_iter().take(count) {
            args.push(BlockArg::from(self.words().value(limb)));
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Let(value) => self.define(*value),
            Statement::Gas(gas) => {
                let short =
                    self.builder
                        .ins()
                        .icmp_imm_u(IntCC::UnsignedLessThan, self.gas, *gas as i64);
                let enough = self.builder.create_block();
                self.builder
                    .ins()
                    .brif(short, self.shared.out_of_gas, &[], enough, &[]);
                self.builder.switch_to_block(enough);
                self.gas = self.builder.ins().iadd_imm_s(self.gas, -(*gas as i64));
            }
            Statement::Write(write) => self.write(write),
            Statement::Memory { offset, length } => self.check_memory(*offset, *length),
            Statement::MStore(offset, word) => {
                let (address, at) = self.address(*offset);
                let word = self.word(*word);
                self.words().store_bytes(word, address, at);
            }
            Statement::MStore8(offset, word) => {
                let (address, at) = self.address(*offset);
                let word = self.word(*word);
                let byte = self.words().low(word);
                self.builder
                    .ins()
                    .istore8(MemFlagsData::trusted(), byte, address, at);
            }
            Statement::Pure { pure, slot } => {
                let place = self.at(*slot);
                let function = self.field(offset::pure(*pure));
                self.builder
                    .ins()
                    .call_indirect(self.shared.compute, function, &[place]);
            }
            Statement::Env { env, slot } => {
                let which = self.number(*env as u64);
                self.call_write(offset::ENVIRONMENT, *slot, which);
            }
            Statement::CallData { offset, slot } => {
                let word = self.word(*offset);
                let at = self.words().saturated(word);
                self.call_write(offset::CALLDATA, *slot, at);
            }
            Statement::Call {
                helper,
                pc,
                height,
                ends,
            } => {
                let sp = self.at(*height);
                let pc = self.number(*pc as u64);
                let function = self.field(offset::execute(*helper));
                let args = [self.frame, sp, self.gas, pc];
                if *ends {
                    self.builder
                        .ins()
                        .call_indirect(self.shared.execute, function, &args);
                    self.builder.ins().jump(self.shared.done, &[]);
                } else {
                    let next = self.builder.create_block();
                    self.execute(function, &args, next, false);
                }
            }
        }
    }

    /// Calls what may end the frame, and goes on in `next` with the gas that is left, as its parameter if it has one.
    fn execute(&mut self, function: ClifValue, args: &[ClifValue], next: ClifBlock, passes: bool) {
        let call = self
            .builder
            .ins()
            .call_indirect(self.shared.execute, function, args);
        let left = self.builder.inst_results(call)[0];
        let ended = self
            .builder
            .ins()
            .icmp_imm_s(IntCC::SignedLessThan, left, 0);
        let passed = [BlockArg::from(left)];
        let passed = if passes { &passed[..] } else { &[] };
        self.builder
            .ins()
            .brif(ended, self.shared.done, &[], next, passed);
        if !passes {
            self.builder.switch_to_block(next);
            self.gas = left;
        }
    }

    fn call_write(&mut self, offset: i32, slot: i32, argument: ClifValue) {
        let place = self.at(slot);
        let function = self.field(offset);
        let args = [self.frame, place, argument];
        self.builder
            .ins()
            .call_indirect(self.shared.write, function, &args);
    }

    fn write(&mut self, write: &Write) {
        let base = self.base;
        match write.copy {
            Some(from) => self.words().copy(base, from * 32, write.slot * 32),
            None => {
                let word = self.word(write.value);
                self.words().store(word, base, write.slot * 32);
            }
        }
    }

    fn check_memory(&mut self, at: ir::Value, length: u64) {
        let word = self.word(at);
        // An offset beyond 64 bits is passed on as the largest: nothing can hold it.
        let first = self.words().saturated(word);
        let limit = if length == 1 {
            offset::MEMORY_LEN
        } else {
            offset::MEMORY_WORDS
        };
        let limit = self.field(limit);
        let inside = self
            .builder
            .ins()
            .icmp(IntCC::UnsignedLessThan, first, limit);
        let (grow, next) = (self.cold(), self.builder.create_block());
        self.builder.append_block_param(next, types::I64);
        let passed = [BlockArg::from(self.gas)];
        self.builder.ins().brif(inside, next, &passed, grow, &[]);
        self.builder.switch_to_block(grow);
        let length = self.number(length);
        let function = self.field(offset::EXPAND);
        let args = [self.frame, first, length, self.gas];
        self.execute(function, &args, next, true);
        self.builder.switch_to_block(next);
        self.gas = self.builder.block_params(next)[0];
    }

    /// The address of a place in memory that was checked, with a constant to add.
    fn address(&mut self, at: ir::Value) -> (ClifValue, i32) {
        let memory = self.field(offset::MEMORY);
        if let Some(known) = self.region.constant(at)
            && let Ok(known) = i32::try_from(known)
        {
            return (memory, known);
        }
        let word = self.word(at);
        let low = self.words().low(word);
        (self.builder.ins().iadd(memory, low), 0)
    }

    fn leave(&mut self, pc: usize, height: i32) {
        let (pc, sp) = (self.number(pc as u64), self.at(height));
        let args = [pc, sp, self.gas].map(BlockArg::from);
        self.builder.ins().jump(self.shared.leave, &args);
    }

    /// Where an edge goes, once its writes are done, with what is passed.
    fn target(&mut self, edge: &Edge) -> (ClifBlock, Vec<BlockArg>) {
        match edge.target {
            Target::InvalidJump => (self.shared.invalid_jump, Vec::new()),
            Target::Leave(pc) => {
                let (pc, sp) = (self.number(pc as u64), self.at(edge.height));
                let args = [pc, sp, self.gas].map(BlockArg::from);
                (self.shared.leave, args.to_vec())
            }
            Target::Root(block) => {
                let sp = self.at(edge.height);
                let args = [sp, self.gas].map(BlockArg::from);
                (self.entry[&block], args.to_vec())
            }
            Target::Block(block) => {
                let made = self.blocks[&block];
                let region = self.region;
                let found = region.blocks.iter().find(|(index, _)| *index == block);
                let Some((_, into)) = found else {
                    unreachable!("an edge within a region goes to one of its blocks");
                };
                if into.entry.is_none() && into.arrivals == 1 {
                    self.inherited.insert(block, (self.base, self.gas));
                    return (made, Vec::new());
                }
                let mut args = Vec::new();
                for (arg, param) in edge.args.iter().zip(&into.params) {
                    let word = self.word(*arg);
                    let count = limbs_for(region.bits(*param));
                    self.push_args(word, count, &mut args);
                }
                args.extend([self.base, self.gas].map(BlockArg::from));
                (made, args)
            }
        }
    }

    /// Goes an edge's way from here.
    fn follow(&mut self, edge: &Edge) {
        let mut bad = None;
        for guard in &edge.guards {
            let word = self.word(*guard);
            let above = self.words().above(word);
            bad = self.either(bad, above);
        }
        if self.stress && !edge.escape.is_empty() {
            let stressed = self.stressed();
            bad = self.either(bad, Some(stressed));
        }
        if let (Some(bad), Target::Block(block)) = (bad, edge.target) {
            let (escape, next) = (self.cold(), self.builder.create_block());
            self.builder.ins().brif(bad, escape, &[], next, &[]);
            self.builder.switch_to_block(escape);
            for write in &edge.escape {
                self.write(write);
            }
            let region = self.region;
            let pc = region
                .blocks
                .iter()
                .find(|(index, _)| *index == block)
                .map_or(0, |(_, block)| block.pc);
            self.leave(pc, edge.height);
            self.builder.switch_to_block(next);
        }
        for write in &edge.writes {
            self.write(write);
        }
        let (block, args) = self.target(edge);
        self.builder.ins().jump(block, &args);
    }

    /// Where a branch goes for an edge: to its target, or to a block that does what the edge needs first.
    fn branch(&mut self, edge: &Edge) -> (ClifBlock, Vec<BlockArg>, bool) {
        if edge.writes.is_empty() && edge.guards.is_empty() && edge.escape.is_empty() {
            let (block, args) = self.target(edge);
            return (block, args, false);
        }
        (self.builder.create_block(), Vec::new(), true)
    }

    fn fork(&mut self, condition: ir::Value, then: &Edge, otherwise: &Edge) {
        let condition = self.condition(condition);
        let (a, a_args, a_more) = self.branch(then);
        let (b, b_args, b_more) = self.branch(otherwise);
        self.builder.ins().brif(condition, a, &a_args, b, &b_args);
        for (block, edge, more) in [(a, then, a_more), (b, otherwise, b_more)] {
            if more {
                self.builder.switch_to_block(block);
                self.follow(edge);
            }
        }
    }

    fn terminator(&mut self, terminator: &Terminator) {
        match terminator {
            // The last statement has jumped there.
            Terminator::End => {}
            Terminator::Goto(edge) => self.follow(edge),
            Terminator::If {
                condition,
                then,
                otherwise,
            } => self.fork(*condition, then, otherwise),
            Terminator::Jump {
                target,
                condition,
                writes,
                height,
            } => {
                if let Some((condition, edge)) = condition {
                    let condition = self.condition(*condition);
                    let taken = self.builder.create_block();
                    let (block, args, more) = self.branch(edge);
                    self.builder.ins().brif(condition, taken, &[], block, &args);
                    if more {
                        self.builder.switch_to_block(block);
                        self.follow(edge);
                    }
                    self.builder.switch_to_block(taken);
                }
                for write in writes {
                    self.write(write);
                }
                let word = self.word(*target);
                let target = self.words().saturated(word);
                let sp = self.at(*height);
                let args = [target, sp, self.gas].map(BlockArg::from);
                self.builder.ins().jump(self.shared.jump, &args);
            }
        }
    }

    // Words.

    fn set(&mut self, value: ir::Value, computed: Computed) {
        self.words[value.0 as usize] = Some(computed);
    }

    /// Not zero if the word is.
    fn condition(&mut self, value: ir::Value) -> ClifValue {
        if let Some(Computed::Flag(flag)) = self.words[value.0 as usize] {
            return flag;
        }
        let word = self.word(value);
        self.words().any(word)
    }

    fn word(&mut self, value: ir::Value) -> Word {
        match (self.words[value.0 as usize], self.region.definition(value)) {
            (Some(Computed::Word(word)), _) => word,
            (Some(Computed::Flag(flag)), _) => self.words().flag(flag),
            (None, Def::Const(word)) => Word::known(word),
            (None, Def::Narrow(of)) => self.word(of).narrow(self.region.bits(value)),
            (None, _) => unreachable!("words are defined before they are used"),
        }
    }

    fn define(&mut self, value: ir::Value) {
        let bits = self.region.bits(value);
        let word = match self.region.definition(value) {
            Def::Const(_) | Def::Narrow(_) | Def::Param => return,
            Def::Slot(slot) => {
                let base = self.base;
                self.words().load(base, slot * 32, bits)
            }
            Def::Gas => Word::small(self.gas),
            Def::Field(field) => Word::small(self.field(offset::field(field))),
            Def::MLoad(offset) => {
                let (address, at) = self.address(offset);
                self.words().load_bytes(address, at)
            }
            Def::Unary(Unary::Not, x) => {
                let x = self.word(x);
                self.words().not(x)
            }
            Def::Unary(Unary::IsZero, x) => {
                let flag = match self.words[x.0 as usize] {
                    Some(Computed::Flag(flag)) => {
                        self.builder.ins().icmp_imm_s(IntCC::Equal, flag, 0)
                    }
                    _ => {
                        let x = self.word(x);
                        self.words().is_zero(x)
                    }
                };
                return self.set(value, Computed::Flag(flag));
            }
            Def::Binary(binary, x, y) => match self.binary(binary, x, y, bits) {
                Computed::Word(word) => word,
                flag @ Computed::Flag(_) => return self.set(value, flag),
            },
        };
        self.set(value, Computed::Word(word.narrow(bits)));
    }

    fn binary(&mut self, binary: Binary, x: ir::Value, y: ir::Value, bits: usize) -> Computed {
        let by = self
            .region
            .constant(x)
            .map_or(0, |by| by.saturating_to::<usize>());
        let (a, b) = (self.word(x), self.word(y));
        let narrow = a.limbs().max(b.limbs()) == 1;
        let mut words = self.words();
        Computed::Word(match binary {
            Binary::Add if narrow && bits > 64 => {
                let (sum, carry) = words.add_small(a, b);
                let carry = words.flag(carry);
                Word([sum.0[0], carry.0[0], Limb::Known(0), Limb::Known(0)])
            }
            Binary::Add => words.add(a, b, bits),
            Binary::Sub if narrow => {
                let (difference, borrow) = words.sub_small(a, b);
                // All bits above are the borrow.
                let above = words.all_ones_if(borrow);
                Word([difference.0[0], above, above, above])
            }
            Binary::Sub => words.sub(a, b),
            Binary::Mul => words.mul(a, b, bits),
            Binary::And => words.and(a, b),
            Binary::Or => words.or(a, b),
            Binary::Xor => words.xor(a, b),
            Binary::Shl => words.shift_left(b, by, bits),
            Binary::Shr => words.shift_right(b, by, false),
            Binary::Sar => words.shift_right(b, by, true),
            Binary::Byte => words.byte(b, by),
            Binary::SignExtend => words.sign_extend(b, by),
            Binary::Div64 => words.divide_small(a, b, false),
            Binary::Mod64 => words.divide_small(a, b, true),
            Binary::Eq => return Computed::Flag(words.equal(a, b)),
            Binary::Lt => return Computed::Flag(words.less(a, b, false)),
            Binary::Gt => return Computed::Flag(words.less(b, a, false)),
            Binary::SLt => return Computed::Flag(words.less(a, b, true)),
            Binary::SGt => return Computed::Flag(words.less(b, a, true)),
        })
    }
}
