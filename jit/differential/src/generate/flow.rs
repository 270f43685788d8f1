//! Branches, loops, functions and jumps that are hard to follow.

use alloy_primitives::U256;

use super::{Function, Generator};
use crate::asm::Item;

impl Generator<'_, '_> {
    pub(super) fn control(&mut self) {
        if self.nesting >= 4 {
            return self.expression(1);
        }
        self.nesting += 1;
        let before = self.height;
        match self.choices.weighted(&[8, 10, 5, 2, 1, 1, 1]) {
            0 => self.branch(),
            1 => self.counted_loop(),
            2 => self.computed_jump(),
            3 => self.switch(),
            4 => self.meeting_at_other_heights(),
            5 => self.irreducible(),
            _ => self.wrong_jump(),
        }
        // A loop body or a branch that leaves the stack higher or lower.
        if !self.choices.chance(1, 40) {
            self.level(before);
        }
        self.nesting -= 1;
    }

    fn block(&mut self, most: u64) {
        for _ in 0..self.choices.below(most + 1) {
            if self.budget == 0 || self.choices.exhausted() {
                break;
            }
            self.statement();
        }
    }

    /// A block after which the stack is as high as before, most of the time.
    fn level_block(&mut self, most: u64) {
        let before = self.height;
        self.block(most);
        if !self.choices.chance(1, 60) {
            self.level(before);
        }
    }

    fn condition(&mut self) {
        match self.choices.weighted(&[6, 2, 2]) {
            0 => {
                self.expression(1);
                self.expression(1);
                let op = self.choices.pick(&[0x10u8, 0x11, 0x12, 0x13, 0x14]);
                self.op(op);
            }
            1 => {
                self.expression(1);
                self.op(0x15);
            }
            _ => self.expression(1),
        }
        for _ in 0..self.choices.weighted(&[6, 2, 1]) {
            self.op(0x15);
        }
    }

    fn branch(&mut self) {
        let (other, end) = (self.label(), self.label());
        self.condition();
        self.target(other);
        self.op(0x57);
        let before = self.height;
        self.level_block(3);
        let with_else = self.choices.chance(1, 2);
        if self.choices.chance(1, 8) {
            self.ending();
        } else if with_else {
            self.target(end);
            self.op(0x56);
        }
        self.height = before;
        self.place(other);
        if with_else {
            self.level_block(3);
            self.place(end);
        }
    }

    /// A natural loop: counter at the bottom of what the body may touch.
    fn counted_loop(&mut self) {
        let (head, exit) = (self.label(), self.label());
        let outer = self.floor;
        let most = self.choices.pick(&[2u64, 3, 5, 9, 20]);
        let calldata_bound = self.choices.chance(1, 3);
        let up = self.choices.chance(1, 2);
        let step = if self.choices.chance(1, 4) {
            self.choices.pick(&[2u64, 32, 0x100])
        } else {
            1
        };
        // Counters that need another limb on their way.
        let base = if up && self.choices.chance(1, 6) {
            let bit = self.choices.pick(&[32usize, 63, 64, 64, 64, 128, 192, 255]);
            (U256::ONE << bit) - U256::from(step * self.choices.below(4))
        } else {
            U256::ZERO
        };
        if up {
            // counter = start; while (counter < bound) { ...; counter += step }
            let start = if self.choices.chance(1, 12) {
                // Counters that wrap around.
                U256::ZERO.wrapping_sub(U256::from(step))
            } else {
                U256::from(self.choices.below(2))
            };
            self.push(base.wrapping_add(start));
        } else {
            self.bound(calldata_bound, most * step, U256::ZERO);
        }
        self.floor = self.height;
        self.place(head);
        let checked_first = up || self.choices.chance(1, 2);
        let comparison = self.choices.pick(&[0x10u8, 0x12, 0x11]);
        if checked_first {
            if up {
                self.bound(calldata_bound, most * step, base);
                self.op(0x81);
                match comparison {
                    // bound > counter, or counter < bound, signed or not
                    0x11 => {
                        self.op(0x90);
                        self.op(0x11);
                    }
                    op => self.op(op),
                }
            } else {
                self.op(0x80);
            }
            self.op(0x15);
            self.target(exit);
            self.op(0x57);
        }
        self.level_block(4);
        if self.choices.chance(1, 8) {
            // continue, or break
            self.condition();
            let to = if self.choices.chance(1, 2) {
                head
            } else {
                exit
            };
            self.target(to);
            self.op(0x57);
        }
        self.small(step);
        if up {
            self.op(0x01);
        } else {
            self.op(0x90);
            self.op(0x03);
        }
        if checked_first {
            self.target(head);
            self.op(0x56);
        } else {
            self.op(0x80);
            self.target(head);
            self.op(0x57);
        }
        self.place(exit);
        self.floor = outer;
    }

    /// A number from `base` on.
    fn bound(&mut self, from_calldata: bool, most: u64, base: U256) {
        if from_calldata {
            let at = self.choices.below(40);
            self.small(at);
            self.op(0x35);
            if self.choices.chance(1, 2) {
                self.small(0x1f.min(most));
                self.op(0x16);
            } else {
                self.small(most);
                self.op(0x90);
                self.op(0x06);
            }
            if !base.is_zero() {
                self.push(base);
                self.op(0x01);
            }
        } else {
            let bound = self.choices.below(most + 1);
            self.push(base.wrapping_add(U256::from(bound)));
        }
    }

