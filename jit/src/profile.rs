//! What the interpreter saw of a code, for the compiler.
//!
//! A profile says what a code did while it was watched, never what it can do: code compiled with one takes nothing from it
//! for granted without a guard, and results never depend on it. So it is neither stored nor part of the key under which
//! native code is stored. It is bounded: what no longer fits is left out, and asked for it says that nothing is known.

use core::fmt;

use alloy_primitives::B256;
use parking_lot::Mutex;
use zvm_runtimes::evm::{Context, FrameRunner, Instructions};
use zvm_runtimes::revm::bytecode::opcode;
use zvm_runtimes::revm::interpreter::interpreter::EthInterpreter;
use zvm_runtimes::revm::interpreter::interpreter_types::Jumps as _;
use zvm_runtimes::revm::interpreter::{InstructionResult, Interpreter};

use crate::run;

/// Computed jumps that a profile has room for.
pub const JUMPS: usize = 32;
/// Targets of one computed jump.
pub const TARGETS: usize = 4;
/// Loop headers.
pub const LOOPS: usize = 32;
/// Instructions whose operands' widths are kept.
pub const WIDTHS: usize = 128;
/// Targets of computed jumps that compiled code had no entry for.
pub const MISSED: usize = 64;
/// Loop headers whose assumptions are known to fail.
pub const DISTRUSTED: usize = 16;

/// How wide a word is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Width {
    /// Up to 64 bits.
    One,
    /// Up to 128 bits.
    Two,
    /// Up to 256 bits.
    Four,
}

impl Width {
    /// That of a word of four limbs, the least significant first.
    pub const fn of(limbs: &[u64; 4]) -> Self {
        if limbs[2] | limbs[3] != 0 {
            Self::Four
        } else if limbs[1] != 0 {
            Self::Two
        } else {
            Self::One
        }
    }

    /// Its bits: 64, 128 or 256.
    pub const fn bits(self) -> usize {
        match self {
            Self::One => 64,
            Self::Two => 128,
            Self::Four => 256,
        }
    }
}

/// Where a computed jump went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Jump {
    pc: u32,
    /// Target and how often; unused ones have a count of 0.
    targets: [(u32, u32); TARGETS],
    /// It went to more places than there is room for.
    more: bool,
}

/// A count for a place in the code.
type At<T> = (u32, T);

/// What was seen of one code.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    instructions: u64,
    /// All in order of pc.
    jumps: Vec<Jump>,
    loops: Vec<At<u32>>,
    widths: Vec<At<Width>>,
    distrusted: Vec<u32>,
    missed: Vec<u32>,
}

/// The item of `pc` in a list ordered by it, made if there is room for one more.
fn find<T>(
    list: &mut Vec<T>,
    limit: usize,
    pc: u32,
    at: impl Fn(&T) -> u32,
    new: impl FnOnce() -> T,
) -> Option<&mut T> {
    let place = match list.binary_search_by_key(&pc, at) {
        Ok(place) => place,
        Err(_) if list.len() >= limit => return None,
        Err(place) => {
            list.insert(place, new());
            place
        }
    };
    list.get_mut(place)
}

impl Profile {
    /// Instructions that were watched.
    pub fn instructions(&self) -> u64 {
        self.instructions
    }

