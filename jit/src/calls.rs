//! Internal calls: the return addresses that code leaves on its stack, followed to the jumps that take them.
//!
//! Compilers call a function within a contract by pushing where to come back to and jumping to the function, which ends
//! by a jump to what lies on the stack. From the places where control arrives from outside, addresses on the stack are
//! followed block by block: such a jump then has a known target, and its words stay in registers. A small function
//! without loops that several places call is copied to each of them, for the copy returns to one place.
//!
//! Nothing here has to be certain. A block may be reached in other ways than the one it was first looked at by, so
//! whoever follows a target compares the word with it ([`crate::build`]), and an address that is lost sight of makes its
//! block one that computed jumps enter.

use std::collections::{BTreeSet, HashSet};

use crate::code::{BasicBlock, Blocks, End, Source};

/// Instructions that the copy of a function may have, with those it calls.
const SMALL: usize = 48;
/// Blocks that it may have.
const BLOCKS: usize = 12;
/// A block at whose end the frame ends is copied up to this many instructions; larger ones are shared.
const ENDING: usize = 3;
/// Of all instructions, the share that may be added by copies: one in so many.
const GROWTH: usize = 8;
/// And as many that any code may have.
const FREE: usize = 16;
/// Rounds until every address that is left on the stack makes its block one that computed jumps enter.
const ROUNDS: usize = 6;
/// Addresses that are followed at a time, and how far down.
const HELD: usize = 12;
const DEEP: i32 = 64;

/// An address on the stack: a block of one copy of the function it belongs to. Copy 0 is the code as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Address {
    block: usize,
    copy: usize,
}

/// Addresses by slot, counted from the top: the top is 1.
type Held = Vec<(i32, Address)>;

/// Finds where computed jumps go, copies small functions, and says which blocks computed jumps may enter.
pub fn follow(code: &mut Blocks) {
    let mut escaped = BTreeSet::new();
    for round in 0.. {
        let mut found = Follower::new(code, &escaped);
        found.run();
        // What is not reached in any way that is known may be in one that is not.
        let unknown = |block: usize| round == ROUNDS || !found.is_known(block);
        let addresses = addresses(code, unknown);
        found.escaped.extend(addresses);
        let more = found.escaped.iter().any(|block| !found.entered[*block]);
        if more && round < ROUNDS {
            escaped.extend(found.escaped);
            continue;
        }
        let Follower {
            entered,
            escaped,
            ends,
            seen,
            copies,
            ..
        } = found;
        code.entered = entered;
        for block in escaped {
            code.entered[block] = true;
        }
        for ((block, end), held) in code.blocks.iter_mut().zip(ends).zip(seen) {
            block.end = end;
            let held = held.unwrap_or_default().into_iter();
            block.awaits = held.map(|(_, address)| address.block).collect();
        }
        code.blocks.extend(copies);
        code.entered.resize(code.blocks.len(), false);
        return;
    }
}

/// Blocks whose addresses are left on the stack by some blocks.
fn addresses(code: &Blocks, by: impl Fn(usize) -> bool) -> Vec<usize> {
    let blocks = code.blocks.iter().enumerate();
    blocks
        .filter(|(index, _)| by(*index))
        .flat_map(|(_, block)| {
            let left = block.left.iter();
            left.filter_map(|source| pushed(code, block, *source))
        })
        .collect()
}

/// The block that a pushed word names.
fn pushed(code: &Blocks, block: &BasicBlock, source: Source) -> Option<usize> {
    match source {
        Source::Push(at) => code.named(block.instructions[at].immediate),
        _ => None,
    }
}

struct Follower<'a> {
    code: &'a Blocks,
    entered: Vec<bool>,
    /// With the targets that were found.
    ends: Vec<End>,
    copies: Vec<BasicBlock>,
    /// Blocks of which there are copies.
    copied: HashSet<usize>,
    /// What was held where a block was first reached.
    seen: Vec<Option<Held>>,
    escaped: BTreeSet<usize>,
    /// Ways in to each block, and whether all of them are jumps.
    ways: Vec<(usize, bool)>,
    /// Functions that are too large to copy.
    large: HashSet<usize>,
    /// Instructions that may still be added.
    budget: usize,
    work: Vec<(usize, Held)>,
}