    /// A jump whose target is not a literal.
    fn computed_jump(&mut self) {
        let to = self.label();
        match self.choices.weighted(&[4, 3, 3, 2, 2, 1]) {
            // By way of memory.
            0 => {
                let at = self.choices.below(4) * 32;
                self.target(to);
                self.small(at);
                self.op(0x52);
                if self.choices.chance(1, 2) {
                    self.level_block(2);
                }
                self.small(at);
                self.op(0x51);
            }
            // By way of arithmetic.
            1 => {
                let by = self.choices.word();
                self.target(to);
                self.push(by);
                self.op(0x01);
                self.push(by);
                self.op(0x90);
                self.op(0x03);
            }
            // One of two.
            2 => {
                let other = self.label();
                self.target(other);
                self.target(to);
                self.op(0x18);
                self.condition();
                self.op(0x15);
                self.op(0x15);
                self.op(0x02);
                self.target(other);
                self.op(0x18);
                self.op(0x56);
                let before = self.height;
                self.place(other);
                self.level_block(2);
                self.height = before;
                self.place(to);
                return;
            }
            // By way of the stack, from below other things.
            3 => {
                self.target(to);
                let junk = self.choices.between(1, 4);
                for _ in 0..junk {
                    self.leaf();
                }
                self.op(0x8f + junk as u8);
            }
            // By way of storage.
            4 => {
                self.target(to);
                self.small(3);
                self.op(0x5d);
                self.small(3);
                self.op(0x5c);
            }
            // From calldata: nowhere, mostly.
            _ => {
                self.expression(1);
                self.narrow();
            }
        }
        if self.choices.chance(1, 3) {
            self.condition();
            self.op(0x90);
            self.op(0x57);
        } else {
            self.op(0x56);
        }
        let before = self.height;
        if self.choices.chance(1, 3) {
            self.level_block(2);
        }
        self.height = before;
        self.place(to);
    }

    /// A dispatcher: compares one word with literals, as contracts do with selectors.
    fn switch(&mut self) {
        let end = self.label();
        self.expression(1);
        let cases = self.choices.between(2, 5);
        let bodies: Vec<u16> = (0..cases).map(|_| self.label()).collect();
        for label in &bodies {
            self.op(0x80);
            let word = self.choices.word();
            self.push(word);
            self.op(0x14);
            self.target(*label);
            self.op(0x57);
        }
        let before = self.height;
        for label in &bodies {
            self.level_block(1);
            self.target(end);
            self.op(0x56);
            self.height = before;
            self.place(*label);
        }
        self.place(end);
    }

    /// Two ways to one label, with stacks of different heights.
    fn meeting_at_other_heights(&mut self) {
        let meet = self.label();
        let before = self.height;
        self.condition();
        self.target(meet);
        self.op(0x57);
        for _ in 0..self.choices.between(1, 3) {
            self.leaf();
        }
        self.place(meet);
        self.level_block(2);
        // What is certain.
        self.height = before;
    }

    /// A loop with two ways in.
    fn irreducible(&mut self) {
        let (first, second, end) = (self.label(), self.label(), self.label());
        let turns = self.choices.between(1, 6);
        self.small(turns);
        let outer = self.floor;
        self.floor = self.height;
        self.condition();
        self.target(second);
        self.op(0x57);
        self.place(first);
        self.level_block(2);
        self.place(second);
        self.level_block(2);
        self.small(1);
        self.op(0x90);
        self.op(0x03);
        self.op(0x80);
        self.op(0x15);
        self.target(end);
        self.op(0x57);
        self.target(first);
        self.op(0x56);
        self.place(end);
        self.floor = outer;
    }

    /// A jump to where none is allowed, taken or not.
    fn wrong_jump(&mut self) {
        let hidden = self.label();
        let taken = self.choices.chance(1, 4);
        if !taken {
            self.condition();
        }
        match self.choices.below(4) {
            0 => {
                let word = self.choices.word();
                self.push(word);
            }
            1 => self.target(hidden),
            2 => {
                self.target(hidden);
                let beyond = self.choices.pick(&[1usize, 16, 32, 64, 128]);
                self.push(U256::ONE << beyond);
                self.op(0x01);
            }
            _ => self.leaf(),
        }
        self.op(if taken { 0x56 } else { 0x57 });
        // The label's byte inside an immediate: what was a target is none.
        let push = 0x60 + self.choices.below(3) as u8;
        self.items.push(Item::Raw(vec![push]));
        self.place(hidden);
        self.items
            .push(Item::Raw(vec![0x5b; usize::from(push - 0x60)]));
        self.height += 1;
    }

    pub(super) fn call_function(&mut self) {
        let callable = self.functions.len().saturating_sub(self.callable);
        if callable == 0 {
            return self.expression(1);
        }
        let index = self.callable + self.choices.below(callable as u64) as usize;
        let Function {
            label,
            arguments,
            results,
            ..
        } = self.functions[index];
        self.functions[index].called = true;
        let back = self.label();
        let before = self.height;
        self.target(back);
        for _ in 0..arguments {
            self.expression(1);
        }
        self.target(label);
        self.op(0x56);
        self.height = before + results;
        self.place(back);
    }

    /// Pushes to near the limit of the stack, by a loop.
    pub(super) fn deep_stack(&mut self) {
        let head = self.label();
        let words = self.choices.between(985, 1026);
        self.small(words);
        self.place(head);
        // Each turn leaves one word more: the counter before it.
        self.op(0x80);
        self.small(1);
        self.op(0x90);
        self.op(0x03);
        self.op(0x80);
        self.target(head);
        self.op(0x57);
    }
}