    /// Where the JUMP or JUMPI at `pc` was seen to go by a computed target, the most frequent first, with how often; and
    /// whether these are all that were seen. `None`: the jump was not seen, or takes its target from the PUSH before it.
    pub fn targets(&self, pc: usize) -> Option<(Vec<(usize, u32)>, bool)> {
        let pc = u32::try_from(pc).ok()?;
        let place = self.jumps.binary_search_by_key(&pc, |jump| jump.pc).ok()?;
        let jump = self.jumps.get(place)?;
        let mut targets: Vec<_> = jump
            .targets
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(target, count)| (*target as usize, *count))
            .collect();
        targets.sort_by_key(|(target, count)| (core::cmp::Reverse(*count), *target));
        Some((targets, !jump.more))
    }

    /// How often control was seen to go back to `header`.
    pub fn back_edges(&self, header: usize) -> u32 {
        lookup(&self.loops, header).unwrap_or(0)
    }

    /// The widest of the two topmost words that the arithmetic, comparison or bitwise instruction at `pc` was seen to take.
    pub fn width(&self, pc: usize) -> Option<Width> {
        lookup(&self.widths, pc)
    }

    /// Whether what compiled code assumed about the words of the loop at `header` was seen to fail: that counters have
    /// one limb, for one. The compiler is to assume nothing there.
    pub fn distrusts(&self, header: usize) -> bool {
        u32::try_from(header).is_ok_and(|header| self.distrusted.binary_search(&header).is_ok())
    }

    /// Whether compiled code is known to have failed: what was compiled without knowing it is not to be used on.
    pub fn failed(&self) -> bool {
        !self.distrusted.is_empty() || !self.missed.is_empty()
    }

    /// A computed jump went to a JUMPDEST that compiled code had no entry for. False if that is known already, or there is
    /// no room for it.
    pub fn miss(&mut self, target: usize) -> bool {
        let Ok(target) = u32::try_from(target) else {
            return false;
        };
        match self.missed.binary_search(&target) {
            Err(place) if self.missed.len() < MISSED => {
                self.missed.insert(place, target);
                true
            }
            _ => false,
        }
    }

    /// Everywhere that computed jumps were seen to go, in order.
    pub fn places(&self) -> Vec<usize> {
        let seen = self.jumps.iter().flat_map(|jump| &jump.targets);
        let seen = seen
            .filter(|(_, count)| *count > 0)
            .map(|(target, _)| target);
        let mut places: Vec<_> = seen
            .chain(&self.missed)
            .map(|target| *target as usize)
            .collect();
        places.sort_unstable();
        places.dedup();
        places
    }

    /// See [`Profile::distrusts`]. False if that is known already, or there is no room for it.
    pub fn distrust(&mut self, header: usize) -> bool {
        let Ok(header) = u32::try_from(header) else {
            return false;
        };
        match self.distrusted.binary_search(&header) {
            Err(place) if self.distrusted.len() < DISTRUSTED => {
                self.distrusted.insert(place, header);
                true
            }
            _ => false,
        }
    }

    /// A jump at `pc` was taken; `computed`: not by the PUSH before it.
    pub fn jumped(&mut self, pc: usize, target: usize, computed: bool) {
        let (Ok(pc), Ok(target)) = (u32::try_from(pc), u32::try_from(target)) else {
            return;
        };
        if target <= pc
            && let Some((_, count)) =
                find(&mut self.loops, LOOPS, target, |at| at.0, || (target, 0))
        {
            *count = count.saturating_add(1);
        }
        if !computed {
            return;
        }
        let new = || Jump {
            pc,
            targets: [(0, 0); TARGETS],
            more: false,
        };
        let Some(jump) = find(&mut self.jumps, JUMPS, pc, |jump| jump.pc, new) else {
            return;
        };
        let place = jump
            .targets
            .iter_mut()
            .find(|(known, count)| *count == 0 || *known == target);
        match place {
            Some(place) => *place = (target, place.1.saturating_add(1)),
            None => jump.more = true,
        }
    }

    /// The instruction at `pc` took words of at most this width.
    pub fn took(&mut self, pc: usize, width: Width) {
        let Ok(pc) = u32::try_from(pc) else {
            return;
        };
        if let Some((_, widest)) = find(&mut self.widths, WIDTHS, pc, |at| at.0, || (pc, width)) {
            *widest = width.max(*widest);
        }
    }

    /// Executes at most `steps` instructions and notes what they do. How many were executed; an error is the end of the
    /// frame or a call.
    pub fn watch<'a>(
        &mut self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
        steps: u32,
    ) -> (u32, Result<(), InstructionResult>) {
        let (table, gas) = (instructions.instruction_table(), instructions.gas_table());
        let mut pushed = false;
        for step in 0..steps {
            let byte = interpreter.bytecode.opcode();
            self.note(interpreter, byte, pushed);
            pushed = (opcode::PUSH0..=opcode::PUSH32).contains(&byte);
            if let Err(end) = interpreter.step(table, gas, context) {
                return (step + 1, Err(end));
            }
        }
        (steps, Ok(()))
    }

    /// Notes what the instruction is about to do. `pushed`: the one before it was a PUSH.
    fn note(&mut self, interpreter: &Interpreter<EthInterpreter>, byte: u8, pushed: bool) {
        self.instructions += 1;
        let pc = interpreter.bytecode.pc();
        let words = interpreter.stack.data();
        match (byte, words.as_slice()) {
            (opcode::JUMPI, [.., condition, _]) if condition.is_zero() => {}
            (opcode::JUMP | opcode::JUMPI, [.., top]) => {
                if let Ok(target) = usize::try_from(*top) {
                    self.jumped(pc, target, !pushed);
                }
            }
            (opcode::ISZERO | opcode::NOT, [.., top]) => self.took(pc, Width::of(top.as_limbs())),
            (opcode::ADD..=opcode::SIGNEXTEND | opcode::LT..=opcode::SAR, [.., below, top]) => {
                let width = Width::of(top.as_limbs()).max(Width::of(below.as_limbs()));
                self.took(pc, width);
            }
            _ => {}
        }
    }
}

/// Runs frames by the interpreter and watches every instruction of one code.
#[derive(Debug)]
pub struct Watcher {
    hash: B256,
    profile: Mutex<Profile>,
}

impl Watcher {
    /// Watches the code with this keccak-256.
    pub fn new(hash: B256) -> Self {
        Self {
            hash,
            profile: Mutex::default(),
        }
    }