impl<'a> Follower<'a> {
    fn new(code: &'a Blocks, escaped: &BTreeSet<usize>) -> Self {
        let mut entered = code.entered.clone();
        for block in escaped {
            entered[*block] = true;
        }
        let mut ways = vec![(0, true); code.blocks.len()];
        for block in &code.blocks {
            let (jump, behind) = match block.end {
                End::Jump(target) => (target, None),
                End::JumpI(target) => (target, block.next),
                End::Fall => (None, block.next),
                _ => (None, None),
            };
            if let Some(target) = jump {
                ways[target].0 += 1;
                ways[target].1 &= block.end == End::Jump(jump);
            }
            if let Some(next) = behind {
                ways[next].0 += 1;
                ways[next].1 = false;
            }
        }
        let instructions: usize = code.blocks.iter().map(|one| one.instructions.len()).sum();
        Self {
            code,
            entered,
            ends: code.blocks.iter().map(|block| block.end).collect(),
            copies: Vec::new(),
            copied: HashSet::new(),
            seen: vec![None; code.blocks.len()],
            escaped: escaped.clone(),
            ways,
            large: HashSet::new(),
            budget: FREE + instructions / GROWTH,
            work: Vec::new(),
        }
    }

    fn run(&mut self) {
        for block in (0..self.entered.len()).rev() {
            if self.entered[block] {
                self.work.push((block, Held::new()));
            }
        }
        while let Some((block, held)) = self.work.pop() {
            self.visit(block, held);
        }
    }

    fn is_known(&self, block: usize) -> bool {
        self.seen[block].is_some() || self.copied.contains(&block)
    }

    /// Computed jumps may go where these addresses say.
    fn escape(&mut self, held: &Held) {
        let blocks = held.iter().map(|(_, address)| address.block);
        self.escaped.extend(blocks);
    }

    fn visit(&mut self, block: usize, mut held: Held) {
        if self.code.blocks[block].last_words.is_some() {
            held.clear();
        }
        if self.entered[block] {
            self.escape(&held);
            held.clear();
        }
        if let Some(seen) = &self.seen[block] {
            if *seen != held {
                self.escape(&held);
            }
            return;
        }
        let basic = &self.code.blocks[block];
        let (after, dropped) = behind(self.code, basic, 0, &held);
        self.escape(&dropped);
        let aim = aim(basic, &held);
        self.seen[block] = Some(held);
        match basic.end {
            End::Fall | End::JumpI(_) => {
                if let Some(next) = basic.next {
                    self.work.push((next, after.clone()));
                }
            }
            End::Stop if basic.is_suspended() => self.escape(&after),
            End::Leave(_) => self.escape(&after),
            End::Jump(_) | End::Stop | End::Halt(_) => {}
        }
        match (basic.end, aim) {
            (End::Jump(Some(target)), _) => self.jump(block, target, after),
            (End::JumpI(Some(target)), _) => self.work.push((target, after)),
            (End::Jump(None), Some(to)) => {
                self.ends[block] = End::Jump(Some(to.block));
                self.work.push((to.block, after));
            }
            (End::JumpI(None), Some(to)) => {
                self.ends[block] = End::JumpI(Some(to.block));
                self.work.push((to.block, after));
            }
            (End::Jump(None) | End::JumpI(None), None) => self.escape(&after),
            _ => {}
        }
    }

    /// A jump that says where: to the block, or to a copy of the function that begins there.
    fn jump(&mut self, from: usize, target: usize, held: Held) {
        if held.is_empty() || !self.is_shared(target) || self.large.contains(&target) {
            return self.work.push((target, held));
        }
        let mut copy = Copy {
            code: self.code,
            ways: &self.ways,
            first: self.ends.len() + self.copies.len(),
            places: Vec::new(),
            blocks: Vec::new(),
            copies: 1,
            cost: 0,
            outward: Vec::new(),
        };
        let made = copy.block(target, 1, 0, held.clone());
        let Copy {
            places,
            blocks,
            cost,
            outward,
            ..
        } = copy;
        match made {
            Some(made) if cost <= self.budget => {
                self.budget -= cost;
                self.copies.extend(blocks);
                self.copied.extend(places.iter().map(|place| place.block));
                self.ends[from] = End::Jump(Some(made));
                self.work.extend(outward);
            }
            made => {
                if made.is_none() {
                    self.large.insert(target);
                }
                self.work.push((target, held));
            }
        }
    }

