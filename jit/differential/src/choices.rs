//! Where a generator takes its decisions from: a seed, or bytes that a fuzzer evolves.

use alloy_primitives::U256;

/// A stream of decisions. The same source gives the same decisions.
#[derive(Debug, Clone)]
pub struct Choices<'a>(Source<'a>);

#[derive(Debug, Clone)]
enum Source<'a> {
    /// State of SplitMix64.
    Seed(u64),
    /// Taken from the front; zeros when there are none left.
    Bytes(&'a [u8]),
}

/// One step of SplitMix64: a bijection that spreads neighbouring numbers.
pub fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl<'a> Choices<'a> {
    /// Decisions without end from a seed.
    pub fn from_seed(seed: u64) -> Self {
        Self(Source::Seed(seed))
    }

    /// Decisions from bytes; all are zero, the simplest, once they are used up.
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        Self(Source::Bytes(bytes))
    }

    /// Whether the bytes are used up. A seed never is.
    pub fn exhausted(&self) -> bool {
        matches!(self.0, Source::Bytes(&[]))
    }

    fn take(&mut self, bytes: usize) -> u64 {
        match &mut self.0 {
            Source::Seed(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mix(*state)
            }
            Source::Bytes(rest) => {
                let mut number = 0;
                for _ in 0..bytes {
                    let Some((first, tail)) = rest.split_first() else {
                        break;
                    };
                    number = number << 8 | u64::from(*first);
                    *rest = tail;
                }
                number
            }
        }
    }

    /// Any 64 bits.
    pub fn any(&mut self) -> u64 {
        self.take(8)
    }

    /// A number below `bound`; 0 if that is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        let bytes = match bound {
            0..=1 => return 0,
            2..=0x100 => 1,
            0x101..=0x1_0000 => 2,
            _ => 8,
        };
        self.take(bytes) % bound
    }

    /// A number from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// True `parts` times in `of`.
    pub fn chance(&mut self, parts: u64, of: u64) -> bool {
        // The simplest decision, 0, is "no".
        self.below(of) >= of - parts
    }

    /// One of `options`, which are not empty.
    pub fn pick<T: Copy>(&mut self, options: &[T]) -> T {
        options[self.below(options.len() as u64) as usize]
    }

    /// The index of one of the weights, each as likely as it is heavy.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if at < *weight {
                return index;
            }
            at -= weight;
        }
        0
    }

    /// A word near something where operations change their mind.
    pub fn word(&mut self) -> U256 {
        match self.weighted(&[5, 2, 6, 2, 1]) {
            0 => U256::from(self.below(40)),
            1 => U256::from(self.below(0x1_0000)),
            2 => {
                const EDGES: [usize; 16] = [
                    7, 8, 15, 16, 31, 32, 63, 64, 95, 96, 127, 128, 160, 191, 192, 255,
                ];
                let bit = if self.chance(2, 3) {
                    self.pick(&EDGES)
                } else {
                    self.below(256) as usize
                };
                let near = (U256::ONE << bit).wrapping_sub(U256::from(self.below(3)));
                if self.chance(1, 4) {
                    near.wrapping_neg()
                } else {
                    near
                }
            }
            3 => U256::from(self.any()),
            _ => U256::from_limbs([self.any(), self.any(), self.any(), self.any()]),
        }
    }
}
