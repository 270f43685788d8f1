//! When compiling pays.
//!
//! The first rule is that of the design: a code is compiled quick when it has burnt
//! [`BASE_GAS`] + [`FIRST_GAS_PER_BYTE`] × its size. A fixed number of gas a byte is only right for one machine and one
//! kind of code, so it follows what is measured as soon as there is something:
//!
//! ```text
//! gas a byte = ns of compiling a byte / (ns saved a gas × DISCOUNT)
//! ns saved a gas = ns a gas before − ns a gas after, of the same codes
//! ```
//!
//! Compiling is done beside the work by threads that yield to it, so a nanosecond of theirs counts for less than one of a
//! block: [`DISCOUNT`]. The same rule, with what the full level saves over the quick one, says when to compile again.
//! All of it is kept as running averages that favour the newest, each a relaxed atomic: a lost update is a lost sample.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::settings::Settings;
use crate::compiler::Level;

/// Gas that the smallest code must burn.
pub const BASE_GAS: u64 = 10_000;
/// Gas a byte of code until there are measurements.
pub const FIRST_GAS_PER_BYTE: u64 = 32;
/// Bounds of what measurements make of [`FIRST_GAS_PER_BYTE`]: outliers do not stop compiling, or start it for all.
pub const GAS_PER_BYTE: core::ops::RangeInclusive<u64> = 16..=4_096;
/// How many nanoseconds of a background thread count as one of a block.
pub const DISCOUNT: f64 = 8.0;
/// The full level costs more, and saves only what the quick one left over: gas that must burn natively first.
pub const FULL_BASE_GAS: u64 = 100_000;
/// As [`FIRST_GAS_PER_BYTE`], for the full level.
pub const FIRST_FULL_GAS_PER_BYTE: u64 = 256;
/// As [`GAS_PER_BYTE`], for the full level.
pub const FULL_GAS_PER_BYTE: core::ops::RangeInclusive<u64> = 64..=32_768;
/// Compilations and samples before measurements count.
const ENOUGH: u64 = 16;

/// Runs of frames that failed before anything is done about it.
const FAILURES: u32 = 16;
/// A part of the runs of so many is often: compiling again costs more than leaving native code now and then.
const OFTEN: u32 = 8;
/// Runs that native code did nothing for before it is given up; and they must be half of all.
const USELESS: u32 = 64;
/// Runs after which failures are forgotten.
pub(super) const FORGET: u32 = 1 << 20;

/// What is to become of a unit that often fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fails {
    /// It takes something for granted about the loop at this header which is often not so.
    Assumption(usize),
    /// Computed jumps go to places that it has no entry for.
    Missed,
    /// It mostly does nothing.
    Useless,
}

/// Judges a unit after a run that failed. `frames`: runs, of which `assumed` failed at a loop or a jump (this one for
/// `reason`, if at all) and for `useless` native code did nothing.
pub(super) fn fails(
    frames: u32,
    assumed: u32,
    useless: u32,
    reason: Option<Fails>,
) -> Option<Fails> {
    match reason {
        Some(reason) if assumed >= FAILURES && assumed >= frames / OFTEN => Some(reason),
        _ if useless >= USELESS && useless >= frames / 2 => Some(Fails::Useless),
        _ => None,
    }
}

/// Where time was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Ran {
    Interpreted,
    Quick,
    Full,
}

impl From<Level> for Ran {
    fn from(level: Level) -> Self {
        match level {
            Level::Quick => Self::Quick,
            Level::Full => Self::Full,
        }
    }
}

/// A mean of quotients that forgets: both parts are halved when there are enough.
#[derive(Debug, Default)]
pub(super) struct Rate {
    amount: AtomicU64,
    units: AtomicU64,
    samples: AtomicU64,
}

