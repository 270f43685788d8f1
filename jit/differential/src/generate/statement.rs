//! What changes memory, storage or the order of the stack, and what ends a program.

use alloy_primitives::U256;

use super::Generator;
use crate::asm::Item;

impl Generator<'_, '_> {
    /// One statement: the stack is as high behind it as before, most of the time.
    pub(super) fn statement(&mut self) {
        match self.choices.weighted(&[14, 12, 12, 10, 6, 14, 9, 3, 6]) {
            0 => {
                let depth = self.choices.between(1, 3) as usize;
                self.expression(depth);
                if self.height > self.floor + 12 {
                    self.op(0x50);
                }
            }
            1 => self.assign(),
            2 => self.memory(),
            3 => self.stack(),
            4 => self.storage(),
            5 => self.control(),
            6 => self.call_function(),
            7 => self.effect(),
            _ => self.count(),
        }
    }

    /// A word on the stack is counted up or down, or shifted a little: what loops do to their words.
    fn count(&mut self) {
        let reach = self.height - self.floor.min(self.height);
        if reach == 0 {
            return self.leaf();
        }
        let n = self.choices.between(1, reach.min(15) as u64);
        self.op(0x7f + n as u8);
        let by = self.choices.pick(&[1u64, 1, 1, 2, 3, 32, 0xffff, u64::MAX]);
        self.small(by);
        match self.choices.weighted(&[5, 2, 2, 1]) {
            0 => self.op(0x01),
            1 => {
                self.op(0x90);
                self.op(0x03);
            }
            2 => {
                let op = self.choices.pick(&[0x02u8, 0x16, 0x17, 0x18]);
                self.op(op);
            }
            _ => {
                self.op(0x50);
                self.small(1);
                let op = self.choices.pick(&[0x1bu8, 0x1c, 0x1d]);
                self.op(op);
            }
        }
        self.op(0x8f + n as u8);
        self.op(0x50);
    }

    /// A word computed into a slot of the stack.
    fn assign(&mut self) {
        let depth = self.choices.between(1, 3) as usize;
        self.expression(depth);
        // Counters and return addresses are hit too, but rarely.
        let reach = if self.choices.chance(1, 60) {
            self.height
        } else {
            self.height - self.floor.min(self.height)
        };
        if reach > 1 {
            let n = self.choices.between(1, (reach - 1).min(16) as u64);
            self.op(0x8f + n as u8);
            self.op(0x50);
        }
    }

    fn memory(&mut self) {
        match self.choices.weighted(&[10, 4, 2, 2, 1, 1]) {
            0 => {
                self.expression(2);
                self.offset();
                self.op(0x52);
            }
            1 => {
                self.expression(1);
                self.offset();
                self.op(0x53);
            }
            2 => {
                self.length();
                self.offset();
                self.offset();
                self.op(0x5e);
            }
            3 => {
                self.length();
                self.source_offset();
                self.offset();
                let op = self.choices.pick(&[0x37u8, 0x39]);
                self.op(op);
            }
            4 => {
                self.length();
                self.source_offset();
                self.offset();
                self.address();
                self.op(0x3c);
            }
            _ => {
                // Beyond the returned data this halts.
                if self.choices.chance(1, 2) {
                    self.op(0x3d);
                    self.small(0);
                } else {
                    let length = self.choices.below(4);
                    self.small(length);
                    let from = self.choices.below(3);
                    self.small(from);
                }
                self.offset();
                self.op(0x3e);
            }
        }
    }

    /// Where in calldata or code to copy from: beyond the end there are zeros.
    fn source_offset(&mut self) {
        if self.choices.chance(1, 5) {
            let word = self.choices.word();
            self.push(word);
        } else {
            let at = self.choices.below(80);
            self.small(at);
        }
    }

    /// Moves on the stack: in reach most of the time.
    fn stack(&mut self) {
        for _ in 0..self.choices.between(1, 5) {
            let reach = self.height - self.floor.min(self.height);
            let wild = self.choices.chance(1, 150);
            match self.choices.weighted(&[8, 8, 2]) {
                0 if wild || reach > 0 => {
                    let most = if wild { 16 } else { reach.min(16) };
                    let n = self.choices.between(1, most as u64);
                    self.op(0x7f + n as u8);
                }
                1 if wild || reach > 1 => {
                    let most = if wild { 16 } else { (reach - 1).min(16) };
                    let n = self.choices.between(1, most as u64);
                    self.op(0x8f + n as u8);
                }
                _ if wild || reach > 0 => self.op(0x50),
                _ => self.leaf(),
            }
        }
    }

