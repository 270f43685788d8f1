//! What leaves one word on the stack.

use alloy_primitives::U256;

use super::Generator;

/// Operations on two words.
const BINARY: [u8; 24] = [
    0x01, 0x01, 0x02, 0x02, 0x03, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0b, 0x10, 0x11, 0x12, 0x13, 0x14,
    0x16, 0x17, 0x18, 0x1a, 0x1b, 0x1c, 0x1d, 0x16,
];
/// Operations without operands: environment, PC, MSIZE, GAS.
const NULLARY: [u8; 20] = [
    0x30, 0x32, 0x33, 0x34, 0x36, 0x38, 0x3a, 0x3d, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
    0x58, 0x59, 0x59, 0x5a,
];

impl Generator<'_, '_> {
    /// A word without a computation.
    pub(super) fn leaf(&mut self) {
        match self.choices.weighted(&[8, 9, 2, 3]) {
            0 => {
                let word = self.choices.word();
                self.push(word);
            }
            1 if self.height > 0 => {
                let n = self.choices.between(1, self.height.min(16) as u64);
                self.op(0x7f + n as u8);
            }
            2 => {
                let op = self.choices.pick(&NULLARY);
                self.op(op);
            }
            _ => {
                // Whole words of calldata, which are near edges, most of the time.
                let at = if self.choices.chance(1, 4) {
                    self.choices.below(100)
                } else {
                    32 * self.choices.below(3)
                };
                self.small(at);
                self.op(0x35);
            }
        }
    }

    /// A word; `depth` bounds the computation.
    pub(super) fn expression(&mut self, depth: usize) {
        if depth == 0 || self.choices.exhausted() {
            return self.leaf();
        }
        match self.choices.weighted(&[10, 12, 4, 3, 3, 2, 1, 1]) {
            0 => self.leaf(),
            1 => self.binary(depth),
            2 => {
                self.expression(depth - 1);
                let op = self.choices.pick(&[0x15u8, 0x15, 0x19, 0x1e]);
                self.op(op);
            }
            3 => {
                self.offset();
                self.op(0x51);
            }
            4 => {
                self.slot();
                let op = self.choices.pick(&[0x54u8, 0x54, 0x5c]);
                self.op(op);
            }
            5 => {
                for _ in 0..3 {
                    self.expression(depth - 1);
                }
                let op = self.choices.pick(&[0x08u8, 0x09]);
                self.op(op);
            }
            6 => {
                self.length();
                self.offset();
                self.op(0x20);
            }
            _ => self.outside(),
        }
    }

    fn binary(&mut self, depth: usize) {
        let op = if self.choices.chance(1, 40) {
            0x0a // EXP: its gas grows with the exponent.
        } else {
            self.choices.pick(&BINARY)
        };
        match self.choices.weighted(&[4, 4, 3, 1, 4]) {
            // A literal on one side or the other; narrowing by mask or shift is of this kind.
            0 => {
                self.expression(depth - 1);
                let word = self.choices.word();
                self.push(word);
            }
            1 => {
                let word = self.choices.word();
                self.push(word);
                self.expression(depth - 1);
            }
            2 => {
                self.expression(depth - 1);
                self.expression(depth - 1);
            }
            // The same word twice.
            3 => {
                self.expression(depth - 1);
                self.op(0x80);
            }
            // Made narrow first, so that the compiler knows it.
            _ => {
                self.expression(depth - 1);
                self.narrow();
                self.expression(depth - 1);
                self.narrow();
            }
        }
        self.op(op);
    }

    /// Cuts the top word down to a number of bits that can be seen.
    pub(super) fn narrow(&mut self) {
        let bits = self.choices.pick(&[
            1usize, 8, 16, 32, 63, 64, 64, 64, 65, 128, 128, 160, 192, 192,
        ]);
        if self.choices.chance(1, 2) {
            self.push((U256::ONE << bits) - U256::ONE);
            self.op(0x16);
        } else {
            self.small(256 - bits as u64);
            self.op(0x1c);
        }
    }

    /// A storage slot: few, so that they meet.
    pub(super) fn slot(&mut self) {
        if self.choices.chance(1, 6) {
            self.expression(1);
        } else {
            let slot = self.choices.below(7);
            self.small(slot);
        }
    }

    /// An offset in memory, small most of the time.
    pub(super) fn offset(&mut self) {
        match self.choices.weighted(&[10, 6, 3, 6, 1, 1]) {
            0 => {
                let word = self.choices.below(8) * 32;
                self.small(word);
            }
            1 => {
                let at = self.choices.below(300);
                self.small(at);
            }
            2 => self.op(0x59),
            3 => {
                self.leaf();
                let mask = self.choices.pick(&[0x1fu64, 0x3f, 0xe0, 0xff, 0x1ff]);
                self.small(mask);
                self.op(0x16);
            }
            4 => {
                // Where sums wrap around or no gas suffices.
                let near = U256::from(self.choices.below(70));
                let wide = match self.choices.below(6) {
                    0 => U256::from(0x1000u64) + near,
                    1 => U256::from(0x4000u64) + near,
                    2 => (U256::ONE << 32) - near,
                    3 => (U256::ONE << 64) - near,
                    4 => (U256::ONE << 64) + near,
                    _ => U256::MAX - near,
                };
                self.push(wide);
            }
            _ => self.expression(1),
        }
    }

    /// A length in memory, small most of the time.
    pub(super) fn length(&mut self) {
        match self.choices.weighted(&[6, 2, 6, 3, 1]) {
            0 => self.small(32),
            1 => self.small(0),
            2 => {
                let length = self.choices.below(100);
                self.small(length);
            }
            3 => {
                self.leaf();
                let mask = self.choices.pick(&[0x1fu64, 0x3f, 0x7f]);
                self.small(mask);
                self.op(0x16);
            }
            _ => self.leaf(),
        }
    }

    /// A word from outside the contract.
    fn outside(&mut self) {
        match self.choices.below(5) {
            0 => {
                self.address();
                let op = self.choices.pick(&[0x31u8, 0x3b, 0x3f]);
                self.op(op);
            }
            1 => {
                self.expression(0);
                self.op(0x40);
            }
            2 => {
                let index = self.choices.below(3);
                self.small(index);
                self.op(0x49);
            }
            3 => self.op(0x4a),
            _ => {
                self.expression(0);
                self.op(0x35);
            }
        }
    }
}