impl Rate {
    /// `keep`: samples after which the past counts half.
    pub(super) fn add(&self, amount: u64, units: u64, keep: u64) {
        let samples = self.samples.load(Ordering::Relaxed) + 1;
        let shift = u32::from(samples.is_multiple_of(keep));
        let add = |to: &AtomicU64, value: u64| {
            let old = to.load(Ordering::Relaxed) >> shift;
            to.store(old.saturating_add(value), Ordering::Relaxed);
        };
        add(&self.amount, amount);
        add(&self.units, units);
        self.samples.store(samples, Ordering::Relaxed);
    }

    pub(super) fn samples(&self) -> u64 {
        self.samples.load(Ordering::Relaxed)
    }

    /// Amount a unit.
    pub(super) fn mean(&self, at_least: u64) -> Option<f64> {
        let units = self.units.load(Ordering::Relaxed);
        (self.samples() >= at_least && units > 0)
            .then(|| self.amount.load(Ordering::Relaxed) as f64 / units as f64)
    }
}

/// Sampled times of one code.
#[derive(Debug, Default)]
pub(super) struct Times([Rate; 3]);

/// Samples of one code and tier before it is compared.
const COMPARABLE: u64 = 8;
/// Samples of one code and tier before it is given up, and how much slower it must be for that.
const CERTAIN: u64 = 512;
const SLOWER: f64 = 1.25;

impl Times {
    pub(super) fn add(&self, ran: Ran, elapsed: Duration, gas: u64) {
        let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.0[ran as usize].add(ns, gas, 4 * CERTAIN);
    }

    /// Whether native code is slower than the interpreter was on the same code, beyond doubt.
    pub(super) fn is_slower(&self, level: Level) -> bool {
        let mean = |ran: Ran| self.0[ran as usize].mean(CERTAIN);
        match (mean(Ran::Interpreted), mean(level.into())) {
            (Some(interpreted), Some(native)) => native > interpreted * SLOWER,
            _ => false,
        }
    }
}

/// What compiling costs and saves here.
#[derive(Debug, Default)]
pub(super) struct Rates {
    /// Nanoseconds a byte of code, by level.
    compile: [Rate; 2],
    /// Picoseconds a gas before and after, of the same codes: by the interpreter and quick, by quick and full.
    steps: [[Rate; 2]; 2],
}

impl Rates {
    pub(super) fn compiled(&self, level: Level, bytes: usize, elapsed: Duration) {
        let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        self.compile[level as usize].add(ns, bytes as u64, 256);
    }

    /// Learns from a code that was measured at a level and the one before it. Done with each portion of gas it burns, so
    /// that codes count by what they burn.
    pub(super) fn learn(&self, times: &Times, level: Level) {
        let mean = |ran: Ran| times.0[ran as usize].mean(COMPARABLE);
        let before = match level {
            Level::Quick => mean(Ran::Interpreted),
            Level::Full => mean(Ran::Quick),
        };
        if let (Some(before), Some(after)) = (before, mean(level.into())) {
            let step = &self.steps[level as usize];
            for (rate, mean) in step.iter().zip([before, after]) {
                rate.add((mean * 1e3) as u64, 1, 256);
            }
        }
    }

    fn gas_per_byte(&self, level: Level) -> u64 {
        let (first, bounds) = match level {
            Level::Quick => (FIRST_GAS_PER_BYTE, GAS_PER_BYTE),
            Level::Full => (FIRST_FULL_GAS_PER_BYTE, FULL_GAS_PER_BYTE),
        };
        let cost = self.compile[level as usize].mean(ENOUGH);
        let [before, after] = self.steps[level as usize]
            .each_ref()
            .map(|rate| rate.mean(ENOUGH));
        match (cost, before, after) {
            (Some(cost), Some(before), Some(after)) => {
                let saved = (before - after) / 1e3;
                // Where nothing is saved the quotient is beyond every bound.
                let gas = cost / (saved * DISCOUNT).max(f64::MIN_POSITIVE);
                (gas as u64).clamp(*bounds.start(), *bounds.end())
            }
            _ => first,
        }
    }

