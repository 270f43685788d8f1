//! Ways into regions and loops, between blocks, and out.

use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    Block as ClifBlock, BlockArg, InstBuilder as _, Value as ClifValue, types,
};

use super::Lowering;
use crate::abi::{Leave, offset};
use crate::ir::{self, Block, Edge, Target, Terminator};
use crate::words::{Word, limbs_for};

impl Lowering<'_> {
    /// Whether the stack is too low or too high for the region, `sp` being at this height of it.
    pub(super) fn bad_stack(&mut self, sp: ClifValue, height: i32) -> Option<ClifValue> {
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
    pub(super) fn stressed(&mut self) -> ClifValue {
        let left = self.field(offset::STRESS);
        let left = self.builder.ins().iadd_imm_s(left, -1);
        self.set_field(left, offset::STRESS);
        self.builder.ins().icmp_imm_s(IntCC::Equal, left, 0)
    }

    pub(super) fn either(
        &mut self,
        one: Option<ClifValue>,
        other: Option<ClifValue>,
    ) -> Option<ClifValue> {
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

    pub(super) fn root_entry(&mut self, index: usize, block: &Block) {
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
        self.enter(bad, Leave::Stack.at(block.pc), &args, inside, &args);
    }

    pub(super) fn enter(
        &mut self,
        bad: Option<ClifValue>,
        at: u64,
        state: &[BlockArg; 2],
        inside: ClifBlock,
        args: &[BlockArg],
    ) {
        let Some(bad) = bad else {
            self.builder.ins().jump(inside, args);
            return;
        };
        let pc = self.number(at);
        let out = [BlockArg::from(pc), state[0], state[1]];
        self.builder
            .ins()
            .brif(bad, self.shared.leave, &out, inside, args);
    }

    /// From outside into a loop: reads what the header takes, and checks what it takes for granted.
    pub(super) fn loop_entry(&mut self, index: usize, block: &Block, way: &ir::Entry) {
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
        self.enter(bad, Leave::Loop.at(block.pc), &state, inside, &args);
    }

    pub(super) fn push_args(&mut self, word: Word, count: usize, args: &mut Vec<BlockArg>) {
        for limb in word.0.into_iter().take(count) {
            args.push(BlockArg::from(self.words().value(limb)));
        }
    }

    pub(super) fn leave(&mut self, at: u64, height: i32) {
        let (pc, sp) = (self.number(at), self.at(height));
        let args = [pc, sp, self.gas].map(BlockArg::from);
        self.builder.ins().jump(self.shared.leave, &args);
    }

    /// Where an edge goes, once its writes are done, with what is passed.
    pub(super) fn target(&mut self, edge: &Edge) -> (ClifBlock, Vec<BlockArg>) {
        match edge.target {
            Target::InvalidJump => (self.shared.invalid_jump, Vec::new()),
            Target::Leave(pc, reason) => {
                let (pc, sp) = (self.number(reason.at(pc)), self.at(edge.height));
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
    pub(super) fn follow(&mut self, edge: &Edge) {
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
            self.leave(Leave::Width.at(pc), edge.height);
            self.builder.switch_to_block(next);
        }
        for write in &edge.writes {
            self.write(write);
        }
        let (block, args) = self.target(edge);
        self.builder.ins().jump(block, &args);
    }

    /// Where a branch goes for an edge: to its target, or to a block that does what the edge needs first.
    pub(super) fn branch(&mut self, edge: &Edge) -> (ClifBlock, Vec<BlockArg>, bool) {
        if edge.writes.is_empty() && edge.guards.is_empty() && edge.escape.is_empty() {
            let (block, args) = self.target(edge);
            return (block, args, false);
        }
        (self.builder.create_block(), Vec::new(), true)
    }

    pub(super) fn fork(&mut self, condition: ir::Value, then: &Edge, otherwise: &Edge) {
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

    pub(super) fn terminator(&mut self, terminator: &Terminator) {
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
}
