//! Control flow: regions of blocks through which words pass in registers.
//!
//! A region has one root, where control arrives with every word on the interpreter's stack, and holds the blocks that
//! only control from within the region reaches, at one height of the stack relative to the root. What two regions
//! reach, or one at two heights, is a root of its own. A loop header has, beside its edges within the region, an entry
//! from outside: a frame may arrive there with all words on the stack (on-stack replacement).

use core::fmt;
use std::collections::BTreeSet;

use crate::code::{Blocks, End};

/// Blocks that pass words in registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Blocks in reverse postorder, the root first.
    pub blocks: Vec<usize>,
    /// Words below the root that some block needs.
    pub needs: i32,
    /// Words above the root that some block reaches.
    pub grows: i32,
}

/// A loop of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// Slots, relative to the root, that some block of the loop changes.
    pub changed: Vec<i32>,
}

/// Control flow of a code.
#[derive(Debug)]
pub struct Flow {
    /// Regions in order of their roots.
    pub regions: Vec<Region>,
    /// Per block: its region and the height before it relative to the region's root. None is never reached.
    pub place: Vec<Option<(usize, i32)>>,
    /// Per block: the loop it is the header of.
    pub loops: Vec<Option<Loop>>,
    /// Per block: how many loops it is in.
    pub depth: Vec<u16>,
}