    fn storage(&mut self) {
        self.expression(1);
        self.slot();
        let op = self.choices.pick(&[0x55u8, 0x55, 0x5d]);
        self.op(op);
    }

    /// Logs, calls, creations.
    fn effect(&mut self) {
        match self.choices.weighted(&[4, 8, 2]) {
            0 => {
                let topics = self.choices.below(5) as u8;
                for _ in 0..topics {
                    self.expression(1);
                }
                self.length();
                self.offset();
                self.op(0xa0 + topics);
            }
            1 => self.call(),
            _ => self.create(),
        }
    }

    fn call(&mut self) {
        let op = self.choices.pick(&[0xf1u8, 0xf1, 0xf2, 0xf4, 0xfa]);
        self.length();
        self.offset();
        self.length();
        self.offset();
        if matches!(op, 0xf1 | 0xf2) {
            if self.choices.chance(1, 4) {
                let value = self.choices.below(3);
                self.small(value);
            } else {
                self.small(0);
            }
        }
        self.address();
        match self.choices.below(5) {
            0 => self.op(0x5a),
            1 => {
                self.small(1);
                self.op(0x5a);
                self.op(0x90);
                self.op(0x1c);
            }
            2 => {
                let gas = self.choices.pick(&[0u64, 100, 2_300, 5_000, 20_000]);
                self.small(gas);
            }
            3 => {
                let gas = self.choices.below(30_000);
                self.small(gas);
            }
            _ => {
                let word = self.choices.word();
                self.push(word);
            }
        }
        self.op(op);
        self.after_call();
    }

    /// Uses what a call or creation left.
    fn after_call(&mut self) {
        if self.choices.chance(1, 3) {
            self.op(0x3d);
            self.small(0);
            self.offset();
            self.op(0x3e);
        }
        if self.choices.chance(1, 3) {
            self.op(0x50);
        }
    }

    fn create(&mut self) {
        let chosen = self.choices.below(self.initcodes.len() as u64) as usize;
        let Some(initcode) = self.initcodes.get(chosen) else {
            return;
        };
        let length = initcode.len().min(32);
        let mut word = [0; 32];
        word[..length].copy_from_slice(&initcode[..length]);
        self.push(U256::from_be_bytes(word));
        let at = self.choices.below(6) * 16;
        self.small(at);
        self.op(0x52);
        let second = self.choices.chance(1, 2);
        if second {
            self.slot();
        }
        self.small(length as u64);
        self.small(at);
        let value = self.choices.below(2);
        self.small(value);
        self.op(if second { 0xf5 } else { 0xf0 });
        if self.choices.chance(1, 2) {
            // Calls what was created: gas, address, no value, no input, no output.
            for _ in 0..5 {
                self.small(0);
            }
            self.op(0x85);
            self.op(0x5a);
            self.op(0xf1);
            self.after_call();
        }
        self.after_call();
    }

    /// What ends the program, in its last block or in a branch.
    pub(super) fn ending(&mut self) {
        match self.choices.weighted(&[14, 4, 3, 2, 1, 1, 1, 1]) {
            // The memory as it is, so that everything written to it counts, and something of every word.
            0 => {
                let words = self.height.min(40);
                for _ in 1..words {
                    self.op(0x18);
                }
                if words > 0 {
                    self.op(0x59);
                    self.op(0x52);
                }
                self.op(0x59);
                self.small(0);
                self.op(0xf3);
            }
            // The stack as it is.
            1 => {
                let words = self.height.min(12);
                for index in 0..words {
                    self.small(32 * index as u64);
                    self.op(0x52);
                }
                self.op(0x59);
                self.small(0);
                self.op(0xf3);
            }
            2 => {
                self.length();
                self.offset();
                self.op(0xf3);
            }
            3 => self.op(0x00),
            4 => {
                self.length();
                self.offset();
                self.op(0xfd);
            }
            5 => self.op(0xfe),
            6 => {
                self.address();
                self.op(0xff);
            }
            // Into what lies behind.
            _ => {
                if self.choices.chance(1, 3) {
                    let byte = self.choices.below(256) as u8;
                    self.items.push(Item::Raw(vec![byte]));
                }
            }
        }
    }
}
