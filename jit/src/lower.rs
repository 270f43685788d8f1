//! From words to Cranelift's intermediate code: one function for all blocks of a code.
//!
//! The function starts with a dispatch over its blocks, which computed jumps share: entering a block from outside and
//! jumping to it are the same. Stack pointer and gas are variables, so they stay in registers; everything that leaves
//! goes through one cold exit.

use std::collections::HashMap;

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, Block as ClifBlock, BlockArg, BlockCall, Function, InstBuilder as _, JumpTableData,
    MemFlagsData, SigRef, Signature, SourceLoc, Value as ClifValue, types,
};
use cranelift_codegen::isa::{CallConv, TargetIsa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext, Variable};

use crate::abi::{DONE, LEAVE, offset};
use crate::ir::{self, Binary, Def, Resume, Statement, Terminator, Unary};
use crate::unit::SHARED;
use crate::words::{Word, Words};

/// The signature of native code; see [`crate::abi`].
pub fn signature(call_conv: CallConv) -> Signature {
    let mut signature = Signature::new(call_conv);
    signature.params.extend([types::I64; 4].map(AbiParam::new));
    signature.returns.push(AbiParam::new(types::I64));
    signature
}

/// Fills `function` with the code's translation. `code_len` bounds computed jumps.
pub fn lower(
    isa: &dyn TargetIsa,
    function: &mut Function,
    context: &mut FunctionBuilderContext,
    code: &ir::Function,
    code_len: usize,
) {
    function.signature = signature(isa.default_call_conv());
    let mut builder = FunctionBuilder::new(function, context);
    let start = builder.create_block();
    builder.append_block_params_for_function_params(start);
    let blocks: Vec<ClifBlock> = code.blocks.iter().map(|_| builder.create_block()).collect();
    let [dispatch, jump, exit, done] = [(); 4].map(|()| builder.create_block());
    builder.append_block_param(dispatch, types::I64);
    for _ in 0..5 {
        builder.append_block_param(jump, types::I64);
    }
    builder.append_block_param(exit, types::I64);
    builder.set_cold_block(exit);
    builder.set_cold_block(done);
    let (sp, gas) = (
        builder.declare_var(types::I64),
        builder.declare_var(types::I64),
    );
    builder.switch_to_block(start);
    let params = builder.block_params(start).to_vec();
    builder.def_var(sp, params[1]);
    builder.def_var(gas, params[2]);
    builder.ins().jump(dispatch, &[BlockArg::from(params[3])]);
    let conv = isa.default_call_conv();
    let call = |params: usize, returns: usize| {
        let mut signature = Signature::new(conv);
        signature
            .params
            .extend(std::iter::repeat_n(AbiParam::new(types::I64), params));
        signature
            .returns
            .extend(std::iter::repeat_n(AbiParam::new(types::I64), returns));
        signature
    };
    let signatures =
        [call(1, 1), call(3, 1), call(1, 0)].map(|signature| builder.import_signature(signature));
    let mut lowering = Lowering {
        builder,
        code,
        frame: params[0],
        sp,
        gas,
        blocks,
        jump,
        exit,
        done,
        step: signatures[0],
        expand: signatures[1],
        pure: signatures[2],
        words: HashMap::new(),
        flags: HashMap::new(),
        top: params[1],
    };
    lowering.shared(dispatch, code_len);
    for index in 0..code.blocks.len() {
        lowering.block(index);
    }
    lowering.builder.seal_all_blocks();
    lowering.builder.finalize(isa.frontend_config());
}