    /// Whether several places jump to a block, and nothing comes there in another way.
    fn is_shared(&self, block: usize) -> bool {
        self.ways[block].0 > 1 && self.ways[block].1
    }
}

/// What is held behind a block of a copy, and what was left out because it is too much or too far down.
fn behind(code: &Blocks, block: &BasicBlock, copy: usize, held: &Held) -> (Held, Held) {
    let kept = held.iter().filter_map(|(depth, address)| {
        let slot = -depth;
        let stays = slot < block.delta && !block.changed.contains(&slot);
        stays.then_some((block.delta - slot, *address))
    });
    let moved = block
        .changed
        .iter()
        .zip(&block.left)
        .filter_map(|(slot, source)| {
            let address = match source {
                Source::Slot(from) => at(held, -from),
                source => pushed(code, block, *source).map(|block| Address { block, copy }),
            };
            Some((block.delta - slot, address?))
        });
    let mut all: Held = kept.chain(moved).collect();
    all.sort_unstable_by_key(|(depth, _)| *depth);
    let far = all.iter().position(|(depth, _)| *depth > DEEP);
    let dropped = all.split_off(far.unwrap_or(all.len()).min(HELD).min(all.len()));
    (all, dropped)
}

fn at(held: &Held, depth: i32) -> Option<Address> {
    let found = held.iter().find(|(at, _)| *at == depth);
    found.map(|(_, address)| *address)
}

/// The address that a block jumps to, if it is one that was there before.
fn aim(block: &BasicBlock, held: &Held) -> Option<Address> {
    match block.aim {
        Source::Slot(slot) => at(held, -slot),
        _ => None,
    }
}

/// A copy of a function under construction, with copies of those it calls.
struct Copy<'a> {
    code: &'a Blocks,
    ways: &'a [(usize, bool)],
    /// Index of the first block.
    first: usize,
    /// Block, copy and height of each block, and whether it is on the way to where we are.
    places: Vec<Place>,
    blocks: Vec<BasicBlock>,
    copies: usize,
    cost: usize,
    /// Blocks of the code as it is that it goes to.
    outward: Vec<(usize, Held)>,
}

struct Place {
    block: usize,
    copy: usize,
    height: i32,
    held: Held,
    open: bool,
}