    /// What was seen.
    pub fn into_profile(self) -> Profile {
        self.profile.into_inner()
    }
}

impl FrameRunner for Watcher {
    fn run<'a>(
        &self,
        interpreter: &mut Interpreter<EthInterpreter>,
        context: &mut Context<'a>,
        instructions: &Instructions<'a>,
    ) {
        if interpreter.bytecode.get_or_calculate_hash() != self.hash {
            return run::interpret(interpreter, context, instructions);
        }
        let mut profile = self.profile.lock();
        loop {
            let (_, end) = profile.watch(interpreter, context, instructions, u32::MAX);
            if let Err(end) = end {
                return run::finish(interpreter, end);
            }
        }
    }
}

fn lookup<T: Copy>(list: &[At<T>], pc: usize) -> Option<T> {
    let pc = u32::try_from(pc).ok()?;
    let place = list.binary_search_by_key(&pc, |at| at.0).ok()?;
    list.get(place).map(|at| at.1)
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} instructions watched", self.instructions)?;
        for (header, count) in &self.loops {
            writeln!(f, "loop at {header}: {count} times back")?;
        }
        for jump in &self.jumps {
            write!(f, "jump at {}:", jump.pc)?;
            let (targets, all) = self.targets(jump.pc as usize).unwrap_or_default();
            for (target, count) in targets {
                write!(f, " {target} ({count} times)")?;
            }
            writeln!(f, "{}", if all { "" } else { " and others" })?;
        }
        for (pc, width) in &self.widths {
            writeln!(f, "operands at {pc}: {} bits", width.bits())?;
        }
        for header in &self.distrusted {
            writeln!(f, "loop at {header}: assumptions failed")?;
        }
        for target in &self.missed {
            writeln!(f, "jump to {target}: was no entry")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_targets_come_first_and_those_left_out_are_not_denied() {
        let mut profile = Profile::default();
        for (target, times) in [(10, 1), (20, 3), (30, 2)] {
            for _ in 0..times {
                profile.jumped(5, target, true);
            }
        }
        let seen = vec![(20, 3), (30, 2), (10, 1)];
        assert_eq!(profile.targets(5), Some((seen, true)));
        for target in 40..50 {
            profile.jumped(5, target, true);
        }
        let (targets, all) = profile.targets(5).unwrap();
        assert_eq!((targets.len(), all), (TARGETS, false));
        assert_eq!(profile.targets(6), None);
    }

    #[test]
    fn only_jumps_backwards_are_back_edges_and_only_computed_ones_have_targets() {
        let mut profile = Profile::default();
        profile.jumped(9, 3, false);
        profile.jumped(9, 3, false);
        profile.jumped(9, 30, true);
        profile.jumped(9, 9, false);
        assert_eq!([3, 9, 30].map(|pc| profile.back_edges(pc)), [2, 1, 0]);
        assert_eq!(profile.targets(9), Some((vec![(30, 1)], true)));
    }

    #[test]
    fn the_widest_operands_count() {
        let mut profile = Profile::default();
        let limbs: [[u64; 4]; 3] = [[7, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]];
        for limbs in limbs {
            profile.took(4, Width::of(&limbs));
        }
        profile.took(4, Width::One);
        profile.took(6, Width::Two);
        assert_eq!(profile.width(4), Some(Width::Four));
        assert_eq!(profile.width(6), Some(Width::Two));
        assert_eq!(profile.width(5), None);
    }

    #[test]
    fn a_profile_is_bounded_whatever_is_seen() {
        let mut profile = Profile::default();
        for pc in 0..10_000 {
            profile.jumped(10_000 + pc, 10_000 - pc, true);
            profile.took(pc, Width::Two);
            profile.distrust(pc);
            profile.miss(pc);
        }
        let lengths = [
            profile.jumps.len(),
            profile.loops.len(),
            profile.widths.len(),
            profile.distrusted.len(),
            profile.missed.len(),
        ];
        assert_eq!(lengths, [JUMPS, LOOPS, WIDTHS, DISTRUSTED, MISSED]);
        assert_eq!(profile.places().len(), JUMPS + MISSED);
        assert_eq!(profile.back_edges(9_999), 1);
        assert_eq!(profile.back_edges(1), 0);
        let bytes = JUMPS * size_of::<Jump>()
            + LOOPS * size_of::<At<u32>>()
            + WIDTHS * size_of::<At<Width>>()
            + (DISTRUSTED + MISSED) * 4;
        assert!(bytes <= 3_000, "{bytes}");
    }

    #[test]
    fn a_loop_is_distrusted_once() {
        let mut profile = Profile::default();
        assert!(!profile.failed());
        assert!(profile.distrust(7) && !profile.distrust(7));
        assert!(profile.distrusts(7) && !profile.distrusts(8));
        assert!(profile.failed());
    }
}