struct Lowering<'a> {
    builder: FunctionBuilder<'a>,
    code: &'a ir::Function,
    frame: ClifValue,
    sp: Variable,
    gas: Variable,
    blocks: Vec<ClifBlock>,
    jump: ClifBlock,
    exit: ClifBlock,
    done: ClifBlock,
    step: SigRef,
    expand: SigRef,
    pure: SigRef,
    /// Words computed in the current block.
    words: HashMap<ir::Value, Word>,
    /// Comparisons among them, before they became words.
    flags: HashMap<ir::Value, ClifValue>,
    /// Stack pointer at the start of the current block.
    top: ClifValue,
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

    fn load(&mut self, offset: i32) -> ClifValue {
        self.builder
            .ins()
            .load(types::I64, MemFlagsData::trusted(), self.frame, offset)
    }

    fn save(&mut self, value: ClifValue, offset: i32) {
        self.builder
            .ins()
            .store(MemFlagsData::trusted(), value, self.frame, offset);
    }

    /// The address just above the stack at this height.
    fn at(&mut self, height: i32) -> ClifValue {
        self.builder
            .ins()
            .iadd_imm_s(self.top, i64::from(height) * 32)
    }

    /// The blocks that all others share: dispatch, computed jump, the two exits.
    fn shared(&mut self, dispatch: ClifBlock, code_len: usize) {
        self.builder.switch_to_block(dispatch);
        self.builder.set_srcloc(SourceLoc::new(SHARED));
        let index = self.builder.block_params(dispatch)[0];
        let index = self.builder.ins().ireduce(types::I32, index);
        let pool = &mut self.builder.func.dfg.value_lists;
        // Each its own: a call's list of arguments must not be shared with another's.
        let calls: Vec<_> = self
            .blocks
            .iter()
            .map(|block| BlockCall::new(*block, [], pool))
            .collect();
        // The engine enters by an index that it has from us: the default is never taken.
        let table = JumpTableData::new(BlockCall::new(self.blocks[0], [], pool), &calls);
        let table = self.builder.create_jump_table(table);
        self.builder.ins().br_table(index, table);

        // Parameters: low limb of the target, its other limbs in one, pc of the jump, stack pointer behind the jump, gas of the jump.
        self.builder.switch_to_block(self.jump);
        // The jump's own gas is the last: where no jump may go the interpreter executes it and takes its gas again.
        let [target, above, pc, behind, taken] =
            [0, 1, 2, 3, 4].map(|index| self.builder.block_params(self.jump)[index]);
        let [inside, found, outside] = [(); 3].map(|()| self.builder.create_block());
        self.builder.set_cold_block(outside);
        let short = self.builder.ins().icmp_imm_s(IntCC::Equal, above, 0);
        let low = self
            .builder
            .ins()
            .icmp_imm_u(IntCC::UnsignedLessThan, target, code_len as i64);
        let both = self.builder.ins().band(short, low);
        self.builder.ins().brif(both, inside, &[], outside, &[]);
        self.builder.switch_to_block(inside);
        let map = self.load(offset::JUMP_MAP);
        let place = self.builder.ins().ishl_imm_u(target, 2);
        let place = self.builder.ins().iadd(map, place);
        let entry = self
            .builder
            .ins()
            .uload32(MemFlagsData::trusted(), place, 0);
        self.builder.ins().brif(entry, found, &[], outside, &[]);
        self.builder.switch_to_block(outside);
        let gas = self.builder.use_var(self.gas);
        let gas = self.builder.ins().iadd(gas, taken);
        self.builder.def_var(self.gas, gas);
        self.builder.ins().jump(self.exit, &[BlockArg::from(pc)]);
        self.builder.switch_to_block(found);
        self.builder.def_var(self.sp, behind);
        let index = self.builder.ins().iadd_imm_s(entry, -1);
        self.builder.ins().jump(dispatch, &[BlockArg::from(index)]);

        self.builder.switch_to_block(self.exit);
        let pc = self.builder.block_params(self.exit)[0];
        self.save(pc, offset::PC);
        let (sp, gas) = (
            self.builder.use_var(self.sp),
            self.builder.use_var(self.gas),
        );
        self.save(sp, offset::SP);
        self.save(gas, offset::GAS);
        let leave = self.builder.ins().iconst(types::I64, LEAVE);
        self.builder.ins().return_(&[leave]);

        self.builder.switch_to_block(self.done);
        let done = self.builder.ins().iconst(types::I64, DONE);
        self.builder.ins().return_(&[done]);
    }

    fn block(&mut self, index: usize) {
        let block = &self.code.blocks[index];
        self.builder.switch_to_block(self.blocks[index]);
        // What a profile calls this code by.
        self.builder.set_srcloc(SourceLoc::new(block.pc as u32));
        self.words.clear();
        self.flags.clear();
        self.top = self.builder.use_var(self.sp);
        self.check_stack(block);
        for statement in &block.statements {
            self.statement(statement);
        }
        self.terminator(&block.terminator);
    }

    /// Enough words below, enough room above: otherwise the interpreter executes the block.
    fn check_stack(&mut self, block: &ir::Block) {
        if block.needs <= 0 && block.grows <= 0 {
            return;
        }
        let stack = self.load(offset::STACK);
        let depth = self.builder.ins().isub(self.top, stack);
        let mut bad = None;
        if block.needs > 0 {
            let needs = i64::from(block.needs) * 32;
            bad = Some(
                self.builder
                    .ins()
                    .icmp_imm_s(IntCC::SignedLessThan, depth, needs),
            );
        }
        if block.grows > 0 {
            let room = (1024 - i64::from(block.grows)) * 32;
            let full = self
                .builder
                .ins()
                .icmp_imm_s(IntCC::SignedGreaterThan, depth, room);
            bad = Some(match bad {
                Some(bad) => self.builder.ins().bor(bad, full),
                None => full,
            });
        }
        if let Some(bad) = bad {
            let pc = self.number(block.pc as u64);
            let next = self.builder.create_block();
            self.builder
                .ins()
                .brif(bad, self.exit, &[BlockArg::from(pc)], next, &[]);
            self.builder.switch_to_block(next);
        }
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::Let(value) => self.define(*value),
            Statement::Section { gas: 0, .. } => {}
            Statement::Section { gas, resume } => {
                let left = self.builder.use_var(self.gas);
                let short =
                    self.builder
                        .ins()
                        .icmp_imm_u(IntCC::UnsignedLessThan, left, *gas as i64);
                let (enough, leave) = (self.builder.create_block(), self.builder.create_block());
                self.builder.set_cold_block(leave);
                self.builder.ins().brif(short, leave, &[], enough, &[]);
                self.builder.switch_to_block(leave);
                self.leave(resume);
                self.builder.switch_to_block(enough);
                let left = self.builder.ins().iadd_imm_s(left, -(*gas as i64));
                self.builder.def_var(self.gas, left);
            }
            Statement::Memory {
                offset,
                length,
                resume,
            } => self.check_memory(*offset, *length, resume),
            Statement::MStore(offset, word) => {
                let (address, word) = (self.address(*offset), self.word(*word));
                self.words().store_bytes(word, address);
            }
            Statement::MStore8(offset, word) => {
                let (address, word) = (self.address(*offset), self.word(*word));
                let byte = self.words().limb(word, 0);
                self.builder
                    .ins()
                    .istore8(MemFlagsData::trusted(), byte, address, 0);
            }
            Statement::Flush(slots) => self.flush(slots),
            Statement::Step { pc, height, ends } => self.call_step(*pc, *height, *ends),
        }
    }

    fn flush(&mut self, slots: &[(i32, ir::Value)]) {
        for (slot, value) in slots {
            let word = self.word(*value);
            let top = self.top;
            self.words().store(word, top, slot * 32);
        }
    }

    fn leave(&mut self, resume: &Resume) {
        self.flush(&resume.dirty);
        let sp = self.at(resume.height);
        let gas = self.builder.use_var(self.gas);
        let gas = self.builder.ins().iadd_imm_s(gas, resume.gas as i64);
        self.builder.def_var(self.sp, sp);
        self.builder.def_var(self.gas, gas);
        let pc = self.number(resume.pc as u64);
        self.builder.ins().jump(self.exit, &[BlockArg::from(pc)]);
    }

    fn call_step(&mut self, pc: usize, height: i32, ends: bool) {
        let sp = self.at(height);
        self.save(sp, offset::SP);
        let gas = self.builder.use_var(self.gas);
        self.save(gas, offset::GAS);
        let pc = self.number(pc as u64);
        self.save(pc, offset::PC);
        let function = self.load(offset::STEP);
        let call = self
            .builder
            .ins()
            .call_indirect(self.step, function, &[self.frame]);
        if ends {
            self.builder.ins().jump(self.done, &[]);
            return;
        }
        let ended = self.builder.inst_results(call)[0];
        let next = self.builder.create_block();
        self.builder.ins().brif(ended, self.done, &[], next, &[]);
        self.builder.switch_to_block(next);
        let gas = self.load(offset::GAS);
        self.builder.def_var(self.gas, gas);
    }

    fn check_memory(&mut self, at: ir::Value, length: u64, resume: &Resume) {
        let word = self.word(at);
        let low = self.words().limb(word, 0);
        let above = self.words().above(word);
        let size = self.load(offset::MEMORY_LEN);
        let end = self.builder.ins().iadd_imm_s(low, length as i64);
        // Two comparisons, because the end may wrap around.
        let begins = self.builder.ins().icmp(IntCC::UnsignedLessThan, low, size);
        let fits = self
            .builder
            .ins()
            .icmp(IntCC::UnsignedLessThanOrEqual, end, size);
        let mut inside = self.builder.ins().band(begins, fits);
        if let Some(above) = above {
            let short = self.builder.ins().icmp_imm_s(IntCC::Equal, above, 0);
            inside = self.builder.ins().band(inside, short);
        }
        let [grow, leave, next] = [(); 3].map(|()| self.builder.create_block());
        self.builder.set_cold_block(grow);
        self.builder.set_cold_block(leave);
        self.builder.ins().brif(inside, next, &[], grow, &[]);
        self.builder.switch_to_block(grow);
        let gas = self.builder.use_var(self.gas);
        self.save(gas, offset::GAS);
        // An offset beyond 64 bits is passed on as the largest: nothing can hold it.
        let passed = match above {
            Some(above) => {
                let most = self.number(u64::MAX);
                self.builder.ins().select(above, most, low)
            }
            None => low,
        };
        let length = self.number(length);
        let function = self.load(offset::EXPAND);
        let call =
            self.builder
                .ins()
                .call_indirect(self.expand, function, &[self.frame, passed, length]);
        let grown = self.builder.inst_results(call)[0];
        let grew = self.builder.create_block();
        self.builder.set_cold_block(grew);
        self.builder.ins().brif(grown, grew, &[], leave, &[]);
        self.builder.switch_to_block(leave);
        self.leave(resume);
        self.builder.switch_to_block(grew);
        let gas = self.load(offset::GAS);
        self.builder.def_var(self.gas, gas);
        self.builder.ins().jump(next, &[]);
        self.builder.switch_to_block(next);
    }

    /// The address of a place in memory that was checked.
    fn address(&mut self, offset: ir::Value) -> ClifValue {
        let word = self.word(offset);
        let low = self.words().limb(word, 0);
        let memory = self.load(offset::MEMORY);
        self.builder.ins().iadd(memory, low)
    }

    fn terminator(&mut self, terminator: &Terminator) {
        match terminator {
            // The last step has jumped there.
            Terminator::End => {}
            Terminator::Leave(resume) => self.leave(resume),
            Terminator::Goto { target, height } => {
                self.move_sp(*height);
                self.builder.ins().jump(self.blocks[*target], &[]);
            }
            Terminator::If {
                condition,
                then,
                otherwise,
                height,
            } => {
                self.move_sp(*height);
                let condition = self.condition(*condition);
                let (then, otherwise) = (self.blocks[*then], self.blocks[*otherwise]);
                self.builder
                    .ins()
                    .brif(condition, then, &[], otherwise, &[]);
            }
            Terminator::Jump {
                target,
                condition,
                pc,
                height,
                operands,
                gas,
            } => {
                let behind = self.at(height - operands);
                if let Some((condition, otherwise)) = condition {
                    let condition = self.condition(*condition);
                    let (taken, not_taken) =
                        (self.builder.create_block(), self.builder.create_block());
                    self.builder
                        .ins()
                        .brif(condition, taken, &[], not_taken, &[]);
                    self.builder.switch_to_block(not_taken);
                    self.builder.def_var(self.sp, behind);
                    self.builder.ins().jump(self.blocks[*otherwise], &[]);
                    self.builder.switch_to_block(taken);
                }
                let word = self.word(*target);
                let low = self.words().limb(word, 0);
                let above = self.words().above(word);
                let above = match above {
                    Some(above) => above,
                    None => self.number(0),
                };
                let sp = self.at(*height);
                self.builder.def_var(self.sp, sp);
                let (pc, gas) = (self.number(*pc as u64), self.number(*gas));
                let args = [low, above, pc, behind, gas].map(BlockArg::from);
                self.builder.ins().jump(self.jump, &args);
            }
        }
    }

    fn move_sp(&mut self, height: i32) {
        let sp = self.at(height);
        self.builder.def_var(self.sp, sp);
    }

    /// Not zero if the word is.
    fn condition(&mut self, value: ir::Value) -> ClifValue {
        if let Some(flag) = self.flags.get(&value) {
            return *flag;
        }
        let word = self.word(value);
        self.words().any(word)
    }

    fn word(&mut self, value: ir::Value) -> Word {
        if let Some(word) = self.words.get(&value) {
            return *word;
        }
        // Known words are made where they are used: they cost no register in between.
        match self.code.constant(value) {
            Some(word) => self.words().constant(word),
            None => unreachable!("words are defined before they are used"),
        }
    }

    fn define(&mut self, value: ir::Value) {
        let bits = self.code.bits(value);
        let word = match self.code.definition(value) {
            Def::Const(word) => self.words().constant(word),
            Def::Slot(slot) => {
                let top = self.top;
                self.words().load(top, slot * 32, 256)
            }
            Def::Gas => {
                let gas = self.builder.use_var(self.gas);
                self.words().small(gas)
            }
            Def::MSize => {
                let size = self.load(offset::MEMORY_LEN);
                self.words().small(size)
            }
            Def::MLoad(offset) => {
                let address = self.address(offset);
                self.words().load_bytes(address)
            }
            Def::Unary(Unary::Not, x) => {
                let x = self.word(x);
                self.words().not(x)
            }
            Def::Unary(Unary::IsZero, x) => {
                let flag = match self.flags.get(&x).copied() {
                    Some(flag) => self.builder.ins().icmp_imm_s(IntCC::Equal, flag, 0),
                    None => {
                        let x = self.word(x);
                        self.words().is_zero(x)
                    }
                };
                self.flags.insert(value, flag);
                self.words().flag(flag)
            }
            Def::Binary(binary, x, y) => match self.binary(binary, x, y, bits) {
                Ok(word) => word,
                Err(flag) => {
                    self.flags.insert(value, flag);
                    self.words().flag(flag)
                }
            },
            Def::Pure(pure, operands) => {
                let base = self
                    .builder
                    .ins()
                    .iadd_imm_s(self.frame, i64::from(offset::WORDS));
                for (index, operand) in operands.into_iter().enumerate() {
                    let word = self.word(operand);
                    self.words().store(word, base, 32 * index as i32);
                }
                let function = self.load(offset::pure(pure));
                self.builder
                    .ins()
                    .call_indirect(self.pure, function, &[base]);
                self.words().load(base, 0, bits)
            }
        };
        self.words.insert(value, Words::narrow(word, bits));
    }

    /// A word, or the flag of a comparison.
    fn binary(
        &mut self,
        binary: Binary,
        x: ir::Value,
        y: ir::Value,
        bits: u16,
    ) -> Result<Word, ClifValue> {
        let by = self.code.constant(x).map(|by| by.saturating_to::<usize>());
        let (a, b) = (self.word(x), self.word(y));
        let mut words = self.words();
        Ok(match binary {
            Binary::Add => words.add(a, b, bits),
            Binary::Sub => words.sub(a, b),
            Binary::Mul => words.mul(a, b, bits),
            Binary::And => words.and(a, b),
            Binary::Or => words.or(a, b),
            Binary::Xor => words.xor(a, b),
            Binary::Shl => words.shift_left(b, by.unwrap_or(0), bits),
            Binary::Shr => words.shift_right(b, by.unwrap_or(0)),
            Binary::Div64 => words.divide_small(a, b, false),
            Binary::Mod64 => words.divide_small(a, b, true),
            Binary::Eq => return Err(words.equal(a, b)),
            Binary::Lt => return Err(words.less(a, b, false)),
            Binary::Gt => return Err(words.less(b, a, false)),
            Binary::SLt => return Err(words.less(a, b, true)),
            Binary::SGt => return Err(words.less(b, a, true)),
        })
    }
}