impl fmt::Display for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for region in &self.regions {
            writeln!(f, "region needs {} grows {}", region.needs, region.grows)?;
            for block in &region.blocks {
                let height = self.place[*block].map_or(0, |(_, height)| height);
                write!(f, "  b{block} height {height} depth {}", self.depth[*block])?;
                if let Some(shape) = &self.loops[*block] {
                    write!(f, " loop changes {:?}", shape.changed)?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

/// Slots farther than this from a region's root start another region: what is remembered of a block stays small.
const FAR: i32 = 64;

/// Blocks of one region at most: register allocation takes longer than in proportion where words live through many.
const MANY: usize = 96;

/// Blocks that are visited to find loops, as a multiple of the blocks there are. Beyond it a region's loops are not
/// looked for, and its headers become roots.
const LOOP_BUDGET: usize = 16;

/// The blocks that follow a block within the code, by direct edges.
pub fn successors(code: &Blocks, block: usize) -> [Option<usize>; 2] {
    let next = code.blocks[block].next;
    match code.blocks[block].end {
        End::Fall => [next, None],
        End::Jump(target) => [target, None],
        End::JumpI(target) => [next, target],
        End::Stop | End::Halt(_) | End::Leave(_) => [None, None],
    }
}

/// Finds regions and loops.
pub fn analyse(code: &Blocks) -> Flow {
    let mut roots = vec![false; code.blocks.len()];
    for block in (0..roots.len()).filter(|block| code.entered[*block]) {
        add(code, &mut roots, block);
    }
    // Every round adds roots, and few are needed; a code made to need many gets a root at every merge.
    for round in 0.. {
        if round == 24 {
            let mut arrivals = vec![0u32; code.blocks.len()];
            for block in 0..code.blocks.len() {
                for next in successors(code, block).into_iter().flatten() {
                    arrivals[next] += 1;
                }
            }
            for (block, arrivals) in arrivals.into_iter().enumerate() {
                if arrivals > 1 {
                    add(code, &mut roots, block);
                }
            }
        }
        let (place, conflicts) = assign(code, &roots);
        if !conflicts.is_empty() {
            for block in conflicts {
                add(code, &mut roots, block);
            }
            continue;
        }
        let found = find_loops(code, &roots, place);
        match found {
            Ok(flow) => return flow,
            Err(more) => {
                for block in more {
                    add(code, &mut roots, block);
                }
            }
        }
    }
    unreachable!("rounds end when every merge is a root")
}

/// Makes a block a root. The return addresses that were known there are not any more: jumps to them are computed.
fn add(code: &Blocks, roots: &mut [bool], block: usize) {
    let mut work = vec![block];
    while let Some(block) = work.pop() {
        if !core::mem::replace(&mut roots[block], true) {
            work.extend(&code.blocks[block].awaits);
        }
    }
}

type Place = Vec<Option<(usize, i32)>>;

/// Gives every reached block its root and height, and names the blocks that would have two.
fn assign(code: &Blocks, roots: &[bool]) -> (Place, BTreeSet<usize>) {
    let mut place: Place = vec![None; code.blocks.len()];
    let mut conflicts = BTreeSet::new();
    let mut work = Vec::new();
    let mut sizes = vec![1usize; code.blocks.len()];
    // The frame starts with an empty stack: a block that needs more there is not for native code.
    let starts_empty = code.jumpdests.first() != Some(&0);
    let reached: Vec<usize> = (0..roots.len()).filter(|block| roots[*block]).collect();
    for root in reached {
        place[root] = Some((root, 0));
        work.push(root);
    }
    while let Some(block) = work.pop() {
        let Some((root, height)) = place[block] else {
            continue;
        };
        let behind = height + code.blocks[block].delta;
        for next in successors(code, block).into_iter().flatten() {
            if roots[next] {
                continue;
            }
            match place[next] {
                None if root == 0 && starts_empty && code.blocks[next].needs > behind => {}
                None if sizes[root] >= MANY => {
                    conflicts.insert(next);
                }
                None if behind.abs() > FAR => {
                    conflicts.insert(next);
                }
                None => {
                    sizes[root] += 1;
                    place[next] = Some((root, behind));
                    work.push(next);
                }
                Some(before) if before == (root, behind) => {}
                Some(_) => {
                    conflicts.insert(next);
                }
            }
        }
    }
    (place, conflicts)
}

/// Orders the regions and finds their loops; fails with the headers that must be roots first.
fn find_loops(code: &Blocks, roots: &[bool], place: Place) -> Result<Flow, Vec<usize>> {
    let count = code.blocks.len();
    let mut flow = Flow {
        regions: Vec::new(),
        place: vec![None; count],
        loops: vec![None; count],
        depth: vec![0; count],
    };
    let mut more = Vec::new();
    let mut order = vec![usize::MAX; count];
    let mut before: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut budget = LOOP_BUDGET * count + 1024;
    for root in (0..count).filter(|block| roots[*block]) {
        let inside = |from: usize, to: usize| {
            let height = place[from].map(|(_, height)| height + code.blocks[from].delta);
            place[to].is_some_and(|(of, at)| of == root && Some(at) == height)
        };
        let blocks = reverse_postorder(code, root, &inside);
        for (index, block) in blocks.iter().enumerate() {
            order[*block] = index;
        }
        let mut headers = BTreeSet::new();
        for block in &blocks {
            for next in successors(code, *block).into_iter().flatten() {
                if inside(*block, next) {
                    before[next].push(*block);
                    if order[next] <= order[*block] {
                        headers.insert(next);
                    }
                }
            }
        }
        for header in headers {
            let (_, at_header) = place[header].unwrap_or((root, 0));
            let mut body = BTreeSet::from([header]);
            let mut work: Vec<usize> = before[header]
                .iter()
                .copied()
                .filter(|from| order[*from] >= order[header])
                .collect();
            let mut natural = true;
            while let Some(block) = work.pop() {
                if !body.insert(block) {
                    continue;
                }
                if block == root || budget == 0 {
                    // Not every way into the loop passes the header, or there is too much to look at.
                    natural = false;
                    break;
                }
                budget -= 1;
                work.extend(&before[block]);
            }
            if !natural && header != root {
                more.push(header);
                continue;
            }
            if !natural {
                // A root whose loop is not looked at: words are written back at every turn.
                continue;
            }
            let mut changed = BTreeSet::new();
            for block in &body {
                flow.depth[*block] = flow.depth[*block].saturating_add(1);
                let (_, at) = place[*block].unwrap_or((root, at_header));
                changed.extend(code.blocks[*block].changed.iter().map(|slot| slot + at));
            }
            flow.loops[header] = Some(Loop {
                changed: changed.into_iter().collect(),
            });
        }
        let region = flow.regions.len();
        let (mut needs, mut grows) = (0, 0);
        for block in &blocks {
            let (_, at) = place[*block].unwrap_or((root, 0));
            flow.place[*block] = Some((region, at));
            needs = needs.max(code.blocks[*block].needs - at);
            grows = grows.max(code.blocks[*block].grows + at);
        }
        flow.regions.push(Region {
            blocks,
            needs,
            grows,
        });
    }
    if more.is_empty() { Ok(flow) } else { Err(more) }
}

fn reverse_postorder(
    code: &Blocks,
    root: usize,
    inside: &impl Fn(usize, usize) -> bool,
) -> Vec<usize> {
    let mut seen = BTreeSet::from([root]);
    let mut order = Vec::new();
    let mut stack = vec![(root, 0)];
    while let Some((block, next)) = stack.last_mut() {
        let block = *block;
        let follows = successors(code, block);
        match follows.get(*next) {
            Some(successor) => {
                *next += 1;
                if let Some(successor) = *successor
                    && inside(block, successor)
                    && seen.insert(successor)
                {
                    stack.push((successor, 0));
                }
            }
            None => {
                order.push(block);
                stack.pop();
            }
        }
    }
    order.reverse();
    order
}
