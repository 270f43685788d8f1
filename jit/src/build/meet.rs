//! Where ways meet: joins, loop headers, and the edges that lead to them.

use super::{Arrival, Builder, Kept, STACK, WIDE};
use crate::abi::Leave;
use crate::ir::{Binary, Def, Edge, Entry, Statement, Target, Terminator, Value};
use crate::state::{Slot, State};

impl Builder<'_> {
    pub(super) fn edge_mut(&mut self, arrival: &Arrival) -> Option<&mut Edge> {
        match &mut self.region.blocks[arrival.from].1.terminator {
            Terminator::Goto(edge) => Some(edge),
            Terminator::If {
                then, otherwise, ..
            } => Some(if arrival.second { otherwise } else { then }),
            Terminator::Jump {
                condition: Some((_, edge)),
                ..
            } => Some(edge),
            Terminator::Jump { .. } | Terminator::End => None,
        }
    }

    /// A slot goes to the stack on every way on which it is not there.
    pub(super) fn write_back(&mut self, slot: i32, arrivals: &[Arrival]) {
        for arrival in arrivals {
            if let Some(write) = arrival.state.write(slot, &self.region)
                && let Some(edge) = self.edge_mut(arrival)
            {
                edge.writes.push(write);
            }
        }
    }

    /// A slot becomes a parameter; where it has more bits than the parameter, the way is guarded.
    pub(super) fn pass(&mut self, slot: i32, bits: usize, arrivals: &[Arrival]) -> Value {
        for arrival in arrivals {
            let value = match arrival.state.get(slot) {
                Slot::Value { value, .. } => value,
                Slot::Stack(bits) => {
                    let value = self.region.push(Def::Slot(slot), bits.into());
                    let block = &mut self.region.blocks[arrival.from].1;
                    block.statements.push(Statement::Let(value));
                    value
                }
            };
            let guarded = self.region.bits(value) > bits;
            let escape = guarded.then(|| arrival.state.writes(&self.region));
            if let Some(edge) = self.edge_mut(arrival) {
                edge.args.push(value);
                if let Some(escape) = escape {
                    edge.guards.push(value);
                    edge.escape = escape;
                }
            }
        }
        self.region.push(Def::Param, bits)
    }

    pub(super) fn join(
        &mut self,
        height: i32,
        arrivals: Vec<Arrival>,
        params: &mut Vec<Value>,
    ) -> State {
        let mut state = State::at(height);
        let states = || arrivals.iter().map(|arrival| &arrival.state);
        let low = states().map(State::low).min().unwrap_or(height);
        let mut wide = 0;
        for slot in low..height {
            let first = arrivals[0].state.get(slot);
            let all = |test: &dyn Fn(Slot) -> bool| states().all(|state| test(state.get(slot)));
            let bits = states()
                .map(|state| state.get(slot).bits(&self.region))
                .max()
                .unwrap_or(256);
            let entry = if let Slot::Value { value, .. } = first
                && all(&|entry| entry.value() == Some(value))
            {
                let clean = all(&|entry| !entry.is_dirty());
                Slot::Value { value, clean }
            } else if all(&|entry| !entry.is_dirty()) {
                Slot::Stack(bits as u16)
            } else if all(&|entry| entry.value().is_some())
                && (bits <= 64 || self.in_loop && wide < WIDE)
            {
                wide += usize::from(bits > 64);
                let value = self.pass(slot, bits, &arrivals);
                params.push(value);
                Slot::Value {
                    value,
                    clean: false,
                }
            } else {
                self.write_back(slot, &arrivals);
                Slot::Stack(bits as u16)
            };
            if entry != Slot::Stack(256) {
                state.set(slot, entry);
            }
        }
        state.memory = states().map(|state| state.memory).min().unwrap_or(0);
        state.words = arrivals[0].state.words.clone();
        state
            .words
            .retain(|word| states().all(|state| state.words.contains(word)));
        state
    }

    pub(super) fn header(
        &mut self,
        block: usize,
        changed: &[i32],
        height: i32,
        arrivals: Vec<Arrival>,
    ) -> (State, Entry) {
        let mut state = State::at(height);
        let mut entry = Entry::default();
        let mut kept = Vec::new();
        let states = || arrivals.iter().map(|arrival| &arrival.state);
        let low = states()
            .map(State::low)
            .chain(changed.first().copied())
            .chain(self.read.iter().copied())
            .min()
            .unwrap_or(height);
        let distrusted = self.distrusts(block);
        let mut wide = 0;
        for slot in low..height {
            let read = self.read.contains(&slot);
            let bits = states()
                .map(|state| state.get(slot).bits(&self.region))
                .max()
                .unwrap_or(256);
            let place = (block, slot);
            let narrow = !self.all_wide
                && !distrusted
                && !self.wide.contains(&place)
                && (bits <= 64
                    || self.counters.contains(&place) && !self.begins_wide(slot, &arrivals));
            let known = arrivals
                .first()
                .and_then(|first| first.state.get(slot).value())
                .filter(|value| {
                    !distrusted
                        && self.region.constant(*value).is_some()
                        && states().all(|state| state.get(slot).value() == Some(*value))
                });
            let keep = if !read {
                Kept::Stack
            } else if changed.binary_search(&slot).is_err() {
                match known {
                    Some(value) => {
                        let clean = states().all(|state| !state.get(slot).is_dirty());
                        state.set(slot, Slot::Value { value, clean });
                        entry.consts.push((slot, value));
                        Kept::Known(clean)
                    }
                    None if narrow && bits <= 64 => Kept::Param(self.pass(slot, 64, &arrivals)),
                    None => Kept::Stack,
                }
            } else if narrow {
                Kept::Param(self.pass(slot, 64, &arrivals))
            } else if wide < WIDE {
                wide += 1;
                Kept::Param(self.pass(slot, 256, &arrivals))
            } else {
                Kept::Stack
            };
            match keep {
                Kept::Param(value) => {
                    entry.params.push((slot, value));
                    let clean = false;
                    state.set(slot, Slot::Value { value, clean });
                }
                Kept::Stack => self.write_back(slot, &arrivals),
                Kept::Known(_) => {}
            }
            kept.push((slot, keep));
        }
        state.memory = states().map(|state| state.memory).min().unwrap_or(0);
        if distrusted {
            state.memory = 0;
        }
        entry.memory = state.memory;
        self.headers.insert(block, kept);
        (state, entry)
    }

    /// The way back to a loop's header.
    pub(super) fn back_edge(&mut self, block: usize, state: State) -> Edge {
        let mut edge = self.plain(Target::Block(block), &state);
        let kept = self.headers.get(&block).cloned().unwrap_or_default();
        let mut guarded = self.options.stress;
        for (slot, keep) in kept {
            let held = state.get(slot);
            match keep {
                Kept::Stack | Kept::Known(true) => {
                    edge.writes.extend(state.write(slot, &self.region));
                }
                Kept::Known(false) => {}
                Kept::Param(param) => {
                    let value = match held {
                        Slot::Value { value, .. } => value,
                        Slot::Stack(bits) => self.fold().define(Def::Slot(slot), bits.into()),
                    };
                    let place = (block, slot);
                    if self.region.bits(param) > 64
                        && !self.distrusts(block)
                        && !self.wide.contains(&place)
                        && self.steps(value, param)
                    {
                        self.counting.insert(place);
                    }
                    if self.region.bits(value) > self.region.bits(param) {
                        if self.counts(value) {
                            guarded = true;
                            edge.guards.push(value);
                        } else {
                            self.wider.insert(place);
                        }
                    }
                    edge.args.push(value);
                }
            }
        }
        if guarded {
            edge.escape = state.writes(&self.region);
        }
        edge
    }

    /// Whether the guards of a loop were seen to fail: then nothing is taken for granted there.
    fn distrusts(&self, header: usize) -> bool {
        let profile = self.options.profile;
        profile.is_some_and(|profile| profile.distrusts(self.code.blocks[header].pc))
    }

    /// Whether a word is one of one limb with a small constant added or subtracted: it will not need a second limb
    /// before the sun burns out.
    pub(super) fn counts(&self, value: Value) -> bool {
        self.stepped(value)
            .is_some_and(|from| self.region.bits(from) <= 64)
    }

    /// Whether a word is another with a small constant added or subtracted.
    pub(super) fn steps(&self, value: Value, from: Value) -> bool {
        self.stepped(value)
            .is_some_and(|word| word == from || self.region.definition(word) == Def::Narrow(from))
    }

    /// The word that this one is with a small constant added or subtracted.
    fn stepped(&self, value: Value) -> Option<Value> {
        let Def::Binary(binary @ (Binary::Add | Binary::Sub), x, y) = self.region.definition(value)
        else {
            return None;
        };
        let small = |value: Value| {
            self.region
                .constant(value)
                .is_some_and(|word| word.bit_len() <= 32)
        };
        match binary {
            _ if small(y) => Some(x),
            Binary::Add if small(x) => Some(y),
            _ => None,
        }
    }

    /// Whether a slot is known to need more than one limb on some way: a counter that begins below zero, for one.
    pub(super) fn begins_wide(&self, slot: i32, arrivals: &[Arrival]) -> bool {
        arrivals.iter().any(|arrival| {
            let value = arrival.state.get(slot).value();
            value
                .and_then(|value| self.region.constant(value))
                .is_some_and(|word| word.bit_len() > 64)
        })
    }

    pub(super) fn plain(&self, target: Target, state: &State) -> Edge {
        Edge {
            target,
            height: state.height,
            writes: Vec::new(),
            args: Vec::new(),
            guards: Vec::new(),
            escape: Vec::new(),
        }
    }

    /// A way out of the region.
    pub(super) fn outward(&self, target: Target, state: &State) -> Edge {
        let mut edge = self.plain(target, state);
        edge.writes = state.writes(&self.region);
        edge
    }

    /// A way that [`crate::flow`] knows.
    pub(super) fn edge(&mut self, target: usize, state: State, second: bool) -> Edge {
        if target >= self.code.blocks.len() {
            return self.outward(Target::Leave(self.code_len, Leave::Opcode), &state);
        }
        let looped = self.flow.loops[target].is_some();
        let root = self.flow.place[target]
            .is_some_and(|(region, _)| self.flow.regions[region].blocks.first() == Some(&target));
        if self.flow.place[target] == Some((self.index, state.height)) && (!root || looped) {
            if self.headers.contains_key(&target) {
                return self.back_edge(target, state);
            }
            let edge = self.plain(Target::Block(target), &state);
            let from = self.region.blocks.len() - 1;
            self.arrivals.entry(target).or_default().push(Arrival {
                from,
                second,
                state,
            });
            return edge;
        }
        self.outside(target, &state)
    }

    /// A way to a block as anybody from outside its region takes it.
    pub(super) fn outside(&self, target: usize, state: &State) -> Edge {
        let (root, never) = self.flow.place[target].map_or((false, true), |(region, _)| {
            let region = &self.flow.regions[region];
            let root = region.blocks.first() == Some(&target);
            (root, region.grows > STACK || region.needs > STACK)
        });
        if root || self.flow.loops[target].is_some() && !never {
            return self.outward(Target::Root(target), state);
        }
        self.outward(
            Target::Leave(self.code.blocks[target].pc, Leave::Jump),
            state,
        )
    }
}