    /// Gas a code must burn, in the tier below, before it is compiled at `level`.
    pub(super) fn threshold(&self, settings: &Settings, level: Level, bytes: usize) -> u64 {
        let by_size =
            |base: u64| base.saturating_add(self.gas_per_byte(level).saturating_mul(bytes as u64));
        match (settings.threshold, level) {
            (Some(gas), Level::Quick) => gas,
            (Some(gas), Level::Full) => gas.saturating_mul(8),
            (None, Level::Quick) => by_size(BASE_GAS),
            (None, Level::Full) => by_size(FULL_BASE_GAS),
        }
    }

    /// Expected saving per cost, if the future is like the past: what orders the queue. Comparable between levels.
    pub(super) fn value(&self, level: Level, gas: u64, bytes: usize) -> u64 {
        let base = match level {
            Level::Quick => BASE_GAS,
            Level::Full => FULL_BASE_GAS,
        };
        let cost = base.saturating_add(self.gas_per_byte(level).saturating_mul(bytes as u64));
        u64::try_from(u128::from(gas) * 1_024 / u128::from(cost.max(1))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_holds_until_enough_is_measured() {
        let rates = Rates::default();
        let settings = Settings::default();
        let threshold = |rates: &Rates| rates.threshold(&settings, Level::Quick, 1_000);
        assert_eq!(threshold(&rates), 10_000 + 32 * 1_000);
        for _ in 0..ENOUGH {
            rates.compiled(Level::Quick, 1_000, Duration::from_micros(4_000));
        }
        assert_eq!(threshold(&rates), 10_000 + 32 * 1_000);
        let times = Times::default();
        for _ in 0..COMPARABLE {
            times.add(Ran::Interpreted, Duration::from_micros(15), 10_000);
            times.add(Ran::Quick, Duration::from_micros(5), 10_000);
        }
        for _ in 0..ENOUGH {
            rates.learn(&times, Level::Quick);
        }
        // 4,000 ns a byte over 1 ns a gas, an eighth of it.
        assert_eq!(threshold(&rates), 10_000 + 500 * 1_000);
    }

    #[test]
    fn what_saves_nothing_does_not_stop_compiling_for_ever() {
        let rates = Rates::default();
        let times = Times::default();
        for _ in 0..COMPARABLE {
            times.add(Ran::Interpreted, Duration::from_micros(5), 10_000);
            times.add(Ran::Quick, Duration::from_micros(5), 10_000);
        }
        for _ in 0..ENOUGH {
            rates.compiled(Level::Quick, 1_000, Duration::from_millis(4));
            rates.learn(&times, Level::Quick);
        }
        let threshold = rates.threshold(&Settings::default(), Level::Quick, 100);
        assert_eq!(threshold, BASE_GAS + 100 * GAS_PER_BYTE.end());
    }

    #[test]
    fn a_unit_is_judged_by_how_often_it_fails() {
        let at = Some(Fails::Assumption(7));
        assert_eq!(fails(15, 15, 0, at), None);
        assert_eq!(fails(16, 16, 0, at), Some(Fails::Assumption(7)));
        // Now and then is no reason.
        assert_eq!(fails(1_000, 16, 0, at), None);
        assert_eq!(fails(1_000, 125, 0, at), Some(Fails::Assumption(7)));
        assert_eq!(fails(64, 0, 63, None), None);
        assert_eq!(fails(64, 0, 64, None), Some(Fails::Useless));
        assert_eq!(fails(200, 0, 99, None), None);
    }

    #[test]
    fn native_code_is_given_up_only_when_it_is_slower_beyond_doubt() {
        let times = Times::default();
        let sample = |ran, micros, count| {
            for _ in 0..count {
                times.add(ran, Duration::from_micros(micros), 10_000);
            }
        };
        sample(Ran::Interpreted, 10, CERTAIN);
        sample(Ran::Quick, 30, CERTAIN - 1);
        assert!(!times.is_slower(Level::Quick));
        sample(Ran::Quick, 30, 1);
        assert!(times.is_slower(Level::Quick));
        assert!(!times.is_slower(Level::Full));
        sample(Ran::Full, 12, CERTAIN);
        assert!(!times.is_slower(Level::Full));
    }
}