impl Copy<'_> {
    /// The index of a block's copy; none if the function is not to be copied.
    fn block(&mut self, block: usize, copy: usize, height: i32, held: Held) -> Option<usize> {
        let found = self
            .places
            .iter()
            .position(|place| (place.block, place.copy) == (block, copy));
        if let Some(at) = found {
            let place = &self.places[at];
            let same = !place.open && place.height == height && place.held == held;
            return same.then_some(self.first + at);
        }
        let basic = &self.code.blocks[block];
        if basic.is_suspended() || matches!(basic.end, End::Leave(_)) {
            return None;
        }
        let ends = matches!(basic.end, End::Stop | End::Halt(_));
        let short = ends && basic.instructions.len() <= ENDING;
        if basic.last_words.is_some() && !short {
            // What only fails is not worth a copy. Nothing on the stack is taken from there any more.
            self.outward.push((block, Held::new()));
            return Some(block);
        }
        self.cost += basic.instructions.len() + 1;
        if self.cost > SMALL || self.blocks.len() == BLOCKS {
            return None;
        }
        let at = self.blocks.len();
        let mut made = basic.clone();
        made.awaits = held
            .iter()
            .filter(|(_, address)| address.copy == 0)
            .map(|(_, address)| address.block)
            .collect();
        self.blocks.push(made);
        let (after, dropped) = behind(self.code, basic, copy, &held);
        let aim = aim(basic, &held);
        self.places.push(Place {
            block,
            copy,
            height,
            held,
            open: true,
        });
        if !dropped.is_empty() {
            return None;
        }
        let height = height + basic.delta;
        let mut next = None;
        if matches!(basic.end, End::Fall | End::JumpI(_)) {
            next = Some(self.block(basic.next?, copy, height, after.clone())?);
        }
        let end = match (basic.end, aim) {
            (End::Jump(Some(to)), _) => {
                let of = self.called(to, copy);
                End::Jump(Some(self.block(to, of, height, after)?))
            }
            (End::JumpI(Some(to)), _) => End::JumpI(Some(self.block(to, copy, height, after)?)),
            (End::Jump(None), Some(to)) => End::Jump(Some(self.back(to, height, after)?)),
            (End::JumpI(None), Some(to)) => End::JumpI(Some(self.back(to, height, after)?)),
            (End::Jump(None) | End::JumpI(None), None) => return None,
            (end, _) => end,
        };
        (self.blocks[at].next, self.blocks[at].end) = (next, end);
        self.places[at].open = false;
        Some(self.first + at)
    }

    /// The copy that a block belongs to that another copy jumps to: its own if it is a function.
    fn called(&mut self, block: usize, copy: usize) -> usize {
        let (count, jumps) = self.ways[block];
        if count > 1 && jumps {
            self.copies += 1;
            return self.copies;
        }
        copy
    }

    /// Where a return goes.
    fn back(&mut self, to: Address, height: i32, held: Held) -> Option<usize> {
        if to.copy > 0 {
            return self.block(to.block, to.copy, height, held);
        }
        self.outward.push((to.block, held));
        Some(to.block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::blocks;
    use zvm_runtimes::isa::{Isa, assemble};
    use zvm_runtimes::revm::primitives::hardfork::SpecId;

    fn blocks_of(text: &str) -> Blocks {
        blocks(&assemble(Isa::Evm, text).unwrap(), SpecId::OSAKA)
    }

    #[test]
    fn a_function_called_from_one_place_returns_there() {
        let blocks = blocks_of(
            "PUSH1 @back PUSH1 @sub JUMP :back JUMPDEST STOP :sub JUMPDEST PUSH1 1 POP JUMP",
        );
        assert_eq!(blocks.blocks[2].end, End::Jump(Some(1)));
        assert_eq!(blocks.entered, [true, false, false]);
    }

    #[test]
    fn a_small_function_is_copied_to_each_of_its_callers() {
        let blocks = blocks_of(
            "PUSH1 @a PUSH1 @sub JUMP :a JUMPDEST PUSH1 @b PUSH1 @sub JUMP :b JUMPDEST STOP \
             :sub JUMPDEST PUSH1 1 POP JUMP",
        );
        assert_eq!((blocks.named, blocks.blocks.len()), (4, 6));
        let returns = |caller: usize| match blocks.blocks[caller].end {
            End::Jump(Some(copy)) if copy >= blocks.named => blocks.blocks[copy].end,
            end => end,
        };
        assert_eq!(returns(0), End::Jump(Some(1)));
        assert_eq!(returns(1), End::Jump(Some(2)));
        assert_eq!(blocks.entered, [true, false, false, false, false, false]);
    }

    #[test]
    fn an_address_that_is_lost_sight_of_may_be_entered() {
        // A call of another contract lies between: what the frame comes back with is not followed.
        let blocks = blocks_of(
            "PUSH1 @back PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 PUSH0 CALL POP JUMP :back JUMPDEST STOP",
        );
        assert_eq!(blocks.entered, [true, true, true]);
        // A place in memory.
        let blocks = blocks_of("PUSH1 @back PUSH0 MSTORE STOP :back JUMPDEST STOP");
        assert_eq!(blocks.entered, [true, true]);
    }

    #[test]
    fn recursion_is_not_copied_without_end() {
        let blocks = blocks_of(
            "PUSH1 @a PUSH1 @sub JUMP :a JUMPDEST PUSH1 @b PUSH1 @sub JUMP :b JUMPDEST STOP \
             :sub JUMPDEST PUSH0 CALLDATALOAD PUSH1 @out JUMPI PUSH1 @c PUSH1 @sub JUMP :c JUMPDEST JUMP \
             :out JUMPDEST JUMP",
        );
        assert_eq!(blocks.blocks.len(), blocks.named);
    }
}
